/* Jobs, the queue, and the thread that computes. */
#include "eval/engine_impl.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct job {
    struct engine *e;
    int n;
    struct sequence *sequences; /* [n] */
    pthread_cond_t moved;
    uint64_t events;
    struct arena arena;
};

struct engine {
    int n_lanes;
    struct lane *lanes;
    struct engine_variant *variants; /* [n_lanes] */
    struct engine_limits limits;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* of everything below, and of what sequences say is under it */
    pthread_cond_t work;
    struct sequence *first, *last; /* the queue */
    bool closing;
    uint64_t now; /* counts admissions */
    struct engine_stats stats;
    struct arena arena;
};

/* ---- the thread ---- */

static void publish(struct sequence *s, enum finish finish)
{
    s->job->e->stats.reused_tokens += s->reused - s->state.reused;
    s->state.reused = s->reused;
    s->state.n = s->produced;
    s->state.finish = finish;
    s->state.prompt_read = s->state.prompt_read || s->produced > 0 || finish == FINISH_LENGTH;
    s->job->events++;
    pthread_cond_broadcast(&s->job->moved);
}

/* Those in the queue that were cancelled leave it; those for whom there is a slot take it. Later ones of another variant may
 * pass. */
static void admit(struct engine *e)
{
    struct sequence *before = NULL, *s = e->first;
    while (s) {
        struct sequence *next = s->next;
        bool cancelled = s->cancelled || e->closing;
        if (!cancelled && !lane_admit(&e->lanes[s->ask.variant], s, ++e->now)) {
            before = s;
        } else {
            *(before ? &before->next : &e->first) = next;
            if (!next)
                e->last = before;
            e->stats.waiting--;
            if (!cancelled)
                e->stats.running++;
            publish(s, cancelled ? FINISH_CANCELLED : RUNNING);
        }
        s = next;
    }
}

/* Sequences that were cancelled leave their slots. */
static void drop_cancelled(struct engine *e, struct lane *l)
{
    for (int64_t i = 0; i < l->n_slots; i++) {
        struct sequence *s = l->slots[i].seq;
        if (!s || !(s->cancelled || e->closing))
            continue;
        lane_leave(l, &l->slots[i]);
        e->stats.running--;
        publish(s, FINISH_CANCELLED);
    }
}

/* What a step has brought becomes visible; sequences that have ended leave. */
static void publish_step(struct engine *e, struct lane *l)
{
    for (int64_t i = 0; i < l->n_slots; i++) {
        struct sequence *s = l->slots[i].seq;
        if (!s || (s->ending == RUNNING && s->produced == s->state.n))
            continue;
        e->stats.new_tokens += s->produced - s->state.n;
        if (s->ending != RUNNING) {
            lane_leave(l, &l->slots[i]);
            e->stats.running--;
        }
        publish(s, s->ending);
    }
}

static void *compute_main(void *arg)
{
    struct engine *e = arg;
    int turn = 0;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        for (int i = 0; i < e->n_lanes; i++)
            drop_cancelled(e, &e->lanes[i]);
        admit(e);
        if (e->stats.running == 0) {
            if (e->closing)
                break;
            pthread_cond_wait(&e->work, &e->lock);
            continue;
        }
        do
            turn = (turn + 1) % e->n_lanes;
        while (e->lanes[turn].n_running == 0);
        pthread_mutex_unlock(&e->lock);
        int64_t prompt_rows, rows = lane_step(&e->lanes[turn], &prompt_rows);
        pthread_mutex_lock(&e->lock);
        e->stats.steps++;
        e->stats.rows += rows;
        e->stats.prompt_tokens += prompt_rows;
        publish_step(e, &e->lanes[turn]);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

/* ---- opening and closing ---- */

double engine_cache_bytes(const struct engine_variant *variants, int n_variants, const struct engine_limits *limits)
{
    double bytes = 0;
    for (int i = 0; i < n_variants; i++)
        bytes += (double)lane_slot_bytes(&variants[i], limits->context) * (double)limits->slots;
    return bytes;
}

static int check_limits(const struct engine_limits *k, struct err *err)
{
    if (k->slots < 1 || k->slots > 1024 || k->context < 2 || k->context > 1 << 20 || k->queue < 1 || k->queue > 1 << 20)
        return err_usage(err, "1 to 1024 slots, a context of 2 to 1048576 and a queue of 1 to 1048576 were expected");
    if (k->prefill < QUERY_TILE || k->prefill > 1 << 14)
        return err_usage(err, "%d to 16384 prompt rows of a step were expected", QUERY_TILE);
    return 0;
}

int engine_open(struct engine **out, const struct engine_variant *variants, int n_variants, const struct compute *c,
                const struct engine_limits *limits, struct err *err)
{
    *out = NULL;
    struct engine *e = calloc(1, sizeof *e);
    if (!e)
        return err_set(err, "out of memory");
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, NULL);
    e->limits = *limits;
    e->lanes = arena_alloc(&e->arena, (size_t)n_variants, sizeof *e->lanes, err);
    e->variants = arena_alloc(&e->arena, (size_t)n_variants, sizeof *e->variants, err);
    if (!e->lanes || !e->variants || check_limits(limits, err) != 0)
        goto fail;
    for (; e->n_lanes < n_variants; e->n_lanes++) {
        e->variants[e->n_lanes] = variants[e->n_lanes];
        if (lane_open(&e->lanes[e->n_lanes], &e->variants[e->n_lanes], c, limits, err) != 0)
            goto fail;
    }
    e->stats.slots = limits->slots * n_variants;
    if (pthread_create(&e->thread, NULL, compute_main, e) != 0) {
        err_set(err, "cannot start a thread");
        goto fail;
    }
    e->started = true;
    *out = e;
    return 0;
fail:
    engine_close(e);
    return -1;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    if (e->started) {
        pthread_mutex_lock(&e->lock);
        e->closing = true;
        pthread_cond_signal(&e->work);
        pthread_mutex_unlock(&e->lock);
        pthread_join(e->thread, NULL);
    }
    for (int i = 0; i < e->n_lanes; i++)
        lane_close(&e->lanes[i]);
    pthread_cond_destroy(&e->work);
    pthread_mutex_destroy(&e->lock);
    arena_free(&e->arena);
    free(e);
}

/* ---- jobs ---- */

static int check_id(const struct engine *e, const struct ask *a, int32_t id, struct err *err)
{
    int64_t vocab = e->variants[a->variant].m->cfg.vocab_size;
    if (id >= 0 && id < vocab)
        return 0;
    return err_set(err, "token id %d is outside the vocabulary (0 to %lld)", id, (long long)vocab - 1);
}

static int check_ask(const struct engine *e, const struct ask *a, struct err *err)
{
    if (a->variant < 0 || a->variant >= e->n_lanes || a->n_prompt < 1 || a->max_tokens < 0 || a->top < 0 ||
        a->top > ENGINE_MAX_TOP || (a->max_tokens == 0 && !a->echo))
        return err_set(err, "a variant, a prompt of a token at least and a number of new tokens were expected");
    if (a->n_prompt > e->limits.context || a->max_tokens > e->limits.context - a->n_prompt)
        return err_set(err, "%lld tokens and %lld new ones do not fit the %lld positions there is room for", (long long)a->n_prompt,
                       (long long)a->max_tokens, (long long)e->limits.context);
    for (int64_t i = 0; i < a->n_prompt; i++)
        if (check_id(e, a, a->prompt[i], err) != 0)
            return -1;
    for (int i = 0; i < a->sampling.n_bias; i++)
        if (check_id(e, a, a->sampling.bias[i].id, err) != 0)
            return -1;
    return 0;
}

static int bind_told(struct told *t, struct arena *arena, int64_t n, int top, struct err *err)
{
    t->logprob = arena_alloc(arena, (size_t)n, sizeof *t->logprob, err);
    if (!t->logprob)
        return -1;
    for (int64_t i = 0; i < n; i++)
        t->logprob[i] = NAN;
    if (top > 0 && !(t->top = arena_alloc(arena, (size_t)n, (size_t)top * sizeof *t->top, err)))
        return -1;
    return 0;
}

static int bind_sequence(struct sequence *s, struct job *j, const struct ask *a, struct err *err)
{
    *s = (struct sequence){.ask = *a, .job = j};
    rng_seed(&s->rng, a->sampling.seed);
    if (!(s->ids = arena_alloc(&j->arena, (size_t)a->max_tokens, sizeof *s->ids, err)))
        return -1;
    if (!a->logprobs)
        return 0;
    return bind_told(&s->told, &j->arena, a->max_tokens, a->top, err) == 0 &&
                   (!a->echo || bind_told(&s->of_prompt, &j->arena, a->n_prompt, a->top, err) == 0)
               ? 0
               : -1;
}

static void job_free(struct job *j)
{
    pthread_cond_destroy(&j->moved);
    arena_free(&j->arena);
    free(j);
}

static struct job *job_create(struct engine *e, const struct ask *asks, int n, struct err *err)
{
    struct job *j = calloc(1, sizeof *j);
    if (!j) {
        err_set(err, "out of memory");
        return NULL;
    }
    j->e = e;
    j->n = n;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&j->moved, &monotonic);
    pthread_condattr_destroy(&monotonic);
    bool bound = (j->sequences = arena_alloc(&j->arena, (size_t)n, sizeof *j->sequences, err)) != NULL;
    for (int i = 0; bound && i < n; i++)
        bound = check_ask(e, &asks[i], err) == 0 && bind_sequence(&j->sequences[i], j, &asks[i], err) == 0;
    if (bound)
        return j;
    job_free(j);
    return NULL;
}

enum submitted engine_submit(struct job **out, struct engine *e, const struct ask *asks, int n, struct err *err)
{
    *out = NULL;
    struct job *j = job_create(e, asks, n, err);
    if (!j)
        return SUBMIT_FAILED;
    pthread_mutex_lock(&e->lock);
    bool fits = !e->closing && n <= e->limits.queue - e->stats.waiting;
    for (int i = 0; fits && i < n; i++) {
        struct sequence *s = &j->sequences[i];
        *(e->last ? &e->last->next : &e->first) = s;
        e->last = s;
    }
    if (fits)
        e->stats.waiting += n;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    if (!fits) {
        job_free(j);
        err_set(err, "%lld requests are waiting already", (long long)e->limits.queue);
        return QUEUE_FULL;
    }
    *out = j;
    return SUBMITTED;
}

uint64_t job_wait(struct job *j, uint64_t seen, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double whole = floor(seconds);
    until.tv_sec += (time_t)whole;
    until.tv_nsec += (long)((seconds - whole) * 1e9);
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&j->e->lock);
    while (j->events <= seen && pthread_cond_timedwait(&j->moved, &j->e->lock, &until) == 0)
        ;
    uint64_t events = j->events;
    pthread_mutex_unlock(&j->e->lock);
    return events;
}

struct job_state job_state(struct job *j, int i)
{
    pthread_mutex_lock(&j->e->lock);
    struct job_state s = j->sequences[i].state;
    pthread_mutex_unlock(&j->e->lock);
    return s;
}

struct token job_token(const struct job *j, int i, int64_t k, bool of_prompt)
{
    const struct sequence *s = &j->sequences[i];
    const struct told *t = of_prompt ? &s->of_prompt : &s->told;
    struct token token = {of_prompt ? s->ask.prompt[k] : s->ids[k], t->logprob ? t->logprob[k] : NAN, NULL};
    if (t->top && !isnan(token.logprob))
        token.top = t->top + k * s->ask.top;
    return token;
}

static void cancel_locked(struct job *j, int i)
{
    for (int k = i < 0 ? 0 : i; k < (i < 0 ? j->n : i + 1); k++)
        j->sequences[k].cancelled = true;
    pthread_cond_signal(&j->e->work);
}

void job_cancel(struct job *j, int i)
{
    pthread_mutex_lock(&j->e->lock);
    cancel_locked(j, i);
    pthread_mutex_unlock(&j->e->lock);
}

void job_release(struct job *j)
{
    if (!j)
        return;
    pthread_mutex_lock(&j->e->lock);
    cancel_locked(j, -1);
    for (int i = 0; i < j->n; i++)
        while (j->sequences[i].state.finish == RUNNING)
            pthread_cond_wait(&j->moved, &j->e->lock);
    pthread_mutex_unlock(&j->e->lock);
    job_free(j);
}

void engine_stats(struct engine *e, struct engine_stats *out)
{
    pthread_mutex_lock(&e->lock);
    *out = e->stats;
    pthread_mutex_unlock(&e->lock);
}
