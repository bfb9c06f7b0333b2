/* Byte-level BPE on a tokenizer small enough to work out by hand. Expected ids were worked out from the merge list, not taken
 * from the program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/io/tokenizer.h"

/* 0 a, 1 b, 2 c, 3 blank, 4 line break, 5 '1', 6 '2', 7 ab, 8 bc, 9 abc, 10 blank+ab, 11 byte C3, 12 byte A9, 13 é, 14 11,
 * 18 byte 82; added: 15 <s>, 16 <s><w>, 17 é<. Merges in rank order: bc, ab, abc from a+bc, blank+ab, é, 11. There is no token
 * for 'z'. */
static const char vocabulary[] =
    "{\"a\":0,\"b\":1,\"c\":2,\"\\u0120\":3,\"\\u010a\":4,\"1\":5,\"2\":6,\"ab\":7,\"bc\":8,\"abc\":9,\"\\u0120ab\":10,"
    "\"\\u00c3\":11,\"\\u00a9\":12,\"\\u00c3\\u00a9\":13,\"11\":14,\"\\u0124\":18}";
static const char merge_list[] = "[\"b c\",\"a b\",[\"a\",\"bc\"],\"\\u0120 ab\",\"\\u00c3 \\u00a9\",\"1 1\"]";
static const char added_list[] =
    "[{\"id\":15,\"content\":\"<s>\",\"special\":true,\"normalized\":false,\"lstrip\":false,\"rstrip\":true,\"single_word\":false},"
    "{\"id\":16,\"content\":\"<s><w>\",\"special\":false,\"normalized\":false,\"lstrip\":true,\"rstrip\":false,\"single_word\":"
    "false},"
    "{\"id\":17,\"content\":\"\\u00e9<\",\"special\":false,\"normalized\":false}]";
static const char digits_then_bytes[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}]}";
static const char no_split[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}";

struct scratch {
    char dir[64];
    char file[96];
};

static int set_up(void **state)
{
    struct scratch *s = calloc(1, sizeof *s);
    if (!s)
        return -1;
    *state = s;
    strcpy(s->dir, "/tmp/espalier-tokenizer-XXXXXX");
    if (!mkdtemp(s->dir))
        return -1;
    snprintf(s->file, sizeof s->file, "%s/tokenizer.json", s->dir);
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "copy/tokenizer.json",
                                        "copy/tokenizer_config.json", "copy"};
    struct scratch *s = *state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[160];
        snprintf(path, sizeof path, "%s/%s", s->dir, names[i]);
        remove(path);
    }
    rmdir(s->dir);
    free(s);
    return 0;
}

static void write_text(const char *path, const char *text)
{
    struct err err = {0};
    assert_int_equal(file_write(path, text, strlen(text), &err), 0);
}

static void write_tokenizer(const struct scratch *s, const char *pre, const char *vocab, const char *merges, const char *added,
                            const char *more)
{
    char text[4096];
    int n = snprintf(text, sizeof text,
                     "{\"version\":\"1.0\",\"added_tokens\":%s,\"normalizer\":null,\"pre_tokenizer\":%s,\"post_processor\":null,"
                     "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",%s\"vocab\":%s,\"merges\":%s}}",
                     added, pre, more, vocab, merges);
    assert_in_range(n, 1, sizeof text - 1);
    write_text(s->file, text);
}

static struct tokenizer *open_with(const struct scratch *s, const char *pre, const char *more)
{
    struct tokenizer *t;
    struct err err = {0};
    write_tokenizer(s, pre, vocabulary, merge_list, added_list, more);
    if (tokenizer_open(&t, s->dir, &err) != 0)
        fail_msg("%s", err.msg);
    return t;
}

typedef int encode_fn(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err);

static void expect_by(encode_fn *encode, const struct tokenizer *t, const char *text, size_t n_text, size_t n, const int32_t *ids)
{
    struct ids out = {0};
    struct err err = {0};
    assert_int_equal(encode(&out, t, text, n_text, &err), 0);
    assert_int_equal(out.n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(out.ids[i], ids[i]);
    free(out.ids);
}

static void expect_ids(const struct tokenizer *t, const char *text, size_t n_text, size_t n, const int32_t *ids)
{
    expect_by(tokenizer_encode, t, text, n_text, n, ids);
}

#define EXPECT_BY(encode, t, text, ...)                                                                                            \
    expect_by(encode, t, text, sizeof(text) - 1, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t), (int32_t[]){__VA_ARGS__})
#define EXPECT(t, text, ...) EXPECT_BY(tokenizer_encode, t, text, __VA_ARGS__)

static void merges_go_by_rank(void **state)
{
    struct tokenizer *t = open_with(*state, digits_then_bytes, "");
    EXPECT(t, "abc", 9); /* bc first, then a+bc: never ab */
    EXPECT(t, "ab", 7);
    EXPECT(t, "abab", 7, 7);
    EXPECT(t, " ab ab", 10, 10); /* a blank starts a word */
    EXPECT(t, "  ab", 3, 10);
    EXPECT(t, "bcbc", 8, 8);
    expect_ids(t, "", 0, 0, NULL);
    tokenizer_free(t);
}

static void digits_stand_alone(void **state)
{
    struct tokenizer *t = open_with(*state, digits_then_bytes, "");
    EXPECT(t, "a11 1", 0, 5, 5, 3, 5); /* also apart from the blank before */
    tokenizer_free(t);
    t = open_with(*state, no_split, "");
    EXPECT(t, "a11 1", 0, 14, 3, 5);
    EXPECT(t, "111", 14, 5); /* of equal ranks the leftmost */
    tokenizer_free(t);
}

static void added_tokens_come_first(void **state)
{
    struct tokenizer *t = open_with(*state, digits_then_bytes, "");
    EXPECT(t, "a<s>b", 0, 15, 1);
    EXPECT(t, "a<s> \nb", 0, 15, 1);      /* rstrip takes the blanks after it */
    EXPECT(t, "a <s><w> b", 0, 16, 3, 1); /* the longest one, whose lstrip takes the blank before it */
    EXPECT(t, "<s><s>", 15, 15);
    tokenizer_free(t);
}

static void special_tokens_may_be_text(void **state)
{
    struct tokenizer *t = open_with(*state, digits_then_bytes, "");
    EXPECT_BY(tokenizer_encode_literal, t, "a<s> b", 0, 3, 1);         /* '<', 's' and '>' have no token */
    EXPECT_BY(tokenizer_encode_literal, t, "a <s><w> b", 0, 16, 3, 1); /* not special, so found as ever */
    tokenizer_free(t);
}

static void unknown_bytes_vanish(void **state)
{
    struct tokenizer *t = open_with(*state, digits_then_bytes, "");
    EXPECT(t, "azb", 7); /* as in the reference, the bytes around it become neighbours */
    expect_ids(t, "zz", 2, 0, NULL);
    tokenizer_free(t);
    t = open_with(*state, digits_then_bytes, "\"unk_token\":\"<s>\",\"fuse_unk\":true,");
    EXPECT(t, "azzb", 0, 15, 1);
    tokenizer_free(t);
}

static void whole_words_may_skip_merges(void **state)
{
    const struct scratch *s = *state;
    struct tokenizer *t;
    struct err err = {0};
    /* without the merge a+bc the word "abc" stays in two parts, unless whole words are looked up first */
    for (int ignore = 0; ignore < 2; ignore++) {
        write_tokenizer(s, digits_then_bytes, vocabulary, "[\"b c\"]", "[]", ignore ? "\"ignore_merges\":true," : "");
        assert_int_equal(tokenizer_open(&t, s->file, &err), 0);
        if (ignore)
            EXPECT(t, "abc", 9);
        else
            EXPECT(t, "abc", 0, 8);
        tokenizer_free(t);
    }
}

static void invalid_utf8_round_trips(void **state)
{
    struct tokenizer *t = open_with(*state, digits_then_bytes, "");
    EXPECT(t, "\xC3\xA9", 13);
    EXPECT(t, "a\xC3", 0, 11);
    EXPECT(t, "\x82", 18);
    EXPECT(t, "\xA9\xC3\xC3\xA9", 12, 11, 13); /* two invalid bytes, then a whole character */
    const char text[] = "ab\xC3 \xA9\xA9\xC3\xA9";
    struct ids ids = {0};
    struct err err = {0};
    char *back;
    size_t n;
    assert_int_equal(tokenizer_encode(&ids, t, text, sizeof text - 1, &err), 0);
    assert_int_equal(tokenizer_decode(&back, &n, t, ids.ids, ids.n, &err), 0);
    assert_int_equal(n, sizeof text - 1);
    assert_memory_equal(back, text, sizeof text);
    free(back);
    free(ids.ids);
    tokenizer_free(t);
}

/* The heap for long words and the scan for short ones must agree: every 3 bytes "abc" merge to one token on both ways. */
static void long_words_merge_alike(void **state)
{
    enum { N = 300000 };
    struct tokenizer *t = open_with(*state, no_split, "");
    char *text = malloc(N);
    for (size_t i = 0; i < N; i++)
        text[i] = "abc"[i % 3];
    struct ids ids = {0};
    struct err err = {0};
    assert_int_equal(tokenizer_encode(&ids, t, text, N, &err), 0);
    assert_int_equal(ids.n, N / 3);
    for (size_t i = 0; i < ids.n; i++)
        assert_int_equal(ids.ids[i], 9);
    free(ids.ids);
    free(text);
    tokenizer_free(t);
}

static void decoding_checks_ids(void **state)
{
    struct tokenizer *t = open_with(*state, digits_then_bytes, "");
    const int32_t good[] = {15, 10, 4, 17}, bad[][1] = {{19}, {-1}};
    char *text;
    size_t n;
    struct err err = {0};
    assert_int_equal(tokenizer_decode(&text, &n, t, good, 4, &err), 0);
    assert_string_equal(text, "<s> ab\n\xC3\xA9<"); /* an added token is its own text, not the alphabet's byte E9 */
    free(text);
    for (int i = 0; i < 2; i++) {
        err = (struct err){0};
        assert_int_equal(tokenizer_decode(&text, &n, t, bad[i], 1, &err), -1);
        assert_non_null(strstr(err.msg, "no token"));
    }
    tokenizer_free(t);
}

static void chat_and_save(void **state)
{
    const struct scratch *s = *state;
    char path[128], copy[96];
    snprintf(path, sizeof path, "%s/tokenizer_config.json", s->dir);
    snprintf(copy, sizeof copy, "%s/copy", s->dir);
    write_text(
        path, "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"<s><w>\"},\"add_bos_token\":true,\"chat_template\":"
              "\"{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
              "'<|im_start|>system\\nIt\\\\'s you"
              "<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
              "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\"}");
    struct tokenizer *t = open_with(s, digits_then_bytes, "");
    struct err err = {0};
    assert_int_equal(tokenizer_save(t, copy, &err), 0);
    tokenizer_free(t);
    assert_int_equal(tokenizer_open(&t, copy, &err), 0);
    assert_int_equal(tokenizer_bos(t), 15);
    assert_int_equal(tokenizer_eos(t), 16);
    assert_int_equal(tokenizer_pad(t), -1);
    assert_true(tokenizer_adds_bos(t));
    assert_int_equal(tokenizer_vocab_size(t), 19);
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "Hi");
    char *text;
    assert_int_equal(tokenizer_chat(&text, t, messages, true, &err), 0);
    assert_string_equal(text, "<|im_start|>system\nIt's you<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    free(text);
    json_decref(messages);
    tokenizer_free(t);
}

static void expect_refusal(const struct scratch *s, const char *what)
{
    struct tokenizer *t;
    struct err err = {0};
    assert_int_equal(tokenizer_open(&t, s->file, &err), -1);
    assert_null(t);
    if (!strstr(err.msg, what) || strchr(err.msg, '\n'))
        fail_msg("expected \"%s\" in: %s", what, err.msg);
}

static void bad_files_are_refused(void **state)
{
    static const struct {
        const char *pre, *vocab, *merges, *added, *more, *what;
    } cases[] = {
        {no_split, "{\"a\":0,\"b\":0}", "[]", "[]", "", "twice"},
        {no_split, "{\"a\":-1}", "[]", "[]", "", "id"},
        {no_split, "{\"a\":99999999999}", "[]", "[]", "", "ids"},
        {no_split, "{\"a\":1.5}", "[]", "[]", "", "whole number"},
        {no_split, "[]", "[]", "[]", "", "vocab"},
        {no_split, "{}", "[]", "[]", "", "ids"},
        {no_split, "{\"a\":0}", "[\"a b\"]", "[]", "", "lacks"},
        {no_split, "{\"a\":0}", "[\"a a\"]", "[]", "", "lacks"},
        {no_split, "{\"a\":0}", "[\"aa\"]", "[]", "", "space"},
        {no_split, "{\"a\":0}", "[[\"a\"]]", "[]", "", "pair"},
        {no_split, "{\"a\":0}", "7", "[]", "", "merges"},
        {no_split, "{\"a\":0}", "[]", "[{\"id\":\"0\"}]", "", "added_tokens"},
        {no_split, "{\"a\":0}", "[]", "[{\"id\":1,\"content\":\"a\"}]", "", "added token"},
        {no_split, "{\"a\":0}", "[]", "[{\"id\":1,\"content\":\"\"}]", "", "empty"},
        {no_split, "{\"a\":0}", "[]", "[]", "\"byte_fallback\":true,", "byte_fallback"},
        {no_split, "{\"a\":0}", "[]", "[]", "\"unk_token\":\"x\",", "unknown token"},
        {"{\"type\":\"Metaspace\"}", "{\"a\":0}", "[]", "[]", "", "Metaspace"},
        {"null", "{\"a\":0}", "[]", "[]", "", "ByteLevel"},
        {"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"},"
         "{\"type\":\"ByteLevel\"}]}",
         "{\"a\":0}", "[]", "[]", "", "pattern"},
    };
    const struct scratch *s = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_tokenizer(s, cases[i].pre, cases[i].vocab, cases[i].merges, cases[i].added, cases[i].more);
        expect_refusal(s, cases[i].what);
    }
    write_text(s->file, "[1, 2]");
    expect_refusal(s, "model");
    write_text(s->file, "");
    expect_refusal(s, "JSON");
}

/* Every prefix of a good file is bad. */
static void truncated_files_are_refused(void **state)
{
    const struct scratch *s = *state;
    char *text;
    size_t n;
    struct err err = {0};
    write_tokenizer(s, digits_then_bytes, vocabulary, merge_list, added_list, "");
    assert_int_equal(file_read(&text, &n, s->file, &err), 0);
    for (size_t k = n; k-- > 0;) {
        text[k] = 0;
        write_text(s->file, text);
        expect_refusal(s, "JSON");
    }
    free(text);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(merges_go_by_rank),        TEST(digits_stand_alone),
        TEST(added_tokens_come_first),  TEST(special_tokens_may_be_text),
        TEST(unknown_bytes_vanish),     TEST(whole_words_may_skip_merges),
        TEST(invalid_utf8_round_trips), TEST(long_words_merge_alike),
        TEST(decoding_checks_ids),      TEST(chat_and_save),
        TEST(bad_files_are_refused),    TEST(truncated_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
