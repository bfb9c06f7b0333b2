/* Hand-written backpropagation, proved twice: against PyTorch's gradients of every parameter, and against finite differences on
 * sequences long enough to need several tiles of queries and of keys. */
#include "tests/fixtures/fixture.h"

#include "core/model/backprop.h"
#include "core/model/save.h"

/* ---- the gradients of all frozen weights, by name ---- */

enum { MAX_BLOCKS = 4 };

struct weight_grads {
    const struct model *m;
    const struct compute *c;
    int64_t slot;
    float *proj[MAX_BLOCKS][PROJ_COUNT], *bias[MAX_BLOCKS][PROJ_COUNT], *norm_attn[MAX_BLOCKS], *norm_ffn[MAX_BLOCKS];
    float *head, *norm, *embed; /* embed is head where the two are tied */
};

static void grads_open(struct weight_grads *g, const struct model *m, const struct compute *c)
{
    *g = (struct weight_grads){.m = m, .c = c};
    assert_true(m->cfg.n_blocks <= MAX_BLOCKS);
    for (int64_t k = 0; k < m->cfg.n_blocks; k++) {
        for (int p = 0; p < PROJ_COUNT; p++) {
            const struct weight *w = &m->blocks[k].proj[p];
            g->proj[k][p] = floats(w->rows * w->cols);
            g->bias[k][p] = m->blocks[k].bias[p] ? floats(w->rows) : NULL;
        }
        g->norm_attn[k] = floats(m->cfg.dim);
        g->norm_ffn[k] = floats(m->cfg.dim);
    }
    g->head = floats(m->cfg.vocab_size * m->cfg.dim);
    g->norm = floats(m->cfg.dim);
    g->embed = m->cfg.tied_embeddings ? g->head : floats(m->cfg.vocab_size * m->cfg.dim);
}

static void grads_close(struct weight_grads *g)
{
    for (int64_t k = 0; k < g->m->cfg.n_blocks; k++) {
        for (int p = 0; p < PROJ_COUNT; p++) {
            free(g->proj[k][p]);
            free(g->bias[k][p]);
        }
        free(g->norm_attn[k]);
        free(g->norm_ffn[k]);
    }
    if (g->embed != g->head)
        free(g->embed);
    free(g->head);
    free(g->norm);
}

/* Forms dW in two pieces, as a scorer would that works panel by panel. */
static void form_proj(void *arg, enum proj which, const float *dy, const float *x, int64_t rows)
{
    struct weight_grads *g = arg;
    const struct weight *w = &g->m->blocks[g->slot].proj[which];
    int64_t cut = w->rows / 3;
    float *dw = g->proj[g->slot][which];
    linear_weight_gradient(g->c, dw, dy, x, rows, w->rows, w->cols, 0, cut);
    linear_weight_gradient(g->c, dw + cut * w->cols, dy, x, rows, w->rows, w->cols, cut, w->rows - cut);
}

static void open_block(void *arg, int64_t slot, struct weight_sink *sink)
{
    struct weight_grads *g = arg;
    g->slot = slot;
    *sink = (struct weight_sink){.arg = g, .proj = form_proj, .norm_attn = g->norm_attn[slot], .norm_ffn = g->norm_ffn[slot]};
    memcpy(sink->bias, g->bias[slot], sizeof sink->bias);
}

static struct gradient_sinks sinks_of(struct weight_grads *g)
{
    return (struct gradient_sinks){.arg = g, .open = open_block, .head = g->head, .norm = g->norm, .embed = g->embed};
}

/* The gradient of the parameter with that Hugging Face name. */
static const float *grad_named(const struct weight_grads *g, const char *name)
{
    char want[160];
    if (!strcmp(name, "lm_head.weight"))
        return g->head;
    if (!strcmp(name, "model.embed_tokens.weight"))
        return g->embed;
    if (!strcmp(name, "model.norm.weight"))
        return g->norm;
    for (int64_t k = 0; k < g->m->cfg.n_blocks; k++) {
        int n = snprintf(want, sizeof want, "model.layers.%lld.", (long long)k);
        if (strncmp(name, want, (size_t)n))
            continue;
        if (!strcmp(name + n, "input_layernorm.weight"))
            return g->norm_attn[k];
        if (!strcmp(name + n, "post_attention_layernorm.weight"))
            return g->norm_ffn[k];
        for (int p = 0; p < PROJ_COUNT; p++) {
            snprintf(want, sizeof want, "%s.weight", proj_names[p]);
            if (!strcmp(name + n, want))
                return g->proj[k][p];
            snprintf(want, sizeof want, "%s.bias", proj_names[p]);
            if (!strcmp(name + n, want))
                return g->bias[k][p];
        }
    }
    return NULL;
}

/* ---- a pass forward and back over some sequences ---- */

struct pass {
    struct lm lm;
    struct backprop bp;
    int64_t rows, n; /* token rows; labelled ones */
    int32_t *ids, *labels;
    float *nll, *weight; /* [rows] */
};

static void pass_open(struct pass *p, const struct fixture *f, const struct lora_set *lora, const int64_t *lens, int64_t n_seqs,
                      enum backprop_memory memory)
{
    int64_t longest = 0;
    *p = (struct pass){0};
    for (int64_t i = 0; i < n_seqs; i++) {
        p->rows += lens[i];
        longest = lens[i] > longest ? lens[i] : longest;
    }
    OK(lm_open(&p->lm, &f->m, &f->c, lora, p->rows, n_seqs, longest, &err));
    OK(backprop_open(&p->bp, &p->lm, memory, &err));
    for (int64_t i = 0; i < n_seqs; i++)
        batch_add(&p->lm.batch, lens[i], 0, NULL);
    p->nll = floats(p->rows);
    p->weight = floats(p->rows);
}

static void pass_close(struct pass *p)
{
    backprop_close(&p->bp);
    lm_close(&p->lm);
    free(p->ids);
    free(p->labels);
    free(p->nll);
    free(p->weight);
}

/* Random ids; a third of the rows without a label; a weight of its own for every loss. */
static void pass_fill_random(struct pass *p, int64_t vocab)
{
    struct rng rng;
    rng_seed(&rng, 5);
    p->ids = random_ids(p->rows, vocab, 6);
    p->labels = random_ids(p->rows, vocab, 7);
    for (int64_t i = 0; i < p->rows; i++) {
        if (rng_below(&rng, 3) == 0)
            p->labels[i] = -100;
        p->weight[i] = (float)(0.5 + rng_double(&rng));
    }
}

/* The fixture's own ids and loss: the mean over the tokens that have a successor. */
static void pass_fill_golden(struct pass *p, const struct fixture *f)
{
    p->ids = calloc((size_t)p->rows, sizeof *p->ids);
    p->labels = calloc((size_t)p->rows, sizeof *p->labels);
    assert_true(p->ids && p->labels);
    memcpy(p->ids, f->ids, (size_t)p->rows * sizeof *p->ids);
    for (int64_t i = 0; i < p->rows; i++) {
        p->labels[i] = (i + 1) % f->len ? f->ids[i + 1] : -100;
        p->weight[i] = 1 / (float)(f->n * (f->len - 1));
    }
}

static double pass_loss(struct pass *p)
{
    double sum = 0;
    OK(backprop_forward(&p->bp, p->nll, &p->n, p->ids, p->labels, &err));
    for (int64_t i = 0; i < p->n; i++)
        sum += (double)p->weight[i] * (double)p->nll[i];
    return sum;
}

/* ---- PyTorch's gradients ---- */

static double norm_of(const float *a, const float *minus, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (minus ? (double)minus[i] : 0);
        s += d * d;
    }
    return sqrt(s);
}

static void against_pytorch(void **state)
{
    struct fixture *f = *state;
    struct weight_grads g;
    struct pass p;
    struct source want;
    char path[96];
    int64_t lens[] = {f->len, f->len}, params = 0;
    snprintf(path, sizeof path, "%s/grads.safetensors", f->dir);
    OK(source_open(&want, path, &err));
    grads_open(&g, &f->m, &f->c);
    pass_open(&p, f, NULL, lens, f->n, BACKPROP_KEEP);
    pass_fill_golden(&p, f);
    assert_near(pass_loss(&p), json_number_value(json_object_get(f->facts, "loss")), 1e-5, "loss");
    struct gradient_sinks sinks = sinks_of(&g);
    backprop_backward(&p.bp, p.ids, p.weight, &sinks);
    for (int64_t i = 0; i < want.n_tensors; i++) {
        const struct tensor *t = &want.tensors[i];
        const float *got = grad_named(&g, t->name), *ref = (const float *)t->data;
        int64_t n = tensor_elements(t);
        if (!got)
            fail_msg("no gradient for %s", t->name);
        double off = norm_of(got, ref, n), size = norm_of(ref, NULL, n);
        if (!(off <= 1e-4 * size)) /* float32 sums in another order; seen: 4e-6 */
            fail_msg("%s: gradient of norm %g is off by %g", t->name, size, off);
        params += n;
    }
    assert_int_equal(params, model_params(&f->m)); /* each of them was looked at */
    source_close(&want);
    pass_close(&p);
    grads_close(&g);
}

/* ---- keeping activations and computing them again ---- */

struct both {
    struct weight_grads g;
    float *lora; /* gradients of the adapter */
    float nll[512];
    int64_t n;
};

static void run_memory(struct both *out, const struct fixture *f, struct lora_set *l, const int64_t *lens, int64_t n_seqs,
                       enum backprop_memory memory)
{
    struct pass p;
    grads_open(&out->g, &f->m, &f->c);
    pass_open(&p, f, l, lens, n_seqs, memory);
    assert_int_equal(p.bp.recompute, memory == BACKPROP_RECOMPUTE);
    pass_fill_random(&p, f->m.cfg.vocab_size);
    p.bp.dropout = (struct dropout){99, 1u << 30, 4.0f / 3};
    memset(l->grads, 0, (size_t)l->n_params * sizeof *l->grads);
    pass_loss(&p);
    struct gradient_sinks sinks = sinks_of(&out->g);
    backprop_backward(&p.bp, p.ids, p.weight, &sinks);
    assert_true(p.n <= 512);
    out->n = p.n;
    memcpy(out->nll, p.nll, (size_t)p.n * sizeof *p.nll);
    out->lora = floats(l->n_params);
    memcpy(out->lora, l->grads, (size_t)l->n_params * sizeof *l->grads);
    pass_close(&p);
}

static void kept_is_recomputed(void **state)
{
    struct fixture *f = *state;
    struct lora_set l;
    static struct both a, b;
    const int64_t lens[] = {7, 70, 1, 30};
    random_lora(&l, &f->m, 3, 0.2f, true);
    run_memory(&a, f, &l, lens, 4, BACKPROP_KEEP);
    run_memory(&b, f, &l, lens, 4, BACKPROP_RECOMPUTE);
    int64_t vocab = f->m.cfg.vocab_size, dim = f->m.cfg.dim;
    assert_int_equal(a.n, b.n);
    assert_same_bits(a.nll, b.nll, (size_t)a.n * sizeof *a.nll, "losses");
    assert_same_bits(a.lora, b.lora, (size_t)l.n_params * sizeof(float), "gradients of the adapter");
    assert_same_bits(a.g.embed, b.g.embed, (size_t)(vocab * dim) * sizeof(float), "embedding");
    assert_same_bits(a.g.head, b.g.head, (size_t)(vocab * dim) * sizeof(float), "head");
    for (int64_t k = 0; k < f->m.n_order; k++) {
        for (int i = 0; i < PROJ_COUNT; i++) {
            const struct weight *w = &f->m.blocks[k].proj[i];
            assert_same_bits(a.g.proj[k][i], b.g.proj[k][i], (size_t)(w->rows * w->cols) * sizeof(float), proj_names[i]);
        }
        assert_same_bits(a.g.norm_attn[k], b.g.norm_attn[k], (size_t)dim * sizeof(float), "norm");
    }
    grads_close(&a.g);
    grads_close(&b.g);
    free(a.lora);
    free(b.lora);
    lora_free(&l);
}

/* No row has a label: no loss, and a gradient of zero. */
static void nothing_labelled(void **state)
{
    struct fixture *f = *state;
    struct lora_set l;
    struct pass p;
    random_lora(&l, &f->m, 3, 0.2f, true);
    pass_open(&p, f, &l, (const int64_t[]){9}, 1, BACKPROP_KEEP);
    pass_fill_random(&p, f->m.cfg.vocab_size);
    for (int64_t i = 0; i < p.rows; i++)
        p.labels[i] = -100;
    assert_true(pass_loss(&p) == 0);
    assert_int_equal(p.n, 0);
    backprop_backward(&p.bp, p.ids, p.weight, NULL);
    assert_true(norm_of(l.grads, NULL, l.n_params) == 0);
    pass_close(&p);
    lora_free(&l);
}

/* ---- finite differences ---- */

/* Long enough for five tiles of 64 queries and two of 256 keys, and for tiles with a single row. */
static const int64_t long_lens[] = {280, 9, 65, 1};
enum { N_LONG = 4, COORDINATES = 2 };

/* d(loss)/d(*x) from four points: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, exact to h^4. */
static double difference(struct pass *p, float *x)
{
    const float h = 1.0f / 128, at = *x;
    static const double factor[] = {1, -8, 8, -1}, step[] = {-2, -1, 1, 2};
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        *x = at + (float)step[i] * h;
        sum += factor[i] * pass_loss(p);
    }
    *x = at;
    return sum / (12 * (double)h);
}

static double worst_difference; /* seen so far, as a share of what is allowed */

/* Compares `grad` [n] with differences at a few random places of `x` [n]. Each token's loss is rounded by some 2e-7, which makes
 * 3e-5 in a difference over h and grows with the root of their number; to that come shares of the gradient and of its typical
 * size. */
static void check_differences(struct pass *p, float *x, const float *grad, int64_t n, struct rng *rng, const char *what)
{
    double typical = norm_of(grad, NULL, n) / sqrt((double)n);
    assert_true(typical > 0);
    for (int i = 0; i < COORDINATES; i++) {
        int64_t at = rng_below(rng, n);
        for (int tries = 0; tries < 50 && fabs((double)grad[at]) < 0.3 * typical; tries++)
            at = rng_below(rng, n); /* a place where there is something to see */
        double want = difference(p, x + at), off = fabs((double)grad[at] - want);
        double allowed = 2e-4 * sqrt((double)p->n) + 2e-3 * typical + 2e-3 * fabs(want);
        worst_difference = fmax(worst_difference, off / allowed);
        if (!(off <= allowed))
            fail_msg("%s, element %lld: gradient %.6g, by differences %.6g (within %.2g)", what, (long long)at, (double)grad[at],
                     want, allowed);
    }
}

/* Lets a mapped weight be moved: points it at a copy, which must be freed after w->data is put back. */
static float *thaw(struct weight *w)
{
    size_t n = (size_t)(w->rows * w->cols);
    float *copy = floats((int64_t)n);
    assert_int_equal(w->dtype, DTYPE_F32);
    memcpy(copy, w->data, n * sizeof *copy);
    w->data = (const uint8_t *)copy;
    return copy;
}

static void check_weight(struct pass *p, struct weight *w, const float *grad, struct rng *rng, const char *what)
{
    const uint8_t *mapped = w->data;
    float *copy = thaw(w);
    check_differences(p, copy, grad, w->rows * w->cols, rng, what);
    w->data = mapped;
    free(copy);
}

static void check_block(struct pass *p, const struct weight_grads *g, struct block *b, int64_t k, struct rng *rng)
{
    for (int i = 0; i < PROJ_COUNT; i++) {
        check_weight(p, &b->proj[i], g->proj[k][i], rng, proj_names[i]);
        if (b->bias[i]) /* vectors are floats in the model's arena, not in the mapped file */
            check_differences(p, (float *)b->bias[i], g->bias[k][i], b->proj[i].rows, rng, "bias");
    }
    check_differences(p, (float *)b->norm_attn, g->norm_attn[k], g->m->cfg.dim, rng, "norm before attention");
    check_differences(p, (float *)b->norm_ffn, g->norm_ffn[k], g->m->cfg.dim, rng, "norm before the feed-forward part");
}

static void check_embeddings(struct pass *p, const struct weight_grads *g, struct model *m, struct rng *rng)
{
    if (!m->cfg.tied_embeddings) {
        check_weight(p, &m->embed, g->embed, rng, "embedding");
        check_weight(p, &m->head.w, g->head, rng, "head");
        return;
    }
    const uint8_t *mapped = m->embed.data;
    float *copy = thaw(&m->embed);
    m->head.w.data = m->embed.data;
    check_differences(p, copy, g->head, m->embed.rows * m->embed.cols, rng, "embedding, tied to the head");
    m->embed.data = m->head.w.data = mapped;
    free(copy);
}

static void differences_of_weights(void **state)
{
    struct fixture *f = *state;
    struct weight_grads g;
    struct pass p;
    struct rng rng;
    rng_seed(&rng, 3);
    grads_open(&g, &f->m, &f->c);
    pass_open(&p, f, NULL, long_lens, N_LONG, BACKPROP_KEEP);
    pass_fill_random(&p, f->m.cfg.vocab_size);
    pass_loss(&p);
    struct gradient_sinks sinks = sinks_of(&g);
    backprop_backward(&p.bp, p.ids, p.weight, &sinks);
    for (int64_t k = 0; k < f->m.cfg.n_blocks; k++)
        check_block(&p, &g, &f->m.blocks[k], k, &rng);
    check_differences(&p, (float *)f->m.head.norm, g.norm, f->m.cfg.dim, &rng, "last norm");
    check_embeddings(&p, &g, &f->m, &rng);
    pass_close(&p);
    grads_close(&g);
}

/* A and B of every projection of every block, with frozen weights around them. */
static void differences_of_lora(const struct fixture *f, struct dropout dropout, const int64_t *lens, int64_t n_seqs)
{
    struct lora_set l;
    struct pass p;
    struct rng rng;
    rng_seed(&rng, 4);
    random_lora(&l, &f->m, 3, 0.2f, true);
    pass_open(&p, f, &l, lens, n_seqs, BACKPROP_KEEP);
    pass_fill_random(&p, f->m.cfg.vocab_size);
    p.bp.dropout = dropout;
    pass_loss(&p);
    backprop_backward(&p.bp, p.ids, p.weight, NULL);
    for (int64_t k = 0; k < l.n_blocks; k++)
        for (int i = 0; i < PROJ_COUNT; i++) {
            struct lora *a = &l.blocks[k].proj[i];
            const struct weight *w = &f->m.blocks[k].proj[i];
            check_differences(&p, a->a, a->da, a->rank * w->cols, &rng, "LoRA A");
            check_differences(&p, a->b, a->db, w->rows * a->rank, &rng, "LoRA B");
        }
    pass_close(&p);
    lora_free(&l);
}

/* The mask depends on key and position alone, so it stays the same while a parameter moves. */
static const struct dropout quarter = {.key = 0x123456789abcdef, .threshold = 1u << 30, .scale = 4.0f / 3};

static void differences_of_lora_without_dropout(void **state)
{
    differences_of_lora(*state, (struct dropout){0}, long_lens, N_LONG);
}

static void differences_of_lora_with_dropout(void **state)
{
    differences_of_lora(*state, quarter, long_lens, N_LONG);
}

/* So few rows that the forward takes the fused decode-and-dot path. */
static void differences_of_lora_on_few_rows(void **state)
{
    differences_of_lora(*state, quarter, (const int64_t[]){3, 2}, 2);
}

/* ---- LoRA, applied and merged ---- */

static void applied_is_merged(void **state)
{
    struct fixture *f = *state;
    struct lora_set l;
    struct model merged;
    char dir[128];
    int64_t vocab = f->m.cfg.vocab_size;
    random_lora(&l, &f->m, 3, 0.2f, false);
    scratch_dir(dir, f, "merged");
    struct save_options o = {.dtype = DTYPE_F32, .lora = &l};
    OK(model_save(&f->m, &f->c, dir, &o, NULL, &err));
    OK(model_open(&merged, dir, &err));
    for (int64_t len = f->len; len > 0; len -= 8) { /* many rows, then few: sgemm and the fused path */
        float *a = logits_of(&f->m, &f->c, &l, f->ids, 1, len), *b = logits_of(&merged, &f->c, NULL, f->ids, 1, len);
        float *without = logits_of(&f->m, &f->c, NULL, f->ids, 1, len);
        /* W + s B A is rounded to float once more than W x + s B (A x); seen: 1.3e-6 */
        assert_close(a, b, len * vocab, 1e-5, "logits, applied and merged");
        assert_true(norm_of(a, without, len * vocab) > 0.1 * norm_of(a, NULL, len * vocab)); /* it does something */
        free(a);
        free(b);
        free(without);
    }
    model_close(&merged);
    lora_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(against_pytorch),
        ON_BOTH(kept_is_recomputed),
        ON_BOTH(nothing_labelled),
        ON_BOTH(differences_of_weights),
        ON_BOTH(differences_of_lora_without_dropout),
        ON_BOTH(differences_of_lora_with_dropout),
        ON_BOTH(differences_of_lora_on_few_rows),
        ON_BOTH(applied_is_merged),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_message("largest deviation from a finite difference: %.2f of what is allowed\n", worst_difference);
    return failed;
}
