/* Log-likelihoods of continuations. All requests of a batch are one tree: what several of them have in common at the start (the
 * context of a document's choices, the passage of several questions) goes through the model once, and nothing is padded. */
#ifndef ESPALIER_EVAL_LIKELIHOOD_H
#define ESPALIER_EVAL_LIKELIHOOD_H

#include "core/base/progress.h"
#include "core/model/lm.h"

struct request {
    const int32_t *ids;
    int64_t n;     /* tokens */
    int64_t first; /* tokens [first, n) are scored, each predicted from all before it; 1 <= first < n */
};

struct likelihood {
    double ll;   /* sum of ln p over the scored tokens */
    bool greedy; /* each of them was the most likely one */
};

/* Several ways to prune one model. They share each block pass up to the first block where they differ. */
struct variants {
    int64_t n;
    const uint8_t *parts; /* [n, m->n_order]: the halves of each block that run; NULL (and n = 1): those the model runs */
};

/* out [variants, n]. Progress counts `documents`, of which every request is an equal share. */
int likelihood_run(struct likelihood *out, const struct model *m, const struct compute *c, const struct lora_set *lora,
                   const struct variants *v, const struct request *requests, int64_t n, struct progress *progress,
                   int64_t documents, struct err *err);

#endif
