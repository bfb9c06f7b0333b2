/* The packed matrix product of every instruction set and precision against sums in float64, on shapes that leave edges
 * everywhere, from both ways of packing either operand; and that a result does not depend on what lies beside it. */
#include "tests/fixtures/fixture.h"

#include "core/kernel/gemm.h"

enum { MAX_M = 40, MAX_N = 80, MAX_K = 2100 };

static struct compute c;
static float a[MAX_M * MAX_K], b[MAX_N * MAX_K], at[MAX_M * MAX_K], bt[MAX_N * MAX_K], *packed;
static float out[MAX_M * MAX_N], before[MAX_M * MAX_N];

/* A [m, k] and its transpose, B^T [n, k] and B [k, n]. */
static void fill(int64_t m, int64_t n, int64_t k)
{
    struct rng rng;
    rng_seed(&rng, (uint64_t)(m * 1000 + n * 10 + k));
    fill_random(a, m * k, 1, &rng);
    fill_random(b, n * k, 1, &rng);
    fill_random(before, m * n, 1, &rng);
    for (int64_t i = 0; i < m; i++)
        for (int64_t p = 0; p < k; p++)
            at[p * m + i] = a[i * k + p];
    for (int64_t j = 0; j < n; j++)
        for (int64_t p = 0; p < k; p++)
            bt[p * n + j] = b[j * k + p];
}

/* C [m, n] (+)= A B through the list of products; C's rows are ldc apart. */
static void multiply(float *C, int64_t ldc, const float *x, int64_t row_stride, int64_t col_stride, struct packed w, int64_t m,
                     int64_t n, int64_t k, bool accumulate)
{
    struct product p = {C, ldc, w, n, accumulate};
    gemm_packed(&c, 0, &p, 1, x, row_stride, col_stride, m, k);
}

/* The packed B; p0 is where the second half of its rows begins when it comes in two panels. */
static void pack(int64_t n, int64_t k, bool across)
{
    int64_t nr = c.gemm->nr, p0 = k / 4 * 2;
    if (across) {
        if (p0 > 0)
            gemm_pack_columns(&c, packed, bt, n, 0, p0, n, k);
        gemm_pack_columns(&c, packed, bt + p0 * n, n, p0, k - p0, n, k);
        return;
    }
    for (int64_t j = 0; j < n; j += nr)
        c.gemm->pack_b(packed_at(&c, packed, 0, j, k), b + j * k, k, n - j < nr ? n - j : nr, k);
}

/* As the product sees it. */
static double operand(float x)
{
    return (double)(strcmp(c.gemm->name, "f32") ? bf16_to_f32(f32_to_bf16(x)) : x);
}

static void check_product(int64_t m, int64_t n, int64_t k, bool turned, bool accumulate, const char *what)
{
    memcpy(out, before, sizeof out);
    multiply(out, n, turned ? at : a, turned ? 1 : k, turned ? m : 1, packed_part(&c, packed, 0, 0, k), m, n, k, accumulate);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double want = accumulate ? (double)before[i * n + j] : 0, size = fabs(want);
            for (int64_t p = 0; p < k; p++) {
                want += operand(a[i * k + p]) * operand(b[j * k + p]);
                size += fabs(operand(a[i * k + p]) * operand(b[j * k + p]));
            }
            /* k roundings of partial sums that are at most `size`, growing like their square root in practice */
            if (!(fabs((double)out[i * n + j] - want) <= 1.2e-7 * size * sqrt((double)k + 1)))
                fail_msg("%s, %s, %lld x %lld x %lld at %lld, %lld: %.9g, expected %.9g", c.gemm->name, what, (long long)m,
                         (long long)n, (long long)k, (long long)i, (long long)j, (double)out[i * n + j], want);
        }
}

static void products(void **state)
{
    (void)state;
    static const int64_t ms[] = {1, 3, 11, 12, 13, 40}, ns[] = {1, 7, 31, 32, 33, 80}, ks[] = {1, 2, 15, 16, 17, 100, 1025, 2100};
    const struct gemm_kernels *kernels[MAX_PRODUCTS];
    int n_kernels = products_of_machine(kernels);
    for (int kind = 0; kind < n_kernels; kind++) {
        c.gemm = kernels[kind];
        for (size_t x = 0; x < sizeof ms / sizeof *ms; x++)
            for (size_t y = 0; y < sizeof ns / sizeof *ns; y++)
                for (size_t z = 0; z < sizeof ks / sizeof *ks; z++) {
                    fill(ms[x], ns[y], ks[z]);
                    pack(ns[y], ks[z], false);
                    check_product(ms[x], ns[y], ks[z], false, false, "x W^T");
                    check_product(ms[x], ns[y], ks[z], true, true, "x^T W^T, added");
                    pack(ns[y], ks[z], true);
                    check_product(ms[x], ns[y], ks[z], false, true, "x W, added");
                }
    }
}

/* The last row alone, and a part of the columns and of the sums, are the same bits as within the whole. */
static void parts_are_the_whole(void **state)
{
    (void)state;
    const int64_t m = 29, n = 70, k = 300, first = 32, part = 20, half = 96;
    float row[MAX_N], sum[MAX_N];
    const struct gemm_kernels *kernels[MAX_PRODUCTS];
    int n_kernels = products_of_machine(kernels);
    for (int kind = 0; kind < n_kernels; kind++) {
        c.gemm = kernels[kind];
        fill(m, n, k);
        pack(n, k, false);
        multiply(out, n, a, k, 1, packed_part(&c, packed, 0, 0, k), m, n, k, false);
        multiply(row, n, a + (m - 1) * k, k, 1, packed_part(&c, packed, 0, 0, k), 1, n, k, false);
        assert_same_bits(row, out + (m - 1) * n, (size_t)n * sizeof *row, "one row");
        multiply(row, n, a, k, 1, packed_part(&c, packed, first, 0, k), 1, part, k, false);
        assert_same_bits(row, out + first, (size_t)part * sizeof *row, "some columns");
        multiply(sum, n, a, k, 1, packed_part(&c, packed, 0, 0, k), 1, n, half, false);
        multiply(sum, n, a + half, k, 1, packed_part(&c, packed, 0, half, k), 1, n, k - half, true);
        assert_close(sum, out, n, 1e-5, "two parts of the sum");
    }
}

static int open_all(void **state)
{
    (void)state;
    OK(compute_open(&c, 1, PRECISION_F32, &err));
    packed = calloc((size_t)((MAX_N + 32) * MAX_K), sizeof *packed);
    return packed ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    free(packed);
    compute_close(&c);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(parts_are_the_whole)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
