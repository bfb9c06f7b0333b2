/* This machine's own limits, measured when asked: what the speed of everything else is a share of. */
#ifndef ESPALIER_EVAL_BENCH_H
#define ESPALIER_EVAL_BENCH_H

#include "core/kernel/compute.h"

enum limit_kind {
    LIMIT_SGEMM,   /* floating-point operations per second of sgemm, all threads at once on matrices that suit it */
    LIMIT_READING, /* bytes per second that all threads read from 1 GiB, one stream a thread or four rows at a time, as products
                    * do: whichever is faster */
};

/* A limit that is tried again and again beside what is held against it. Other tenants of a machine take their part of seconds and of
 * minutes: the best moment of one compared with the mean of the other would tell of them, not of the program. */
struct limit;

/* The compute outlives it. NULL and an error without the memory. */
struct limit *limit_open(enum limit_kind kind, const struct compute *c, struct err *err);
void limit_close(struct limit *l);

/* Some tries, half a second of them. */
void limit_try(struct limit *l);

/* As many as fit in a twentieth of the time since the last ones; for the pauses of a progress. `limit` is a struct limit. */
void limit_try_beside(void *limit);

/* The median and the best of the tries. */
double limit_median(struct limit *l);
double limit_best(struct limit *l);

/* Bytes per second that the disk under the folder `dir` copies, from a file of `bytes` that is not in memory to another, until
 * they are safe. 0 and an error where it does not. */
double bench_copy_rate(const char *dir, size_t bytes, struct err *err);

#endif
