/* What a model to be written consists of: the list of its tensors, the same for each format but for names and order of rows, and
 * the values that go into them. */
#ifndef ESPALIER_MODEL_MANIFEST_H
#define ESPALIER_MODEL_MANIFEST_H

#include "core/base/progress.h"
#include "core/io/entry.h"
#include "core/model/lora.h"
#include "core/model/model.h"

/* Random values instead of a model's: see manifest_randomise. */
struct noise {
    uint64_t key;
    float deviation;
};

/* Where the values of a tensor come from: a weight (perhaps with a LoRA to merge) or a float vector. */
struct item {
    char name[160];
    const struct weight *w; /* NULL: a vector */
    const struct lora *lora;
    const float *vector;
    bool zero;        /* zeros instead: the output of a half that does not run */
    bool scales;      /* the scales of the rows of the weight before it */
    int64_t pair_dim; /* head_dim where each head's rows are written as interleaved rope pairs, else 0 */
    struct noise noise;
};

struct manifest {
    struct tensor_entry *entries; /* [n], in the order they are written */
    struct item *items;           /* [n] */
    int64_t n;
    int64_t bytes;         /* of all tensors */
    int64_t fallbacks;     /* weights in f16, since their rows do not divide into blocks of the dtype asked for */
    const struct model *m; /* what it comes from */
    int64_t buffer_rows;   /* of the widest weight, for producing */
    int64_t widest;
    struct arena arena;
};

/* How the tensors are to be written. */
struct manifest_options {
    enum dtype dtype; /* of the weights */
    bool keep;        /* weights that have another of the `kept` dtypes already keep it */
    unsigned kept;    /* 1 << dtype for each */
    enum dtype rest;  /* of norms and biases; and of embedding and head where dtype is f8_e4m3 */
    bool pairs;       /* rows of q and k as interleaved rope pairs, as GGUF has them */
    const struct tensor_names *names;
    const struct lora_set *lora; /* merged in as W + scale B A; or NULL */
};

/* The tensors of m's blocks in their order, and of everything around them. */
int manifest_make(struct manifest *p, const struct model *m, const struct manifest_options *o, struct err *err);
void manifest_free(struct manifest *p);

/* Lets the weights be normal random numbers instead: each depends on seed, tensor name, row and column alone. The projections that
 * write to the residual stream of `blocks` blocks are narrower by sqrt(2 blocks), so that the stream stays of one size (the start
 * that GPT-2 was trained from). */
void manifest_randomise(struct manifest *p, uint64_t seed, float deviation, int64_t blocks);

/* Receives the encoded bytes of the tensors, in order and in pieces. */
typedef int sink_fn(void *arg, int64_t tensor, const void *data, size_t bytes, struct err *err);

/* Produces all tensors, a strip of rows at a time, on the compute's threads; what was read is given back strip by strip. A value
 * that the dtype has no finite number for is an error. A weight that is in its dtype already is copied, byte for byte. */
int manifest_produce(const struct manifest *p, const struct compute *c, sink_fn *sink, void *arg, struct progress *progress,
                     struct err *err);

#endif
