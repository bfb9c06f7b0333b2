/* Files: mapped reading, and writing that leaves either the whole file under its name or nothing. */
#ifndef ESPALIER_BASE_FILE_H
#define ESPALIER_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/err.h"

struct file_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
};

/* Maps a regular file read-only. Release with file_unmap. */
int file_map(struct file_map *map, const char *path, struct err *err);
void file_unmap(struct file_map *map);

/* Reads a whole file, gunzipping it when it starts with the gzip magic. *data is malloc'ed, NUL-terminated past *size. */
int file_read(char **data, size_t *size, const char *path, struct err *err);

/* Lower-case hex SHA-256 of a file's bytes, or of a buffer. */
int file_sha256(char hex[65], const char *path, struct err *err);
void bytes_sha256(char hex[65], const void *data, size_t size);

/* A file being written under a temporary name beside `path`. commit flushes it to disk and renames it; abort removes it. */
struct file_writer {
    FILE *f;
    char *path, *tmp;
    size_t pending; /* bytes put since the disk was last asked to begin with what it has */
};
int file_writer_open(struct file_writer *w, const char *path, struct err *err);
int file_writer_put(struct file_writer *w, const void *data, size_t size, struct err *err);
/* What was put is in the temporary file w->tmp, where it can be read before the commit. */
int file_writer_flush(struct file_writer *w, struct err *err);
int file_writer_commit(struct file_writer *w, struct err *err); /* also releases w, whether it succeeds or not */
void file_writer_abort(struct file_writer *w);                  /* does nothing after commit */

/* Writes a whole small file through a file_writer. */
int file_write(const char *path, const void *data, size_t size, struct err *err);

/* A folder being written: files go to dir_writer.tmp, commit renames it to `path`. An existing non-empty `path` is refused
 * by open unless replace is set, in which case commit swaps it out. */
struct dir_writer {
    char *path, *tmp;
    bool replace;
};
int dir_writer_check(const char *path, bool replace, struct err *err); /* what open refuses, and nothing else */
int dir_writer_open(struct dir_writer *w, const char *path, bool replace, struct err *err);
int dir_writer_commit(struct dir_writer *w, struct err *err);
void dir_writer_abort(struct dir_writer *w);

/* Fails unless the file system where `path` (or, where that is not there yet, its folder) lies has room for `bytes` more; says how
 * many are needed and free. */
int disk_check(const char *path, int64_t bytes, struct err *err);

/* Makes a folder and its parents; existing ones are fine. */
int dir_make(const char *path, struct err *err);

/* Gives back the memory that holds pages of a file, or of the files in a folder: they are read from the disk again. */
void file_forget(const char *path);

/* Removes a folder and all that is in it. For our own temporary folders and for outputs that are replaced. */
void dir_remove(const char *path);

bool path_exists(const char *path);
bool path_is_dir(const char *path);
bool path_has_suffix(const char *path, const char *suffix);
const char *path_base(const char *path); /* the part after the last '/' */

/* "dir/name" in a malloc'ed string, or NULL and an error. */
char *path_join(const char *dir, const char *name, struct err *err);

#endif
