/* What computing needs: threads, the row kernels of this processor, OpenBLAS's sgemm, and scratch memory. */
#ifndef ESPALIER_KERNEL_COMPUTE_H
#define ESPALIER_KERNEL_COMPUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/mem.h"
#include "core/base/pool.h"
#include "core/kernel/fixed.h"
#include "core/kernel/gemm_kernels.h"
#include "core/kernel/rows.h"

enum {
    SCRATCH_FLOATS = 1 << 18, /* per worker: 1 MiB, half of a small L2 cache */
    PANEL_FLOATS = 1 << 22,   /* decoded weights shared by all workers: 16 MiB */
};

struct compute {
    struct pool *pool;
    const struct row_kernels *rows;
    const struct gemm_kernels *gemm;   /* of the large products */
    const struct fixed_kernels *fixed; /* NULL: this level has none */
    float **scratch;                   /* [pool_threads][SCRATCH_FLOATS] */
    float *panel;                      /* [PANEL_FLOATS] */
    struct arena arena;
};

/* What large products (gemm_packed) round their operands to; sums, and all else, are float32. */
enum precision { PRECISION_F32, PRECISION_BF16 };

/* "f32" or "bf16". */
int precision_named(enum precision *p, const char *name, struct err *err);

/* threads = 0: all processors. The instruction set is the best that the processor and the system support, or what the
 * environment variable ESPALIER_ISA names: portable, avx2, avx512, avx512_vnni and avx512_vbmi (which are avx512 but for quantised
 * rows), or avx512_bf16 and amx (which are avx512_vbmi but for bf16). */
int compute_open(struct compute *c, int threads, enum precision precision, struct err *err);
void compute_close(struct compute *c);

/* c as it serves products of up to so many rows at a time best. It shares what c owns: it is not closed, and c is closed after. */
struct compute compute_for_rows(const struct compute *c, int64_t rows);

/* c with large products in float32, and whether it has them anyway. Shares what c owns, as above. */
struct compute compute_in_f32(const struct compute *c);
bool compute_is_f32(const struct compute *c);

/* Whether large products of PRECISION_BF16 have instructions of their own here; else they are float32's, of rounded operands. */
bool compute_has_bf16(void);

enum { GEMM_TRANS_A = 1, GEMM_TRANS_B = 2 };

/* C[m, n] = alpha op(A) op(B) + beta C, row-major, on the calling thread. op(A) is [m, k], op(B) is [k, n]; with GEMM_TRANS_x
 * the operand is stored transposed. lda, ldb, ldc: floats from one stored row to the next. C overlaps neither A nor B. */
void gemm(const struct compute *c, float *C, int64_t ldc, const float *A, int64_t lda, const float *B, int64_t ldb, int64_t m,
          int64_t n, int64_t k, float alpha, float beta, int flags);

/* The same in float64. */
void gemm_f64(double *C, int64_t ldc, const double *A, int64_t lda, const double *B, int64_t ldb, int64_t m, int64_t n, int64_t k,
              double alpha, double beta, int flags);

/* Solves A X = B for a symmetric positive definite A [n, n], which is destroyed. B [n_rhs, n] holds one right-hand side a row and
 * receives the solutions. An A that is not positive definite is an error. */
int solve_symmetric(double *A, double *B, int64_t n, int64_t n_rhs, struct err *err);

/* OpenBLAS's own name for the kernels it runs, for provenance. */
const char *gemm_backend(void);

#endif
