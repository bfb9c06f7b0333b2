/* Python's random module: MT19937 (Matsumoto and Nishimura, 1998), seeded and drawn from as CPython does it, so that a seed
 * picks the same samples here as in the published scripts. */
#ifndef ESPALIER_BASE_RNG_H
#define ESPALIER_BASE_RNG_H

#include <stdint.h>

struct rng {
    uint32_t state[624];
    int at;
};

void rng_seed(struct rng *r, uint64_t seed);            /* random.seed(seed) */
uint32_t rng_u32(struct rng *r);                        /* random.getrandbits(32) */
double rng_double(struct rng *r);                       /* random.random(): [0, 1) in steps of 2^-53 */
int64_t rng_below(struct rng *r, int64_t n);            /* random.randrange(n); random.randint(a, b) is a + rng_below(b - a + 1) */
void rng_shuffle(struct rng *r, int64_t *v, int64_t n); /* random.shuffle(v) */

#endif
