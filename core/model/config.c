#include "core/model/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"

/* rope_parameters (transformers 5) or rope_scaling (older): the same fields under another name. Where a config has both, rope_scaling
 * counts, as in transformers. Without its original context, llama3's scaling takes the model's context, as there. */
static int read_rope(struct config *cfg, const json_t *root, const char *file, struct err *err)
{
    const json_t *parameters = json_object_get(root, "rope_parameters"), *r = json_object_get(root, "rope_scaling");
    cfg->rope_original_context = cfg->context_length;
    if (!json_is_object(r) || json_object_size(r) == 0)
        r = parameters;
    if (json_is_object(parameters) && json_get_real(&cfg->rope_theta, parameters, "rope_theta", file, err) != 0)
        return -1;
    if (json_get_real(&cfg->rope_theta, root, "rope_theta", file, err) != 0)
        return -1;
    if (!json_is_object(r))
        return 0;
    const char *type = "default";
    if (json_get_string(&type, r, "type", file, err) != 0 || json_get_string(&type, r, "rope_type", file, err) != 0 ||
        json_get_real(&cfg->rope_theta, r, "rope_theta", file, err) != 0 ||
        json_get_real(&cfg->rope_factor, r, "factor", file, err) != 0 ||
        json_get_real(&cfg->rope_low_freq_factor, r, "low_freq_factor", file, err) != 0 ||
        json_get_real(&cfg->rope_high_freq_factor, r, "high_freq_factor", file, err) != 0 ||
        json_get_int(&cfg->rope_original_context, r, "original_max_position_embeddings", file, err) != 0)
        return -1;
    if (!strcmp(type, "default"))
        cfg->rope_kind = ROPE_DEFAULT;
    else if (!strcmp(type, "linear"))
        cfg->rope_kind = ROPE_LINEAR;
    else if (!strcmp(type, "llama3"))
        cfg->rope_kind = ROPE_LLAMA3;
    else
        return err_set(err, "%s: rope type \"%s\" is not supported (default, linear and llama3 are)", file, type);
    return 0;
}

static int check_kind(const json_t *root, const char *file, struct err *err)
{
    const char *type = "llama", *act = "silu";
    int64_t window = 0;
    if (json_get_string(&type, root, "model_type", file, err) != 0 || json_get_string(&act, root, "hidden_act", file, err) != 0 ||
        json_get_int(&window, root, "sliding_window", file, err) != 0)
        return -1;
    if (strcmp(type, "llama") && strcmp(type, "mistral"))
        return err_set(err, "%s: model_type \"%s\" is not supported (llama is, and mistral without a sliding window)", file, type);
    if (strcmp(act, "silu"))
        return err_set(err, "%s: hidden_act \"%s\" is not supported (silu is)", file, act);
    if (window > 0)
        return err_set(err, "%s: a sliding window (%lld) is not supported", file, (long long)window);
    return 0;
}

/* Of the quantised kinds of Hugging Face folders one is read: compressed-tensors' 8-bit floats with a scale for each row of a
 * weight. Activations are not quantised here, whatever the config says of them. */
static int check_quantisation(const json_t *root, const char *file, struct err *err)
{
    const json_t *q = json_object_get(root, "quantization_config"), *group;
    const char *method = "", *key;
    if (!json_is_object(q))
        return 0;
    if (json_get_string(&method, q, "quant_method", file, err) != 0)
        return -1;
    bool known = !strcmp(method, "compressed-tensors");
    json_object_foreach((json_t *)json_object_get(q, "config_groups"), key, group) {
        const json_t *w = json_object_get(group, "weights");
        const char *type = json_string_value(json_object_get(w, "type")), *per = json_string_value(json_object_get(w, "strategy"));
        known &= type && !strcmp(type, "float") && per && !strcmp(per, "channel") &&
                 json_integer_value(json_object_get(w, "num_bits")) == 8;
    }
    return known ? 0
                 : err_set(err,
                           "%s: a quantisation by \"%s\" of another kind than 8-bit floats with a scale per row is not supported",
                           file, method);
}

/* eos_token_id may be a list; the first one counts here. */
static int read_token_id(int64_t *out, const json_t *root, const char *key, const char *file, struct err *err)
{
    const json_t *v = json_object_get(root, key);
    if (json_is_array(v) && json_array_size(v) > 0 && json_is_integer(json_array_get(v, 0))) {
        *out = json_integer_value(json_array_get(v, 0));
        return 0;
    }
    return json_get_int(out, root, key, file, err);
}

int config_from_json(struct config *cfg, const json_t *root, const char *file, struct err *err)
{
    *cfg = (struct config){.norm_eps = 1e-6,
                           .rope_theta = 10000,
                           .rope_factor = 1,
                           .rope_low_freq_factor = 1,
                           .rope_high_freq_factor = 4,
                           .context_length = 2048,
                           .bos = -1,
                           .eos = -1,
                           .pad = -1};
    if (!json_is_object(root))
        return err_set(err, "%s: a JSON object was expected", file);
    struct {
        const char *key;
        int64_t *out;
    } ints[] = {
        {"num_hidden_layers", &cfg->n_blocks},  {"hidden_size", &cfg->dim},
        {"num_attention_heads", &cfg->n_heads}, {"num_key_value_heads", &cfg->n_kv_heads},
        {"head_dim", &cfg->head_dim},           {"intermediate_size", &cfg->ffn_dim},
        {"vocab_size", &cfg->vocab_size},       {"max_position_embeddings", &cfg->context_length},
    };
    /* early LLaMA configs say max_sequence_length; the later name has the last word */
    if (json_get_int(&cfg->context_length, root, "max_sequence_length", file, err) != 0)
        return -1;
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (json_get_int(ints[i].out, root, ints[i].key, file, err) != 0)
            return -1;
    if (check_kind(root, file, err) != 0 || check_quantisation(root, file, err) != 0 || read_rope(cfg, root, file, err) != 0 ||
        json_get_real(&cfg->norm_eps, root, "rms_norm_eps", file, err) != 0 ||
        json_get_bool(&cfg->tied_embeddings, root, "tie_word_embeddings", file, err) != 0 ||
        read_token_id(&cfg->bos, root, "bos_token_id", file, err) != 0 ||
        read_token_id(&cfg->eos, root, "eos_token_id", file, err) != 0 ||
        read_token_id(&cfg->pad, root, "pad_token_id", file, err) != 0)
        return -1;
    if (!cfg->n_kv_heads)
        cfg->n_kv_heads = cfg->n_heads;
    if (!cfg->head_dim && cfg->n_heads > 0)
        cfg->head_dim = cfg->dim / cfg->n_heads;
    return config_check(cfg, file, err);
}

int config_from_text(struct config *cfg, const char *text, const char *file, struct err *err)
{
    json_error_t why;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, "%s: its config is not valid JSON: line %d: %s", file, why.line, why.text);
    int rc = config_from_json(cfg, root, file, err);
    json_decref(root);
    return rc;
}

int config_from_hf(struct config *cfg, const char *dir, struct err *err)
{
    char *file = path_join(dir, "config.json", err);
    json_t *root = file ? json_read(file, err) : NULL;
    int rc = root ? config_from_json(cfg, root, file, err) : -1;
    json_decref(root);
    free(file);
    return rc;
}

/* As llama.cpp has it: scaling without a type is linear; rope.scale_linear is the factor's older name, and 0 is no factor. */
static int gguf_rope_scaling(struct config *cfg, const struct gguf *g, struct err *err)
{
    struct gguf_string type = {"linear", 6};
    double factor = 0;
    if (gguf_find(g, "llama.rope.scaling.type") && !gguf_text(&type, g, "llama.rope.scaling.type"))
        return err_set(err, "%s: the key llama.rope.scaling.type is of the wrong type: a string was expected", g->file);
    if (gguf_one_float(&factor, g, "llama.rope.scale_linear", false, err) != 0 ||
        gguf_one_float(&factor, g, "llama.rope.scaling.factor", false, err) != 0)
        return -1;
    if (type.n == 6 && !memcmp(type.s, "linear", 6)) {
        cfg->rope_kind = factor != 0 && factor != 1 ? ROPE_LINEAR : ROPE_DEFAULT;
        cfg->rope_factor = factor != 0 ? factor : 1;
        return 0;
    }
    if (type.n == 4 && !memcmp(type.s, "none", 4))
        return 0;
    return err_set(err, "%s: rope scaling \"%.*s\" is not supported (none and linear are)", g->file,
                   (int)(type.n < 60 ? type.n : 60), type.s);
}

int config_from_gguf(struct config *cfg, const struct gguf *g, struct err *err)
{
    *cfg = (struct config){.rope_theta = 10000, .rope_factor = 1, .bos = -1, .eos = -1, .pad = -1};
    struct gguf_string arch = {"", 0};
    if (!gguf_text(&arch, g, "general.architecture"))
        return err_set(err, "%s: the key general.architecture is missing", g->file);
    if (arch.n != 5 || memcmp(arch.s, "llama", 5))
        return err_set(err, "%s: architecture \"%.*s\" is not supported (llama is)", g->file, (int)(arch.n < 60 ? arch.n : 60),
                       arch.s);
    struct {
        const char *key;
        int64_t *out;
        bool needed;
    } ints[] = {
        {"llama.block_count", &cfg->n_blocks, true},
        {"llama.embedding_length", &cfg->dim, true},
        {"llama.feed_forward_length", &cfg->ffn_dim, true},
        {"llama.attention.head_count", &cfg->n_heads, true},
        {"llama.attention.head_count_kv", &cfg->n_kv_heads, false},
        {"llama.attention.key_length", &cfg->head_dim, false},
        {"llama.vocab_size", &cfg->vocab_size, false},
        {"llama.context_length", &cfg->context_length, true},
        {"tokenizer.ggml.bos_token_id", &cfg->bos, false},
        {"tokenizer.ggml.eos_token_id", &cfg->eos, false},
        {"tokenizer.ggml.padding_token_id", &cfg->pad, false},
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (gguf_one_int(ints[i].out, g, ints[i].key, ints[i].needed, err) != 0)
            return -1;
    if (gguf_one_float(&cfg->norm_eps, g, "llama.attention.layer_norm_rms_epsilon", true, err) != 0 ||
        gguf_one_float(&cfg->rope_theta, g, "llama.rope.freq_base", false, err) != 0 || gguf_rope_scaling(cfg, g, err) != 0)
        return -1;
    if (!cfg->n_kv_heads)
        cfg->n_kv_heads = cfg->n_heads;
    if (!cfg->head_dim && cfg->n_heads > 0)
        cfg->head_dim = cfg->dim / cfg->n_heads;
    return 0;
}

int config_check(const struct config *cfg, const char *file, struct err *err)
{
    struct {
        const char *name;
        int64_t v, max;
    } sizes[] = {
        {"number of blocks", cfg->n_blocks, 4096},     {"width", cfg->dim, 1 << 17},
        {"number of heads", cfg->n_heads, 4096},       {"number of key-value heads", cfg->n_kv_heads, 4096},
        {"head width", cfg->head_dim, 4096},           {"feed-forward width", cfg->ffn_dim, 1 << 17},
        {"vocabulary size", cfg->vocab_size, 1 << 22}, {"context length", cfg->context_length, 1 << 28},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].v < 1 || sizes[i].v > sizes[i].max)
            return err_set(err, "%s: %s: 1 to %lld was expected, %lld found", file, sizes[i].name, (long long)sizes[i].max,
                           (long long)sizes[i].v);
    if (cfg->n_heads % cfg->n_kv_heads)
        return err_set(err, "%s: %lld heads do not divide among %lld key-value heads", file, (long long)cfg->n_heads,
                       (long long)cfg->n_kv_heads);
    if (cfg->head_dim % 2)
        return err_set(err, "%s: head width %lld is odd, rotary pairs need an even one", file, (long long)cfg->head_dim);
    if (!(cfg->norm_eps > 0 && cfg->norm_eps < 1) || !(cfg->rope_theta > 0) || !isfinite(cfg->rope_theta) ||
        !(cfg->rope_factor > 0))
        return err_set(err, "%s: norm epsilon, rope theta and rope factor must be positive", file);
    if (cfg->rope_kind == ROPE_LLAMA3 &&
        !(cfg->rope_high_freq_factor > cfg->rope_low_freq_factor && cfg->rope_original_context > 0))
        return err_set(err, "%s: llama3 rope scaling needs high_freq_factor > low_freq_factor and a context length", file);
    return 0;
}

void config_rope_frequencies(float *inv_freq, const struct config *cfg)
{
    const double pi = 3.14159265358979323846;
    int64_t half = cfg->head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        /* float32 throughout, as transformers' _compute_default_rope_parameters has it */
        double f = (double)(1.0f / (float)pow(cfg->rope_theta, (double)((float)(2 * i) / (float)cfg->head_dim)));
        if (cfg->rope_kind == ROPE_LINEAR) {
            f /= cfg->rope_factor;
        } else if (cfg->rope_kind == ROPE_LLAMA3) {
            double context = (double)cfg->rope_original_context, wavelength = 2 * pi / f;
            if (wavelength > context / cfg->rope_low_freq_factor) {
                f /= cfg->rope_factor;
            } else if (wavelength >= context / cfg->rope_high_freq_factor) {
                double smooth =
                    (context / wavelength - cfg->rope_low_freq_factor) / (cfg->rope_high_freq_factor - cfg->rope_low_freq_factor);
                f = (1 - smooth) * f / cfg->rope_factor + smooth * f;
            }
        }
        inv_freq[i] = (float)f;
    }
}
