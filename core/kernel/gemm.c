#include "core/kernel/gemm.h"

#include <string.h>

enum { MAX_K = 1024 }; /* of one round: nr columns of B stay in the second-level cache beside A */

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void gemm_pack_columns(const struct compute *c, float *b, const float *x, int64_t stride, int64_t p, int64_t n_rows, int64_t n,
                       int64_t k)
{
    int64_t nr = c->rows->nr;
    for (int64_t j = 0; j < n; j += nr) {
        int64_t width = least(nr, n - j);
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
        int64_t n = least(mr, m - i);
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

void gemm_packed(const struct compute *c, int worker, float *C, int64_t ldc, const float *a, int64_t row_stride, int64_t col_stride,
                 struct packed b, int64_t m, int64_t n, int64_t k, bool accumulate)
{
    int64_t mr = c->rows->mr, nr = c->rows->nr, rounds = (k + MAX_K - 1) / MAX_K, step = (k + rounds - 1) / rounds;
    float *packed = c->scratch[worker];
    for (int64_t p = 0; p < k; p += step) {
        int64_t kp = least(step, k - p), rows = least(m, GEMM_A_FLOATS / kp / mr * mr);
        for (int64_t i0 = 0; i0 < m; i0 += rows) {
            int64_t mi = least(rows, m - i0);
            pack_rows(c, packed, a + i0 * row_stride + p * col_stride, row_stride, col_stride, mi, kp);
            for (int64_t j = 0; j < n; j += nr)
                for (int64_t i = 0; i < mi; i += mr)
                    c->rows->gemm_tile(C + (i0 + i) * ldc + j, ldc, packed + i * kp, b.data + j * b.k + p * nr, kp,
                                       least(mr, mi - i), least(nr, n - j), accumulate || p > 0);
        }
    }
}
