#include "eval/generate.h"

#include <math.h>
#include <stdlib.h>

#include "core/model/stream.h"

enum { PREFILL_ROWS = 512 };

struct candidate {
    float logit;
    int32_t id;
};

int generator_open(struct generator *g, const struct model *m, const struct compute *c, const struct lora_set *lora,
                   int64_t max_positions, struct err *err)
{
    *g = (struct generator){0};
    size_t vocab = (size_t)m->cfg.vocab_size;
    int64_t rows = max_positions < PREFILL_ROWS ? max_positions : PREFILL_ROWS;
    g->logits = arena_alloc(&g->arena, vocab, sizeof *g->logits, err);
    g->candidates = arena_alloc(&g->arena, vocab, sizeof *g->candidates, err);
    if (!g->logits || !g->candidates || lm_cache(&g->kv, m, max_positions, &g->arena, err) != 0 ||
        lm_open(&g->lm, m, c, lora, rows, 1, max_positions, err) != 0) {
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
        if (lm_forward(&g->lm, ids + i, err) != 0)
            return -1;
    }
    model_use(g->lm.m, g->lm.m->cfg.n_blocks);
    head_logits(g->lm.c, g->logits, &g->lm.m->head, &g->lm.head, g->lm.x + (last - 1) * dim, 1);
    if (!isfinite(g->logits[0]))
        return model_blame_nonfinite(g->lm.m, g->lm.c, "a logit", err);
    return 0;
}

static int by_logit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Moves the root of a heap of n down to its place; the least likely candidate is at the root. */
static void sift_down(struct candidate *heap, int64_t n, int64_t at)
{
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && by_logit(&heap[child], &heap[child + 1]) < 0)
            child++;
        if (by_logit(&heap[at], &heap[child]) >= 0)
            return;
        struct candidate t = heap[at];
        heap[at] = heap[child];
        heap[child] = t;
    }
}

/* Leaves the `keep` likeliest of the vocabulary in g->candidates, likeliest first. Most tokens lose against the root of a small
 * heap at once; sorting all of them would cost as much as the model's own step. */
static void likeliest(struct generator *g, int64_t vocab, int64_t keep)
{
    struct candidate *heap = g->candidates;
    for (int64_t i = 0; i < vocab; i++) {
        struct candidate c = {g->logits[i], (int32_t)i};
        if (i < keep) {
            heap[i] = c;
            if (i == keep - 1)
                for (int64_t k = keep / 2; k >= 0; k--)
                    sift_down(heap, keep, k);
        } else if (by_logit(&c, &heap[0]) < 0) {
            heap[0] = c;
            sift_down(heap, keep, 0);
        }
    }
    qsort(heap, (size_t)keep, sizeof *heap, by_logit);
}

int32_t generator_pick(struct generator *g, const struct sampling *s, struct rng *rng)
{
    int64_t vocab = g->lm.m->cfg.vocab_size, n = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab, top = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (g->logits[i] > g->logits[top])
            top = i;
    if (s->temperature <= 0)
        return (int32_t)top;
    likeliest(g, vocab, n);
    double sum = 0, best = g->candidates[0].logit;
    for (int64_t i = 0; i < n; i++)
        sum += exp((g->candidates[i].logit - best) / s->temperature);
    double mass = 0, limit = s->top_p < 1 ? s->top_p * sum : sum;
    int64_t kept = 0;
    while (kept < n && mass < limit)
        mass += exp((g->candidates[kept++].logit - best) / s->temperature);
    double at = rng_double(rng) * mass;
    for (int64_t i = 0; i < kept; i++) {
        at -= exp((g->candidates[i].logit - best) / s->temperature);
        if (at < 0)
            return g->candidates[i].id;
    }
    return g->candidates[kept - 1].id;
}

int generate(struct ids *out, struct generator *g, const int32_t *prompt, int64_t n_prompt, int64_t max_tokens, int32_t eos,
             const struct sampling *s, bool (*on_token)(void *arg, int32_t id), void *arg, struct err *err)
{
    struct rng rng;
    rng_seed(&rng, s->seed);
    if (generator_feed(g, prompt, n_prompt, err) != 0)
        return -1;
    for (int64_t i = 0; i < max_tokens; i++) {
        int32_t id = generator_pick(g, s, &rng);
        if (id == eos && eos >= 0)
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
