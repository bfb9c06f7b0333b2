#include "eval/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A draw among all tokens nearly always ends among these; sorting a whole vocabulary costs as much as the model's own step. */
enum { FIRST_LOOK = 256 };

int sampler_bind(struct sampler *s, int64_t vocab, struct arena *arena, struct err *err)
{
    s->vocab = vocab;
    s->candidates = arena_alloc(arena, (size_t)vocab, sizeof *s->candidates, err);
    s->weights = arena_alloc(arena, (size_t)vocab, sizeof *s->weights, err);
    s->biased = arena_alloc(arena, (size_t)vocab, sizeof *s->biased, err);
    return s->candidates && s->weights && s->biased ? 0 : -1;
}

const float *sample_biased(const struct sampler *s, const float *logits, const struct sampling *how, const int32_t *chosen,
                           int64_t n)
{
    if (how->presence_penalty == 0 && how->frequency_penalty == 0)
        n = 0;
    if (n == 0 && how->n_bias == 0)
        return logits;
    memcpy(s->biased, logits, (size_t)s->vocab * sizeof *logits);
    for (int64_t i = 0; i < n; i++) /* the same for each time that a token came */
        s->biased[chosen[i]] = logits[chosen[i]] - (float)how->presence_penalty;
    for (int64_t i = 0; i < n; i++)
        s->biased[chosen[i]] -= (float)how->frequency_penalty;
    for (int i = 0; i < how->n_bias; i++)
        s->biased[how->bias[i].id] += how->bias[i].logit;
    return s->biased;
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

/* Most tokens lose against the root of a small heap at once. */
void sample_likeliest(const struct sampler *s, const float *logits, int64_t n)
{
    struct candidate *heap = s->candidates;
    for (int64_t i = 0; i < s->vocab; i++) {
        struct candidate c = {logits[i], (int32_t)i};
        if (i < n) {
            heap[i] = c;
            if (i == n - 1)
                for (int64_t k = n / 2; k >= 0; k--)
                    sift_down(heap, n, k);
        } else if (by_logit(&c, &heap[0]) < 0) {
            heap[0] = c;
            sift_down(heap, n, 0);
        }
    }
    qsort(heap, (size_t)n, sizeof *heap, by_logit);
}

double sample_lse(const struct sampler *s, const struct row_kernels *rk, const float *logits)
{
    float top = rk->max(logits, s->vocab);
    return (double)top + log((double)rk->exp_sum(s->weights, logits, top, s->vocab));
}

/* Walks the n candidates, likeliest first, until `at` of their weight is passed. Returns -1 where n of them do not reach it. */
static int32_t walk(const struct sampler *s, int64_t n, double at, double scale)
{
    double best = (double)s->candidates[0].logit;
    for (int64_t i = 0; i < n; i++) {
        at -= exp(((double)s->candidates[i].logit - best) * scale);
        if (at < 0)
            return s->candidates[i].id;
    }
    return -1;
}

/* The sum of the weights of the n likeliest. */
static double weight_of(const struct sampler *s, const struct row_kernels *rk, const float *logits, int64_t n, double scale)
{
    double best = (double)s->candidates[0].logit, sum = 0;
    if (n == s->vocab) {
        memcpy(s->weights, logits, (size_t)n * sizeof *logits);
        rk->scale(s->weights, (float)scale, n);
        return (double)rk->exp_sum(s->weights, s->weights, (float)best * (float)scale, n);
    }
    for (int64_t i = 0; i < n; i++)
        sum += exp(((double)s->candidates[i].logit - best) * scale);
    return sum;
}

int32_t sample_token(const struct sampler *s, const struct row_kernels *rk, const float *logits, const struct sampling *how,
                     struct rng *rng)
{
    int64_t n = how->top_k > 0 && how->top_k < s->vocab ? how->top_k : s->vocab, top = 0;
    if (how->temperature <= 0) {
        float most = rk->max(logits, s->vocab);
        while (top < s->vocab - 1 && logits[top] != most)
            top++;
        return (int32_t)top;
    }
    double scale = 1 / how->temperature;
    int64_t looked = n == s->vocab && n > FIRST_LOOK ? FIRST_LOOK : n;
    sample_likeliest(s, logits, looked);
    /* The cut of top_p keeps whole tokens: the draw is among the fewest that reach it. */
    double sum = weight_of(s, rk, logits, n, scale), limit = how->top_p < 1 ? how->top_p * sum : sum;
    double u = rng_double(rng);
    for (;; looked = n, sample_likeliest(s, logits, n)) {
        double best = (double)s->candidates[0].logit, mass = 0;
        int64_t kept = 0;
        while (kept < looked && mass < limit)
            mass += exp(((double)s->candidates[kept++].logit - best) * scale);
        if (mass < limit && looked < n && how->top_p >= 1)
            mass = sum; /* all count; only the walk may have to look further */
        else if (mass < limit && looked < n)
            continue;
        int32_t id = walk(s, kept, u * mass, scale);
        if (id >= 0 || looked == n)
            return id >= 0 ? id : s->candidates[kept - 1].id;
    }
}
