/* Folders: made, removed, and written so that either the whole folder is there under its name or nothing. */
#ifndef ESPALIER_BASE_DIR_H
#define ESPALIER_BASE_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "core/base/err.h"

/* A folder being written: files go to dir_writer.tmp, commit renames it to `path`. An existing non-empty `path` is refused
 * by open unless replace is set, in which case commit puts the new folder in its place and then removes the old one. A link is
 * never replaced, nor is what lies behind it. */
struct dir_writer {
    char *path, *tmp;
    bool replace;
    struct stat made, old; /* the folder that was made; the one that it replaces (its st_ino is 0 where there is none) */
};
int dir_writer_check(const char *path, bool replace, struct err *err); /* what open refuses, and nothing else */
int dir_writer_open(struct dir_writer *w, const char *path, bool replace, struct err *err);
int dir_writer_commit(struct dir_writer *w, struct err *err); /* also releases w, whether it succeeds or not */
void dir_writer_abort(struct dir_writer *w);                  /* does nothing after commit */

/* Makes a folder and its parents; existing ones are fine. */
int dir_make(const char *path, struct err *err);

/* Removes a folder and all that is in it; a link is left alone, here and inside (where it is removed, and not what it points to). */
void dir_remove(const char *path);

/* Fails where the name is a link: what is written into a folder in place is not written through one. */
int dir_check_no_link(const char *path, struct err *err);

/* Removes these files of the folder parent/name, and the folder once it is empty; nothing where one of the two is a link. */
void dir_remove_files(const char *parent, const char *name, const char *const files[], size_t n);

#endif
