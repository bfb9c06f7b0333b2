/* Writing GGUF (version 3) in one pass: metadata, the tensor table, then the data of each tensor in the same order. */
#ifndef ESPALIER_IO_GGUF_WRITE_H
#define ESPALIER_IO_GGUF_WRITE_H

#include "core/base/err.h"
#include "core/base/file.h"
#include "core/io/entry.h"
#include "core/io/gguf.h"

struct gguf_writer {
    struct file_writer file;
    FILE *meta; /* keys and values so far, in memory */
    char *text;
    size_t text_bytes;
    uint64_t n_keys;
    size_t in_tensor; /* bytes of the tensor under way */
    const struct tensor_entry *entries;
    int64_t n, at;
};

int gguf_writer_open(struct gguf_writer *w, const char *path, struct err *err);

/* One key each. A failure to note them (memory) shows in gguf_writer_tensors. */
void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_put_f32(struct gguf_writer *w, const char *key, float v);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_put_text(struct gguf_writer *w, const char *key, const char *s, size_t n);

/* Begins an array of n elements, which follow by the functions below. */
void gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_type element, uint64_t n);
void gguf_add_text(struct gguf_writer *w, const char *s, size_t n);
void gguf_add_i32(struct gguf_writer *w, int32_t v);
void gguf_add_f32(struct gguf_writer *w, float v);

/* A key of another file, as it is there; of an array only the elements pick[n] where pick is not NULL. */
void gguf_put_value(struct gguf_writer *w, const struct gguf_value *v, const int64_t *pick, int64_t n);

/* Ends the metadata and writes it with the table of tensors, entries[n], which must outlive the writer. */
int gguf_writer_tensors(struct gguf_writer *w, const struct tensor_entry *entries, int64_t n, struct err *err);
/* Appends bytes of tensor data; a tensor may come in several pieces, but no piece holds parts of two tensors. */
int gguf_writer_put(struct gguf_writer *w, const void *data, size_t bytes, struct err *err);
/* Everything is in the temporary file w->file.tmp, to be looked at before the commit. */
int gguf_writer_flush(struct gguf_writer *w, struct err *err);
int gguf_writer_commit(struct gguf_writer *w, struct err *err); /* also releases w */
void gguf_writer_abort(struct gguf_writer *w);                  /* does nothing after commit or on a zeroed writer */

/* ggml's number of a dtype, or -1. */
int gguf_number_of_dtype(enum dtype t);

#endif
