/* Criteria that add up a score over every weight of a unit (Shortened LLaMA, section 3 and its scripts): q, k, v, o, gate, up, down
 * and the two norms; not the embeddings, the head and the last norm, nor biases.
 *
 *   magnitude  |w|
 *   taylor     |w sum_s dL_s/dw|: first-order effect of setting w to 0; the gradient is summed over the samples with its sign, and
 *              L_s is the mean loss of sample s
 *
 * Each is raised to norm_power, summed over the inputs of each output row, the rows of a tensor reduced by `rows`, and a unit's
 * tensors by `tensors`. (A norm counts as one row per value.) */
#ifndef ESPALIER_PRUNE_SCORE_WEIGHTS_H
#define ESPALIER_PRUNE_SCORE_WEIGHTS_H

#include "core/base/progress.h"
#include "prune/partial.h"
#include "prune/scores.h"

enum reduction { REDUCE_SUM, REDUCE_MEAN, REDUCE_MAX, REDUCE_PROD };

struct weight_options {
    int64_t norm_power; /* 1 or 2 */
    enum reduction rows, tensors;
    int64_t sample_batch; /* taylor: samples whose mean is one loss, as in the published script's batches; 1: each its own */
};

/* "sum", "mean", "max" or "prod"; `option` is named in the error. */
int reduction_parse(enum reduction *r, const char *name, const char *option, struct err *err);

/* Both fill s, set up for m by scores_alloc: score, and weight per tensor. magnitude leaves base_ppl to others. */
int score_magnitude(struct scores *s, const struct model *m, const struct compute *c, const struct weight_options *o,
                    struct progress *progress, struct err *err);

/* One forward over all calibration rows that keeps each block's input, and one backward that holds the gradient of a panel of one
 * matrix at a time. Memory: (blocks + 1) x rows x dim floats, the activations of one block, and 32 MiB. */
int score_taylor(struct scores *s, const struct model *m, const struct compute *c, const struct calibration *cal,
                 const struct weight_options *o, struct partial *partial, struct progress *progress, struct err *err);

#endif
