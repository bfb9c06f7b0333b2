/* The slots of a variant, and one step of it. */
#include "eval/engine_impl.h"

#include <math.h>
#include <string.h>

#include "core/model/stream.h"

size_t lane_slot_bytes(const struct engine_variant *v, int64_t context)
{
    const struct config *cfg = &v->m->cfg;
    return (size_t)(v->m->n_order * 2 * cfg->n_kv_heads * cfg->head_dim) * (size_t)context * sizeof(float);
}

static int bind_slots(struct lane *l, const struct engine_limits *limits, struct err *err)
{
    size_t each = lane_slot_bytes(l->v, limits->context);
    if (__builtin_mul_overflow(each, (size_t)l->n_slots, &l->kv_bytes) || !(l->kv = mem_reserve(l->kv_bytes, err)))
        return err_set(err, "out of memory: %lld slots of %lld positions", (long long)l->n_slots, (long long)limits->context);
    for (int64_t i = 0; i < l->n_slots; i++) {
        l->slots[i].kv = (struct kv_cache){.data = l->kv + (size_t)i * (each / sizeof(float)), .cap = limits->context};
        if (!(l->slots[i].ids = arena_alloc(&l->arena, (size_t)limits->context, sizeof(int32_t), err)))
            return -1;
    }
    return 0;
}

int lane_open(struct lane *l, const struct engine_variant *v, const struct compute *c, const struct engine_limits *limits,
              struct err *err)
{
    size_t slots = (size_t)limits->slots, vocab = (size_t)v->m->cfg.vocab_size, threads = (size_t)pool_threads(c->pool);
    int64_t rows = limits->slots + limits->prefill;
    *l = (struct lane){.v = v,
                       .compute = compute_for_rows(c, limits->slots),
                       .n_slots = limits->slots,
                       .prefill = v->lora ? QUERY_TILE : limits->prefill};
    l->slots = arena_alloc(&l->arena, slots, sizeof *l->slots, err);
    l->turn = arena_alloc(&l->arena, slots, sizeof *l->turn, err);
    l->picks = arena_alloc(&l->arena, slots, sizeof *l->picks, err);
    l->ids = arena_alloc(&l->arena, (size_t)rows, sizeof *l->ids, err);
    l->last = arena_alloc(&l->arena, slots, (size_t)v->m->cfg.dim * sizeof *l->last, err);
    l->logits = arena_alloc(&l->arena, slots, vocab * sizeof *l->logits, err);
    l->echoed = arena_alloc(&l->arena, ECHO_ROWS, vocab * sizeof *l->echoed, err);
    l->samplers = arena_alloc(&l->arena, threads, sizeof *l->samplers, err);
    if (!l->slots || !l->turn || !l->picks || !l->ids || !l->last || !l->logits || !l->echoed || !l->samplers ||
        bind_slots(l, limits, err) != 0 ||
        lm_open(&l->lm, v->m, &l->compute, v->lora, rows, limits->slots, limits->context, err) != 0)
        goto fail;
    for (size_t i = 0; i < threads; i++)
        if (sampler_bind(&l->samplers[i], v->m->cfg.vocab_size, &l->arena, err) != 0)
            goto fail;
    return 0;
fail:
    lane_close(l);
    return -1;
}

void lane_close(struct lane *l)
{
    lm_close(&l->lm);
    mem_unreserve(l->kv, l->kv_bytes);
    arena_free(&l->arena);
    *l = (struct lane){0};
}

/* ---- joining and leaving ---- */

/* Whether a prompt's rows are dot products: the few of a short one, as in generator_feed. */
static bool is_short(const struct sequence *s)
{
    return s->ask.n_prompt <= LINEAR_FEW_ROWS;
}

/* Positions of the prompt that ids [len] begins with, in whole tiles. The last token is left, for its logits. */
static int64_t shared(const struct sequence *s, const int32_t *ids, int64_t len)
{
    int64_t n = 0, most = s->ask.n_prompt - 1;
    if ((s->ask.echo && s->ask.logprobs) || is_short(s))
        return 0;
    while (n < len && n < most && ids[n] == s->ask.prompt[n])
        n++;
    return n / QUERY_TILE * QUERY_TILE;
}

bool lane_admit(struct lane *l, struct sequence *s, uint64_t now)
{
    struct slot *best = NULL;
    int64_t most = -1;
    for (int64_t i = 0; i < l->n_slots; i++) {
        struct slot *slot = &l->slots[i];
        int64_t n = slot->seq ? -1 : shared(s, slot->ids, slot->whole);
        if (n > most || (best && n == most && slot->used < best->used)) {
            best = slot;
            most = n;
        }
    }
    if (!best)
        return false;
    best->seq = s;
    best->used = now;
    best->kv.len = best->whole = most;
    s->order = now;
    s->state.started = true;
    s->reused = most;
    l->n_running++;
    return true;
}

void lane_leave(struct lane *l, struct slot *slot)
{
    slot->seq = NULL;
    l->n_running--;
}

void lane_forget(struct lane *l)
{
    for (int64_t i = 0; i < l->n_slots; i++)
        if (!l->slots[i].seq)
            l->slots[i].kv.len = l->slots[i].whole = 0;
}

/* ---- the batch ---- */

static void add_rows(struct lane *l, struct slot *slot, const int32_t *ids, int64_t n, bool picks)
{
    struct batch *b = &l->lm.batch;
    memcpy(l->ids + b->rows, ids, (size_t)n * sizeof *ids);
    memcpy(slot->ids + slot->kv.len, ids, (size_t)n * sizeof *ids);
    batch_add(b, n, slot->kv.len, &slot->kv);
    if (picks)
        l->picks[l->n_picks++] = (struct pick){slot, b->rows - 1};
}

/* The slots that run, first come first. */
static void line_up(struct lane *l)
{
    int64_t n = 0;
    for (int64_t i = 0; i < l->n_slots; i++) {
        struct slot *slot = &l->slots[i];
        if (!slot->seq)
            continue;
        int64_t at = n++;
        for (; at > 0 && l->turn[at - 1]->seq->order > slot->seq->order; at--)
            l->turn[at] = l->turn[at - 1];
        l->turn[at] = slot;
    }
}

struct copy_job {
    const struct slot *from, *to;
    int64_t begin, n, width; /* positions [begin, n) of so many floats */
};

/* The keys or the values of one block. */
static void copy_task(void *arg, int64_t task, int worker)
{
    const struct copy_job *j = arg;
    int64_t at = (task * j->to->kv.cap + j->begin) * j->width;
    (void)worker;
    memcpy(j->to->kv.data + at, j->from->kv.data + at, (size_t)((j->n - j->begin) * j->width) * sizeof(float));
}

/* Positions of the prompt in l->turn[i] that other slots hold and its own does not are copied. Returns whether a prompt that is
 * read before it will bring more of them. */
static bool inherit(struct lane *l, int64_t i)
{
    const struct config *cfg = &l->v->m->cfg;
    struct slot *slot = l->turn[i];
    struct sequence *s = slot->seq;
    struct copy_job j = {NULL, slot, slot->kv.len, slot->kv.len, cfg->n_kv_heads * cfg->head_dim};
    for (int64_t k = 0; k < l->n_slots; k++) {
        int64_t n = shared(s, l->slots[k].ids, l->slots[k].whole);
        if (n > j.n) {
            j.from = &l->slots[k];
            j.n = n;
        }
    }
    if (j.from) {
        pool_run(l->lm.c->pool, copy_task, &j, 2 * l->v->m->n_order);
        memcpy(slot->ids, s->ask.prompt, (size_t)j.n * sizeof *slot->ids);
        slot->kv.len = slot->whole = j.n;
        s->reused += j.n - j.begin;
    }
    for (int64_t k = 0; k < i; k++) {
        const struct sequence *before = l->turn[k]->seq;
        int64_t n = before->ask.n_prompt / QUERY_TILE * QUERY_TILE;
        if (l->turn[k]->kv.len < before->ask.n_prompt && !is_short(before) && shared(s, before->ask.prompt, n) > j.n)
            return true;
    }
    return false;
}

/* Rows of a long prompt that this step takes: all that are left, or whole tiles. */
static int64_t piece_of(const struct slot *slot, int64_t room)
{
    int64_t left = slot->seq->ask.n_prompt - slot->kv.len;
    return left <= room ? left : room / QUERY_TILE * QUERY_TILE;
}

/* Generating rows and short prompts first, which are dotted; then pieces of long prompts. Returns the rows of prompts. */
static int64_t fill_batch(struct lane *l)
{
    struct batch *b = &l->lm.batch;
    int64_t room = l->prefill;
    batch_clear(b);
    l->n_picks = 0;
    line_up(l);
    for (int64_t i = 0; i < l->n_running; i++) {
        struct sequence *s = l->turn[i]->seq;
        if (l->turn[i]->kv.len >= s->ask.n_prompt)
            add_rows(l, l->turn[i], &s->ids[s->produced - 1], 1, true);
    }
    int64_t generating = b->rows;
    for (int64_t i = 0; i < l->n_running; i++) {
        struct sequence *s = l->turn[i]->seq;
        if (l->turn[i]->kv.len > 0 || !is_short(s) || s->ask.n_prompt > room)
            continue;
        add_rows(l, l->turn[i], s->ask.prompt, s->ask.n_prompt, s->ask.max_tokens > 0);
        room -= s->ask.n_prompt;
    }
    b->dotted = b->rows;
    if (l->v->lora && room < QUERY_TILE)
        room = QUERY_TILE; /* one whole tile, whatever short prompts there were: there is room for it in the batch */
    for (int64_t i = 0; i < l->n_running && b->rows + room <= l->lm.max_rows; i++) {
        struct slot *slot = l->turn[i];
        struct sequence *s = slot->seq;
        if (slot->kv.len >= s->ask.n_prompt || is_short(s) || inherit(l, i))
            continue;
        int64_t n = piece_of(slot, room);
        if (n == 0)
            break;
        add_rows(l, slot, s->ask.prompt + slot->kv.len, n, slot->kv.len + n == s->ask.n_prompt && s->ask.max_tokens > 0);
        room = l->v->lora ? 0 : room - n;
    }
    return b->rows - generating;
}

/* ---- what comes out ---- */

struct output_job {
    struct lane *l;
    const float *logits; /* echo: of prompt rows */
    struct sequence *s;
    int64_t first; /* echo: the prompt token that the first row tells of */
};

static void tell(const struct lane *l, const struct sampler *sampler, const struct told *to, int64_t at, int32_t id, int top,
                 const float *logits)
{
    double lse = sample_lse(sampler, l->lm.c->rows, logits);
    to->logprob[at] = (float)((double)logits[id] - lse);
    if (top == 0)
        return;
    sample_likeliest(sampler, logits, top);
    for (int i = 0; i < top; i++) {
        struct candidate c = sampler->candidates[i];
        to->top[at * top + i] = (struct candidate){(float)((double)c.logit - lse), c.id};
    }
}

/* The next token of one sequence. */
static void pick_task(void *arg, int64_t task, int worker)
{
    const struct output_job *j = arg;
    struct lane *l = j->l;
    struct sequence *s = l->picks[task].slot->seq;
    const struct sampler *sampler = &l->samplers[worker];
    const float *logits = l->logits + task * sampler->vocab;
    if (!isfinite(sample_lse(sampler, l->lm.c->rows, logits))) {
        s->ending = FINISH_ERROR;
        return;
    }
    const float *biased = sample_biased(sampler, logits, &s->ask.sampling, s->ids, s->produced);
    int32_t id = sample_token(sampler, l->lm.c->rows, biased, &s->ask.sampling, &s->rng);
    if (s->ask.logprobs)
        tell(l, sampler, &s->told, s->produced, id, s->ask.top, logits);
    s->ids[s->produced++] = id;
    if (tokenizer_is_end(s->ask.ends, id))
        s->ending = FINISH_STOP;
    else if (s->produced == s->ask.max_tokens)
        s->ending = FINISH_LENGTH;
}

static void echo_task(void *arg, int64_t task, int worker)
{
    const struct output_job *j = arg;
    const struct sampler *sampler = &j->l->samplers[worker];
    int64_t at = j->first + task;
    tell(j->l, sampler, &j->s->of_prompt, at, j->s->ask.prompt[at], j->s->ask.top, j->logits + task * sampler->vocab);
}

/* Rows [row, row + n) of the batch are positions [pos, pos + n) of a prompt, each of which tells of the token after it. */
static void echo_rows(struct lane *l, struct sequence *s, int64_t row, int64_t pos, int64_t n)
{
    int64_t dim = l->v->m->cfg.dim;
    if (pos + n == s->ask.n_prompt)
        n--;
    for (int64_t i = 0; i < n; i += ECHO_ROWS) {
        int64_t m = n - i < ECHO_ROWS ? n - i : ECHO_ROWS;
        struct output_job j = {l, l->echoed, s, pos + i + 1};
        head_logits(l->lm.c, l->echoed, &l->v->m->head, &l->lm.head, l->lm.x + (row + i) * dim, m, is_short(s));
        pool_run(l->lm.c->pool, echo_task, &j, m);
    }
}

/* The prompts of this step have moved on. */
static void note_prompts(struct lane *l)
{
    const struct batch *b = &l->lm.batch;
    for (int64_t i = 0; i < b->n_seqs; i++) {
        const struct seq *q = &b->seqs[i];
        struct slot *slot = l->slots;
        while (&slot->kv != q->kv)
            slot++;
        struct sequence *s = slot->seq;
        if (q->pos >= s->ask.n_prompt)
            continue;
        if (!is_short(s))
            slot->whole = slot->kv.len / QUERY_TILE * QUERY_TILE;
        if (s->ask.echo && s->ask.logprobs)
            echo_rows(l, s, q->row, q->pos, q->len);
        if (slot->kv.len == s->ask.n_prompt && s->ask.max_tokens == 0)
            s->ending = FINISH_LENGTH;
    }
}

int64_t lane_step(struct lane *l, int64_t *prompt_rows)
{
    struct err err = {0};
    int64_t dim = l->v->m->cfg.dim;
    *prompt_rows = fill_batch(l);
    if (lm_forward(&l->lm, l->ids, &err) != 0) { /* ids were checked: nothing that a request could cause */
        for (int64_t i = 0; i < l->n_running; i++)
            l->turn[i]->seq->ending = FINISH_ERROR;
        return l->lm.batch.rows;
    }
    note_prompts(l);
    for (int64_t i = 0; i < l->n_picks; i++)
        memcpy(l->last + i * dim, l->lm.x + l->picks[i].row * dim, (size_t)dim * sizeof(float));
    struct output_job j = {.l = l};
    if (l->n_picks > 0) {
        model_use(l->v->m, l->v->m->cfg.n_blocks);
        head_logits(l->lm.c, l->logits, &l->v->m->head, &l->lm.head, l->last, l->n_picks, true);
        pool_run(l->lm.c->pool, pick_task, &j, l->n_picks);
    }
    return l->lm.batch.rows;
}
