/* What tests ask of the disk. */
#ifndef ESPALIER_TESTS_THERE_H
#define ESPALIER_TESTS_THERE_H

#include <stdbool.h>
#include <unistd.h>

static inline bool path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

#endif
