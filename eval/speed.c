#include "eval/speed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/whole.h"
#include "eval/engine_impl.h"

enum { PREFILL_ROWS = 512 };

int64_t speed_bytes_per_step(const struct model *m, int64_t batch)
{
    size_t n = (size_t)m->head.w.rows * m->head.w.row_bytes + (size_t)batch * m->embed.row_bytes;
    for (int64_t k = 0; k < m->n_order; k++)
        for (int p = 0; p < PROJ_COUNT; p++) {
            const struct block *b = &m->blocks[m->order[k]];
            if (b->parts & proj_part((enum proj)p))
                n += (size_t)b->proj[p].rows * (b->proj[p].row_bytes + (b->proj[p].scale ? sizeof(float) : 0));
        }
    return (int64_t)n;
}

struct rig {
    const struct speed_protocol *p;
    struct lane lane;
    struct sequence sequences[SPEED_MAX_BATCH];
    int32_t *ids; /* [batch, out_len] */
    int64_t prompt_rows;
    struct progress *progress;
    int64_t tokens; /* of the runs before */
};

/* One run. */
struct timing {
    double prefill, decode; /* seconds until every sequence has a token, and from then on */
    int64_t decoded;        /* tokens of the second part */
};

static void begin(struct rig *g, const int32_t *prompts)
{
    lane_forget(&g->lane);
    g->prompt_rows = 0;
    for (int64_t i = 0; i < g->p->batch; i++) {
        struct sequence *s = &g->sequences[i];
        *s = (struct sequence){.ask = {.prompt = prompts + i * g->p->n_prompt, .n_prompt = g->p->n_prompt}};
        s->ask.max_tokens = g->p->out_len;
        s->ids = g->ids + i * g->p->out_len;
        lane_admit(&g->lane, s, (uint64_t)i + 1);
    }
}

/* *all: the new tokens of all sequences together. Returns the least that one has. */
static int64_t produced(const struct rig *g, int64_t *all)
{
    int64_t least = INT64_MAX;
    *all = 0;
    for (int64_t i = 0; i < g->p->batch; i++) {
        least = min_i64(least, g->sequences[i].produced);
        *all += g->sequences[i].produced;
    }
    return least;
}

/* A step; the sequences that end with it leave. */
static int step(struct rig *g, struct err *err)
{
    int64_t prompt_rows, tokens;
    lane_step(&g->lane, &prompt_rows);
    g->prompt_rows += prompt_rows;
    for (int64_t i = 0; i < g->lane.n_slots; i++) {
        struct slot *slot = &g->lane.slots[i];
        if (!slot->seq || slot->seq->ending == RUNNING)
            continue;
        if (slot->seq->ending == FINISH_ERROR)
            return model_blame_nonfinite(g->lane.v->m, g->lane.lm.c, "a logit", err);
        lane_leave(&g->lane, slot);
    }
    produced(g, &tokens);
    progress_update(g->progress, g->tokens + tokens);
    return 0;
}

static int one_run(struct timing *t, struct rig *g, const int32_t *prompts, double *first_token_at, struct err *err)
{
    int64_t before, after;
    double start = progress_clock(g->progress);
    begin(g, prompts);
    do
        if (step(g, err) != 0)
            return -1;
    while (produced(g, &before) == 0);
    double first = progress_clock(g->progress);
    if (*first_token_at == 0)
        *first_token_at = clock_seconds();
    while (g->lane.n_running > 0)
        if (step(g, err) != 0)
            return -1;
    produced(g, &after);
    g->tokens += after;
    *t = (struct timing){first - start, progress_clock(g->progress) - first, after - before};
    return 0;
}

static int check(const struct engine_variant *v, const struct engine_limits *k, const struct speed_protocol *p, struct err *err)
{
    if (p->batch < 1 || p->batch > SPEED_MAX_BATCH || p->n_prompt < 1 || p->out_len < 2 || p->runs < 1 || p->warmup < 0)
        return err_usage(err,
                         "a batch of 1 to %d, a token in, 2 tokens out and 1 timed run at least were expected, "
                         "%lld, %lld, %lld and %lld (after %lld untimed) found",
                         SPEED_MAX_BATCH, (long long)p->batch, (long long)p->n_prompt, (long long)p->out_len, (long long)p->runs,
                         (long long)p->warmup);
    double bytes = engine_cache_bytes(v, 1, k), room = (double)mem_available();
    if (room > 0 && bytes > room)
        return err_set(err, "the keys and values of %lld sequences of %lld tokens take %.1f GiB of memory; %.1f are there",
                       (long long)p->batch, (long long)k->context, bytes / (1 << 30), room / (1 << 30));
    return 0;
}

static void summarise(struct speed_result *r, const struct timing *t, const struct speed_protocol *p)
{
    double n = (double)p->runs, prefill = 0, decode = 0, squares = 0, decoded = 0;
    for (int64_t i = 0; i < p->runs; i++) {
        prefill += t[i].prefill;
        decode += t[i].decode;
        decoded += (double)t[i].decoded;
    }
    r->latency_s = (prefill + decode) / n;
    for (int64_t i = 0; i < p->runs; i++)
        squares += pow(t[i].prefill + t[i].decode - r->latency_s, 2);
    r->latency_std = p->runs > 1 ? sqrt(squares / (n - 1)) : 0;
    r->prefill_tok_s = (double)(p->batch * p->n_prompt) * n / prefill;
    r->decode_tok_s = decoded / decode;
    r->throughput_tok_s = (double)(p->batch * p->out_len) * n / (prefill + decode);
}

int speed_measure(struct speed_result *r, int32_t *ids, const struct model *m, const struct compute *c, const struct lora_set *lora,
                  const int32_t *prompts, const struct speed_protocol *p, struct progress *progress, struct err *err)
{
    struct engine_variant v = {m, lora};
    struct engine_limits limits = {.slots = p->batch, .context = p->n_prompt + p->out_len};
    struct rig g = {.p = p, .progress = progress};
    struct timing *timings = NULL;
    int rc = -1;
    if (check(&v, &limits, p, err) != 0)
        return -1;
    limits.prefill = max_i64(QUERY_TILE, min_i64(PREFILL_ROWS, p->batch * p->n_prompt));
    *r = (struct speed_result){.bytes_per_token = speed_bytes_per_step(m, p->batch) / p->batch};
    timings = mem_alloc((size_t)(p->warmup + p->runs), sizeof *timings, err);
    g.ids = mem_alloc((size_t)p->batch, (size_t)p->out_len * sizeof *g.ids, err);
    if (!timings || !g.ids || lane_open(&g.lane, &v, c, &limits, err) != 0)
        goto done;
    progress_begin(progress, "timing", (p->warmup + p->runs) * p->batch * p->out_len, "tokens");
    for (int64_t i = 0; i < p->warmup + p->runs; i++)
        if (one_run(&timings[i], &g, prompts, &r->first_token_at, err) != 0)
            goto done;
    progress_end(progress);
    summarise(r, timings + p->warmup, p);
    r->prompt_rows = g.prompt_rows;
    if (ids)
        memcpy(ids, g.ids, (size_t)(p->batch * p->out_len) * sizeof *ids);
    rc = 0;
done:
    lane_close(&g.lane);
    free(g.ids);
    free(timings);
    return rc;
}
