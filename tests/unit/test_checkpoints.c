/* Forms that a checkpoint comes in: names, heads, adapters, and what tells two of one shape apart. */
#include "tests/tiny_model.h"

#include "core/model/lora.h"

static const struct tiny shape = {2, 16, 2, 1, 8, 24, 260, 1};

/* A folder of the model whose tensors are chosen and named by `as`: NULL leaves one out. */
struct form {
    struct st st;
    const char *(*as)(const char *name);
};

static void add(void *arg, const char *hf, const char *gguf, const int64_t *dims, int n_dims, const float *v, int64_t n)
{
    struct form *f = arg;
    const char *name = f->as(hf);
    (void)gguf;
    if (name)
        st_add(&f->st, name, "F32", dims, n_dims, v, (size_t)n * sizeof *v);
}

static void make(const char *dir, const struct tiny *t, bool tied, const char *(*as)(const char *name))
{
    char path[160];
    struct form f = {.as = as};
    struct buf b = {0};
    scratch_dir(dir);
    tiny_each(t, add, &f);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    st_write(&f.st, in_scratch(path));
    tiny_config_json(&b, t);
    buf_put(&b, "", 1);
    char *said = strstr(b.p, "\"tie_word_embeddings\":false");
    if (tied)
        memcpy(said, "\"tie_word_embeddings\":true ", 27);
    snprintf(path, sizeof path, "%s/config.json", dir);
    write_bytes(in_scratch(path), b.p, b.n - 1);
    buf_free(&b);
}

static const char *all(const char *name)
{
    return name;
}
static const char *no_head(const char *name)
{
    return strcmp(name, "lm_head.weight") ? name : NULL;
}
static const char *bare(const char *name)
{
    return strncmp(name, "model.", 6) ? NULL : name + 6;
}
static const char *head_only(const char *name)
{
    return !strcmp(name, "lm_head.weight") ? NULL : !strcmp(name, "model.embed_tokens.weight") ? "lm_head.weight" : name;
}

static void print_of(char hex[65], const char *dir)
{
    struct model m;
    OK(model_open(&m, in_scratch(dir), &err));
    OK(model_fingerprint(&m, &err));
    memcpy(hex, m.fingerprint, 65);
    model_close(&m);
}

/* A tied model is the same one without a head, without "model." and with only the head of the pair. */
static void names(void **state)
{
    (void)state;
    char embed[65], other[65];
    static const struct {
        const char *dir;
        const char *(*as)(const char *name);
    } forms[] = {{"bare", bare}, {"head-only", head_only}};
    make("tied", &shape, true, no_head);
    for (size_t i = 0; i < 2; i++) {
        struct model a, b;
        make(forms[i].dir, &shape, true, forms[i].as);
        OK(model_open(&a, in_scratch("tied"), &err));
        OK(model_open(&b, in_scratch(forms[i].dir), &err));
        assert_true(a.cfg.tied_embeddings && b.cfg.tied_embeddings && b.head.w.data == b.embed.data);
        assert_memory_equal(a.embed.data, b.embed.data, (size_t)a.embed.rows * a.embed.row_bytes);
        for (int64_t k = 0; k < shape.n_blocks; k++) {
            OK(model_unit_fingerprint(embed, &a, (struct unit){k, PARTS_ALL}, &err));
            OK(model_unit_fingerprint(other, &b, (struct unit){k, PARTS_ALL}, &err));
            assert_string_equal(embed, other);
        }
        model_close(&a);
        model_close(&b);
    }
    struct err missing = {0};
    struct model m;
    make("headless", &shape, false, no_head);
    expect_error(model_open(&m, in_scratch("headless"), &missing), &missing, "lm_head.weight is missing");
}

/* A head of its own counts although the config says that there is none; one that is the embedding is tied. */
static void heads(void **state)
{
    (void)state;
    struct model m;
    make("other", &shape, true, all);
    OK(model_open(&m, in_scratch("other"), &err));
    assert_false(m.cfg.tied_embeddings);
    assert_true(m.head.w.data != m.embed.data);
    model_close(&m);
}

/* The hash is of the shape, the fingerprint of the weights. */
static void fingerprints(void **state)
{
    (void)state;
    char one[65], again[65], other[65];
    struct tiny second = shape;
    struct model a, b;
    second.seed = 2;
    make("one", &shape, false, all);
    make("again", &shape, false, all);
    make("second", &second, false, all);
    print_of(one, "one");
    print_of(again, "again");
    print_of(other, "second");
    assert_string_equal(one, again);
    assert_string_not_equal(one, other);
    OK(model_open(&a, in_scratch("one"), &err));
    OK(model_open(&b, in_scratch("second"), &err));
    assert_string_equal(a.hash, b.hash);
    model_close(&a);
    model_close(&b);
    /* the last byte of the file is the head's: one bit of it makes another model */
    struct buf bytes = read_bytes(in_scratch("one/model.safetensors"));
    ((char *)bytes.p)[bytes.n - 1] ^= 1;
    write_bytes(in_scratch("again/model.safetensors"), bytes.p, bytes.n);
    buf_free(&bytes);
    print_of(again, "again");
    assert_string_not_equal(one, again);
}

static int load(const char *start, const char *targets, struct err *err)
{
    static const bool q_only[PROJ_COUNT] = {true};
    struct model m;
    struct lora_set l;
    char text[400];
    OK(model_open(&m, in_scratch("one"), &err));
    scratch_dir("adapter");
    OK(lora_create(&l, &m, 2, 4, 0, q_only, false, &err));
    OK(lora_save(&l, &m, in_scratch("adapter"), &err));
    lora_free(&l);
    snprintf(text, sizeof text, "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4,\"init_lora_weights\":%s,\"target_modules\":%s}",
             start, targets);
    write_text(in_scratch("adapter/adapter_config.json"), text);
    int rc = lora_load(&l, &m, in_scratch("adapter"), false, err);
    if (rc == 0) {
        assert_true(l.target[PROJ_Q] && !l.target[PROJ_K]);
        lora_free(&l);
    }
    model_close(&m);
    return rc;
}

/* However PEFT was told what to adapt, the file says what it did; how it was begun matters where the base was changed. */
static void adapters(void **state)
{
    (void)state;
    static const char *const targets[] = {"[\"q_proj\"]", "\".*self_attn\\\\.q_proj\"", "\"all-linear\"",
                                          "[\"model.layers.0.self_attn.q_proj\",\"model.layers.1.self_attn.q_proj\"]"};
    static const char *const fine[] = {"true", "false", "\"gaussian\"", "\"eva\"", "\"orthogonal\"", "null"};
    static const char *const other[] = {"\"pissa\"", "\"pissa_niter_4\"", "\"olora\"", "\"loftq\"", "\"corda\"", "\"lora_ga\""};
    make("one", &shape, false, all);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        OK(load("true", targets[i], &err));
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        OK(load(fine[i], targets[0], &err));
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        struct err err = {0};
        expect_error(load(other[i], targets[0], &err), &err, "\"init_lora_weights\"");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(heads), cmocka_unit_test(fingerprints),
                                       cmocka_unit_test(adapters)};
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
