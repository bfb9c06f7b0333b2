/* The identity of work: a key over everything that a result depends on, by which finished work is found again and unfinished work
 * is taken up. Two pieces of work are the same where their keys are. */
#ifndef ESPALIER_BASE_RECORD_H
#define ESPALIER_BASE_RECORD_H

#include <jansson.h>

#include "core/base/err.h"

/* Identity of what lies under a path, as 64 hexadecimal digits: of a file, its SHA-256, or above 64 MiB that of its size and of 64
 * pieces of 64 KiB spread evenly over it; of a folder, that of the names and identities of all it holds. A path that is not there
 * is an error. Touching or copying files changes nothing. */
int record_content(char hex[65], const char *path, struct err *err);

/* The key of a description: SHA-256 of its JSON text with sorted names. */
int record_key(char hex[65], const json_t *description, struct err *err);

/* Where two descriptions (objects) differ: fails with "WHAT: NAME was A, now B" for the first name, and does nothing where they are
 * the same. */
int record_compare(const json_t *was, const json_t *now, const char *what, struct err *err);

#endif
