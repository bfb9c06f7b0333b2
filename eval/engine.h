/* Continuous batching: many requests, one forward at a time.
 *
 * One thread owns all computing. Others submit jobs, wait for their tokens and cancel them. Each variant of a model (what runs of
 * it, and an adapter) has a batch of its own over the same mapped weights: a number of slots, each a KV cache of `context`
 * positions whose memory is taken as it fills. Variants that have work take turns, a step each.
 *
 * A step is one lm_forward: a row for every request that is generating, and up to `prefill` rows of prompts, in the order they
 * came. So a running stream waits for one step of each variant with work, never for a whole prompt. Requests join when a slot is
 * free and leave with their last token, or within a step of being cancelled.
 *
 * What a request gets does not depend on what runs beside it, bit for bit. Generating rows go through the matrices as dot products
 * and prompt rows as packed products, whatever their numbers (linear_forward_split). Prompts are cut at multiples of QUERY_TILE
 * positions, so that attention meets the same tiles however the prompt is spread over steps, and a prefix is reused in whole tiles
 * that were prompt rows once: a reply in a conversation is read again in the next turn, once. What several requests begin with is
 * read by the first of them; the others wait for that much of it and copy. With an adapter a step takes one tile of one prompt,
 * because the adapter's products of prompt rows are cut by rows. Greedy is `espalier generate --temperature 0`. */
#ifndef ESPALIER_EVAL_ENGINE_H
#define ESPALIER_EVAL_ENGINE_H

#include <stdbool.h>

#include "core/io/tokenizer.h"
#include "core/model/lm.h"
#include "eval/sample.h"

struct engine;

/* What can be asked: all belong to the caller and outlive the engine. */
struct engine_variant {
    const struct model *m;
    const struct lora_set *lora; /* or NULL */
};

struct engine_limits {
    int64_t slots;   /* requests of one variant that run at once */
    int64_t context; /* positions of each */
    int64_t queue;   /* requests that may wait */
    int64_t prefill; /* prompt rows of a step */
};

/* What one sequence asks for. */
struct ask {
    int variant;
    const int32_t *prompt; /* [n_prompt], read until the job is released */
    int64_t n_prompt, max_tokens;
    struct sampling sampling;
    const struct tokenizer_ends *ends; /* tokens that end the sequence and are its last; NULL: nothing does */
    bool logprobs;                     /* the model's own, of each token and of the `top` likeliest beside it */
    int top;                           /* 0 to ENGINE_MAX_TOP */
    bool echo;                         /* logprobs of the prompt's tokens too */
};

enum { ENGINE_MAX_TOP = 20 };

/* A token and what was told about it. */
struct token {
    int32_t id;
    float logprob;               /* NaN: not asked for, or the first of a prompt */
    const struct candidate *top; /* [ask.top] likeliest, `logit` holding the log-probability; NULL: none */
};

enum finish { RUNNING, FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED, FINISH_ERROR };

/* How far a sequence is. Tokens [0, n) may be read without a lock. */
struct job_state {
    int64_t n; /* new tokens */
    enum finish finish;
    bool started;     /* it has left the queue */
    bool prompt_read; /* the prompt's log-probabilities are there */
    int64_t reused;   /* tokens of the prompt that were in a cache */
};

/* Opens and starts the thread. */
int engine_open(struct engine **out, const struct engine_variant *variants, int n_variants, const struct compute *c,
                const struct engine_limits *limits, struct err *err);
/* Cancels what is left and joins the thread. Every job must have been released. */
void engine_close(struct engine *e);

/* Bytes that the KV caches of these limits can grow to. */
double engine_cache_bytes(const struct engine_variant *variants, int n_variants, const struct engine_limits *limits);

/* ---- jobs: some sequences that are submitted, waited for and released together ---- */

struct job;
enum submitted { SUBMITTED, QUEUE_FULL, SUBMIT_FAILED };

/* All of the n asks or none: they must fit the queue, prompt + max_tokens <= context, and max_tokens is 0 only with echo. */
enum submitted engine_submit(struct job **out, struct engine *e, const struct ask *asks, int n, struct err *err);

/* Waits until something of the job has moved since this function returned `seen` (0 at first), for `seconds` at most. */
uint64_t job_wait(struct job *j, uint64_t seen, double seconds);

struct job_state job_state(struct job *j, int i);

/* Token k of what sequence i has generated, or with `of_prompt` of its prompt. */
struct token job_token(const struct job *j, int i, int64_t k, bool of_prompt);

/* Ends one sequence early, or with i < 0 all of them; a sequence that has finished stays as it is. */
void job_cancel(struct job *j, int i);

/* Cancels what runs, waits until nothing of it does (a step at most), and frees the job. */
void job_release(struct job *j);

struct engine_stats {
    int64_t waiting, running, slots;                               /* now */
    int64_t steps, rows, prompt_tokens, reused_tokens, new_tokens; /* since the start */
};
void engine_stats(struct engine *e, struct engine_stats *out);

#endif
