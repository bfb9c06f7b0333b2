#include "core/model/backprop.h"

#include <string.h>

#include "core/model/stream.h"

static size_t kept_bytes(const struct lm *lm, int64_t rank)
{
    return (size_t)lm->m->n_order * block_acts_bytes(&lm->m->shape, lm->max_rows, rank);
}

int backprop_open(struct backprop *bp, struct lm *lm, enum backprop_memory memory, struct err *err)
{
    const struct model *m = lm->m;
    int64_t rank = lm->lora ? lm->lora->rank : 0;
    size_t stream = (size_t)m->cfg.dim * sizeof(float), rows = (size_t)lm->max_rows;
    *bp = (struct backprop){.lm = lm};
    bp->recompute = memory == BACKPROP_RECOMPUTE || (memory == BACKPROP_AUTO && kept_bytes(lm, rank) > mem_available() / 3);
    int64_t sets = bp->recompute ? 1 : m->n_order;
    bp->inputs = arena_alloc(&bp->arena, (size_t)m->n_order + 1, sizeof *bp->inputs, err);
    bp->acts = arena_alloc(&bp->arena, (size_t)sets, sizeof *bp->acts, err);
    bp->d = arena_alloc(&bp->arena, rows, stream, err);
    bp->d_normed = arena_alloc(&bp->arena, rows, stream, err);
    bp->packed = arena_alloc(&bp->arena, rows, stream, err);
    bp->d_packed = arena_alloc(&bp->arena, rows, stream, err);
    bp->scale = arena_alloc(&bp->arena, rows, sizeof *bp->scale, err);
    bp->where = arena_alloc(&bp->arena, rows, sizeof *bp->where, err);
    if (!bp->inputs || !bp->acts || !bp->d || !bp->d_normed || !bp->packed || !bp->d_packed || !bp->scale || !bp->where ||
        block_grads_bind(&bp->grads, &bp->arena, &m->shape, lm->max_rows, err) != 0)
        goto fail;
    for (int64_t k = 0; k <= m->n_order; k++)
        if (!(bp->inputs[k] = arena_alloc(&bp->arena, rows, stream, err)))
            goto fail;
    for (int64_t k = 0; k < sets; k++)
        if (block_acts_bind(&bp->acts[k], &bp->arena, &m->shape, lm->max_rows, rank, err) != 0)
            goto fail;
    return 0;
fail:
    backprop_close(bp);
    return -1;
}

void backprop_close(struct backprop *bp)
{
    arena_free(&bp->arena);
    *bp = (struct backprop){0};
}

static struct block_pass pass_of(const struct backprop *bp, int64_t slot)
{
    struct block_pass p = lm_block_pass(bp->lm, slot, &bp->acts[bp->recompute ? 0 : slot]);
    p.dropout = bp->dropout;
    p.dropout.key += 0xd1342543de82ef95u * (uint64_t)(slot + 1);
    return p;
}

int backprop_forward(struct backprop *bp, float *nll, int64_t *n, const int32_t *ids, const int32_t *labels, struct err *err)
{
    struct lm *lm = bp->lm;
    int64_t dim = lm->m->cfg.dim, n_blocks = lm->m->n_order;
    if (lm_embed(lm, bp->inputs[0], ids, lm->batch.rows, err) != 0)
        return -1;
    for (int64_t k = 0; k < n_blocks; k++) {
        struct block_pass p = pass_of(bp, k);
        block_forward(&p, bp->inputs[k + 1], bp->inputs[k]);
        progress_update(bp->progress, k + 1);
    }
    bp->n_labelled = 0;
    for (int64_t i = 0; i < lm->batch.rows; i++) {
        if (labels[i] == -100)
            continue;
        memcpy(bp->packed + bp->n_labelled * dim, bp->inputs[n_blocks] + i * dim, (size_t)dim * sizeof(float));
        lm->targets[bp->n_labelled] = labels[i];
        bp->where[bp->n_labelled++] = i;
    }
    *n = bp->n_labelled;
    return lm_nll(lm, nll, bp->packed, lm->targets, bp->n_labelled, err);
}

void backprop_head(struct backprop *bp, const float *weight, const struct gradient_sinks *sinks)
{
    const struct lm *lm = bp->lm;
    int64_t dim = lm->m->cfg.dim, rows = lm->batch.rows;
    model_use(lm->m, lm->m->cfg.n_blocks);
    memcpy(bp->scale, weight, (size_t)bp->n_labelled * sizeof *weight);
    head_backward(lm->c, bp->d_packed, sinks ? sinks->head : NULL, sinks ? sinks->norm : NULL, bp->d_normed, &lm->m->head,
                  &lm->head, bp->packed, lm->targets, bp->scale, bp->n_labelled);
    memset(bp->d, 0, (size_t)(rows * dim) * sizeof *bp->d);
    for (int64_t i = 0; i < bp->n_labelled; i++)
        memcpy(bp->d + bp->where[i] * dim, bp->d_packed + i * dim, (size_t)dim * sizeof *bp->d);
}

void backprop_block(struct backprop *bp, int64_t slot, const struct gradient_sinks *sinks)
{
    struct block_pass p = pass_of(bp, slot);
    struct weight_sink sink = {0};
    if (bp->recompute)
        block_forward(&p, bp->d_normed, bp->inputs[slot]); /* the output goes nowhere, the activations are what is wanted */
    if (sinks && sinks->open)
        sinks->open(sinks->arg, slot, &sink);
    block_backward(&p, bp->d, bp->inputs[slot], &bp->grads, sinks ? &sink : NULL);
}

void backprop_backward(struct backprop *bp, const int32_t *ids, const float *weight, const struct gradient_sinks *sinks)
{
    const struct lm *lm = bp->lm;
    backprop_head(bp, weight, sinks);
    for (int64_t slot = lm->m->n_order - 1; slot >= 0; slot--)
        backprop_block(bp, slot, sinks);
    if (sinks && sinks->embed)
        for (int64_t i = 0; i < lm->batch.rows; i++)
            lm->c->rows->add(sinks->embed + ids[i] * lm->m->cfg.dim, bp->d + i * lm->m->cfg.dim, lm->m->cfg.dim);
}
