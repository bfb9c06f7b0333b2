/* Criteria that watch the residual stream x_0 ... x_L of the model as it is, x_i entering unit i. All averages are over the tokens
 * of the calibration rows, sums in float64.
 *
 *   bi                  1 - mean cos(x_i, x_i+1): block influence (ShortGPT, arXiv 2403.03853)
 *   relative-magnitude  mean |x_i+1 - x_i| / |x_i+1| (Samragh et al., arXiv 2309.04354)
 *   cka                 1 - linear CKA(X_i, X_i+1), columns centred (Kornblith et al., arXiv 1905.00414)
 *   angular             of windows of w units: mean arccos(cos(x_i, x_i+w)) / pi, at the last token of each row or at all tokens
 *                       (Gromov et al., arXiv 2403.17887). A unit's score is the distance of the closest window of the proposed
 *                       length that holds it, so that this window comes first in the order. */
#ifndef ESPALIER_PRUNE_SIMILARITY_H
#define ESPALIER_PRUNE_SIMILARITY_H

#include "prune/score_walk.h"

struct similarity_options {
    int64_t window;  /* angular: length of the window to propose, 1 to the number of units */
    bool all_tokens; /* angular */
};

/* Makes `w` fill `s`, set up for m, by the criterion that s->criterion names. Release with w->release. */
int similarity_watch(struct watcher *w, struct scores *s, const struct model *m, const struct calibration *cal,
                     const struct similarity_options *o, struct err *err);

#endif
