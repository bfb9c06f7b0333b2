#include "prune/sweep.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/whole.h"
#include "prune/streams.h"

/* Rows that go through a block together: many, for its weights are decoded and packed once for them, but no more than have their
 * activations in ACTS_BYTES, unless that is too few. */
enum { MIN_ROWS = 1280, MAX_ROWS = 5120, ACTS_BYTES = 480 << 20 };

static int64_t chunk_rows(const struct model *m, int64_t len)
{
    int64_t fit = ACTS_BYTES / (int64_t)block_acts_bytes(&m->shape, 1, 0);
    int64_t rows = min_i64(fit < MIN_ROWS ? MIN_ROWS : fit, MAX_ROWS);
    return rows / len > 0 ? rows / len * len : len;
}

int sweep_open(struct sweep *s, const struct model *m, const struct compute *c, const struct lora_set *lora,
               const struct calibration *cal, int64_t max_states, struct progress *progress, struct err *err)
{
    int64_t len = cal->len, chunk;
    *s = (struct sweep){.cal = cal, .progress = progress, .max_states = max_states, .rows = cal->n * len};
    s->state_floats = s->rows * m->cfg.dim;
    chunk = min_i64(chunk_rows(m, len), s->rows * max_states);
    if (streams_fit(cal, max_states, m->cfg.dim, err) != 0)
        return -1;
    s->states = mem_alloc((size_t)max_states, (size_t)s->state_floats * sizeof(float), err);
    if (!s->states || lm_open(&s->lm, m, c, lora, chunk, chunk / len, len, err) != 0) {
        sweep_close(s);
        return -1;
    }
    return 0;
}

void sweep_close(struct sweep *s)
{
    lm_close(&s->lm);
    free(s->states);
    *s = (struct sweep){0};
}

int sweep_embed(struct sweep *s, struct err *err)
{
    return lm_embed(&s->lm, s->states, s->cal->ids, s->rows, err);
}

struct copy_job {
    float *to;
    const float *from;
    int64_t n;
};

enum { COPY_FLOATS = 1 << 18 };

static void copy_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct copy_job *j = arg;
    int64_t i = task * COPY_FLOATS, n = min_i64(COPY_FLOATS, j->n - i);
    memcpy(j->to + i, j->from + i, (size_t)n * sizeof *j->to);
}

void sweep_copy(const struct sweep *s, float *to, const float *from, int64_t n)
{
    struct copy_job j = {to, from, n * s->state_floats};
    pool_run(s->lm.c->pool, copy_task, &j, ceil_div(j.n, COPY_FLOATS));
}

void sweep_advance(struct sweep *s, int64_t slot, unsigned parts, int64_t first, int64_t n)
{
    int64_t len = s->cal->len, dim = s->lm.m->cfg.dim, per_chunk = s->lm.max_rows / len, seqs = n * s->cal->n;
    for (int64_t i = 0; i < seqs; i += per_chunk) {
        int64_t k = min_i64(per_chunk, seqs - i);
        float *x = sweep_state(s, first) + i * len * dim;
        batch_uniform(&s->lm.batch, k, len);
        lm_block(&s->lm, x, x, slot, parts);
        progress_update(s->progress, s->done += k);
    }
}

int sweep_finish(struct sweep *s, float *nll, double *mean, int64_t state, struct err *err)
{
    int64_t len = s->cal->len, dim = s->lm.m->cfg.dim, per_chunk = s->lm.max_rows / len, n = s->cal->n * (len - 1);
    for (int64_t i = 0; i < s->cal->n; i += per_chunk) {
        int64_t k = min_i64(per_chunk, s->cal->n - i);
        if (lm_stream_nll(&s->lm, nll + i * (len - 1), sweep_state(s, state) + i * len * dim, s->cal->ids + i * len, k, len, err) !=
            0)
            return -1;
    }
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)nll[i];
    *mean = sum / (double)n;
    progress_update(s->progress, s->done += sweep_head_cost(s));
    return 0;
}

int64_t sweep_head_cost(const struct sweep *s)
{
    const struct model *m = s->lm.m;
    return s->cal->n * m->cfg.vocab_size * m->cfg.dim / model_block_params(m, PARTS_ALL);
}
