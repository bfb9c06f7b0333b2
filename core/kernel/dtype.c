#include "core/kernel/dtype.h"

#include <assert.h>
#include <math.h>
#include <string.h>

const struct dtype_traits dtype_table[DTYPE_COUNT] = {
    [DTYPE_F32] = {"f32", 1, 4},     [DTYPE_F16] = {"f16", 1, 2},     [DTYPE_BF16] = {"bf16", 1, 2},
    [DTYPE_Q8_0] = {"q8_0", 32, 34}, [DTYPE_Q4_0] = {"q4_0", 32, 18}, [DTYPE_Q4_1] = {"q4_1", 32, 20},
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

uint16_t f32_to_f16(float f)
{
    uint32_t u = bits_of(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00); /* NaN */
    if (a >= 0x477ff000)
        return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (a < 0x38800000) /* below 2^-14: adding 0.5 leaves the subnormal's integer in the low bits, rounded to even */
        return (uint16_t)(sign | (bits_of(float_of(a) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | ((a + 0xfff + (a >> 13 & 1) - 0x38000000) >> 13));
}

uint16_t f32_to_bf16(float f)
{
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* NaN stays NaN */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

void dtype_encode(void *dst, const float *src, int64_t n, enum dtype t)
{
    uint16_t *h = dst;
    switch (t) {
    case DTYPE_F32: memcpy(dst, src, (size_t)n * 4); break;
    case DTYPE_F16:
        for (int64_t i = 0; i < n; i++)
            h[i] = f32_to_f16(src[i]);
        break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n; i++)
            h[i] = f32_to_bf16(src[i]);
        break;
    default: assert(!"dtype_encode writes f32, f16 and bf16");
    }
}
