#include "core/kernel/gemm.h"

#include <string.h>

enum { MAX_K = 1024 }; /* of one round: nr columns of B stay in the second-level cache beside A */

void gemm_pack_columns(const struct compute *c, float *b, const float *x, int64_t stride, int64_t p, int64_t n_rows, int64_t n,
                       int64_t k)
{
    int64_t nr = c->rows->nr;
    for (int64_t j = 0; j < n; j += nr) {
        int64_t width = min_i64(nr, n - j);
        float *to = packed_at(b, j, k) + p * nr;
        for (int64_t i = 0; i < n_rows; i++, to += nr) {
            memcpy(to, x + i * stride + j, (size_t)width * sizeof *to);
            memset(to + width, 0, (size_t)(nr - width) * sizeof *to);
        }
    }
}

/* A [m, k] by mr rows into `out`. */
static void pack_rows(const struct compute *c, float *out, const float *a, int64_t row_stride, int64_t col_stride, int64_t m,
                      int64_t k)
{
    int64_t mr = c->rows->mr;
    for (int64_t i = 0; i < m; i += mr, out += mr * k) {
        int64_t n = min_i64(mr, m - i);
        if (col_stride == 1) {
            c->rows->pack_a(out, a + i * row_stride, row_stride, n, k);
            continue;
        }
        for (int64_t p = 0; p < k; p++) {
            memcpy(out + p * mr, a + p * col_stride + i, (size_t)n * sizeof *out);
            memset(out + p * mr + n, 0, (size_t)(mr - n) * sizeof *out);
        }
    }
}

/* C [m, n] (+)= packed A [m, k] times rows [p, p + k) of B. */
static void multiply(const struct compute *c, const struct product *x, int64_t row, const float *packed, int64_t m, int64_t p,
                     int64_t k)
{
    int64_t mr = c->rows->mr, nr = c->rows->nr;
    for (int64_t j = 0; j < x->n; j += nr)
        for (int64_t i = 0; i < m; i += mr)
            c->rows->gemm_tile(x->C + (row + i) * x->ldc + j, x->ldc, packed + i * k, x->b.data + j * x->b.k + p * nr, k,
                               min_i64(mr, m - i), min_i64(nr, x->n - j), x->accumulate || p > 0);
}

void gemm_packed(const struct compute *c, int worker, const struct product *products, int n_products, const float *a,
                 int64_t row_stride, int64_t col_stride, int64_t m, int64_t k)
{
    int64_t mr = c->rows->mr, rounds = ceil_div(k, MAX_K), step = ceil_div(k, rounds);
    float *packed = c->scratch[worker];
    for (int64_t p = 0; p < k; p += step) {
        int64_t kp = min_i64(step, k - p), rows = min_i64(m, GEMM_A_FLOATS / kp / mr * mr);
        for (int64_t i = 0; i < m; i += rows) {
            int64_t mi = min_i64(rows, m - i);
            pack_rows(c, packed, a + i * row_stride + p * col_stride, row_stride, col_stride, mi, kp);
            for (int x = 0; x < n_products; x++)
                multiply(c, &products[x], i, packed, mi, p, kp);
        }
    }
}
