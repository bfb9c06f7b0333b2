/* Files: mapped reading, and writing that leaves either the whole file under its name or nothing. */
#ifndef ESPALIER_BASE_FILE_H
#define ESPALIER_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/base/err.h"

struct file_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
};

/* Maps a regular file read-only. Release with file_unmap. */
int file_map(struct file_map *map, const char *path, struct err *err);
void file_unmap(struct file_map *map);

/* Reads a whole file, gunzipping it when it starts with the gzip magic. *data is malloc'ed, NUL-terminated past *size. Data that
 * grow past inflated_limit are an error: memory follows the input. */
int file_read(char **data, size_t *size, const char *path, struct err *err);

/* The same for text: a UTF-8 byte order mark at the start is left out; UTF-16, which nothing here reads, is an error. */
int file_read_text(char **data, size_t *size, const char *path, struct err *err);

/* The most bytes that this many compressed ones may become: 64 MiB, and 40 for each. */
size_t inflated_limit(size_t compressed);

/* SHA-256 of what comes piece by piece. A failure of begin or put is kept and told by end, which also releases. */
struct sha256 {
    void *context; /* OpenSSL's; NULL after a failure */
};
void sha256_begin(struct sha256 *s);
void sha256_put(struct sha256 *s, const void *data, size_t size);
int sha256_end(char hex[65], struct sha256 *s, struct err *err);

/* Lower-case hex SHA-256 of a file's bytes, or of a buffer. Where OpenSSL has none, hex becomes "" and that is an error. */
int file_sha256(char hex[65], const char *path, struct err *err);
int bytes_sha256(char hex[65], const void *data, size_t size, struct err *err);

/* A file being written under a temporary name beside `path`, or beside what it links to. commit flushes it to disk and renames it;
 * abort removes it; neither touches what somebody else has put under the temporary name. A device or a pipe is written into
 * instead, and has no temporary name. */
struct file_writer {
    FILE *f;
    char *path, *tmp;           /* tmp: NULL for a device or a pipe */
    struct stat made;           /* the file that was made under that name */
    size_t pending;             /* bytes put since the disk was last asked to begin with what it has */
    struct file_writer *before; /* another part of the same result, which commit and abort take along; or NULL */
};
int file_writer_open(struct file_writer *w, const char *path, struct err *err);
int file_writer_put(struct file_writer *w, const void *data, size_t size, struct err *err);
/* What was put is in the temporary file w->tmp, where it can be read before the commit. */
int file_writer_flush(struct file_writer *w, struct err *err);
/* Brings it to the disk and closes it: what can fail for lack of room has failed then, and commit only renames. */
int file_writer_finish(struct file_writer *w, struct err *err);
/* Also releases w, whether it succeeds or not. With parts before it, either all get their names, w last, or none does; where a crash
 * comes between, nothing has w's name, so that parts of two results are not taken for one. */
int file_writer_commit(struct file_writer *w, struct err *err);
void file_writer_abort(struct file_writer *w); /* does nothing after commit */

/* Writes a whole small file through a file_writer. */
int file_write(const char *path, const void *data, size_t size, struct err *err);

/* Fails unless the file system where `path` (or, where that is not there yet, its folder) lies has room for `bytes` more; says how
 * many are needed and free. */
int disk_check(const char *path, int64_t bytes, struct err *err);

/* Gives back the memory that holds pages of a file, or of the files in a folder: they are read from the disk again. */
void file_forget(const char *path);

/* Whether something has the name: 1, or 0 where it has not; what cannot be told, and a link to nothing, is an error (-1). */
int path_status(const char *path, struct err *err);

/* Whether both are of one file or folder. */
bool stat_is_same(const struct stat *a, const struct stat *b);

/* Whether the name, not followed where it is a link, stands for the very thing that `meant` is of. */
bool path_is_same(const char *path, const struct stat *meant);

/* Makes what was renamed to `path` last through a power failure: its folder goes to the disk. */
int path_sync(const char *path, struct err *err);

bool path_is_dir(const char *path);
bool path_has_suffix(const char *path, const char *suffix);
const char *path_base(const char *path); /* the part after the last '/' */

/* "<path>.part-<16 random digits>", malloc'ed; NULL and an error where there is no memory or no randomness. */
char *path_temporary(const char *path, struct err *err);

/* "dir/name" in a malloc'ed string, or NULL and an error. */
char *path_join(const char *dir, const char *name, struct err *err);

#endif
