#include "core/model/lm.h"

#include <math.h>
#include <string.h>

#include "core/model/stream.h"

int lm_open(struct lm *lm, const struct model *m, const struct compute *c, const struct lora_set *lora, int64_t max_rows,
            int64_t max_seqs, int64_t n_pos, struct err *err)
{
    *lm = (struct lm){.m = m, .c = c, .lora = lora, .max_rows = max_rows};
    lm->x = arena_alloc(&lm->arena, (size_t)max_rows, (size_t)m->cfg.dim * sizeof(float), err);
    lm->targets = arena_alloc(&lm->arena, (size_t)max_rows, sizeof *lm->targets, err);
    if (!lm->x || !lm->targets || batch_bind(&lm->batch, &lm->arena, max_rows, max_seqs, err) != 0 ||
        model_rope(&lm->rope, m, n_pos, &lm->arena, err) != 0 ||
        block_acts_bind(&lm->acts, &lm->arena, &m->shape, max_rows, lora ? lora->rank : 0, err) != 0 ||
        head_acts_bind(&lm->head, &lm->arena, &m->head, max_rows, err) != 0) {
        lm_close(lm);
        return -1;
    }
    return 0;
}

void lm_close(struct lm *lm)
{
    arena_free(&lm->arena);
    *lm = (struct lm){0};
}

int lm_embed(const struct lm *lm, float *x, const int32_t *ids, int64_t rows, struct err *err)
{
    const struct weight *w = &lm->m->embed;
    for (int64_t i = 0; i < rows; i++) {
        if (ids[i] < 0 || ids[i] >= w->rows)
            return err_set(err, "token id %d is outside the vocabulary of %s (0 to %lld)", ids[i], lm->m->path,
                           (long long)w->rows - 1);
        weight_decode(lm->c, x + i * w->cols, w, ids[i], 1);
    }
    return 0;
}

struct block_pass lm_block_pass(const struct lm *lm, int64_t slot, struct block_acts *acts)
{
    model_use(lm->m, lm->m->order[slot]);
    return (struct block_pass){.c = lm->c,
                               .shape = &lm->m->shape,
                               .block = &lm->m->blocks[lm->m->order[slot]],
                               .lora = lm->lora ? &lm->lora->blocks[slot] : NULL,
                               .rope = &lm->rope,
                               .batch = &lm->batch,
                               .parts = lm->m->blocks[lm->m->order[slot]].parts,
                               .slot = slot,
                               .acts = acts};
}

void lm_block(struct lm *lm, float *y, const float *x, int64_t slot, unsigned parts)
{
    struct block_acts acts = lm->acts;
    if (y == x)
        acts.mid = y; /* nothing goes backward: the middle of the block may overwrite its input */
    struct block_pass p = lm_block_pass(lm, slot, &acts);
    p.parts &= parts;
    block_forward(&p, y, x);
}

int lm_forward(struct lm *lm, const int32_t *ids, struct err *err)
{
    if (lm_embed(lm, lm->x, ids, lm->batch.rows, err) != 0)
        return -1;
    for (int64_t slot = 0; slot < lm->m->n_order; slot++)
        lm_block(lm, lm->x, lm->x, slot, PARTS_ALL);
    for (int64_t i = 0; i < lm->batch.n_seqs; i++) {
        const struct seq *s = &lm->batch.seqs[i];
        if (s->kv)
            s->kv->len = s->pos + s->len;
    }
    return 0;
}

int lm_nll(struct lm *lm, float *nll, const float *x, const int32_t *targets, int64_t rows, struct err *err)
{
    if (rows == 0)
        return 0;
    for (int64_t i = 0; i < rows; i++)
        if (targets[i] < 0 || targets[i] >= lm->m->head.w.rows)
            return err_set(err, "token id %d is outside the vocabulary of %s", targets[i], lm->m->path);
    model_use(lm->m, lm->m->cfg.n_blocks);
    head_nll(lm->c, nll, &lm->m->head, &lm->head, x, targets, rows);
    for (int64_t i = 0; i < rows; i++)
        if (!isfinite(nll[i]))
            return model_blame_nonfinite(lm->m, lm->c, "a token's loss", err);
    return 0;
}

/* The losses of positions from .. len - 2 of each window: the last one predicts nothing that is scored. */
static int stream_tail_nll(struct lm *lm, float *nll, float *x, const int32_t *ids, int64_t n, int64_t len, int64_t from,
                           struct err *err)
{
    int64_t dim = lm->m->cfg.dim, targets = len - 1 - from;
    for (int64_t i = 0; i < n; i++) {
        memmove(x + i * targets * dim, x + (i * len + from) * dim, (size_t)(targets * dim) * sizeof *x);
        memcpy(lm->targets + i * targets, ids + i * len + from + 1, (size_t)targets * sizeof *lm->targets);
    }
    return lm_nll(lm, nll, x, lm->targets, n * targets, err);
}

int lm_stream_nll(struct lm *lm, float *nll, float *x, const int32_t *ids, int64_t n, int64_t len, struct err *err)
{
    return stream_tail_nll(lm, nll, x, ids, n, len, 0, err);
}

int lm_tail_nll(struct lm *lm, float *nll, const int32_t *ids, int64_t n, int64_t len, int64_t from, struct err *err)
{
    batch_uniform(&lm->batch, n, len);
    if (lm_forward(lm, ids, err) != 0)
        return -1;
    return stream_tail_nll(lm, nll, lm->x, ids, n, len, from, err);
}

int lm_window_nll(struct lm *lm, float *nll, const int32_t *ids, int64_t n, int64_t len, struct err *err)
{
    return lm_tail_nll(lm, nll, ids, n, len, 0, err);
}

int lm_cache(struct kv_cache *kv, const struct model *m, int64_t cap, struct arena *arena, struct err *err)
{
    *kv = (struct kv_cache){.cap = cap};
    size_t per_pos = (size_t)(m->n_order * 2 * m->cfg.n_kv_heads * m->cfg.head_dim) * sizeof(float);
    kv->data = arena_alloc(arena, (size_t)cap, per_pos, err);
    return kv->data ? 0 : -1;
}
