/* Writing safetensors files in one pass: the table first, then the data of each tensor in the same order.
 * Reading goes through core/io/source.h. */
#ifndef ESPALIER_IO_SAFETENSORS_H
#define ESPALIER_IO_SAFETENSORS_H

#include "core/base/err.h"
#include "core/base/file.h"
#include "core/io/entry.h"

struct safetensors_writer {
    struct file_writer file;
    const struct tensor_entry *entries;
    int64_t n;
};

/* Writes the header for entries[n] of f32, f16, bf16 or f8_e4m3, which must outlive the writer. note, unless NULL, goes into the
 * metadata under "espalier". */
int safetensors_writer_open(struct safetensors_writer *w, const char *path, const struct tensor_entry *entries, int64_t n,
                            const char *note, struct err *err);

/* That note of a file: *note is malloc'ed, or NULL where there is none. */
int safetensors_note(char **note, const char *path, struct err *err);
/* Appends bytes of tensor data; a tensor may come in several pieces. */
int safetensors_writer_put(struct safetensors_writer *w, const void *data, size_t bytes, struct err *err);
/* Once all is put: reads the file back, under its temporary name, and compares it bit for bit with data[n]. */
int safetensors_writer_check(struct safetensors_writer *w, const void *const data[], struct err *err);
/* All of the above for data[n] that are there: only the commit is left to do. On failure there is nothing to abort. */
int safetensors_writer_fill(struct safetensors_writer *w, const char *path, const struct tensor_entry *entries,
                            const void *const data[], int64_t n, const char *note, struct err *err);
int safetensors_writer_commit(struct safetensors_writer *w, struct err *err);
void safetensors_writer_abort(struct safetensors_writer *w);

/* The weights of a Hugging Face folder: model.safetensors, or, where they take more than `limit` bytes, shards of at most that
 * size (a single tensor may be larger) and their index. */
struct safetensors_folder {
    const char *dir;
    const struct tensor_entry *entries;
    int64_t n;
    int64_t *first; /* [n_shards + 1]: the first tensor of each shard */
    int64_t n_shards, shard;
    size_t left; /* bytes that the shard under way still needs */
    struct safetensors_writer w;
    bool open;
};

/* dir and entries[n] must outlive the writer. */
int safetensors_folder_open(struct safetensors_folder *f, const char *dir, const struct tensor_entry *entries, int64_t n,
                            int64_t limit, struct err *err);
/* Appends bytes of tensor data; a tensor may come in several pieces, but no piece holds parts of two tensors. */
int safetensors_folder_put(struct safetensors_folder *f, const void *data, size_t bytes, struct err *err);
/* Both release f; abort does nothing after commit, and leaves finished shards to whoever removes the folder. */
int safetensors_folder_commit(struct safetensors_folder *f, struct err *err);
void safetensors_folder_abort(struct safetensors_folder *f);

#endif
