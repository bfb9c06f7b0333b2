#include "prune/score_ppl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows that go through a block together: enough to make decoding a weight cheap, few enough to stay near the caches. */
enum { CHUNK_ROWS = 1280 };

struct sweep {
    struct lm lm;
    const struct calibration *cal;
    float *states; /* [n_order + 1][rows, dim]: state 0 is the intact prefix, state k + 1 the variant without block k */
    int64_t rows;  /* cal->n * cal->len */
    int64_t state_floats;
    int64_t passes; /* sequences taken through a block so far, for progress */
};

/* Takes sequences [0, n) of the stacked states through one block, a chunk at a time. */
static void advance(struct sweep *s, int64_t slot, int64_t n, struct progress *progress)
{
    int64_t len = s->cal->len, dim = s->lm.m->cfg.dim, per_chunk = s->lm.max_rows / len;
    for (int64_t i = 0; i < n; i += per_chunk) {
        int64_t k = n - i < per_chunk ? n - i : per_chunk;
        float *x = s->states + i * len * dim;
        batch_uniform(&s->lm.batch, k, len);
        lm_block(&s->lm, x, x, slot);
        progress_update(progress, s->passes += k);
    }
}

/* Losses nll [cal->n, cal->len - 1] of one state (which is used up), and their mean. */
static int finish(struct sweep *s, float *nll, double *mean, int64_t state, struct err *err)
{
    int64_t len = s->cal->len, dim = s->lm.m->cfg.dim, per_chunk = s->lm.max_rows / len, n = s->cal->n * (len - 1);
    for (int64_t i = 0; i < s->cal->n; i += per_chunk) {
        int64_t k = s->cal->n - i < per_chunk ? s->cal->n - i : per_chunk;
        if (lm_stream_nll(&s->lm, nll + i * (len - 1), s->states + state * s->state_floats + i * len * dim, s->cal->ids + i * len,
                          k, len, err) != 0)
            return -1;
    }
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)nll[i];
    *mean = sum / (double)n;
    return 0;
}

static int walk(struct sweep *s, struct scores *out, struct progress *progress, struct err *err)
{
    const struct model *m = s->lm.m;
    int64_t n = s->cal->n, targets = n * (s->cal->len - 1);
    size_t state_bytes = (size_t)s->state_floats * sizeof(float);
    double mean;
    if (lm_embed(&s->lm, s->states, s->cal->ids, s->rows, err) != 0)
        return -1;
    for (int64_t k = 0; k < m->n_order; k++) {
        memcpy(s->states + (k + 1) * s->state_floats, s->states,
               state_bytes); /* the variant that skips block k stands still here */
        advance(s, k, (k + 1) * n, progress);
    }
    if (finish(s, out->base_nll, &mean, 0, err) != 0)
        return -1;
    out->base_ppl = exp(mean);
    for (int64_t k = 0; k < m->n_order; k++) {
        if (finish(s, out->removed_nll + k * targets, &mean, k + 1, err) != 0)
            return -1;
        out->score[k] = exp(mean);
        progress_update(progress, s->passes += n * m->n_order / 4); /* a head costs about as much as several blocks */
    }
    return 0;
}

int score_ppl(struct scores *out, const struct model *m, const struct compute *c, const struct lora_set *lora,
              const struct calibration *cal, struct progress *progress, struct err *err)
{
    int64_t len = cal->len, L = m->n_order, chunk = CHUNK_ROWS / len > 0 ? CHUNK_ROWS / len * len : len;
    struct sweep s = {.cal = cal, .rows = cal->n * len};
    int rc = -1;
    s.state_floats = s.rows * m->cfg.dim;
    if (chunk > s.rows * L)
        chunk = s.rows * L;
    if (scores_alloc(out, "ppl", L, err) != 0 || lm_open(&s.lm, m, c, lora, chunk, chunk / len, len, err) != 0)
        goto done;
    memcpy(out->model_hash, m->hash, sizeof out->model_hash);
    memcpy(out->block, m->order, (size_t)L * sizeof *out->block);
    out->model_blocks = m->cfg.n_blocks;
    out->samples = cal->n;
    out->targets = len - 1;
    out->base_nll = mem_alloc((size_t)cal->n, (size_t)out->targets * sizeof(float), err);
    out->removed_nll = mem_alloc((size_t)(L * cal->n), (size_t)out->targets * sizeof(float), err);
    s.states = mem_alloc((size_t)(L + 1), (size_t)s.state_floats * sizeof(float), err);
    if (!out->base_nll || !out->removed_nll || !s.states)
        goto done;
    progress_begin(progress, "scoring blocks", cal->n * (L * (L + 1) / 2) + L * (cal->n * L / 4), "sequences");
    rc = walk(&s, out, progress, err);
    if (rc == 0)
        progress_end(progress);
done:
    lm_close(&s.lm);
    free(s.states);
    if (rc != 0)
        scores_free(out);
    return rc;
}

double score_ppl_flops(const struct model *m, int64_t rows, int64_t len)
{
    double L = (double)m->n_order, per_block = 2.0 * (double)model_block_params(m);
    /* causal attention: q k^T and p v over half of the T x T square */
    per_block += 2.0 * (double)(m->cfg.n_heads * m->cfg.head_dim) * (double)(len + 1);
    double head = 2.0 * (double)(m->cfg.vocab_size * m->cfg.dim) * (double)(len - 1) / (double)len;
    return (double)rows * (per_block * L * (L + 1) / 2 + head * (L + 1));
}
