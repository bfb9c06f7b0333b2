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

/* The same in float64. */
void blas_dgemm(double *C, int64_t ldc, const double *A, int64_t lda, const double *B, int64_t ldb, int64_t m, int64_t n, int64_t k,
                double alpha, double beta, int trans_a, int trans_b);

/* Solves A X = B for a symmetric positive definite A [n, n], of which one triangle is read and which is destroyed, by Cholesky
 * factors (LAPACK's dposv); B [n_rhs, n] holds a right-hand side a row and receives the solutions. Returns LAPACK's info: positive
 * when A is not positive definite, -1 when the library has no LAPACK. */
int blas_dposv(double *A, double *B, int64_t n, int64_t n_rhs);

const char *blas_core_name(void);

#endif
