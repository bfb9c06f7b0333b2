/* Text generation: prefill the prompt, then one token at a time against the KV cache. */
#ifndef ESPALIER_EVAL_GENERATE_H
#define ESPALIER_EVAL_GENERATE_H

#include <stdbool.h>

#include "core/io/tokenizer.h"
#include "core/model/lm.h"
#include "eval/sample.h"

/* A model with a KV cache, for one sequence. */
struct generator {
    struct lm lm;
    struct kv_cache kv;
    float *logits; /* [vocab] of the last position */
    struct sampler sampler;
    struct arena arena;
};

int generator_open(struct generator *g, const struct model *m, const struct compute *c, const struct lora_set *lora,
                   int64_t max_positions, struct err *err);
void generator_close(struct generator *g);

/* Forgets the sequence. */
void generator_reset(struct generator *g);

/* Runs ids [n] after what is in the cache; g->logits are those after the last of them. The rows of one call all go through the
 * matrices in one way, by dot products where they are few, as those of a request do in eval/engine.c. */
int generator_feed(struct generator *g, const int32_t *ids, int64_t n, struct err *err);

/* Runs ids [n <= GENERATOR_STEPS] as if one after the other, in one pass: logits [n, vocab] after each, with the bits that so many
 * calls of generator_feed would give. */
enum { GENERATOR_STEPS = 64 };
int generator_steps(struct generator *g, float *logits, const int32_t *ids, int64_t n, struct err *err);

/* The next token by g->logits, see sample_token. */
int32_t generator_pick(struct generator *g, const struct sampling *s, struct rng *rng);

/* Appends up to max_tokens ids after the prompt; stops at one of `ends` (which is not appended), which may be NULL. on_token may be NULL;
 * it sees each id as it comes, and stops the generation by returning false. */
int generate(struct ids *out, struct generator *g, const int32_t *prompt, int64_t n_prompt, int64_t max_tokens,
             const struct tokenizer_ends *ends, const struct sampling *s, bool (*on_token)(void *arg, int32_t id), void *arg,
             struct err *err);

#endif
