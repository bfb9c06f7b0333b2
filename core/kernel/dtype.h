/* The number formats of weight files: one row of traits per format. */
#ifndef ESPALIER_KERNEL_DTYPE_H
#define ESPALIER_KERNEL_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F8_E4M3, /* sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, 0x7f is NaN; torch.float8_e4m3fn */
    DTYPE_Q8_0,    /* 32 values: f16 scale d, 32 x int8 q;              value = d * q        (ggml) */
    DTYPE_Q4_0,    /* 32 values: f16 scale d, 16 bytes of two nibbles;  value = d * (q - 8)  (ggml) */
    DTYPE_Q4_1,    /* 32 values: f16 d, f16 m, 16 bytes of two nibbles; value = d * q + m    (ggml) */
    DTYPE_COUNT,
};
/* In the 4-bit formats byte j of a block holds value j in its low and value j + 16 in its high nibble. */

struct dtype_traits {
    const char *name;
    uint32_t block;       /* values per block */
    uint32_t block_bytes; /* bytes per block */
};

extern const struct dtype_traits dtype_table[DTYPE_COUNT];

/* Whether each value stands for itself: f32, f16, bf16, f8_e4m3. The others are ggml's blocks. */
static inline bool dtype_is_float(int t)
{
    return t >= DTYPE_F32 && t <= DTYPE_F8_E4M3;
}

/* The dtype of that name (as in the table: "f32", "q4_1", ...), or -1. */
int dtype_from_name(const char *name);

/* Bytes of n values; n must be a multiple of the block length. */
size_t dtype_bytes(enum dtype t, int64_t n);

/* dst[n] = the float32 values in a dtype; n is a multiple of its block. Floats are rounded to nearest, ties to even; what is too
 * large becomes infinity in f16 and bf16, and the largest number in f8_e4m3. The blocks are, bit for bit, those of ggml's
 * reference quantisers. */
void dtype_encode(void *dst, const float *src, int64_t n, enum dtype t);

/* The largest magnitude that encoding a finite value may give a finite value for; a block's scale is an f16. */
float dtype_max(enum dtype t);

/* As f8_e4m3, which alone is too narrow for weights: a row's scale is such that its largest magnitude is encoded as 448, the
 * format's largest number. value = scale * decoded. Returns the scale. */
float f8_e4m3_encode_row(uint8_t *dst, const float *src, int64_t n);
uint8_t f32_to_f8_e4m3(float f);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
static inline float bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)h << 16};
    return v.f;
}
uint16_t f32_to_bf16(float f);

#endif
