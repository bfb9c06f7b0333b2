/* The name that somebody probably meant. */
#ifndef ESPALIER_BASE_NEAREST_H
#define ESPALIER_BASE_NEAREST_H

#include <stddef.h>

/* Of names[n], the one that the fewest changes make of `name`: a letter more, less or another, or two neighbours swapped (the
 * distance of Damerau and Levenshtein). NULL where every name takes more than one change for each three letters. */
const char *nearest_name(const char *name, const char *const names[], size_t n);

#endif
