/* From logits to a token: greedy, or a draw; and the probabilities that are told beside it. */
#ifndef ESPALIER_EVAL_SAMPLE_H
#define ESPALIER_EVAL_SAMPLE_H

#include "core/base/rng.h"
#include "core/kernel/compute.h"

struct candidate {
    float logit;
    int32_t id;
};

struct sampling {
    double temperature; /* 0: greedy */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
    uint64_t seed;
    double presence_penalty;      /* taken from the logits of tokens that were chosen before */
    double frequency_penalty;     /* and once more for each time that they were */
    const struct candidate *bias; /* [n_bias] what is added to the logits of some tokens */
    int n_bias;
};

/* What a draw works with, for one at a time. */
struct sampler {
    int64_t vocab;
    struct candidate *candidates; /* [vocab] */
    float *weights;               /* [vocab] */
    float *biased;                /* [vocab] */
};

int sampler_bind(struct sampler *s, int64_t vocab, struct arena *arena, struct err *err);

/* The next token by logits [vocab]: the argmax (first on ties), or a draw from the softmax at a temperature over the top_k
 * likeliest tokens, cut where their probabilities reach top_p. rng may be NULL where the temperature is 0. */
int32_t sample_token(const struct sampler *s, const struct row_kernels *rk, const float *logits, const struct sampling *how,
                     struct rng *rng);

/* The logits [vocab] to choose from after chosen [n]: with the penalties and biases of `how`, in s->biased; the same where there
 * are none. */
const float *sample_biased(const struct sampler *s, const float *logits, const struct sampling *how, const int32_t *chosen,
                           int64_t n);

/* Leaves the n likeliest tokens in s->candidates, likeliest first, ties by id. 1 <= n <= vocab. */
void sample_likeliest(const struct sampler *s, const float *logits, int64_t n);

/* The logarithm of the sum of exp(logits [vocab]); not finite where a logit is not. */
double sample_lse(const struct sampler *s, const struct row_kernels *rk, const float *logits);

#endif
