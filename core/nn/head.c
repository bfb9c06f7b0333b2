#include "core/nn/head.h"

#include <math.h>
#include <string.h>

#include "core/nn/block.h"
#include "core/nn/tile.h"

enum { TILE_VOCAB = 1536 };

/* Rows whose TILE_VOCAB logits fit into the half of a worker's scratch that gemm_packed leaves. */
static int64_t tile_rows(const struct compute *c)
{
    return (SCRATCH_FLOATS - GEMM_A_FLOATS) / TILE_VOCAB / c->gemm->mr * c->gemm->mr;
}

int head_acts_bind(struct head_acts *a, struct arena *arena, const struct head *h, int64_t rows, struct err *err)
{
    int64_t tiles = ceil_div(h->w.rows, 48) + 1; /* tiles_cut stops dividing below 96 columns */
    struct {
        float **p;
        int64_t w;
    } row[] = {{&a->x, h->w.cols}, {&a->r, 1}, {&a->lse, 1}, {&a->target, 1}, {&a->best, 1}, {&a->top, tiles}, {&a->sum, tiles}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (!(*row[i].p = arena_alloc(arena, (size_t)rows, (size_t)row[i].w * sizeof(float), err)))
            return -1;
    return 0;
}

void head_logits(const struct compute *c, float *logits, const struct head *h, struct head_acts *a, const float *x, int64_t rows,
                 bool dotted)
{
    struct linear op = {.w = &h->w};
    norm_forward(c, a->x, a->r, x, h->norm, h->eps, rows, h->w.cols);
    linear_forward_split(c, &logits, &op, 1, a->x, rows, dotted ? rows : 0, false);
}

struct job {
    const struct compute *c;
    const struct head *h;
    const struct head_acts *a;
    const int32_t *targets;
    int64_t rows;
    struct panel panel;  /* some vocabulary rows, packed as W^T */
    const float *across; /* backward: the same, packed as W */
    struct tiles tiles;
    const float *scale; /* backward */
    float *dx, *dw;
};

/* Logits of rows [row, row + m) and vocabulary rows [v, v + n) of the panel; [m, n] in the worker's scratch. */
static float *logits(const struct job *j, int worker, int64_t row, int64_t v, int64_t m, int64_t n)
{
    int64_t cols = j->h->w.cols;
    float *s = j->c->scratch[worker] + GEMM_A_FLOATS;
    struct product p = {s, n, packed_part(j->c, j->panel.data, v, 0, cols), n, false};
    gemm_packed(j->c, worker, &p, 1, j->a->x + row * cols, cols, 1, m, cols);
    return s;
}

/* Logits of one tile; per row their maximum, the sum of exponentials below it, and the target's logit where it falls here. */
static void nll_task(void *arg, int64_t task, int worker)
{
    struct job *j = arg;
    struct tile t = tile_at(&j->tiles, task);
    float *s = logits(j, worker, t.i, t.j, t.m, t.n);
    for (int64_t i = 0; i < t.m; i++) {
        float *row = s + i * t.n;
        int64_t at = (t.i + i) * j->tiles.across + t.j / j->tiles.tn, hit = j->targets[t.i + i] - j->panel.first - t.j;
        if (hit >= 0 && hit < t.n)
            j->a->target[t.i + i] = row[hit];
        float top = j->c->rows->max(row, t.n);
        j->a->top[at] = top;
        j->a->sum[at] = j->c->rows->exp_sum(row, row, top, t.n);
    }
}

/* Folds one panel's tiles into the running log-sum-exp of each row. */
static void fold_panel(const struct job *j)
{
    for (int64_t i = 0; i < j->rows; i++) {
        const float *top = j->a->top + i * j->tiles.across, *sum = j->a->sum + i * j->tiles.across;
        float best = j->panel.first ? j->a->best[i] : -INFINITY;
        for (int64_t k = 0; k < j->tiles.across; k++)
            best = top[k] > best ? top[k] : best;
        float m = j->panel.first && j->a->lse[i] > best ? j->a->lse[i] : best;
        j->a->best[i] = best;
        double s = j->panel.first ? exp((double)j->a->lse[i] - m) : 0;
        for (int64_t k = 0; k < j->tiles.across; k++)
            s += sum[k] * exp((double)top[k] - m);
        j->a->lse[i] = (float)(m + log(s));
    }
}

void head_nll(const struct compute *c, float *nll, const struct head *h, struct head_acts *a, const float *x,
              const int32_t *targets, int64_t rows)
{
    struct job j = {.c = c, .h = h, .a = a, .targets = targets, .rows = rows};
    norm_forward(c, a->x, a->r, x, h->norm, h->eps, rows, h->w.cols);
    for (int64_t first = 0; first < h->w.rows; first += j.panel.n) {
        j.panel = panel_pack(c, &h->w, first, PANEL_FLOATS);
        j.tiles = tiles_cut(c->gemm->mr, rows, j.panel.n, tile_rows(c), TILE_VOCAB, ENOUGH_TILES);
        pool_run(c->pool, nll_task, &j, j.tiles.count);
        fold_panel(&j);
    }
    for (int64_t i = 0; i < rows; i++)
        nll[i] = a->lse[i] - a->target[i];
}

/* Turns the logits s [m, n] of vocabulary rows [first, first + n) into their gradients, in place. */
static void logit_gradients(const struct job *j, float *s, int64_t row, int64_t m, int64_t first, int64_t n)
{
    for (int64_t i = 0; i < m; i++) {
        float *g = s + i * n;
        int64_t hit = j->targets[row + i] - first;
        j->c->rows->exp_sum(g, g, j->a->lse[row + i], n);
        if (hit >= 0 && hit < n)
            g[hit] -= 1;
        j->c->rows->scale(g, j->scale[row + i], n);
    }
}

/* Some rows against every vocabulary row of the panel: dx += dlogits W. */
static void backward_task(void *arg, int64_t task, int worker)
{
    struct job *j = arg;
    int64_t cols = j->h->w.cols, step = tile_rows(j->c), i = task * step, m = min_i64(step, j->rows - i);
    for (int64_t v = 0; v < j->panel.n; v += TILE_VOCAB) {
        int64_t n = min_i64(TILE_VOCAB, j->panel.n - v);
        float *s = logits(j, worker, i, v, m, n);
        logit_gradients(j, s, i, m, j->panel.first + v, n);
        struct product p = {j->dx + i * cols, cols, packed_part(j->c, j->across, 0, v, j->panel.n), cols, true};
        gemm_packed(j->c, worker, &p, 1, s, n, 1, m, n);
    }
}

/* Some vocabulary rows against every row: dW += dlogits^T x. */
static void weight_task(void *arg, int64_t task, int worker)
{
    struct job *j = arg;
    enum { STRIP = 128 };
    int64_t cols = j->h->w.cols, v = task * STRIP, n = min_i64(STRIP, j->panel.n - v), step = tile_rows(j->c);
    for (int64_t i = 0; i < j->rows; i += step) {
        int64_t m = min_i64(step, j->rows - i);
        float *s = logits(j, worker, i, v, m, n);
        logit_gradients(j, s, i, m, j->panel.first + v, n);
        gemm(j->c, j->dw + (j->panel.first + v) * cols, cols, s, n, j->a->x + i * cols, cols, n, cols, m, 1, 1, GEMM_TRANS_A);
    }
}

void head_backward(const struct compute *c, float *dx, float *dw, float *dnorm, float *d_normed, const struct head *h,
                   const struct head_acts *a, const float *x, const int32_t *targets, const float *scale, int64_t rows)
{
    struct job j = {.c = c, .h = h, .a = a, .targets = targets, .rows = rows, .scale = scale, .dx = d_normed, .dw = dw};
    size_t bytes = (size_t)(rows * h->w.cols) * sizeof *dx;
    int64_t half = PANEL_FLOATS / 2; /* for each way of packing */
    int64_t fit = packed_rows(c, half, h->w.cols) / GEMM_UNIT_N * GEMM_UNIT_N;
    memset(d_normed, 0, bytes);
    for (int64_t first = 0; first < h->w.rows; first += j.panel.n) {
        j.panel = panel_pack(c, &h->w, first, packed_floats(c, fit, h->w.cols));
        j.across = panel_pack_across(c, &h->w, first, j.panel.n, c->panel + half);
        pool_run(c->pool, backward_task, &j, ceil_div(rows, tile_rows(c)));
        if (dw)
            pool_run(c->pool, weight_task, &j, ceil_div(j.panel.n, 128));
    }
    memset(dx, 0, bytes);
    norm_backward(c, dx, d_normed, x, h->norm, a->r, rows, h->w.cols);
    if (dnorm)
        norm_weight_gradient(c, dnorm, d_normed, x, a->r, rows, h->w.cols);
}
