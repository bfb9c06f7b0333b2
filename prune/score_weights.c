#include "prune/score_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/backprop.h"
#include "core/model/stream.h"
#include "core/nn/tile.h"
#include "prune/streams.h"

enum { NORM_ATTN = PROJ_COUNT, NORM_FFN, TENSORS_PER_BLOCK };

static const char *const reduction_names[] = {"sum", "mean", "max", "prod"};

int reduction_parse(enum reduction *r, const char *name, const char *option, struct err *err)
{
    for (int k = 0; k < 4; k++)
        if (!strcmp(name, reduction_names[k])) {
            *r = (enum reduction)k;
            return 0;
        }
    return err_usage(err, "--%s %s: sum, mean, max or prod was expected", option, name);
}

static double reduce(const double *v, int64_t n, enum reduction r)
{
    double a = r == REDUCE_PROD ? 1 : 0; /* all values are at least 0 */
    for (int64_t i = 0; i < n; i++)
        a = r == REDUCE_PROD ? a * v[i] : r == REDUCE_MAX ? fmax(a, v[i]) : a + v[i];
    return r == REDUCE_MEAN ? a / (double)n : a;
}

/* ---- the tensors that count, and what is needed to score one ---- */

struct scorer {
    struct scores *s;
    const struct model *m;
    const struct compute *c;
    const struct weight_options *o;
    int64_t *owner;     /* [n_weights]: the unit of each tensor */
    int64_t *row_of;    /* [n_blocks, TENSORS_PER_BLOCK]: the place of a tensor in s->weight, or -1 */
    double *row_scores; /* one per output row of the largest tensor */
    float *gradient;    /* [PANEL_FLOATS]: of some rows of one matrix; NULL for magnitudes */
    float *norms;       /* [2, dim]: gradients of a block's norms; NULL likewise */
    int64_t block;      /* that is going backward */
    struct arena arena;
};

static unsigned tensor_part(int which)
{
    return which < PROJ_COUNT ? proj_part((enum proj)which) : which == NORM_ATTN ? PART_ATTN : PART_FFN;
}

static void add_tensor(struct scorer *k, int64_t unit, int64_t block, int which)
{
    struct scores *s = k->s;
    const char *name = which < PROJ_COUNT ? proj_names[which] : which == NORM_ATTN ? "input_layernorm" : "post_attention_layernorm";
    snprintf(s->weight_name[s->n_weights], WEIGHT_NAME, "model.layers.%lld.%s.weight", (long long)block, name);
    k->owner[s->n_weights] = unit;
    k->row_of[block * TENSORS_PER_BLOCK + which] = s->n_weights++;
}

static int scorer_open(struct scorer *k, struct scores *s, const struct model *m, const struct compute *c,
                       const struct weight_options *o, struct err *err)
{
    size_t max = (size_t)s->n * TENSORS_PER_BLOCK, all = (size_t)m->cfg.n_blocks * TENSORS_PER_BLOCK;
    int64_t widest = m->cfg.dim;
    for (int p = 0; p < PROJ_COUNT; p++)
        widest = m->blocks[0].proj[p].rows > widest ? m->blocks[0].proj[p].rows : widest;
    *k = (struct scorer){.s = s, .m = m, .c = c, .o = o};
    s->weight = mem_alloc(max, sizeof *s->weight, err);
    s->weight_name = mem_alloc(max, sizeof *s->weight_name, err);
    k->owner = arena_alloc(&k->arena, max, sizeof *k->owner, err);
    k->row_of = arena_alloc(&k->arena, all, sizeof *k->row_of, err);
    k->row_scores = arena_alloc(&k->arena, (size_t)widest, sizeof *k->row_scores, err);
    if (!s->weight || !s->weight_name || !k->owner || !k->row_of || !k->row_scores)
        return -1;
    for (int64_t i = 0; i < s->n; i++)
        for (int t = 0; t < TENSORS_PER_BLOCK; t++)
            if (s->unit[i].parts & m->blocks[s->unit[i].block].parts & tensor_part(t))
                add_tensor(k, i, s->unit[i].block, t);
    return 0;
}

/* ---- one tensor ---- */

struct row_job {
    const struct scorer *k;
    struct panel panel;
    const float *gradient; /* like panel.data, or NULL */
    int64_t cols;
};

/* |w|^p or |w g|^p, summed over a row. */
static double row_score(const float *w, const float *g, int64_t n, int64_t power)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float v = fabsf(g ? w[i] * g[i] : w[i]);
        sum += (double)(power == 2 ? v * v : v);
    }
    return sum;
}

enum { TASK_ROWS = 16 };

static void row_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct row_job *j = arg;
    int64_t end = min_i64((task + 1) * TASK_ROWS, j->panel.n);
    for (int64_t i = task * TASK_ROWS; i < end; i++)
        j->k->row_scores[j->panel.first + i] =
            row_score(j->panel.data + i * j->cols, j->gradient ? j->gradient + i * j->cols : NULL, j->cols, j->k->o->norm_power);
}

static void put(struct scorer *k, int64_t block, int which, int64_t rows)
{
    k->s->weight[k->row_of[block * TENSORS_PER_BLOCK + which]] = reduce(k->row_scores, rows, k->o->rows);
}

/* A projection, panel by panel; with dy and x (of n_rows rows) its gradient is formed beside it. */
static void score_matrix(struct scorer *k, int64_t block, enum proj which, const float *dy, const float *x, int64_t n_rows)
{
    const struct weight *w = &k->m->blocks[block].proj[which];
    struct row_job j = {.k = k, .cols = w->cols};
    for (int64_t first = 0, n; first < w->rows; first += n) {
        n = min_i64(panel_rows(w->cols), w->rows - first);
        if (dy) { /* before the weights are loaded: both use the panel buffer */
            j.gradient = k->gradient;
            memset(k->gradient, 0, (size_t)(n * w->cols) * sizeof *k->gradient);
            linear_weight_gradient(k->c, k->gradient, dy, x, n_rows, w->rows, w->cols, first, n);
        }
        j.panel = panel_load(k->c, w, first);
        j.panel.n = n;
        pool_run(k->c->pool, row_task, &j, ceil_div(n, TASK_ROWS));
    }
    put(k, block, (int)which, w->rows);
}

static void score_norm(struct scorer *k, int64_t block, int which, const float *gradient)
{
    const float *w = which == NORM_ATTN ? k->m->blocks[block].norm_attn : k->m->blocks[block].norm_ffn;
    for (int64_t i = 0; i < k->m->cfg.dim; i++)
        k->row_scores[i] = row_score(w + i, gradient ? gradient + i : NULL, 1, k->o->norm_power);
    put(k, block, which, k->m->cfg.dim);
}

/* The units' scores from those of their tensors. */
static void finish(struct scorer *k)
{
    double v[TENSORS_PER_BLOCK];
    for (int64_t i = 0; i < k->s->n; i++) {
        int64_t n = 0;
        for (int64_t t = 0; t < k->s->n_weights; t++)
            if (k->owner[t] == i)
                v[n++] = k->s->weight[t];
        k->s->score[i] = n ? reduce(v, n, k->o->tensors) : 0;
    }
}

int score_magnitude(struct scores *s, const struct model *m, const struct compute *c, const struct weight_options *o,
                    struct progress *progress, struct err *err)
{
    struct scorer k;
    int rc = scorer_open(&k, s, m, c, o, err);
    progress_begin(progress, "adding up weights", m->n_order, "blocks");
    for (int64_t slot = 0; rc == 0 && slot < m->n_order; slot++) {
        unsigned parts = m->blocks[m->order[slot]].parts;
        model_use(m, m->order[slot]);
        for (int t = 0; t < TENSORS_PER_BLOCK; t++) {
            if (!(parts & tensor_part(t)))
                continue;
            if (t < PROJ_COUNT)
                score_matrix(&k, m->order[slot], (enum proj)t, NULL, NULL, 0);
            else
                score_norm(&k, m->order[slot], t, NULL);
        }
        progress_update(progress, slot + 1);
    }
    if (rc == 0) {
        finish(&k);
        progress_end(progress);
    }
    arena_free(&k.arena);
    return rc;
}

/* ---- Taylor ---- */

static void receive(void *arg, enum proj which, const float *dy, const float *x, int64_t rows)
{
    struct scorer *k = arg;
    score_matrix(k, k->block, which, dy, x, rows);
}

static void open_sink(void *arg, int64_t slot, struct weight_sink *sink)
{
    struct scorer *k = arg;
    k->block = k->m->order[slot];
    memset(k->norms, 0, (size_t)(2 * k->m->cfg.dim) * sizeof *k->norms);
    *sink = (struct weight_sink){.arg = k, .proj = receive, .norm_attn = k->norms, .norm_ffn = k->norms + k->m->cfg.dim};
}

struct taylor {
    struct scorer k;
    struct lm lm;
    struct backprop bp;
    const struct calibration *cal;
    int32_t *labels;     /* [rows] */
    float *nll, *weight; /* [rows] */
    struct partial *partial;
    struct progress *progress;
};

/* Labels, and each label's weight in the sum of losses. */
static void set_losses(struct taylor *t)
{
    int64_t n = t->cal->n, len = t->cal->len, batch = t->k.o->sample_batch, k = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t in_batch = min_i64(batch, n - i / batch * batch); /* the last batch may be short */
        for (int64_t j = 0; j < len; j++)
            t->labels[i * len + j] = j + 1 < len ? t->cal->ids[i * len + j + 1] : -100;
        for (int64_t j = 0; j + 1 < len; j++)
            t->weight[k++] = (float)(1.0 / (double)((len - 1) * in_batch));
    }
}

static int forward(struct taylor *t, struct err *err)
{
    int64_t n;
    double sum = 0;
    batch_uniform(&t->lm.batch, t->cal->n, t->cal->len);
    if (backprop_forward(&t->bp, t->nll, &n, t->cal->ids, t->labels, err) != 0)
        return -1;
    for (int64_t i = 0; i < n; i++)
        sum += (double)t->nll[i];
    t->k.s->base_ppl = exp(sum / (double)n);
    return 0;
}

/* The gradient by the stream before block `slot`, and what the blocks from there on scored. Saved, or loaded where there is
 * something to resume. */
static int exchange(struct taylor *t, int64_t *slot, bool save, struct err *err)
{
    FILE *in = NULL;
    struct segment segments[] = {
        {slot, sizeof *slot},
        {t->k.s->weight, (size_t)t->k.s->n_weights * sizeof *t->k.s->weight},
        {t->bp.d, (size_t)(t->cal->n * t->cal->len * t->lm.m->cfg.dim) * sizeof *t->bp.d},
    };
    if (save)
        return partial_save(t->partial, segments, 3, err);
    if (partial_open(&in, t->partial, err) != 0)
        return -1;
    if (!in)
        return 0;
    int rc = partial_read(in, t->partial, segments, 3, err);
    fclose(in);
    if (rc == 0 && (*slot < 0 || *slot > t->lm.m->n_order))
        rc = err_set(err, "%s: it is damaged; remove it or leave out --resume to begin anew", t->partial->path);
    return rc;
}

static int backward(struct taylor *t, struct err *err)
{
    struct gradient_sinks sinks = {.arg = &t->k, .open = open_sink};
    int64_t slot = t->lm.m->n_order, n = slot;
    backprop_head(&t->bp, t->weight, NULL);
    if (exchange(t, &slot, false, err) != 0)
        return -1;
    while (slot-- > 0) {
        backprop_block(&t->bp, slot, &sinks);
        for (int which = NORM_ATTN; which <= NORM_FFN; which++)
            if (t->lm.m->blocks[t->k.block].parts & tensor_part(which))
                score_norm(&t->k, t->k.block, which, t->k.norms + (which == NORM_FFN) * t->lm.m->cfg.dim);
        progress_update(t->progress, n + 3 * (n - slot)); /* recomputed, then two products for one of the forward */
        if (partial_due(t->partial) && exchange(t, &slot, true, err) != 0)
            return -1;
    }
    return 0;
}

int score_taylor(struct scores *s, const struct model *m, const struct compute *c, const struct calibration *cal,
                 const struct weight_options *o, struct partial *partial, struct progress *progress, struct err *err)
{
    struct taylor t = {.cal = cal, .partial = partial, .progress = progress};
    size_t rows = (size_t)(cal->n * cal->len);
    struct arena *arena = &t.k.arena;
    int rc = -1;
    s->samples = cal->n;
    s->targets = cal->len - 1;
    if (streams_fit(cal, m->n_order + 1, m->cfg.dim, err) != 0 || scorer_open(&t.k, s, m, c, o, err) != 0 ||
        lm_open(&t.lm, m, c, NULL, cal->n * cal->len, cal->n, cal->len, err) != 0 ||
        backprop_open(&t.bp, &t.lm, BACKPROP_RECOMPUTE, err) != 0)
        goto done;
    t.k.gradient = arena_alloc(arena, PANEL_FLOATS, sizeof(float), err);
    t.k.norms = arena_alloc(arena, 2, (size_t)m->cfg.dim * sizeof(float), err);
    t.labels = arena_alloc(arena, rows, sizeof *t.labels, err);
    t.nll = arena_alloc(arena, rows, sizeof *t.nll, err);
    t.weight = arena_alloc(arena, rows, sizeof *t.weight, err);
    if (!t.k.gradient || !t.k.norms || !t.labels || !t.nll || !t.weight)
        goto done;
    set_losses(&t);
    t.bp.progress = progress;
    progress_begin(progress, "gradients", 4 * m->n_order, "block passes");
    if (forward(&t, err) != 0)
        goto done;
    if (backward(&t, err) != 0)
        goto done;
    progress_end(progress);
    finish(&t.k);
    rc = 0;
done:
    backprop_close(&t.bp);
    lm_close(&t.lm);
    arena_free(arena);
    return rc;
}
