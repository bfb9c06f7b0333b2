#include "core/kernel/dtype.h"

#include <float.h>
#include <math.h>
#include <string.h>

const struct dtype_traits dtype_table[DTYPE_COUNT] = {
    [DTYPE_F32] = {"f32", 1, 4},         [DTYPE_F16] = {"f16", 1, 2},     [DTYPE_BF16] = {"bf16", 1, 2},
    [DTYPE_F8_E4M3] = {"f8_e4m3", 1, 1}, [DTYPE_Q8_0] = {"q8_0", 32, 34}, [DTYPE_Q4_0] = {"q4_0", 32, 18},
    [DTYPE_Q4_1] = {"q4_1", 32, 20},
};

int dtype_from_name(const char *name)
{
    for (int t = 0; t < DTYPE_COUNT; t++)
        if (!strcmp(name, dtype_table[t].name))
            return t;
    return -1;
}

size_t dtype_bytes(enum dtype t, int64_t n)
{
    return (size_t)(n / dtype_table[t].block) * dtype_table[t].block_bytes;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3ff;
    if (exp == 31)
        return float_of(sign | 0x7f800000 | man << 13);
    if (exp == 0) /* zero or subnormal: man * 2^-24 is exact */
        return float_of(sign | bits_of((float)man * 0x1p-24f));
    return float_of(sign | (exp + 112) << 23 | man << 13);
}

/* Without branches, so that the compiler makes vectors of it. */
static inline uint16_t to_f16(float f)
{
    uint32_t u = bits_of(f), sign = u >> 16 & 0x8000;
    int32_t a = (int32_t)(u & 0x7fffffff), odd = a >> 13 & 1;
    /* below 2^-14: adding 0.5 leaves the subnormal's integer in the low bits, rounded to even */
    int32_t small = (int32_t)(bits_of(float_of((uint32_t)a) + 0.5f) - 0x3f000000);
    int32_t h = a < 0x38800000 ? small : (int32_t)((uint32_t)a + 0xfff + (uint32_t)odd - 0x38000000) >> 13;
    h = a >= 0x477ff000 ? 0x7c00 : h; /* 65520 and above round to infinity */
    h = a > 0x7f800000 ? 0x7e00 : h;  /* NaN */
    return (uint16_t)(sign | (uint32_t)h);
}

static inline uint16_t to_bf16(float f)
{
    uint32_t u = bits_of(f);
    bool nan = (int32_t)(u & 0x7fffffff) > 0x7f800000;
    return (uint16_t)((nan ? u | 0x400000 : u + 0x7fff + (u >> 16 & 1)) >> 16); /* NaN stays NaN */
}

static inline uint8_t to_f8_e4m3(float f)
{
    uint32_t u = bits_of(f), sign = u >> 24 & 0x80;
    int32_t a = (int32_t)(u & 0x7fffffff), odd = a >> 20 & 1;
    int32_t small = (int32_t)(bits_of(float_of((uint32_t)a) + 0x1p14f) - 0x46800000); /* below 2^-6, in steps of 2^-9 */
    int32_t h = a < 0x3c800000 ? small : (int32_t)((uint32_t)a + 0x7ffff + (uint32_t)odd - 0x3c000000) >> 20;
    h = a >= 0x43e00000 ? 0x7e : h; /* 448 and above, infinity too */
    h = a > 0x7f800000 ? 0x7f : h;
    return (uint8_t)(sign | (uint32_t)h);
}

uint16_t f32_to_f16(float f)
{
    return to_f16(f);
}

uint16_t f32_to_bf16(float f)
{
    return to_bf16(f);
}

uint8_t f32_to_f8_e4m3(float f)
{
    return to_f8_e4m3(f);
}

float dtype_max(enum dtype t)
{
    const float f16 = 0x1.ffdffep15f; /* the last float32 before 65520, which rounds to infinity */
    switch (t) {
    case DTYPE_F32: return FLT_MAX;
    case DTYPE_F16: return f16;
    case DTYPE_BF16: return 0x1.fefffep127f;
    case DTYPE_F8_E4M3: return FLT_MAX; /* it has a scale of its own, in float32 */
    case DTYPE_Q8_0: return 127 * f16;
    case DTYPE_Q4_0: return 8 * f16;
    default: return f16; /* q4_1's minimum, an f16 too */
    }
}

float f8_e4m3_encode_row(uint8_t *dst, const float *src, int64_t n)
{
    float top = 0;
    for (int64_t i = 0; i < n; i++)
        top = fabsf(src[i]) > top ? fabsf(src[i]) : top;
    float scale = top == 0 ? 1 : top / 448 > FLT_MIN ? top / 448 : FLT_MIN;
    for (int64_t i = 0; i < n; i++)
        dst[i] = to_f8_e4m3(src[i] / scale);
    return scale;
}

/* ---- ggml's blocks; formulas: quantize_row_*_ref in ggml's ggml-quants.c ---- */

enum { BLOCK = 32 };

static void put_half(uint8_t *p, float f)
{
    uint16_t h = to_f16(f);
    memcpy(p, &h, 2);
}

/* 1 / d, or 0 where that is infinite */
static float inverse_of(float d)
{
    float inverse = 1 / d;
    return isinf(inverse) ? 0 : inverse;
}

/* d = max |x| / 127; q = x / d, rounded half away from zero */
static void encode_q8_0(uint8_t *block, const float *x)
{
    float top = 0;
    for (int i = 0; i < BLOCK; i++)
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    float d = top / 127, inverse = inverse_of(d);
    put_half(block, d);
    for (int i = 0; i < BLOCK; i++)
        block[2 + i] = (uint8_t)(int8_t)roundf(x[i] * inverse);
}

/* v rounded down to 0 .. 15 */
static unsigned nibble(float v)
{
    return !(v < 15) ? 15 : v > 0 ? (unsigned)v : 0;
}

/* d = the x of largest magnitude, with its sign, / -8; q = x / d + 8, rounded half up */
static void encode_q4_0(uint8_t *block, const float *x)
{
    float top = 0, signed_top = 0;
    for (int i = 0; i < BLOCK; i++)
        if (fabsf(x[i]) > top) {
            top = fabsf(x[i]);
            signed_top = x[i];
        }
    float d = signed_top / -8, inverse = inverse_of(d);
    put_half(block, d);
    for (int i = 0; i < BLOCK / 2; i++)
        block[2 + i] = (uint8_t)(nibble(x[i] * inverse + 8.5f) | nibble(x[i + BLOCK / 2] * inverse + 8.5f) << 4);
}

/* d = (max - min) / 15, m = min; q = (x - m) / d, rounded half up */
static void encode_q4_1(uint8_t *block, const float *x)
{
    float low = x[0], high = x[0];
    for (int i = 1; i < BLOCK; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    float d = (high - low) / 15, inverse = inverse_of(d);
    put_half(block, d);
    put_half(block + 2, low);
    for (int i = 0; i < BLOCK / 2; i++)
        block[4 + i] = (uint8_t)(nibble((x[i] - low) * inverse + 0.5f) | nibble((x[i + BLOCK / 2] - low) * inverse + 0.5f) << 4);
}

void dtype_encode(void *dst, const float *src, int64_t n, enum dtype t)
{
    static void (*const blocks[DTYPE_COUNT])(uint8_t * block, const float *x) = {
        [DTYPE_Q8_0] = encode_q8_0, [DTYPE_Q4_0] = encode_q4_0, [DTYPE_Q4_1] = encode_q4_1};
    uint16_t *h = dst;
    uint8_t *b = dst;
    switch (t) {
    case DTYPE_F32: memcpy(dst, src, (size_t)n * 4); break;
    case DTYPE_F16:
        for (int64_t i = 0; i < n; i++)
            h[i] = to_f16(src[i]);
        break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n; i++)
            h[i] = to_bf16(src[i]);
        break;
    case DTYPE_F8_E4M3:
        for (int64_t i = 0; i < n; i++)
            b[i] = to_f8_e4m3(src[i]);
        break;
    default:
        for (int64_t i = 0; i < n; i += BLOCK, b += dtype_table[t].block_bytes)
            blocks[t](b, src + i);
    }
}
