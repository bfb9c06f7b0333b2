#include "core/base/rng.h"

enum { N = 624, M = 397 };

static void init_genrand(struct rng *r, uint32_t s)
{
    r->state[0] = s;
    for (uint32_t i = 1; i < N; i++)
        r->state[i] = 1812433253u * (r->state[i - 1] ^ r->state[i - 1] >> 30) + i;
    r->at = N;
}

/* init_by_array of the reference implementation over the seed's 32-bit digits, lowest first. */
void rng_seed(struct rng *r, uint64_t seed)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t n_key = key[1] ? 2 : 1, i = 1, j = 0;
    init_genrand(r, 19650218u);
    for (int k = N; k > 0; k--) {
        r->state[i] = (r->state[i] ^ (r->state[i - 1] ^ r->state[i - 1] >> 30) * 1664525u) + key[j] + j;
        if (++i >= N) {
            r->state[0] = r->state[N - 1];
            i = 1;
        }
        j = (j + 1) % n_key;
    }
    for (int k = N - 1; k > 0; k--) {
        r->state[i] = (r->state[i] ^ (r->state[i - 1] ^ r->state[i - 1] >> 30) * 1566083941u) - i;
        if (++i >= N) {
            r->state[0] = r->state[N - 1];
            i = 1;
        }
    }
    r->state[0] = 0x80000000u;
}

uint32_t rng_u32(struct rng *r)
{
    if (r->at >= N) {
        for (int i = 0; i < N; i++) {
            uint32_t y = (r->state[i] & 0x80000000u) | (r->state[(i + 1) % N] & 0x7fffffffu);
            r->state[i] = r->state[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        r->at = 0;
    }
    uint32_t y = r->state[r->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

double rng_double(struct rng *r)
{
    uint32_t a = rng_u32(r) >> 5, b = rng_u32(r) >> 6;
    return (a * 67108864.0 + b) / 9007199254740992.0;
}

/* As many random bits as n has, drawn again until below n. */
int64_t rng_below(struct rng *r, int64_t n)
{
    int bits = 64 - __builtin_clzll((unsigned long long)n);
    for (;;) {
        uint64_t v;
        if (bits <= 32) {
            v = rng_u32(r) >> (32 - bits);
        } else {
            v = rng_u32(r);
            v |= (uint64_t)(rng_u32(r) >> (64 - bits)) << 32;
        }
        if (v < (uint64_t)n)
            return (int64_t)v;
    }
}

void rng_shuffle(struct rng *r, int64_t *v, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = rng_below(r, i + 1), t = v[i];
        v[i] = v[j];
        v[j] = t;
    }
}
