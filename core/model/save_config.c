/* The config.json of a saved model. */
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/model/save_impl.h"

static const char *torch_dtype(enum dtype t)
{
    return t == DTYPE_F32 ? "float32" : t == DTYPE_F16 ? "float16" : "bfloat16";
}

static json_t *token_id(int64_t id)
{
    return id < 0 ? json_null() : json_integer(id);
}

/* A GGUF's description in the terms of transformers' LlamaConfig. */
static json_t *config_of_gguf(const struct model *m)
{
    const struct config *c = &m->cfg;
    json_t *scaling = json_null();
    if (c->rope_kind == ROPE_LINEAR)
        scaling = json_pack("{ss sf}", "rope_type", "linear", "factor", c->rope_factor);
    else if (c->rope_kind == ROPE_LLAMA3)
        scaling = json_pack("{ss sf sf sf sI}", "rope_type", "llama3", "factor", c->rope_factor, "low_freq_factor",
                            c->rope_low_freq_factor, "high_freq_factor", c->rope_high_freq_factor,
                            "original_max_position_embeddings", (json_int_t)c->rope_original_context);
    return json_pack("{s[s] ss ss sI sI sI sI sI sI sI sI sf sf so sb sb sb so so so}", "architectures", "LlamaForCausalLM",
                     "model_type", "llama", "hidden_act", "silu", "hidden_size", (json_int_t)c->dim, "intermediate_size",
                     (json_int_t)c->ffn_dim, "num_attention_heads", (json_int_t)c->n_heads, "num_key_value_heads",
                     (json_int_t)c->n_kv_heads, "head_dim", (json_int_t)c->head_dim, "vocab_size", (json_int_t)c->vocab_size,
                     "max_position_embeddings", (json_int_t)c->context_length, "num_hidden_layers", (json_int_t)c->n_blocks,
                     "rms_norm_eps", c->norm_eps, "rope_theta", c->rope_theta, "rope_scaling", scaling, "tie_word_embeddings",
                     c->tied_embeddings, "attention_bias", m->blocks[0].bias[PROJ_Q] != NULL, "mlp_bias",
                     m->blocks[0].bias[PROJ_GATE] != NULL, "bos_token_id", token_id(c->bos), "eos_token_id", token_id(c->eos),
                     "pad_token_id", token_id(c->pad));
}

/* Lists with one entry per block keep the entries of the blocks that stay. */
static void shorten_lists(json_t *root, const struct model *m)
{
    static const char *const per_block[] = {"layer_types", "no_rope_layers"};
    for (size_t i = 0; i < sizeof per_block / sizeof *per_block; i++) {
        const json_t *list = json_object_get(root, per_block[i]);
        if ((int64_t)json_array_size(list) != m->cfg.n_blocks)
            continue;
        json_t *kept = json_array();
        for (int64_t k = 0; k < m->n_order; k++)
            json_array_append(kept, json_array_get(list, (size_t)m->order[k]));
        json_object_set_new(root, per_block[i], kept);
    }
}

/* What compressed-tensors (and through it transformers and vLLM) calls 8-bit float weights with a scale for each row, of every
 * linear layer but the head, with activations as they are. */
static json_t *f8_scheme(void)
{
    json_t *weights = json_pack("{si ss sb ss sb sn ss}", "num_bits", 8, "type", "float", "symmetric", 1, "strategy", "channel",
                                "dynamic", 0, "group_size", "observer", "minmax");
    json_t *group =
        json_pack("{s[s] so sn sn}", "targets", "Linear", "weights", weights, "input_activations", "output_activations");
    return json_pack("{ss ss ss s[s] sn s{so}}", "quant_method", "compressed-tensors", "format", "float-quantized",
                     "quantization_status", "compressed", "ignore", "lm_head", "kv_cache_scheme", "config_groups", "group_0",
                     group);
}

void config_set_dtypes(json_t *root, enum dtype weights, enum dtype rest)
{
    json_object_del(root, "quantization_config");
    if (weights == DTYPE_F8_E4M3)
        json_object_set_new(root, "quantization_config", f8_scheme());
    bool new_style = json_object_get(root, "dtype") != NULL; /* transformers 5 renamed torch_dtype */
    json_object_set_new(root, new_style ? "dtype" : "torch_dtype", json_string(torch_dtype(rest)));
}

static json_t *own_config(const struct model *m, struct err *err)
{
    if (m->src.gguf)
        return config_of_gguf(m);
    if (m->src.config)
        return json_parse(m->src.config, strlen(m->src.config), m->path, err);
    char *path = path_join(m->path, "config.json", err);
    json_t *root = path ? json_read(path, err) : NULL;
    free(path);
    return root;
}

json_t *saved_config(const struct model *m, const struct manifest_options *o, struct err *err)
{
    if (m->rope_factors) { /* written without them, the saved model would be another one */
        err_set(err,
                "%s: its rotary factors (tensor rope_freqs.weight) fit no rule that a Hugging Face config.json can state; use "
                "the Hugging Face form of the model, or write a GGUF",
                m->path);
        return NULL;
    }
    json_t *root = own_config(m, err);
    if (!root) {
        err_set(err, "%s: out of memory", m->path);
        return NULL;
    }
    json_object_set_new(root, "tie_word_embeddings", json_boolean(m->cfg.tied_embeddings)); /* as it is, whatever its file said */
    json_object_set_new(root, "num_hidden_layers", json_integer(m->n_order));
    shorten_lists(root, m);
    config_set_dtypes(root, o->dtype, o->rest);
    return root;
}
