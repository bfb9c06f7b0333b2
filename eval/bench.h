/* This machine's own limits, measured when asked: what the speed of everything else is a share of. */
#ifndef ESPALIER_EVAL_BENCH_H
#define ESPALIER_EVAL_BENCH_H

#include "core/kernel/compute.h"

/* Floating-point operations per second of sgemm, all threads at once on matrices that suit it; the best of several tries. */
double bench_sgemm_peak(const struct compute *c, struct err *err);

/* Bytes per second that all threads together read from a buffer of `bytes`; the best of several tries. 0 and an error without
 * the memory. */
double bench_read_bandwidth(const struct compute *c, size_t bytes, struct err *err);

#endif
