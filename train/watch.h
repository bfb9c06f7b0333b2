/* Looks whether a training gets anywhere, and says so once for each reason that it does not. */
#ifndef ESPALIER_TRAIN_WATCH_H
#define ESPALIER_TRAIN_WATCH_H

#include <jansson.h>

#include "core/base/progress.h"

enum { WATCH_RECENT = 5 }; /* steps whose mean loss is compared with the first one's */

struct watch {
    double first, recent[WATCH_RECENT];
    int64_t n; /* losses seen */
    bool told_loss, told_gradient;
    json_t *warnings; /* array of strings, what was said; NULL where nothing was */
};

/* Looks at one step: its loss, the norm of its gradient, and whether it is the last one. */
void watch_step(struct watch *w, int64_t step, double loss, double norm, bool last, struct progress *progress);
void watch_free(struct watch *w);

#endif
