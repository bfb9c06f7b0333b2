/* Writing models: every format takes the same tensors, and what comes back through any chain of formats is, byte for byte, what
 * went in. GGUF's blocks and order of rows are checked against a second account of them here. */
#include "core/base/dir.h"
#include "tests/there.h"
#include "tests/tiny_llama.h"

#include <math.h>

#include "core/base/json.h"
#include "core/io/gguf_write.h"
#include "core/model/save.h"

/* Rows of 64 and 96, so that they divide into blocks; a vocabulary larger than the tokenizer's 260. */
static const struct tiny wide = {3, 64, 2, 1, 32, 96, 266, 5};
static struct compute compute;
static struct tokenizer *tok;

/* Saves the model at `from` as `to` (a name in the scratch folder; a folder for hf). */
static int save_as(const char *from, const char *to, struct save_options o, const char *drop, struct err *err)
{
    struct model m;
    if (model_open(&m, in_scratch(from), err) != 0)
        return -1;
    if (drop)
        OK(model_drop_list(&m, drop, &err));
    if (o.format == FORMAT_HF) {
        dir_remove(in_scratch(to));
        scratch_dir(to);
    }
    int rc = model_save(&m, &compute, in_scratch(to), &o, NULL, err);
    model_close(&m);
    return rc;
}

static void save(const char *from, const char *to, enum model_format f, enum dtype t)
{
    OK(save_as(from, to, (struct save_options){.format = f, .dtype = t, .tokenizer = tok}, NULL, &err));
}

static void same_file(const char *a, const char *b)
{
    struct buf x = read_bytes(in_scratch(a)), y = read_bytes(in_scratch(b));
    if (x.n != y.n || memcmp(x.p, y.p, x.n))
        fail_msg("%s and %s differ", a, b);
    buf_free(&x);
    buf_free(&y);
}

static void round_trips(void **state)
{
    (void)state;
    static const enum dtype floats[] = {DTYPE_F16, DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 3; i++) {
        enum dtype t = floats[i];
        save("model", "a", FORMAT_HF, t);
        save("a", "b.gguf", FORMAT_GGUF, t);
        save("b.gguf", "c", FORMAT_HF, t);
        same_file("a/model.safetensors", "c/model.safetensors");
        save("b.gguf", "d.h5", FORMAT_H5, t);
        save("d.h5", "e", FORMAT_HF, t);
        same_file("a/model.safetensors", "e/model.safetensors");
        save("a", "f.h5", FORMAT_H5, t);
        save("f.h5", "g", FORMAT_HF, t);
        same_file("a/config.json", "g/config.json");
        same_file("a/tokenizer.json", "g/tokenizer.json");
        save("f.h5", "h.gguf", FORMAT_GGUF, t);
        save("h.gguf", "i.gguf", FORMAT_GGUF, t);
        struct source x, y;
        OK(source_open(&x, in_scratch("b.gguf"), &err));
        OK(source_open(&y, in_scratch("i.gguf"), &err));
        assert_int_equal(x.n_tensors, y.n_tensors);
        for (int64_t k = 0; k < x.n_tensors; k++)
            assert_true(x.tensors[k].bytes == y.tensors[k].bytes &&
                        !memcmp(x.tensors[k].data, y.tensors[k].data, x.tensors[k].bytes));
        source_close(&x);
        source_close(&y);
    }
}

/* Twice the same bytes: no clock, no path, no order by chance. */
static void the_same_again(void **state)
{
    (void)state;
    save("model", "one.h5", FORMAT_H5, DTYPE_F16);
    save("model", "two.h5", FORMAT_H5, DTYPE_F16);
    same_file("one.h5", "two.h5");
    save("model", "one.gguf", FORMAT_GGUF, DTYPE_Q8_0);
    save("model", "two.gguf", FORMAT_GGUF, DTYPE_Q8_0);
    same_file("one.gguf", "two.gguf");
}

/* ---- GGUF ---- */

static const struct source *gg;
static enum dtype quant;
static int n_checked;

static void check_gguf_tensor(void *arg, const char *name, const char *gguf, const int64_t *shape, int n_dims, const float *v,
                              int64_t n)
{
    (void)arg, (void)name;
    const struct tensor *t = source_find(gg, gguf);
    bool pairs = strstr(gguf, "attn_q") || strstr(gguf, "attn_k");
    bool outer = !strncmp(gguf, "token_embd", 10) || !strncmp(gguf, "output.w", 8);
    if (!t)
        fail_msg("%s is missing", gguf);
    enum dtype want = n_dims == 1 ? DTYPE_F32 : outer && quant >= DTYPE_Q4_0 ? DTYPE_Q8_0 : quant;
    assert_int_equal(t->dtype, want);
    assert_int_equal(tensor_elements(t), n);
    int64_t rows = n_dims == 2 ? shape[0] : 1, cols = n / rows;
    uint8_t row[4096];
    size_t bytes = dtype_bytes(want, cols);
    for (int64_t r = 0; r < rows; r++) {
        dtype_encode(row, v + (pairs ? gg_row(r, wide.head_dim) : r) * cols, cols, want);
        if (memcmp(row, t->data + (size_t)r * bytes, bytes))
            fail_msg("%s: row %lld differs in %s", gguf, (long long)r, dtype_table[quant].name);
    }
    n_checked++;
}

static void gguf_tensors(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1};
    for (int i = 0; i < 6; i++) {
        struct source s;
        quant = types[i];
        save("model", "q.gguf", FORMAT_GGUF, quant);
        OK(source_open(&s, in_scratch("q.gguf"), &err));
        gg = &s;
        n_checked = 0;
        tiny_each(&wide, check_gguf_tensor, NULL);
        assert_int_equal(n_checked, s.n_tensors);
        for (int64_t k = 0; k < s.n_tensors; k++)
            assert_int_equal((s.tensors[k].data - s.maps[0].data) % 32, 0);
        source_close(&s);
    }
}

static void gguf_metadata(void **state)
{
    (void)state;
    struct source s;
    int64_t v;
    double f;
    bool b;
    struct gguf_string text;
    OK(save_as("model", "drop.gguf", (struct save_options){.format = FORMAT_GGUF, .dtype = DTYPE_Q4_0, .tokenizer = tok}, "1",
               &err));
    OK(source_open(&s, in_scratch("drop.gguf"), &err));
    static const struct {
        const char *key;
        int64_t v;
    } want[] = {{"llama.block_count", 2},
                {"llama.embedding_length", 64},
                {"llama.feed_forward_length", 96},
                {"llama.attention.head_count", 2},
                {"llama.attention.head_count_kv", 1},
                {"llama.attention.key_length", 32},
                {"llama.rope.dimension_count", 32},
                {"llama.vocab_size", 266},
                {"llama.context_length", 512},
                {"general.file_type", 2},
                {"general.quantization_version", 2},
                {"tokenizer.ggml.bos_token_id", 256},
                {"tokenizer.ggml.eos_token_id", 257}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (!gguf_int(&v, s.gguf, want[i].key) || v != want[i].v)
            fail_msg("%s", want[i].key);
    assert_true(gguf_float(&f, s.gguf, "llama.attention.layer_norm_rms_epsilon") && f == (double)1e-5f);
    assert_true(gguf_float(&f, s.gguf, "llama.rope.freq_base") && f == 10000);
    assert_true(gguf_bool(&b, s.gguf, "tokenizer.ggml.add_bos_token") && !b);
    assert_true(gguf_text(&text, s.gguf, "tokenizer.ggml.model") && text.n == 4 && !memcmp(text.s, "gpt2", 4));
    assert_true(gguf_text(&text, s.gguf, "tokenizer.ggml.pre") && text.n == 5 && !memcmp(text.s, "gpt-2", 5));
    const struct gguf_value *tokens = gguf_find(s.gguf, "tokenizer.ggml.tokens"),
                            *types = gguf_find(s.gguf, "tokenizer.ggml.token_type"),
                            *merges = gguf_find(s.gguf, "tokenizer.ggml.merges");
    assert_true(tokens->count == 266 && types->count == 266 && merges->count == 2); /* filled up to the embedding's rows */
    assert_true(tokens->strings[65].n == 1 && tokens->strings[65].s[0] == 'A');
    assert_true(tokens->strings[265].n == 8 && !memcmp(tokens->strings[265].s, "[PAD265]", 8));
    assert_true(gguf_array_int(types, 65) == 1 && gguf_array_int(types, 256) == 3 && gguf_array_int(types, 265) == 5);
    assert_true(merges->strings[1].n == 4 && !memcmp(merges->strings[1].s, "th e", 4));
    source_close(&s);
}

/* A GGUF of eight blocks with a list that has an entry for each of them, and a name of its own; 128 more bytes, so that the data
 * stays aligned. */
static void gguf_with_more_keys(const char *path)
{
    struct buf b = {0};
    tiny_gguf(path, &tiny_default);
    struct buf whole = read_bytes(path);
    uint64_t n;
    memcpy(&n, whole.p + 16, 8);
    buf_put(&b, whole.p, 16);
    buf_uint(&b, n + 2, 8);
    gg_array(&b, "llama.xy", TYPE_I32, 8);
    for (unsigned i = 0; i < 8; i++)
        buf_uint(&b, 100 + i, 4);
    gg_text(&b, "general.name", "a name as long as this one is !!");
    assert_int_equal(b.n - 24, 128);
    buf_put(&b, whole.p + 24, whole.n - 24);
    write_bytes(path, b.p, b.n);
    buf_free(&b);
    buf_free(&whole);
}

static void lists_of_blocks_are_shortened(void **state)
{
    (void)state;
    struct source s;
    struct tokenizer *own;
    struct gguf_string text;
    gguf_with_more_keys(in_scratch("more.gguf"));
    OK(tokenizer_open(&own, in_scratch("more.gguf"), &err));
    OK(save_as("more.gguf", "less.gguf",
               (struct save_options){.format = FORMAT_GGUF, .dtype = DTYPE_F32, .keep = true, .tokenizer = own}, "2,5", &err));
    OK(source_open(&s, in_scratch("less.gguf"), &err));
    const struct gguf_value *list = gguf_find(s.gguf, "llama.xy");
    assert_true(list && list->count == 6);
    static const int kept[6] = {100, 101, 103, 104, 106, 107};
    for (uint64_t i = 0; i < 6; i++)
        assert_int_equal(gguf_array_int(list, i), kept[i]);
    assert_true(gguf_text(&text, s.gguf, "general.name") && text.n == 32);
    assert_true(gguf_find(s.gguf, "tokenizer.ggml.merges")->count == 2);
    for (uint64_t i = 0; i < s.gguf->n_values; i++) /* no key twice */
        for (uint64_t k = 0; k < i; k++)
            assert_false(s.gguf->values[i].key.n == s.gguf->values[k].key.n &&
                         !memcmp(s.gguf->values[i].key.s, s.gguf->values[k].key.s, s.gguf->values[i].key.n));
    source_close(&s);
    tokenizer_free(own);
}

/* Weights that nothing changes keep their blocks, whatever they are. */
static void kept_as_they_are(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1};
    for (int i = 0; i < 3; i++) {
        struct source x, y;
        save("model", "q.gguf", FORMAT_GGUF, types[i]);
        OK(save_as("q.gguf", "kept.gguf", (struct save_options){.format = FORMAT_GGUF, .dtype = types[i], .keep = true}, "0",
                   &err));
        OK(source_open(&x, in_scratch("q.gguf"), &err));
        OK(source_open(&y, in_scratch("kept.gguf"), &err));
        const struct tensor *a = source_find(&x, "blk.2.attn_q.weight"), *b = source_find(&y, "blk.1.attn_q.weight");
        assert_true(a->dtype == types[i] && b->dtype == types[i] && a->bytes == b->bytes && !memcmp(a->data, b->data, a->bytes));
        a = source_find(&x, "token_embd.weight"), b = source_find(&y, "token_embd.weight");
        assert_true(a->dtype == b->dtype && a->bytes == b->bytes && !memcmp(a->data, b->data, a->bytes));
        source_close(&x);
        source_close(&y);
    }
}

/* Rows of 16 and 24 are no blocks of 32. */
static void short_rows_are_f16(void **state)
{
    (void)state;
    struct source s;
    tiny_folder(in_scratch("narrow"), &tiny_default);
    OK(save_as("narrow", "narrow.gguf", (struct save_options){.format = FORMAT_GGUF, .dtype = DTYPE_Q8_0}, NULL, &err));
    OK(source_open(&s, in_scratch("narrow.gguf"), &err));
    for (int64_t i = 0; i < s.n_tensors; i++)
        assert_int_equal(s.tensors[i].dtype, s.tensors[i].n_dims == 1 ? DTYPE_F32 : DTYPE_F16);
    struct gguf_string text; /* and without a tokenizer it says so */
    assert_true(gguf_text(&text, s.gguf, "tokenizer.ggml.model") && text.n == 8 && !memcmp(text.s, "no_vocab", 8));
    source_close(&s);
}

/* ---- f8_e4m3 ---- */

static void check_f8_tensor(void *arg, const char *name, const char *gguf, const int64_t *shape, int n_dims, const float *v,
                            int64_t n)
{
    (void)gguf;
    const struct source *s = arg;
    char scale_name[200];
    const struct tensor *t = source_find(s, name);
    bool inner = n_dims == 2 && strstr(name, "layers");
    snprintf(scale_name, sizeof scale_name, "%s_scale", name);
    const struct tensor *scales = source_find(s, scale_name);
    assert_int_equal(t->dtype, inner ? DTYPE_F8_E4M3 : DTYPE_F32); /* the rest stays as the embedding was */
    assert_true(inner == (scales != NULL));
    if (!inner)
        return;
    assert_true(scales->dtype == DTYPE_F32 && scales->n_dims == 2 && scales->shape[0] == shape[0] && scales->shape[1] == 1);
    int64_t cols = n / shape[0];
    for (int64_t r = 0; r < shape[0]; r++) {
        float top = 0, scale;
        memcpy(&scale, scales->data + 4 * r, 4);
        for (int64_t k = 0; k < cols; k++)
            top = fabsf(v[r * cols + k]) > top ? fabsf(v[r * cols + k]) : top;
        assert_true(scale == top / 448);
        for (int64_t k = 0; k < cols; k++)
            assert_int_equal(t->data[r * cols + k], f32_to_f8_e4m3(v[r * cols + k] / scale));
    }
}

static void f8_folders(void **state)
{
    (void)state;
    struct source s;
    struct err err = {0};
    save("model", "f8", FORMAT_HF, DTYPE_F8_E4M3);
    OK(source_open(&s, in_scratch("f8"), &err));
    tiny_each(&wide, check_f8_tensor, &s);
    source_close(&s);
    json_t *config = json_read(in_scratch("f8/config.json"), &err);
    const json_t *q = json_object_get(config, "quantization_config");
    assert_string_equal(json_string_value(json_object_get(q, "quant_method")), "compressed-tensors");
    assert_string_equal(json_string_value(json_object_get(config, "torch_dtype")), "float32");
    json_decref(config);
    /* a second time, and by way of HDF5, nothing is rounded again */
    OK(save_as("f8", "f8again", (struct save_options){.dtype = DTYPE_F8_E4M3, .keep = true, .tokenizer = tok}, NULL, &err));
    same_file("f8/model.safetensors", "f8again/model.safetensors");
    save("f8", "f8.h5", FORMAT_H5, DTYPE_F8_E4M3);
    save("f8.h5", "f8back", FORMAT_HF, DTYPE_F8_E4M3);
    same_file("f8/model.safetensors", "f8back/model.safetensors");
    save("f8", "f8f32", FORMAT_HF, DTYPE_F32); /* no longer quantised, and it says so */
    config = json_read(in_scratch("f8f32/config.json"), &err);
    assert_null(json_object_get(config, "quantization_config"));
    json_decref(config);
}

/* A model of one block whose q has these scales. */
static int open_with_scales(const char *dtype, const int64_t *shape, int n_dims, const void *scales, size_t bytes, struct err *err)
{
    static const struct tiny one = {1, 8, 2, 1, 4, 8, 260, 3};
    struct st s = {{0}, {0}};
    struct model m;
    uint8_t q[64];
    memset(q, 0x38, sizeof q);
    tiny_folder(in_scratch("scales"), &one);
    struct buf old = read_bytes(in_scratch("scales/model.safetensors"));
    uint64_t n;
    memcpy(&n, old.p, 8);
    /* the tensors that are there, with q under another name, and a q of f8_e4m3 */
    struct buf header = {0};
    buf_put(&header, old.p + 8, n);
    char *at = strstr(header.p, "q_proj"), *end = strrchr(header.p, '}');
    at[0] = 'x';
    buf_put(&s.header, header.p, (size_t)(end - header.p));
    buf_put(&s.data, old.p + 8 + n, old.n - 8 - n);
    st_add(&s, "model.layers.0.self_attn.q_proj.weight", "F8_E4M3", (int64_t[]){8, 8}, 2, q, 64);
    if (dtype)
        st_add(&s, "model.layers.0.self_attn.q_proj.weight_scale", dtype, shape, n_dims, scales, bytes);
    st_write(&s, in_scratch("scales/model.safetensors"));
    buf_free(&header);
    buf_free(&old);
    int rc = model_open(&m, in_scratch("scales"), err);
    if (rc == 0) {
        const struct weight *w = &m.blocks[0].proj[PROJ_Q];
        float row[8];
        assert_true(w->dtype == DTYPE_F8_E4M3 && w->scale);
        for (int r = 0; r < 8; r++) {
            weight_decode(&compute, row, w, r, 1);
            for (int k = 0; k < 8; k++)
                assert_true(row[k] == (float)(r + 1)); /* 0x38 is 1 */
        }
        model_close(&m);
    }
    return rc;
}

static void scales_of_every_form(void **state)
{
    (void)state;
    static const float f32[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint16_t bf16[8];
    dtype_encode(bf16, f32, 8, DTYPE_BF16);
    OK(open_with_scales("F32", (int64_t[]){8, 1}, 2, f32, 32, &err));
    struct source s; /* scales that are not what the encoder would choose stay */
    OK(save_as("scales", "scales2", (struct save_options){.dtype = DTYPE_F8_E4M3, .keep = true}, NULL, &err));
    OK(source_open(&s, in_scratch("scales2"), &err));
    assert_memory_equal(source_find(&s, "model.layers.0.self_attn.q_proj.weight_scale")->data, f32, 32);
    for (int i = 0; i < 64; i++)
        assert_int_equal(source_find(&s, "model.layers.0.self_attn.q_proj.weight")->data[i], 0x38);
    source_close(&s);
    OK(open_with_scales("F32", (int64_t[]){8}, 1, f32, 32, &err));
    OK(open_with_scales("BF16", (int64_t[]){8, 1}, 2, bf16, 16, &err));
    static const struct {
        const char *dtype;
        int64_t shape[2];
        int n_dims;
        size_t bytes;
    } bad[] = {{NULL, {0}, 0, 0},   {"F32", {4, 2}, 2, 32},    {"F32", {1, 8}, 2, 32}, {"F32", {7, 1}, 2, 28},
               {"F32", {7}, 1, 28}, {"F8_E4M3", {8, 1}, 2, 8}, {"I8", {8, 1}, 2, 8},   {"F32", {0}, 0, 4}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        expect_error(open_with_scales(bad[i].dtype, bad[i].shape, bad[i].n_dims, f32, bad[i].bytes, &err), &err,
                     "self_attn.q_proj.weight_scale");
    }
}

/* ---- tokenizers ---- */

/* Writes a tokenizer into a GGUF that holds nothing else. */
static int put_tokenizer(const char *from, const char *to, int64_t vocab, struct err *err)
{
    struct tokenizer *t;
    struct gguf_writer w;
    OK(tokenizer_open(&t, in_scratch(from), &err));
    OK(gguf_writer_open(&w, in_scratch(to), &err));
    int rc = tokenizer_put_gguf(t, &w, vocab, err);
    if (rc == 0)
        rc = gguf_writer_tensors(&w, NULL, 0, err);
    if (rc == 0)
        rc = gguf_writer_commit(&w, err);
    else
        gguf_writer_abort(&w);
    tokenizer_free(t);
    return rc;
}

static void same_ids(const char *a, const char *b, const char *text)
{
    struct tokenizer *x, *y;
    struct ids p = {0}, q = {0};
    OK(tokenizer_open(&x, in_scratch(a), &err));
    OK(tokenizer_open(&y, in_scratch(b), &err));
    OK(tokenizer_encode(&p, x, text, strlen(text), &err));
    OK(tokenizer_encode(&q, y, text, strlen(text), &err));
    if (p.n != q.n || (p.n && memcmp(p.ids, q.ids, p.n * sizeof *p.ids)))
        fail_msg("%s and %s: other ids for \"%s\"", a, b, text);
    assert_int_equal(tokenizer_bos(x), tokenizer_bos(y));
    assert_int_equal(tokenizer_eos(x), tokenizer_eos(y));
    free(p.ids);
    free(q.ids);
    tokenizer_free(x);
    tokenizer_free(y);
}

static void llama_tokenizers(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "a", "abc  cab", "  a b\nc", "ca cac dab \xC3\xA9\xE2\x82\xAC", "bcabc   abcabc"};
    struct tokenizer *t;
    write_spm(in_scratch("tokenizer.model"), &(struct spm){.all_used = true});
    OK(put_tokenizer("tokenizer.model", "spm.gguf", 300, &err));
    write_llama_gguf(in_scratch("llama.gguf"), false); /* as a GGUF, then as a tokenizer.json, then as a GGUF again */
    OK(tokenizer_open(&t, in_scratch("llama.gguf"), &err));
    OK(tokenizer_save(t, in_scratch("llama"), &err));
    tokenizer_free(t);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        same_ids("tokenizer.model", "spm.gguf", texts[i]);
    struct err err = {0};
    if (put_tokenizer("llama", "again.gguf", 300, &err) != 0)
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        same_ids("llama", "again.gguf", texts[i]);
}

static void tokenizers_that_cannot_be_said(void **state)
{
    (void)state;
    struct err err[4] = {{0}};
    write_llama_json(in_scratch("few.json"), &(struct llama_json){.normalizer = PREPEND}); /* bytes for the euro sign only */
    expect_error(put_tokenizer("few.json", "no.gguf", 300, &err[0]), &err[0], "a token for each byte");
    struct buf b = {0};
    tiny_tokenizer_json(&b, true);
    char *at = strstr(b.p, "\"add_prefix_space\":false");
    memcpy(at, "\"add_prefix_space\":true ", 24);
    write_bytes(in_scratch("prefix.json"), b.p, b.n);
    buf_free(&b);
    expect_error(put_tokenizer("prefix.json", "no.gguf", 300, &err[1]), &err[1], "cannot be written to a GGUF");
    write_spm(in_scratch("blanks.model"), &(struct spm){.all_used = true, .remove_blanks = true});
    expect_error(put_tokenizer("blanks.model", "no.gguf", 300, &err[2]), &err[2], "blanks");
    write_llama_gguf(in_scratch("llama.gguf"), false);
    expect_error(put_tokenizer("llama.gguf", "no.gguf", 300, &err[3]), &err[3], "300"); /* another model's */
    assert_false(path_exists(in_scratch("no.gguf")));
}

/* ---- what cannot be written ---- */

static void refused(void **state)
{
    (void)state;
    struct err err[3] = {{0}};
    expect_error(save_as("model", "x.gguf", (struct save_options){.format = FORMAT_GGUF, .dtype = DTYPE_F8_E4M3}, NULL, &err[0]),
                 &err[0], "f8_e4m3");
    expect_error(save_as("model", "x.h5", (struct save_options){.format = FORMAT_H5, .dtype = DTYPE_Q8_0}, NULL, &err[1]), &err[1],
                 "q8_0");
    assert_false(path_exists(in_scratch("x.gguf")) || path_exists(in_scratch("x.h5")));
    OK(disk_check(in_scratch("not/there/yet"), 1000, &err));
    OK(disk_check("relative", 0, &err));
    expect_error(disk_check(in_scratch("x"), INT64_MAX / 2, &err[2]), &err[2], "TiB of disk");
}

static int set_up(void **state)
{
    if (scratch_open(state) != 0)
        return -1;
    tiny_folder(in_scratch("model"), &wide);
    tiny_tokenizer(in_scratch("model/tokenizer.json"), true);
    OK(tokenizer_open(&tok, in_scratch("model"), &err));
    OK(compute_open(&compute, 2, PRECISION_F32, &err));
    return 0;
}

static int tear_down(void **state)
{
    tokenizer_free(tok);
    compute_close(&compute);
    return scratch_close(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(the_same_again),
        cmocka_unit_test(gguf_tensors),
        cmocka_unit_test(gguf_metadata),
        cmocka_unit_test(lists_of_blocks_are_shortened),
        cmocka_unit_test(kept_as_they_are),
        cmocka_unit_test(short_rows_are_f16),
        cmocka_unit_test(f8_folders),
        cmocka_unit_test(scales_of_every_form),
        cmocka_unit_test(llama_tokenizers),
        cmocka_unit_test(tokenizers_that_cannot_be_said),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
