/* The state of a scoring under way, kept beside its result so that an interrupted one goes on where it was. The file is raw memory
 * of this program: a key over everything that the result depends on says whether it may be taken up again. */
#ifndef ESPALIER_PRUNE_PARTIAL_H
#define ESPALIER_PRUNE_PARTIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "core/base/err.h"

struct partial {
    const char *path; /* NULL: nothing is kept */
    char key[65];
    double every;    /* seconds between saves */
    double saved_at; /* of clock_seconds */
    bool resume;     /* take up what is there */
};

/* A piece of memory that is saved and loaded. */
struct segment {
    void *data;
    size_t bytes;
};

/* Whether it is time to save again. */
bool partial_due(const struct partial *p);

/* Writes the segments, whole or not at all. A NULL p is fine here and above: nothing happens. */
int partial_save(struct partial *p, const struct segment *segments, int n, struct err *err);

/* Reading: *in stays NULL when there is nothing to resume. A file with another key is an error. The pieces are read in the order
 * in which they were saved; the first of them says how long the others are. */
int partial_open(FILE **in, const struct partial *p, struct err *err);
int partial_read(FILE *in, const struct partial *p, const struct segment *segments, int n, struct err *err);

/* When the result is written. */
void partial_remove(const struct partial *p);

#endif
