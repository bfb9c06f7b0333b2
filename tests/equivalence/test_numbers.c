/* Number formats: all halfs there and back, rounding at every tie. gemm against a double loop, every path of it. */
#include "tests/fixtures/fixture.h"

#include <float.h>

static const struct row_kernels *levels[MAX_LEVELS]; /* of this machine, portable first */
static int n_levels;

static int find_levels(void **state)
{
    (void)state;
    n_levels = levels_of_machine(levels);
    return 0;
}

/* ---- 16-bit formats ---- */

static bool same_value(float got, double want)
{
    return isnan(want) ? isnan(got) : (double)got == want && !signbit(got) == !signbit(want);
}

/* All 65,536 patterns, decoded by every level and by the scalar functions, and encoded again. */
static void halfs_round_trip(void **state)
{
    enum { ALL = 1 << 16 };
    uint16_t *h = calloc(ALL, sizeof *h), *back = calloc(ALL, sizeof *back);
    float *f = floats(ALL);
    (void)state;
    assert_true(h && back);
    for (int i = 0; i < ALL; i++)
        h[i] = (uint16_t)i;
    for (int t = DTYPE_F16; t <= DTYPE_BF16; t++)
        for (int k = 0; k < n_levels; k++) {
            levels[k]->decode[t](f, h, ALL);
            dtype_encode(back, f, ALL, (enum dtype)t);
            for (int i = 0; i < ALL; i++) {
                double want = t == DTYPE_F16 ? half_value(h[i]) : bf16_value(h[i]);
                float scalar = t == DTYPE_F16 ? f16_to_f32(h[i]) : bf16_to_f32(h[i]);
                if (!same_value(f[i], want) || !same_value(scalar, want))
                    fail_msg("%s 0x%04x: %s gives %g, the scalar function %g, expected %g", dtype_table[t].name, i, levels[k]->isa,
                             (double)f[i], (double)scalar, want);
                if (isnan(want) ? !isnan(t == DTYPE_F16 ? half_value(back[i]) : bf16_value(back[i])) : back[i] != h[i])
                    fail_msg("%s 0x%04x comes back as 0x%04x", dtype_table[t].name, i, back[i]);
            }
        }
    free(h);
    free(back);
    free(f);
}

/* Between all neighbours: the middle goes to the even one, anything beyond it to the nearer one. */
static void halfs_round_to_nearest_even(void **state)
{
    (void)state;
    for (int t = DTYPE_F16; t <= DTYPE_BF16; t++) {
        uint32_t largest_finite = t == DTYPE_F16 ? 0x7bff : 0x7f7f;
        for (uint32_t h = 0; h <= largest_finite; h++)
            for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
                double lo = t == DTYPE_F16 ? half_value((uint16_t)h) : bf16_value((uint16_t)h);
                double hi = t == DTYPE_F16 ? half_value((uint16_t)(h + 1)) : bf16_value((uint16_t)(h + 1));
                if (h == largest_finite) /* the next one would be the first power of two beyond the range */
                    hi = ldexp(1, t == DTYPE_F16 ? 16 : 128);
                float middle = (float)((lo + hi) / 2), in[3] = {nextafterf(middle, 0), middle, nextafterf(middle, INFINITY)};
                uint16_t out[3], want[3] = {(uint16_t)(sign | h), (uint16_t)(sign | (h + (h & 1))), (uint16_t)(sign | (h + 1))};
                for (int i = 0; i < 3; i++)
                    in[i] = sign ? -in[i] : in[i];
                dtype_encode(out, in, 3, (enum dtype)t);
                for (int i = 0; i < 3; i++)
                    if (out[i] != want[i])
                        fail_msg("%.9g as %s: 0x%04x, expected 0x%04x", (double)in[i], dtype_table[t].name, out[i], want[i]);
            }
    }
}

static void halfs_out_of_range(void **state)
{
    static const float in[] = {FLT_MAX, -FLT_MAX, INFINITY, -INFINITY, 1e-45f, -1e-45f, 0.0f, -0.0f};
    static const uint16_t f16[] = {0x7c00, 0xfc00, 0x7c00, 0xfc00, 0, 0x8000, 0, 0x8000};
    static const uint16_t bf16[] = {0x7f80, 0xff80, 0x7f80, 0xff80, 0, 0x8000, 0, 0x8000};
    uint16_t out[8];
    float same[8];
    (void)state;
    dtype_encode(out, in, 8, DTYPE_F16);
    assert_memory_equal(out, f16, sizeof out);
    dtype_encode(out, in, 8, DTYPE_BF16);
    assert_memory_equal(out, bf16, sizeof out);
    dtype_encode(same, in, 8, DTYPE_F32);
    assert_memory_equal(same, in, sizeof same);
}

/* ---- gemm ---- */

struct gemm_case {
    int64_t m, n, k;
    float alpha, beta;
    int flags;
};

static void gemm_one(const struct compute *cp, const struct gemm_case *g, struct rng *rng)
{
    enum { ROOM = 80 * 80, PAD = 3 };
    static float A[ROOM], B[ROOM], C[ROOM], old[ROOM];
    bool ta = g->flags & GEMM_TRANS_A, tb = g->flags & GEMM_TRANS_B;
    int64_t lda = (ta ? g->m : g->k) + PAD, ldb = (tb ? g->k : g->n) + PAD, ldc = g->n + PAD;
    fill_random(A, ROOM, 1, rng);
    fill_random(B, ROOM, 1, rng);
    fill_random(old, ROOM, 1, rng);
    if (g->beta == 0) /* C is then not read: what lies there must not come through */
        for (int64_t i = 0; i < ROOM; i++)
            old[i] = i % 2 ? NAN : INFINITY;
    memcpy(C, old, sizeof C);
    gemm(cp, C, ldc, A, lda, B, ldb, g->m, g->n, g->k, g->alpha, g->beta, g->flags);
    for (int64_t i = 0; i < ROOM; i++) {
        int64_t r = i / ldc, q = i % ldc;
        if (r >= g->m || q >= g->n) {
            assert_memory_equal(&C[i], &old[i], sizeof *C); /* outside the matrix */
            continue;
        }
        double s = 0, size = 0;
        for (int64_t p = 0; p < g->k; p++) {
            double term = (double)(ta ? A[p * lda + r] : A[r * lda + p]) * (double)(tb ? B[q * ldb + p] : B[p * ldb + q]);
            s += term;
            size += fabs(term);
        }
        double start = g->beta == 0 ? 0 : (double)g->beta * (double)old[i], want = (double)g->alpha * s + start;
        /* k sums and products in any order, then alpha, beta and the last sum */
        double allowed = EPS * (((double)g->k + 4) * fabs((double)g->alpha) * size + 3 * fabs(start));
        if (!(fabs((double)C[i] - want) <= allowed))
            fail_msg("gemm m %lld n %lld k %lld alpha %g beta %g flags %d at %lld, %lld: %.9g, expected %.9g within %.2g",
                     (long long)g->m, (long long)g->n, (long long)g->k, (double)g->alpha, (double)g->beta, g->flags, (long long)r,
                     (long long)q, (double)C[i], want, allowed);
    }
}

static void matrix_products(void **state)
{
    static const int64_t ms[] = {1, 2, 3, 4, 5, 17, 33}, ns[] = {1, 3, 4, 6, 37}, ks[] = {1, 5, 32, 67};
    static const float alphas[] = {1, -0.5f}, betas[] = {0, 1, 0.25f};
    struct compute cp;
    struct rng rng;
    (void)state;
    rng_seed(&rng, 31);
    for (int level = 0; level < n_levels; level++) {
        setenv("ESPALIER_ISA", levels[level]->isa, 1);
        OK(compute_open(&cp, 1, PRECISION_F32, &err));
        for (int i = 0; i < 7 * 5 * 4 * 2 * 3 * 4; i++) {
            struct gemm_case g = {ms[i % 7], ns[i / 7 % 5], ks[i / 35 % 4], alphas[i / 140 % 2], betas[i / 280 % 3], i / 840};
            gemm_one(&cp, &g, &rng);
        }
        compute_close(&cp);
    }
    unsetenv("ESPALIER_ISA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halfs_round_trip),
        cmocka_unit_test(halfs_round_to_nearest_even),
        cmocka_unit_test(halfs_out_of_range),
        cmocka_unit_test(matrix_products),
    };
    return cmocka_run_group_tests(tests, find_levels, NULL);
}
