#include "core/nn/attention.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/nn/tile.h"

enum { TILE_KEYS = 256 };

/* Where the keys (which = 0) or values (which = 1) of a sequence's slot begin. */
static float *cache_at(const struct kv_cache *kv, int64_t slot, int which, const struct heads *h)
{
    return kv->data + (2 * slot + which) * kv->cap * h->n_kv * h->dim;
}

void kv_append(const float *k, const float *v, const struct batch *b, int64_t slot, const struct heads *h)
{
    int64_t width = h->n_kv * h->dim;
    for (int64_t i = 0; i < b->n_seqs; i++) {
        const struct seq *s = &b->seqs[i];
        if (!s->kv)
            continue;
        size_t bytes = (size_t)(s->len * width) * sizeof *k;
        memcpy(cache_at(s->kv, slot, 0, h) + s->pos * width, k + s->row * width, bytes);
        memcpy(cache_at(s->kv, slot, 1, h) + s->pos * width, v + s->row * width, bytes);
    }
}

struct job {
    const struct compute *c;
    const struct batch *b;
    const struct heads *h;
    int64_t slot;
    float scale;
    const float *q, *k, *v;
    float *out, *lse;  /* forward: results; backward: read */
    const float *dout; /* backward */
    float *dq, *dk, *dv;
};

/* One head of one query tile on its way through the keys: m and l are the running maximum and sum of each row. */
struct query {
    const float *q;
    float *out, *p;
    int64_t n;
    bool begun;
    float m[QUERY_TILE], l[QUERY_TILE];
};

/* Takes in n_keys keys and values, TILE_KEYS at a time. Row i sees the first seen + i of them, and at least one of the first tile
 * that is taken in at all. */
static void take_keys(const struct job *j, struct query *t, const float *k, const float *v, int64_t n_keys, int64_t seen)
{
    int64_t d = j->h->dim, q_width = j->h->n * d, kv_width = j->h->n_kv * d;
    const struct row_kernels *rk = j->c->rows;
    for (int64_t k0 = 0; k0 < n_keys; k0 += TILE_KEYS, t->begun = true) {
        int64_t nk = min_i64(TILE_KEYS, n_keys - k0);
        gemm(j->c, t->p, nk, t->q, q_width, k + k0 * kv_width, kv_width, t->n, nk, d, j->scale, 0, GEMM_TRANS_B);
        for (int64_t i = 0; i < t->n; i++) {
            float *pi = t->p + i * nk;
            int64_t here = min_i64(nk, seen + i - k0);
            if (here < 0)
                here = 0;
            if (here > 0) {
                float top = rk->max(pi, here), old = t->m[i];
                t->m[i] = top > old ? top : old;
                float shrink = t->begun ? expf(old - t->m[i]) : 0;
                t->l[i] = t->l[i] * shrink + rk->exp_sum(pi, pi, t->m[i], here);
                if (t->begun && shrink != 1)
                    rk->scale(t->out + i * q_width, shrink, d);
            }
            memset(pi + here, 0, (size_t)(nk - here) * sizeof *pi);
        }
        gemm(j->c, t->out, q_width, t->p, nk, v + k0 * kv_width, kv_width, t->n, d, nk, 1, t->begun ? 1 : 0, 0);
    }
}

/* One head of one query tile against all its keys: those of its own sequence, then those of what came before it. */
static void forward_head(const struct job *j, const struct seq *s, const struct query_tile *t, int64_t head, float *scratch)
{
    const struct heads *h = j->h;
    int64_t d = h->dim, q_width = h->n * d, kv_width = h->n_kv * d, at = head / (h->n / h->n_kv) * d;
    int64_t row = s->row + t->begin, past = s->kv ? s->pos : 0, seen = past + t->begin + 1;
    struct query q = {.q = j->q + row * q_width + head * d, .out = j->out + row * q_width + head * d, .p = scratch, .n = t->n};
    for (int64_t i = 0; i < t->n; i++)
        q.m[i] = -INFINITY;
    const float *k = s->kv ? cache_at(s->kv, j->slot, 0, h) : j->k + s->row * kv_width;
    const float *v = s->kv ? cache_at(s->kv, j->slot, 1, h) : j->v + s->row * kv_width;
    take_keys(j, &q, k + at, v + at, past + t->begin + t->n, seen);
    for (; s->trunk; s = s->trunk) {
        int64_t shared = s->pos - s->trunk->pos;
        take_keys(j, &q, j->k + s->trunk->row * kv_width + at, j->v + s->trunk->row * kv_width + at, shared, shared);
    }
    for (int64_t i = 0; i < t->n; i++) {
        j->c->rows->scale(q.out + i * q_width, 1 / q.l[i], d);
        j->lse[(row + i) * h->n + head] = q.m[i] + logf(q.l[i]);
    }
}

/* One task: a query tile and the heads that share one key-value head. */
static void forward_task(void *arg, int64_t task, int worker)
{
    const struct job *j = arg;
    const struct query_tile *t = &j->b->tiles[task / j->h->n_kv];
    int64_t per_group = j->h->n / j->h->n_kv, first = task % j->h->n_kv * per_group;
    for (int64_t head = first; head < first + per_group; head++)
        forward_head(j, &j->b->seqs[t->seq], t, head, j->c->scratch[worker]);
}

void attention_forward(const struct compute *c, float *out, float *lse, const float *q, const float *k, const float *v,
                       const struct batch *b, int64_t slot, const struct heads *h)
{
    struct job j = {
        .c = c, .b = b, .h = h, .slot = slot, .scale = 1 / sqrtf((float)h->dim), .q = q, .k = k, .v = v, .out = out, .lse = lse};
    pool_run(c->pool, forward_task, &j, b->n_tiles * h->n_kv);
}

/* One head of one query tile: recomputes P key tile by key tile and adds this tile's share to dq, dk and dv. */
static void backward_head(const struct job *j, const struct seq *s, int64_t begin, int64_t n, int64_t head, float *scratch)
{
    const struct heads *h = j->h;
    int64_t d = h->dim, q_width = h->n * d, kv_width = h->n_kv * d, group = head / (h->n / h->n_kv);
    int64_t row = s->row + begin, q_at = row * q_width + head * d, kv_at = s->row * kv_width + group * d;
    float *p = scratch, *ds = scratch + n * TILE_KEYS, delta[QUERY_TILE];
    for (int64_t i = 0; i < n; i++)
        delta[i] = j->c->rows->dot(j->dout + q_at + i * q_width, j->out + q_at + i * q_width, d);
    for (int64_t k0 = 0; k0 < begin + n; k0 += TILE_KEYS) {
        int64_t nk = min_i64(TILE_KEYS, begin + n - k0), at = kv_at + k0 * kv_width;
        gemm(j->c, p, nk, j->q + q_at, q_width, j->k + at, kv_width, n, nk, d, j->scale, 0, GEMM_TRANS_B);
        gemm(j->c, ds, nk, j->dout + q_at, q_width, j->v + at, kv_width, n, nk, d, 1, 0, GEMM_TRANS_B);
        for (int64_t i = 0; i < n; i++) {
            float *pi = p + i * nk, *di = ds + i * nk;
            int64_t seen = min_i64(nk, begin + i + 1 - k0);
            if (seen < 0)
                seen = 0;
            if (seen > 0)
                j->c->rows->exp_sum(pi, pi, j->lse[(row + i) * h->n + head], seen);
            for (int64_t q = 0; q < seen; q++)
                di[q] = pi[q] * (di[q] - delta[i]) * j->scale;
            memset(pi + seen, 0, (size_t)(nk - seen) * sizeof *pi);
            memset(di + seen, 0, (size_t)(nk - seen) * sizeof *di);
        }
        gemm(j->c, j->dv + at, kv_width, p, nk, j->dout + q_at, q_width, nk, d, n, 1, 1, GEMM_TRANS_A);
        gemm(j->c, j->dk + at, kv_width, ds, nk, j->q + q_at, q_width, nk, d, n, 1, 1, GEMM_TRANS_A);
        gemm(j->c, j->dq + q_at, q_width, ds, nk, j->k + at, kv_width, n, d, nk, 1, k0 ? 1 : 0, 0);
    }
}

/* One task: a whole sequence and one key-value head, so that no two tasks add to the same dk and dv. */
static void backward_task(void *arg, int64_t task, int worker)
{
    const struct job *j = arg;
    const struct heads *h = j->h;
    const struct seq *s = &j->b->seqs[task / h->n_kv];
    int64_t per_group = h->n / h->n_kv, group = task % h->n_kv, width = h->n_kv * h->dim;
    for (int64_t i = 0; i < s->len; i++) {
        memset(j->dk + (s->row + i) * width + group * h->dim, 0, (size_t)h->dim * sizeof(float));
        memset(j->dv + (s->row + i) * width + group * h->dim, 0, (size_t)h->dim * sizeof(float));
    }
    for (int64_t begin = 0; begin < s->len; begin += QUERY_TILE)
        for (int64_t head = group * per_group; head < (group + 1) * per_group; head++)
            backward_head(j, s, begin, min_i64(QUERY_TILE, s->len - begin), head, j->c->scratch[worker]);
}

void attention_backward(const struct compute *c, float *dq, float *dk, float *dv, const float *dout, const float *out,
                        const float *lse, const float *q, const float *k, const float *v, const struct batch *b,
                        const struct heads *h)
{
    struct job j = {.c = c,
                    .b = b,
                    .h = h,
                    .scale = 1 / sqrtf((float)h->dim),
                    .q = q,
                    .k = k,
                    .v = v,
                    .out = (float *)out,
                    .lse = (float *)lse,
                    .dout = dout,
                    .dq = dq,
                    .dk = dk,
                    .dv = dv};
    pool_run(c->pool, backward_task, &j, b->n_seqs * h->n_kv);
}
