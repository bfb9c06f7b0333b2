/* Progress of long work: a bar on a terminal, a plain line now and then elsewhere. Library code calls it through a pointer that
 * may be NULL; only the command line decides where, and whether, it shows. */
#ifndef ESPALIER_BASE_PROGRESS_H
#define ESPALIER_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct progress {
    FILE *out; /* NULL: silent */
    bool terminal;
    /* the work under way */
    const char *what, *unit;
    int64_t total;
    double started, shown;
    bool drawn;
    int64_t drawn_at; /* what was done when it was drawn last */
    /* What is to be done besides, called between two units of the work, also where nothing shows; or NULL. */
    void (*pause)(void *arg);
    void *pause_arg;
    double paused; /* seconds that it took in all */
};

/* Shows on `out` (stderr) unless quiet. */
void progress_open(struct progress *p, FILE *out, bool quiet);

/* Begins work of `total` units, says what has been done, and ends it. Nothing appears before the work has lasted a second. */
void progress_begin(struct progress *p, const char *what, int64_t total, const char *unit);
void progress_update(struct progress *p, int64_t done);
void progress_end(struct progress *p);

/* A message line that does not tear the bar. */
void progress_say(struct progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Seconds of a clock that only goes forward; and of one that stands still in the pauses of p, which may be NULL. */
double clock_seconds(void);
double progress_clock(const struct progress *p);

#endif
