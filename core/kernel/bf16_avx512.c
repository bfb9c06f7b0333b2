/* Products of bf16 by the dot-product instruction of AVX-512-BF16: two products a lane, added to a float32. */
#define VL 16

enum { MR = 12, NV = 2, NR = NV * VL };

#include "core/kernel/gemm_bf16.inc"

static void tile(float *C, int64_t ldc, const void *packed_a, const void *packed_b, int64_t k, int64_t m, int64_t n,
                 bool accumulate)
{
    const uint32_t *a = packed_a, *b = packed_b;
    vf c[MR][NV] = {{{0}}};
    for (int64_t p = 0; p < k; p += RUN, a += MR * PAIRS)
        for (int64_t q = 0; q < PAIRS; q++, b += NR) {
            __m512bh v[NV];
            memcpy(v, b, sizeof v);
#pragma GCC unroll 16
            for (int i = 0; i < MR; i++) {
                __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[i * PAIRS + q]);
#pragma GCC unroll 4
                for (int j = 0; j < NV; j++)
                    c[i][j] = (vf)_mm512_dpbf16_ps((__m512)c[i][j], x, v[j]);
            }
        }
    put_tile(C, ldc, c[0], MR, NV, m, n, accumulate);
}

static void strip(float *C, int64_t ldc, const void *a, const void *b, int64_t k, int64_t m, int64_t n, bool accumulate)
{
    for (int64_t i = 0; i < m; i += MR)
        tile(C + i * ldc, ldc, (const uint16_t *)a + i * k, b, k, m - i < MR ? m - i : MR, n, accumulate);
}

const struct gemm_kernels bf16_avx512 = {
    .name = "bf16 (avx512_bf16)",
    .mr = MR,
    .nr = NR,
    .unit_k = RUN,
    .max_k = 1024,
    .max_m = 168,
    .a_bytes = 2,
    .b_bytes = 2,
    .strip = strip,
    .pack_a = pack_a,
    .pack_b = pack_b,
    .pack_a_turned = pack_a_turned,
    .pack_b_turned = pack_b_turned,
};
