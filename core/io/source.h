/* A weight source: the tensors of a model's files, by name, as checked views into mapped memory.
 * One interface over safetensors (one file, or shards with an index) and GGUF. */
#ifndef ESPALIER_IO_SOURCE_H
#define ESPALIER_IO_SOURCE_H

#include "core/base/err.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/kernel/dtype.h"

enum { TENSOR_MAX_DIMS = 4 };

/* One tensor. The view is checked when the source opens: data + bytes lies inside the file, bytes fits shape and dtype. */
struct tensor {
    const char *name;
    const char *file; /* the file it lies in, for messages */
    enum dtype dtype;
    int n_dims;
    int64_t shape[TENSOR_MAX_DIMS]; /* outermost first, as in PyTorch; a GGUF's order is reversed on reading */
    const uint8_t *data;
    size_t bytes;
};

struct gguf; /* core/io/gguf.h */

struct source {
    struct arena arena;
    struct file_map *maps;
    int n_maps;
    struct tensor *tensors; /* sorted by name */
    int64_t n_tensors;
    struct gguf *gguf; /* metadata when the source is a GGUF, else NULL */
};

/* Opens a Hugging Face folder (model.safetensors or model.safetensors.index.json) or a .gguf file. */
int source_open(struct source *s, const char *path, struct err *err);
void source_close(struct source *s);

/* The tensor of that name, or NULL. */
const struct tensor *source_find(const struct source *s, const char *name);

/* The number of elements of a tensor. */
int64_t tensor_elements(const struct tensor *t);

/* ---- used by the readers of one format ---- */

/* Adds a tensor to s->tensors. */
int source_add(struct source *s, const struct tensor *t, int64_t *cap, struct err *err);

/* Reads the header of one mapped safetensors file and adds its tensors. */
int safetensors_add(struct source *s, const struct file_map *map, const char *file, int64_t *cap, struct err *err);

/* Reads a mapped GGUF's metadata and tensor table. */
int gguf_add(struct source *s, const struct file_map *map, const char *file, int64_t *cap, struct err *err);

#endif
