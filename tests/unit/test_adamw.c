/* AdamW against the formula of torch.optim.AdamW (weight_decay 0) in double, and transformers' linear schedule with warm-up. */
#include "tests/tiny_model.h"

#include <math.h>

#include "train/adamw.h"

enum { N = 10000, STEPS = 25 };

static float gradient(int i, int step)
{
    uint64_t s = (uint64_t)i * 2654435761u + (uint64_t)step * 40503u + 1;
    tiny_random(&s);
    return tiny_random(&s) * (i % 7 == 0 ? 1e-6f : i % 11 == 0 ? 100.0f : 1.0f);
}

static void steps_follow_torch(void **state)
{
    (void)state;
    static float p[N], g[N], m[N], v[N];
    static double P[N], M[N], V[N];
    struct pool *pool;
    struct adamw o = {0.9, 0.999, 1e-8, m, v, N, 0};
    OK(pool_create(&pool, 2, &err));
    for (int i = 0; i < N; i++)
        P[i] = (double)(p[i] = gradient(i, 99));
    for (int t = 1; t <= STEPS; t++) {
        double lr = 1e-3 * t, clip = t % 3 ? 1 : 0.25;
        for (int i = 0; i < N; i++) {
            g[i] = gradient(i, t);
            double d = (double)g[i] * clip;
            M[i] = 0.9 * M[i] + 0.1 * d;
            V[i] = 0.999 * V[i] + 0.001 * d * d;
            P[i] -= lr * (M[i] / (1 - pow(0.9, t))) / (sqrt(V[i]) / sqrt(1 - pow(0.999, t)) + 1e-8);
        }
        adamw_step(&o, pool, p, g, lr, clip);
        assert_int_equal(o.t, t);
    }
    /* a step is at most lr; each of 25 steps rounds p to float (6e-8 of at most 100) and its own size by some 1e-6 */
    for (int i = 0; i < N; i++)
        if (!(fabs((double)p[i] - P[i]) <= 25 * (6e-8 * fabs(P[i]) + 0.025 * 2e-6)))
            fail_msg("parameter %d: %.9g, expected %.9g", i, (double)p[i], P[i]);
    assert_true(g[5] == gradient(5, STEPS)); /* the gradient is left alone */
    pool_free(pool);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    static float p[2][N], g[N], m[2][N], v[2][N];
    double norm[2], partial[N / 4096 + 1];
    for (int k = 0; k < 2; k++) {
        struct pool *pool;
        struct adamw o = {0.9, 0.999, 1e-8, m[k], v[k], N, 0};
        OK(pool_create(&pool, k ? 5 : 1, &err));
        for (int t = 1; t <= 3; t++) {
            for (int i = 0; i < N; i++)
                g[i] = gradient(i, t);
            norm[k] = gradient_norm(pool, partial, g, N);
            adamw_step(&o, pool, p[k], g, 1e-2, 1 / norm[k]);
        }
        pool_free(pool);
    }
    assert_true(norm[0] == norm[1]);
    assert_memory_equal(p[0], p[1], sizeof p[0]);
}

static void norms(void **state)
{
    (void)state;
    static float g[N];
    double partial[N / 4096 + 1], sum = 0;
    struct pool *pool;
    OK(pool_create(&pool, 2, &err));
    for (int i = 0; i < N; i++) {
        g[i] = gradient(i, 1);
        sum += (double)g[i] * (double)g[i];
    }
    double got = gradient_norm(pool, partial, g, N);
    assert_true(fabs(got - sqrt(sum)) <= 1e-12 * got); /* sums of doubles in another order */
    assert_true(gradient_norm(pool, partial, g, 0) == 0);
    g[0] = 3;
    g[1] = 4;
    assert_true(gradient_norm(pool, partial, g, 2) == 5);
    g[1] = NAN;
    assert_true(isnan(gradient_norm(pool, partial, g, 2)));
    pool_free(pool);
}

static void schedule(void **state)
{
    (void)state;
    /* transformers.get_linear_schedule_with_warmup: s / max(1, warmup) below warmup, else max(0, (total - s) / max(1, total -
     * warmup)) */
    static const struct {
        int64_t s, warmup, total;
        double factor;
    } cases[] = {
        {0, 100, 1000, 0},     {1, 100, 1000, 0.01},        {50, 100, 1000, 0.5}, {99, 100, 1000, 0.99}, {100, 100, 1000, 1},
        {550, 100, 1000, 0.5}, {999, 100, 1000, 1.0 / 900}, {1000, 100, 1000, 0}, {1500, 100, 1000, 0},  {0, 0, 10, 1},
        {5, 0, 10, 0.5},       {3, 100, 10, 0.03},          {0, 1, 1, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double got = linear_schedule(1e-4, cases[i].s, cases[i].warmup, cases[i].total);
        if (!(fabs(got - 1e-4 * cases[i].factor) <= 1e-18)) /* a rounding */
            fail_msg("step %lld of %lld: %g", (long long)cases[i].s, (long long)cases[i].total, got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_follow_torch),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(norms),
        cmocka_unit_test(schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
