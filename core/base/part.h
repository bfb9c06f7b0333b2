/* Temporary names that are being written: what is removed when a signal handler ends the program. */
#ifndef ESPALIER_BASE_PART_H
#define ESPALIER_BASE_PART_H

#include <sys/stat.h>

/* A temporary file or folder, `made`, was made here; it was renamed or removed. Writers of files and folders call these. */
void part_begin(const char *name, const struct stat *made);
void part_end(const char *name);

/* Removes them all (what somebody else put under such a name stays), folders with the files in them. Safe in a signal handler; nothing may be written after it. */
void part_remove_all(void);

#endif
