/* Generation speed by the published protocol (Shortened LLaMA, gen_batch_eval_time.py): a short prompt, a forced number of new
 * tokens, warm-up runs, timed runs; one sequence or several that are decoded together. What is timed are the steps of a lane of
 * eval/engine.h, those that serve requests: each sequence gets what it gets alone. */
#ifndef ESPALIER_EVAL_SPEED_H
#define ESPALIER_EVAL_SPEED_H

#include "core/base/progress.h"
#include "core/model/lm.h"

enum { SPEED_MAX_BATCH = 16 };

struct speed_protocol {
    int64_t batch;             /* sequences, 1 to SPEED_MAX_BATCH */
    int64_t n_prompt, out_len; /* tokens in and out of each; at least 1 and 2 */
    int64_t warmup, runs;      /* untimed and timed; at least 0 and 1 */
};

struct speed_result {
    double prefill_tok_s;    /* prompt tokens of all sequences per second */
    double decode_tok_s;     /* new tokens of all sequences per second, once each has its first */
    double decode_std;       /* sample standard deviation of that over the runs; 0 for one run */
    double ratio, ratio_std; /* decode_tok_s to the first model's in the same turn: mean and standard deviation over the turns */
    double latency_s, latency_std; /* of a whole run: mean and sample standard deviation */
    double throughput_tok_s;       /* new tokens per second of a whole run */
    double first_token_at;         /* clock_seconds() when every sequence of the first run had a token */
    int64_t bytes_per_token;       /* weight bytes that one decoding step reads, a sequence */
    int64_t prompt_rows;           /* prompt tokens that a timed run computed: all of them, none is left from the run before */
};

/* Greedy continuations of prompts [batch, n_prompt]. ids [batch, out_len]: those of the last run; or NULL. */
int speed_measure(struct speed_result *r, int32_t *ids, const struct model *m, const struct compute *c, const struct lora_set *lora,
                  const int32_t *prompts, const struct speed_protocol *p, struct progress *progress, struct err *err);

/* n models that take turns, run by run, so that what the machine does meanwhile meets all alike. r [n]. */
int speed_measure_turns(struct speed_result *r, const struct model *const *models, int64_t n, const struct compute *c,
                        const int32_t *prompts, const struct speed_protocol *p, struct progress *progress, struct err *err);

/* Bytes of the weights that one decoding step of `batch` sequences reads: every block that runs, the head, a row of the embedding
 * each. */
int64_t speed_bytes_per_step(const struct model *m, int64_t batch);

#endif
