/* Encoding: every value of the small floats comes back, ties go to even, what is too large ends where it should, and blocks are
 * ggml's. Decoding by the kernels is in tests/equivalence/test_isa.c; here it is the portable one's. */
#include "tests/tiny_model.h"

#include <float.h>
#include <math.h>

#include "core/kernel/rows.h"

static float bits_to_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* Every finite number of a float format encodes as itself; between two neighbours the nearer is taken, at the tie the even one. */
static void check_float(enum dtype t, unsigned count, float top)
{
    size_t bytes = dtype_bytes(t, 1);
    for (unsigned code = 0; code + 1 < count; code++) { /* positive codes rise with their values */
        float v[2];
        unsigned both[2] = {code, code + 1}, got;
        for (int i = 0; i < 2; i++)
            rows_portable.decode[t](&v[i], &both[i], 1);
        if (!(v[1] <= top))
            break;
        float middle = v[0] + (v[1] - v[0]) / 2; /* exact: the formats have fewer digits than float32 */
        const struct {
            float x;
            unsigned want;
        } cases[] = {{v[0], code},
                     {v[1], code + 1},
                     {middle, code & 1 ? code + 1 : code},
                     {nextafterf(middle, 0), code},
                     {nextafterf(middle, INFINITY), code + 1}};
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            for (int negative = 0; negative < 2; negative++) {
                unsigned want = cases[i].want | (negative ? 1u << (8 * bytes - 1) : 0);
                float x = negative ? -cases[i].x : cases[i].x;
                got = 0;
                dtype_encode(&got, &x, 1, t);
                if (got != want)
                    fail_msg("%s: %.9g became %x, expected %x", dtype_table[t].name, (double)x, got, want);
            }
    }
}

static void floats_round_to_nearest(void **state)
{
    (void)state;
    check_float(DTYPE_F16, 1 << 15, 65504);
    check_float(DTYPE_BF16, 1 << 15, FLT_MAX);
    check_float(DTYPE_F8_E4M3, 1 << 7, 448);
}

static void the_ends(void **state)
{
    (void)state;
    static const struct {
        uint32_t bits;
        uint16_t f16, bf16;
        uint8_t f8;
    } cases[] = {
        {0x00000000, 0x0000, 0x0000, 0x00}, {0x80000000, 0x8000, 0x8000, 0x80}, {0x00000001, 0x0000, 0x0000, 0x00},
        {0x43e00000, 0x5f00, 0x43e0, 0x7e},                                     /* 448 */
        {0xc3e00000, 0xdf00, 0xc3e0, 0xfe}, {0x43f00000, 0x5f80, 0x43f0, 0x7e}, /* 480 */
        {0x477fefff, 0x7bff, 0x4780, 0x7e},                                     /* the last before 65520 */
        {0x477ff000, 0x7c00, 0x4780, 0x7e}, {0x7f7fffff, 0x7c00, 0x7f80, 0x7e}, {0x7f800000, 0x7c00, 0x7f80, 0x7e},
        {0xff800000, 0xfc00, 0xff80, 0xfe}, {0x7fc00000, 0x7e00, 0x7fc0, 0x7f}, {0x7f800001, 0x7e00, 0x7fc0, 0x7f},
        {0x7fffffff, 0x7e00, 0x7fff, 0x7f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float f = bits_to_float(cases[i].bits), room[32];
        uint16_t h[2];
        uint8_t b;
        for (int k = 0; k < 32; k++)
            room[k] = f;
        dtype_encode(&h[0], &f, 1, DTYPE_F16);
        dtype_encode(&h[1], &f, 1, DTYPE_BF16);
        dtype_encode(&b, &f, 1, DTYPE_F8_E4M3);
        if (h[0] != cases[i].f16 || h[1] != cases[i].bf16 || b != cases[i].f8)
            fail_msg("%08x: %04x %04x %02x, expected %04x %04x %02x", cases[i].bits, h[0], h[1], b, cases[i].f16, cases[i].bf16,
                     cases[i].f8);
        uint16_t many[32]; /* by vectors */
        dtype_encode(many, room, 32, DTYPE_F16);
        for (int k = 0; k < 32; k++)
            assert_int_equal(many[k], cases[i].f16);
        assert_int_equal(f32_to_f16(f), cases[i].f16);
        assert_int_equal(f32_to_bf16(f), cases[i].bf16);
        assert_int_equal(f32_to_f8_e4m3(f), cases[i].f8);
    }
}

/* The largest magnitude of each format becomes something finite, and the next one does not. */
static void the_largest(void **state)
{
    (void)state;
    for (int t = 0; t < DTYPE_COUNT; t++) {
        float x[32] = {dtype_max((enum dtype)t)}, y[32];
        uint8_t room[32 * 4];
        for (int above = 0; above < 2; above++) {
            if (above)
                x[0] = nextafterf(x[0], INFINITY);
            dtype_encode(room, x, 32, (enum dtype)t);
            rows_portable.decode[t](y, room, 32);
            if (t == DTYPE_F8_E4M3 || t == DTYPE_Q4_1) /* saturates; and its maximum is no number's own, only its minimum */
                assert_true(isfinite(y[0]));
            else if (isfinite(y[0]) == above)
                fail_msg("%s: %g became %g", dtype_table[t].name, (double)x[0], (double)y[0]);
        }
    }
    float low[32] = {-dtype_max(DTYPE_Q4_1)};
    uint8_t room[20];
    dtype_encode(room, low, 32, DTYPE_Q4_1);
    assert_int_equal(room[3], 0xfb);
    low[0] = nextafterf(low[0], -INFINITY);
    dtype_encode(room, low, 32, DTYPE_Q4_1);
    assert_int_equal(room[3], 0xfc);
}

static void rows_of_f8(void **state)
{
    (void)state;
    float x[5] = {-3.5f, 1, 0, 0.0078125f, 3.5f}, y[5];
    uint8_t b[5];
    float scale = f8_e4m3_encode_row(b, x, 5);
    assert_true(scale == 3.5f / 448);
    assert_true(b[0] == 0xfe && b[2] == 0 && b[4] == 0x7e && b[1] == 0x70 && b[3] == 0x38); /* 448, 0, 448, 128, 1 */
    memset(x, 0, sizeof x);
    assert_true(f8_e4m3_encode_row(b, x, 5) == 1);
    x[3] = -1e-44f; /* so small that the quotient would be no normal number */
    scale = f8_e4m3_encode_row(b, x, 5);
    assert_true(scale > 0 && isnormal(scale));
    x[3] = FLT_MAX;
    scale = f8_e4m3_encode_row(b, x, 5);
    rows_portable.decode[DTYPE_F8_E4M3](y, b, 5);
    assert_true(isfinite(scale) && isfinite(y[3] * scale));
}

/* ---- blocks, worked out by hand from ggml's formulas ---- */

static void q8_0(void **state)
{
    (void)state;
    float x[32] = {127, -127, 0.5f, -0.5f, 1.5f, 2.5f, 63.49f, -63.51f};
    uint8_t b[34];
    static const int8_t want[8] = {127, -127, 1, -1, 2, 3, 63, -64}; /* half away from zero */
    dtype_encode(b, x, 32, DTYPE_Q8_0);
    assert_true(b[0] == 0x00 && b[1] == 0x3c); /* 1 */
    assert_memory_equal(b + 2, want, 8);
    for (int i = 10; i < 34; i++)
        assert_int_equal(b[i], 0);
}

static void q4_0(void **state)
{
    (void)state;
    float x[32] = {8, -7, -8, 0, 0.5f, 0.4999f};
    uint8_t b[18];
    x[16] = 3;
    x[31] = -3;
    dtype_encode(b, x, 32, DTYPE_Q4_0); /* the first of the largest is 8: d = -1, q = 8 - x rounded half up, 16 cut to 15 */
    assert_true(b[0] == 0x00 && b[1] == 0xbc);
    assert_int_equal(b[2], 0x50);    /* 8 -> 0, and x[16] 3 -> 5 */
    assert_int_equal(b[3] & 15, 15); /* -7 */
    assert_int_equal(b[4] & 15, 15); /* -8 would be 16 */
    assert_int_equal(b[5] & 15, 8);  /* 0 */
    assert_int_equal(b[6] & 15, 8);  /* 0.5: 7.5 + 0.5 */
    assert_int_equal(b[7] & 15, 8);  /* 0.4999 */
    assert_int_equal(b[17], 0xb8);   /* x[15] 0, x[31] -3 -> 11 */
    x[0] = -8;
    x[2] = 8;
    dtype_encode(b, x, 32, DTYPE_Q4_0); /* now -8 comes first: d = 1 */
    assert_true(b[0] == 0x00 && b[1] == 0x3c && (b[2] & 15) == 0 && (b[4] & 15) == 15 && (b[3] & 15) == 1);
    memset(x, 0, sizeof x);
    dtype_encode(b, x, 32, DTYPE_Q4_0);
    for (int i = 2; i < 18; i++)
        assert_int_equal(b[i], 0x88);
}

static void q4_1(void **state)
{
    (void)state;
    float x[32];
    uint8_t b[20];
    for (int i = 0; i < 32; i++)
        x[i] = (float)(i % 16) - 4;
    dtype_encode(b, x, 32, DTYPE_Q4_1); /* d = 1, m = -4 */
    assert_true(b[0] == 0x00 && b[1] == 0x3c && b[2] == 0x00 && b[3] == 0xc4);
    for (int i = 0; i < 16; i++)
        assert_int_equal(b[4 + i], i | i << 4);
}

/* No input, however odd, is undefined (a sanitizer looks on), and a block of tiny numbers is one of zeros. */
static void odd_blocks(void **state)
{
    (void)state;
    static const float values[] = {FLT_MAX, -FLT_MAX, 1e-45f, -1e-45f, 1e-39f, 0, -0.0f, 65504, -65504};
    enum { N = sizeof values / sizeof *values };
    for (int t = DTYPE_Q8_0; t < DTYPE_COUNT; t++)
        for (int i = 0; i < N * N; i++) {
            float x[32], y[32];
            uint8_t room[34];
            for (int k = 0; k < 32; k++)
                x[k] = values[(k & 1 ? i / N : i) % N];
            dtype_encode(room, x, 32, (enum dtype)t);
            rows_portable.decode[t](y, room, 32);
            if (fabsf(x[0]) < 1e-30f && fabsf(x[1]) < 1e-30f)
                for (int k = 0; k < 32; k++)
                    assert_true(y[k] == 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_round_to_nearest),
        cmocka_unit_test(the_ends),
        cmocka_unit_test(the_largest),
        cmocka_unit_test(rows_of_f8),
        cmocka_unit_test(q8_0),
        cmocka_unit_test(q4_0),
        cmocka_unit_test(q4_1),
        cmocka_unit_test(odd_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
