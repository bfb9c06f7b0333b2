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

/* A model that is timed. */
struct rig {
    const struct speed_protocol *p;
    struct engine_variant v;
    struct lane lane;
    struct sequence sequences[SPEED_MAX_BATCH];
    int32_t *ids; /* [batch, out_len] */
    int64_t prompt_rows;
    struct progress *progress;
    int64_t *tokens;        /* of the runs before, of every model */
    struct timing *timings; /* [warmup + runs] */
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
    progress_update(g->progress, *g->tokens + tokens);
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
    *g->tokens += after;
    *t = (struct timing){first - start, progress_clock(g->progress) - first, after - before};
    return 0;
}

static int check(const struct engine_variant *v, int64_t n, const struct engine_limits *k, const struct speed_protocol *p,
                 struct err *err)
{
    if (p->batch < 1 || p->batch > SPEED_MAX_BATCH || p->n_prompt < 1 || p->out_len < 2 || p->runs < 1 || p->warmup < 0)
        return err_usage(err,
                         "a batch of 1 to %d, a token in, 2 tokens out and 1 timed run at least were expected, "
                         "%lld, %lld, %lld and %lld (after %lld untimed) found",
                         SPEED_MAX_BATCH, (long long)p->batch, (long long)p->n_prompt, (long long)p->out_len, (long long)p->runs,
                         (long long)p->warmup);
    double bytes = (double)n * engine_cache_bytes(v, 1, k), room = (double)mem_available();
    if (room > 0 && bytes > room)
        return err_set(err, "the keys and values of %lld sequences of %lld tokens take %.1f GiB of memory; %.1f are there",
                       (long long)(n * p->batch), (long long)k->context, bytes / (1 << 30), room / (1 << 30));
    return 0;
}

struct spread {
    double mean, std; /* std: of a sample; 0 for one value */
};

/* Of of(t[i], first[i]) over n runs. */
static struct spread spread_of(double (*of)(const struct timing *t, const struct timing *first), const struct timing *t,
                               const struct timing *first, int64_t n)
{
    struct spread s = {0};
    for (int64_t i = 0; i < n; i++)
        s.mean += of(&t[i], &first[i]) / (double)n;
    for (int64_t i = 0; i < n; i++)
        s.std += pow(of(&t[i], &first[i]) - s.mean, 2);
    s.std = n > 1 ? sqrt(s.std / (double)(n - 1)) : 0;
    return s;
}

static double latency(const struct timing *t, const struct timing *first)
{
    (void)first;
    return t->prefill + t->decode;
}

static double decode_rate(const struct timing *t, const struct timing *first)
{
    (void)first;
    return (double)t->decoded / t->decode;
}

static double ratio(const struct timing *t, const struct timing *first)
{
    return decode_rate(t, NULL) / decode_rate(first, NULL);
}

/* t, first [runs]: of this model, and of the first one in the same turns. */
static void summarise(struct speed_result *r, const struct timing *t, const struct timing *first, const struct speed_protocol *p)
{
    double n = (double)p->runs, prefill = 0, decode = 0, decoded = 0;
    for (int64_t i = 0; i < p->runs; i++) {
        prefill += t[i].prefill;
        decode += t[i].decode;
        decoded += (double)t[i].decoded;
    }
    struct spread whole = spread_of(latency, t, first, p->runs), rate = spread_of(decode_rate, t, first, p->runs),
                  to_first = spread_of(ratio, t, first, p->runs);
    r->latency_s = whole.mean;
    r->latency_std = whole.std;
    r->decode_std = rate.std;
    r->ratio = to_first.mean;
    r->ratio_std = to_first.std;
    r->prefill_tok_s = (double)(p->batch * p->n_prompt) * n / prefill;
    r->decode_tok_s = decoded / decode;
    r->throughput_tok_s = (double)(p->batch * p->out_len) * n / (prefill + decode);
}

static int rig_open(struct rig *g, const struct compute *c, const struct engine_limits *limits, struct err *err)
{
    const struct speed_protocol *p = g->p;
    g->timings = mem_alloc((size_t)(p->warmup + p->runs), sizeof *g->timings, err);
    g->ids = mem_alloc((size_t)p->batch, (size_t)p->out_len * sizeof *g->ids, err);
    return g->timings && g->ids ? lane_open(&g->lane, &g->v, c, limits, err) : -1;
}

static void rig_close(struct rig *g)
{
    if (g->lane.v)
        lane_close(&g->lane);
    free(g->ids);
    free(g->timings);
}

/* ids: of the first one's last run, or NULL. */
static int measure(struct speed_result *r, int32_t *ids, const struct engine_variant *v, int64_t n, const struct compute *c,
                   const int32_t *prompts, const struct speed_protocol *p, struct progress *progress, struct err *err)
{
    struct engine_limits limits = {.slots = p->batch, .context = p->n_prompt + p->out_len};
    int64_t tokens = 0, turns = p->warmup + p->runs;
    int rc = -1;
    if (check(v, n, &limits, p, err) != 0)
        return -1;
    struct rig *rigs = calloc((size_t)n, sizeof *rigs);
    if (!rigs)
        return err_set(err, "out of memory");
    limits.prefill = max_i64(QUERY_TILE, min_i64(PREFILL_ROWS, p->batch * p->n_prompt));
    for (int64_t k = 0; k < n; k++) {
        rigs[k] = (struct rig){.p = p, .v = v[k], .progress = progress, .tokens = &tokens};
        r[k] = (struct speed_result){.bytes_per_token = speed_bytes_per_step(v[k].m, p->batch) / p->batch};
        if (rig_open(&rigs[k], c, &limits, err) != 0)
            goto done;
    }
    progress_begin(progress, "timing", n * turns * p->batch * p->out_len, "tokens");
    for (int64_t i = 0; i < turns; i++)
        for (int64_t k = 0; k < n; k++)
            if (one_run(&rigs[k].timings[i], &rigs[k], prompts, &r[k].first_token_at, err) != 0)
                goto done;
    progress_end(progress);
    for (int64_t k = 0; k < n; k++) {
        summarise(&r[k], rigs[k].timings + p->warmup, rigs[0].timings + p->warmup, p);
        r[k].prompt_rows = rigs[k].prompt_rows;
    }
    if (ids)
        memcpy(ids, rigs[0].ids, (size_t)(p->batch * p->out_len) * sizeof *ids);
    rc = 0;
done:
    for (int64_t k = 0; k < n; k++)
        rig_close(&rigs[k]);
    free(rigs);
    return rc;
}

int speed_measure(struct speed_result *r, int32_t *ids, const struct model *m, const struct compute *c, const struct lora_set *lora,
                  const int32_t *prompts, const struct speed_protocol *p, struct progress *progress, struct err *err)
{
    return measure(r, ids, &(struct engine_variant){m, lora}, 1, c, prompts, p, progress, err);
}

int speed_measure_turns(struct speed_result *r, const struct model *const *models, int64_t n, const struct compute *c,
                        const int32_t *prompts, const struct speed_protocol *p, struct progress *progress, struct err *err)
{
    struct engine_variant *v = mem_alloc((size_t)n, sizeof *v, err);
    for (int64_t k = 0; v && k < n; k++)
        v[k] = (struct engine_variant){models[k], NULL};
    int rc = v ? measure(r, NULL, v, n, c, prompts, p, progress, err) : -1;
    free(v);
    return rc;
}
