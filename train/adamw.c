#include "train/adamw.h"

#include <math.h>

enum { CHUNK = 4096 };

struct job {
    const struct adamw *o;
    float *params;
    const float *grad;
    double *partial;
    int64_t n;
    float step, b1, b2, root2, eps, scale;
};

static void step_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct job *j = arg;
    int64_t begin = task * CHUNK, end = begin + CHUNK < j->n ? begin + CHUNK : j->n;
    float *m = j->o->m, *v = j->o->v;
    for (int64_t i = begin; i < end; i++) {
        float g = j->grad[i] * j->scale;
        m[i] = j->b1 * m[i] + (1 - j->b1) * g;
        v[i] = j->b2 * v[i] + (1 - j->b2) * g * g;
        j->params[i] -= j->step * m[i] / (sqrtf(v[i]) / j->root2 + j->eps);
    }
}

void adamw_step(struct adamw *o, struct pool *pool, float *params, const float *grad, double lr, double scale)
{
    o->t++;
    double t = (double)o->t;
    struct job j = {.o = o,
                    .params = params,
                    .grad = grad,
                    .n = o->n,
                    .step = (float)(lr / (1 - pow(o->beta1, t))),
                    .b1 = (float)o->beta1,
                    .b2 = (float)o->beta2,
                    .root2 = (float)sqrt(1 - pow(o->beta2, t)),
                    .eps = (float)o->eps,
                    .scale = (float)scale};
    pool_run(pool, step_task, &j, (o->n + CHUNK - 1) / CHUNK);
}

static void norm_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct job *j = arg;
    int64_t begin = task * CHUNK, end = begin + CHUNK < j->n ? begin + CHUNK : j->n;
    double s = 0;
    for (int64_t i = begin; i < end; i++)
        s += (double)j->grad[i] * (double)j->grad[i];
    j->partial[task] = s;
}

double gradient_norm(struct pool *pool, double *partial, const float *grad, int64_t n)
{
    struct job j = {.grad = grad, .n = n, .partial = partial};
    int64_t chunks = (n + CHUNK - 1) / CHUNK;
    double s = 0;
    pool_run(pool, norm_task, &j, chunks);
    for (int64_t i = 0; i < chunks; i++)
        s += partial[i];
    return sqrt(s);
}

double linear_schedule(double lr, int64_t s, int64_t warmup, int64_t total)
{
    if (s < warmup)
        return lr * (double)s / (double)warmup;
    return total > warmup ? lr * fmax(0, (double)(total - s) / (double)(total - warmup)) : lr;
}
