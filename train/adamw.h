/* AdamW (Loshchilov and Hutter, arXiv 1711.05101) without weight decay, the linear schedule, and clipping by the total norm. */
#ifndef ESPALIER_TRAIN_ADAMW_H
#define ESPALIER_TRAIN_ADAMW_H

#include <stdint.h>

#include "core/base/pool.h"

struct adamw {
    double beta1, beta2, eps;
    float *m, *v; /* [n] first and second moments */
    int64_t n, t; /* parameters; steps taken */
};

/* One step: m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, p -= lr / (1-b1^t) m / (sqrt(v) / sqrt(1-b2^t) + eps), where g is
 * grad times `scale`. grad is not changed. */
void adamw_step(struct adamw *o, struct pool *pool, float *params, const float *grad, double lr, double scale);

/* sqrt(sum g^2), summed in double in an order that does not depend on the number of threads. partial [n / 4096 + 1] is scratch. */
double gradient_norm(struct pool *pool, double *partial, const float *grad, int64_t n);

/* The learning rate of step s (from 0): up from 0 over `warmup` steps, then down to 0 at `total`. */
double linear_schedule(double lr, int64_t s, int64_t warmup, int64_t total);

#endif
