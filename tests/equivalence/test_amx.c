/* The AMX kernels with their tile instructions in plain C, by Intel's description of them, so that packing, halves and edges are
 * tested on every machine: against the same product of rounded operands by the portable float32 kernels. */
#include "tests/fixtures/fixture.h"

#include "core/kernel/gemm.h"

static struct {
    uint8_t rows[8];
    uint16_t row_bytes[8];
    bool configured;
    union {
        uint8_t bytes[16][64];
        float floats[16][16];
        uint16_t halves[16][32];
    } at[8];
} tmm;

static void _tile_loadconfig(const void *config)
{
    const uint8_t *c = config;
    assert_int_equal(c[0], 1);
    assert_false(tmm.configured);
    memset(&tmm, 0, sizeof tmm);
    memcpy(tmm.row_bytes, c + 16, sizeof tmm.row_bytes);
    memcpy(tmm.rows, c + 48, sizeof tmm.rows);
    tmm.configured = true;
}

static void _tile_release(void)
{
    assert_true(tmm.configured);
    tmm.configured = false;
}

static void _tile_zero(int t)
{
    assert_true(tmm.configured);
    memset(&tmm.at[t], 0, sizeof tmm.at[t]);
}

static void _tile_loadd(int t, const void *from, int64_t stride)
{
    _tile_zero(t);
    for (int i = 0; i < tmm.rows[t]; i++)
        memcpy(tmm.at[t].bytes[i], (const char *)from + i * stride, tmm.row_bytes[t]);
}

static void _tile_stored(int t, void *to, int64_t stride)
{
    assert_true(tmm.configured);
    for (int i = 0; i < tmm.rows[t]; i++)
        memcpy((char *)to + i * stride, tmm.at[t].bytes[i], tmm.row_bytes[t]);
}

static void _tile_dpbf16ps(int c, int a, int b)
{
    assert_int_equal(tmm.row_bytes[a] / 4, tmm.rows[b]);
    for (int i = 0; i < tmm.rows[c]; i++)
        for (int k = 0; k < tmm.row_bytes[a] / 4; k++)
            for (int j = 0; j < tmm.row_bytes[c] / 4; j++) {
                float *sum = &tmm.at[c].floats[i][j];
                *sum += bf16_to_f32(tmm.at[a].halves[i][2 * k]) * bf16_to_f32(tmm.at[b].halves[k][2 * j]);
                *sum += bf16_to_f32(tmm.at[a].halves[i][2 * k + 1]) * bf16_to_f32(tmm.at[b].halves[k][2 * j + 1]);
            }
}

#define VL    4
#define TABLE amx_in_c
#include "core/kernel/bf16_amx.inc"

enum { MOST_M = 300, MOST_N = 70, MOST_K = 1100 };
static struct compute c;
static float x[MOST_M * MOST_K], w[MOST_N * MOST_K], packed[2 * MOST_N * MOST_K], start[MOST_M * MOST_N], got[MOST_M * MOST_N],
    want[MOST_M * MOST_N];

/* out [m, n] += x w^T, with x and w [m, k], [n, k] or turned [k, m], [k, n] */
static void product(float *out, const struct gemm_kernels *g, int64_t m, int64_t n, int64_t k, bool turned, bool accumulate)
{
    c.gemm = g;
    for (int64_t j = 0; !turned && j < n; j += g->nr)
        g->pack_b(packed_at(&c, packed, 0, j, k), w + j * k, k, min_i64(g->nr, n - j), k);
    for (int64_t p = 0; turned && p < k; p += 16)
        gemm_pack_columns(&c, packed, w + p * n, n, p, min_i64(16, k - p), n, k);
    memcpy(out, start, sizeof start);
    struct product one = {out, n, packed_part(&c, packed, 0, 0, k), n, accumulate};
    gemm_packed(&c, 0, &one, 1, x, turned ? 1 : k, turned ? m : 1, m, k);
}

static void products(void **state)
{
    (void)state;
    static const int64_t ms[] = {1, 16, 17, 32, 33, 70, 300}, ns[] = {1, 16, 31, 32, 70}, ks[] = {1, 31, 32, 33, 500, 1100};
    struct rng rng;
    rng_seed(&rng, 4);
    fill_random(x, MOST_M * MOST_K, 1, &rng);
    fill_random(w, MOST_N * MOST_K, 1, &rng);
    fill_random(start, MOST_M * MOST_N, 1, &rng);
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; j++)
            for (size_t p = 0; p < sizeof ks / sizeof *ks; p++)
                for (int kind = 0; kind < 4; kind++) {
                    product(got, &amx_in_c, ms[i], ns[j], ks[p], kind & 1, kind & 2);
                    product(want, rows_portable.bf16, ms[i], ns[j], ks[p], kind & 1, kind & 2);
                    /* the same exact products, added in float32 in another order */
                    for (int64_t e = 0; e < MOST_M * MOST_N; e++)
                        if (!(fabsf(got[e] - want[e]) <= 4e-7f * (float)ks[p]))
                            fail_msg("%lld x %lld x %lld, kind %d, element %lld: %g instead of %g", (long long)ms[i],
                                     (long long)ns[j], (long long)ks[p], kind, (long long)e, (double)got[e], (double)want[e]);
                }
}

/* One row alone and some columns alone are the bits that they are among others. */
static void parts_are_the_whole(void **state)
{
    (void)state;
    float row[MOST_N];
    struct product one = {row, MOST_N, {0}, 20, true};
    product(got, &amx_in_c, MOST_M, MOST_N, 1000, false, true);
    memcpy(row, start + 69 * MOST_N + 32, 20 * sizeof *row);
    one.b = packed_part(&c, packed, 32, 0, 1000);
    gemm_packed(&c, 0, &one, 1, x + 69 * 1000, 1000, 1, 1, 1000);
    assert_same_bits(row, got + 69 * MOST_N + 32, 20 * sizeof *row, "a part");
    assert_false(tmm.configured);
}

static int open_all(void **state)
{
    (void)state;
    OK(compute_open(&c, 1, PRECISION_BF16, &err));
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    compute_close(&c);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(parts_are_the_whole)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
