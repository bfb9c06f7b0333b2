/* Dot products of quantised rows in whole numbers against the same in double, and what a model's product makes of them. */
#include "tests/fixtures/fixture.h"

enum { MAX_N = 4128, MOST = LINEAR_FEW_ROWS + 3, BLOCK = 32 };

static const struct fixed_kernels *fixed, *wider; /* for VNNI, and for VBMI beside it; NULL: not on this machine */
static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1};
static uint8_t rows[4][MAX_N / BLOCK * 34 + 1];
static const void *at[4];
static float x[MOST * MAX_N], weights[4][MAX_N];
static float room[MOST * (MAX_N + FIXED_RUN)] __attribute__((aligned(64)));

static const struct fixed_kernels *kernels_of(const char *isa)
{
    struct compute c;
    struct err why = {0};
    const struct fixed_kernels *found = NULL;
    setenv("ESPALIER_ISA", isa, 1);
    if (compute_open(&c, 1, PRECISION_F32, &why) == 0) {
        found = c.fixed;
        assert_non_null(found);
        compute_close(&c);
    } else
        print_message("SKIPPED: %s\n", why.msg);
    unsetenv("ESPALIER_ISA");
    return found;
}

static int find(void **state)
{
    (void)state;
    fixed = kernels_of("avx512_vnni");
    wider = kernels_of("avx512_vbmi");
    return 0;
}

/* Blocks of any bytes behind a scale, and an offset, of magnitude 2^-7 to 2^-4; from odd addresses: files promise no alignment. */
static void fill_rows(enum dtype t, int64_t n, struct rng *rng)
{
    size_t step = dtype_table[t].block_bytes;
    for (int r = 0; r < 4; r++) {
        uint8_t *p = rows[r] + 1;
        for (size_t i = 0; i < dtype_bytes(t, n); i++) {
            p[i] = (uint8_t)rng_u32(rng);
            if (i % step == 1 || (i % step == 3 && t == DTYPE_Q4_1))
                p[i] = (uint8_t)((p[i] & 0x87) | 0x20);
        }
        at[r] = p;
        rows_portable.decode[t](weights[r], p, n);
    }
}

/* What may be lost: half a unit of each value of x, and what a float32 sum loses, here a product and a sum for each 256 values. A
 * block of q4_1 is two products: by its scale and by its offset. */
static double allowed(int r, const float *v, int64_t n, enum dtype t)
{
    double units = 0, size = 0;
    for (int64_t g = 0; g < n; g += BLOCK) {
        double most = 0, sum = 0;
        const uint8_t *block = (const uint8_t *)at[r] + dtype_bytes(t, g);
        double offset = t == DTYPE_Q4_1 ? 2 * fabs(half_value((uint16_t)(block[2] | block[3] << 8))) : 0;
        for (int64_t i = g; i < g + BLOCK; i++) {
            most = fmax(most, fabs((double)v[i]));
            sum += fabs((double)weights[r][i]);
            size += (fabs((double)weights[r][i]) + offset) * fabs((double)v[i]);
        }
        units += sum * most / fixed_units(t) / 2;
    }
    return units + ((double)n / FIXED_RUN + 20) * EPS * size;
}

static void check_dots(const float got[4], const float *v, int64_t n, enum dtype t)
{
    for (int r = 0; r < 4; r++) {
        double want = 0;
        for (int64_t i = 0; i < n; i++)
            want += (double)weights[r][i] * (double)v[i];
        if (!(fabs((double)got[r] - want) <= allowed(r, v, n, t)))
            fail_msg("%s, n = %lld, row %d: %.9g, expected %.9g within %.2g", dtype_table[t].name, (long long)n, r, (double)got[r],
                     want, allowed(r, v, n, t));
    }
}

/* Every length of a last run, rows longer than what is asked for ahead, more vectors than are taken at once, and magnitudes that
 * differ from group to group. */
static void dots(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 30);
    for (int k = 0; fixed && k < 3; k++)
        for (int64_t n = BLOCK; n <= MAX_N; n += n < 320 ? BLOCK : n < 1024 ? 23 * BLOCK : 96 * BLOCK) {
            float got[MOST + 1][5], one[4], wide[4];
            int64_t size = fixed_floats(n);
            fill_rows(types[k], n, &rng);
            fill_random(x, MOST * n, 1, &rng);
            for (int64_t i = 0; i < MOST * n; i++)
                x[i] = ldexpf(x[i], (int)(i / BLOCK % 7) * 4 - 12);
            for (int i = 0; i < MOST; i++)
                fixed->fix(room + i * size, x + i * n, n, types[k]);
            for (int m = 1; m <= MOST; m += m < 9 ? 1 : 13) {
                for (int i = 0; i <= MOST; i++)
                    for (int r = 0; r < 5; r++)
                        got[i][r] = 12345;
                fixed->dot4[types[k]](got[0], 5, at, room, m, n, at);
                for (int i = 0; i < m; i++) {
                    fixed->dot4[types[k]](one, 4, at, room + i * size, 1, n, at);
                    assert_same_bits(got[i], one, sizeof one, "one of several vectors");
                    if (wider) {
                        wider->dot4[types[k]](wide, 4, at, room + i * size, 1, n, at);
                        assert_same_bits(wide, one, sizeof one, "with VBMI and GFNI");
                    }
                    assert_true(got[i][4] == 12345);
                    if (m == MOST)
                        check_dots(one, x + i * n, n, types[k]);
                }
                for (int r = 0; r < 5; r++)
                    assert_true(got[m][r] == 12345);
            }
        }
}

/* The largest sums that there can be: all weights at one end of their range, all of x at one magnitude. */
static void extremes(void **state)
{
    (void)state;
    static const uint8_t ends[] = {0x80, 0x7f, 0xff, 0x00};
    for (int k = 0; fixed && k < 3; k++)
        for (int e = 0; e < 4; e++)
            for (int sign = 0; sign < 3; sign++) {
                int64_t n = 2 * FIXED_RUN + BLOCK;
                size_t step = dtype_table[types[k]].block_bytes;
                for (int r = 0; r < 4; r++) {
                    memset(rows[r] + 1, ends[e], dtype_bytes(types[k], n));
                    for (int64_t g = 0; g < n / BLOCK; g++) /* a scale of 1, an offset of -2 */
                        memcpy(rows[r] + 1 + (size_t)g * step, (const uint8_t[]){0x00, 0x3c, 0x00, 0xc0},
                               types[k] == DTYPE_Q4_1 ? 4 : 2);
                    at[r] = rows[r] + 1;
                    rows_portable.decode[types[k]](weights[r], at[r], n);
                }
                for (int64_t i = 0; i < n; i++)
                    x[i] = sign == 2 ? (i & 1 ? 7.5f : -7.5f) : sign ? -7.5f : 7.5f;
                float got[4];
                fixed->fix(room, x, n, types[k]);
                fixed->dot4[types[k]](got, 4, at, room, 1, n, at);
                check_dots(got, x, n, types[k]);
            }
}

/* A group of one kind among usual ones. What is no number stays none; the tiny counts as nothing, the huge is kept. */
static void odd_groups(void **state)
{
    (void)state;
    static const float values[] = {NAN, INFINITY, -INFINITY, 0, 1e-38f, 1e-42f, 3e36f};
    struct rng rng;
    rng_seed(&rng, 31);
    for (int k = 0; fixed && k < 3; k++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++)
            for (int at_value = 0; at_value < BLOCK; at_value += 5) {
                int64_t n = FIXED_RUN + BLOCK;
                float got[4];
                fill_rows(types[k], n, &rng);
                fill_random(x, n, 1, &rng);
                for (int i = 0; i < BLOCK && !isnan(values[v]) && !isinf(values[v]); i++)
                    x[BLOCK + i] = values[v];
                x[BLOCK + at_value] = values[v];
                fixed->fix(room, x, n, types[k]);
                fixed->dot4[types[k]](got, 4, at, room, 1, n, at);
                for (int r = 0; r < 4 && !isfinite(values[v]); r++)
                    assert_true(isnan(got[r]));
                if (isfinite(values[v]))
                    check_dots(got, x, n, types[k]);
            }
}

/* Operations that share x, each with rows of its own dtype: every row has the bits of that row alone, on one thread and on two,
 * and is near what floats give. */
static void shared_input(void **state)
{
    enum { COLS = 1056, OUT = 13, ROWS = LINEAR_FEW_ROWS, OPS = 3 };
    static const enum dtype mixes[][OPS] = {{DTYPE_Q4_1, DTYPE_Q8_0, DTYPE_Q4_1}, {DTYPE_Q4_0, DTYPE_F16, DTYPE_Q8_0}};
    static float y[OPS][ROWS * OUT], one[OPS][OUT], plain[OPS][ROWS * OUT];
    struct compute c, two, without;
    struct rng rng;
    (void)state;
    if (!fixed)
        return;
    OK(compute_open(&c, 1, PRECISION_F32, &err));
    OK(compute_open(&two, 2, PRECISION_F32, &err));
    OK(compute_open(&without, 1, PRECISION_F32, &err));
    without.fixed = NULL;
    rng_seed(&rng, 32);
    fill_random(x, ROWS * COLS, 1, &rng);
    for (size_t k = 0; k < sizeof mixes / sizeof *mixes; k++) {
        struct weight w[OPS];
        struct linear ops[OPS];
        uint8_t *data[OPS];
        for (int q = 0; q < OPS; q++) {
            size_t bytes = dtype_bytes(mixes[k][q], COLS);
            float values[COLS];
            assert_non_null(data[q] = malloc(bytes * OUT));
            for (int r = 0; r < OUT; r++) {
                fill_random(values, COLS, 1, &rng);
                dtype_encode(data[q] + (size_t)r * bytes, values, COLS, mixes[k][q]);
            }
            w[q] = (struct weight){.dtype = mixes[k][q], .rows = OUT, .cols = COLS, .data = data[q], .row_bytes = bytes};
            ops[q] = (struct linear){.w = &w[q]};
        }
        linear_forward(&without, (float *const[]){plain[0], plain[1], plain[2]}, ops, OPS, x, ROWS, false);
        linear_forward(&c, (float *const[]){y[0], y[1], y[2]}, ops, OPS, x, ROWS, false);
        /* 1,056 products below 1, each off by 2^-21 at most, either way: 5e-6 in the mean; four times that */
        for (int q = 0; q < OPS; q++)
            assert_close(y[q], plain[q], ROWS * OUT, 2e-5, "whole numbers and floats");
        for (int i = 0; i < ROWS; i++) {
            linear_forward(&two, (float *const[]){one[0], one[1], one[2]}, ops, OPS, x + i * COLS, 1, false);
            for (int q = 0; q < OPS; q++)
                assert_same_bits(y[q] + i * OUT, one[q], sizeof one[q], "a row alone");
        }
        for (int q = 0; q < OPS; q++)
            free(data[q]);
    }
    /* which kernels a batch gets is settled before it is filled */
    assert_ptr_equal(compute_for_rows(&c, 1).fixed, wider ? wider : fixed);
    assert_null(compute_for_rows(&c, LINEAR_FEW_ROWS).fixed);
    compute_close(&c);
    compute_close(&two);
    compute_close(&without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dots),
        cmocka_unit_test(extremes),
        cmocka_unit_test(odd_groups),
        cmocka_unit_test(shared_input),
    };
    return cmocka_run_group_tests(tests, find, NULL);
}
