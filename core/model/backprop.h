/* A pass that goes back: the forward keeps what block_backward needs, or only each block's input and computes the rest again. */
#ifndef ESPALIER_MODEL_BACKPROP_H
#define ESPALIER_MODEL_BACKPROP_H

#include "core/base/progress.h"
#include "core/model/lm.h"

struct backprop {
    struct lm *lm;
    bool recompute;          /* one set of activations for all blocks, filled again on the way back */
    float **inputs;          /* [n_order + 1]: the residual stream before each block and after the last, [max_rows, dim] */
    struct block_acts *acts; /* [n_order], or [1] when recomputing */
    struct block_grads grads;
    float *d, *d_normed;      /* [max_rows, dim] */
    float *packed, *d_packed; /* [max_rows, dim]: the labelled rows, moved together for the head */
    float *scale;             /* [max_rows] */
    int64_t *where;           /* [max_rows]: the row that each labelled row came from */
    int64_t n_labelled;
    struct progress *progress; /* counts the blocks of a forward; or NULL */
    struct dropout dropout;    /* of the LoRA inputs; set before the forward, mixed with the block's slot */
    struct arena arena;
};

enum backprop_memory { BACKPROP_AUTO, BACKPROP_KEEP, BACKPROP_RECOMPUTE };

/* lm gives model, adapter and sizes; it must outlive bp. AUTO keeps everything where a third of the free memory holds it. */
int backprop_open(struct backprop *bp, struct lm *lm, enum backprop_memory memory, struct err *err);
void backprop_close(struct backprop *bp);

/* Forward over lm->batch. labels [rows]: the token each row should predict, or -100 for rows without a target (that is, already
 * shifted: labels[i] belongs to the logits of row i). nll receives the loss of each labelled row, in row order; *n their number. */
int backprop_forward(struct backprop *bp, float *nll, int64_t *n, const int32_t *ids, const int32_t *labels, struct err *err);

/* Gradients of the frozen weights, block by block, for those who want them; see struct weight_sink. */
struct gradient_sinks {
    void *arg;
    /* Fills `sink` for the block in `slot`; called just before that block goes backward, last block first. */
    void (*open)(void *arg, int64_t slot, struct weight_sink *sink);
    float *head, *norm; /* [vocab, dim], [dim]: accumulated; or NULL */
    float *embed;       /* [vocab, dim]: accumulated; may be `head` when the two are tied; or NULL */
};

/* Backward of sum_i weight[i] nll[i] over the n labelled rows of the last forward: accumulates into the adapter's gradients, and
 * into the sinks where given (NULL: none). */
void backprop_backward(struct backprop *bp, const int32_t *ids, const float *weight, const struct gradient_sinks *sinks);

/* The same in steps, for those who look in between: bp->d [rows, dim] becomes the gradient by the residual stream behind the last
 * block, then by that before block `slot`, which must come in order, last first. */
void backprop_head(struct backprop *bp, const float *weight, const struct gradient_sinks *sinks);
void backprop_block(struct backprop *bp, int64_t slot, const struct gradient_sinks *sinks);

#endif
