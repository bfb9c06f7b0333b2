#include "eval/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/base/progress.h"

enum { TRIES = 10, SIDE = 1536 };

struct job {
    const struct compute *c;
    float *a, *b, *out; /* [threads][SIDE, SIDE] */
    const float *data;
    int64_t per_task; /* floats */
    float *sums;
};

static void sgemm_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct job *j = arg;
    int64_t n = (int64_t)SIDE * SIDE;
    gemm(j->c, j->out + task * n, SIDE, j->a + task * n, SIDE, j->b + task * n, SIDE, SIDE, SIDE, SIDE, 1, 0, GEMM_TRANS_B);
}

double bench_sgemm_peak(const struct compute *c, struct err *err)
{
    int64_t threads = pool_threads(c->pool), n = threads * SIDE * SIDE;
    struct arena arena = {0};
    double best = 0;
    struct job j = {.c = c,
                    .a = arena_alloc(&arena, (size_t)n, sizeof(float), err),
                    .b = arena_alloc(&arena, (size_t)n, sizeof(float), err),
                    .out = arena_alloc(&arena, (size_t)n, sizeof(float), err)};
    for (int64_t i = 0; j.a && j.b && i < n; i++) {
        j.a[i] = (float)(i % 7) - 3;
        j.b[i] = (float)(i % 5) - 2;
    }
    for (int k = 0; j.a && j.b && j.out && k < TRIES; k++) {
        double start = clock_seconds();
        pool_run(c->pool, sgemm_task, &j, threads);
        double rate = 2.0 * SIDE * SIDE * SIDE * (double)threads / (clock_seconds() - start);
        best = rate > best ? rate : best;
    }
    arena_free(&arena);
    return best;
}

static void read_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct job *j = arg;
    j->sums[task] = j->c->rows->max(j->data + task * j->per_task, j->per_task); /* touches every byte, keeps one result */
}

double bench_read_bandwidth(const struct compute *c, size_t bytes, struct err *err)
{
    enum { TASKS = 64 };
    float sums[TASKS];
    struct job j = {.c = c, .per_task = (int64_t)(bytes / sizeof(float) / TASKS), .sums = sums};
    float *data = mem_alloc((size_t)j.per_task * TASKS, sizeof(float), err);
    double best = 0;
    j.data = data;
    for (int k = 0; data && k < TRIES; k++) {
        double start = clock_seconds();
        pool_run(c->pool, read_task, &j, TASKS);
        double rate = (double)j.per_task * TASKS * sizeof(float) / (clock_seconds() - start);
        best = rate > best ? rate : best;
    }
    free(data);
    return best;
}

double bench_write_rate(const char *dir, size_t bytes, struct err *err)
{
    enum { PIECE = 8 << 20 };
    struct file_writer w;
    uint32_t *data = mem_alloc(PIECE, 1, err);
    char *path = path_join(dir, "write-rate", err);
    double start = clock_seconds(), rate = 0;
    if (!data || !path || file_writer_open(&w, path, err) != 0)
        goto done;
    for (uint32_t i = 0; i < PIECE / sizeof *data; i++)
        data[i] = i * 2654435761u; /* nothing that a disk could shorten */
    int rc = 0;
    size_t left = bytes;
    for (; left > 0 && rc == 0; left -= left < PIECE ? left : PIECE)
        rc = file_writer_put(&w, data, left < PIECE ? left : PIECE, err);
    if (rc != 0)
        file_writer_abort(&w);
    else if (file_writer_commit(&w, err) == 0)
        rate = (double)bytes / (clock_seconds() - start);
    unlink(path);
done:
    free(data);
    free(path);
    return rate;
}
