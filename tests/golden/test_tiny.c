/* The forward pass against PyTorch and transformers: two random models (tests/fixtures/README.md) through every way in. */
#include "tests/there.h"
#include "tests/fixtures/fixture.h"

#include "core/model/save.h"
#include "tests/fixtures/scoring.h"

/* Both sides compute in float32 but add in another order. Seen on these models: 7e-6 in a logit, 1e-6 in a perplexity. */
static const double TOL_LOGIT = 1e-4, TOL_LOSS = 1e-5;

static const float *golden_logits(const struct fixture *f, const char *name)
{
    return tensor_floats(&f->expected, name, f->n * f->len * f->m.cfg.vocab_size);
}

/* The model's logits for the fixture's ids are the golden ones of that name. */
static void check_logits(const struct fixture *f, const struct model *m, const char *name, const char *what)
{
    float *logits = logits_of(m, &f->c, NULL, f->ids, f->n, f->len);
    assert_close(logits, golden_logits(f, name), f->n * f->len * m->cfg.vocab_size, TOL_LOGIT, what);
    free(logits);
}

static void check_logits_at(const struct fixture *f, const char *path, const char *name)
{
    struct model m;
    OK(model_open(&m, path, &err));
    check_logits(f, &m, name, path);
    model_close(&m);
}

static void copy_file(const char *to_dir, const char *to, const char *from_dir, const char *from)
{
    char a[192], b[192], *data;
    size_t n;
    snprintf(a, sizeof a, "%s/%s", from_dir, from);
    snprintf(b, sizeof b, "%s/%s", to_dir, to);
    OK(file_read(&data, &n, a, &err));
    OK(file_write(b, data, n, &err));
    free(data);
}

static void logits(void **state)
{
    struct fixture *f = *state;
    check_logits(f, &f->m, "logits", "logits");
}

static void logits_of_older_config(void **state)
{
    struct fixture *f = *state;
    char dir[128];
    scratch_dir(dir, f, "v4");
    copy_file(dir, "config.json", f->dir, "config_v4.json");
    copy_file(dir, "model.safetensors", f->dir, "model.safetensors");
    check_logits_at(f, dir, "logits");
}

/* So few rows that the fused decode-and-dot path runs instead of sgemm; causality says the rest does not matter. */
static void logits_of_few_rows(void **state)
{
    struct fixture *f = *state;
    int64_t vocab = f->m.cfg.vocab_size;
    for (int64_t rows = 1; rows <= 8; rows++)
        for (int64_t i = 0; i < f->n; i++) {
            float *got = logits_of(&f->m, &f->c, NULL, f->ids + i * f->len, 1, rows);
            assert_close(got, golden_logits(f, "logits") + i * f->len * vocab, rows * vocab, TOL_LOGIT, "logits of few rows");
            free(got);
        }
}

static void loss(void **state)
{
    struct fixture *f = *state;
    struct lm lm;
    int64_t targets = f->len - 1;
    float *nll = floats(f->n * targets);
    double all = 0;
    OK(lm_open(&lm, &f->m, &f->c, NULL, f->n * f->len, f->n, f->len, &err));
    OK(lm_window_nll(&lm, nll, f->ids, f->n, f->len, &err));
    for (int64_t i = 0; i < f->n; i++) {
        double row = 0;
        for (int64_t k = 0; k < targets; k++)
            row += (double)nll[i * targets + k];
        all += row;
        const json_t *want = json_array_get(json_object_get(f->facts, "loss_per_row"), (size_t)i);
        assert_near(row / (double)targets, json_number_value(want), TOL_LOSS, "loss of a row");
    }
    assert_near(all / (double)(f->n * targets), json_number_value(json_object_get(f->facts, "loss")), TOL_LOSS, "loss");
    lm_close(&lm);
    free(nll);
}

static void residual_streams(void **state)
{
    struct fixture *f = *state;
    struct lm lm;
    int64_t n = f->n * f->len * f->m.cfg.dim;
    char name[32];
    OK(lm_open(&lm, &f->m, &f->c, NULL, f->n * f->len, f->n, f->len, &err));
    batch_uniform(&lm.batch, f->n, f->len);
    OK(lm_embed(&lm, lm.x, f->ids, f->n * f->len, &err));
    assert_same_bits(lm.x, tensor_floats(&f->expected, "x.0", n), (size_t)n * sizeof(float), "x.0");
    for (int64_t k = 0; k < f->m.n_order; k++) {
        lm_block(&lm, lm.x, lm.x, k, PARTS_ALL);
        snprintf(name, sizeof name, "x.%lld", (long long)k + 1);
        assert_close(lm.x, tensor_floats(&f->expected, name, n), n, TOL_LOGIT, name);
    }
    lm_close(&lm);
}

static void perplexity_on_removal(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = {.n = f->n, .len = f->len, .ids = f->ids};
    struct scores s;
    int64_t order[16];
    const json_t *want = json_object_get(f->facts, "ppl_removed"), *block = json_object_get(want, "block");
    score_by(&s, "ppl", &default_scoring, &f->m, &f->c, NULL, &cal);
    assert_int_equal(s.n, json_array_size(block));
    assert_near(s.base_ppl, json_number_value(json_object_get(f->facts, "ppl")), TOL_LOSS, "base ppl");
    scores_order(order, &s);
    for (int64_t k = 0; k < s.n; k++) {
        /* d(exp(loss)) = exp(loss) d(loss): the loss's tolerance is a relative one here */
        assert_near(s.score[k], json_number_value(json_array_get(block, (size_t)k)), TOL_LOSS, "ppl without a block");
        assert_int_equal(order[k], json_integer_value(json_array_get(json_object_get(want, "order"), (size_t)k)));
    }
    scores_free(&s);
}

/* The scores "block" and "order" of a part of the expected results, within a relative tolerance. */
static void check_scores(const struct scores *s, const json_t *want, double tolerance, const char *what)
{
    int64_t order[16];
    scores_order(order, s);
    assert_int_equal(s->n, json_array_size(json_object_get(want, "block")));
    for (int64_t k = 0; k < s->n; k++) {
        assert_near(s->score[k], json_number_value(json_array_get(json_object_get(want, "block"), (size_t)k)), tolerance, what);
        assert_int_equal(order[k], json_integer_value(json_array_get(json_object_get(want, "order"), (size_t)k)));
    }
}

/* Per tensor and per block; the gradients are float32 sums, the magnitudes sums of the very same numbers. */
static void weight_criteria(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *criterion, *golden;
        int64_t batch;
        double tolerance;
    } cases[] = {{"taylor", "taylor_sum", 1, 1e-5}, {"taylor", "taylor_mean", 1000, 1e-5}, {"magnitude", "magnitude", 1, 1e-12}};
    struct calibration cal = {.n = f->n, .len = f->len, .ids = f->ids};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scores s;
        struct score_options o = default_scoring;
        const json_t *want = json_object_get(f->facts, cases[i].golden);
        o.weights.sample_batch = cases[i].batch;
        score_by(&s, cases[i].criterion, &o, &f->m, &f->c, NULL, &cal);
        check_scores(&s, want, cases[i].tolerance, cases[i].golden);
        assert_int_equal(s.n_weights, 9 * s.n);
        for (int64_t k = 0; k < s.n_weights; k++) {
            const json_t *v = json_object_get(json_object_get(want, "weight"), s.weight_name[k]);
            assert_true(json_is_real(v));
            assert_near(s.weight[k], json_real_value(v), 5 * cases[i].tolerance, s.weight_name[k]);
        }
        assert_near(s.base_ppl, json_number_value(json_object_get(f->facts, "ppl")), TOL_LOSS, "base ppl");
        scores_free(&s);
    }
}

/* 1 - cos loses digits where the streams are nearly parallel: an absolute tolerance. */
static void stream_criteria(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = {.n = f->n, .len = f->len, .ids = f->ids};
    struct scores s;
    const json_t *windows = json_object_get(f->facts, "angular_last_token"), *row;
    const char *length;
    score_by(&s, "bi", &default_scoring, &f->m, &f->c, NULL, &cal);
    check_scores(&s, json_object_get(f->facts, "bi"), 1e-5, "bi");
    scores_free(&s);
    score_by(&s, "angular", &default_scoring, &f->m, &f->c, NULL, &cal);
    json_object_foreach((json_t *)windows, length, row)
        for (size_t i = 0; i < json_array_size(row); i++)
            assert_near(s.distance[atoll(length) * s.n + (int64_t)i], json_number_value(json_array_get(row, i)), 1e-5, "angle");
    scores_free(&s);
}

/* Saved as f16 and bf16, against transformers with weights rounded to the same type and arithmetic in float32: rounding must be
 * the very same, so the tolerance is that of float32. The unrounded logits differ by far more, which shows that it was done. */
static void saved_in_16_bits(void **state)
{
    struct fixture *f = *state;
    static const struct {
        enum dtype dtype;
        const char *name, *golden;
        double least;
    } kinds[] = {{DTYPE_F16, "f16", "logits_f16", 2e-4}, {DTYPE_BF16, "bf16", "logits_bf16", 2e-3}};
    for (size_t k = 0; k < 2; k++) {
        char dir[128];
        struct save_options o = {.dtype = kinds[k].dtype};
        const float *exact = golden_logits(f, "logits"), *rounded = golden_logits(f, kinds[k].golden);
        double apart = 0;
        scratch_dir(dir, f, kinds[k].name);
        OK(model_save(&f->m, &f->c, dir, &o, NULL, &err));
        check_logits_at(f, dir, kinds[k].golden);
        for (int64_t i = 0; i < f->n * f->len * f->m.cfg.vocab_size; i++)
            apart = fmax(apart, fabs((double)(exact[i] - rounded[i])));
        assert_true(apart > kinds[k].least);
    }
}

/* ---- a GGUF written here from the specification, v3, with the layout of llama.cpp's converter ---- */

struct bytes {
    uint8_t *p;
    size_t n;
};

static void put(struct bytes *b, const void *data, size_t n)
{
    b->p = realloc(b->p, b->n + n);
    assert_non_null(b->p);
    memcpy(b->p + b->n, data, n);
    b->n += n;
}

static void put_u32(struct bytes *b, uint32_t v)
{
    put(b, &v, 4);
}

static void put_u64(struct bytes *b, uint64_t v)
{
    put(b, &v, 8);
}

static void put_text(struct bytes *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

static void put_key_u32(struct bytes *b, const char *key, int64_t v)
{
    put_text(b, key);
    put_u32(b, GGUF_U32);
    put_u32(b, (uint32_t)v);
}

static void put_key_f32(struct bytes *b, const char *key, double v)
{
    float f = (float)v;
    put_text(b, key);
    put_u32(b, GGUF_F32);
    put(b, &f, 4);
}

/* The rotary divisors of rope type llama3, written down again from its definition: wavelengths above context / low are divided
 * by `factor`, those below context / high are kept, and what lies between is blended. */
static void llama3_divisors(float *out, const struct config *c)
{
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        double wave = 2 * 3.14159265358979323846 * pow(c->rope_theta, 2.0 * (double)i / (double)c->head_dim);
        double turns = (double)c->rope_original_context / wave;
        double keep = (turns - c->rope_low_freq_factor) / (c->rope_high_freq_factor - c->rope_low_freq_factor);
        keep = fmin(1, fmax(0, keep));
        out[i] = (float)(1 / (keep + (1 - keep) / c->rope_factor));
    }
}

/* The GGUF name of a Hugging Face tensor. */
static void gguf_name(char out[96], const char *name)
{
    static const char *const outer[][2] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                           {"model.norm.weight", "output_norm.weight"},
                                           {"lm_head.weight", "output.weight"}};
    static const char *const inner[][2] = {
        {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},   {"self_attn.v_proj", "attn_v"},
        {"self_attn.o_proj", "attn_output"}, {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},
        {"mlp.down_proj", "ffn_down"},       {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"}};
    int block, at = 0;
    for (size_t i = 0; i < sizeof outer / sizeof *outer; i++)
        if (!strcmp(name, outer[i][0])) {
            strcpy(out, outer[i][1]);
            return;
        }
    if (sscanf(name, "model.layers.%d.%n", &block, &at) != 1 || !at)
        fail_msg("unexpected tensor %s", name);
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++)
        if (!strncmp(name + at, inner[i][0], strlen(inner[i][0]))) {
            snprintf(out, 96, "blk.%d.%s%s", block, inner[i][1], strrchr(name, '.'));
            return;
        }
    fail_msg("unexpected tensor %s", name);
}

/* Rows of q and k: the two halves of each head become interleaved pairs (row i goes to 2 i, row i + half to 2 i + 1). */
static void put_interleaved(struct bytes *b, const struct tensor *t, int64_t head_dim)
{
    int64_t rows = t->shape[0], half = head_dim / 2;
    size_t width = t->bytes / (size_t)rows;
    uint8_t *moved = calloc(1, t->bytes);
    assert_non_null(moved);
    for (int64_t head = 0; head < rows; head += head_dim)
        for (int64_t i = 0; i < half; i++) {
            memcpy(moved + (size_t)(head + 2 * i) * width, t->data + (size_t)(head + i) * width, width);
            memcpy(moved + (size_t)(head + 2 * i + 1) * width, t->data + (size_t)(head + half + i) * width, width);
        }
    put(b, moved, t->bytes);
    free(moved);
}

static void put_tensor_row(struct bytes *table, const char *name, const struct tensor *t, size_t offset)
{
    put_text(table, name);
    put_u32(table, (uint32_t)t->n_dims);
    for (int d = t->n_dims - 1; d >= 0; d--) /* innermost first */
        put_u64(table, (uint64_t)t->shape[d]);
    put_u32(table, 0); /* F32 */
    put_u64(table, offset);
}

static void pad_to_32(struct bytes *b)
{
    static const uint8_t zeros[32];
    put(b, zeros, (32 - b->n % 32) % 32);
}

static void gguf_header(struct bytes *b, const struct config *c, uint64_t n_tensors)
{
    put(b, "GGUF", 4);
    put_u32(b, 3);
    put_u64(b, n_tensors);
    put_u64(b, 10);
    put_text(b, "general.architecture");
    put_u32(b, GGUF_STRING);
    put_text(b, "llama");
    put_key_u32(b, "llama.block_count", c->n_blocks);
    put_key_u32(b, "llama.context_length", c->context_length);
    put_key_u32(b, "llama.embedding_length", c->dim);
    put_key_u32(b, "llama.feed_forward_length", c->ffn_dim);
    put_key_u32(b, "llama.attention.head_count", c->n_heads);
    put_key_u32(b, "llama.attention.head_count_kv", c->n_kv_heads);
    put_key_u32(b, "llama.attention.key_length", c->head_dim);
    put_key_f32(b, "llama.attention.layer_norm_rms_epsilon", c->norm_eps);
    put_key_f32(b, "llama.rope.freq_base", c->rope_theta);
}

static void write_gguf(const char *path, const struct model *m)
{
    struct bytes head = {0}, data = {0};
    bool factors = m->cfg.rope_kind == ROPE_LLAMA3;
    gguf_header(&head, &m->cfg, (uint64_t)m->src.n_tensors + factors);
    for (int64_t i = 0; i < m->src.n_tensors; i++) {
        const struct tensor *t = &m->src.tensors[i];
        char name[96];
        gguf_name(name, t->name);
        put_tensor_row(&head, name, t, data.n);
        if (strstr(t->name, "q_proj") || strstr(t->name, "k_proj"))
            put_interleaved(&data, t, m->cfg.head_dim);
        else
            put(&data, t->data, t->bytes);
        pad_to_32(&data);
    }
    if (factors) {
        float divisor[64];
        struct tensor t = {.n_dims = 1, .shape = {m->cfg.head_dim / 2}};
        llama3_divisors(divisor, &m->cfg);
        put_tensor_row(&head, "rope_freqs.weight", &t, data.n);
        put(&data, divisor, (size_t)t.shape[0] * sizeof *divisor);
    }
    pad_to_32(&head);
    put(&head, data.p, data.n);
    OK(file_write(path, head.p, head.n, &err));
    free(head.p);
    free(data.p);
}

static void logits_of_gguf(void **state)
{
    struct fixture *f = *state;
    char path[128], dir[128];
    struct model m;
    struct save_options o = {.dtype = DTYPE_F32};
    snprintf(path, sizeof path, "%s/model.gguf", f->scratch);
    write_gguf(path, &f->m);
    OK(model_open(&m, path, &err));
    assert_string_equal(m.format, "gguf");
    assert_int_equal(m.cfg.tied_embeddings, f->m.cfg.tied_embeddings);
    check_logits(f, &m, "logits", "GGUF");
    /* Saved as a Hugging Face folder it is the same model again: llama3's divisors are recognised as the rule they came from. */
    assert_int_equal(m.cfg.rope_kind, f->m.cfg.rope_kind);
    scratch_dir(dir, f, "from-gguf");
    OK(model_save(&m, &f->c, dir, &o, NULL, &err));
    check_logits_at(f, dir, "logits");
    model_close(&m);
}

/* A tied, grouped-query model with llama3 scaling as transformers saves it to pytorch_model.bin; too large for this repository. */
static void logits_of_pytorch(void **state)
{
    (void)state;
    static const char expected[] = "../shared/golden/tiny/B/expected.safetensors", bin[] = "../shared/golden/tiny/B/bin";
    struct fixture f = {0};
    if (!path_exists(expected) || !path_exists(bin)) {
        print_message("SKIPPED: %s is not there\n", bin);
        return;
    }
    OK(compute_open(&f.c, 1, PRECISION_F32, &err));
    OK(model_open(&f.m, bin, &err));
    OK(source_open(&f.expected, expected, &err));
    fixture_ids(&f, expected);
    check_logits(&f, &f.m, "logits", bin);
    source_close(&f.expected);
    model_close(&f.m);
    compute_close(&f.c);
    free(f.ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(logits),
        ON_BOTH(logits_of_older_config),
        ON_BOTH(logits_of_few_rows),
        ON_BOTH(loss),
        ON_BOTH(residual_streams),
        ON_BOTH(perplexity_on_removal),
        ON_BOTH(weight_criteria),
        ON_BOTH(stream_criteria),
        ON_BOTH(saved_in_16_bits),
        ON_BOTH(logits_of_gguf),
        cmocka_unit_test(logits_of_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
