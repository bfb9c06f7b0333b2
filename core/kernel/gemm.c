#include "core/kernel/gemm.h"

#include <string.h>

void gemm_pack_columns(const struct compute *c, float *b, const float *x, int64_t stride, int64_t p, int64_t n_rows, int64_t n,
                       int64_t k)
{
    const struct gemm_kernels *g = c->gemm;
    int64_t nr = g->nr, even = round_up(k, min_i64(g->unit_k, 2)), whole = round_up(k, g->unit_k);
    for (int64_t j = 0; j < n; j += nr) {
        g->pack_b_turned(packed_at(c, b, p, j, k), x + j, stride, min_i64(nr, n - j), n_rows);
        if (p + n_rows == k)
            memset(packed_at(c, b, even, j, k), 0, (size_t)((whole - even) * nr * g->b_bytes));
    }
}

/* A [m, k] by mr rows into `out`. */
static void pack_rows(const struct gemm_kernels *g, char *out, const float *a, int64_t row_stride, int64_t col_stride, int64_t m,
                      int64_t k)
{
    size_t step = (size_t)(g->mr * round_up(k, g->unit_k) * g->a_bytes);
    for (int64_t i = 0; i < m; i += g->mr, out += step) {
        if (col_stride == 1)
            g->pack_a(out, a + i * row_stride, row_stride, min_i64(g->mr, m - i), k);
        else
            g->pack_a_turned(out, a + i, col_stride, min_i64(g->mr, m - i), k);
    }
}

/* C [m, n] (+)= packed A [m, k] times rows [p, p + k) of B; k is rounded up. */
static void multiply(const struct gemm_kernels *g, const struct product *x, int64_t row, const char *packed, int64_t m, int64_t p,
                     int64_t k)
{
    for (int64_t j = 0; j < x->n; j += g->nr) {
        const char *b = (const char *)x->b.data + g->b_bytes * (j * x->b.k + p * g->nr);
        g->strip(x->C + row * x->ldc + j, x->ldc, packed, b, k, m, min_i64(g->nr, x->n - j), x->accumulate || p > 0);
    }
}

void gemm_packed(const struct compute *c, int worker, const struct product *products, int n_products, const float *a,
                 int64_t row_stride, int64_t col_stride, int64_t m, int64_t k)
{
    const struct gemm_kernels *g = c->gemm;
    int64_t rounds = ceil_div(k, g->max_k), step = round_up(ceil_div(k, rounds), g->unit_k);
    int64_t room = GEMM_A_FLOATS * (int64_t)sizeof(float) / g->a_bytes;
    char *packed = (char *)c->scratch[worker];
    if (g->enter)
        g->enter();
    for (int64_t p = 0; p < k; p += step) {
        int64_t kp = min_i64(step, k - p), whole = round_up(kp, g->unit_k);
        int64_t rows = min_i64(min_i64(m, g->max_m), room / whole / g->mr * g->mr);
        for (int64_t i = 0; i < m; i += rows) {
            int64_t mi = min_i64(rows, m - i);
            pack_rows(g, packed, a + i * row_stride + p * col_stride, row_stride, col_stride, mi, kp);
            for (int x = 0; x < n_products; x++)
                multiply(g, &products[x], i, packed, mi, p, whole);
        }
    }
    if (g->leave)
        g->leave();
}
