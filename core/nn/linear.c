#include "core/nn/linear.h"

#include <string.h>

#include "core/nn/tile.h"

enum {
    FEW_ROWS = 6,       /* up to here: fused decode-and-dot straight from the file's bytes; above: decode once, then sgemm */
    DOT_TASKS = 4,      /* fused tasks per thread: enough to even out the threads, few enough to stream */
    DECODE_CHUNK = 16,  /* weight rows of one decoding task */
    TILE_ROWS = 256,    /* activations of one sgemm */
    TILE_OUTPUTS = 512, /* outputs of one sgemm */
    MAX_OPS = 3,        /* q, k and v share one input */
};

void weight_decode(const struct compute *c, float *out, const struct weight *w, int64_t first, int64_t n)
{
    for (int64_t r = 0; r < n; r++)
        c->rows->decode[w->dtype](out + r * w->cols, weight_row(w, first + r), w->cols);
}

/* ---- panels: rows of W as floats, for several weights at once where the buffer holds them ---- */

struct piece {
    const struct weight *w;
    struct panel panel;
    float *room;        /* where panel.data is decoded to; NULL for floats that need no decoding */
    int64_t first_task; /* of decoding */
};

struct decode_job {
    const struct compute *c;
    const struct piece *pieces;
    int n;
};

static void decode_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct decode_job *j = arg;
    int k = j->n - 1;
    while (task < j->pieces[k].first_task)
        k--;
    const struct piece *p = &j->pieces[k];
    int64_t i = (task - p->first_task) * DECODE_CHUNK;
    weight_decode(j->c, p->room + i * p->w->cols, p->w, p->panel.first + i, min_i64(DECODE_CHUNK, p->panel.n - i));
}

static void decode_pieces(const struct compute *c, struct piece *pieces, int n)
{
    struct decode_job j = {c, pieces, n};
    int64_t tasks = 0;
    for (int k = 0; k < n; k++) {
        pieces[k].first_task = tasks;
        tasks += pieces[k].room ? ceil_div(pieces[k].panel.n, DECODE_CHUNK) : 0;
    }
    pool_run(c->pool, decode_task, &j, tasks);
}

/* The piece of w from row `first` on that fits behind `used` floats of the panel buffer; a multiple of `unit` rows, or the rest. */
static struct piece piece_at(const struct compute *c, const struct weight *w, int64_t first, int64_t unit, int64_t used)
{
    int64_t left = w->rows - first, fit = (PANEL_FLOATS - used) / w->cols;
    if (w->dtype == DTYPE_F32 && !w->pair_dim)
        return (struct piece){.w = w, .panel = {first, left, (const float *)w->data + first * w->cols}};
    float *room = c->panel + used;
    int64_t n = fit >= left ? left : fit > unit ? fit / unit * unit : fit;
    return (struct piece){.w = w, .panel = {first, n, room}, .room = room};
}

struct panel panel_load(const struct compute *c, const struct weight *w, int64_t first, int64_t unit)
{
    struct piece p = piece_at(c, w, first, unit, 0);
    decode_pieces(c, &p, 1);
    return p.panel;
}

/* ---- LoRA's down projection: t = dropout(x) A^T ---- */

struct down_job {
    const struct compute *c;
    const struct linear *op;
    const float *x;
    int64_t rows, tile;
};

static bool has_lora(const struct linear *op)
{
    return op->lora && op->lora->rank > 0;
}

static void down_task(void *arg, int64_t task, int worker)
{
    struct down_job *j = arg;
    const struct lora *l = j->op->lora;
    int64_t cols = j->op->w->cols, i = task * j->tile, n = min_i64(j->tile, j->rows - i);
    const float *x = j->x + i * cols;
    if (j->op->dropout.threshold) {
        const struct dropout *d = &j->op->dropout;
        j->c->rows->dropout(j->c->scratch[worker], x, d->key, (uint32_t)(i * cols), d->threshold, d->scale, n * cols);
        x = j->c->scratch[worker];
    }
    gemm(j->c, j->op->t + i * l->rank, l->rank, x, cols, l->a, cols, n, l->rank, cols, 1, 0, GEMM_TRANS_B);
}

static void lora_down(const struct compute *c, const struct linear *op, const float *x, int64_t rows)
{
    struct down_job j = {c, op, x, rows, min_i64(64, SCRATCH_FLOATS / op->w->cols)};
    pool_run(c->pool, down_task, &j, ceil_div(rows, j.tile));
}

/* ---- forward ---- */

struct forward_job {
    const struct compute *c;
    const struct linear *ops;
    float *const *y;
    const float *x;
    int64_t rows;
    bool accumulate;
    int n_ops;
    int64_t chunk;                /* few rows: weight rows of one task */
    int64_t chunks[MAX_OPS + 1];  /* first task of each op, or of each op's tiles */
    struct piece pieces[MAX_OPS]; /* many rows: what is decoded of each op */
    struct tiles tiles[MAX_OPS];
};

/* Few rows: four weight rows at a time against every row of x, decoded on the way. */
static void dot_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct forward_job *j = arg;
    int k = 0;
    while (task >= j->chunks[k + 1])
        k++;
    const struct linear *op = &j->ops[k];
    const struct weight *w = op->w;
    int64_t begin = (task - j->chunks[k]) * j->chunk, end = min_i64(begin + j->chunk, w->rows);
    for (int64_t r = begin; r < end; r += 4) {
        int64_t n = min_i64(4, end - r);
        const void *rows[4];
        for (int64_t q = 0; q < 4; q++)
            rows[q] = weight_row(w, r + min_i64(q, n - 1));
        for (int64_t i = 0; i < j->rows; i++) {
            float s[4], *y = j->y[k] + i * w->rows + r;
            j->c->rows->dot4[w->dtype](s, rows, j->x + i * w->cols, w->cols);
            for (int64_t q = 0; q < n; q++) {
                float v = s[q] + (op->bias ? op->bias[r + q] : 0);
                if (has_lora(op))
                    v += op->lora->scale *
                         j->c->rows->dot(op->t + i * op->lora->rank, op->lora->b + (r + q) * op->lora->rank, op->lora->rank);
                y[q] = j->accumulate ? y[q] + v : v;
            }
        }
    }
}

/* Many rows: one sgemm tile, then bias and LoRA while the tile is in cache. */
static void tile_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct forward_job *j = arg;
    int k = 0;
    while (task >= j->chunks[k + 1])
        k++;
    const struct linear *op = &j->ops[k];
    const struct panel *panel = &j->pieces[k].panel;
    struct tile t = tile_at(&j->tiles[k], task - j->chunks[k]);
    int64_t cols = op->w->cols, out = op->w->rows, first = panel->first + t.j;
    float *y = j->y[k] + t.i * out + first;
    gemm(j->c, y, out, j->x + t.i * cols, cols, panel->data + t.j * cols, cols, t.m, t.n, cols, 1, j->accumulate ? 1 : 0,
         GEMM_TRANS_B);
    if (op->bias)
        for (int64_t i = 0; i < t.m; i++)
            j->c->rows->add(y + i * out, op->bias + first, t.n);
    if (has_lora(op)) {
        const struct lora *l = op->lora;
        gemm(j->c, y, out, op->t + t.i * l->rank, l->rank, l->b + first * l->rank, l->rank, t.m, t.n, l->rank, l->scale, 1,
             GEMM_TRANS_B);
    }
}

/* The ops [0, n) of j, all decoded side by side when the panel buffer holds them, else panel by panel. */
static void forward_many(struct forward_job *j)
{
    int64_t used = 0;
    for (int k = 0; k < j->n_ops; k++)
        used += j->ops[k].w->rows * j->ops[k].w->cols;
    if (j->n_ops > 1 && used > PANEL_FLOATS) {
        for (int k = 0; k < j->n_ops; k++) {
            struct forward_job one = *j;
            one.n_ops = 1;
            one.ops = &j->ops[k];
            one.y = &j->y[k];
            forward_many(&one);
        }
        return;
    }
    for (int64_t first = 0; first < j->ops[0].w->rows; first += j->pieces[0].panel.n) { /* one round for ops side by side */
        used = 0;
        for (int k = 0; k < j->n_ops; k++) {
            j->pieces[k] = piece_at(j->c, j->ops[k].w, first, TILE_OUTPUTS, used);
            used += j->pieces[k].room ? j->pieces[k].panel.n * j->ops[k].w->cols : 0;
            j->tiles[k] = tiles_cut(j->rows, j->pieces[k].panel.n, TILE_ROWS, TILE_OUTPUTS, ceil_div(ENOUGH_TILES, j->n_ops));
            j->chunks[k + 1] = j->chunks[k] + j->tiles[k].count;
        }
        decode_pieces(j->c, j->pieces, j->n_ops);
        pool_run(j->c->pool, tile_task, j, j->chunks[j->n_ops]);
    }
}

void linear_forward(const struct compute *c, float *const y[], const struct linear ops[], int n, const float *x, int64_t rows,
                    bool accumulate)
{
    struct forward_job j = {.c = c, .ops = ops, .y = y, .x = x, .rows = rows, .accumulate = accumulate, .n_ops = n};
    for (int k = 0; k < n; k++)
        if (has_lora(&ops[k]))
            lora_down(c, &ops[k], x, rows);
    if (rows > FEW_ROWS) {
        forward_many(&j);
        return;
    }
    int64_t outputs = 0;
    for (int k = 0; k < n; k++)
        outputs += ops[k].w->rows;
    j.chunk = run_length(outputs, DOT_TASKS * pool_threads(c->pool), 4); /* each output is one dot product: any cut will do */
    for (int k = 0; k < n; k++)
        j.chunks[k + 1] = j.chunks[k] + ceil_div(ops[k].w->rows, j.chunk);
    pool_run(c->pool, dot_task, &j, j.chunks[n]);
}

/* ---- backward: y = x W^T + scale drop(x) A^T B^T, with t = drop(x) A^T ---- */

struct backward_job {
    const struct compute *c;
    const struct linear *op;
    float *dx;
    const float *dy, *x;
    float *dt; /* [rows, rank]: scale dy B */
    int64_t rows, tile;
    struct panel panel;
    struct tiles tiles;
};

/* dx += dy W */
static void input_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct backward_job *j = arg;
    struct tile t = tile_at(&j->tiles, task);
    int64_t cols = j->op->w->cols, out = j->op->w->rows;
    gemm(j->c, j->dx + t.i * cols + t.j, cols, j->dy + t.i * out + j->panel.first, out, j->panel.data + t.j, cols, t.m, t.n,
         j->panel.n, 1, 1, 0);
}

/* dt = scale dy B, and from it dx += mask(dt A) */
static void lora_input_task(void *arg, int64_t task, int worker)
{
    struct backward_job *j = arg;
    const struct lora *l = j->op->lora;
    const struct dropout *d = &j->op->dropout;
    int64_t cols = j->op->w->cols, out = j->op->w->rows, i = task * j->tile, n = min_i64(j->tile, j->rows - i);
    float *dt = j->dt + i * l->rank, *dx = j->dx + i * cols, *s = j->c->scratch[worker];
    gemm(j->c, dt, l->rank, j->dy + i * out, out, l->b, l->rank, n, l->rank, out, l->scale, 0, 0);
    if (!d->threshold) {
        gemm(j->c, dx, cols, dt, l->rank, l->a, cols, n, cols, l->rank, 1, 1, 0);
        return;
    }
    gemm(j->c, s, cols, dt, l->rank, l->a, cols, n, cols, l->rank, 1, 0, 0);
    j->c->rows->dropout(s, s, d->key, (uint32_t)(i * cols), d->threshold, d->scale, n * cols);
    j->c->rows->add(dx, s, n * cols);
}

/* db += scale dy^T t, some outputs */
static void lora_b_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct backward_job *j = arg;
    const struct lora *l = j->op->lora;
    struct tile t = tile_at(&j->tiles, task);
    gemm(j->c, l->db + t.j * l->rank, l->rank, j->dy + t.j, j->op->w->rows, j->op->t, l->rank, t.n, l->rank, j->rows, l->scale, 1,
         GEMM_TRANS_A);
}

/* da += dt^T drop(x), some inputs; the masked x is made a strip of rows at a time */
static void lora_a_task(void *arg, int64_t task, int worker)
{
    struct backward_job *j = arg;
    const struct lora *l = j->op->lora;
    const struct dropout *d = &j->op->dropout;
    struct tile t = tile_at(&j->tiles, task);
    int64_t cols = j->op->w->cols, strip = d->threshold ? SCRATCH_FLOATS / t.n : j->rows;
    for (int64_t i = 0; i < j->rows; i += strip) {
        int64_t n = min_i64(strip, j->rows - i), ldx = cols;
        const float *x = j->x + i * cols + t.j;
        if (d->threshold) {
            float *s = j->c->scratch[worker];
            for (int64_t r = 0; r < n; r++)
                j->c->rows->dropout(s + r * t.n, x + r * cols, d->key, (uint32_t)((i + r) * cols + t.j), d->threshold, d->scale,
                                    t.n);
            x = s;
            ldx = t.n;
        }
        gemm(j->c, l->da + t.j, cols, j->dt + i * l->rank, l->rank, x, ldx, l->rank, t.n, n, 1, 1, GEMM_TRANS_A);
    }
}

static void lora_backward(struct backward_job *j)
{
    const struct compute *c = j->c;
    const struct linear *op = j->op;
    enum { STRIP = 128 }; /* columns of one gradient task */
    j->dt = c->panel;     /* free again once dx has its dense part; rows * rank floats always fit */
    j->tile = min_i64(64, SCRATCH_FLOATS / op->w->cols);
    pool_run(c->pool, lora_input_task, j, ceil_div(j->rows, j->tile));
    if (!op->lora->da)
        return;
    j->tiles = (struct tiles){1, op->w->rows, 1, STRIP, ceil_div(op->w->rows, STRIP), 0};
    pool_run(c->pool, lora_b_task, j, j->tiles.across);
    j->tiles = (struct tiles){1, op->w->cols, 1, STRIP, ceil_div(op->w->cols, STRIP), 0};
    pool_run(c->pool, lora_a_task, j, j->tiles.across);
}

void linear_backward(const struct compute *c, float *dx, const float *dy, const struct linear *op, const float *x, int64_t rows)
{
    struct backward_job j = {.c = c, .op = op, .dx = dx, .dy = dy, .x = x, .rows = rows};
    for (int64_t first = 0; first < op->w->rows; first += j.panel.n) {
        j.panel = panel_load(c, op->w, first, TILE_OUTPUTS);
        j.tiles = tiles_cut(rows, op->w->cols, TILE_ROWS, TILE_OUTPUTS, ENOUGH_TILES);
        pool_run(c->pool, input_task, &j, j.tiles.count);
    }
    if (has_lora(op))
        lora_backward(&j);
}

/* ---- the gradient of W itself: Taylor scores and tests ---- */

struct gradient_job {
    const struct compute *c;
    float *dw;
    const float *dy, *x;
    int64_t rows, outputs, cols, first;
    struct tiles tiles;
};

static void gradient_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct gradient_job *j = arg;
    struct tile t = tile_at(&j->tiles, task);
    gemm(j->c, j->dw + t.i * j->cols + t.j, j->cols, j->dy + j->first + t.i, j->outputs, j->x + t.j, j->cols, t.m, t.n, j->rows, 1,
         1, GEMM_TRANS_A);
}

void linear_weight_gradient(const struct compute *c, float *dw, const float *dy, const float *x, int64_t rows, int64_t outputs,
                            int64_t cols, int64_t first, int64_t n)
{
    struct gradient_job j = {c, dw, dy, x, rows, outputs, cols, first, tiles_cut(n, cols, TILE_ROWS, TILE_OUTPUTS, ENOUGH_TILES)};
    pool_run(c->pool, gradient_task, &j, j.tiles.count);
}
