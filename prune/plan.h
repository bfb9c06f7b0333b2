/* A pruning plan: which blocks go, which stay, and where each one that stays ends up. */
#ifndef ESPALIER_PRUNE_PLAN_H
#define ESPALIER_PRUNE_PLAN_H

#include <jansson.h>

#include "core/model/model.h"
#include "prune/scores.h"

/* dropped [count]: the first `count` of the protected order, in that order. Fails when fewer are left to drop. */
int plan_choose(int64_t *dropped, const struct scores *s, int64_t count, int64_t keep_first, int64_t keep_last, struct err *err);

/* blocks * ratio to the nearest whole number; a ratio outside (0, 1) is an error. */
int plan_count(int64_t *count, double ratio, int64_t n_blocks, struct err *err);

/* Writes plan.json for m after its blocks were dropped (m->order is what stays). dropped [n] keeps the order of removal. */
int plan_write(const char *path, const struct model *m, const int64_t *dropped, int64_t n, const char *criterion,
               const char *scores_sha256, const json_t *facts, struct err *err);

#endif
