/* Answers in OpenAI's shapes. */
#include "eval/serve/serve_impl.h"
#include "core/base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Text that may not be UTF-8 as a JSON string. */
static json_t *text_json(const char *s, size_t n)
{
    size_t m;
    json_t *v = json_stringn(s, n);
    if (v)
        return v;
    char *valid = utf8_repaired(&m, s, n);
    v = valid ? json_stringn(valid, m) : NULL;
    free(valid);
    return v ? v : json_string("");
}

/* A token's text; bytes that are no characters by themselves are spelled "bytes:\xe2\x82", as OpenAI does. */
static json_t *token_json(const struct tokenizer *t, int32_t id)
{
    char spare[1], spelled[16 + 4 * 64];
    const char *bytes;
    size_t n = tokenizer_token_bytes(&bytes, spare, t, id), at = 6;
    if (utf8_valid(bytes, n))
        return text_json(bytes, n);
    memcpy(spelled, "bytes:", 7);
    for (size_t i = 0; i < n && i < 64; i++)
        at += (size_t)snprintf(spelled + at, sizeof spelled - at, "\\x%02x", (unsigned char)bytes[i]);
    return json_string(spelled);
}

static json_t *logprob_json(float v)
{
    return isnan(v) ? json_null() : json_real(isfinite(v) ? (double)v : -9999.0);
}

/* ---- log-probabilities of completions ---- */

static json_t *top_json(const struct run *r, const struct token *token)
{
    json_t *top = json_object();
    bool chosen = false;
    for (int i = 0; token->top && i < r->req.top; i++) {
        json_t *name = token_json(r->v->t, token->top[i].id);
        chosen |= token->top[i].id == token->id;
        if (!json_object_get(top, json_string_value(name))) /* of tokens that look alike, the likelier one */
            json_object_set_new(top, json_string_value(name), logprob_json(token->top[i].logit));
        json_decref(name);
    }
    if (!chosen && r->req.top > 0) {
        json_t *name = token_json(r->v->t, token->id);
        if (!json_object_get(top, json_string_value(name)))
            json_object_set_new(top, json_string_value(name), logprob_json(token->logprob));
        json_decref(name);
    }
    return top;
}

struct told_lists {
    json_t *tokens, *logprobs, *tops, *offsets;
    size_t offset; /* in characters */
};

static void add_told(const struct run *r, struct told_lists *l, struct token token)
{
    char spare[1];
    const char *bytes;
    size_t n = tokenizer_token_bytes(&bytes, spare, r->v->t, token.id);
    json_array_append_new(l->tokens, token_json(r->v->t, token.id));
    json_array_append_new(l->logprobs, logprob_json(token.logprob));
    json_array_append_new(l->tops, isnan(token.logprob) || r->req.top == 0 ? json_null() : top_json(r, &token));
    json_array_append_new(l->offsets, json_integer((json_int_t)l->offset));
    l->offset += text_characters(bytes, n);
}

static json_t *completion_logprobs(struct run *r, int i, bool with_prompt)
{
    struct choice *c = &r->choices[i];
    struct told_lists l = {json_array(), json_array(), json_array(), json_array(), c->offset};
    for (size_t k = 0; with_prompt && k < c->prompt->ids.n; k++)
        add_told(r, &l, job_token(r->job, i, (int64_t)k, true));
    for (; c->told < c->used; c->told++)
        add_told(r, &l, job_token(r->job, i, c->told, false));
    c->offset = l.offset;
    return json_pack("{so so so so}", "tokens", l.tokens, "token_logprobs", l.logprobs, "top_logprobs", l.tops, "text_offset",
                     l.offsets);
}

/* ---- log-probabilities of chats ---- */

static json_t *chat_token(const struct run *r, int32_t id, float logprob)
{
    char spare[1];
    const char *bytes;
    size_t n = tokenizer_token_bytes(&bytes, spare, r->v->t, id);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer((unsigned char)bytes[i]));
    return json_pack("{so so so}", "token", token_json(r->v->t, id), "logprob", logprob_json(logprob), "bytes", list);
}

static json_t *chat_logprobs(struct run *r, int i)
{
    struct choice *c = &r->choices[i];
    json_t *content = json_array();
    for (; c->told < c->used; c->told++) {
        struct token token = job_token(r->job, i, c->told, false);
        json_t *one = chat_token(r, token.id, token.logprob), *tops = json_array();
        for (int k = 0; token.top && k < r->req.top; k++)
            json_array_append_new(tops, chat_token(r, token.top[k].id, token.top[k].logit));
        json_object_set_new(one, "top_logprobs", tops);
        json_array_append_new(content, one);
    }
    return json_pack("{so sn}", "content", content, "refusal");
}

static json_t *logprobs_of(struct run *r, int i, bool with_prompt)
{
    if (!r->req.logprobs)
        return json_null();
    return r->req.chat ? chat_logprobs(r, i) : completion_logprobs(r, i, with_prompt);
}

/* ---- answers ---- */

static json_t *usage(struct run *r)
{
    int64_t prompt = 0, new = 0, cached = 0;
    for (int i = 0; i < r->n; i++)
        new += r->choices[i].used;
    for (int i = 0; i < r->n_prompts; i++) { /* once, however many choices it has */
        prompt += (int64_t)r->prompts[i].ids.n;
        cached += job_state(r->job, i * (int)r->req.n).reused;
    }
    return json_pack("{sI sI sI s{sI}}", "prompt_tokens", (json_int_t)prompt, "completion_tokens", (json_int_t) new, "total_tokens",
                     (json_int_t)(prompt + new), "prompt_tokens_details", "cached_tokens", (json_int_t)cached);
}

static json_t *envelope(const struct run *r, json_t *choices, bool chunk)
{
    const char *object = !r->req.chat ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
    json_t *v = json_pack("{ss ss sI ss so}", "id", r->id, "object", object, "created", (json_int_t)r->created, "model", r->v->name,
                          "choices", choices);
    if (chunk && r->req.stream_usage) /* the last one tells it */
        json_object_set_new(v, "usage", json_null());
    return v;
}

/* The text of a completion, after its prompt where that is wanted. */
static json_t *whole_text(struct run *r, struct choice *c)
{
    struct err why = {0};
    char *decoded = NULL, *all = NULL;
    size_t n_prompt = c->prompt->text ? strlen(c->prompt->text) : 0, n;
    const char *prompt = c->prompt->text, *text = text_take(&c->text, &n, true);
    if (!r->req.echo)
        return text_json(text, n);
    if (!prompt && tokenizer_decode(&decoded, &n_prompt, r->v->t, c->prompt->ids.ids, c->prompt->ids.n, &why) == 0)
        prompt = decoded;
    json_t *v = NULL;
    if (prompt && (all = malloc(n_prompt + n + 1))) {
        memcpy(mempcpy(all, prompt, n_prompt), text, n);
        v = text_json(all, n_prompt + n);
    }
    free(all);
    free(decoded);
    return v ? v : text_json(text, n);
}

json_t *answer_whole(struct run *r)
{
    json_t *choices = json_array();
    for (int i = 0; i < r->n; i++) {
        struct choice *c = &r->choices[i];
        json_t *text = whole_text(r, c);
        json_t *one = json_pack("{si so ss}", "index", i, "logprobs", logprobs_of(r, i, r->req.echo), "finish_reason", c->finish);
        if (r->req.chat)
            json_object_set_new(one, "message", json_pack("{ss so sn}", "role", "assistant", "content", text, "refusal"));
        else
            json_object_set_new(one, "text", text);
        json_array_append_new(choices, one);
    }
    json_t *v = envelope(r, choices, false);
    json_object_set_new(v, "usage", usage(r));
    return v;
}

static json_t *chunk_of(struct run *r, int i, const char *text, size_t n, bool last)
{
    struct choice *c = &r->choices[i];
    json_t *one = json_pack("{si so so}", "index", i, "logprobs", logprobs_of(r, i, false), "finish_reason",
                            last ? json_string(c->finish) : json_null());
    if (r->req.chat) {
        json_t *delta = json_object();
        if (!c->greeted)
            json_object_set_new(delta, "role", json_string("assistant"));
        if (n > 0 || !c->greeted)
            json_object_set_new(delta, "content", text_json(text, n));
        json_object_set_new(one, "delta", delta);
    } else {
        json_object_set_new(one, "text", text_json(text, n));
    }
    c->greeted = true;
    c->closed = last;
    return envelope(r, json_pack("[o]", one), true);
}

json_t *answer_chunk(struct run *r)
{
    for (int i = 0; i < r->n; i++) {
        struct choice *c = &r->choices[i];
        size_t n;
        if (c->closed)
            continue;
        const char *text = text_take(&c->text, &n, c->finish != NULL);
        if (n > 0 || c->finish || (r->req.chat && !c->greeted))
            return chunk_of(r, i, text, n, c->finish != NULL);
    }
    return NULL;
}

json_t *answer_usage_chunk(struct run *r)
{
    json_t *v = envelope(r, json_array(), true);
    json_object_set_new(v, "usage", usage(r));
    return v;
}

json_t *answer_error(const struct api_error *e)
{
    json_t *message = json_string(e->message); /* cut at a length, so maybe inside a character */
    return json_pack("{s{so ss so so}}", "error", "message", message ? message : text_json(e->message, strlen(e->message)), "type",
                     e->type ? e->type : "invalid_request_error", "param",
                     e->param[0] ? text_json(e->param, strlen(e->param)) : json_null(), "code",
                     e->code ? json_string(e->code) : json_null());
}

json_t *answer_model(const struct server *s, const struct serve_variant *v)
{
    const struct model *m = v->run.m;
    return json_pack("{ss ss sI ss sI sI sI sb}", "id", v->name, "object", "model", "created", (json_int_t)s->started, "owned_by",
                     "espalier", "parameters", (json_int_t)model_params(m), "blocks", (json_int_t)m->n_order, "context_length",
                     (json_int_t)s->context, "chat", s->o.chat_template || tokenizer_has_chat(v->t));
}

json_t *answer_models(const struct server *s)
{
    json_t *data = json_array();
    for (int i = 0; i < s->n_variants; i++)
        json_array_append_new(data, answer_model(s, &s->variants[i]));
    return json_pack("{ss so}", "object", "list", "data", data);
}

char *sse_frame(size_t *n, json_t *v)
{
    char *json = v ? json_dumps(v, JSON_COMPACT | JSON_REAL_PRECISION(9)) : strdup("[DONE]"), *frame = NULL;
    int len = json ? asprintf(&frame, "data: %s\n\n", json) : -1;
    json_decref(v);
    free(json);
    if (len < 0)
        return NULL;
    *n = (size_t)len;
    return frame;
}
