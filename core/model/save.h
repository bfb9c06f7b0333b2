/* Writing a model, in a format that any loader of it takes: contiguous block numbers, a fitting description. */
#ifndef ESPALIER_MODEL_SAVE_H
#define ESPALIER_MODEL_SAVE_H

#include "core/base/progress.h"
#include "core/io/tokenizer.h"
#include "core/model/lora.h"
#include "core/model/model.h"

enum model_format { FORMAT_HF, FORMAT_GGUF, FORMAT_H5, FORMAT_COUNT };

struct format_traits {
    const char *name;   /* "hf", "gguf", "h5" */
    const char *suffix; /* of its file, with the dot; NULL: a folder */
    unsigned dtypes;    /* 1 << dtype for each that weights may have */
};
extern const struct format_traits format_table[FORMAT_COUNT];

/* The format of that name, or -1. */
int format_from_name(const char *name);

enum { DEFAULT_SHARD = 5 }; /* gigabytes (10^9 bytes), as Hugging Face's own */

/* What a save took. */
struct save_told {
    int64_t bytes; /* of all tensors */
    double write_seconds, check_seconds;
};

struct save_options {
    enum dtype dtype; /* of the weights: one that the format has */
    enum model_format format;
    bool keep;           /* weights keep the dtype they have where the format has it too, byte for byte if nothing changes them */
    int64_t shard_bytes; /* of a Hugging Face folder's files; 0: DEFAULT_SHARD */
    const struct lora_set *lora;       /* merged in as W + scale B A; or NULL */
    const struct tokenizer *tokenizer; /* is written too; or NULL */
    struct save_told *told;            /* is filled in; or NULL */
    struct file_writer *beside;        /* finished, gets its name together with a model that is one file; or NULL */
};

/* Writes the blocks of m's order, and everything around them: into the folder `path`, which must exist, or, where the format is one
 * file, as that file. What was written is opened and compared, byte for byte, with what was meant, a file before it gets its name.
 * Fails at once where the disk has no room for it. A weight that is not finite in its dtype is an error. */
int model_save(const struct model *m, const struct compute *c, const char *path, const struct save_options *o,
               struct progress *progress, struct err *err);

/* The dtype to save in when none is asked for: the model's own if the format has it, else f16. */
enum dtype model_save_dtype(const struct model *m, enum model_format format);

/* A checkpoint of the shape that `config` (a Hugging Face config.json) describes, with random weights: manifest_randomise with the
 * config's initializer_range, norms of 1 and biases of 0. Written into the folder `dir`, which must exist, in one pass; then it
 * is opened, but its weights are not read again. *params: how many numbers it has. */
int model_synthesise(int64_t *params, const char *config, const struct compute *c, const char *dir, enum dtype dtype, uint64_t seed,
                     int64_t shard_bytes, struct progress *progress, struct err *err);

#endif
