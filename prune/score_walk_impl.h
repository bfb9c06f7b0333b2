/* The walk of prune/score_walk.h, for the files that make it up. */
#ifndef ESPALIER_PRUNE_SCORE_WALK_IMPL_H
#define ESPALIER_PRUNE_SCORE_WALK_IMPL_H

#include "prune/score_walk.h"

/* Where the walk is: the first thing in a partial file. */
struct cursor {
    int64_t round;      /* removals that were decided: 0 while the model is whole */
    int64_t position;   /* live units that all states have passed in this round */
    int64_t n_variants; /* states 1 to n_variants are live */
    int64_t finished;   /* variants whose losses are known */
};

struct walk {
    struct sweep s;
    const struct walk_request *r;
    const struct scores *units; /* any of the scores asked for: they share the units */
    struct cursor at;
    int64_t *slot; /* [n]: each unit's place in the model's order */
    int64_t *live; /* [n_live]: units that still run */
    int64_t *who;  /* [n + 1]: the unit that state k leaves out, for k >= 1 */
    int64_t n_live;
    int64_t *gone;     /* [steps]: units that the search has taken out */
    double *table;     /* [steps, n]: perplexity with a unit out, per round; NaN where it was not tried */
    double *trace;     /* [steps] */
    float *base, *nll; /* [samples, targets] losses of the intact model; of the variant in hand */
    bool have_base;
    float **kept;           /* [n]: all states as they were before live unit p, or NULL; see keep_states */
    int64_t *kept_variants; /* [n]: variants in kept[p]; -1: not valid */
    double base_ppl;
    char what[64]; /* for progress */
    struct arena arena;
};

/* Takes state 0 past a unit; state `spare` becomes what it was before. The watchers look on where it is watched. */
void walk_step_base(struct walk *w, int64_t unit, int64_t spare, bool watched);

/* The losses and the perplexity of state `state`, which has left out `unit` in this round and is used up. */
int walk_finish(struct walk *w, int64_t unit, int64_t state, struct err *err);

/* After the first round, in which the model was whole: in bf16, the perplexities without units that break it are taken once more,
 * in float32. The states are used up. */
int walk_mend_broken(struct walk *w, struct err *err);

#endif
