#include "eval/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/base/progress.h"

enum { TRIES = 10, SIDE = 1536, ROW = 4096 };

struct job {
    const struct compute *c;
    float *a, *b, *out;       /* [threads][SIDE, SIDE] */
    const float *data, *ones; /* ones [ROW] */
    int64_t per_task;         /* floats, a multiple of 4 * ROW */
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

/* The same as a matrix of floats is read by products: four rows side by side, with what follows asked for ahead. */
static void read_rows_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct job *j = arg;
    const float *p = j->data + task * j->per_task, *end = p + j->per_task, *next = p;
    float y[4];
    for (j->sums[task] = 0; p < end; p = next) {
        next = p + (int64_t)4 * ROW;
        const float *then = next < end ? next : p;
        j->c->rows->dot4[DTYPE_F32](y, 4, (const void *const[]){p, p + ROW, p + 2 * ROW, p + 3 * ROW}, j->ones, 1, ROW,
                                    (const void *const[]){then, then + ROW, then + 2 * ROW, then + 3 * ROW});
        j->sums[task] += y[0] + y[1] + y[2] + y[3];
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* What is held against this goes on for many seconds, in which other tenants of the machine take their part: the median of the
 * tries, then, not their best. */
double bench_read_bandwidth(const struct compute *c, size_t bytes, struct err *err)
{
    enum { TASKS = 64, WAYS = 2 };
    static pool_fn *const ways[WAYS] = {read_task, read_rows_task};
    double rates[WAYS][TRIES] = {{0}};
    float sums[TASKS];
    struct arena arena = {0};
    size_t rows = bytes / sizeof(float) / TASKS / (4 * ROW) * 4;
    float *data = arena_alloc(&arena, rows * TASKS, ROW * sizeof(float), err), *ones = arena_alloc(&arena, ROW, sizeof(float), err);
    struct job j = {.c = c, .data = data, .ones = ones, .per_task = (int64_t)rows * ROW, .sums = sums};
    for (int i = 0; ones && i < ROW; i++)
        ones[i] = 1;
    for (int k = 0; data && ones && k < WAYS * TRIES; k++) {
        double start = clock_seconds();
        pool_run(c->pool, ways[k % WAYS], &j, TASKS);
        rates[k % WAYS][k / WAYS] = (double)j.per_task * TASKS * sizeof(float) / (clock_seconds() - start);
    }
    arena_free(&arena);
    for (int w = 0; w < WAYS; w++)
        qsort(rates[w], TRIES, sizeof(double), ascending);
    return rates[0][TRIES / 2] > rates[1][TRIES / 2] ? rates[0][TRIES / 2] : rates[1][TRIES / 2];
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
