/* Perplexity of a text by a named protocol. */
#ifndef ESPALIER_EVAL_PPL_H
#define ESPALIER_EVAL_PPL_H

#include "core/base/progress.h"
#include "core/model/lm.h"

/* Where a protocol has BOS. */
enum ppl_bos {
    PPL_BOS_NONE,
    PPL_BOS_STREAM, /* once, before the stream */
    PPL_BOS_WINDOW, /* before every window, which is one longer for it */
    PPL_BOS_FIRST,  /* before the stream, and in place of every window's first token */
};

/* How a token stream is cut into windows and which tokens are scored. The remainder is dropped in each.
 *   shortened-128      one BOS before the stream; windows of 128, 127 targets each (Shortened LLaMA, eval_ppl.py)
 *   shortened-128-bos  windows of 128, each behind a BOS of its own; 128 targets each
 *   gptq-2048          windows of 2,048 without BOS; 2,047 targets each (GPTQ's evaluation)
 *   llamacpp-512       windows of 512, the first token of each a BOS; 255 targets each, those behind position 256; at least two
 *                      windows (llama.cpp, tools/perplexity). No BOS at all where the tokenizer adds none: `bos` is for the caller
 *                      to change then. */
struct ppl_protocol {
    char name[40];
    int64_t window;
    enum ppl_bos bos;
    bool half;    /* scores the second half of every window */
    bool literal; /* what spells a special token in the text is text, and a line break at its very end is none of it */
};

/* The protocol of that name; seq_len > 0 replaces its window length (and the number in its name). */
int ppl_protocol(struct ppl_protocol *p, const char *name, int64_t seq_len, struct err *err);

struct ppl_result {
    double ppl, nll; /* exp(nll / tokens_scored); nll is the sum in nats */
    int64_t tokens_scored, windows;
};

/* ids [n]: the stream, without BOS. Fails when it does not fill as many windows as it must, or when a BOS is called for and
 * bos < 0. */
int ppl_evaluate(struct ppl_result *r, const struct model *m, const struct compute *c, const struct lora_set *lora,
                 const struct ppl_protocol *p, const int32_t *ids, int64_t n, int32_t bos, struct progress *progress,
                 struct err *err);

#endif
