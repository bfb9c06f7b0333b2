/* Residual streams of the calibration rows: what every criterion keeps of the model's inside, and most of its memory. */
#ifndef ESPALIER_PRUNE_STREAMS_H
#define ESPALIER_PRUNE_STREAMS_H

#include "data/calibration.h"

/* Fails, with what would fit, when `n` streams [cal->n, cal->len, dim] of floats are more than the memory that is free. Said before
 * the work begins, for a system that overcommits memory would only kill it later. */
int streams_fit(const struct calibration *cal, int64_t n, int64_t dim, struct err *err);

#endif
