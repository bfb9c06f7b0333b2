/* The generator against CPython 3's random module; the constants were printed by it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/rng.h"

static const struct {
    uint64_t seed;
    double random[3];     /* random.random() */
    uint32_t bits[3];     /* random.getrandbits(32) */
    int64_t digits[6];    /* random.randint(0, 9) */
    int64_t hundreds[4];  /* random.randint(5, 1000) */
    int64_t wide[3];      /* random.randint(0, 2**33): two words a draw */
    int64_t shuffled[10]; /* random.shuffle(list(range(10))) */
    uint32_t late;        /* the 2000th getrandbits(32): past three refills of the state */
} known[] = {
    {0u,
     {0x1.b0580f98a7dbep-1, 0x1.84129978f9c1ap-1, 0x1.aeaa51052e978p-2},
     {3626764237u, 1654615998u, 3255389356u},
     {6, 6, 0, 4, 8, 7},
     {869, 399, 781, 916},
     {7921731533, 1806341205, 6490875490},
     {7, 8, 1, 5, 3, 4, 2, 0, 9, 6},
     3908016617u},
    {1u,
     {0x1.132d8f91b7584p-3, 0x1.b1e2d5b3584f8p-1, 0x1.870d778409f13p-1},
     {577090037u, 2444712010u, 3639700191u},
     {2, 9, 1, 4, 1, 7},
     {142, 587, 872, 826},
     {3280387012, 1095513148, 6225516707},
     {6, 8, 9, 7, 5, 3, 0, 4, 1, 2},
     1058062369u},
    {42u,
     {0x1.4762f307200c5p-1, 0x1.99c6b5eeb2060p-6, 0x1.19a1491f589dcp-2},
     {2746317213u, 478163327u, 107420369u},
     {1, 0, 4, 3, 3, 2},
     {659, 119, 30, 764},
     {2746317213, 1181241943, 958682846},
     {7, 3, 2, 8, 5, 6, 9, 4, 0, 1},
     1557724698u},
    {1234u,
     {0x1.eed2ff71cd77dp-1, 0x1.c34f680ef4f52p-2, 0x1.eaf602e68d680p-8},
     {4150886329u, 3342196574u, 1892932127u},
     {7, 1, 0, 1, 9, 0},
     {994, 801, 456, 124},
     {1892932127, 32175636, 2500648409},
     {2, 8, 3, 5, 6, 4, 9, 0, 1, 7},
     881902874u},
    {1099511627783u,
     {0x1.3a3761afd4291p-1, 0x1.a13cb57c0715ap-1, 0x1.e3d88c68edf49p-1},
     {2635837658u, 3209733218u, 3500038837u},
     {9, 9, 7, 4, 9, 2},
     {633, 770, 839, 965},
     {6339045738, 7386341067, 5983660769},
     {0, 5, 2, 3, 6, 1, 8, 4, 7, 9},
     1220598206u},
};
enum { N_KNOWN = sizeof known / sizeof *known };

static void words_and_reals(void **state)
{
    (void)state;
    for (int k = 0; k < N_KNOWN; k++) {
        struct rng r;
        rng_seed(&r, known[k].seed);
        for (int i = 0; i < 3; i++)
            assert_true(rng_double(&r) == known[k].random[i]);
        rng_seed(&r, known[k].seed);
        for (int i = 0; i < 3; i++)
            assert_int_equal(rng_u32(&r), known[k].bits[i]);
        for (int i = 3; i < 1999; i++)
            rng_u32(&r);
        assert_int_equal(rng_u32(&r), known[k].late);
    }
}

static void below(void **state)
{
    (void)state;
    for (int k = 0; k < N_KNOWN; k++) {
        struct rng r;
        rng_seed(&r, known[k].seed);
        for (int i = 0; i < 6; i++)
            assert_int_equal(rng_below(&r, 10), known[k].digits[i]);
        rng_seed(&r, known[k].seed);
        for (int i = 0; i < 4; i++)
            assert_int_equal(5 + rng_below(&r, 996), known[k].hundreds[i]);
        rng_seed(&r, known[k].seed);
        for (int i = 0; i < 3; i++)
            assert_int_equal(rng_below(&r, ((int64_t)1 << 33) + 1), known[k].wide[i]);
    }
}

static void extremes(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 3);
    assert_int_equal(rng_below(&r, 1), 0);
    for (int i = 0; i < 1000; i++) {
        int64_t v = rng_below(&r, INT64_MAX);
        assert_true(v >= 0 && v < INT64_MAX);
        double d = rng_double(&r);
        assert_true(d >= 0 && d < 1);
    }
}

static void shuffle(void **state)
{
    (void)state;
    for (int k = 0; k < N_KNOWN; k++) {
        struct rng r;
        int64_t v[10];
        for (int i = 0; i < 10; i++)
            v[i] = i;
        rng_seed(&r, known[k].seed);
        rng_shuffle(&r, v, 10);
        for (int i = 0; i < 10; i++)
            assert_int_equal(v[i], known[k].shuffled[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_and_reals),
        cmocka_unit_test(below),
        cmocka_unit_test(extremes),
        cmocka_unit_test(shuffle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
