#include "core/kernel/compute.h"

#include <stdlib.h>
#include <string.h>

#include "core/kernel/blas.h"

static bool supported(const struct row_kernels *k)
{
#if defined(__x86_64__)
    /* These ask CPUID and, through XGETBV, whether the system saves the wide registers. */
    if (k == &rows_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && supported(&rows_avx2);
    if (k == &rows_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#endif
    return k == &rows_portable;
}

static const struct row_kernels *choose_rows(struct err *err)
{
    static const struct row_kernels *const best_first[] = {
#if defined(__x86_64__)
        &rows_avx512,
        &rows_avx2,
#endif
        &rows_portable,
    };
    const char *want = getenv("ESPALIER_ISA");
    for (size_t i = 0; i < sizeof best_first / sizeof *best_first; i++) {
        const struct row_kernels *k = best_first[i];
        if (want && *want && strcmp(want, k->isa))
            continue;
        if (supported(k))
            return k;
        if (want && *want) {
            err_usage(err, "ESPALIER_ISA=%s: this processor or system does not support it", want);
            return NULL;
        }
    }
    err_usage(err, "ESPALIER_ISA=%s: portable, avx2 or avx512 was expected", want);
    return NULL;
}

int compute_open(struct compute *c, int threads, struct err *err)
{
    *c = (struct compute){0};
    c->rows = choose_rows(err);
    if (!c->rows || blas_load(c->rows->isa, err) != 0 || pool_create(&c->pool, threads, err) != 0)
        goto fail;
    int n = pool_threads(c->pool);
    c->panel = arena_alloc(&c->arena, PANEL_FLOATS, sizeof(float), err);
    c->scratch = arena_alloc(&c->arena, (size_t)n, sizeof *c->scratch, err);
    if (!c->panel || !c->scratch)
        goto fail;
    for (int i = 0; i < n; i++)
        if (!(c->scratch[i] = arena_alloc(&c->arena, SCRATCH_FLOATS, sizeof(float), err)))
            goto fail;
    return 0;
fail:
    compute_close(c);
    return -1;
}

void compute_close(struct compute *c)
{
    pool_free(c->pool);
    arena_free(&c->arena);
    *c = (struct compute){0};
}

/* Below this many rows the packing that sgemm does costs more than it gains; measured in `make bench`. */
enum { FEW_ROWS = 4 };

/* C[m, n] = alpha A[m, k] B[n, k]^T + beta C for few rows: dot products straight from memory. */
static void few_rows_nt(const struct row_kernels *rk, float *C, int64_t ldc, const float *A, int64_t lda, const float *B,
                        int64_t ldb, int64_t m, int64_t n, int64_t k, float alpha, float beta)
{
    for (int64_t j = 0; j < n; j += 4) {
        const void *rows[4];
        int64_t left = n - j < 4 ? n - j : 4;
        for (int64_t r = 0; r < 4; r++)
            rows[r] = B + (j + (r < left ? r : 0)) * ldb;
        for (int64_t i = 0; i < m; i++) {
            float y[4];
            rk->dot4[DTYPE_F32](y, rows, A + i * lda, k);
            for (int64_t r = 0; r < left; r++) {
                float *out = C + i * ldc + j + r;
                *out = alpha * y[r] + (beta == 0 ? 0 : beta * *out);
            }
        }
    }
}

/* C[m, n] = alpha A[m, k] B[k, n] + beta C for few rows: sums of scaled rows of B. */
static void few_rows_nn(const struct row_kernels *rk, float *C, int64_t ldc, const float *A, int64_t lda, const float *B,
                        int64_t ldb, int64_t m, int64_t n, int64_t k, float alpha, float beta)
{
    for (int64_t i = 0; i < m; i++) {
        float *out = C + i * ldc;
        if (beta == 0)
            memset(out, 0, (size_t)n * sizeof *out);
        else if (beta != 1)
            rk->scale(out, beta, n);
        if (alpha == 1)
            rk->axpys(out, A + i * lda, B, ldb, k, n);
        for (int64_t p = 0; alpha != 1 && p < k; p++)
            rk->axpy(out, alpha * A[i * lda + p], B + p * ldb, n);
    }
}

void gemm(const struct compute *c, float *C, int64_t ldc, const float *A, int64_t lda, const float *B, int64_t ldb, int64_t m,
          int64_t n, int64_t k, float alpha, float beta, int flags)
{
    if (m <= 0 || n <= 0)
        return;
    if (m < FEW_ROWS && flags == GEMM_TRANS_B)
        few_rows_nt(c->rows, C, ldc, A, lda, B, ldb, m, n, k, alpha, beta);
    else if (m < FEW_ROWS && flags == 0)
        few_rows_nn(c->rows, C, ldc, A, lda, B, ldb, m, n, k, alpha, beta);
    else
        blas_sgemm(C, ldc, A, lda, B, ldb, m, n, k, alpha, beta, flags & GEMM_TRANS_A, flags & GEMM_TRANS_B);
}

void gemm_f64(double *C, int64_t ldc, const double *A, int64_t lda, const double *B, int64_t ldb, int64_t m, int64_t n, int64_t k,
              double alpha, double beta, int flags)
{
    blas_dgemm(C, ldc, A, lda, B, ldb, m, n, k, alpha, beta, flags & GEMM_TRANS_A, flags & GEMM_TRANS_B);
}

int solve_symmetric(double *A, double *B, int64_t n, int64_t n_rhs, struct err *err)
{
    int info = blas_dposv(A, B, n, n_rhs);
    if (info > 0)
        return err_set(err, "a matrix of %lld rows is not positive definite (at row %d)", (long long)n, info);
    return info == 0 ? 0 : err_set(err, "this OpenBLAS was built without LAPACK (dposv)");
}

const char *gemm_backend(void)
{
    return blas_core_name();
}
