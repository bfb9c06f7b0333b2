#include "core/model/save.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/io/safetensors.h"

enum dtype model_save_dtype(const struct model *m)
{
    enum dtype t = m->blocks[0].proj[PROJ_GATE].dtype;
    return t == DTYPE_F32 || t == DTYPE_F16 || t == DTYPE_BF16 ? t : DTYPE_F16;
}

/* ---- the tensors of the saved model, in file order ---- */

/* Where one saved tensor's values come from: a weight (perhaps with a LoRA to merge), or a float vector. */
struct item {
    const struct weight *w;
    const struct lora *lora;
    const float *vector;
    bool zero; /* zeros instead: the output of a half that does not run */
};

struct plan {
    struct safetensors_entry *entries;
    char (*names)[160];
    struct item *items;
    int64_t n;
    int64_t bytes;
    const char *source; /* the model it comes from, for messages */
};

static void add(struct plan *p, enum dtype dtype, struct item item, int64_t vector_len, const char *name)
{
    struct safetensors_entry *e = &p->entries[p->n];
    snprintf(p->names[p->n], sizeof *p->names, "%s", name);
    *e = (struct safetensors_entry){.name = p->names[p->n], .dtype = dtype};
    e->n_dims = item.w ? 2 : 1;
    e->shape[0] = item.w ? item.w->rows : vector_len;
    e->shape[1] = item.w ? item.w->cols : 0;
    p->bytes += (int64_t)dtype_bytes(dtype, item.w ? item.w->rows * item.w->cols : vector_len);
    p->items[p->n++] = item;
}

static int plan_make(struct plan *p, struct arena *arena, const struct model *m, const struct save_options *o, struct err *err)
{
    size_t max = (size_t)m->n_order * (2 * PROJ_COUNT + 2) + 3;
    char name[160];
    *p = (struct plan){arena_alloc(arena, max, sizeof *p->entries, err),
                       arena_alloc(arena, max, sizeof *p->names, err),
                       arena_alloc(arena, max, sizeof *p->items, err),
                       0,
                       0,
                       m->path};
    if (!p->entries || !p->names || !p->items)
        return -1;
    add(p, o->dtype, (struct item){.w = &m->embed}, 0, "model.embed_tokens.weight");
    for (int64_t k = 0; k < m->n_order; k++) {
        const struct block *b = &m->blocks[m->order[k]];
        for (int i = 0; i < PROJ_COUNT; i++) {
            const struct lora *l = o->lora && o->lora->blocks[k].proj[i].rank ? &o->lora->blocks[k].proj[i] : NULL;
            snprintf(name, sizeof name, "model.layers.%lld.%s.weight", (long long)k, proj_names[i]);
            bool zero = (i == PROJ_O || i == PROJ_DOWN) && !(b->parts & proj_part((enum proj)i));
            add(p, o->dtype, (struct item){.w = &b->proj[i], .lora = l, .zero = zero}, 0, name);
            snprintf(name, sizeof name, "model.layers.%lld.%s.bias", (long long)k, proj_names[i]);
            if (b->bias[i])
                add(p, o->dtype, (struct item){.vector = b->bias[i], .zero = zero}, b->proj[i].rows, name);
        }
        snprintf(name, sizeof name, "model.layers.%lld.input_layernorm.weight", (long long)k);
        add(p, o->dtype, (struct item){.vector = b->norm_attn}, m->cfg.dim, name);
        snprintf(name, sizeof name, "model.layers.%lld.post_attention_layernorm.weight", (long long)k);
        add(p, o->dtype, (struct item){.vector = b->norm_ffn}, m->cfg.dim, name);
    }
    add(p, o->dtype, (struct item){.vector = m->head.norm}, m->cfg.dim, "model.norm.weight");
    if (!m->cfg.tied_embeddings)
        add(p, o->dtype, (struct item){.w = &m->head.w}, 0, "lm_head.weight");
    return 0;
}

/* ---- producing the bytes, a strip of rows at a time ---- */

enum { STRIP_ROWS = 256 };

struct strip_job {
    const struct compute *c;
    const struct item *item;
    enum dtype dtype;
    int64_t first, n;
    float *values;    /* [n, cols] */
    uint8_t *encoded; /* the same in the target dtype */
    atomic_llong bad; /* some element that is not finite, or -1 */
};

/* Whether a value has a finite one of that dtype to become. */
static bool fits(float v, enum dtype t)
{
    float limit = t == DTYPE_F16 ? 65520.0f : 0x1.ffp127f; /* what rounds to infinity */
    return t == DTYPE_F32 ? isfinite(v) : fabsf(v) < limit;
}

static void strip_task(void *arg, int64_t task, int worker)
{
    enum { ROWS = 16 };
    (void)worker;
    struct strip_job *j = arg;
    int64_t cols = j->item->w->cols, i = task * ROWS, n = j->n - i < ROWS ? j->n - i : ROWS;
    float *v = j->values + i * cols;
    if (j->item->zero)
        memset(v, 0, (size_t)(n * cols) * sizeof *v);
    else
        weight_decode(j->c, v, j->item->w, j->first + i, n);
    if (j->item->lora) {
        const struct lora *l = j->item->lora;
        gemm(j->c, v, cols, l->b + (j->first + i) * l->rank, l->rank, l->a, cols, n, cols, l->rank, l->scale, 1, 0);
    }
    for (int64_t k = 0; k < n * cols; k++)
        if (!fits(v[k], j->dtype))
            j->bad = (j->first + i) * cols + k; /* any one of them will do */
    dtype_encode(j->encoded + dtype_bytes(j->dtype, i * cols), v, n * cols, j->dtype);
}

/* Receives the encoded bytes of the tensors, in order. */
typedef int sink_fn(void *arg, int64_t tensor, const void *data, size_t bytes, struct err *err);

static void not_finite(const struct plan *p, int64_t tensor, int64_t element, enum dtype dtype, struct err *err)
{
    err_set(err, "%s: tensor %s, as numbered in the saved model: element %lld is not a finite number in %s", p->source,
            p->entries[tensor].name, (long long)element, dtype_table[dtype].name);
}

static int produce_vector(const struct plan *p, int64_t tensor, struct strip_job *j, sink_fn *sink, void *arg, struct err *err)
{
    int64_t n = p->entries[tensor].shape[0];
    for (int64_t k = 0; k < n; k++) {
        j->values[k] = j->item->zero ? 0 : j->item->vector[k];
        if (!fits(j->values[k], j->dtype)) {
            not_finite(p, tensor, k, j->dtype, err);
            return -1;
        }
    }
    dtype_encode(j->encoded, j->values, n, j->dtype);
    return sink(arg, tensor, j->encoded, dtype_bytes(j->dtype, n), err);
}

static int produce(const struct plan *p, const struct compute *c, enum dtype dtype, int64_t max_cols, sink_fn *sink, void *arg,
                   struct progress *progress, struct err *err)
{
    int rc = -1;
    int64_t done = 0;
    struct strip_job j = {.c = c, .dtype = dtype, .bad = -1};
    j.values = mem_alloc(STRIP_ROWS, (size_t)max_cols * sizeof(float), err);
    j.encoded = mem_alloc(STRIP_ROWS, (size_t)max_cols * sizeof(float), err);
    if (!j.values || !j.encoded)
        goto done;
    for (int64_t i = 0; i < p->n; i++) {
        const struct weight *w = p->items[i].w;
        j.item = &p->items[i];
        if (!w) {
            if (produce_vector(p, i, &j, sink, arg, err) != 0)
                goto done;
            continue;
        }
        for (j.first = 0; j.first < w->rows; j.first += j.n) {
            j.n = w->rows - j.first < STRIP_ROWS ? w->rows - j.first : STRIP_ROWS;
            pool_run(c->pool, strip_task, &j, (j.n + 15) / 16);
            if (j.bad >= 0) {
                not_finite(p, i, (int64_t)atomic_load(&j.bad), dtype, err);
                goto done;
            }
            size_t bytes = dtype_bytes(dtype, j.n * w->cols);
            if (sink(arg, i, j.encoded, bytes, err) != 0)
                goto done;
            progress_update(progress, (done += (int64_t)bytes) >> 20);
        }
    }
    rc = 0;
done:
    free(j.values);
    free(j.encoded);
    return rc;
}

static int write_sink(void *arg, int64_t tensor, const void *data, size_t bytes, struct err *err)
{
    (void)tensor;
    return safetensors_writer_put(arg, data, bytes, err);
}

struct check {
    const struct plan *plan;
    struct source src;
    int64_t tensor;
    size_t at;
};

static int check_sink(void *arg, int64_t tensor, const void *data, size_t bytes, struct err *err)
{
    struct check *k = arg;
    const char *name = k->plan->entries[tensor].name;
    const struct tensor *t = source_find(&k->src, name);
    if (tensor != k->tensor) {
        k->tensor = tensor;
        k->at = 0;
    }
    if (!t || k->at + bytes > t->bytes || memcmp(t->data + k->at, data, bytes))
        return err_set(err, "reading back what was written: tensor %s differs", name);
    k->at += bytes;
    return 0;
}

/* The longest row that produce() meets: a weight's, or a vector taken as one row. */
static int64_t widest(const struct plan *p)
{
    int64_t n = 0;
    for (int64_t i = 0; i < p->n; i++) {
        int64_t cols = p->items[i].w ? p->items[i].w->cols : p->entries[i].shape[0];
        n = cols > n ? cols : n;
    }
    return n;
}

/* ---- config.json ---- */

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

static int write_config(const struct model *m, const char *dir, const struct save_options *o, struct err *err)
{
    int rc = -1;
    json_t *root = NULL;
    char *in = path_join(m->path, "config.json", err), *out = path_join(dir, "config.json", err);
    if (!in || !out)
        goto done;
    if (m->rope_factors) { /* written without them, the saved model would be another one */
        err_set(err,
                "%s: its rotary factors (tensor rope_freqs.weight) fit no rule that a Hugging Face config.json can state; use "
                "the Hugging Face form of the model",
                m->path);
        goto done;
    }
    root = m->src.gguf ? config_of_gguf(m) : json_read(in, err);
    if (!root) {
        err_set(err, "%s: out of memory", out);
        goto done;
    }
    json_object_set_new(root, "num_hidden_layers", json_integer(m->n_order));
    json_object_del(root, "quantization_config");
    shorten_lists(root, m);
    bool new_style = json_object_get(root, "dtype") != NULL; /* transformers 5 renamed torch_dtype */
    json_object_set_new(root, new_style ? "dtype" : "torch_dtype", json_string(torch_dtype(o->dtype)));
    rc = json_write(out, root, err);
done:
    json_decref(root);
    free(in);
    free(out);
    return rc;
}

int model_save(const struct model *m, const struct compute *c, const char *dir, const struct save_options *o,
               struct progress *progress, struct err *err)
{
    struct arena arena = {0};
    struct plan p;
    struct safetensors_writer w;
    struct check check = {.plan = &p, .tensor = -1};
    struct model written = {0};
    int rc = -1;
    char *path = path_join(dir, "model.safetensors", err);
    if (!path || plan_make(&p, &arena, m, o, err) != 0 || write_config(m, dir, o, err) != 0 ||
        (o->tokenizer && tokenizer_save(o->tokenizer, dir, err) != 0) ||
        safetensors_writer_open(&w, path, p.entries, p.n, err) != 0)
        goto done;
    progress_begin(progress, "writing", p.bytes >> 20, "MiB");
    if (produce(&p, c, o->dtype, widest(&p), write_sink, &w, progress, err) != 0) {
        safetensors_writer_abort(&w);
        goto done;
    }
    if (safetensors_writer_commit(&w, err) != 0)
        goto done;
    progress_end(progress);

    progress_begin(progress, "checking", p.bytes >> 20, "MiB");
    if (source_open(&check.src, dir, err) != 0 || produce(&p, c, o->dtype, widest(&p), check_sink, &check, progress, err) != 0 ||
        model_open(&written, dir, err) != 0)
        goto done;
    if (check.src.n_tensors != p.n || written.cfg.n_blocks != m->n_order || model_params(&written) != model_params(m)) {
        err_set(err, "%s: reading back what was written: %lld blocks and %lld parameters were expected, %lld and %lld found", dir,
                (long long)m->n_order, (long long)model_params(m), (long long)written.cfg.n_blocks,
                (long long)model_params(&written));
        goto done;
    }
    progress_end(progress);
    rc = 0;
done:
    model_close(&written);
    source_close(&check.src);
    arena_free(&arena);
    free(path);
    return rc;
}
