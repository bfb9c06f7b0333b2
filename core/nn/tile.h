/* Cutting a matrix into tiles, one task each. The cut depends on shape and kernels, never on the number of threads. */
#ifndef ESPALIER_NN_TILE_H
#define ESPALIER_NN_TILE_H

#include "core/base/whole.h"
#include "core/kernel/gemm.h"

/* n split into `parts` runs whose lengths differ by at most `unit`, each a multiple of `unit` but the last. */
static inline int64_t run_length(int64_t n, int64_t parts, int64_t unit)
{
    return ceil_div(ceil_div(n, parts), unit) * unit;
}

/* Tiles of one forked step: more would keep more threads busy, fewer would make each sgemm more efficient. */
enum { ENOUGH_TILES = 6 };

struct tiles {
    int64_t m, n;   /* the matrix */
    int64_t tm, tn; /* a tile */
    int64_t across; /* tiles in a row of tiles */
    int64_t count;
};

/* Tiles of at most max_m x max_n, made smaller (down to about 64 x 96) until there are `enough` to keep several threads busy.
 * Small tiles cost: the operands are packed for each. Tiles begin at multiples of unit_m, the
 * kernels' mr, and of GEMM_UNIT_N. */
static inline struct tiles tiles_cut(int64_t unit_m, int64_t m, int64_t n, int64_t max_m, int64_t max_n, int64_t enough)
{
    enum { MIN_M = 64, MIN_N = 96 };
    int64_t pm = ceil_div(m, max_m), pn = ceil_div(n, max_n);
    for (;;) {
        int64_t tm = run_length(m, pm, unit_m), tn = run_length(n, pn, GEMM_UNIT_N);
        if (pm * pn >= enough || (tm <= MIN_M && tn <= MIN_N))
            return (struct tiles){m, n, tm, tn, ceil_div(n, tn), ceil_div(m, tm) * ceil_div(n, tn)};
        if (tn <= MIN_N || (tm > MIN_M && tm >= tn))
            pm++;
        else
            pn++;
    }
}

struct tile {
    int64_t i, j, m, n; /* first row and column, rows and columns */
};

static inline struct tile tile_at(const struct tiles *t, int64_t task)
{
    int64_t i = task / t->across * t->tm, j = task % t->across * t->tn;
    return (struct tile){i, j, min_i64(t->tm, t->m - i), min_i64(t->tn, t->n - j)};
}

#endif
