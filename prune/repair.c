#include "prune/repair.h"

#include <stdlib.h>
#include <string.h>

#include "core/nn/tile.h"
#include "prune/gram.h"
#include "prune/streams.h"

enum {
    CHUNK_ROWS = 1280, /* through a block at once */
    TILE = 256,
};

struct repair {
    struct lm lm;
    struct model *m;
    const struct calibration *cal;
    int64_t rows, dim;
    bool *gone;           /* [n_blocks] */
    float *whole, *cut;   /* [rows, dim]: the stream of the whole model, and of the one that is being repaired */
    float *ffn, *rest;    /* [rows, dim]: m and r of the block before a run */
    double *gram, *cross; /* [dim, dim]: M^T M; (X - R)^T M, solved to T^T in place */
    double *left, *right; /* [GRAM_ROWS, dim] */
    float *map;           /* [dim, dim]: T^T */
    double alpha;
    struct arena arena;
};

static int bind(struct repair *r, struct err *err)
{
    size_t rows = (size_t)r->rows, dim = (size_t)r->dim;
    struct arena *a = &r->arena;
    r->gone = arena_alloc(a, (size_t)r->m->cfg.n_blocks, sizeof *r->gone, err);
    r->whole = arena_alloc(a, rows, dim * sizeof(float), err);
    r->cut = arena_alloc(a, rows, dim * sizeof(float), err);
    r->ffn = arena_alloc(a, rows, dim * sizeof(float), err);
    r->rest = arena_alloc(a, rows, dim * sizeof(float), err);
    r->gram = arena_alloc(a, dim, dim * sizeof(double), err);
    r->cross = arena_alloc(a, dim, dim * sizeof(double), err);
    r->left = arena_alloc(a, GRAM_ROWS, dim * sizeof(double), err);
    r->right = arena_alloc(a, GRAM_ROWS, dim * sizeof(double), err);
    r->map = arena_alloc(a, dim, dim * sizeof(float), err);
    return r->gone && r->whole && r->cut && r->ffn && r->rest && r->gram && r->cross && r->left && r->right && r->map ? 0 : -1;
}

/* x [rows, dim] through the block in `slot`; with ffn and rest the two parts of its output as well. */
static void advance(struct repair *r, float *x, int64_t slot, float *ffn, float *rest)
{
    int64_t len = r->cal->len, per_chunk = r->lm.max_rows / len, dim = r->dim;
    const struct block *b = &r->m->blocks[r->m->order[slot]];
    struct linear down = {.w = &b->proj[PROJ_DOWN], .bias = b->bias[PROJ_DOWN]};
    for (int64_t i = 0; i < r->cal->n; i += per_chunk) {
        int64_t n = min_i64(per_chunk, r->cal->n - i), rows = n * len, at = i * len * dim;
        batch_uniform(&r->lm.batch, n, len);
        if (!ffn) {
            lm_block(&r->lm, x + at, x + at, slot, PARTS_ALL);
            continue;
        }
        struct block_pass p = lm_block_pass(&r->lm, slot, &r->lm.acts);
        block_forward(&p, ffn + at, x + at); /* leaves the inside in acts; its output is not wanted */
        memcpy(rest + at, r->lm.acts.mid, (size_t)(rows * dim) * sizeof *rest);
        linear_forward(r->lm.c, (float *[]){ffn + at}, &down, 1, r->lm.acts.act, rows, false);
    }
}

/* ---- the closed form ---- */

static void widen(double *out, const float *a, const float *minus, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (double)a[i] - (minus ? (double)minus[i] : 0);
}

/* r->map = T^T from r->ffn, r->rest and r->whole. */
static int solve(struct repair *r, struct err *err)
{
    int64_t dim = r->dim;
    double mean = 0;
    memset(r->gram, 0, (size_t)(dim * dim) * sizeof *r->gram);
    memset(r->cross, 0, (size_t)(dim * dim) * sizeof *r->cross);
    for (int64_t i = 0; i < r->rows; i += GRAM_ROWS) {
        int64_t n = min_i64(GRAM_ROWS, r->rows - i);
        widen(r->left, r->ffn + i * dim, NULL, n * dim);
        widen(r->right, r->whole + i * dim, r->rest + i * dim, n * dim);
        gram_add(r->lm.c, r->gram, r->left, r->left, n, dim);
        gram_add(r->lm.c, r->cross, r->right, r->left, n, dim);
    }
    for (int64_t i = 0; i < dim; i++)
        mean += r->gram[i * dim + i] / (double)dim;
    for (int64_t i = 0; i < dim; i++)
        r->gram[i * dim + i] += r->alpha < 0 ? -r->alpha * mean : r->alpha;
    struct err why = {0};
    if (solve_symmetric(r->gram, r->cross, dim, dim, &why) != 0)
        return err_set(err, "repair: %s; more calibration samples or a larger --repair-alpha are needed", why.msg);
    for (int64_t i = 0; i < dim * dim; i++)
        r->map[i] = (float)r->cross[i];
    return 0;
}

struct map_job {
    const struct repair *r;
    float *out;
    const float *x;
    int64_t ld;
    struct tiles tiles;
};

/* out [rows, dim] += x T */
static void map_stream_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct map_job *j = arg;
    struct tile t = tile_at(&j->tiles, task);
    int64_t dim = j->r->dim;
    gemm(j->r->lm.c, j->out + t.i * dim + t.j, dim, j->x + t.i * dim, dim, j->r->map + t.j * dim, dim, t.m, t.n, dim, 1, 1,
         GEMM_TRANS_B);
}

/* out [dim, ld] = T^T x */
static void map_weight_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct map_job *j = arg;
    struct tile t = tile_at(&j->tiles, task);
    int64_t dim = j->r->dim;
    gemm(j->r->lm.c, j->out + t.i * j->ld + t.j, j->ld, j->r->map + t.i * dim, dim, j->x + t.j, j->ld, t.m, t.n, dim, 1, 0, 0);
}

/* W_down and its bias of a block, mapped; they take the place of the file's. */
static int map_weight(struct repair *r, struct block *b, struct err *err)
{
    struct weight *w = &b->proj[PROJ_DOWN];
    int64_t cols = w->cols, dim = r->dim;
    float *old = mem_alloc((size_t)dim, (size_t)cols * sizeof *old, err);
    float *new = arena_alloc(&r->m->arena, (size_t)dim, (size_t)cols * sizeof *new, err);
    float *bias = b->bias[PROJ_DOWN] ? arena_alloc(&r->m->arena, (size_t)dim, sizeof *bias, err) : NULL;
    if (!old || !new || (b->bias[PROJ_DOWN] && !bias)) {
        free(old);
        return -1;
    }
    weight_decode(r->lm.c, old, w, 0, dim);
    struct map_job j = {r, new, old, cols, tiles_cut(GEMM_UNIT_N, dim, cols, TILE, 2 * TILE, ENOUGH_TILES)};
    pool_run(r->lm.c->pool, map_weight_task, &j, j.tiles.count);
    if (bias)
        gemm(r->lm.c, bias, 1, r->map, dim, b->bias[PROJ_DOWN], 1, dim, 1, dim, 1, 0, 0);
    *w = (struct weight){DTYPE_F32, dim, cols, (const uint8_t *)new, (size_t)cols * sizeof *new, 0, NULL};
    b->bias[PROJ_DOWN] = bias;
    free(old);
    return 0;
}

/* ---- */

static bool is_gone(const struct repair *r, int64_t slot)
{
    return slot < r->m->n_order && r->gone[r->m->order[slot]];
}

/* The block in `slot`, which stays, and the run of dropped ones behind it; *end is where the run ends. */
static int repair_run(struct repair *r, int64_t slot, int64_t *end, struct err *err)
{
    struct block *b = &r->m->blocks[r->m->order[slot]];
    if (!(b->parts & PART_FFN))
        return err_set(err, "block %lld has no feed-forward half that could make up for the blocks behind it",
                       (long long)r->m->order[slot]);
    advance(r, r->cut, slot, r->ffn, r->rest);
    advance(r, r->whole, slot, NULL, NULL);
    for (*end = slot + 1; is_gone(r, *end); (*end)++)
        advance(r, r->whole, *end, NULL, NULL);
    if (solve(r, err) != 0 || map_weight(r, b, err) != 0)
        return -1;
    memcpy(r->cut, r->rest, (size_t)(r->rows * r->dim) * sizeof *r->cut);
    struct map_job j = {r, r->cut, r->ffn, 0, tiles_cut(GEMM_UNIT_N, r->rows, r->dim, TILE, 2 * TILE, ENOUGH_TILES)};
    pool_run(r->lm.c->pool, map_stream_task, &j, j.tiles.count);
    return 0;
}

int repair_check(const struct model *m, const struct unit *dropped, int64_t n, struct err *err)
{
    for (int64_t i = 0; i < n; i++) {
        if (dropped[i].parts != PARTS_ALL)
            return err_set(err, "--repair linear makes up for whole blocks, not for halves of them");
        if (dropped[i].block == m->order[0])
            return err_set(err, "--repair linear: no block before block %lld could make up for it", (long long)m->order[0]);
    }
    return 0;
}

int repair_linear(struct model *m, const struct compute *c, const struct unit *dropped, int64_t n, const struct calibration *cal,
                  double alpha, int64_t *n_runs, struct progress *progress, struct err *err)
{
    struct repair r = {.m = m, .cal = cal, .rows = cal->n * cal->len, .dim = m->cfg.dim, .alpha = alpha};
    int64_t per_chunk = CHUNK_ROWS / cal->len > 0 ? CHUNK_ROWS / cal->len : 1, chunk = min_i64(per_chunk, cal->n) * cal->len;
    int rc = -1;
    *n_runs = 0;
    if (repair_check(m, dropped, n, err) != 0 || streams_fit(cal, 4, m->cfg.dim, err) != 0 || bind(&r, err) != 0 ||
        lm_open(&r.lm, m, c, NULL, chunk, chunk / cal->len, cal->len, err) != 0 ||
        lm_embed(&r.lm, r.whole, cal->ids, r.rows, err) != 0)
        goto done;
    for (int64_t i = 0; i < n; i++)
        if (dropped[i].block >= 0 && dropped[i].block < m->cfg.n_blocks) /* what is out of range, model_drop refuses */
            r.gone[dropped[i].block] = true;
    memcpy(r.cut, r.whole, (size_t)(r.rows * r.dim) * sizeof *r.cut);
    progress_begin(progress, "repairing", m->n_order, "blocks");
    for (int64_t slot = 0, end; slot < m->n_order; slot = end) {
        end = slot + 1;
        if (is_gone(&r, end)) {
            if (repair_run(&r, slot, &end, err) != 0)
                goto done;
            ++*n_runs;
        } else {
            advance(&r, r.whole, slot, NULL, NULL);
            if (*n_runs == 0)
                memcpy(r.cut, r.whole, (size_t)(r.rows * r.dim) * sizeof *r.cut);
            else
                advance(&r, r.cut, slot, NULL, NULL);
        }
        progress_update(progress, end);
    }
    progress_end(progress);
    rc = 0;
done:
    lm_close(&r.lm);
    arena_free(&r.arena);
    return rc;
}
