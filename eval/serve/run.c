#include "eval/serve/serve_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "core/base/file.h"
#include "core/base/progress.h"

enum { BEFORE = 8 }; /* prompt tokens that decide how the first new one is spelled */

/* How often a waiting thread looks whether its client is still there; a client is noticed within this and a step. */
static const double look_seconds = 0.05;

static int out_of_memory(struct api_error *err)
{
    return api_fail(err, 500, "server_error", NULL, NULL, "out of memory");
}

int find_variant(const struct server *s, const char *name, struct api_error *err)
{
    for (int i = 0; i < s->n_variants; i++)
        if (!name || !strcmp(name, s->variants[i].name))
            return i;
    return api_fail(err, 404, "invalid_request_error", "model_not_found", "model", "there is no model %.100s", name);
}

/* Finds the model of a request; whether its vocabulary has all ids of logit_bias. */
static int set_variant(struct run *r, struct api_error *err)
{
    r->variant = find_variant(r->s, r->req.model, err);
    if (r->variant < 0)
        return -1;
    r->v = &r->s->variants[r->variant];
    int64_t vocab = r->v->run.m->cfg.vocab_size;
    for (int i = 0; i < r->req.sampling.n_bias; i++)
        if (r->req.bias[i].id >= vocab)
            return api_invalid(err, "logit_bias", "logit_bias: token id %d is outside the vocabulary (0 to %lld)",
                               (int)r->req.bias[i].id, (long long)vocab - 1);
    return 0;
}

/* ---- prompts ---- */

static int encode_text(struct run *r, struct prompt *p, const char *text, size_t n, bool chat, struct api_error *err)
{
    const struct tokenizer *t = r->v->t;
    struct err why = {0};
    if (!chat && tokenizer_adds_bos(t) && ids_push(&p->ids, tokenizer_bos(t), &why) != 0)
        return out_of_memory(err);
    if ((chat ? tokenizer_encode_chat : tokenizer_encode)(&p->ids, t, text, n, &why) != 0)
        return out_of_memory(err);
    if (p->ids.n == 0 && tokenizer_bos(t) >= 0 && ids_push(&p->ids, tokenizer_bos(t), &why) != 0)
        return out_of_memory(err);
    return p->ids.n > 0 ? 0 : api_invalid(err, "prompt", "the prompt holds no tokens, and the model has no token to begin with");
}

static int encode_prompt(struct run *r, struct prompt *p, json_t *prompt, struct api_error *err)
{
    size_t i;
    json_t *id;
    struct err why = {0};
    if (json_is_string(prompt)) {
        p->text = json_string_value(prompt);
        return encode_text(r, p, p->text, json_string_length(prompt), false, err);
    }
    json_array_foreach(prompt, i, id) {
        if (json_integer_value(id) >= r->v->run.m->cfg.vocab_size)
            return api_invalid(err, "prompt", "token id %lld is outside the vocabulary (0 to %lld)",
                               (long long)json_integer_value(id), (long long)r->v->run.m->cfg.vocab_size - 1);
        if (ids_push(&p->ids, (int32_t)json_integer_value(id), &why) != 0)
            return out_of_memory(err);
    }
    return 0;
}

static int encode_messages(struct run *r, struct prompt *p, struct api_error *err)
{
    struct err why = {0};
    char *text = NULL;
    const char *name = r->s->o.chat_template;
    if (!name && !tokenizer_has_chat(r->v->t))
        return api_invalid(err, "model", "this model has no chat template, and the server was started without --chat-template");
    if (tokenizer_chat_as(&text, r->v->t, name, r->req.messages, true, &why) != 0) {
        bool ours = !strncmp(why.msg, "message", 7) || !strncmp(why.msg, "a chat", 6); /* others name files */
        return api_invalid(err, "messages", "%.300s", ours ? why.msg : "the model's chat template is not known");
    }
    int rc = encode_text(r, p, text, strlen(text), true, err);
    free(text);
    return rc;
}

/* ---- from a request to a job ---- */

static int set_ask(struct run *r, const struct prompt *p, struct ask *a, struct api_error *err)
{
    const struct serve_options *o = &r->s->o;
    const struct api_request *q = &r->req;
    int64_t n = (int64_t)p->ids.n, room = r->s->context - n, wanted = q->max_tokens;
    if (n > o->prompt_tokens || room < (wanted == 0 ? 0 : 1))
        return api_fail(err, 400, "invalid_request_error", "context_length_exceeded", q->chat ? "messages" : "prompt",
                        "the prompt has %lld tokens; %lld at most are taken, of a context of %lld", (long long)n,
                        (long long)o->prompt_tokens, (long long)r->s->context);
    if (wanted > o->max_tokens)
        return api_invalid(err, "max_tokens", "max_tokens: %lld at most", (long long)o->max_tokens);
    if (wanted > room)
        return api_fail(err, 400, "invalid_request_error", "context_length_exceeded", "max_tokens",
                        "%lld tokens of the prompt and %lld new ones do not fit a context of %lld", (long long)n, (long long)wanted,
                        (long long)r->s->context);
    if (wanted < 0) {
        wanted = q->chat ? o->max_tokens : 16; /* OpenAI's default */
        wanted = wanted < room ? wanted : room;
    }
    *a = (struct ask){.variant = r->variant,
                      .prompt = p->ids.ids,
                      .n_prompt = n,
                      .max_tokens = wanted,
                      .sampling = q->sampling,
                      .ends = tokenizer_ends(r->v->t),
                      .logprobs = q->logprobs,
                      .top = q->top,
                      .echo = q->echo};
    return 0;
}

static int open_choice(struct run *r, int i, struct api_error *err)
{
    struct choice *c = &r->choices[i];
    struct err why = {0};
    const struct ids *prompt = &r->prompts[i / r->req.n].ids;
    c->prompt = &r->prompts[i / r->req.n];
    if (set_ask(r, c->prompt, &r->asks[i], err) != 0)
        return -1;
    r->asks[i].sampling.seed += (uint64_t)(i % r->req.n);
    /* A reply stands alone; a continuation keeps the blank between it and the prompt. */
    size_t before = r->req.chat ? 0 : prompt->n < BEFORE ? prompt->n : BEFORE, kept = 0;
    int32_t ids[BEFORE];
    for (size_t k = prompt->n - before; k < prompt->n; k++) {
        char spare[1];
        const char *bytes;
        if (tokenizer_token_bytes(&bytes, spare, r->v->t, prompt->ids[k]) > 0)
            ids[kept++] = prompt->ids[k];
    }
    if (text_open(&c->text, r->v->t, ids, kept, &why) != 0)
        return out_of_memory(err);
    c->text.stops = r->req.stops;
    c->text.stop_lengths = r->req.stop_lengths;
    c->text.n_stops = r->req.n_stops;
    return 0;
}

static int submit(struct run *r, struct api_error *err)
{
    struct err why = {0};
    switch (engine_submit(&r->job, r->s->engine, r->asks, r->n, &why)) {
    case SUBMITTED: return 0;
    case QUEUE_FULL: return api_fail(err, 429, "rate_limit_error", "queue_full", NULL, "too many requests are waiting; try again");
    default: return api_invalid(err, NULL, "%.300s", why.msg);
    }
}

static void new_id(struct run *r)
{
    uint64_t bits[2] = {0};
    if (getrandom(bits, sizeof bits, 0) < 0)
        bits[0] = (uint64_t)time(NULL);
    snprintf(r->id, sizeof r->id, "%s-%016llx%08llx", r->req.chat ? "chatcmpl" : "cmpl", (unsigned long long)bits[0],
             (unsigned long long)(bits[1] >> 32));
    if (!r->req.seeded)
        r->req.sampling.seed = bits[1];
}

/* Room for the prompts and choices of a request; more than the queue holds would never fit. */
static int open_run(struct run *r, size_t prompts, struct api_error *err)
{
    const struct serve_options *o = &r->s->o;
    int64_t most = o->prompts < o->engine.queue ? o->prompts : o->engine.queue;
    if ((int64_t)prompts > most)
        return api_invalid(err, "prompt", "%lld prompts at most in a request", (long long)most);
    if ((int64_t)prompts * r->req.n > most)
        return api_invalid(err, "n", "n: %lld choices at most in a request, of all its prompts", (long long)most);
    r->n_prompts = (int)prompts;
    r->prompts = calloc(prompts, sizeof *r->prompts);
    r->choices = calloc(prompts * (size_t)r->req.n, sizeof *r->choices);
    r->asks = calloc(prompts * (size_t)r->req.n, sizeof *r->asks);
    if (!r->prompts || !r->choices || !r->asks)
        return out_of_memory(err);
    r->n = (int)prompts * (int)r->req.n;
    return 0;
}

/* What is computed from a file that is no longer whole is no answer. */
static int check_files(const struct run *r, struct api_error *err)
{
    const char *file = source_cut(&r->v->run.m->src);
    return file ? api_fail(err, 500, "server_error", "model_damaged", NULL,
                           "%.200s became shorter while it was read: this model cannot answer any more", path_base(file))
                : 0;
}

int run_begin(struct run *r, struct server *s, const char *body, size_t n, bool chat, struct api_error *err)
{
    *r = (struct run){.s = s, .began = clock_seconds(), .created = (int64_t)time(NULL)};
    if (api_request_parse(&r->req, body, n, chat, err) != 0 || set_variant(r, err) != 0 || check_files(r, err) != 0 ||
        open_run(r, chat ? 1 : json_array_size(r->req.prompts), err) != 0)
        return -1;
    new_id(r);
    for (int i = 0; i < r->n_prompts; i++)
        if ((chat ? encode_messages(r, &r->prompts[i], err)
                  : encode_prompt(r, &r->prompts[i], json_array_get(r->req.prompts, (size_t)i), err)) != 0)
            return -1;
    for (int i = 0; i < r->n; i++)
        if (open_choice(r, i, err) != 0)
            return -1;
    return submit(r, err);
}

/* ---- what comes ---- */

static const char *reason(const struct choice *c, enum finish f)
{
    return c->text.stopped || f == FINISH_STOP ? "stop" : "length";
}

static int take_tokens(struct run *r, int i, struct api_error *err)
{
    struct choice *c = &r->choices[i];
    struct job_state state = job_state(r->job, i);
    struct err why = {0};
    if (c->finish)
        return 0;
    if (state.n > 0 && r->first_token == 0) {
        r->first_token = clock_seconds();
        metrics_time(&r->s->metrics, TIME_FIRST_TOKEN, r->first_token - r->began);
    }
    for (; c->used < state.n && !c->text.stopped; c->used++) {
        int32_t id = job_token(r->job, i, c->used, false).id;
        if (!(state.finish == FINISH_STOP && c->used + 1 == state.n) && text_add(&c->text, id, &why) != 0)
            return out_of_memory(err);
    }
    if (state.finish == FINISH_ERROR)
        return api_fail(err, 500, "server_error", NULL, NULL, "the model computed something that is not a number");
    if (c->text.stopped)
        job_cancel(r->job, i);
    if (c->text.stopped || state.finish != RUNNING)
        c->finish = reason(c, state.finish);
    return 0;
}

int run_advance(struct run *r, struct api_error *err)
{
    double left = r->began + r->s->o.request_seconds - clock_seconds();
    if (r->gone && r->gone(r->gone_arg))
        return api_fail(err, 499, "server_error", NULL, NULL, "the client has left");
    if (left <= 0)
        return api_fail(err, 503, "server_error", "timeout", NULL, "the request took longer than %g seconds",
                        r->s->o.request_seconds);
    r->events = job_wait(r->job, r->events, left < look_seconds ? left : look_seconds);
    if (check_files(r, err) != 0)
        return -1;
    int ended = 0;
    for (int i = 0; i < r->n; i++) {
        if (take_tokens(r, i, err) != 0)
            return -1;
        ended += r->choices[i].finish != NULL;
    }
    if (check_files(r, err) != 0) /* a file may have been cut while these were taken */
        return -1;
    return ended == r->n;
}

void run_end(struct run *r)
{
    int64_t tokens = 0;
    job_release(r->job);
    for (int i = 0; i < r->n; i++) {
        tokens += r->choices[i].used;
        text_close(&r->choices[i].text);
    }
    for (int i = 0; r->prompts && i < r->n_prompts; i++)
        free(r->prompts[i].ids.ids);
    if (r->job) {
        double now = clock_seconds();
        metrics_time(&r->s->metrics, TIME_REQUEST, now - r->began);
        if (r->n == 1 && tokens > 1)
            metrics_time(&r->s->metrics, TIME_PER_TOKEN, (now - r->first_token) / (double)(tokens - 1));
    }
    free(r->prompts);
    free(r->choices);
    free(r->asks);
    api_request_free(&r->req);
    *r = (struct run){0};
}
