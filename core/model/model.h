/* A model: its description, its weights as views into the files, and the list of blocks that run. */
#ifndef ESPALIER_MODEL_MODEL_H
#define ESPALIER_MODEL_MODEL_H

#include "core/io/source.h"
#include "core/model/config.h"
#include "core/model/unit.h"
#include "core/nn/head.h"

struct model {
    char *path;
    const char *format; /* "hf", "gguf", "h5" */
    struct config cfg;
    struct block_shape shape;
    struct source src;
    struct block *blocks; /* [cfg.n_blocks] */
    int64_t *order;       /* [n_order]: the blocks that run, in the order they run; pruning edits this list, */
                          /* and blocks[].parts where only half of a block goes */
    int64_t n_order;
    struct weight embed; /* [vocab, dim] */
    struct head head;
    const float *rope_factors; /* [head_dim / 2] divisors of the rotary frequencies (GGUF's rope_freqs), or NULL */
    char hash[65];             /* SHA-256 over the description and the tensor index: names, types, shapes */
    char fingerprint[65];      /* "" until model_fingerprint */
    struct stream *stream;     /* NULL: weights stay in memory as the system sees fit; see core/model/stream.h */
    struct arena arena;
};

/* Opens a Hugging Face folder, a GGUF or an HDF5 file of ours and checks every tensor against the description. Nothing is read
 * but headers. */
int model_open(struct model *m, const char *path, struct err *err);
void model_close(struct model *m);

/* Identity of the weights, in m->fingerprint: SHA-256 over the hash, what the description says about the numbers, and a sample of
 * each tensor's bytes as they are in the file: all of a tensor up to 1 MiB, else four pieces of 16 KiB, from its first byte to its
 * last. A model of 13 GB takes reading 20 MiB. The weights of one unit alone: for telling which block of which model it is. */
int model_fingerprint(struct model *m, struct err *err);
int model_unit_fingerprint(char hex[65], const struct model *m, struct unit u, struct err *err);

/* Another list of what runs over the same weights: dropping from a view leaves the model as it is. Both may be run, by one thread
 * at a time. A view is released by model_view_free, before its model is closed. */
int model_view(struct model *view, const struct model *m, struct err *err);
void model_view_free(struct model *view);

/* Takes units out of what runs. Block numbers are those of the model as it is on disk; something that does not run already, a
 * number out of range, and dropping everything are errors. */
int model_drop(struct model *m, const struct unit *drop, int64_t n, struct err *err);

/* The same for a list as units_parse takes it. */
int model_drop_list(struct model *m, const char *list, struct err *err);

/* Puts back whatever was dropped. */
void model_restore(struct model *m);

/* Parameters of what runs and of everything around it (a tied head counts once); of these halves of one block. */
int64_t model_params(const struct model *m);
int64_t model_running_params(const struct model *m); /* of the blocks alone */
int64_t model_block_params(const struct model *m, unsigned parts);

/* The dtype most of the weights have, as a name. */
const char *model_dtype(const struct model *m);

/* cos, sin [n_pos, head_dim / 2], owned by the arena. */
int model_rope(struct rope *rope, const struct model *m, int64_t n_pos, struct arena *arena, struct err *err);

/* Called when a result is not a number: an error that names the first tensor with a NaN or an infinity, or else `what`. */
int model_blame_nonfinite(const struct model *m, const struct compute *c, const char *what, struct err *err);

/* The Hugging Face name of a projection inside a block: "self_attn.q_proj", ... */
extern const char *const proj_names[PROJ_COUNT];

/* Names of the same tensors in the kinds of file; an HDF5 file has Hugging Face's. A projection's is <prefix><proj>.weight or
 * .bias. */
struct tensor_names {
    const char *embed, *norm, *head, *norm_attn, *norm_ffn, *block_prefix, *const *proj;
    const char *rope_factors; /* NULL: only a config can say them */
};
extern const struct tensor_names hf_names, gguf_names;

/* Rows and columns of a projection's weight. */
void model_proj_shape(int64_t *rows, int64_t *cols, const struct config *cfg, enum proj p);

#endif
