/* Importance scores: how they are kept, ranked, written and read. Lower scores are dropped first. */
#ifndef ESPALIER_PRUNE_SCORES_H
#define ESPALIER_PRUNE_SCORES_H

#include <jansson.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/model/model.h"
#include "data/calibration.h"

enum { WEIGHT_NAME = 96 };

struct scores {
    char criterion[32];
    char model_hash[65], fingerprint[65]; /* fingerprint: "" in files of an older program */
    int64_t n;                            /* units that were scored */
    struct unit *unit;                    /* [n]: in the order they run */
    int64_t model_blocks;                 /* blocks of the model on disk */
    double base_ppl;                      /* of the model as it stands, on the calibration rows */
    double *score;                        /* [n] */
    int64_t samples, targets;             /* rows, and scored tokens per row */

    /* what some criteria have beside the scores; NULL or 0 without */
    float *base_nll;    /* [samples, targets] nats */
    float *removed_nll; /* [n, samples, targets] nats with that unit out */
    double *row_nll;    /* [n, samples]: its mean over each row */

    int64_t n_weights; /* taylor, magnitude: one score per tensor */
    char (*weight_name)[WEIGHT_NAME];
    double *weight; /* [n_weights] */

    int64_t steps;      /* greedy: removals that were searched */
    double *trace;      /* [steps]: perplexity after each */
    double *candidates; /* [steps, n]: perplexity with each unit out in that step; NaN where it was out already or not up */

    double *distance; /* [n + 1, n], angular: of the window of w units from unit i on at [w, i]; NaN where there is none */
    int64_t window;   /* length of the window that the scores propose */

    int64_t resamples; /* of the bootstrap */
    double *swap;      /* [n - 1]: for neighbours k and k + 1 of the order, see scores_swap_probability */
};

/* Room for the scores of m's units: its blocks that run, or the halves of those. */
int scores_alloc(struct scores *s, const char *criterion, const struct model *m, bool sublayers, struct err *err);
void scores_free(struct scores *s);

/* Whether any unit is half a block. */
bool scores_sublayers(const struct scores *s);

/* Whether unit i of s is of none of the first keep_first and the last keep_last blocks of the model. */
bool scores_may_go(const struct scores *s, int64_t i, int64_t keep_first, int64_t keep_last);

/* order [n]: positions in s->unit by ascending score; ties keep the earlier unit first. */
void scores_order(int64_t *order, const struct scores *s);

/* The order of the units that may go; returns their number. The published scripts never drop the first 4 and the last 2
 * (Shortened LLaMA's "plus" heuristic). */
int64_t scores_protected_order(int64_t *out, const struct scores *s, int64_t keep_first, int64_t keep_last);

/* The probability that units at positions a and b of s->unit, of which a ranks before b, would rank the other way round on other
 * texts of the kind: the part of `resamples` draws, with replacement, of the calibration rows for which the mean loss with a out
 * is larger than with b out (Efron's bootstrap, paired: both see the same draw). Rows are drawn, not tokens, since the tokens of
 * one row depend on each other. NaN where the criterion has no losses, or fewer than two rows. */
double scores_swap_probability(const struct scores *s, int64_t a, int64_t b, int64_t resamples, uint64_t seed);

/* Fills swap for every neighbour pair of the order. */
int scores_bootstrap(struct scores *s, int64_t resamples, uint64_t seed, struct err *err);

/* How units are listed in files: whole blocks as numbers, halves by name. */
json_t *unit_json(struct unit u);

/* Writes SCORES: .h5 by that ending, JSON otherwise. facts: a flat object recorded with them (version, model, arguments ...). */
int scores_write(const char *path, const struct scores *s, const struct calibration *cal, const json_t *facts, struct err *err);
/* The same up to the commit of *w; on failure there is nothing to abort. */
int scores_write_part(struct file_writer *w, const char *path, const struct scores *s, const struct calibration *cal,
                      const json_t *facts, struct err *err);

/* Reads either form back, far enough to rank and to choose: criterion, model hash, units, scores, mean losses of rows, windows. */
int scores_read(struct scores *s, const char *path, struct err *err);

#endif
