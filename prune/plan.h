/* A pruning plan: what goes, what stays, and where each block that stays ends up. */
#ifndef ESPALIER_PRUNE_PLAN_H
#define ESPALIER_PRUNE_PLAN_H

#include <jansson.h>

#include "core/model/model.h"
#include "prune/scores.h"

/* dropped [count]: the first `count` of the protected order, in that order. Scores of windows (angular) give the closest window of
 * `count` units that the protected ends leave, whatever length they propose themselves. Fails when fewer may go. */
int plan_choose(struct unit *dropped, const struct scores *s, int64_t count, int64_t keep_first, int64_t keep_last,
                struct err *err);

/* n * ratio to the nearest whole number; a ratio outside (0, 1) is an error. */
int plan_count(int64_t *count, double ratio, int64_t n, struct err *err);

/* How unsure the cut behind the first `count` of the protected order is: the probability that the last unit to go and the first
 * to stay would change places; NaN where the scores do not tell. See scores_swap_probability. */
double plan_cut_swap(const struct scores *s, int64_t count, int64_t keep_first, int64_t keep_last);

/* Above this the cut is not settled. */
#define PLAN_UNSETTLED 0.05

/* What goes as a JSON list, see unit_json. */
json_t *plan_units(const struct unit *units, int64_t n);

/* Writes plan.json for m after units were dropped, up to the commit of *w. dropped [n] keeps the order of removal. repair: recorded as it is, or NULL. */
int plan_write(struct file_writer *w, const char *path, const struct model *m, const struct unit *dropped, int64_t n,
               const char *criterion, const char *scores_sha256, const json_t *repair, const json_t *facts, struct err *err);

#endif
