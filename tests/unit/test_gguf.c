/* GGUF files, whole and damaged. */
#include "tests/tiny_model.h"

#include "core/io/source.h"
#include "core/model/config.h"
#include "core/model/model.h"

static int open_buf(struct source *s, const struct buf *b, struct err *err)
{
    write_bytes(in_scratch("m.gguf"), b->p, b->n);
    return source_open(s, in_scratch("m.gguf"), err);
}

static void refused(const struct buf *b, const char *part)
{
    struct source s;
    struct err err = {0};
    int rc = open_buf(&s, b, &err);
    if (rc == 0)
        fail_msg("accepted; %s was expected to be refused", part);
    expect_error(rc, &err, "m.gguf");
    expect_error(rc, &err, part);
}

static struct buf head(uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    struct buf b = {0};
    buf_put(&b, "GGUF", 4);
    buf_uint(&b, version, 4);
    buf_uint(&b, n_tensors, 8);
    buf_uint(&b, n_keys, 8);
    return b;
}

static void put_tensor(struct buf *b, const char *name, uint32_t type, uint64_t offset, int n_dims, const uint64_t *dims)
{
    gg_string(b, name);
    buf_uint(b, (uint64_t)n_dims, 4);
    for (int i = 0; i < n_dims && i < 8; i++)
        buf_uint(b, dims[i], 8);
    buf_uint(b, type, 4);
    buf_uint(b, offset, 8);
}

static void pad(struct buf *b, size_t data)
{
    while (b->n % 32)
        buf_put(b, "", 1);
    for (size_t i = 0; i < data; i++)
        buf_put(b, "\1", 1);
}

/* A key of each kind, and a tensor. */
static struct buf whole(void)
{
    struct buf b = head(3, 1, 8);
    gg_text(&b, "text", "some text");
    gg_u32(&b, "u", 4000000000u);
    gg_f32(&b, "f", 0.5f);
    gg_string(&b, "i8");
    buf_uint(&b, 1, 4);
    buf_uint(&b, 0xfe, 1);
    gg_string(&b, "yes");
    buf_uint(&b, 7, 4);
    buf_uint(&b, 1, 1);
    gg_array(&b, "words", TYPE_STRING, 2);
    gg_string(&b, "one");
    gg_string(&b, "");
    gg_array(&b, "numbers", TYPE_I32, 3);
    for (int i = 0; i < 3; i++)
        buf_uint(&b, (uint64_t)(i - 1), 4);
    gg_u32(&b, "general.alignment", 32);
    put_tensor(&b, "t", 0, 32, 2, (const uint64_t[]){3, 2});
    pad(&b, 64);
    return b;
}

static void a_good_file(void **state)
{
    (void)state;
    struct buf b = whole();
    struct source s;
    int64_t i;
    double f;
    bool yes = false;
    struct gguf_string text;
    OK(open_buf(&s, &b, &err));
    assert_non_null(s.gguf);
    assert_true(gguf_int(&i, s.gguf, "u") && i == 4000000000);
    assert_true(gguf_int(&i, s.gguf, "i8") && i == -2);
    assert_true(gguf_float(&f, s.gguf, "f") && f == 0.5);
    assert_true(gguf_float(&f, s.gguf, "u") && f == 4e9);
    assert_true(gguf_bool(&yes, s.gguf, "yes") && yes);
    assert_true(gguf_text(&text, s.gguf, "text") && text.n == 9 && !memcmp(text.s, "some text", 9));
    assert_false(gguf_int(&i, s.gguf, "f"));
    assert_false(gguf_int(&i, s.gguf, "yes"));
    assert_false(gguf_text(&text, s.gguf, "u"));
    assert_false(gguf_int(&i, s.gguf, "absent"));
    const struct gguf_value *words = gguf_find(s.gguf, "words"), *numbers = gguf_find(s.gguf, "numbers");
    assert_true(words->count == 2 && words->strings[0].n == 3 && words->strings[1].n == 0);
    assert_true(numbers->count == 3 && gguf_array_int(numbers, 0) == -1 && gguf_array_int(numbers, 2) == 1);
    const struct tensor *t = source_find(&s, "t");
    assert_true(t && t->n_dims == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->bytes == 24);
    assert_ptr_equal(t->data, s.maps[0].data + b.n - 32);
    source_close(&s);
    buf_free(&b);
}

static void truncated_at_every_length(void **state)
{
    (void)state;
    struct buf b = whole();
    for (size_t n = 0; n < b.n - 8; n++) { /* the tensor ends 8 bytes before the file does */
        struct buf cut = {b.p, n, 0};
        refused(&cut, "m.gguf");
    }
    buf_free(&b);
}

static void tensors_that_lie(void **state)
{
    (void)state;
    static const struct {
        int n_dims;
        uint64_t dims[4];
        uint32_t type;
        uint64_t offset;
    } cases[] = {
        {0, {0}, 0, 0},               /* no dimensions */
        {5, {1, 1, 1, 1}, 0, 0},      /* too many */
        {1, {17}, 0, 0},              /* 68 bytes of 64 */
        {1, {9}, 0, 32},              /* past the end from an offset inside */
        {1, {1}, 0, 64},              /* begins at the end */
        {1, {1}, 0, 4},               /* not aligned */
        {1, {1}, 0, UINT64_MAX - 31}, /* wraps */
        {1, {1}, 0, (uint64_t)1 << 63},
        {2, {(uint64_t)1 << 32, (uint64_t)1 << 32}, 0, 0}, /* 2^64 elements */
        {1, {(uint64_t)1 << 62}, 0, 0},                    /* 2^64 bytes */
        {1, {UINT64_MAX}, 0, 0},                           /* -1 */
        {4, {65536, 65536, 65536, 65536}, 0, 0},
        {1, {33}, 8, 0}, /* no whole block of q8_0 */
        {1, {1}, 14, 0}, /* q6_k */
        {1, {1}, 0xffffffff, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = head(3, 1, 0);
        put_tensor(&b, "the_tensor", cases[i].type, cases[i].offset, cases[i].n_dims, cases[i].dims);
        pad(&b, 64);
        refused(&b, "the_tensor");
        buf_free(&b);
    }
}

static void names_twice_or_hardly_names(void **state)
{
    (void)state;
    struct buf b = head(3, 2, 0);
    put_tensor(&b, "same", 0, 0, 1, (const uint64_t[]){1});
    put_tensor(&b, "same", 0, 32, 1, (const uint64_t[]){1});
    pad(&b, 64);
    refused(&b, "same");
    buf_free(&b);
    b = head(3, 1, 0);
    put_tensor(&b, "\xff\xfe\n", 0, 1, 1, (const uint64_t[]){1}); /* not UTF-8, and named in the message about its offset */
    pad(&b, 64);
    refused(&b, "offset");
    buf_free(&b);
}

static void keys_that_lie(void **state)
{
    (void)state;
    static const uint64_t counts[] = {100, (uint64_t)1 << 32, (uint64_t)1 << 60, (uint64_t)1 << 62, UINT64_MAX / 8, UINT64_MAX};
    static const uint32_t types[] = {0, TYPE_I32, TYPE_STRING, 12};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
            struct buf b = head(3, 0, 1);
            gg_array(&b, "list", types[k], counts[i]);
            pad(&b, 64);
            refused(&b, "truncated");
            buf_free(&b);
        }
    static const uint32_t bad_elements[] = {TYPE_ARRAY, 13, 99, UINT32_MAX};
    for (size_t k = 0; k < sizeof bad_elements / sizeof *bad_elements; k++) {
        struct buf b = head(3, 0, 1);
        gg_array(&b, "list", bad_elements[k], 1);
        pad(&b, 64);
        refused(&b, "list");
        buf_free(&b);
    }
    static const uint32_t bad_types[] = {13, 99, UINT32_MAX};
    for (size_t k = 0; k < sizeof bad_types / sizeof *bad_types; k++) {
        struct buf b = head(3, 0, 1);
        gg_string(&b, "the_key");
        buf_uint(&b, bad_types[k], 4);
        pad(&b, 64);
        refused(&b, "the_key");
        buf_free(&b);
    }
    static const uint64_t lengths[] = {1000, (uint64_t)1 << 40, INT64_MAX, UINT64_MAX};
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        struct buf b = head(3, 0, 1);
        buf_uint(&b, lengths[k], 8);
        pad(&b, 64);
        refused(&b, "truncated");
        buf_free(&b);
    }
}

static void heads_that_lie(void **state)
{
    (void)state;
    static const uint64_t counts[][2] = {
        {1000, 0}, {0, 1000}, {UINT64_MAX, 0}, {0, UINT64_MAX}, {(uint64_t)1 << 60, 0}, {0, (uint64_t)1 << 60}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct buf b = head(3, counts[i][0], counts[i][1]);
        pad(&b, 64);
        refused(&b, "truncated");
        buf_free(&b);
    }
    static const uint32_t versions[] = {0, 1, 4, 0x03000000};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        struct buf b = head(versions[i], 0, 0);
        pad(&b, 64);
        refused(&b, versions[i] == 0x03000000 ? "big-endian" : "version");
        buf_free(&b);
    }
    struct buf b = {0};
    buf_put(&b, "GGML", 4);
    pad(&b, 64);
    refused(&b, "magic");
    buf_free(&b);
    static const uint32_t alignments[] = {0, 3, 24, 1u << 30, UINT32_MAX};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        b = head(3, 0, 1);
        gg_u32(&b, "general.alignment", alignments[i]);
        pad(&b, 64);
        refused(&b, "alignment");
        buf_free(&b);
    }
    b = head(3, 0, 1);
    gg_u32(&b, "split.count", 3);
    pad(&b, 64);
    refused(&b, "split");
    buf_free(&b);
}

/* The tiny model in both formats is one model. */
static void a_model(void **state)
{
    (void)state;
    struct model hf, gg;
    tiny_folder(in_scratch("hf"), &tiny_default);
    tiny_gguf(in_scratch("model.gguf"), &tiny_default);
    OK(model_open(&hf, in_scratch("hf"), &err));
    OK(model_open(&gg, in_scratch("model.gguf"), &err));
    assert_int_equal(model_params(&hf), model_params(&gg));
    assert_true(gg.cfg.n_blocks == 8 && gg.cfg.vocab_size == 260 && gg.cfg.n_kv_heads == 1 && !gg.cfg.tied_embeddings);
    assert_true(gg.cfg.bos == 256 && gg.cfg.eos == 257 && gg.cfg.context_length == 512);
    assert_true(gg.cfg.norm_eps > 0.99e-5 && gg.cfg.norm_eps < 1.01e-5);
    model_close(&hf);
    model_close(&gg);
}

static void a_model_truncated(void **state)
{
    (void)state;
    static const struct tiny one = {1, 8, 1, 1, 8, 8, 260, 1};
    tiny_gguf(in_scratch("one.gguf"), &one);
    struct buf b = read_bytes(in_scratch("one.gguf"));
    size_t step = b.n / 500;
    for (size_t n = 0; n < b.n; n += 1 + n % step) {
        struct model m;
        struct err err = {0};
        write_bytes(in_scratch("m.gguf"), b.p, n);
        int rc = model_open(&m, in_scratch("m.gguf"), &err);
        if (rc == 0)
            fail_msg("accepted with %zu of %zu bytes", n, b.n);
        expect_error(rc, &err, "m.gguf");
    }
    buf_free(&b);
}

/* Metadata of the wrong type or size, in the place of the key that ends in `key`. */
static void descriptions_that_lie(void **state)
{
    (void)state;
    static const char *const keys[] = {"block_count", "embedding_length", "feed_forward_length", "head_count", "context_length"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct buf b = head(3, 0, 7);
        struct source s;
        struct config c;
        struct err err = {0};
        gg_text(&b, "general.architecture", "llama");
        gg_f32(&b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            char name[80];
            snprintf(name, sizeof name, "llama.%s%s", k == 3 ? "attention." : "", keys[k]);
            if (k == i)
                gg_text(&b, name, "4");
            else
                gg_u32(&b, name, 4);
        }
        pad(&b, 0);
        assert_int_equal(open_buf(&s, &b, &err), 0);
        expect_error(config_from_gguf(&c, s.gguf, &err), &err, keys[i]);
        source_close(&s);
        buf_free(&b);
    }
    struct buf b = head(3, 0, 1);
    struct source s;
    struct config c;
    struct err err = {0};
    gg_text(&b, "general.architecture", "gpt2");
    assert_int_equal(open_buf(&s, &b, &err), 0);
    expect_error(config_from_gguf(&c, s.gguf, &err), &err, "gpt2");
    source_close(&s);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file),
        cmocka_unit_test(truncated_at_every_length),
        cmocka_unit_test(tensors_that_lie),
        cmocka_unit_test(names_twice_or_hardly_names),
        cmocka_unit_test(keys_that_lie),
        cmocka_unit_test(heads_that_lie),
        cmocka_unit_test(a_model),
        cmocka_unit_test(a_model_truncated),
        cmocka_unit_test(descriptions_that_lie),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
