/* Row-level kernels: what one thread does to a few rows of floats. The table is filled by one source text, rows.inc, compiled
 * once per instruction set; core/kernel/compute.c picks the best one that processor and operating system support. */
#ifndef ESPALIER_KERNEL_ROWS_H
#define ESPALIER_KERNEL_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/kernel/dtype.h"

enum { DOT4_DECODES_FROM = 3 }; /* vectors for which dot4 decodes rows once for all, not once for each */

struct row_kernels {
    const char *isa; /* "portable", "avx2", "avx512" */

    /* y[n] = the values of one row of n in this dtype; n is a multiple of the dtype's block. */
    void (*decode[DTYPE_COUNT])(float *y, const void *row, int64_t n);

    /* y[i * ldy + q] = the dot product of rows[q] (q < 4; n values) and x[i * n], i < m, decoded on the way. The bits do not depend
     * on m. Meanwhile the memory is asked for the rows `next`, which will be read after. */
    void (*dot4[DTYPE_COUNT])(float *y, int64_t ldy, const void *const rows[4], const float *x, int64_t m, int64_t n,
                              const void *const next[4]);

    float (*dot)(const float *a, const float *b, int64_t n);
    void (*axpy)(float *y, float a, const float *x, int64_t n); /* y += a x */
    /* y += a[p] x[p * stride] for p < count, one after the other: the bits of so many axpy. */
    void (*axpys)(float *y, const float *a, const float *x, int64_t stride, int64_t count, int64_t n);
    void (*add)(float *y, const float *x, int64_t n); /* y += x */
    void (*scale)(float *y, float a, int64_t n);      /* y *= a */

    float (*max)(const float *x, int64_t n);                            /* n >= 1 */
    float (*exp_sum)(float *y, const float *x, float shift, int64_t n); /* y = exp(x - shift), returns its sum; y may be x */

    /* y = x r w with r = 1 / sqrt(mean(x^2) + eps); returns r. y may be x. */
    float (*rmsnorm)(float *y, const float *x, const float *w, float eps, int64_t n);
    /* Derivative of rmsnorm by its input: dx += r w dy - x r^3 / n sum(w dy x). */
    void (*rmsnorm_backward)(float *dx, const float *dy, const float *x, const float *w, float r, int64_t n);

    /* y = g / (1 + exp(-g)) u. y may be g or u. */
    void (*swiglu)(float *y, const float *g, const float *u, int64_t n);
    /* Derivative of swiglu with s = 1 / (1 + exp(-g)): dg = dy u s (1 + g (1 - s)), du = dy g s. dg and du may be g, u or dy. */
    void (*swiglu_backward)(float *dg, float *du, const float *dy, const float *g, const float *u, int64_t n);

    /* Rotates the pairs (x[i], x[i + n]) by the angles with cosine c[i] and sine s[i] (times `sign`), i < n. */
    void (*rope)(float *x, const float *c, const float *s, float sign, int64_t n);

    /* y[i] = x[i] scale where hash(key, first + i) >= threshold, else 0 (the hash is uniform in 32 bits). y may be x. */
    void (*dropout)(float *y, const float *x, uint64_t key, uint32_t first, uint32_t threshold, float scale, int64_t n);

    /* y[i] = scale times a standard normal number that depends on key and i alone; the same bits from every instruction set. */
    void (*gaussian)(float *y, uint64_t key, float scale, int64_t n);

    /* Products of packed matrices: with the operands as they are, and with both rounded to bf16 first. */
    const struct gemm_kernels *f32, *bf16;
};

extern const struct row_kernels rows_portable;
#if defined(__x86_64__)
extern const struct row_kernels rows_avx2, rows_avx512;
#endif

#endif
