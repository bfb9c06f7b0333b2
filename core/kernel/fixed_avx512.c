/* Whole-number dot products by AVX-512 VNNI, whose vpdpbusd adds four products of an unsigned and a signed byte to each 32-bit
 * lane. Four groups are taken at a time, one in each 128-bit lane, their first halves in one vector and their second halves in
 * another: that is how a 4-bit block keeps them, in its low and its high nibbles. */
#include "core/kernel/fixed.h"

#define VL 16
#include "core/kernel/vec.inc"

enum {
    GROUPS = FIXED_RUN / FIXED_GROUP, /* of a run */
    BYTES = 3,                        /* of a value of x */
    AHEAD = 2048,                     /* bytes of each row that are asked for ahead */
    AT_ONCE = 3,                      /* vectors of x whose sums, four each, stay in registers */
    MANY = 32,                        /* whose sums stay in the first-level cache, beside */
    BLOCK = 8,                        /* runs of weights, unpacked */
};

/* FIXED_RUN values of x, in the room that they take as floats. */
struct run {
    int8_t x[BYTES][2][64]; /* value / unit = 2^16 x[0] + 2^8 x[1] + x[2]; of both halves */
    int32_t offset[16];     /* what a lane's sum starts from; for q4_1 it is the sum of value / unit, and a factor of its own */
    float unit[GROUPS], unused[12];
};
_Static_assert(sizeof(struct run) == FIXED_RUN * sizeof(float), "a run takes the room of its floats");

/* ---- weights as unsigned bytes: the weight plus `zero` ---- */

static inline int bytes_of(enum dtype t)
{
    return t == DTYPE_Q8_0 ? 34 : t == DTYPE_Q4_0 ? 18 : 20;
}

/* What stays in registers. GCC would make masks and vectors anew in every run, by the very ports that the products wait for: it is
 * not told what they hold. */
struct constants {
    __mmask32 lane[GROUPS]; /* the four dwords of 128-bit lane g; also its words in the lower half of a vector, and in the upper */
    __m512i low, flip;      /* 15 and 128 in each byte */
    __m512i scales;         /* which words of a run are scales, in the lower half, and offsets, in the upper; four times over */
};

static inline __attribute__((always_inline)) struct constants make_constants(enum dtype t)
{
    const int64_t words = t == DTYPE_Q4_0 ? 9 : 10, scales = (3 * words) << 48 | (2 * words) << 32 | words << 16;
    const __m512i offset = _mm512_maskz_set1_epi16(0xffff0000, 1);
    struct constants k = {{0x000f000f, 0x00f000f0, 0x0f000f00, (__mmask32)0xf000f000},
                          _mm512_set1_epi8(15),
                          _mm512_set1_epi8((char)0x80),
                          _mm512_add_epi16(_mm512_set1_epi64(scales), offset)};
    __asm__("" : "+k"(k.lane[1]), "+k"(k.lane[2]), "+k"(k.lane[3]), "+v"(k.low), "+v"(k.flip), "+v"(k.scales));
    return k;
}

/* 16 bytes at p, and again every `step` bytes. */
static inline __m512i gather_lanes(const struct constants *k, const uint8_t *p, int step)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)p));
    v = _mm512_mask_broadcast_i32x4(v, (__mmask16)k->lane[1], _mm_loadu_si128((const void *)(p + step)));
    v = _mm512_mask_broadcast_i32x4(v, (__mmask16)k->lane[2], _mm_loadu_si128((const void *)(p + 2 * step)));
    return _mm512_mask_broadcast_i32x4(v, (__mmask16)k->lane[3], _mm_loadu_si128((const void *)(p + 3 * step)));
}

static inline int32_t zero_of(enum dtype t)
{
    return t == DTYPE_Q8_0 ? 128 : t == DTYPE_Q4_0 ? 8 : 0;
}

static inline void load_weights(__m512i w[2], const struct constants *k, const uint8_t *p, enum dtype t)
{
    if (t == DTYPE_Q8_0) {
        w[0] = _mm512_xor_si512(gather_lanes(k, p + 2, 34), k->flip);
        w[1] = _mm512_xor_si512(gather_lanes(k, p + 18, 34), k->flip);
    } else {
        __m512i v = gather_lanes(k, p + (t == DTYPE_Q4_0 ? 2 : 4), bytes_of(t));
        w[0] = _mm512_and_si512(v, k->low);
        w[1] = _mm512_and_si512(_mm512_srli_epi16(v, 4), k->low);
    }
}

/* The scales of a run of four rows, and the offsets of q4_1: lane 4 r + g holds row r's of group g. Those of 4-bit rows lie in the
 * first 64 bytes of a run, from where one permutation a row takes them: 9 or 10 words a block, the scale first. Those of q8_0 do
 * not, and are put together by what is no vector, since two permutations a row are no faster. */
static inline __attribute__((always_inline)) void load_scales(__m512 *d, __m512 *m, const struct constants *k,
                                                              const uint8_t *const p[4], enum dtype t)
{
    if (t == DTYPE_Q8_0) {
        uint64_t w[4];
        for (int r = 0; r < 4; r++) {
            uint16_t h[GROUPS];
            for (int g = 0; g < GROUPS; g++)
                memcpy(&h[g], p[r] + g * bytes_of(t), sizeof h[g]);
            w[r] = (h[0] | (uint32_t)h[1] << 16) | (uint64_t)(h[2] | (uint32_t)h[3] << 16) << 32;
        }
        __asm__("" : "+m"(w)); /* GCC would carry them to the vector one by one, by shuffles */
        *d = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)w));
        return;
    }
    __m512i v = _mm512_permutexvar_epi16(k->scales, _mm512_loadu_si512(p[0]));
#pragma GCC unroll 3
    for (int r = 1; r < 4; r++)
        v = _mm512_mask_permutexvar_epi16(v, k->lane[r], k->scales, _mm512_loadu_si512(p[r]));
    *d = _mm512_cvtph_ps(_mm512_castsi512_si256(v));
    if (t == DTYPE_Q4_1)
        *m = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(v, 1));
}

/* ---- the sums ---- */

/* v[r] = per lane, the sum of the products of `rows` rows' weights with x, from x->offset if `from_offset`. The three sums of a
 * row are apart until the end: a chain of all products would keep the processor waiting. */
static inline __attribute__((always_inline)) void multiply(__m512i *v, const __m512i (*w)[2], int rows, const struct run *x,
                                                           bool from_offset)
{
    __m512i s[BYTES][4];
#pragma GCC unroll 3
    for (int k = 0; k < BYTES; k++) {
        __m512i start = from_offset && k == BYTES - 1 ? _mm512_load_si512(x->offset) : _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            s[k][r] = _mm512_dpbusd_epi32(start, w[r][0], _mm512_load_si512(x->x[k][0]));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            s[k][r] = _mm512_dpbusd_epi32(s[k][r], w[r][1], _mm512_load_si512(x->x[k][1]));
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        v[r] = _mm512_add_epi32(_mm512_slli_epi32(_mm512_add_epi32(_mm512_slli_epi32(s[0][r], 8), s[1][r]), 8), s[2][r]);
}

/* Lane r of s, each of its four numbers in a lane of its own. */
static inline __m512 spread(__m512 s, int r)
{
    const __m512i first = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return _mm512_permutexvar_ps(_mm512_add_epi32(first, _mm512_set1_epi32(4 * r)), s);
}

/* A run of four rows. */
struct weights {
    __m512i w[4][2];
    __m512 d, m;
};

static inline __attribute__((always_inline)) void load_run(struct weights *w, const struct constants *k, const uint8_t *const p[4],
                                                           enum dtype t)
{
    w->m = _mm512_setzero_ps();
    load_scales(&w->d, &w->m, k, p, t);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++)
        load_weights(w->w[r], k, p[r], t);
}

/* acc[i][r] += the products of a run of row r and of the i-th x, which are `stride` runs apart. */
static inline __attribute__((always_inline)) void add_run(vf (*acc)[4], const struct weights *w, const struct run *x,
                                                          int64_t stride, int count, enum dtype t)
{
#pragma GCC unroll 3
    for (int i = 0; i < count; i++, x += stride) {
        __m512 unit = _mm512_broadcast_f32x4(_mm_load_ps(x->unit)), d = w->d * unit, m = w->m * unit;
        __m512i v[4];
        multiply(v, w->w, 4, x, t != DTYPE_Q4_1);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++)
            acc[i][r] += (vf)spread(d, r) * (vf)_mm512_cvtepi32_ps(v[r]);
        if (t == DTYPE_Q4_1)
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++)
                acc[i][r] += (vf)spread(m, r) * (vf)_mm512_cvtepi32_ps(_mm512_load_si512(x->offset));
    }
}

/* Four rows of `values`, and those that will be wanted after them. */
struct rows {
    const void *const *at, *const *next;
    int64_t values, runs; /* the last run may have fewer groups */
};

/* Run i of the rows; asks for what lies AHEAD, behind the rows' end in the next ones. A last run of fewer groups goes through
 * `room`, which is zero. */
static inline __attribute__((always_inline)) void take_run(struct weights *w, const struct constants *k, const struct rows *rows,
                                                           int64_t i, enum dtype t)
{
    const int64_t bytes = GROUPS * bytes_of(t), whole = rows->values / FIXED_RUN;
    const int64_t ahead = i + (whole * bytes < AHEAD ? whole : AHEAD / bytes);
    const void *const *from = ahead < whole ? rows->at : rows->next;
    const int64_t at = ahead < whole ? ahead : ahead - whole;
    const uint8_t *p[4];
    if (i == whole) {
        uint8_t room[4][GROUPS * 34] = {{0}};
        for (int r = 0; r < 4; r++)
            p[r] = memcpy(room[r], (const uint8_t *)rows->at[r] + i * bytes,
                          (size_t)(rows->values % FIXED_RUN / FIXED_GROUP * bytes_of(t)));
        load_run(w, k, p, t);
        return;
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        p[r] = (const uint8_t *)rows->at[r] + i * bytes;
        look_ahead((const uint8_t *)from[r] + at * bytes, bytes);
    }
    load_run(w, k, p, t);
}

/* dot4 for `count` vectors, a constant where this is inlined: their sums stay in registers. */
static inline __attribute__((always_inline)) void dot4_some(float *y, int64_t ldy, const struct rows *rows, const struct run *x,
                                                            int count, enum dtype t)
{
    const struct constants k = make_constants(t);
    vf acc[AT_ONCE][4];
    for (int i = 0; i < count; i++)
        for (int r = 0; r < 4; r++)
            acc[i][r] = splat(0);
    for (int64_t i = 0; i < rows->runs; i++) {
        struct weights w;
        take_run(&w, &k, rows, i, t);
        add_run(acc, &w, x + i, rows->runs, count, t);
    }
    for (int i = 0; i < count; i++)
        lanes_sum4(y + i * ldy, acc[i]);
}

/* Runs [first, first + n) of four rows. */
struct block {
    struct weights w[BLOCK];
    int64_t first, n;
};

/* acc += the products of a block and of `count` vectors, a constant where this is inlined; the first block starts the sums, and
 * the last one puts what they come to into y. */
static inline __attribute__((always_inline)) void add_block(float *y, int64_t ldy, vf (*acc)[4], const struct block *b,
                                                            const struct run *x, int64_t runs, int count, enum dtype t)
{
    vf s[AT_ONCE][4] = {{{0}}};
    if (b->first)
        memcpy(s, acc, (size_t)count * sizeof *s);
    for (int64_t i = 0; i < b->n; i++)
        add_run(s, &b->w[i], x + i, runs, count, t);
    if (b->first + b->n < runs)
        memcpy(acc, s, (size_t)count * sizeof *s);
    else
#pragma GCC unroll 3
        for (int q = 0; q < count; q++)
            lanes_sum4(y + q * ldy, s[q]);
}

/* dot4 for up to MANY vectors: a block of weights is unpacked once for all of them. */
static inline __attribute__((always_inline)) void dot4_blocks(float *y, int64_t ldy, const struct rows *rows, const struct run *x,
                                                              int64_t m, enum dtype t)
{
    const struct constants constants = make_constants(t);
    vf acc[MANY][4];
    struct block b;
    const int64_t runs = rows->runs;
    for (b.first = 0; b.first < runs; b.first += b.n) {
        b.n = runs - b.first < BLOCK ? runs - b.first : BLOCK;
        for (int64_t k = 0; k < b.n; k++)
            take_run(&b.w[k], &constants, rows, b.first + k, t);
        const struct run *v = x + b.first;
        for (int64_t q = 0, count; q < m; q += count, v += count * runs) {
            count = vectors_at_once(m - q, AT_ONCE);
            if (count == 3)
                add_block(y + q * ldy, ldy, acc + q, &b, v, runs, 3, t);
            else if (count == 2)
                add_block(y + q * ldy, ldy, acc + q, &b, v, runs, 2, t);
            else
                add_block(y + q * ldy, ldy, acc + q, &b, v, runs, 1, t);
        }
    }
}

static inline __attribute__((always_inline)) void dot4(float *y, int64_t ldy, const void *const at[4], const float *x, int64_t m,
                                                       int64_t n, const void *const next[4], enum dtype t)
{
    const struct rows rows = {at, next, n, fixed_floats(n) / FIXED_RUN};
    const struct run *v = (const void *)x;
    for (int64_t count; m > 0; m -= count, v += count * rows.runs, y += count * ldy) {
        count = m < MANY ? m : MANY;
        if (count == 1)
            dot4_some(y, ldy, &rows, v, 1, t);
        else if (count == 2)
            dot4_some(y, ldy, &rows, v, 2, t);
        else if (count == 3)
            dot4_some(y, ldy, &rows, v, 3, t);
        else
            dot4_blocks(y, ldy, &rows, v, count, t);
    }
}

#define DOT4(name, t)                                                                                                              \
    static void name(float *y, int64_t ldy, const void *const rows[4], const float *x, int64_t m, int64_t n,                       \
                     const void *const next[4])                                                                                    \
    {                                                                                                                              \
        dot4(y, ldy, rows, x, m, n, next, t);                                                                                      \
    }
DOT4(dot4_q8_0, DTYPE_Q8_0)
DOT4(dot4_q4_0, DTYPE_Q4_0)
DOT4(dot4_q4_1, DTYPE_Q4_1)

/* ---- x ---- */

/* Group g of a run. The lowest byte is taken as a signed one, and what is left is divisible by 256; and so on. */
static void fix_group(struct run *run, int g, const float *x)
{
    const __m512 half[2] = {(__m512)load(x), (__m512)load(x + VL)};
    const __m512 sizes = _mm512_max_ps(_mm512_abs_ps(half[0]), _mm512_abs_ps(half[1]));
    const __mmask16 odd = _mm512_fpclass_ps_mask(half[0], 0x99) | _mm512_fpclass_ps_mask(half[1], 0x99); /* NaN, infinity */
    const float most = _mm512_reduce_max_ps(sizes);
    const float inverse = !odd && most > 0x1p-100f ? FIXED_UNITS / most : 0;
    run->unit[g] = odd ? __builtin_nanf("") : most / FIXED_UNITS;
    for (int h = 0; h < 2; h++) {
        __m512i v = _mm512_cvtps_epi32(half[h] * _mm512_set1_ps(inverse));
        for (int k = BYTES - 1; k >= 0; k--) {
            __m128i low = _mm512_cvtepi32_epi8(v);
            _mm_store_si128((__m128i *)(run->x[k][h] + 16 * g), low);
            v = _mm512_srai_epi32(_mm512_sub_epi32(v, _mm512_cvtepi8_epi32(low)), 8);
        }
    }
}

static void fix(float *room, const float *x, int64_t n, enum dtype t)
{
    struct run *run = (void *)room;
    for (int64_t i = 0; i < n; i += FIXED_RUN, run++) {
        if (n - i < FIXED_RUN)
            memset(run, 0, sizeof *run);
        for (int g = 0; g < GROUPS && i + g * FIXED_GROUP < n; g++)
            fix_group(run, g, x + i + g * FIXED_GROUP);
        __m512i one[1][2] = {{_mm512_set1_epi8(1), _mm512_set1_epi8(1)}}, sum[1];
        multiply(sum, one, 1, run, false);
        if (t != DTYPE_Q4_1)
            sum[0] = _mm512_mullo_epi32(sum[0], _mm512_set1_epi32(-zero_of(t)));
        _mm512_store_si512(run->offset, sum[0]);
    }
}

const struct fixed_kernels fixed_avx512 = {
    .fix = fix,
    .dot4 = {[DTYPE_Q8_0] = dot4_q8_0, [DTYPE_Q4_0] = dot4_q4_0, [DTYPE_Q4_1] = dot4_q4_1},
};
