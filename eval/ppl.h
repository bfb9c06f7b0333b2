/* Perplexity of a text by a named protocol. */
#ifndef ESPALIER_EVAL_PPL_H
#define ESPALIER_EVAL_PPL_H

#include "core/base/progress.h"
#include "core/model/lm.h"

/* How a token stream is cut into windows and which tokens are scored. The remainder is dropped in each.
 *   shortened-128      one BOS before the stream; windows of 128, 127 targets each (Shortened LLaMA, eval_ppl.py)
 *   shortened-128-bos  windows of 128, each behind a BOS of its own; 128 targets each
 *   gptq-2048          windows of 2,048 without BOS; 2,047 targets each (GPTQ's evaluation) */
struct ppl_protocol {
    char name[40];
    int64_t window;
    bool bos_stream, bos_window;
};

/* The protocol of that name; seq_len > 0 replaces its window length (and the number in its name). */
int ppl_protocol(struct ppl_protocol *p, const char *name, int64_t seq_len, struct err *err);

struct ppl_result {
    double ppl, nll; /* exp(nll / tokens_scored); nll is the sum in nats */
    int64_t tokens_scored, windows;
};

/* ids [n]: the stream, without BOS. Fails when it does not fill one window, or when a BOS is called for and bos < 0. */
int ppl_evaluate(struct ppl_result *r, const struct model *m, const struct compute *c, const struct lora_set *lora,
                 const struct ppl_protocol *p, const int32_t *ids, int64_t n, int32_t bos, struct progress *progress,
                 struct err *err);

#endif
