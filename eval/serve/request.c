#include "eval/serve/request.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int api_fail(struct api_error *e, int status, const char *type, const char *code, const char *param, const char *fmt, ...)
{
    va_list ap;
    if (e->status)
        return -1;
    e->status = status;
    e->type = type;
    e->code = code;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
    return -1;
}

int api_invalid(struct api_error *e, const char *param, const char *fmt, ...)
{
    char text[sizeof e->message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return api_fail(e, 400, "invalid_request_error", NULL, param, "%s", text);
}

/* ---- values ---- */

static int get_int(int64_t *out, const json_t *v, const char *name, int64_t least, int64_t most, struct api_error *err)
{
    if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > most)
        return api_invalid(err, name, "%s: a whole number from %lld to %lld was expected", name, (long long)least, (long long)most);
    *out = json_integer_value(v);
    return 0;
}

static int get_real(double *out, const json_t *v, const char *name, double least, double most, struct api_error *err)
{
    if (!json_is_number(v) || !(json_number_value(v) >= least && json_number_value(v) <= most))
        return api_invalid(err, name, "%s: a number from %g to %g was expected", name, least, most);
    *out = json_number_value(v);
    return 0;
}

static int get_bool(bool *out, const json_t *v, const char *name, struct api_error *err)
{
    if (!json_is_boolean(v))
        return api_invalid(err, name, "%s: true or false was expected", name);
    *out = json_is_true(v);
    return 0;
}

/* ---- fields ---- */

typedef int field_fn(struct api_request *r, json_t *v, const char *name, struct api_error *err);

static int take_model(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    r->model = json_string_value(v);
    return r->model ? 0 : api_invalid(err, name, "%s: a string was expected", name);
}

static bool is_id_list(const json_t *v)
{
    size_t i;
    json_t *id;
    if (!json_is_array(v) || json_array_size(v) == 0)
        return false;
    json_array_foreach(v, i, id)
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return false;
    return true;
}

/* A string, a list of ids, or a list of either. */
static int take_prompt(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    size_t i;
    json_t *one;
    bool single = json_is_string(v) || is_id_list(v);
    r->prompts = single ? json_pack("[O]", v) : json_incref(v);
    bool good = json_is_array(r->prompts) && json_array_size(r->prompts) > 0;
    if (good)
        json_array_foreach(r->prompts, i, one)
            good = good && (json_is_string(one) || is_id_list(one));
    return good ? 0
                : api_invalid(err, name,
                              "%s: a string, a list of strings, a list of token ids or a list of such lists was expected", name);
}

/* The text of a message: a string, or parts of type text joined. A new reference, or NULL. */
static json_t *message_text(json_t *content)
{
    size_t i, n = 0;
    json_t *part;
    if (json_is_string(content))
        return json_incref(content);
    json_array_foreach(content, i, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!type || strcmp(type, "text") != 0 || !json_is_string(json_object_get(part, "text")))
            return NULL;
        n += json_string_length(json_object_get(part, "text"));
    }
    if (!json_is_array(content) || json_array_size(content) == 0)
        return NULL;
    json_t *joined = NULL;
    char *text = n < SIZE_MAX ? calloc(n + 1, 1) : NULL, *at = text;
    json_array_foreach(content, i, part)
        if (text)
            at = mempcpy(at, json_string_value(json_object_get(part, "text")), json_string_length(json_object_get(part, "text")));
    joined = text ? json_stringn(text, n) : NULL;
    free(text);
    return joined;
}

/* What clients send of earlier messages beside their text, with nothing in it. */
static bool is_message_extra(const char *key, const json_t *v)
{
    static const char *const extras[] = {"refusal", "tool_calls", "function_call", "audio", "annotations"};
    for (size_t i = 0; i < sizeof extras / sizeof *extras; i++)
        if (!strcmp(key, extras[i]))
            return json_is_null(v) || (json_is_array(v) && json_array_size(v) == 0);
    return !strcmp(key, "name");
}

/* "developer" is what OpenAI calls "system" now. */
static const char *known_role(const json_t *role)
{
    static const char *const roles[][2] = {
        {"system", "system"}, {"developer", "system"}, {"user", "user"}, {"assistant", "assistant"}};
    for (size_t i = 0; json_is_string(role) && i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(json_string_value(role), roles[i][0]))
            return roles[i][1];
    return NULL;
}

static int take_message(json_t *out, json_t *message, size_t i, struct api_error *err)
{
    char param[64];
    const char *key;
    json_t *v;
    snprintf(param, sizeof param, "messages[%zu]", i);
    if (!json_is_object(message))
        return api_invalid(err, param, "%s: an object was expected", param);
    json_object_foreach(message, key, v)
        if (strcmp(key, "role") != 0 && strcmp(key, "content") != 0 && !is_message_extra(key, v))
            return api_invalid(err, param, "%s: the field %.100s is not supported", param, key);
    const char *role = known_role(json_object_get(message, "role"));
    if (!role)
        return api_invalid(err, param, "%s: the role system, developer, user or assistant was expected", param);
    json_t *text = message_text(json_object_get(message, "content"));
    if (!text)
        return api_invalid(err, param, "%s: content: a string or a list of text parts was expected", param);
    json_t *clean = json_pack("{ss so}", "role", role, "content", text);
    return json_array_append_new(out, clean) == 0 ? 0 : api_fail(err, 500, "server_error", NULL, NULL, "out of memory");
}

static int take_messages(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    size_t i;
    json_t *message;
    if (!json_is_array(v) || json_array_size(v) == 0)
        return api_invalid(err, name, "%s: a list of messages was expected", name);
    r->messages = json_array();
    json_array_foreach(v, i, message)
        if (take_message(r->messages, message, i, err) != 0)
            return -1;
    return 0;
}

/* max_tokens, and its newer name */
static int take_max_tokens(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    if (r->max_tokens >= 0)
        return api_invalid(err, name, "max_tokens and max_completion_tokens are the same, and only one of them is taken");
    return get_int(&r->max_tokens, v, name, r->chat ? 1 : 0, INT32_MAX, err);
}

static int take_temperature(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    return get_real(&r->sampling.temperature, v, name, 0, 2, err);
}

static int take_top_p(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    if (get_real(&r->sampling.top_p, v, name, 0, 1, err) != 0)
        return -1;
    return r->sampling.top_p > 0 ? 0 : api_invalid(err, name, "%s must be above 0", name);
}

/* -1 is "all" to some clients */
static int take_top_k(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    if (get_int(&r->sampling.top_k, v, name, -1, INT32_MAX, err) != 0)
        return -1;
    if (r->sampling.top_k < 0)
        r->sampling.top_k = 0;
    return 0;
}

static int take_seed(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    int64_t seed = 0;
    if (get_int(&seed, v, name, INT64_MIN, INT64_MAX, err) != 0)
        return -1;
    r->sampling.seed = (uint64_t)seed;
    r->seeded = true;
    return 0;
}

static int take_n(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    return get_int(&r->n, v, name, 1, MAX_CHOICES, err);
}

static int take_best_of(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    return get_int(&r->best_of, v, name, 1, MAX_CHOICES, err);
}

static int take_presence_penalty(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    return get_real(&r->sampling.presence_penalty, v, name, -2, 2, err);
}

static int take_frequency_penalty(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    return get_real(&r->sampling.frequency_penalty, v, name, -2, 2, err);
}

/* {"token id": what is added to its logit}; whether the vocabulary has the id is for later. */
static int take_logit_bias(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    const char *key;
    json_t *one;
    if (!json_is_object(v) || json_object_size(v) > MAX_BIASES)
        return api_invalid(err, name, "%s: an object of %d token ids at most was expected", name, MAX_BIASES);
    r->sampling.bias = r->bias = calloc(json_object_size(v) + 1, sizeof *r->bias);
    if (!r->bias)
        return api_fail(err, 500, "server_error", NULL, NULL, "out of memory");
    json_object_foreach(v, key, one) {
        double by = 0;
        size_t digits = strspn(key, "0123456789");
        if (digits == 0 || digits > 9 || key[digits])
            return api_invalid(err, name, "%s: %.40s is no token id", name, key);
        if (get_real(&by, one, name, -100, 100, err) != 0)
            return -1;
        r->bias[r->sampling.n_bias++] = (struct candidate){(float)by, (int32_t)strtol(key, NULL, 10)};
    }
    return 0;
}

/* What the answer does not depend on. */
static int take_ignored(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    (void)r;
    return json_is_string(v) ? 0 : api_invalid(err, name, "%s: a string was expected", name);
}

static int take_metadata(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    (void)r;
    return json_is_object(v) ? 0 : api_invalid(err, name, "%s: an object was expected", name);
}

static int take_stop(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > MAX_STOPS)
        return api_invalid(err, name, "%s: %d strings at most", name, MAX_STOPS);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(s) || json_string_length(s) == 0)
            return api_invalid(err, name, "%s: a string that is not empty, or a list of them, was expected", name);
        r->stops[r->n_stops] = json_string_value(s);
        r->stop_lengths[r->n_stops++] = json_string_length(s);
    }
    return 0;
}

/* A number for completions, a boolean for chats. */
static int take_logprobs(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    int64_t top = 0;
    if (r->chat)
        return get_bool(&r->logprobs, v, name, err);
    if (get_int(&top, v, name, 0, 20, err) != 0)
        return -1;
    r->logprobs = true;
    r->top = (int)top;
    return 0;
}

static int take_top_logprobs(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    int64_t top = 0;
    if (get_int(&top, v, name, 0, 20, err) != 0)
        return -1;
    r->top = (int)top;
    return 0;
}

static int take_echo(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    return get_bool(&r->echo, v, name, err);
}

static int take_stream(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    return get_bool(&r->stream, v, name, err);
}

static int take_stream_options(struct api_request *r, json_t *v, const char *name, struct api_error *err)
{
    const char *key;
    json_t *one;
    if (!json_is_object(v))
        return api_invalid(err, name, "%s: an object was expected", name);
    json_object_foreach(v, key, one) {
        bool obfuscation = false, is_usage = !strcmp(key, "include_usage");
        if (!is_usage && strcmp(key, "include_obfuscation") != 0)
            return api_invalid(err, name, "%s: unknown field %.100s", name, key);
        if (!json_is_null(one) && get_bool(is_usage ? &r->stream_usage : &obfuscation, one, name, err) != 0)
            return -1;
        if (obfuscation)
            return api_invalid(err, name, "%s: include_obfuscation is not supported", name);
    }
    return 0;
}

enum { COMPLETION = 1, CHAT = 2, BOTH = 3 };

static const struct field {
    const char *name;
    int where;
    field_fn *take;
} fields[] = {
    {"model", BOTH, take_model},
    {"prompt", COMPLETION, take_prompt},
    {"messages", CHAT, take_messages},
    {"max_tokens", BOTH, take_max_tokens},
    {"max_completion_tokens", CHAT, take_max_tokens},
    {"temperature", BOTH, take_temperature},
    {"top_p", BOTH, take_top_p},
    {"top_k", BOTH, take_top_k},
    {"seed", BOTH, take_seed},
    {"n", BOTH, take_n},
    {"best_of", COMPLETION, take_best_of},
    {"stop", BOTH, take_stop},
    {"logprobs", BOTH, take_logprobs},
    {"top_logprobs", CHAT, take_top_logprobs},
    {"echo", COMPLETION, take_echo},
    {"stream", BOTH, take_stream},
    {"stream_options", BOTH, take_stream_options},
    {"presence_penalty", BOTH, take_presence_penalty},
    {"frequency_penalty", BOTH, take_frequency_penalty},
    {"logit_bias", BOTH, take_logit_bias},
    {"user", BOTH, take_ignored},
    {"safety_identifier", CHAT, take_ignored},
    {"prompt_cache_key", CHAT, take_ignored},
    {"metadata", CHAT, take_metadata},
};

/* What they ask for is not supported: only values that ask for nothing are taken. */
static const struct unsupported {
    const char *name;
    int where;
    const char *neutral; /* a list of them */
} unsupported[] = {
    {"suffix", COMPLETION, "[\"\"]"},
    {"response_format", CHAT, "[{\"type\":\"text\"}]"},
    {"tools", CHAT, "[[]]"},
    {"tool_choice", CHAT, "[\"none\",\"auto\"]"},
    {"parallel_tool_calls", CHAT, "[true,false]"},
    {"functions", CHAT, "[[]]"},
    {"function_call", CHAT, "[\"none\",\"auto\"]"},
    {"modalities", CHAT, "[[\"text\"]]"},
    {"service_tier", CHAT, "[\"auto\",\"default\"]"},
    {"store", CHAT, "[false]"},
    {"reasoning_effort", CHAT, "[\"none\"]"},
    {"audio", CHAT, "[]"},
    {"prediction", CHAT, "[]"},
    {"verbosity", CHAT, "[]"},
    {"web_search_options", CHAT, "[]"},
};

static bool is_neutral(const struct unsupported *f, const json_t *v)
{
    size_t i;
    json_t *list = json_loads(f->neutral, 0, NULL), *one;
    bool found = false;
    json_array_foreach(list, i, one)
        found = found || json_equal(one, v);
    json_decref(list);
    return found;
}

static int take_field(struct api_request *r, const char *name, json_t *v, struct api_error *err)
{
    int where = r->chat ? CHAT : COMPLETION;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!strcmp(fields[i].name, name) && (fields[i].where & where))
            return json_is_null(v) ? 0 : fields[i].take(r, v, name, err);
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (!strcmp(unsupported[i].name, name) && (unsupported[i].where & where))
            return json_is_null(v) || is_neutral(&unsupported[i], v) ? 0 : api_invalid(err, name, "%s is not supported", name);
    return api_invalid(err, name, "unknown field %.100s", name);
}

/* What no single field can tell. */
static int check_together(const struct api_request *r, struct api_error *err)
{
    if (r->chat && !r->messages)
        return api_invalid(err, "messages", "messages is missing");
    if (!r->chat && !r->prompts)
        return api_invalid(err, "prompt", "prompt is missing");
    if (r->chat && r->top > 0 && !r->logprobs)
        return api_invalid(err, "top_logprobs", "top_logprobs goes with \"logprobs\": true");
    if (r->max_tokens == 0 && !r->echo)
        return api_invalid(err, "max_tokens", "max_tokens may be 0 with \"echo\": true only");
    if (r->best_of > 0 && r->best_of != r->n)
        return api_invalid(err, "best_of", "best_of: as many as n was expected; picking the best of more is not supported");
    if (r->stream && r->echo)
        return api_invalid(err, "echo", "echo does not go with \"stream\": true");
    return 0;
}

int api_request_parse(struct api_request *r, const char *body, size_t n, bool chat, struct api_error *err)
{
    json_error_t why;
    const char *key;
    json_t *v;
    *r = (struct api_request){.chat = chat, .max_tokens = -1, .n = 1, .sampling = {.temperature = 1, .top_p = 1}};
    r->body = json_loadb(body, n, JSON_REJECT_DUPLICATES, &why);
    if (!r->body)
        return api_invalid(err, NULL, "the body is not JSON: line %d, column %d: %.150s", why.line, why.column, why.text);
    if (!json_is_object(r->body))
        return api_invalid(err, NULL, "the body is no JSON object");
    json_object_foreach(r->body, key, v)
        if (take_field(r, key, v, err) != 0)
            return -1;
    return check_together(r, err);
}

void api_request_free(struct api_request *r)
{
    json_decref(r->messages);
    json_decref(r->prompts);
    json_decref(r->body);
    free(r->bias);
    *r = (struct api_request){0};
}
