/* Criteria side by side: what each would drop at each ratio, with and without the protected ends, and how far they agree. */
#ifndef ESPALIER_PRUNE_COMPARE_H
#define ESPALIER_PRUNE_COMPARE_H

#include "prune/plan.h"
#include "prune/score.h"

/* One way to prune. */
struct variant {
    int64_t criterion, ratio; /* indices into the comparison's lists */
    bool protected_;          /* the ends stayed */
    int64_t count;
    struct unit *dropped; /* [count], in the order of removal */
    double cut_swap;      /* how unsure the cut is, see plan_cut_swap; NaN: not known */
    int64_t params;       /* of what is left */
    int64_t same_as;      /* an earlier variant that drops the same units, or its own index */
    double *ppl;          /* [n_texts]; filled by whoever evaluates */
};

struct comparison {
    int64_t n_units, n_criteria, n_ratios, n_texts, n_variants;
    const struct criterion *const *which; /* [n_criteria] */
    const struct scores *scores;          /* [n_criteria], all of the same units */
    const double *ratios;                 /* [n_ratios] */
    int64_t keep_first, keep_last;        /* of the protected variants */
    const char *const *texts;             /* [n_texts]: names */
    double *intact_ppl;                   /* [n_texts] */
    int64_t intact_params;
    struct variant *variants; /* by criterion, then ratio, then protected before unprotected */
    double *correlation;      /* [n_criteria, n_criteria]: Spearman's rank correlation of the orders of all units, in [-1, 1] */
    double *overlap;          /* [n_ratios, n_criteria, n_criteria]: part of the protected drop sets that two criteria share */
    struct arena arena;
};

/* Fills everything but the perplexities from which, scores, ratios, texts, keep_first and keep_last, which the caller has set. A
 * ratio that rounds to no unit, or to more than the protected ends leave, is an error. m is as it was scored. */
int compare_plan(struct comparison *k, struct model *m, struct err *err);
void compare_free(struct comparison *k);

/* Whether a unit is among those that go. */
bool variant_drops(const struct variant *v, struct unit u);

#endif
