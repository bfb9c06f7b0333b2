/* Tokenizers of the LLaMA kind on files small enough to read (tests/tiny_llama.h).
 * Expected ids and texts are what sentencepiece 0.2.3 and tokenizers 0.23.3 gave for the very files that this test writes. */
#include "tests/there.h"
#include "tests/tiny_llama.h"

#include <jansson.h>
#include <math.h>

#include "core/io/tokenizer.h"

/* ---- opening and comparing ---- */

static struct tokenizer *open_spm(const struct spm *k)
{
    struct tokenizer *t;
    write_spm(in_scratch("tokenizer.model"), k);
    OK(tokenizer_open(&t, in_scratch("tokenizer.model"), &err));
    return t;
}

static struct tokenizer *open_llama_json(const struct llama_json *j)
{
    struct tokenizer *t;
    write_llama_json(in_scratch("tokenizer.json"), j);
    OK(tokenizer_open(&t, in_scratch("tokenizer.json"), &err));
    return t;
}

typedef int encode_fn(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err);

static void expect_by(encode_fn *encode, const struct tokenizer *t, const char *text, size_t n_text, size_t n, const int32_t *ids)
{
    struct ids out = {0};
    struct buf seen = {0};
    OK(encode(&out, t, text, n_text, &err));
    for (size_t i = 0; i < out.n; i++)
        buf_text(&seen, " %d", out.ids[i]);
    if (out.n != n || (n && memcmp(out.ids, ids, n * sizeof *ids)))
        fail_msg("\"%s\":%s", text, seen.p);
    buf_free(&seen);
    free(out.ids);
}

static void expect_ids(const struct tokenizer *t, const char *text, size_t n_text, size_t n, const int32_t *ids)
{
    expect_by(tokenizer_encode, t, text, n_text, n, ids);
}

#define EXPECT_BY(encode, t, text, ...)                                                                                            \
    expect_by(encode, t, text, sizeof(text) - 1, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t), (int32_t[]){__VA_ARGS__})
#define EXPECT(t, text, ...) EXPECT_BY(tokenizer_encode, t, text, __VA_ARGS__)

static void expect_text(const struct tokenizer *t, const char *want, size_t n_want, size_t n, const int32_t *ids)
{
    char *text;
    size_t n_text;
    OK(tokenizer_decode(&text, &n_text, t, ids, n, &err));
    if (n_text != n_want || memcmp(text, want, n_want))
        fail_msg("\"%s\" for \"%s\"", text, want);
    free(text);
}

#define DECODES(t, text, ...)                                                                                                      \
    expect_text(t, text, sizeof(text) - 1, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t), (int32_t[]){__VA_ARGS__})

/* ---- SentencePiece ---- */

static void pieces_by_score(void **state)
{
    (void)state;
    struct tokenizer *t = open_spm(&(struct spm){0});
    assert_string_equal(tokenizer_kind(t), "sentencepiece");
    assert_int_equal(tokenizer_vocab_size(t), 259 + N_PIECES);
    expect_ids(t, "", 0, 0, NULL);
    EXPECT(t, "abc", 259, 266); /* ab before bc: the leftmost of equals */
    EXPECT(t, "aabc ab", 267, 266, 268);
    EXPECT(t, "ab ab", 268, 268);
    EXPECT(t, "   ", 270, 259); /* a run of equals grows from the left */
    EXPECT(t, "      a", 270, 270, 267);
    EXPECT(t, "a" BLANK "b", 267, 259, 261);
    EXPECT(t, "<s>", 259, 63, 118, 65); /* text like any other */
    tokenizer_free(t);
}

static void unused_and_user_defined_pieces(void **state)
{
    (void)state;
    struct tokenizer *t = open_spm(&(struct spm){0});
    EXPECT(t, "ca", 259, 262, 260);
    EXPECT(t, "cac", 259, 272);
    EXPECT(t, "caca", 259, 262, 260, 262, 260);
    EXPECT(t, "bcab", 259, 261, 262, 260, 261); /* the unused one takes both from their better-known neighbours */
    EXPECT(t, "d", 259, 103);
    EXPECT(t, "a<u>b", 267, 273, 261);
    EXPECT(t, "<ub<u>", 259, 274, 273);
    EXPECT(t, "<u>cac", 259, 273, 272);
    EXPECT(t, "<u>cb", 259, 273, 262, 261);
    tokenizer_free(t);
}

static void unknown_and_invalid_bytes(void **state)
{
    (void)state;
    struct tokenizer *t = open_spm(&(struct spm){0});
    EXPECT(t, "\xC3\xA9\xE2\x82\xACz", 259, 263, 229, 133, 175, 125);
    EXPECT(t, "a\0\n", 267, 3, 13);
    EXPECT(t,
           "a\xFF"
           "b",
           267, 242, 194, 192, 261);
    EXPECT(t, "\xE2\x82", 259, 242, 194, 192, 242, 194, 192);
    EXPECT(t, "\xED\xA0\x80", 259, 242, 194, 192, 242, 194, 192, 242, 194, 192); /* a surrogate */
    tokenizer_free(t);
    t = open_spm(&(struct spm){.no_bytes = true});
    EXPECT(t, "a", 267);
    EXPECT(t,
           "zz\xE2\x82\xAC"
           "a",
           259, 0, 260); /* unknown characters in a row are one token */
    EXPECT(t, "d z d", 259, 0, 259, 0, 259, 0);
    EXPECT(t, "<ubz", 259, 274, 0);
    tokenizer_free(t);
}

static void blanks(void **state)
{
    (void)state;
    struct tokenizer *t = open_spm(&(struct spm){.no_prefix = true, .remove_blanks = true});
    expect_ids(t, " ", 1, 0, NULL);
    EXPECT(t, "  ab   ab  ", 264, 268);
    EXPECT(t, "a", 260);
    EXPECT(t, BLANK "ab" BLANK " ", 268);
    EXPECT(t, " <u> <u> ", 273, 259, 273);
    DECODES(t, "ab", 259, 259, 268);
    tokenizer_free(t);
    t = open_spm(&(struct spm){.remove_blanks = true});
    expect_ids(t, " ", 1, 0, NULL);
    EXPECT(t, "  ab   ab  ", 268, 268);
    EXPECT(t, "\n a", 259, 13, 267);
    tokenizer_free(t);
}

static void legacy_divides_at_special_tokens(void **state)
{
    (void)state;
    struct tokenizer *t;
    write_spm(in_scratch("tokenizer.model"), &(struct spm){0});
    OK(tokenizer_open_legacy(&t, in_scratch("tokenizer.model"), &err));
    expect_ids(t, "", 0, 0, NULL);
    EXPECT(t, "ab<s>ab", 268, 1, 268);
    EXPECT(t, "a <unk> a", 267, 259, 0, 259, 267);
    EXPECT(t, "<s></s>", 1, 2);
    EXPECT(t, "<s> a</s>\n", 1, 259, 267, 2, 259, 13);
    EXPECT(t, "<s", 259, 63, 118);
    EXPECT(t, "<0x41>", 259, 63, 51, 123, 55, 52, 65);
    EXPECT(t, "<u><s>", 259, 273, 1);
    tokenizer_free(t);
}

/* A chat's special tokens count even where those of a text do not. */
static void chats_hold_special_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = open_spm(&(struct spm){0});
    struct ids ids = {0};
    OK(tokenizer_encode_chat(&ids, t, "ab</s>", 6, &err));
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.ids[1], 2);
    free(ids.ids);
    tokenizer_free(t);
}

static void pieces_to_text(void **state)
{
    (void)state;
    struct tokenizer *t = open_spm(&(struct spm){0});
    DECODES(t, "ab ab", 268, 259, 264);
    DECODES(t, " ab", 259, 259, 264); /* one blank is the dummy prefix */
    DECODES(t, "ab", 1, 268, 2);
    DECODES(t, " a", 259, 1, 267);
    DECODES(t, "  ", 270);
    DECODES(t, "ab \xE2\x81\x87 ", 268, 0);
    DECODES(t,
            "\xE2\x82\xAC"
            "ab",
            229, 133, 175, 264);
    DECODES(t,
            "\xEF\xBF\xBD\xEF\xBF\xBD"
            "abA",
            229, 133, 264, 68);
    DECODES(t, "\0\n", 3, 13);
    DECODES(t, "<u> a", 273, 267);
    DECODES(t, "ca", 271);
    struct err err = {0};
    char *text;
    size_t n;
    expect_error(tokenizer_decode(&text, &n, t, (int32_t[]){259 + N_PIECES}, 1, &err), &err, "id 277");
    tokenizer_free(t);
}

/* Where no piece reaches over a blank, and none is unused, a text is taken word by word. */
static void long_texts_as_short_ones(void **state)
{
    (void)state;
    static const struct spm models[] = {
        {.all_used = true}, {.all_used = true, .more = {"c" BLANK, -90, NORMAL}}, {.more = {"c" BLANK, -90, UNUSED}}};
    enum { N = 100000 };
    char *text = malloc(3 * N);
    for (int i = 0; i < N; i++)
        memcpy(text + 3 * i, "ab ", 3);
    for (int k = 0; k < 3; k++) {
        struct tokenizer *t = open_spm(&models[k]);
        struct ids ids = {0};
        if (k == 1)
            EXPECT(t, "c c", 259, 277, 262);
        else
            EXPECT(t, "c c", 259, 262, 259, 262);
        EXPECT(t, "ab   a", 268, 269, 267);
        OK(tokenizer_encode(&ids, t, text, 3 * N - 1, &err));
        assert_int_equal(ids.n, N);
        for (size_t i = 0; i < ids.n; i++)
            assert_int_equal(ids.ids[i], 268);
        free(ids.ids);
        tokenizer_free(t);
    }
    free(text);
}

static void special_ids_and_config(void **state)
{
    (void)state;
    struct tokenizer *t;
    char *dir = scratch_dir("hf");
    write_spm(in_scratch("hf/tokenizer.model"), &(struct spm){0});
    OK(tokenizer_open(&t, dir, &err));
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_int_equal(tokenizer_pad(t), -1);
    assert_true(tokenizer_adds_bos(t));
    tokenizer_free(t);
    write_text(in_scratch("hf/tokenizer_config.json"),
               "{\"add_bos_token\":false,\"bos_token\":\"</s>\",\"pad_token\":{\"content\":\"<unk>\"}}");
    OK(tokenizer_open(&t, dir, &err));
    assert_int_equal(tokenizer_bos(t), 2);
    assert_int_equal(tokenizer_pad(t), 0);
    assert_false(tokenizer_adds_bos(t));
    OK(tokenizer_save(t, in_scratch("copy"), &err));
    tokenizer_free(t);
    struct buf a = read_bytes(in_scratch("hf/tokenizer.model")), b = read_bytes(in_scratch("copy/tokenizer.model"));
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.p, b.p, a.n);
    assert_true(path_exists(in_scratch("copy/tokenizer_config.json")));
    assert_false(path_exists(in_scratch("copy/tokenizer.json")));
    buf_free(&a);
    buf_free(&b);
    /* beside a tokenizer.json the model is read only for the legacy way */
    write_llama_json(in_scratch("copy/tokenizer.json"), &(struct llama_json){.normalizer = PREPEND});
    OK(tokenizer_open(&t, in_scratch("copy"), &err));
    assert_string_equal(tokenizer_kind(t), "bpe");
    tokenizer_free(t);
    OK(tokenizer_open_legacy(&t, in_scratch("copy"), &err));
    assert_string_equal(tokenizer_kind(t), "sentencepiece");
    tokenizer_free(t);
}

/* ---- damaged models ---- */

static void expect_refusal(const char *path, const char *part)
{
    struct tokenizer *t;
    struct err err = {0};
    int rc = tokenizer_open(&t, path, &err);
    assert_null(t);
    expect_error(rc, &err, part);
}

static void bad_models_are_refused(void **state)
{
    static const struct {
        struct spm spm;
        const char *what;
    } cases[] = {
        {{.type = 1}, "unigram"},
        {{.type = 9}, "unknown type"},
        {{.charsmap = "abc"}, "precompiled_charsmap"},
        {{.more = {"ab", 0, NORMAL}}, "twice"},
        {{.more = {"<s>", 0, NORMAL}}, "twice"},
        {{.more = {"", 0, NORMAL}}, "piece 277"},
        {{.more = {"\xC3", 0, NORMAL}}, "UTF-8"},
        {{.more = {"x", NAN, NORMAL}}, "score"},
        {{.more = {"x", 0, 7}}, "type"},
        {{.more = {"x", 0, UNKNOWN}}, "unknown one"},
        {{.more = {"x", 0, BYTE}}, "byte"},
        {{.more = {"<0xG0>", 0, BYTE}}, "byte"},
        {{.no_bytes = true, .more = {"<0x41>", 0, BYTE}}, "byte_fallback"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_spm(in_scratch("bad.model"), &cases[i].spm);
        expect_refusal(in_scratch("bad.model"), cases[i].what);
    }
    write_text(in_scratch("bad.model"), "");
    expect_refusal(in_scratch("bad.model"), "no pieces");
    write_text(in_scratch("bad.model"), "version https://git-lfs.github.com/spec/v1\n");
    expect_refusal(in_scratch("bad.model"), "not a SentencePiece model");
    struct buf b = {0};
    put_specs(&b, &(struct spm){0});
    write_bytes(in_scratch("bad.model"), b.p, b.n);
    expect_refusal(in_scratch("bad.model"), "no pieces");
    put_varint(&b, 1 << 3 | 2);
    put_varint(&b, UINT64_MAX); /* a length past the end of everything */
    write_bytes(in_scratch("bad.model"), b.p, b.n);
    expect_refusal(in_scratch("bad.model"), "damaged");
    buf_free(&b);
}

/* A model cut short lacks pieces; without one of the bytes it is refused. */
static void truncated_models_are_refused(void **state)
{
    (void)state;
    struct buf b = {0};
    size_t n_bytes = 0;
    put_spm(&b, &(struct spm){0});
    for (const char *p = b.p; (p = memmem(p, (size_t)(b.p + b.n - p), "<0xFF>", 6)); p++)
        n_bytes = (size_t)(p - b.p);
    assert_true(n_bytes > 1000);
    for (size_t k = n_bytes; k-- > 0; k -= k > 300 ? 6 : 0) {
        write_bytes(in_scratch("bad.model"), b.p, k);
        expect_refusal(in_scratch("bad.model"), "bad.model");
    }
    buf_free(&b);
}

/* ---- tokenizer.json ---- */

static void added_tokens_in_normal_form(void **state)
{
    (void)state;
    struct tokenizer *t = open_llama_json(&(struct llama_json){.normalizer = PREPEND});
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    expect_ids(t, "", 0, 0, NULL);
    EXPECT(t, "abc", 6, 7, 11);
    EXPECT(t, " ab", 6, 12);
    EXPECT(t, "a<s>b", 6, 7, 0, 8); /* no blank before it, so it is text: three unknown characters */
    EXPECT(t, "a <s> b", 6, 7, 1, 6, 8);
    EXPECT(t, "<s>ab</s>ab", 1, 10, 2, 12);
    EXPECT(t, " </s>a", 13, 2, 6, 7);
    DECODES(t, "<s> ab", 1, 12);
    tokenizer_free(t);
    t = open_llama_json(&(struct llama_json){.normalizer = PREPEND, .added = ADDED("false")});
    EXPECT(t, "a<s>b", 6, 7, 1, 6, 8);
    EXPECT(t, "a <s> b", 6, 7, 6, 1, 13, 8);
    EXPECT(t,
           "ab\xFF"
           "ab",
           12, 0, 10); /* U+FFFD, not a new text */
    tokenizer_free(t);
}

/* The blanks that one token takes with it may be the beginning of the next. */
static void added_tokens_share_blanks(void **state)
{
    (void)state;
    struct tokenizer *t = open_llama_json(&(struct llama_json){
        .normalizer = PREPEND,
        .added = "[{\"id\":14,\"content\":\" c \",\"special\":false,\"normalized\":false,\"single_word\":false,"
                 "\"lstrip\":false,\"rstrip\":true}]"});
    EXPECT(t, " c  c a", 14, 14, 6, 7);
    tokenizer_free(t);
}

static void bytes_and_unknowns(void **state)
{
    (void)state;
    struct tokenizer *t = open_llama_json(&(struct llama_json){.normalizer = PREPEND});
    EXPECT(t, "\xE2\x82\xAC", 6, 3, 4, 5);
    EXPECT(t, "z\xE2\x82\xACzzb", 6, 3, 4, 5, 0, 8); /* the reference's way: an unknown token waits for a known character */
    DECODES(t, "\xE2\x82\xAC", 3, 4, 5);
    DECODES(t,
            "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
            "a",
            3, 4, 5, 4, 7); /* a run that is not UTF-8 as a whole */
    DECODES(t, " ab</s> ab", 6, 12, 2, 12);
    tokenizer_free(t);
}

static void metaspace(void **state)
{
    (void)state;
    struct tokenizer *t = open_llama_json(&(struct llama_json){.pre = METASPACE("first", "false"), .added = ADDED("false")});
    EXPECT(t, "ab", 12);
    EXPECT(t, " ab", 12);
    EXPECT(t, "   ab", 13, 12);
    EXPECT(t, "<s>ab</s>ab", 1, 10, 2, 10);
    tokenizer_free(t);
    t = open_llama_json(&(struct llama_json){.pre = METASPACE("always", "true"), .added = ADDED("false")});
    EXPECT(t, "   ab", 6, 6, 12);
    EXPECT(t, "<s>ab</s>ab", 1, 12, 2, 12);
    tokenizer_free(t);
    t = open_llama_json(
        &(struct llama_json){.pre = METASPACE("never", "true"), .more = "\"fuse_unk\":false,\"ignore_merges\":true,"});
    EXPECT(t, "ab ab", 10, 12);
    EXPECT(t, "z\xE2\x82\xACzzb", 3, 4, 5, 0, 0, 0, 8);
    tokenizer_free(t);
}

static void bad_json_is_refused(void **state)
{
    static const struct {
        struct llama_json json;
        const char *what;
    } cases[] = {
        {{.normalizer = "{\"type\":\"Lowercase\"}"}, "Lowercase"},
        {{.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" \"},\"content\":\"_\"}"}, "Replace"},
        {{.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"_\"}"}, "Replace"},
        {{.normalizer = "{\"type\":\"Prepend\",\"prepend\":7}"}, "Prepend"},
        {{.pre = "{\"type\":\"ByteLevel\"}"}, "byte_fallback"},
        {{.pre = "{\"type\":\"Whitespace\"}"}, "Whitespace"},
        {{.pre = METASPACE("sometimes", "true")}, "prepend_scheme"},
        {{.pre = "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"}, "replacement"},
        {{.pre = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"}," METASPACE("first", "true") "]}"}, "first"},
        {{.decoder = "null"}, "decoder"},
        {{.decoder = "{\"type\":\"Metaspace\"}"}, "Metaspace"},
        {{.decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"WordPiece\"}]}"}, "WordPiece"},
        {{.decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}]}"}, "ByteFallback"},
        {{.decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Strip\",\"content\":\" \",\"start\":1}]}"}, "Strip"},
        {{.merges = "[[\"a\",\"q\"]]"}, "lacks"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_llama_json(in_scratch("bad.json"), &cases[i].json);
        expect_refusal(in_scratch("bad.json"), cases[i].what);
    }
    struct tokenizer *t;
    struct err err = {0};
    write_llama_json(in_scratch("tokenizer.json"), &(struct llama_json){.normalizer = PREPEND});
    expect_error(tokenizer_open_legacy(&t, in_scratch("tokenizer.json"), &err), &err, "legacy");
    assert_int_equal(err.code, ERR_USAGE);
}

/* ---- GGUF ---- */

static void gguf_as_the_model(void **state)
{
    (void)state;
    struct tokenizer *t;
    for (int k = 0; k < 2; k++) {
        /* then as the tokenizer.json that is written for it */
        if (k == 0)
            write_llama_gguf(in_scratch("t.gguf"), false);
        OK(tokenizer_open(&t, in_scratch(k ? "saved" : "t.gguf"), &err));
        EXPECT(t, "aabc ab", 267, 266, 268);
        EXPECT(t, "      a", 270, 270, 267);
        EXPECT(t, "\xC3\xA9\xE2\x82\xACz", 259, 263, 229, 133, 175, 125);
        EXPECT(t, "a <unk> a</s>ab", 267, 259, 0, 259, 267, 2, 268);
        EXPECT(t, "ab<u>ab", 268, 273, 268); /* recognised too, and a new text begins after it */
        EXPECT_BY(tokenizer_encode_literal, t, "a</s>ab", 267, 63, 50, 118, 65, 264); /* text like any other */
        EXPECT_BY(tokenizer_encode_literal, t, "ab<u>ab", 268, 273, 268);
        DECODES(t, " ab\xE2\x82\xAC", 259, 268, 229, 133, 175);
        assert_int_equal(tokenizer_bos(t), 1);
        assert_true(tokenizer_adds_bos(t));
        if (k == 0)
            OK(tokenizer_save(t, in_scratch("saved"), &err));
        tokenizer_free(t);
    }
    write_llama_gguf(in_scratch("t.gguf"), true);
    OK(tokenizer_open_legacy(&t, in_scratch("t.gguf"), &err));
    EXPECT(t, "caca", 259, 262, 260, 262, 260);
    struct err err = {0};
    expect_error(tokenizer_save(t, in_scratch("unsaved"), &err), &err, "unused");
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_by_score),
        cmocka_unit_test(unused_and_user_defined_pieces),
        cmocka_unit_test(unknown_and_invalid_bytes),
        cmocka_unit_test(blanks),
        cmocka_unit_test(legacy_divides_at_special_tokens),
        cmocka_unit_test(chats_hold_special_tokens),
        cmocka_unit_test(pieces_to_text),
        cmocka_unit_test(long_texts_as_short_ones),
        cmocka_unit_test(special_ids_and_config),
        cmocka_unit_test(bad_models_are_refused),
        cmocka_unit_test(truncated_models_are_refused),
        cmocka_unit_test(added_tokens_in_normal_form),
        cmocka_unit_test(added_tokens_share_blanks),
        cmocka_unit_test(bytes_and_unknowns),
        cmocka_unit_test(metaspace),
        cmocka_unit_test(bad_json_is_refused),
        cmocka_unit_test(gguf_as_the_model),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
