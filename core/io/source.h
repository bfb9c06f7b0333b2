/* A weight source: the tensors of a model's files, by name, as checked views into mapped memory.
 * One interface over safetensors and PyTorch checkpoints (one file, or shards with an index), GGUF and HDF5. */
#ifndef ESPALIER_IO_SOURCE_H
#define ESPALIER_IO_SOURCE_H

#include "core/base/err.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/kernel/dtype.h"

enum { TENSOR_MAX_DIMS = 4 };

/* One tensor. The view is checked when the source opens: data + bytes lies inside the file, bytes fits shape and dtype. (What an
 * HDF5 file stores in pieces lies in memory instead.) */
struct tensor {
    const char *name;
    const char *file; /* the file it lies in, for messages */
    enum dtype dtype;
    int n_dims;
    int64_t shape[TENSOR_MAX_DIMS]; /* outermost first, as in PyTorch; a GGUF's order is reversed on reading */
    const uint8_t *data;
    size_t bytes;
};

/* A tensor of a type that no weight of a LLaMA has, or one that an index has in a file that is missing: an error only when the model
 * needs it. */
struct passed_over {
    const char *name, *file;
    const char *type; /* as the file calls it; NULL: `file` is missing */
};

/* A small file that lies inside a model file: a tokenizer's, in HDF5. */
struct inner_file {
    const char *name;
    const char *data; /* with a NUL after data[n - 1] */
    size_t n;
};

struct gguf; /* core/io/gguf.h */

struct source {
    struct arena arena;
    struct file_map *maps;
    int n_maps;
    struct tensor *tensors; /* sorted by name */
    int64_t n_tensors;
    struct passed_over *passed; /* sorted by name */
    int64_t n_passed;
    struct gguf *gguf;        /* metadata when the source is a GGUF, else NULL */
    const char *config;       /* the text of config.json when the source is an HDF5 file, else NULL */
    struct inner_file *files; /* [n_files], of an HDF5 file */
    int64_t n_files;
};

/* Opens a Hugging Face folder (model.safetensors, or else pytorch_model.bin, in one file or in shards with an index), a .gguf or a
 * .h5 file. */
int source_open(struct source *s, const char *path, struct err *err);
void source_close(struct source *s);

/* The tensor of that name, or NULL. */
const struct tensor *source_find(const struct source *s, const char *name);

/* What was passed over under that name, or NULL. */
const struct passed_over *source_passed_over(const struct source *s, const char *name);

/* The file that got shorter while it was read (bus_cut), or NULL. */
const char *source_cut(const struct source *s);

/* Bytes of the model's files. */
int64_t source_bytes(const struct source *s);

/* madvise for `bytes` of mapped weights from `data` on; memory that belongs to none of the files is left alone. */
void source_advise(const struct source *s, const void *data, size_t bytes, int advice);

/* The number of elements of a tensor. */
int64_t tensor_elements(const struct tensor *t);

/* ---- used by the readers of one format ---- */

/* Adds a tensor to s->tensors. */
int source_add(struct source *s, const struct tensor *t, int64_t *cap, struct err *err);

/* Notes that a tensor is there but of a type that is not read. */
int source_pass_over(struct source *s, const struct tensor *t, const char *type, struct err *err);

/* Reads the header of one mapped safetensors file and adds its tensors. */
int safetensors_add(struct source *s, const struct file_map *map, const char *file, int64_t *cap, struct err *err);

/* Reads the description of the tensors in one mapped PyTorch checkpoint (torch.save since 1.6) and adds them. */
int pytorch_add(struct source *s, const struct file_map *map, const char *file, int64_t *cap, struct err *err);

/* Reads what an HDF5 model of ours holds, see core/io/h5_model.h. */
int h5_model_add(struct source *s, const struct file_map *map, const char *file, int64_t *cap, struct err *err);

/* Reads a mapped GGUF's metadata and tensor table. */
int gguf_add(struct source *s, const struct file_map *map, const char *file, int64_t *cap, struct err *err);

#endif
