/* Writing safetensors files in one pass: the table first, then the data of each tensor in the same order.
 * Reading goes through core/io/source.h. */
#ifndef ESPALIER_IO_SAFETENSORS_H
#define ESPALIER_IO_SAFETENSORS_H

#include "core/base/err.h"
#include "core/base/file.h"
#include "core/kernel/dtype.h"

struct safetensors_entry {
    const char *name;
    enum dtype dtype; /* f32, f16 or bf16 */
    int n_dims;
    int64_t shape[4];
};

struct safetensors_writer {
    struct file_writer file;
    const struct safetensors_entry *entries;
    int64_t n;
};

/* Writes the header for entries[n], which must outlive the writer. */
int safetensors_writer_open(struct safetensors_writer *w, const char *path, const struct safetensors_entry *entries, int64_t n,
                            struct err *err);
/* Appends bytes of tensor data; a tensor may come in several pieces. */
int safetensors_writer_put(struct safetensors_writer *w, const void *data, size_t bytes, struct err *err);
int safetensors_writer_commit(struct safetensors_writer *w, struct err *err);
void safetensors_writer_abort(struct safetensors_writer *w);

#endif
