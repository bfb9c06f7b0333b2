#include "prune/gram.h"

#include "core/nn/tile.h"

enum { TILE = 256 };

struct gram_job {
    double *out;
    const double *a, *b;
    int64_t n, dim;
    struct tiles tiles;
};

static void gram_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct gram_job *j = arg;
    struct tile t = tile_at(&j->tiles, task);
    gemm_f64(j->out + t.i * j->dim + t.j, j->dim, j->a + t.i, j->dim, j->b + t.j, j->dim, t.m, t.n, j->n, 1, 1, GEMM_TRANS_A);
}

void gram_add(const struct compute *c, double *out, const double *a, const double *b, int64_t n, int64_t dim)
{
    struct gram_job j = {out, a, b, n, dim, tiles_cut(GEMM_UNIT_N, dim, dim, TILE, TILE, ENOUGH_TILES)};
    pool_run(c->pool, gram_task, &j, j.tiles.count);
}
