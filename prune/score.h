/* All criteria by name, and one call that runs several of them with as few walks as they need. */
#ifndef ESPALIER_PRUNE_SCORE_H
#define ESPALIER_PRUNE_SCORE_H

#include "prune/score_weights.h"
#include "prune/similarity.h"

struct criterion {
    const char *name;
    const char *score;     /* what a unit's score is, for headings */
    bool perplexity;       /* scores are perplexities, to be read against base_ppl */
    bool backward;         /* needs gradients: runs by itself */
    bool weights;          /* looks at weights, and so does not fit an adapter beside them */
    bool random;           /* depends on nothing but the seed */
    bool greedy, distance; /* has steps; has windows */
};

/* Closed by a NULL name. */
extern const struct criterion criteria[];

/* Whether scores are places in a list or draws, which have no scale of their own. */
static inline bool criterion_is_even(const struct criterion *k)
{
    return k->greedy || k->random;
}

/* The criterion of that name, or NULL and an error that lists them. */
const struct criterion *criterion_find(const char *name, struct err *err);

struct score_options {
    bool sublayers;                /* units are halves of blocks */
    int64_t count;                 /* greedy: steps; angular: length of the window; 0: a fifth of the units */
    int64_t keep_first, keep_last; /* greedy: blocks never taken out */
    bool all_tokens;               /* angular */
    struct weight_options weights; /* taylor, magnitude */
    uint64_t seed;                 /* random, bootstrap */
    int64_t bootstrap;             /* resamples; 0: none */
};

/* Fills out[n] by the criteria which[n], all of which need gradients or none of which does. partial may be NULL. On failure
 * nothing is left to free. */
int score_run(struct scores *out, const struct criterion *const *which, int64_t n, const struct score_options *o,
              const struct model *m, const struct compute *c, const struct lora_set *lora, const struct calibration *cal,
              struct partial *partial, struct progress *progress, struct err *err);

#endif
