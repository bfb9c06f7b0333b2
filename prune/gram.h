/* Products of activations in float64: sums over thousands of tokens whose largest and smallest parts lie far apart. */
#ifndef ESPALIER_PRUNE_GRAM_H
#define ESPALIER_PRUNE_GRAM_H

#include "core/kernel/compute.h"

enum { GRAM_ROWS = 256 }; /* rows that callers convert to float64 at once */

/* out [dim, dim] += a [n, dim]^T b [n, dim] */
void gram_add(const struct compute *c, double *out, const double *a, const double *b, int64_t n, int64_t dim);

#endif
