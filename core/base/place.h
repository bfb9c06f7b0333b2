/* Whether something can be written at a place, asked before the work that makes it. A disk that fills up or a folder that is taken
 * away in the meantime is found by the writers of core/base/file.h. */
#ifndef ESPALIER_BASE_PLACE_H
#define ESPALIER_BASE_PLACE_H

#include <stdbool.h>

#include "core/base/err.h"

/* Fails unless `path` can be written as a file: its folder is there and lets files be made, and nothing but a file has the name. */
int place_check_file(const char *path, struct err *err);

/* Fails unless the folder `path` can be written: it or the first of its parents that is there lets files be made. */
int place_check_dir(const char *path, struct err *err);

#endif
