#include "core/kernel/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 }; /* cblas.h's values */

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);

typedef void dgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, double alpha, const double *a, int lda,
                      const double *b, int ldb, double beta, double *c, int ldc);
typedef void dposv_fn(const char *uplo, const int *n, const int *n_rhs, double *a, const int *lda, double *b, const int *ldb,
                      int *info, size_t uplo_len);

/* The one piece of process-wide state in the numeric core: a shared library is loaded once per process. */
static struct {
    pthread_mutex_t lock;
    void *library;
    sgemm_fn *sgemm;
    dgemm_fn *dgemm;
    dposv_fn *dposv; /* NULL in builds without LAPACK */
    char *(*core_name)(void);
} blas = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const struct {
    const char *isa, *core;
} core_types[] = {{"avx512", "SkylakeX"}, {"avx2", "Haswell"}, {"portable", "Prescott"}};

static int load(const char *isa, struct err *err)
{
#if defined(__x86_64__)
    for (size_t i = 0; i < sizeof core_types / sizeof *core_types; i++)
        if (!strcmp(isa, core_types[i].isa))
            setenv("OPENBLAS_CORETYPE", core_types[i].core, 0);
#else
    (void)isa;
    (void)core_types;
#endif
    setenv("OPENBLAS_NUM_THREADS", "1", 1); /* the pool is ours */
    static const char *const names[] = {"libopenblas.so.0", "libopenblas.so"};
    void *lib = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !lib; i++)
        lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return err_set(err, "OpenBLAS (libopenblas.so.0) cannot be loaded; is libopenblas0 installed?");
    blas.sgemm = (sgemm_fn *)dlsym(lib, "cblas_sgemm");
    blas.core_name = (char *(*)(void))dlsym(lib, "openblas_get_corename");
    blas.dgemm = (dgemm_fn *)dlsym(lib, "cblas_dgemm");
    blas.dposv = (dposv_fn *)dlsym(lib, "dposv_");
    if (!blas.sgemm || !blas.dgemm) {
        dlclose(lib);
        return err_set(err, "libopenblas.so.0 has no cblas_sgemm and cblas_dgemm");
    }
    blas.library = lib; /* never closed: OpenBLAS does not unload cleanly */
    return 0;
}

/* Older OpenBLAS builds are known to compute wrong results on processors newer than themselves: one small product, checked. */
static int self_test(struct err *err)
{
    enum { N = 96 };
    static const int trans[] = {NO_TRANS, TRANS};
    float a[N * N], b[N * N], c[N * N];
    for (int i = 0; i < N * N; i++) {
        a[i] = (float)(i % 13 - 6);
        b[i] = (float)(i % 11 - 5);
    }
    for (int t = 0; t < 2; t++) {
        blas.sgemm(ROW_MAJOR, NO_TRANS, trans[t], N, N, N, 1, a, N, b, N, 0, c, N);
        for (int i = 0; i < N * N; i++) {
            float want = 0; /* sums of small whole numbers: exact in any order */
            for (int k = 0; k < N; k++)
                want += a[i / N * N + k] * (t ? b[i % N * N + k] : b[k * N + i % N]);
            if (c[i] != want)
                return err_set(err,
                               "OpenBLAS's %s kernels compute wrong results on this processor; set OPENBLAS_CORETYPE to another",
                               blas_core_name());
        }
    }
    return 0;
}

int blas_load(const char *isa, struct err *err)
{
    pthread_mutex_lock(&blas.lock);
    int rc = 0;
    if (!blas.library && (rc = load(isa, err)) == 0 && (rc = self_test(err)) != 0)
        blas.library = NULL; /* a second try fails the same way */
    pthread_mutex_unlock(&blas.lock);
    return rc;
}

void blas_sgemm(float *C, int64_t ldc, const float *A, int64_t lda, const float *B, int64_t ldb, int64_t m, int64_t n, int64_t k,
                float alpha, float beta, int trans_a, int trans_b)
{
    blas.sgemm(ROW_MAJOR, trans_a ? TRANS : NO_TRANS, trans_b ? TRANS : NO_TRANS, (int)m, (int)n, (int)k, alpha, A, (int)lda, B,
               (int)ldb, beta, C, (int)ldc);
}

void blas_dgemm(double *C, int64_t ldc, const double *A, int64_t lda, const double *B, int64_t ldb, int64_t m, int64_t n, int64_t k,
                double alpha, double beta, int trans_a, int trans_b)
{
    blas.dgemm(ROW_MAJOR, trans_a ? TRANS : NO_TRANS, trans_b ? TRANS : NO_TRANS, (int)m, (int)n, (int)k, alpha, A, (int)lda, B,
               (int)ldb, beta, C, (int)ldc);
}

int blas_dposv(double *A, double *B, int64_t n, int64_t n_rhs)
{
    int size = (int)n, right = (int)n_rhs, info = -1;
    if (blas.dposv)
        blas.dposv("L", &size, &right, A, &size, B, &size, &info, 1);
    return info;
}

const char *blas_core_name(void)
{
    return blas.core_name ? blas.core_name() : "unknown";
}
