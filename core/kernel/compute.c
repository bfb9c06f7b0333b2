#include "core/kernel/compute.h"

#include <stdlib.h>
#include <string.h>

#include "core/kernel/blas.h"

struct level {
    const char *isa;
    const struct row_kernels *rows;
    const struct gemm_kernels *bf16;
    const struct fixed_kernels *fixed;
    bool (*supported)(void);
};

/* These ask CPUID and, through XGETBV, whether the system saves the wide registers. */
#if defined(__x86_64__)
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && has_avx2();
}

static bool has_avx512_vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static bool has_avx512_vbmi(void)
{
    return has_avx512_vnni() && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("gfni");
}

static bool has_avx512_bf16(void)
{
    return has_avx512_vbmi() && __builtin_cpu_supports("avx512bf16") && gemm_kernels_work(&bf16_avx512);
}

static bool has_amx(void)
{
    return has_avx512_vbmi() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("amx-tile") &&
           __builtin_cpu_supports("amx-bf16") && amx_permitted() && gemm_kernels_work(&bf16_amx);
}
#endif

static bool has_c(void)
{
    return true;
}

static const struct level levels[] = {
#if defined(__x86_64__)
    {"amx", &rows_avx512, &bf16_amx, &fixed_vbmi, has_amx},
    {"avx512_bf16", &rows_avx512, &bf16_avx512, &fixed_vbmi, has_avx512_bf16},
    {"avx512_vbmi", &rows_avx512, NULL, &fixed_vbmi, has_avx512_vbmi},
    {"avx512_vnni", &rows_avx512, NULL, &fixed_vnni, has_avx512_vnni},
    {"avx512", &rows_avx512, NULL, NULL, has_avx512},
    {"avx2", &rows_avx2, NULL, NULL, has_avx2},
#endif
    {"portable", &rows_portable, NULL, NULL, has_c},
};
enum { LEVELS = sizeof levels / sizeof *levels };

/* Whether a level is taken without being asked for. On the Intel processors that have it, the dot product of AVX-512-BF16 was
 * measured at half the speed of float32, on AMD's it is announced as twice as fast. */
static bool pays(const struct level *l, enum precision precision)
{
#if defined(__x86_64__)
    if (l->bf16 == &bf16_avx512)
        return precision == PRECISION_BF16 && __builtin_cpu_is("amd");
#endif
    return !l->bf16 || precision == PRECISION_BF16;
}

static const struct level *choose_level(enum precision precision, struct err *err)
{
    const char *want = getenv("ESPALIER_ISA");
    if (want && !*want)
        want = NULL;
    for (size_t i = 0; i < LEVELS; i++) {
        const struct level *l = &levels[i];
        if (want ? strcmp(want, l->isa) != 0 : !pays(l, precision))
            continue;
        if (l->supported())
            return l;
        if (want) {
            err_usage(err, "ESPALIER_ISA=%s: this processor or system does not support it", want);
            return NULL;
        }
    }
    err_usage(err, "ESPALIER_ISA=%s: portable, avx2, avx512, avx512_vnni, avx512_vbmi, avx512_bf16 or amx was expected", want);
    return NULL;
}

int precision_named(enum precision *p, const char *name, struct err *err)
{
    *p = !strcmp(name, "bf16") ? PRECISION_BF16 : PRECISION_F32;
    return *p || !strcmp(name, "f32") ? 0 : err_usage(err, "--compute %s: f32 or bf16 was expected", name);
}

bool compute_has_bf16(void)
{
    struct err none = {0};
    const struct level *level = choose_level(PRECISION_BF16, &none);
    return level && level->bf16;
}

int compute_open(struct compute *c, int threads, enum precision precision, struct err *err)
{
    *c = (struct compute){0};
    const struct level *level = choose_level(precision, err);
    if (!level)
        return -1;
    c->rows = level->rows;
    c->fixed = level->fixed;
    c->gemm = precision == PRECISION_F32 ? c->rows->f32 : level->bf16 ? level->bf16 : c->rows->bf16;
    if (blas_load(c->rows->isa, err) != 0 || pool_create(&c->pool, threads, err) != 0)
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

/* Whole numbers need more operations than floats, but no decoding, which floats share between rows. Measured beside them, two
 * threads, 1,024 to 11,008 columns, from memory: for one row q8_0 1.05 to 1.14 times as fast, q4_0 1.18 to 1.31, q4_1 1.30 to 1.47;
 * for two and three rows 1.3 to 2.4 times, for four 1.07 to 1.36, for six 0.98 to 1.18, for sixteen 0.85 to 1.01. */
enum { FIXED_MOST_ROWS = 4 };

struct compute compute_for_rows(const struct compute *c, int64_t rows)
{
    struct compute own = *c;
    if (rows > FIXED_MOST_ROWS)
        own.fixed = NULL;
    return own;
}

struct compute compute_in_f32(const struct compute *c)
{
    struct compute own = *c;
    own.gemm = own.rows->f32;
    return own;
}

bool compute_is_f32(const struct compute *c)
{
    return c->gemm == c->rows->f32;
}

/* Below this many rows the packing that sgemm does costs more than it gains; measured in `make bench`. */
enum { FEW_ROWS = 4 };

/* C[m, n] = alpha A[m, k] B[n, k]^T + beta C for few rows: dot products straight from memory. */
static void few_rows_nt(const struct row_kernels *rk, float *C, int64_t ldc, const float *A, int64_t lda, const float *B,
                        int64_t ldb, int64_t m, int64_t n, int64_t k, float alpha, float beta)
{
    for (int64_t j = 0; j < n; j += 4) {
        const void *rows[4], *next[4];
        int64_t left = n - j < 4 ? n - j : 4;
        for (int64_t r = 0; r < 4; r++) {
            rows[r] = B + (j + (r < left ? r : 0)) * ldb;
            next[r] = B + (j + 4 + r < n ? j + 4 + r : n - 1) * ldb;
        }
        for (int64_t i = 0; i < m; i++) {
            float y[4];
            rk->dot4[DTYPE_F32](y, 4, rows, A + i * lda, 1, k, next);
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
