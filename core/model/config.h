/* One description of a LLaMA-type model, from a Hugging Face config.json or from GGUF metadata. */
#ifndef ESPALIER_MODEL_CONFIG_H
#define ESPALIER_MODEL_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/io/gguf.h"

enum rope_kind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3 };

struct config {
    int64_t n_blocks, dim, n_heads, n_kv_heads, head_dim, ffn_dim, vocab_size, context_length;
    double norm_eps, rope_theta;
    enum rope_kind rope_kind;
    double rope_factor, rope_low_freq_factor, rope_high_freq_factor; /* llama3 uses all three, linear the first */
    int64_t rope_original_context;
    bool tied_embeddings;
    int64_t bos, eos, pad; /* -1: none */
};

/* Reads `dir`/config.json of a LLaMA (or a Mistral without sliding window). Both the older layout (rope_theta, rope_scaling)
 * and that of transformers 5 (rope_parameters) are understood; fields that LLaMA-1 leaves out get their defaults. */
int config_from_hf(struct config *cfg, const char *dir, struct err *err);

/* The same of a config.json that is not in a file of its own, or parsed already; `file` is named in messages. */
int config_from_text(struct config *cfg, const char *text, const char *file, struct err *err);
int config_from_json(struct config *cfg, const json_t *root, const char *file, struct err *err);

/* From the metadata of a GGUF of architecture "llama". tied_embeddings and vocab_size are completed by the caller, who sees
 * the tensors. */
int config_from_gguf(struct config *cfg, const struct gguf *g, struct err *err);

/* Whether the sizes make a model: positive, heads that divide, nothing absurd. `file` is named in the message. */
int config_check(const struct config *cfg, const char *file, struct err *err);

/* inv_freq [head_dim / 2]: the rotary frequencies theta^(-2i/d), scaled as transformers does (rope types default, linear,
 * llama3). */
void config_rope_frequencies(float *inv_freq, const struct config *cfg);

#endif
