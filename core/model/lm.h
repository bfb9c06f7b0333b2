/* One language-model pass: token ids in, per-token losses or logits out. Decoding, prefill, scoring and evaluation are this
 * pass with different batches. */
#ifndef ESPALIER_MODEL_LM_H
#define ESPALIER_MODEL_LM_H

#include "core/model/lora.h"
#include "core/model/model.h"

/* A session: buffers for passes of up to max_rows rows. The model, the compute and the adapter belong to the caller. */
struct lm {
    const struct model *m;
    const struct compute *c;
    const struct lora_set *lora; /* or NULL */
    int64_t max_rows;
    struct rope rope;
    struct batch batch;
    float *x; /* [max_rows, dim]: the residual stream */
    struct block_acts acts;
    struct head_acts head;
    int32_t *targets; /* [max_rows] */
    struct arena arena;
};

/* n_pos: positions that sequences may reach. */
int lm_open(struct lm *lm, const struct model *m, const struct compute *c, const struct lora_set *lora, int64_t max_rows,
            int64_t max_seqs, int64_t n_pos, struct err *err);
void lm_close(struct lm *lm);

/* x [rows, dim] = the embeddings of ids [rows]. Ids outside the vocabulary are an error. */
int lm_embed(const struct lm *lm, float *x, const int32_t *ids, int64_t rows, struct err *err);

/* A pass of lm->batch through block `slot` of the model's order, with these activation buffers and no dropout. */
struct block_pass lm_block_pass(const struct lm *lm, int64_t slot, struct block_acts *acts);

/* y = block `slot` of the model's order, or only some of its halves, applied to x, for the batch set up in lm->batch; y may be x.
 * Halves that the model runs without stay out in any case. */
void lm_block(struct lm *lm, float *y, const float *x, int64_t slot, unsigned parts);

/* Embeds ids (one per row of lm->batch) and runs every block; the result is lm->x. Advances the KV caches of the batch. */
int lm_forward(struct lm *lm, const int32_t *ids, struct err *err);

/* nll [rows] = -ln p(target) for the residual stream x [rows, dim]; rows is at most max_rows. Not-a-number is an error. */
int lm_nll(struct lm *lm, float *nll, const float *x, const int32_t *targets, int64_t rows, struct err *err);

/* Runs n sequences of ids [n, len] and writes the losses nll [n, len - 1] of each sequence's tokens from the second on.
 * n * len is at most max_rows. */
int lm_window_nll(struct lm *lm, float *nll, const int32_t *ids, int64_t n, int64_t len, struct err *err);

/* As lm_window_nll, but the losses nll [n, len - 1 - from] of each sequence's tokens behind its first from + 1 only. */
int lm_tail_nll(struct lm *lm, float *nll, const int32_t *ids, int64_t n, int64_t len, int64_t from, struct err *err);

/* The losses nll [n, len - 1] of n windows of ids [n, len] from their residual streams x [n, len, dim], which is packed in
 * place. */
int lm_stream_nll(struct lm *lm, float *nll, float *x, const int32_t *ids, int64_t n, int64_t len, struct err *err);

/* A cache with room for `cap` positions of every block that runs. */
int lm_cache(struct kv_cache *kv, const struct model *m, int64_t cap, struct arena *arena, struct err *err);

#endif
