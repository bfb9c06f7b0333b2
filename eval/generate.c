#include "eval/generate.h"

#include <math.h>

#include "core/model/stream.h"

enum { PREFILL_ROWS = 512 };

int generator_open(struct generator *g, const struct model *m, const struct compute *c, const struct lora_set *lora,
                   int64_t max_positions, struct err *err)
{
    *g = (struct generator){0};
    size_t vocab = (size_t)m->cfg.vocab_size;
    int64_t rows = max_positions < PREFILL_ROWS ? max_positions : PREFILL_ROWS;
    g->logits = arena_alloc(&g->arena, vocab, sizeof *g->logits, err);
    if (!g->logits || sampler_bind(&g->sampler, m->cfg.vocab_size, &g->arena, err) != 0 ||
        lm_cache(&g->kv, m, max_positions, &g->arena, err) != 0 ||
        lm_open(&g->lm, m, c, lora, rows, GENERATOR_STEPS, max_positions, err) != 0) {
        generator_close(g);
        return -1;
    }
    return 0;
}

void generator_close(struct generator *g)
{
    lm_close(&g->lm);
    arena_free(&g->arena);
    *g = (struct generator){0};
}

void generator_reset(struct generator *g)
{
    g->kv.len = 0;
}

int generator_feed(struct generator *g, const int32_t *ids, int64_t n, struct err *err)
{
    if (n < 1 || g->kv.len + n > g->kv.cap)
        return err_set(err, "%lld tokens after %lld do not fit the %lld positions there is room for", (long long)n,
                       (long long)g->kv.len, (long long)g->kv.cap);
    int64_t dim = g->lm.m->cfg.dim, last = 0;
    for (int64_t i = 0; i < n; i += last) {
        last = n - i < g->lm.max_rows ? n - i : g->lm.max_rows;
        batch_clear(&g->lm.batch);
        batch_add(&g->lm.batch, last, g->kv.len, &g->kv);
        g->lm.batch.dotted = n > LINEAR_FEW_ROWS ? 0 : last;
        if (lm_forward(&g->lm, ids + i, err) != 0)
            return -1;
    }
    model_use(g->lm.m, g->lm.m->cfg.n_blocks);
    head_logits(g->lm.c, g->logits, &g->lm.m->head, &g->lm.head, g->lm.x + (last - 1) * dim, 1, true);
    if (!isfinite(g->logits[0]))
        return model_blame_nonfinite(g->lm.m, g->lm.c, "a logit", err);
    return 0;
}

int generator_steps(struct generator *g, float *logits, const int32_t *ids, int64_t n, struct err *err)
{
    if (n < 1 || n > GENERATOR_STEPS || n > g->lm.max_rows || g->kv.len + n > g->kv.cap)
        return err_set(err, "%lld steps after %lld tokens do not fit", (long long)n, (long long)g->kv.len);
    batch_clear(&g->lm.batch);
    for (int64_t i = 0; i < n; i++) /* a sequence each: keys are put into the cache before any row looks at them */
        batch_add(&g->lm.batch, 1, g->kv.len + i, &g->kv);
    g->lm.batch.dotted = n;
    if (lm_forward(&g->lm, ids, err) != 0)
        return -1;
    model_use(g->lm.m, g->lm.m->cfg.n_blocks);
    head_logits(g->lm.c, logits, &g->lm.m->head, &g->lm.head, g->lm.x, n, true);
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(logits[i * g->lm.m->cfg.vocab_size]))
            return model_blame_nonfinite(g->lm.m, g->lm.c, "a logit", err);
    return 0;
}

int32_t generator_pick(struct generator *g, const struct sampling *s, struct rng *rng)
{
    return sample_token(&g->sampler, g->lm.c->rows, g->logits, s, rng);
}

int generate(struct ids *out, struct generator *g, const int32_t *prompt, int64_t n_prompt, int64_t max_tokens,
             const struct tokenizer_ends *ends, const struct sampling *s, bool (*on_token)(void *arg, int32_t id), void *arg,
             struct err *err)
{
    struct rng rng;
    rng_seed(&rng, s->seed);
    if (generator_feed(g, prompt, n_prompt, err) != 0)
        return -1;
    for (int64_t i = 0; i < max_tokens; i++) {
        int32_t id = generator_pick(g, s, &rng);
        if (tokenizer_is_end(ends, id))
            break;
        if (ids_push(out, id, err) != 0)
            return -1;
        if (on_token && !on_token(arg, id))
            break;
        if (i + 1 < max_tokens && generator_feed(g, &id, 1, err) != 0)
            return -1;
    }
    return 0;
}
