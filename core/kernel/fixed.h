/* Dot products of quantised rows in whole numbers, for processors that multiply bytes.
 *
 * Quantised weights are whole numbers times a scale as they are. x is made that, too: in each group of 32 values, multiples of a
 * unit that is 2^-20 of the group's largest magnitude for weights of eight bits, 2^-23 for those of four. Such a multiple is
 * written in three bytes, and the sum of its products with the weights is exactly what three sums of products of bytes come to.
 * The rounding of x costs half a unit a value: over 4,096 columns 1.4e-7 (q4_0), 1.8e-7 (q4_1) and 6.6e-7 (q8_0) of the result in
 * the mean, where float32's rounding of sums costs 2.2e-7. llama.cpp's one byte a value, 2^-7, is far from it. */
#ifndef ESPALIER_KERNEL_FIXED_H
#define ESPALIER_KERNEL_FIXED_H

#include <stdint.h>

#include "core/kernel/dtype.h"

enum {
    FIXED_GROUP = 32,            /* values that share a unit of x; one block of the quantised formats */
    FIXED_RUN = 8 * FIXED_GROUP, /* values that are multiplied at once */
};

/* Units in the largest magnitude of a group: 16 products with weights of -128 stay above -2^31; with those of four bits, what three
 * signed bytes hold. */
static inline int32_t fixed_units(enum dtype t)
{
    return t == DTYPE_Q8_0 ? (1 << 20) - 1 : 127 << 16;
}

struct fixed_kernels {
    /* room = x[n] for products with rows of dtype t. The room is fixed_floats(n), aligned to 64 bytes; n is a multiple of
     * FIXED_GROUP. A group that is not finite gives NaN; one that is below 2^-100 throughout counts as zero. */
    void (*fix)(float *room, const float *x, int64_t n, enum dtype t);

    /* y[i * ldy + q] = the dot product of rows[q] (q < 4; n values) and the i-th of m vectors that `fix` made, one behind the
     * other. The bits do not depend on m. Meanwhile the memory is asked for the rows `next`. NULL: this dtype has none. */
    void (*dot4[DTYPE_COUNT])(float *y, int64_t ldy, const void *const rows[4], const float *x, int64_t m, int64_t n,
                              const void *const next[4]);
};

/* Floats of room that `fix` needs for n values. */
static inline int64_t fixed_floats(int64_t n)
{
    return (n + FIXED_RUN - 1) / FIXED_RUN * FIXED_RUN;
}

#if defined(__x86_64__)
extern const struct fixed_kernels fixed_vnni, fixed_vbmi; /* the same bits; the second needs VBMI and GFNI, too */
#endif

#endif
