#include "eval/bench.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/base/progress.h"

enum { SIDE = 1536, ROW = 4096, READ_TASKS = 64, WAYS = 2 };
static const size_t READ_BYTES = (size_t)1 << 30;
static const double TRIED = 0.5, BESIDE = 0.05; /* seconds at once; of the time that passes */

struct tries {
    pool_fn *task;
    int64_t n_tasks;
    double work; /* operations or bytes of one try */
    double *rates;
    int64_t n, room;
};

struct limit {
    const struct compute *c;
    struct arena arena;
    float *a, *b, *out;       /* [threads][SIDE, SIDE] */
    const float *data, *ones; /* read: [READ_TASKS][per_task]; ones [ROW] */
    int64_t per_task;         /* floats, a multiple of 4 * ROW */
    float sums[READ_TASKS];
    struct tries ways[WAYS];
    int n_ways, turn;
    double tried_at; /* when the last try ended */
};

static void sgemm_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct limit *l = arg;
    int64_t n = (int64_t)SIDE * SIDE;
    gemm(l->c, l->out + task * n, SIDE, l->a + task * n, SIDE, l->b + task * n, SIDE, SIDE, SIDE, SIDE, 1, 0, GEMM_TRANS_B);
}

static void read_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct limit *l = arg;
    l->sums[task] = l->c->rows->max(l->data + task * l->per_task, l->per_task); /* touches every byte, keeps one result */
}

/* The same as a matrix of floats is read by products: four rows side by side, with what follows asked for ahead. */
static void read_rows_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct limit *l = arg;
    const float *p = l->data + task * l->per_task, *end = p + l->per_task, *next = p;
    float y[4];
    for (l->sums[task] = 0; p < end; p = next) {
        next = p + (int64_t)4 * ROW;
        const float *then = next < end ? next : p;
        l->c->rows->dot4[DTYPE_F32](y, 4, (const void *const[]){p, p + ROW, p + 2 * ROW, p + 3 * ROW}, l->ones, 1, ROW,
                                    (const void *const[]){then, then + ROW, then + 2 * ROW, then + 3 * ROW});
        l->sums[task] += y[0] + y[1] + y[2] + y[3];
    }
}

static int prepare_sgemm(struct limit *l, struct err *err)
{
    int64_t threads = pool_threads(l->c->pool), n = threads * SIDE * SIDE;
    l->a = arena_alloc(&l->arena, (size_t)n, sizeof(float), err);
    l->b = arena_alloc(&l->arena, (size_t)n, sizeof(float), err);
    l->out = arena_alloc(&l->arena, (size_t)n, sizeof(float), err);
    if (!l->a || !l->b || !l->out)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        l->a[i] = (float)(i % 7) - 3;
        l->b[i] = (float)(i % 5) - 2;
    }
    l->ways[l->n_ways++] =
        (struct tries){.task = sgemm_task, .n_tasks = threads, .work = 2.0 * SIDE * SIDE * SIDE * (double)threads};
    return 0;
}

static int prepare_reading(struct limit *l, struct err *err)
{
    size_t rows = READ_BYTES / sizeof(float) / READ_TASKS / (4 * ROW) * 4;
    float *ones = arena_alloc(&l->arena, ROW, sizeof *ones, err);
    l->data = arena_alloc(&l->arena, rows * READ_TASKS, ROW * sizeof(float), err);
    if (!ones || !l->data)
        return -1;
    for (int i = 0; i < ROW; i++)
        ones[i] = 1;
    l->ones = ones;
    l->per_task = (int64_t)rows * ROW;
    double bytes = (double)l->per_task * READ_TASKS * sizeof(float);
    l->ways[l->n_ways++] = (struct tries){.task = read_task, .n_tasks = READ_TASKS, .work = bytes};
    l->ways[l->n_ways++] = (struct tries){.task = read_rows_task, .n_tasks = READ_TASKS, .work = bytes};
    return 0;
}

struct limit *limit_open(enum limit_kind kind, const struct compute *c, struct err *err)
{
    struct limit *l = mem_alloc(1, sizeof *l, err);
    if (!l)
        return NULL;
    *l = (struct limit){.c = c};
    if ((kind == LIMIT_SGEMM ? prepare_sgemm : prepare_reading)(l, err) == 0)
        return l;
    limit_close(l);
    return NULL;
}

void limit_close(struct limit *l)
{
    if (!l)
        return;
    for (int w = 0; w < l->n_ways; w++)
        free(l->ways[w].rates);
    arena_free(&l->arena);
    free(l);
}

static void try_once(struct limit *l)
{
    struct tries *t = &l->ways[l->turn++ % l->n_ways];
    double start = clock_seconds();
    pool_run(l->c->pool, t->task, l, t->n_tasks);
    l->tried_at = clock_seconds();
    if (t->n == t->room) {
        int64_t room = t->room ? 2 * t->room : 64;
        double *rates = realloc(t->rates, (size_t)room * sizeof *rates);
        if (!rates)
            return; /* one try fewer */
        t->rates = rates;
        t->room = room;
    }
    t->rates[t->n++] = t->work / (l->tried_at - start);
}

static void try_for(struct limit *l, double seconds)
{
    double start = clock_seconds();
    do
        try_once(l);
    while (l->tried_at - start < seconds);
}

void limit_try(struct limit *l)
{
    try_for(l, TRIED);
}

void limit_try_beside(void *limit)
{
    enum { LEAST_PAUSE = 1 };
    struct limit *l = limit;
    double passed = clock_seconds() - l->tried_at;
    if (passed >= LEAST_PAUSE)
        try_for(l, BESIDE * passed);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* In the faster way, the try that `part` of all are slower than. */
static double quantile(struct limit *l, double part)
{
    double most = 0;
    for (int w = 0; w < l->n_ways; w++) {
        struct tries *t = &l->ways[w];
        if (t->n == 0)
            continue;
        qsort(t->rates, (size_t)t->n, sizeof *t->rates, ascending);
        double rate = t->rates[(int64_t)(part * (double)(t->n - 1))];
        most = rate > most ? rate : most;
    }
    return most;
}

double limit_median(struct limit *l)
{
    return quantile(l, 0.5);
}

double limit_best(struct limit *l)
{
    return quantile(l, 1);
}

/* ---- the disk ---- */

enum { PIECE = 8 << 20 };

static int write_random(const char *path, size_t bytes, uint8_t *piece, struct err *err)
{
    struct file_writer w;
    if (file_writer_open(&w, path, err) != 0)
        return -1;
    for (uint32_t i = 0; i < PIECE; i++)
        piece[i] = (uint8_t)((i * 2654435761u) >> 24); /* nothing that a disk could shorten */
    int rc = 0;
    for (size_t left = bytes; left > 0 && rc == 0; left -= left < PIECE ? left : PIECE)
        rc = file_writer_put(&w, piece, left < PIECE ? left : PIECE, err);
    if (rc == 0)
        return file_writer_commit(&w, err);
    file_writer_abort(&w);
    return -1;
}

/* The system reads ahead of us and writes behind us, so that both go on at once. */
static int copy_file(const char *from, const char *to, uint8_t *piece, struct err *err)
{
    struct file_writer w;
    ssize_t n;
    int rc = 0, fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "%s: cannot read", from);
    if (file_writer_open(&w, to, err) != 0) {
        close(fd);
        return -1;
    }
    while (rc == 0 && (n = read(fd, piece, PIECE)) != 0)
        rc = n > 0 ? file_writer_put(&w, piece, (size_t)n, err) : err_errno(err, "%s: cannot read", from);
    close(fd);
    if (rc == 0)
        return file_writer_commit(&w, err);
    file_writer_abort(&w);
    return -1;
}

double bench_copy_rate(const char *dir, size_t bytes, struct err *err)
{
    double rate = 0;
    uint8_t *piece = mem_alloc(PIECE, 1, err);
    char *from = path_join(dir, "copy-rate-from", err), *to = path_join(dir, "copy-rate-to", err);
    if (piece && from && to && write_random(from, bytes, piece, err) == 0) {
        file_forget(from);
        double start = clock_seconds();
        if (copy_file(from, to, piece, err) == 0)
            rate = (double)bytes / (clock_seconds() - start);
    }
    if (from)
        unlink(from);
    if (to)
        unlink(to);
    free(from);
    free(to);
    free(piece);
    return rate;
}
