/* This machine's own limits, measured when asked: what the speed of everything else is a share of. */
#ifndef ESPALIER_EVAL_BENCH_H
#define ESPALIER_EVAL_BENCH_H

#include <stdbool.h>

#include "core/kernel/compute.h"

/* Floating-point operations per second of sgemm, all threads at once on matrices that suit it; the best of several tries. */
double bench_sgemm_peak(const struct compute *c, struct err *err);

/* Bytes per second that all threads together read from a buffer of `bytes` (4 MiB at least), one stream a thread or four rows at a
 * time, as products do: the median of several tries in the faster way. 0 and an error without the memory. */
double bench_read_bandwidth(const struct compute *c, size_t bytes, struct err *err);

/* Bytes per second that the disk under the folder `dir` takes, until they are safe, in a file of `bytes`. 0 and an error where it
 * does not. */
double bench_write_rate(const char *dir, size_t bytes, struct err *err);

#endif
