#include "core/base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__x86_64__)
#define cpu_relax() __builtin_ia32_pause()
#else
#define cpu_relax() ((void)0)
#endif

/* A decode step forks several hundred times a second with gaps of a few microseconds: spin through such a gap before sleeping. */
enum { SPINS_BEFORE_SLEEP = 4000, SPINS_BEFORE_YIELD = 2000, MAX_THREADS = 256 };

struct pool {
    int n_threads;
    int n_started; /* threads beside the caller */
    pthread_t *threads;

    /* the current job; written before `generation` is advanced */
    pool_fn *fn;
    void *arg;
    int64_t n_tasks;

    _Alignas(64) atomic_uint generation;
    _Alignas(64) atomic_llong next;
    _Alignas(64) atomic_int busy; /* threads that have not finished the current job */

    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int sleepers;
    atomic_bool stop;
};

struct start {
    struct pool *pool;
    int worker;
};

static void work(struct pool *p, int worker)
{
    for (;;) {
        long long task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= p->n_tasks)
            return;
        p->fn(p->arg, task, worker);
    }
}

static void wait_for_job(struct pool *p, unsigned seen)
{
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (atomic_load_explicit(&p->generation, memory_order_acquire) != seen)
            return;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->generation) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg)
{
    struct start s = *(struct start *)arg;
    free(arg);
    for (unsigned seen = 0;; seen++) {
        wait_for_job(s.pool, seen);
        if (atomic_load(&s.pool->stop))
            return NULL;
        work(s.pool, s.worker);
        atomic_fetch_sub_explicit(&s.pool->busy, 1, memory_order_release);
    }
}

static void publish(struct pool *p)
{
    atomic_fetch_add(&p->generation, 1); /* seq_cst: ordered against the load of sleepers below */
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

void pool_run(struct pool *p, pool_fn *fn, void *arg, int64_t n_tasks)
{
    if (p->n_started == 0 || n_tasks <= 1) {
        for (int64_t i = 0; i < n_tasks; i++)
            fn(arg, i, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n_tasks = n_tasks;
    atomic_store(&p->next, 0);
    atomic_store(&p->busy, p->n_started);
    publish(p);
    work(p, 0);
    for (int i = 0; atomic_load_explicit(&p->busy, memory_order_acquire) > 0; i++) {
        if (i < SPINS_BEFORE_YIELD)
            cpu_relax();
        else
            sched_yield();
    }
}

static int processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

int pool_create(struct pool **out, int n_threads, struct err *err)
{
    *out = NULL;
    if (n_threads <= 0)
        n_threads = processors();
    if (n_threads > MAX_THREADS)
        return err_usage(err, "%d threads asked for, %d at most", n_threads, MAX_THREADS);
    struct pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p)
        return err_set(err, "out of memory");
    *p = (struct pool){.n_threads = n_threads};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->threads = calloc((size_t)n_threads, sizeof *p->threads);
    for (int i = 1; p->threads && i < n_threads; i++) {
        struct start *s = malloc(sizeof *s);
        if (s)
            *s = (struct start){p, i};
        if (!s || pthread_create(&p->threads[p->n_started], NULL, worker_main, s) != 0) {
            free(s);
            pool_free(p);
            return err_set(err, "cannot start %d threads", n_threads);
        }
        p->n_started++;
    }
    *out = p;
    return 0;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    publish(p);
    for (int i = 0; i < p->n_started; i++)
        pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p->threads);
    free(p);
}

int pool_threads(const struct pool *p)
{
    return p->n_threads;
}
