/* The criteria that come out of walking the calibration rows through the model: perplexity on removal, the same searched greedily,
 * and whatever watches the intact model's residual stream.
 *
 *   ppl     exp of the mean loss with one unit out, for every unit (Shortened LLaMA, arXiv 2402.02834, section 3); with a compute
 *           in bf16 in float32 all the same where that is more than ten times the intact model's
 *   greedy  the same, removing the best unit and starting over (SLEB, arXiv 2402.09025): score = the step at which a unit goes;
 *           those that the search did not reach follow, ranked by the perplexities of the last step */
#ifndef ESPALIER_PRUNE_SCORE_WALK_H
#define ESPALIER_PRUNE_SCORE_WALK_H

#include "prune/partial.h"
#include "prune/scores.h"
#include "prune/sweep.h"

/* Someone who looks at the residual stream of the model as it is. */
struct watcher {
    struct scores *scores;
    void *state; /* freed by release */
    /* before, after [rows, dim]: the stream around unit `i` of scores->unit */
    void (*see)(struct watcher *w, const struct compute *c, int64_t i, const float *before, const float *after);
    void (*finish)(struct watcher *w, const struct compute *c); /* turns what was seen into scores */
    void (*release)(struct watcher *w);
};

struct walk_request {
    struct scores *ppl, *greedy; /* NULL: not asked for */
    struct watcher *watchers;
    int64_t n_watchers;
    struct scores **others; /* scores made elsewhere that want base_ppl */
    int64_t n_others;
    int64_t steps;                 /* of the greedy search */
    int64_t keep_first, keep_last; /* blocks that the greedy search leaves alone */
    struct partial *partial;       /* or NULL */
};

/* Fills the scores asked for, which scores_alloc has set up for m, all with the same units; base_ppl and base_nll of all of them.
 * Memory: (units + 1) x rows x dim floats for ppl and greedy, 2 x rows x dim without; greedy takes as much again as a third of the
 * free memory for keeping states that the next step can start from. */
int score_walk(const struct walk_request *r, const struct model *m, const struct compute *c, const struct lora_set *lora,
               const struct calibration *cal, struct progress *progress, struct err *err);

/* The work of a ppl sweep over whole blocks in floating-point operations: block passes and heads, by arithmetic count. */
double score_walk_ppl_flops(const struct model *m, int64_t rows, int64_t len);

#endif
