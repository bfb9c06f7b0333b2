/* The thread pool: every task once, worker numbers that are never shared, jobs in quick succession. */
#include "tests/tiny_model.h"

#include <stdatomic.h>
#include <time.h>

#include "core/base/pool.h"

enum { MAX_WORKERS = 8, N_TASKS = 3000 };

struct job {
    atomic_int done[N_TASKS];
    atomic_int inside[MAX_WORKERS]; /* tasks that run under this worker number */
    atomic_int wrong;
    int n_threads, spin;
};

static void task(void *arg, int64_t t, int worker)
{
    struct job *j = arg;
    if (worker < 0 || worker >= j->n_threads || t < 0 || t >= N_TASKS) {
        atomic_fetch_add(&j->wrong, 1);
        return;
    }
    if (atomic_fetch_add(&j->inside[worker], 1) != 0)
        atomic_fetch_add(&j->wrong, 1);
    for (volatile int i = 0; i < j->spin * (int)(t % 7); i++)
        ;
    atomic_fetch_add(&j->done[t], 1);
    atomic_fetch_sub(&j->inside[worker], 1);
}

static void run(struct pool *p, struct job *j, int64_t n)
{
    for (int i = 0; i < N_TASKS; i++)
        atomic_store(&j->done[i], 0);
    pool_run(p, task, j, n);
    for (int i = 0; i < N_TASKS; i++)
        if (atomic_load(&j->done[i]) != (i < n))
            fail_msg("%d threads, %lld tasks: task %d ran %d times", j->n_threads, (long long)n, i, atomic_load(&j->done[i]));
    assert_int_equal(atomic_load(&j->wrong), 0);
}

static void every_task_once(void **state)
{
    (void)state;
    static struct job j;
    for (j.n_threads = 1; j.n_threads <= MAX_WORKERS; j.n_threads++) {
        struct pool *p;
        OK(pool_create(&p, j.n_threads, &err));
        assert_int_equal(pool_threads(p), j.n_threads);
        static const int64_t counts[] = {0, 1, 2, 3, 7, 8, 9, 64, N_TASKS};
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            j.spin = i % 2 ? 100 : 0;
            run(p, &j, counts[i]);
        }
        pool_free(p);
    }
}

static void many_small_jobs(void **state)
{
    (void)state;
    static struct job j;
    struct pool *p;
    j.n_threads = 3;
    OK(pool_create(&p, 3, &err));
    for (int i = 0; i < 5000; i++) {
        pool_run(p, task, &j, 4);
        if (i % 500 == 0) { /* long enough for the threads to fall asleep */
            nanosleep(&(struct timespec){0, 2000000}, NULL);
        }
    }
    for (int t = 0; t < 4; t++)
        assert_int_equal(atomic_load(&j.done[t]), 5000);
    assert_int_equal(atomic_load(&j.wrong), 0);
    pool_free(p);
}

static void write_square(void *arg, int64_t t, int worker)
{
    (void)worker;
    ((int64_t *)arg)[t] = t * t; /* plain memory: pool_run must publish it */
}

static void results_are_seen_by_the_caller(void **state)
{
    (void)state;
    struct pool *p;
    OK(pool_create(&p, 4, &err));
    for (int round = 0; round < 200; round++) {
        int64_t v[100];
        memset(v, 0xff, sizeof v);
        pool_run(p, write_square, v, 100);
        for (int64_t i = 0; i < 100; i++)
            assert_int_equal(v[i], i * i);
    }
    pool_free(p);
}

struct pair {
    atomic_int started, done;
};

/* The caller's task ends as soon as the other one has begun; that one takes its time. */
static void slow_elsewhere(void *arg, int64_t t, int worker)
{
    struct pair *p = arg;
    (void)t;
    atomic_fetch_add(&p->started, 1);
    for (int i = 0; atomic_load(&p->started) < 2 && i < 2000; i++)
        nanosleep(&(struct timespec){0, 100000}, NULL);
    if (worker != 0)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    atomic_fetch_add(&p->done, 1);
}

static void the_slowest_is_waited_for(void **state)
{
    (void)state;
    struct pool *p;
    OK(pool_create(&p, 2, &err));
    for (int round = 0; round < 10; round++) {
        struct pair pair = {0, 0};
        pool_run(p, slow_elsewhere, &pair, 2);
        assert_int_equal(atomic_load(&pair.done), 2);
    }
    pool_free(p);
}

static void limits(void **state)
{
    (void)state;
    struct pool *p;
    struct err err = {0};
    expect_error(pool_create(&p, 100000, &err), &err, "100000");
    assert_null(p);
    pool_free(NULL);
    for (int i = 0; i < 50; i++) { /* ended before any work */
        OK(pool_create(&p, 4, &err));
        pool_free(p);
    }
    OK(pool_create(&p, 0, &err));
    assert_true(pool_threads(p) >= 1);
    pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_once),
        cmocka_unit_test(many_small_jobs),
        cmocka_unit_test(results_are_seen_by_the_caller),
        cmocka_unit_test(the_slowest_is_waited_for),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
