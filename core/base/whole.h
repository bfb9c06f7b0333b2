/* Arithmetic of whole numbers that every room uses. */
#ifndef ESPALIER_BASE_WHOLE_H
#define ESPALIER_BASE_WHOLE_H

#include <stdint.h>

/* a / b rounded up; a >= 0, b > 0. */
static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* a rounded up to a multiple of b. */
static inline int64_t round_up(int64_t a, int64_t b)
{
    return ceil_div(a, b) * b;
}

static inline int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

#endif
