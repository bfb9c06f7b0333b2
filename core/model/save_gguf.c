/* A GGUF of the architecture "llama". Keys: ggml's docs/gguf.md. */
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/io/gguf_write.h"
#include "core/model/save_impl.h"

struct gg {
    struct gguf_writer file;
};

/* llama.cpp's number for the kind of most weights. */
static uint32_t file_type(enum dtype t)
{
    switch (t) {
    case DTYPE_F32: return 0;
    case DTYPE_F16: return 1;
    case DTYPE_Q4_0: return 2;
    case DTYPE_Q4_1: return 3;
    case DTYPE_Q8_0: return 7;
    default: return 32; /* bf16 */
    }
}

static void put_text(struct gguf_writer *w, const char *key, const char *text)
{
    gguf_put_text(w, key, text, strlen(text));
}

static void put_sizes(struct gguf_writer *w, const struct model *m)
{
    const struct config *c = &m->cfg;
    const struct {
        const char *key;
        int64_t v;
    } sizes[] = {
        {"llama.block_count", m->n_order},           {"llama.context_length", c->context_length},
        {"llama.embedding_length", c->dim},          {"llama.feed_forward_length", c->ffn_dim},
        {"llama.attention.head_count", c->n_heads},  {"llama.attention.head_count_kv", c->n_kv_heads},
        {"llama.attention.key_length", c->head_dim}, {"llama.attention.value_length", c->head_dim},
        {"llama.rope.dimension_count", c->head_dim}, {"llama.vocab_size", c->vocab_size},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        gguf_put_u32(w, sizes[i].key, (uint32_t)sizes[i].v);
    gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", (float)c->norm_eps);
    gguf_put_f32(w, "llama.rope.freq_base", (float)c->rope_theta);
    if (c->rope_kind == ROPE_LINEAR) { /* llama3's scaling is a tensor, rope_freqs.weight */
        put_text(w, "llama.rope.scaling.type", "linear");
        gguf_put_f32(w, "llama.rope.scaling.factor", (float)c->rope_factor);
    }
}

static bool begins(const struct gguf_string *s, const char *with)
{
    size_t n = strlen(with);
    return s->n >= n && !memcmp(s->s, with, n);
}

/* Keys of the source that are said anew, or would no longer be true. */
static bool is_stale(const struct gguf_string *key)
{
    static const char *const beginnings[] = {
        "general.architecture",
        "general.alignment",
        "general.file_type",
        "general.quantization_version",
        "general.size_label",
        "general.parameter_count",
        "tokenizer.",
        "split.",
        "quantize.",
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.rope.",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.key_length",
        "llama.vocab_size",
        "llama.attention.value_length",
        "llama.attention.layer_norm_rms_epsilon",
    };
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
        if (begins(key, beginnings[i]))
            return true;
    return false;
}

/* What else the source says, where it is a GGUF; lists with an entry for each block keep those of the blocks that stay. */
static void copy_keys(struct gguf_writer *w, const struct model *m)
{
    for (uint64_t i = 0; m->src.gguf && i < m->src.gguf->n_values; i++) {
        const struct gguf_value *v = &m->src.gguf->values[i];
        bool per_block = v->type == GGUF_ARRAY && begins(&v->key, "llama.") && v->count == (uint64_t)m->cfg.n_blocks;
        if (!is_stale(&v->key))
            gguf_put_value(w, v, per_block ? m->order : NULL, m->n_order);
    }
}

/* The folder's or the file's name, for a source that has no other. */
static void put_name(struct gguf_writer *w, const struct model *m)
{
    size_t n = strlen(m->path), begin;
    if (m->src.gguf && gguf_find(m->src.gguf, "general.name"))
        return;
    while (n > 1 && m->path[n - 1] == '/')
        n--;
    for (begin = n; begin > 0 && m->path[begin - 1] != '/'; begin--)
        ;
    gguf_put_text(w, "general.name", m->path + begin, n - begin);
}

static int put_metadata(struct gguf_writer *w, const struct saving *s, struct err *err)
{
    const struct model *m = s->m;
    put_text(w, "general.architecture", "llama");
    put_name(w, m);
    gguf_put_u32(w, "general.file_type", file_type(s->o->dtype));
    if (!dtype_is_float(s->o->dtype))
        gguf_put_u32(w, "general.quantization_version", 2);
    put_sizes(w, m);
    copy_keys(w, m);
    if (s->o->tokenizer)
        return tokenizer_put_gguf(s->o->tokenizer, w, m->cfg.vocab_size, err);
    put_text(w, "tokenizer.ggml.model", "no_vocab");
    return 0;
}

static int open_gguf(struct saving *s, struct err *err)
{
    const struct manifest *p = s->manifest;
    struct gg *w = s->writer = mem_alloc(1, sizeof *w, err);
    if (!w)
        return -1;
    if (gguf_writer_open(&w->file, s->path, err) != 0 || put_metadata(&w->file, s, err) != 0)
        return -1;
    s->file = &w->file.file;
    return gguf_writer_tensors(&w->file, p->entries, p->n, err);
}

static int put_gguf(void *arg, int64_t tensor, const void *data, size_t bytes, struct err *err)
{
    (void)tensor;
    struct gg *w = ((struct saving *)arg)->writer;
    return gguf_writer_put(&w->file, data, bytes, err);
}

static int flush_gguf(struct saving *s, const char **readable, struct err *err)
{
    struct gg *w = s->writer;
    *readable = w->file.file.tmp;
    return gguf_writer_flush(&w->file, err);
}

static int commit_gguf(struct saving *s, struct err *err)
{
    struct gg *w = s->writer;
    return gguf_writer_commit(&w->file, err);
}

static void close_gguf(struct saving *s)
{
    struct gg *w = s->writer;
    if (!w)
        return;
    gguf_writer_abort(&w->file);
    free(w);
}

const struct format_writer gguf_format = {open_gguf, put_gguf, flush_gguf, commit_gguf, close_gguf};
