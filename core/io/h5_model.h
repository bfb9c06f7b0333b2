/* A model in one HDF5 file: the attributes "format" ("espalier model") and "config" (the text of a Hugging Face config.json), a
 * dataset for each tensor in the group "tensors", under its Hugging Face name, and the tokenizer's files as bytes in the group
 * "files". A dataset's attribute "dtype" says what it holds: f32 and f16 are HDF5's own floats, bf16 stands as 16-bit and f8_e4m3
 * as 8-bit unsigned integers, since HDF5 1.10 has no such floats.
 * The datasets are contiguous, so that a reader finds a tensor's bytes at one place in the file and maps them. Reading goes through
 * core/io/source.h. */
#ifndef ESPALIER_IO_H5_MODEL_H
#define ESPALIER_IO_H5_MODEL_H

#include "core/io/entry.h"
#include "core/io/h5.h"

struct h5_model_writer {
    struct h5_writer h5;
    const struct tensor_entry *entries;
    uint64_t *offsets; /* [n]: where each tensor's bytes go */
    int64_t n, at;
    size_t in_tensor; /* bytes of the tensor under way */
};

int h5_model_writer_open(struct h5_model_writer *w, const char *path, const char *config, struct err *err);
int h5_model_put_file(struct h5_model_writer *w, const char *name, const void *data, size_t n, struct err *err);
/* Makes the places of the tensors, entries[n] of f32, f16, bf16 or f8_e4m3, which must outlive the writer. What follows is their
 * data. */
int h5_model_tensors(struct h5_model_writer *w, const struct tensor_entry *entries, int64_t n, struct err *err);
/* Appends bytes of tensor data; a tensor may come in several pieces, but no piece holds parts of two tensors. */
int h5_model_put(struct h5_model_writer *w, const void *data, size_t bytes, struct err *err);
/* Everything is in the temporary file w->h5.out.tmp, to be looked at before the commit. */
int h5_model_flush(struct h5_model_writer *w, struct err *err);
int h5_model_commit(struct h5_model_writer *w, struct err *err); /* also releases w */
void h5_model_abort(struct h5_model_writer *w);                  /* does nothing after commit or on a zeroed writer */

#endif
