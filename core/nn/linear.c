#include "core/nn/linear.h"

#include <string.h>

#include "core/nn/tile.h"

enum {
    FEW_ROWS = LINEAR_FEW_ROWS,
    LORA_ROWS = 64,
    DOT_TASKS = 4,           /* of few rows, per thread; each is shorter than the one before it */
    FIXED_LEAST_COLS = 1024, /* whole numbers: shorter rows gain nothing (one of 576 columns 0.86 to 0.96 times as fast) */
    DECODE_ROWS = 16,        /* weight rows of one decoding task */
    PACK_COLS = 1024,        /* columns that are decoded at once before they are packed; a multiple of every dtype's block */
    TILE_OUTPUTS = 1536,     /* outputs of one tile: each packing of its rows is used that often */
    MAX_OPS = 3,             /* q, k and v share one input */
};

/* Columns [col, col + n) of row r; col is a multiple of the dtype's block. */
static void decode_part(const struct compute *c, float *out, const struct weight *w, int64_t r, int64_t col, int64_t n)
{
    c->rows->decode[w->dtype](out, (const uint8_t *)weight_row(w, r) + dtype_bytes(w->dtype, col), n);
    if (w->scale)
        c->rows->scale(out, w->scale[r], n);
}

void weight_decode(const struct compute *c, float *out, const struct weight *w, int64_t first, int64_t n)
{
    for (int64_t r = 0; r < n; r++)
        decode_part(c, out + r * w->cols, w, first + r, 0, w->cols);
}

/* Whether the file's bytes are the floats, in order. */
static bool is_plain(const struct weight *w)
{
    return w->dtype == DTYPE_F32 && !w->pair_dim && !w->scale;
}

static const float *plain_row(const struct weight *w, int64_t r)
{
    return (const float *)(const void *)(w->data + (size_t)r * w->row_bytes);
}

/* ---- panels: some rows of W as floats, in the compute's panel buffer: as they are, or packed as a right-hand side ---- */

struct piece {
    const struct weight *w;
    int64_t first, n;   /* rows */
    float *room;        /* where they go */
    int64_t first_task; /* of filling it */
};

struct fill_job {
    const struct compute *c;
    const struct piece *pieces;
    int n;
};

static const struct piece *piece_of(const struct fill_job *j, int64_t task)
{
    int k = j->n - 1;
    while (task < j->pieces[k].first_task)
        k--;
    return &j->pieces[k];
}

static void decode_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct fill_job *j = arg;
    const struct piece *p = piece_of(j, task);
    int64_t i = (task - p->first_task) * DECODE_ROWS;
    weight_decode(j->c, p->room + i * p->w->cols, p->w, p->first + i, min_i64(DECODE_ROWS, p->n - i));
}

/* A group of weight rows, that is of columns of W^T. */
static void pack_task(void *arg, int64_t task, int worker)
{
    const struct fill_job *j = arg;
    const struct piece *p = piece_of(j, task);
    const struct weight *w = p->w;
    const struct gemm_kernels *g = j->c->gemm;
    int64_t i = (task - p->first_task) * g->nr, n = min_i64(g->nr, p->n - i);
    float *rows = j->c->scratch[worker];
    if (is_plain(w)) {
        g->pack_b(packed_at(j->c, p->room, 0, i, w->cols), plain_row(w, p->first + i), w->cols, n, w->cols);
        return;
    }
    for (int64_t col = 0; col < w->cols; col += PACK_COLS) {
        int64_t k = min_i64(PACK_COLS, w->cols - col);
        for (int64_t r = 0; r < n; r++)
            decode_part(j->c, rows + r * PACK_COLS, w, p->first + i + r, col, k);
        g->pack_b(packed_at(j->c, p->room, col, i, w->cols), rows, PACK_COLS, n, k);
    }
}

static void fill_pieces(const struct compute *c, struct piece *pieces, int n, pool_fn *fill, int64_t rows_per_task)
{
    struct fill_job j = {c, pieces, n};
    int64_t tasks = 0;
    for (int k = 0; k < n; k++) {
        pieces[k].first_task = tasks;
        tasks += ceil_div(pieces[k].n, rows_per_task);
    }
    pool_run(c->pool, fill, &j, tasks);
}

/* The piece of w from row `first` on, in the panel buffer behind `used` floats: the `fit` rows for which there is room, a multiple
 * of GEMM_UNIT_N, or all that is left. */
static struct piece piece_at(const struct compute *c, const struct weight *w, int64_t first, int64_t used, int64_t fit)
{
    return (struct piece){
        .w = w, .first = first, .n = min_i64(w->rows - first, max_i64(fit, GEMM_UNIT_N)), .room = c->panel + used};
}

int64_t panel_rows(int64_t cols)
{
    return max_i64(PANEL_FLOATS / cols / GEMM_UNIT_N, 1) * GEMM_UNIT_N;
}

struct panel panel_load(const struct compute *c, const struct weight *w, int64_t first)
{
    struct piece p = piece_at(c, w, first, 0, panel_rows(w->cols));
    if (is_plain(w))
        return (struct panel){first, p.n, plain_row(w, first)};
    fill_pieces(c, &p, 1, decode_task, DECODE_ROWS);
    return (struct panel){first, p.n, p.room};
}

struct panel panel_pack(const struct compute *c, const struct weight *w, int64_t first, int64_t size)
{
    struct piece p = piece_at(c, w, first, 0, packed_columns(c, size, w->cols));
    fill_pieces(c, &p, 1, pack_task, c->gemm->nr);
    return (struct panel){first, p.n, p.room};
}

/* ---- W itself as a right-hand side, for products with W instead of W^T ---- */

struct across_job {
    const struct compute *c;
    const struct weight *w;
    struct panel panel;
    float *room;
    int64_t rows; /* of one task */
};

static void across_task(void *arg, int64_t task, int worker)
{
    const struct across_job *j = arg;
    int64_t i = task * j->rows, n = min_i64(j->rows, j->panel.n - i), cols = j->w->cols;
    float *s = j->c->scratch[worker];
    if (is_plain(j->w)) {
        gemm_pack_columns(j->c, j->room, plain_row(j->w, j->panel.first + i), cols, i, n, cols, j->panel.n);
        return;
    }
    weight_decode(j->c, s, j->w, j->panel.first + i, n);
    gemm_pack_columns(j->c, j->room, s, cols, i, n, cols, j->panel.n);
}

const float *panel_pack_across(const struct compute *c, const struct weight *w, int64_t first, int64_t n, float *room)
{
    struct across_job j = {c, w, {first, n, room}, room, min_i64(DECODE_ROWS, SCRATCH_FLOATS / w->cols / 2 * 2)};
    pool_run(c->pool, across_task, &j, ceil_div(n, j.rows));
    return room;
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

static void lora_down(const struct compute *c, const struct linear *op, const float *x, int64_t rows, int64_t tile)
{
    struct down_job j = {c, op, x, rows, min_i64(tile, SCRATCH_FLOATS / op->w->cols)};
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
    bool joint; /* enough rows for a task to take them through all ops */
    int n_ops;
    const float *fixed[MAX_OPS];  /* few rows: x as whole numbers for the dtype of each op's weights, or NULL */
    int64_t outputs, tasks;       /* few rows: of all ops */
    int64_t chunks[MAX_OPS + 1];  /* many rows: first task of each op's tiles */
    struct piece pieces[MAX_OPS]; /* many rows: what is packed of each op */
    struct tiles tiles[MAX_OPS];
};

/* s [m, 4] are the products of weight rows [r, r + n) with rows [i, i + m) of x: y gets them, with bias and LoRA. */
static void put_dots(const struct forward_job *j, int k, const float *s, int64_t i, int64_t m, int64_t r, int64_t n)
{
    const struct linear *op = &j->ops[k];
    bool plain = !op->bias && !has_lora(op);
    for (int64_t end = i + m; i < end; i++, s += 4) {
        float *y = j->y[k] + i * op->w->rows + r;
        for (int64_t q = 0; plain && q < n; q++)
            y[q] = j->accumulate ? y[q] + s[q] : s[q];
        for (int64_t q = 0; !plain && q < n; q++) {
            float v = s[q] + (op->bias ? op->bias[r + q] : 0);
            if (has_lora(op))
                v += op->lora->scale *
                     j->c->rows->dot(op->t + i * op->lora->rank, op->lora->b + (r + q) * op->lora->rank, op->lora->rank);
            y[q] = j->accumulate ? y[q] + v : v;
        }
    }
}

/* Few rows: rows [begin, end) of op k's weights, four at a time against every row of x, in whole numbers where there are kernels
 * for that, else decoded on the way. */
static void dot_rows(const struct forward_job *j, int k, int64_t begin, int64_t end)
{
    enum { AT_ONCE = LINEAR_FEW_ROWS };
    float s[AT_ONCE][4];
    const struct weight *w = j->ops[k].w;
    const float *fixed = j->fixed[k];
    for (int64_t r = begin; r < end; r += 4) {
        int64_t n = min_i64(4, end - r);
        const void *rows[4], *next[4];
        for (int64_t q = 0; q < 4; q++) { /* what is left behind row n is multiplied, too, and not used */
            rows[q] = weight_row(w, r + min_i64(q, n - 1));
            next[q] = weight_row(w, min_i64(r + 4 + q, end - 1));
        }
        for (int64_t i = 0; i < j->rows; i += AT_ONCE) {
            int64_t m = min_i64(AT_ONCE, j->rows - i);
            if (fixed)
                j->c->fixed->dot4[w->dtype](s[0], 4, rows, fixed + i * fixed_floats(w->cols), m, w->cols, next);
            else
                j->c->rows->dot4[w->dtype](s[0], 4, rows, j->x + i * w->cols, m, w->cols, next);
            for (int64_t q = 0; w->scale && q < 4 * m; q++)
                s[q / 4][q % 4] *= w->scale[r + min_i64(q % 4, n - 1)];
            put_dots(j, k, s[0], i, m, r, n);
        }
    }
}

/* The first output of a task, counting through all ops. Tasks share the outputs as strips of one height share a triangle: the long
 * ones stream, and the short ones at the end even out the threads. */
static int64_t first_dot(const struct forward_job *j, int64_t task)
{
    int64_t left = j->tasks - task;
    return left ? (j->outputs - j->outputs * left / j->tasks * left / j->tasks) / 4 * 4 : j->outputs;
}

static void dot_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct forward_job *j = arg;
    int64_t begin = first_dot(j, task), end = first_dot(j, task + 1);
    for (int k = 0; k < j->n_ops; k++) {
        int64_t rows = j->ops[k].w->rows;
        if (begin < rows && end > 0)
            dot_rows(j, k, max_i64(begin, 0), min_i64(end, rows));
        begin -= rows;
        end -= rows;
    }
}

/* Bias and LoRA of one op, while the tile is in cache. */
static void finish_tile(const struct forward_job *j, int k, const struct tile *t, float *y)
{
    const struct linear *op = &j->ops[k];
    int64_t out = op->w->rows, first = j->pieces[k].first + t->j;
    if (op->bias)
        for (int64_t i = 0; i < t->m; i++)
            j->c->rows->add(y + i * out, op->bias + first, t->n);
    if (has_lora(op)) {
        const struct lora *l = op->lora;
        gemm(j->c, y, out, op->t + t->i * l->rank, l->rank, l->b + first * l->rank, l->rank, t->m, t->n, l->rank, l->scale, 1,
             GEMM_TRANS_B);
    }
}

/* Many rows: one tile of one op, or (joint) the same rows of all ops, whose x is then packed once. */
static void tile_task(void *arg, int64_t task, int worker)
{
    struct forward_job *j = arg;
    int k = 0, n = 0;
    while (task >= j->chunks[k + 1])
        k++;
    struct tile t[MAX_OPS];
    struct product products[MAX_OPS];
    int64_t cols = j->ops[k].w->cols;
    do {
        int q = k + n;
        int64_t out = j->ops[q].w->rows;
        t[n] = tile_at(&j->tiles[q], task - j->chunks[k]);
        products[n] = (struct product){j->y[q] + t[n].i * out + j->pieces[q].first + t[n].j, out,
                                       packed_part(j->c, j->pieces[q].room, t[n].j, 0, cols), t[n].n, j->accumulate};
    } while (++n < (j->joint ? j->n_ops : 1));
    gemm_packed(j->c, worker, products, n, j->x + t[0].i * cols, cols, 1, t[0].m, cols);
    for (int q = 0; q < n; q++)
        finish_tile(j, k + q, &t[q], products[q].C);
}

/* The ops of j, all packed side by side when the panel buffer holds them, else one after the other, panel by panel. */
static void forward_many(struct forward_job *j)
{
    int64_t used = 0;
    for (int k = 0; k < j->n_ops; k++)
        used += packed_floats(j->c, j->ops[k].w->rows, j->ops[k].w->cols);
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
    j->joint = ceil_div(j->rows, j->c->gemm->max_m) >= ENOUGH_TILES;
    for (int64_t first = 0; first < j->ops[0].w->rows; first += j->pieces[0].n) { /* one round for ops side by side */
        used = 0;
        for (int k = 0; k < j->n_ops; k++) {
            const struct weight *w = j->ops[k].w;
            j->pieces[k] = piece_at(j->c, w, first, used, packed_columns(j->c, PANEL_FLOATS - used, w->cols));
            used += packed_floats(j->c, j->pieces[k].n, w->cols);
            j->tiles[k] = tiles_cut(j->c->gemm->mr, j->rows, j->pieces[k].n, j->c->gemm->max_m,
                                    j->joint ? j->pieces[k].n : TILE_OUTPUTS, j->joint ? 1 : ceil_div(ENOUGH_TILES, j->n_ops));
            j->chunks[k + 1] = j->chunks[k] + j->tiles[k].count;
        }
        fill_pieces(j->c, j->pieces, j->n_ops, pack_task, j->c->gemm->nr);
        pool_run(j->c->pool, tile_task, j, j->chunks[j->joint ? 1 : j->n_ops]);
    }
}

/* x becomes whole numbers in the panel buffer, once for each dtype among the ops. */
struct fix_job {
    const struct forward_job *j;
    float *room;
    enum dtype dtype;
};

static void fix_task(void *arg, int64_t row, int worker)
{
    (void)worker;
    const struct fix_job *f = arg;
    int64_t cols = f->j->ops[0].w->cols;
    f->j->c->fixed->fix(f->room + row * fixed_floats(cols), f->j->x + row * cols, cols, f->dtype);
}

static void fix_input(struct forward_job *j)
{
    if (j->ops[0].w->cols < FIXED_LEAST_COLS)
        return;
    /* whether there is room does not depend on how many rows there are: no row's bits do */
    int64_t size = max_i64(j->rows, LINEAR_FEW_ROWS) * fixed_floats(j->ops[0].w->cols), used = 0;
    for (int k = 0; k < j->n_ops; k++) {
        enum dtype t = j->ops[k].w->dtype;
        for (int q = 0; q < k && !j->fixed[k]; q++)
            if (j->ops[q].w->dtype == t)
                j->fixed[k] = j->fixed[q];
        if (j->fixed[k] || !j->c->fixed || !j->c->fixed->dot4[t] || used + size > PANEL_FLOATS)
            continue;
        struct fix_job f = {j, j->c->panel + used, t};
        pool_run(j->c->pool, fix_task, &f, j->rows);
        j->fixed[k] = f.room;
        used += size;
    }
}

static void forward_few(struct forward_job *j)
{
    fix_input(j);
    for (int k = 0; k < j->n_ops; k++)
        j->outputs += j->ops[k].w->rows;
    j->tasks = DOT_TASKS * pool_threads(j->c->pool);
    pool_run(j->c->pool, dot_task, j, j->tasks);
}

void linear_forward_split(const struct compute *c, float *const y[], const struct linear ops[], int n, const float *x, int64_t rows,
                          int64_t dotted, bool accumulate)
{
    struct linear rest[MAX_OPS];
    float *y_rest[MAX_OPS];
    const float *x_rest = x + dotted * ops[0].w->cols;
    for (int k = 0; k < n; k++) {
        rest[k] = ops[k];
        y_rest[k] = y[k] + dotted * ops[k].w->rows;
        if (!has_lora(&ops[k]))
            continue;
        rest[k].t += dotted * ops[k].lora->rank;
        lora_down(c, &ops[k], x, dotted, 1); /* row by row: no row's sums depend on how many there are */
        lora_down(c, &rest[k], x_rest, rows - dotted, LORA_ROWS);
    }
    struct forward_job few = {.c = c, .ops = ops, .y = y, .x = x, .rows = dotted, .accumulate = accumulate, .n_ops = n};
    struct forward_job many = {
        .c = c, .ops = rest, .y = y_rest, .x = x_rest, .rows = rows - dotted, .accumulate = accumulate, .n_ops = n};
    if (few.rows > 0)
        forward_few(&few);
    if (many.rows > 0)
        forward_many(&many);
}

void linear_forward(const struct compute *c, float *const y[], const struct linear ops[], int n, const float *x, int64_t rows,
                    bool accumulate)
{
    linear_forward_split(c, y, ops, n, x, rows, rows > FEW_ROWS ? 0 : rows, accumulate);
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
    struct backward_job *j = arg;
    struct tile t = tile_at(&j->tiles, task);
    int64_t cols = j->op->w->cols, out = j->op->w->rows;
    struct product p = {j->dx + t.i * cols + t.j, cols, packed_part(j->c, j->panel.data, t.j, 0, j->panel.n), t.n, true};
    gemm_packed(j->c, worker, &p, 1, j->dy + t.i * out + j->panel.first, out, 1, t.m, j->panel.n);
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
    int64_t fit = packed_rows(c, PANEL_FLOATS, op->w->cols);
    for (int64_t first = 0; first < op->w->rows; first += j.panel.n) {
        j.panel = (struct panel){first, min_i64(fit, op->w->rows - first), NULL};
        j.panel.data = panel_pack_across(c, op->w, first, j.panel.n, c->panel);
        j.tiles = tiles_cut(c->gemm->mr, rows, op->w->cols, c->gemm->max_m, TILE_OUTPUTS, ENOUGH_TILES);
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
    int64_t outputs, cols, first;
    int64_t row, n_rows; /* of dy and x, in this round */
    struct tiles tiles;
};

static void pack_x_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct gradient_job *j = arg;
    int64_t i = task * DECODE_ROWS, n = min_i64(DECODE_ROWS, j->n_rows - i);
    gemm_pack_columns(j->c, j->c->panel, j->x + (j->row + i) * j->cols, j->cols, i, n, j->cols, j->n_rows);
}

static void gradient_task(void *arg, int64_t task, int worker)
{
    struct gradient_job *j = arg;
    struct tile t = tile_at(&j->tiles, task);
    struct product p = {j->dw + t.i * j->cols + t.j, j->cols, packed_part(j->c, j->c->panel, t.j, 0, j->n_rows), t.n, true};
    gemm_packed(j->c, worker, &p, 1, j->dy + j->row * j->outputs + j->first + t.i, 1, j->outputs, t.m, j->n_rows);
}

void linear_weight_gradient(const struct compute *c, float *dw, const float *dy, const float *x, int64_t rows, int64_t outputs,
                            int64_t cols, int64_t first, int64_t n)
{
    struct gradient_job j = {.c = c, .dw = dw, .dy = dy, .x = x, .outputs = outputs, .cols = cols, .first = first};
    int64_t fit = packed_rows(c, PANEL_FLOATS, cols);
    j.tiles = tiles_cut(c->gemm->mr, n, cols, c->gemm->max_m, TILE_OUTPUTS, ENOUGH_TILES);
    for (; j.row < rows; j.row += j.n_rows) {
        j.n_rows = min_i64(fit, rows - j.row);
        pool_run(c->pool, pack_x_task, &j, ceil_div(j.n_rows, DECODE_ROWS));
        pool_run(c->pool, gradient_task, &j, j.tiles.count);
    }
}
