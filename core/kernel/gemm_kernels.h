/* What a product of packed matrices needs from the processor: how operands are packed, and the product itself, tile by tile of
 * results that stay in registers. core/kernel/gemm.c does the rest. One such table per instruction set and precision. */
#ifndef ESPALIER_KERNEL_GEMM_KERNELS_H
#define ESPALIER_KERNEL_GEMM_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

struct gemm_kernels {
    const char *name;     /* "f32", or how bf16 is done: "bf16 (rounded f32)", "bf16 (avx512_bf16)", "bf16 (amx)" */
    int mr, nr;           /* results of a tile */
    int unit_k;           /* a sum's length is rounded up to it, with zeros */
    int max_k;            /* of one round: nr columns of B stay in the second-level cache beside A */
    int max_m;            /* rows of C that a strip has at most; a multiple of mr */
    int a_bytes, b_bytes; /* of one packed element */

    /* Around a thread's tiles; NULL: nothing to do. */
    void (*enter)(void);
    void (*leave)(void);

    /* C [m, n] = a b, or += with accumulate; m <= max_m, n <= nr, and k, which is rounded up, <= max_k. */
    void (*strip)(float *C, int64_t ldc, const void *a, const void *b, int64_t k, int64_t m, int64_t n, bool accumulate);

    /* out = n rows of A [n, k], or of B^T, `stride` floats apart, packed; missing rows (n < mr, n < nr) become zeros. */
    void (*pack_a)(void *out, const float *x, int64_t stride, int64_t n, int64_t k);
    void (*pack_b)(void *out, const float *x, int64_t stride, int64_t n, int64_t k);
    /* The same from A^T [k, n], or from B: k rows of n. What pack_b_turned leaves to be rounded up is the caller's to clear. */
    void (*pack_a_turned)(void *out, const float *x, int64_t stride, int64_t n, int64_t k);
    void (*pack_b_turned)(void *out, const float *x, int64_t stride, int64_t n, int64_t k);
};

#if defined(__x86_64__)
extern const struct gemm_kernels bf16_avx512, bf16_amx;

/* Asks the system to let this process use the tile registers, which it saves only on request. */
bool amx_permitted(void);
#endif

/* Multiplies small matrices with these kernels in a process of its own and compares. Some machines announce instructions that
 * then are illegal. */
bool gemm_kernels_work(const struct gemm_kernels *g);

#endif
