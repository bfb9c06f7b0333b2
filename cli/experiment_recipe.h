/* How an experiment was made, as lines of a table for its report. */
#ifndef ESPALIER_CLI_EXPERIMENT_RECIPE_H
#define ESPALIER_CLI_EXPERIMENT_RECIPE_H

#include "cli/experiment.h"
#include "core/base/mem.h"

struct recipe {
    const char *lines[8 + MAX_TEXTS][2]; /* [n], name and value; of the arena and of the experiment */
    int64_t n;
    struct arena arena;
};

/* Fills an empty recipe: the command, the configuration, calibration, training and texts with their files' SHA-256, seeds, date. */
int recipe_of(struct recipe *r, const struct experiment *e, struct err *err);
void recipe_free(struct recipe *r);

#endif
