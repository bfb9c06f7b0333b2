/* Text generation: prefill the prompt, then one token at a time against the KV cache. */
#ifndef ESPALIER_EVAL_GENERATE_H
#define ESPALIER_EVAL_GENERATE_H

#include <stdbool.h>

#include "core/base/rng.h"
#include "core/io/tokenizer.h"
#include "core/model/lm.h"

struct sampling {
    double temperature; /* 0: greedy */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
    uint64_t seed;
};

/* A model with a KV cache, for one sequence. */
struct generator {
    struct lm lm;
    struct kv_cache kv;
    float *logits;                /* [vocab] of the last position */
    struct candidate *candidates; /* [vocab], for sampling */
    struct arena arena;
};

int generator_open(struct generator *g, const struct model *m, const struct compute *c, const struct lora_set *lora,
                   int64_t max_positions, struct err *err);
void generator_close(struct generator *g);

/* Forgets the sequence. */
void generator_reset(struct generator *g);

/* Runs ids [n] after what is in the cache; g->logits are those after the last of them. */
int generator_feed(struct generator *g, const int32_t *ids, int64_t n, struct err *err);

/* The next token by g->logits: the argmax (first on ties), or a draw from the softmax at a temperature over the top_k likeliest
 * tokens, cut where their probabilities reach top_p. */
int32_t generator_pick(struct generator *g, const struct sampling *s, struct rng *rng);

/* Appends up to max_tokens ids after the prompt; stops at `eos` (which is not appended) unless eos is -1. on_token may be NULL;
 * it sees each id as it comes, and stops the generation by returning false. */
int generate(struct ids *out, struct generator *g, const int32_t *prompt, int64_t n_prompt, int64_t max_tokens, int32_t eos,
             const struct sampling *s, bool (*on_token)(void *arg, int32_t id), void *arg, struct err *err);

#endif
