/* The language-model head: final norm, output projection, cross-entropy. Logits of many rows are never stored: a tile of them
 * lives in a worker's scratch while its maximum and sum of exponentials are taken. */
#ifndef ESPALIER_NN_HEAD_H
#define ESPALIER_NN_HEAD_H

#include "core/nn/linear.h"

struct head {
    struct weight w;   /* [vocab, dim]; the embedding where the two are tied */
    const float *norm; /* [dim] */
    float eps;
};

struct head_acts {
    float *x, *r;        /* [rows, dim] normed input, [rows] 1/rms */
    float *lse, *target; /* [rows] log-sum-exp of the logits, logit of the target */
    float *best;         /* [rows] the largest logit */
    float *top, *sum;    /* [rows, vocab tiles] of one panel */
};

int head_acts_bind(struct head_acts *a, struct arena *arena, const struct head *h, int64_t rows, struct err *err);

/* logits [rows, vocab] of x [rows, dim], as dot products or as a product of packed matrices (linear_forward_split). */
void head_logits(const struct compute *c, float *logits, const struct head *h, struct head_acts *a, const float *x, int64_t rows,
                 bool dotted);

/* nll [rows] = log sum exp(logits) - logits[target], in nats, for x [rows, dim] and targets [rows] in [0, vocab). */
void head_nll(const struct compute *c, float *nll, const struct head *h, struct head_acts *a, const float *x,
              const int32_t *targets, int64_t rows);

/* dx [rows, dim] = the gradient of sum_i scale[i] nll[i]; after head_nll on the same rows. Where given, dw [vocab, dim] and
 * dnorm [dim] accumulate the gradients of the head's weights. d_normed [rows, dim] is scratch.
 * d(nll)/d(logit v) = softmax_v - [v = target]. */
void head_backward(const struct compute *c, float *dx, float *dw, float *dnorm, float *d_normed, const struct head *h,
                   const struct head_acts *a, const float *x, const int32_t *targets, const float *scale, int64_t rows);

#endif
