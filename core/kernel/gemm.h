/* Large matrix products in float32 over a packed right-hand side. OpenBLAS packs both operands again for every call; here B, decoded
 * weights as a rule, is packed once for all rows that meet it, and A once per block of rows. Each result is the sum over k in one
 * order wherever it lies in C, so it depends neither on the other rows nor on how the work is cut. */
#ifndef ESPALIER_KERNEL_GEMM_H
#define ESPALIER_KERNEL_GEMM_H

#include "core/base/whole.h"
#include "core/kernel/compute.h"

enum {
    GEMM_UNIT_M = 12, /* cut C at multiples of these, and no tile is half empty whatever the instruction set */
    GEMM_UNIT_N = 32,
    GEMM_MAX_M = 168,                   /* rows of C that one call takes at most */
    GEMM_A_FLOATS = SCRATCH_FLOATS / 2, /* of the worker's scratch hold A; the other half is free for the caller */
};

/* Room for B [n columns, k] when it is packed, in floats: by whole GEMM_UNIT_N, so that what fits does not depend on the instruction
 * set. */
static inline int64_t packed_floats(int64_t n, int64_t k)
{
    return ceil_div(n, GEMM_UNIT_N) * GEMM_UNIT_N * k;
}

/* Where the group of nr columns that holds column j (a multiple of nr) begins. */
static inline float *packed_at(float *b, int64_t j, int64_t k)
{
    return b + j * k;
}

/* Packs columns [j, j + nr) of B = X^T, that is rows of X [nr, k]: all but the last group must be whole. */
static inline void gemm_pack_rows(const struct compute *c, float *b, const float *x, int64_t stride, int64_t j, int64_t n,
                                  int64_t k)
{
    c->rows->pack_b(packed_at(b, j, k), x, stride, n, k);
}

/* Packs rows [p, p + n_rows) of B = X, X [k, n]: x points at row p, `stride` floats apart. */
void gemm_pack_columns(const struct compute *c, float *b, const float *x, int64_t stride, int64_t p, int64_t n_rows, int64_t n,
                       int64_t k);

/* Packed columns from j (a multiple of nr) and rows from p on, of a B that was packed with k rows. */
struct packed {
    const float *data;
    int64_t k;
};
static inline struct packed packed_part(const struct compute *c, const float *b, int64_t j, int64_t p, int64_t k)
{
    return (struct packed){b + j * k + p * c->rows->nr, k};
}

/* One product with a shared A: C [m, n] = A B, or += with accumulate. */
struct product {
    float *C;
    int64_t ldc;
    struct packed b;
    int64_t n;
    bool accumulate;
};

/* n_products products with one A, which is packed once for all; m <= GEMM_MAX_M. Element (i, p) of A lies at
 * a[i * row_stride + p * col_stride], where one of the strides is 1. Uses the first half of the worker's scratch. */
void gemm_packed(const struct compute *c, int worker, const struct product *products, int n_products, const float *a,
                 int64_t row_stride, int64_t col_stride, int64_t m, int64_t k);

#endif
