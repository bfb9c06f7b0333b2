/* Perplexity-on-removal: exp of the mean loss over the calibration rows with one block taken out, for every block
 * (Shortened LLaMA, arXiv 2402.02834, section 3). */
#ifndef ESPALIER_PRUNE_SCORE_PPL_H
#define ESPALIER_PRUNE_SCORE_PPL_H

#include "core/base/progress.h"
#include "core/model/lm.h"
#include "prune/scores.h"

/* Scores every block in m's order by one walk over the blocks (the sweep), with the adapter lora where it is not NULL. s must be
 * empty. Keeps all live states in memory: (blocks + 1) x rows x dim floats. */
int score_ppl(struct scores *s, const struct model *m, const struct compute *c, const struct lora_set *lora,
              const struct calibration *cal, struct progress *progress, struct err *err);

/* The work of the sweep in floating-point operations: block passes and heads, by arithmetic count. */
double score_ppl_flops(const struct model *m, int64_t rows, int64_t len);

#endif
