/* Causal grouped-query attention over a batch, by tiles: no T x T buffer, forward or backward.
 * Online softmax: Milakov and Gimelshein, arXiv 1805.02867; tiling and recomputation in the backward: Dao et al., arXiv 2205.14135. */
#ifndef ESPALIER_NN_ATTENTION_H
#define ESPALIER_NN_ATTENTION_H

#include "core/kernel/compute.h"
#include "core/nn/batch.h"

struct heads {
    int64_t n, n_kv, dim; /* query heads, key-value heads (n % n_kv == 0), values per head */
};

/* out [rows, n * dim] = softmax(q k^T / sqrt(dim), causal) v per head; lse [rows, n] = log of the sum of exponentials.
 * q [rows, n * dim]; k, v [rows, n_kv * dim] are this batch's own keys and values, used where a sequence has no cache; a
 * sequence with a trunk also sees the trunk's rows before it. With a cache, they must have been copied into `slot` of it already
 * (kv_append). */
void attention_forward(const struct compute *c, float *out, float *lse, const float *q, const float *k, const float *v,
                       const struct batch *b, int64_t slot, const struct heads *h);

/* The derivative, for sequences without a cache and without a trunk: dq is written, dk and dv are written.
 * P = exp(q k^T s - lse), dv = P^T dout, dS = P (dout v^T - rowsum(dout out)) s, dq = dS k, dk = dS^T q, with s = 1/sqrt(dim). */
void attention_backward(const struct compute *c, float *dq, float *dk, float *dv, const float *dout, const float *out,
                        const float *lse, const float *q, const float *k, const float *v, const struct batch *b,
                        const struct heads *h);

/* Copies the batch's keys and values into the caches of those sequences that have one. */
void kv_append(const float *k, const float *v, const struct batch *b, int64_t slot, const struct heads *h);

#endif
