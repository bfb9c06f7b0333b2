/* Block-importance scores: how they are kept, ranked, written and read. Lower scores are dropped first. */
#ifndef ESPALIER_PRUNE_SCORES_H
#define ESPALIER_PRUNE_SCORES_H

#include <jansson.h>
#include <stdint.h>

#include "core/base/err.h"
#include "data/calibration.h"

struct scores {
    char criterion[32];
    char model_hash[65];
    int64_t n_blocks;         /* blocks that were scored */
    int64_t model_blocks;     /* blocks of the model on disk; more than n_blocks when it was scored without some */
    int64_t *block;           /* [n_blocks]: their indices in the model on disk, ascending */
    double base_ppl;          /* of the model as it stands, on the calibration rows */
    double *score;            /* [n_blocks] */
    int64_t samples, targets; /* rows, and scored tokens per row */
    float *base_nll;          /* [samples, targets] nats, or NULL */
    float *removed_nll;       /* [n_blocks, samples, targets], or NULL */
};

/* Room for the scores of n_blocks blocks, numbered 0 to n_blocks - 1 until the caller says otherwise. */
int scores_alloc(struct scores *s, const char *criterion, int64_t n_blocks, struct err *err);
void scores_free(struct scores *s);

/* order [n_blocks]: indices of blocks by ascending score; ties keep the lower index first. */
void scores_order(int64_t *order, const struct scores *s);

/* The order without the first keep_first and the last keep_last blocks; returns how many are left. The published scripts never
 * drop the first 4 and the last 2 (Shortened LLaMA's "plus" heuristic). */
int64_t scores_protected_order(int64_t *out, const struct scores *s, int64_t keep_first, int64_t keep_last);

/* Writes SCORES: .h5 by that ending, JSON otherwise. facts: a flat object recorded with them (version, model, arguments ...). */
int scores_write(const char *path, const struct scores *s, const struct calibration *cal, const json_t *facts, struct err *err);

/* Reads either form back, far enough to rank: criterion, model hash, blocks, scores. */
int scores_read(struct scores *s, const char *path, struct err *err);

#endif
