/* Criteria side by side: what each would drop at each ratio, with and without the protected ends, and how far they agree. */
#ifndef ESPALIER_PRUNE_COMPARE_H
#define ESPALIER_PRUNE_COMPARE_H

#include "data/tasks.h"
#include "prune/plan.h"
#include "prune/score.h"

/* How a model does on the zero-shot tasks, as shares of 1; filled by whoever evaluates. */
struct zeroshot_scores {
    double *acc;       /* [n_tasks]: the metric that is published for the task, see struct task */
    double *std_error; /* [n_tasks]: its standard error */
    double average, average_std_error;
};

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
    struct zeroshot_scores zeroshot;
};

struct comparison {
    int64_t n_units, n_criteria, n_ratios, n_texts, n_variants;
    const struct criterion *const *which; /* [n_criteria] */
    const struct scores *scores;          /* [n_criteria], all of the same units */
    const double *ratios;                 /* [n_ratios] */
    int64_t keep_first, keep_last;        /* of the protected variants */
    const char *const *texts;             /* [n_texts]: names */
    double *intact_ppl;                   /* [n_texts] */
    int64_t n_tasks;                      /* zero-shot tasks; 0: none, and no scores on them */
    const struct task *const *tasks;      /* [n_tasks] */
    const bool *averaged;                 /* [n_tasks]: whether it counts in the average */
    struct zeroshot_scores intact_zeroshot;
    int64_t intact_params;
    struct variant *variants; /* by criterion, then ratio, then protected before unprotected */
    double *correlation;      /* [n_criteria, n_criteria]: Spearman's rank correlation of the orders of all units, in [-1, 1] */
    double *overlap;          /* [n_ratios, n_criteria, n_criteria]: part of the protected drop sets that two criteria share */
    struct arena arena;
};

/* Fills everything but perplexities and zero-shot scores from which, scores, ratios, texts, tasks, keep_first and keep_last,
 * which the caller has set. A ratio that rounds to no unit, or to more than the protected ends leave, is an error. m is as it
 * was scored. */
int compare_plan(struct comparison *k, struct model *m, struct err *err);
void compare_free(struct comparison *k);

/* Whether a unit is among those that go. */
bool variant_drops(const struct variant *v, struct unit u);

#endif
