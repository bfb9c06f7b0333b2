/* RMSNorm over rows (Zhang and Sennrich, arXiv 1910.07467), and its derivatives. */
#include "core/nn/block.h"
#include "core/nn/tile.h"

enum { ROWS_PER_TASK = 16, COLUMNS_PER_TASK = 64 };

struct norm_job {
    const struct compute *c;
    float *y, *r_out;
    const float *dy, *x, *w, *r;
    float eps;
    int64_t rows, dim;
};

static void norm_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct norm_job *j = arg;
    int64_t end = min_i64((task + 1) * ROWS_PER_TASK, j->rows);
    for (int64_t i = task * ROWS_PER_TASK; i < end; i++) {
        float r = j->c->rows->rmsnorm(j->y + i * j->dim, j->x + i * j->dim, j->w, j->eps, j->dim);
        if (j->r_out)
            j->r_out[i] = r;
    }
}

void norm_forward(const struct compute *c, float *y, float *r, const float *x, const float *w, float eps, int64_t rows, int64_t dim)
{
    struct norm_job j = {.c = c, .y = y, .r_out = r, .x = x, .w = w, .eps = eps, .rows = rows, .dim = dim};
    pool_run(c->pool, norm_task, &j, ceil_div(rows, ROWS_PER_TASK));
}

static void norm_backward_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct norm_job *j = arg;
    int64_t end = min_i64((task + 1) * ROWS_PER_TASK, j->rows);
    for (int64_t i = task * ROWS_PER_TASK; i < end; i++)
        j->c->rows->rmsnorm_backward(j->y + i * j->dim, j->dy + i * j->dim, j->x + i * j->dim, j->w, j->r[i], j->dim);
}

void norm_backward(const struct compute *c, float *dx, const float *dy, const float *x, const float *w, const float *r,
                   int64_t rows, int64_t dim)
{
    struct norm_job j = {.c = c, .y = dx, .dy = dy, .x = x, .w = w, .r = r, .rows = rows, .dim = dim};
    pool_run(c->pool, norm_backward_task, &j, ceil_div(rows, ROWS_PER_TASK));
}

/* A strip of columns over all rows, so that the order of the sum is fixed. */
static void norm_weight_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct norm_job *j = arg;
    int64_t begin = task * COLUMNS_PER_TASK, end = min_i64(begin + COLUMNS_PER_TASK, j->dim);
    for (int64_t i = 0; i < j->rows; i++)
        for (int64_t k = begin; k < end; k++)
            j->y[k] += j->dy[i * j->dim + k] * j->x[i * j->dim + k] * j->r[i];
}

void norm_weight_gradient(const struct compute *c, float *dw, const float *dy, const float *x, const float *r, int64_t rows,
                          int64_t dim)
{
    struct norm_job j = {.c = c, .y = dw, .dy = dy, .x = x, .r = r, .rows = rows, .dim = dim};
    pool_run(c->pool, norm_weight_task, &j, ceil_div(dim, COLUMNS_PER_TASK));
}
