/* Repair of a cut without training: the block before each run of dropped blocks learns, in closed form, to stand in for them
 * (ReplaceMe, arXiv 2505.02819, linear transform). Nothing is added to the model, so any loader runs the result. */
#ifndef ESPALIER_PRUNE_REPAIR_H
#define ESPALIER_PRUNE_REPAIR_H

#include "core/base/progress.h"
#include "core/model/lm.h"
#include "data/calibration.h"

/* For blocks l .. l+n-1 that go, with r and m the residual stream and the feed-forward output inside block l-1 (row vectors: the
 * stream behind it is r + m), and x the stream behind block l+n-1 of the whole model:
 *     T = (M^T M + alpha I)^-1 M^T (X - R)        W_down <- T^T W_down of block l-1
 * with the Gram matrices summed in float64 over all tokens of the calibration rows. Runs are repaired from the first to the last,
 * each on the stream that the repaired ones before it leave. alpha < 0: that part of the mean diagonal of M^T M.
 * m still has all its blocks; afterwards the caller drops those in `dropped`, whole blocks only. The new weights are float32 and
 * belong to m. *n_runs receives the number of runs. A run without a block before it cannot be repaired: an error. */
int repair_linear(struct model *m, const struct compute *c, const struct unit *dropped, int64_t n, const struct calibration *cal,
                  double alpha, int64_t *n_runs, struct progress *progress, struct err *err);

/* Whether these units can be made up for: whole blocks, and a block before each. m still has all its blocks. */
int repair_check(const struct model *m, const struct unit *dropped, int64_t n, struct err *err);

#endif
