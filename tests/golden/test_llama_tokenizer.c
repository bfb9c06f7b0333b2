/* The LLaMA tokenizer in its three files against sentencepiece, the slow LlamaTokenizer and tokenizers, on 602 lines. Those files
 * are under LLaMA's licence and no part of the repository: the test reads ../shared, and is skipped where that is not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/there.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/gguf_write.h"
#include "core/io/tokenizer.h"

#define SHARED "../shared/"
#define LINES  SHARED "golden/tokenizer/lines.json.gz"
#define GOLDEN SHARED "golden/tokenizer/llama.json.gz"
#define FILES  SHARED "data/tokenizer_llama/"

static json_t *lines, *golden;

static json_t *load(const char *path)
{
    struct err err = {0};
    json_t *v = json_read(path, &err);
    if (!v)
        fail_msg("%s", err.msg);
    return v;
}

static int set_up(void **state)
{
    (void)state;
    lines = load(LINES);
    golden = load(GOLDEN);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(lines);
    json_decref(golden);
    return 0;
}

static struct tokenizer *open_file(const char *path, bool legacy)
{
    struct tokenizer *t;
    struct err err = {0};
    if ((legacy ? tokenizer_open_legacy : tokenizer_open)(&t, path, &err) != 0)
        fail_msg("%s", err.msg);
    return t;
}

/* Every line's ids are those under `key`; where there are `key`_decoded texts, so are the texts on the way back. */
static void compare(const char *path, bool legacy, const char *key)
{
    struct tokenizer *t = open_file(path, legacy);
    json_t *all = json_object_get(golden, key), *line;
    char name[32], number[24], *text;
    size_t i, n_text;
    snprintf(name, sizeof name, "%s_decoded", key);
    const json_t *decoded = json_object_get(golden, name);
    assert_int_equal(json_array_size(all), 602);
    json_array_foreach(json_object_get(lines, "lines"), i, line) {
        struct err err = {0};
        struct ids ids = {0};
        const json_t *want = json_array_get(all, i);
        assert_int_equal(tokenizer_encode(&ids, t, json_string_value(line), json_string_length(line), &err), 0);
        bool same = ids.n == json_array_size(want);
        for (size_t k = 0; same && k < ids.n; k++)
            same = ids.ids[k] == json_integer_value(json_array_get(want, k));
        if (!same)
            fail_msg("%s: line %zu: other ids: %s", path, i, json_string_value(line));
        snprintf(number, sizeof number, "%zu", i);
        const json_t *back = json_object_get(decoded, number) ? json_object_get(decoded, number) : line;
        assert_int_equal(tokenizer_decode(&text, &n_text, t, ids.ids, ids.n, &err), 0);
        if (decoded && (n_text != json_string_length(back) || memcmp(text, json_string_value(back), n_text)))
            fail_msg("%s: line %zu: other text: %s", path, i, text);
        free(text);
        free(ids.ids);
    }
    tokenizer_free(t);
}

static void sentencepiece(void **state)
{
    (void)state;
    compare(FILES "tokenizer.model", false, "sp");
}

static void slow_legacy(void **state)
{
    (void)state;
    compare(FILES "tokenizer.model", true, "legacy");
}

static void fast(void **state)
{
    (void)state;
    compare(FILES "tokenizer.json", false, "fast");
}

static void gguf(void **state)
{
    (void)state;
    compare(FILES "ggml-vocab-llama-spm.gguf", false, "legacy");
}

/* A GGUF of a tokenizer's own: special tokens divide a text there as the old slow tokenizer has it. */
static void as_gguf(const char *from)
{
    char path[64];
    struct gguf_writer w;
    struct err err = {0};
    struct tokenizer *t = open_file(from, false);
    snprintf(path, sizeof path, "/tmp/espalier-test-%d.gguf", (int)getpid());
    if (gguf_writer_open(&w, path, &err) != 0 || tokenizer_put_gguf(t, &w, tokenizer_vocab_size(t), &err) != 0 ||
        gguf_writer_tensors(&w, NULL, 0, &err) != 0 || gguf_writer_commit(&w, &err) != 0)
        fail_msg("%s", err.msg);
    tokenizer_free(t);
    compare(path, false, "legacy");
    unlink(path);
}

static void written_to_gguf(void **state)
{
    (void)state;
    as_gguf(FILES "tokenizer.model");
    as_gguf(FILES "tokenizer.json");
    as_gguf(FILES "ggml-vocab-llama-spm.gguf");
}

int main(void)
{
    if (!path_exists(LINES) || !path_exists(GOLDEN) || !path_exists(FILES)) {
        printf("SKIP: no " SHARED " with the LLaMA tokenizer\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(sentencepiece), cmocka_unit_test(slow_legacy), cmocka_unit_test(fast),
                                       cmocka_unit_test(gguf), cmocka_unit_test(written_to_gguf)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
