/* Large matrix products over a packed right-hand side, with float32 sums of float32 or bf16 numbers. OpenBLAS packs both operands
 * again for every call; here B, decoded weights as a rule, is packed once for all rows that meet it, and A once per block of rows.
 * Each result is the sum over k in one order wherever it lies in C, so it depends neither on the other rows nor on how the work is
 * cut. */
#ifndef ESPALIER_KERNEL_GEMM_H
#define ESPALIER_KERNEL_GEMM_H

#include "core/base/whole.h"
#include "core/kernel/compute.h"

enum {
    GEMM_UNIT_N = 32,                   /* cut B at multiples of it, and no group of columns is half empty whatever the kernels */
    GEMM_A_FLOATS = SCRATCH_FLOATS / 2, /* of the worker's scratch hold A; the other half is free for the caller */
    GEMM_UNIT_K = 16,                   /* and its rows at multiples of this, where they are cut to fit a buffer */
};

/* Room for B [n columns, k] when it is packed, in floats. */
static inline int64_t packed_floats(const struct compute *c, int64_t n, int64_t k)
{
    return ceil_div(round_up(n, GEMM_UNIT_N) * round_up(k, c->gemm->unit_k) * c->gemm->b_bytes, (int64_t)sizeof(float));
}

/* How many columns of B [n, k], by whole GEMM_UNIT_N, fit into `floats` when packed. */
static inline int64_t packed_columns(const struct compute *c, int64_t floats, int64_t k)
{
    return floats / packed_floats(c, 1, k) * GEMM_UNIT_N;
}

/* How many rows of B [k, n] fit into `floats` when packed. */
static inline int64_t packed_rows(const struct compute *c, int64_t floats, int64_t n)
{
    int64_t unit = round_up(GEMM_UNIT_K, c->gemm->unit_k);
    return floats / packed_floats(c, n, unit) * unit;
}

/* Where element (p, j) of a packed B [k, n] lies; j is a multiple of nr, p even. */
static inline char *packed_at(const struct compute *c, float *b, int64_t p, int64_t j, int64_t k)
{
    const struct gemm_kernels *g = c->gemm;
    return (char *)b + g->b_bytes * (j * round_up(k, g->unit_k) + p * g->nr);
}

/* Packs rows [p, p + n_rows) of B = X, X [k, n]: x points at row p, `stride` floats apart. p is even, and so is n_rows unless these
 * are the last. */
void gemm_pack_columns(const struct compute *c, float *b, const float *x, int64_t stride, int64_t p, int64_t n_rows, int64_t n,
                       int64_t k);

/* Packed columns from j (a multiple of nr) and rows from p on, of a B that was packed with k rows. p is a multiple of 32. */
struct packed {
    const void *data;
    int64_t k; /* rounded up */
};
static inline struct packed packed_part(const struct compute *c, const float *b, int64_t j, int64_t p, int64_t k)
{
    return (struct packed){packed_at(c, (float *)b, p, j, k), round_up(k, c->gemm->unit_k)};
}

/* One product with a shared A: C [m, n] = A B, or += with accumulate. */
struct product {
    float *C;
    int64_t ldc;
    struct packed b;
    int64_t n;
    bool accumulate;
};

/* n_products products with one A, of which max_m rows at most (of the kernels) are packed at once, for all of them. Element (i, p)
 * of A lies at a[i * row_stride + p * col_stride], where one of the strides is 1. Uses the first half of the worker's scratch. */
void gemm_packed(const struct compute *c, int worker, const struct product *products, int n_products, const float *a,
                 int64_t row_stride, int64_t col_stride, int64_t m, int64_t k);

#endif
