/* OpenBLAS, loaded at run time. Why not linked: an OpenBLAS older than the processor falls back to SSE kernels (a fifth to a
 * tenth of the speed) unless OPENBLAS_CORETYPE is set before the library starts, and a linked library starts before main. */
#ifndef ESPALIER_KERNEL_BLAS_H
#define ESPALIER_KERNEL_BLAS_H

#include <stdint.h>

#include "core/base/err.h"

/* Loads the library once per process, single-threaded, with the kernels that fit `isa` unless the user chose others. */
int blas_load(const char *isa, struct err *err);

/* Row-major sgemm on the calling thread; see gemm() in compute.h. */
void blas_sgemm(float *C, int64_t ldc, const float *A, int64_t lda, const float *B, int64_t ldb, int64_t m, int64_t n, int64_t k,
                float alpha, float beta, int trans_a, int trans_b);

const char *blas_core_name(void);

#endif
