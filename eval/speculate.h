/* Speculative decoding, greedy: a draft (the model without some blocks, say) proposes a few tokens, the model looks at all of them
 * in one pass and keeps those it would have chosen itself (Leviathan et al., arXiv 2211.17192, at temperature 0).
 *
 * The tokens are those of plain greedy decoding to the last bit of their logits: each proposed token is a sequence of one row in
 * the batch, over the one cache, and its rows go through the matrices as dot products, as they would alone. */
#ifndef ESPALIER_EVAL_SPECULATE_H
#define ESPALIER_EVAL_SPECULATE_H

#include "core/io/tokenizer.h"
#include "eval/generate.h"

enum { MAX_DRAFT = 32 };

struct speculator {
    struct generator full, draft;
    int64_t n_draft; /* tokens proposed at a time */
    float *logits;   /* [n_draft + 1, vocab] */
    struct arena arena;
    int64_t passes, proposed, accepted; /* so far */
    double seconds;                     /* after the prompt */
};

/* The draft shares the model's tokenizer; it may have other blocks, an adapter, or be another model. 1 <= n_draft <= MAX_DRAFT. */
int speculator_open(struct speculator *s, const struct model *m, const struct lora_set *lora, const struct model *draft,
                    const struct lora_set *draft_lora, int64_t n_draft, const struct compute *c, int64_t max_positions,
                    struct err *err);
void speculator_close(struct speculator *s);

/* As generate() at temperature 0. */
int speculate(struct ids *out, struct speculator *s, const int32_t *prompt, int64_t n_prompt, int64_t max_tokens,
              const struct tokenizer_ends *ends, bool (*on_token)(void *arg, int32_t id), void *arg, struct err *err);

/* Seconds of one token without a draft, measured over a few repeated steps where speculate() ended. */
int speculator_plain_seconds(double *seconds, struct speculator *s, struct err *err);

#endif
