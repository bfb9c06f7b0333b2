/* An HTTP server with an API like OpenAI's, and a page that puts the variants side by side. A thread of its own for each
 * connection; they parse, wait and write, and the engine's thread computes. */
#ifndef ESPALIER_EVAL_SERVE_SERVER_H
#define ESPALIER_EVAL_SERVE_SERVER_H

#include <stdbool.h>

#include "core/io/tokenizer.h"
#include "eval/engine.h"

/* What answers under one name. Everything belongs to the caller. */
struct serve_variant {
    const char *name;
    struct engine_variant run;
    const struct tokenizer *t;
};

struct serve_options {
    const char *host; /* a numeric address */
    int port;         /* 0: any that is free */
    struct engine_limits engine;
    int64_t body_bytes, prompt_tokens, max_tokens, prompts, connections;
    double request_seconds;
    const char *cors;          /* an origin, or NULL */
    const char *chat_template; /* a name that tokenizer_chat_known knows, or NULL: the models' own */
    const char *const *keys;   /* [n_keys]: one of them must come with each request; none: all may ask */
    int n_keys;
};

struct server;

int server_open(struct server **out, const struct serve_variant *variants, int n_variants, const struct compute *c,
                const struct serve_options *o, struct err *err);

/* The port it listens on. */
int server_port(const struct server *s);

/* From now on new requests get 503. Returns when those that ran are through; request_seconds bounds them. */
void server_drain(struct server *s);

void server_close(struct server *s);

#endif
