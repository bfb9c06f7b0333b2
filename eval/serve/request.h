/* Bodies of /v1/completions and /v1/chat/completions: what is asked, checked to the last field. */
#ifndef ESPALIER_EVAL_SERVE_REQUEST_H
#define ESPALIER_EVAL_SERVE_REQUEST_H

#include <jansson.h>
#include <stdbool.h>

#include "core/base/err.h"
#include "eval/sample.h"

/* What the client did wrong, or the server cannot do: the answer's status and OpenAI's error object. */
struct api_error {
    int status; /* 0: none */
    const char *type, *code;
    char param[64];
    char message[400];
};

/* Records the first error; returns -1. */
int api_fail(struct api_error *e, int status, const char *type, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* The same for 400 invalid_request_error. */
int api_invalid(struct api_error *e, const char *param, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

enum { MAX_STOPS = 16, MAX_BIASES = 1024, MAX_CHOICES = 128 };

struct api_request {
    bool chat;
    json_t *body;       /* owns what is below */
    json_t *messages;   /* chat: [{"role", "content"}], contents as one string each */
    json_t *prompts;    /* else: an array of strings and arrays of ids */
    const char *model;  /* or NULL */
    int64_t max_tokens; /* -1: not said */
    struct sampling sampling;
    struct candidate *bias; /* what sampling.bias points to */
    bool seeded;
    int64_t n, best_of; /* choices of each prompt; best_of 0: not said */
    bool logprobs;
    int top;
    bool echo, stream, stream_usage;
    const char *stops[MAX_STOPS];
    size_t stop_lengths[MAX_STOPS];
    int n_stops;
};

int api_request_parse(struct api_request *r, const char *body, size_t n, bool chat, struct api_error *err);
void api_request_free(struct api_request *r);

#endif
