/* What the files of the server share. */
#ifndef ESPALIER_EVAL_SERVE_IMPL_H
#define ESPALIER_EVAL_SERVE_IMPL_H

#include <stdatomic.h>

#include "eval/engine.h"
#include "eval/serve/metrics.h"
#include "eval/serve/request.h"
#include "eval/serve/server.h"
#include "eval/serve/text.h"

struct server {
    const struct serve_variant *variants; /* [n_variants] */
    int n_variants;
    struct engine *engine;
    struct serve_options o;
    int64_t context;
    char (*key_hashes)[65]; /* [o.n_keys] */
    struct MHD_Daemon *daemon;
    struct arrivals *arrivals;
    int port;
    struct metrics metrics;
    atomic_int working; /* of these, those that are there whole: what a stop waits for */
    bool loopback;      /* listens on the loopback address */
    atomic_int active;  /* calls between their first byte and their last */
    atomic_bool draining;
    atomic_ullong next_seed; /* for requests that name none */
    int64_t started;
};

/* ---- run.c: one completion request from its parsed body to its answer ---- */

struct prompt {
    struct ids ids;
    const char *text; /* as it was sent, or NULL: ids were */
};

/* One of the answers to a prompt. */
struct choice {
    const struct prompt *prompt;
    struct text_out text;
    int64_t used;       /* new tokens looked at */
    int64_t told;       /* of them, those whose log-probabilities are out */
    size_t offset;      /* characters whose log-probabilities are out */
    const char *finish; /* NULL: runs */
    bool greeted;       /* chat stream: the role was sent */
    bool closed;        /* stream: the finish reason was sent */
};

struct run {
    struct server *s;
    const struct serve_variant *v;
    int variant;
    struct api_request req;
    char id[48];
    int64_t created;
    int n_prompts, n;       /* prompts; choices, req.n of each prompt */
    struct prompt *prompts; /* [n_prompts] */
    struct choice *choices; /* [n] */
    struct ask *asks;       /* [n] */
    struct job *job;
    uint64_t events;
    double began, first_token;
    bool usage_sent, done_sent;
    bool (*gone)(void *arg); /* whether the client has left */
    void *gone_arg;
};

/* The number of the variant of this name, or with NULL of the first one. */
int find_variant(const struct server *s, const char *name, struct api_error *err);

/* Parses, checks and submits. */
int run_begin(struct run *r, struct server *s, const char *body, size_t n, bool chat, struct api_error *err);
/* Waits for more and takes it in. Returns 1 when every choice has ended, 0 when there may be something new, -1 on an error; a
 * client that has left is error 499, which nobody will read. */
int run_advance(struct run *r, struct api_error *err);
void run_end(struct run *r);

/* ---- answer.c: what is sent ---- */

json_t *answer_error(const struct api_error *e);
json_t *answer_models(const struct server *s);
json_t *answer_model(const struct server *s, const struct serve_variant *v);
/* The answer to a request that has ended. */
json_t *answer_whole(struct run *r);
/* The next chunk of a stream that has something to tell, or NULL. */
json_t *answer_chunk(struct run *r);
json_t *answer_usage_chunk(struct run *r);

/* "data: ...\n\n" in a malloc'ed string; v == NULL is the end, "[DONE]". Releases v. */
char *sse_frame(size_t *n, json_t *v);

#endif
