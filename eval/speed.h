/* Generation speed by the published protocol (Shortened LLaMA, gen_batch_eval_time.py): a short prompt, a forced number of new
 * tokens, warm-up runs, timed runs. */
#ifndef ESPALIER_EVAL_SPEED_H
#define ESPALIER_EVAL_SPEED_H

#include "core/base/progress.h"
#include "eval/generate.h"

struct speed_result {
    double prefill_tok_s;          /* prompt tokens per second */
    double decode_tok_s;           /* tokens per second after the first */
    double latency_s, latency_std; /* of a whole run: mean and sample standard deviation */
    double throughput_tok_s;       /* new tokens per second of a whole run */
    int64_t bytes_per_token;       /* weight bytes that one decoding step reads */
};

/* prompt [n_prompt] is run `warmup` times untimed, then `runs` times. */
int speed_measure(struct speed_result *r, const struct model *m, const struct compute *c, const struct lora_set *lora,
                  const int32_t *prompt, int64_t n_prompt, int64_t out_len, int64_t warmup, int64_t runs, struct progress *progress,
                  struct err *err);

/* Bytes of the weights that one decoding step reads: every block that runs, the head, one row of the embedding. */
int64_t speed_bytes_per_token(const struct model *m);

#endif
