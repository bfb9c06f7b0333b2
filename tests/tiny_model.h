/* What the tests of files and commands share: a scratch folder, bytes by hand, and a tiny random LLaMA in both formats. The files
 * are put together here, not by the program's own writers, so that a reader and a writer that are wrong alike do not agree. */
#ifndef ESPALIER_TESTS_TINY_MODEL_H
#define ESPALIER_TESTS_TINY_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/dir.h"
#include "core/base/file.h"

/* ---- bytes ---- */

struct buf {
    char *p;
    size_t n, cap;
};

static inline void buf_put(struct buf *b, const void *data, size_t n)
{
    if (b->n + n + 1 > b->cap) {
        b->cap = 2 * (b->n + n) + 64;
        b->p = realloc(b->p, b->cap);
        if (!b->p)
            abort();
    }
    if (n)
        memcpy(b->p + b->n, data, n);
    b->n += n;
    b->p[b->n] = 0;
}

__attribute__((format(printf, 2, 3))) static inline void buf_text(struct buf *b, const char *fmt, ...)
{
    char *s;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0)
        abort();
    buf_put(b, s, (size_t)n);
    free(s);
}

/* The low `bytes` bytes of a number, little-endian. */
static inline void buf_uint(struct buf *b, uint64_t v, int bytes)
{
    buf_put(b, &v, (size_t)bytes);
}

static inline void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf){0};
}

static inline void write_bytes(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || (n && fwrite(data, 1, n, f) != n) || fclose(f) != 0) {
        perror(path);
        abort();
    }
}

static inline void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static inline struct buf read_bytes(const char *path)
{
    struct buf b = {0};
    char part[4096];
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        abort();
    }
    buf_put(&b, "", 0);
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;)
        buf_put(&b, part, n);
    fclose(f);
    return b;
}

/* ---- a scratch folder ---- */

static char scratch_root[64];

/* cmocka group set-up and tear-down. */
static inline int scratch_open(void **state)
{
    (void)state;
    strcpy(scratch_root, "/tmp/espalier-test-XXXXXX");
    return mkdtemp(scratch_root) ? 0 : -1;
}

static inline int scratch_close(void **state)
{
    (void)state;
    dir_remove(scratch_root);
    return 0;
}

/* "<scratch>/name"; good until eight more were asked for. */
static inline char *in_scratch(const char *name)
{
    static char paths[8][512];
    static int at;
    char *p = paths[at++ % 8];
    snprintf(p, sizeof *paths, "%s/%s", scratch_root, name);
    return p;
}

static inline char *scratch_dir(const char *name)
{
    char *p = in_scratch(name);
    mkdir(p, 0777);
    return p;
}

/* Fails unless a call failed with one line that names `part`. */
static inline void expect_error(int rc, const struct err *err, const char *part)
{
    if (rc != -1 || err->code == ERR_NONE)
        fail_msg("an error about %s was expected, rc %d, code %d", part, rc, err->code);
    if (strchr(err->msg, '\n') || !strstr(err->msg, part))
        fail_msg("the message should be one line that names %s: %s", part, err->msg);
}

/* The call fills `err`, one of the macro's own; a test may have another by that name. */
#pragma GCC diagnostic ignored "-Wshadow"
#define OK(call)                                                                                                                   \
    do {                                                                                                                           \
        struct err err = {0};                                                                                                      \
        if ((call) != 0)                                                                                                           \
            fail_msg("%s: %s", #call, err.msg);                                                                                    \
    } while (0)

/* ---- safetensors ---- */

struct st {
    struct buf header, data;
};

static inline void st_add(struct st *s, const char *name, const char *dtype, const int64_t *shape, int n_dims, const void *data,
                          size_t bytes)
{
    buf_text(&s->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", s->header.n ? "," : "{", name, dtype);
    for (int i = 0; i < n_dims; i++)
        buf_text(&s->header, "%s%lld", i ? "," : "", (long long)shape[i]);
    buf_text(&s->header, "],\"data_offsets\":[%zu,%zu]}", s->data.n, s->data.n + bytes);
    buf_put(&s->data, data, bytes);
}

/* A file of any header text and data. */
static inline void st_file(const char *path, const char *header, size_t n, const void *data, size_t bytes)
{
    struct buf b = {0};
    buf_uint(&b, n, 8);
    buf_put(&b, header, n);
    buf_put(&b, data, bytes);
    write_bytes(path, b.p, b.n);
    buf_free(&b);
}

static inline void st_write(struct st *s, const char *path)
{
    buf_text(&s->header, "}");
    while (s->header.n % 8)
        buf_put(&s->header, " ", 1);
    st_file(path, s->header.p, s->header.n, s->data.p, s->data.n);
    buf_free(&s->header);
    buf_free(&s->data);
}

/* ---- the model ---- */

struct tiny {
    int64_t n_blocks, dim, n_heads, n_kv_heads, head_dim, ffn_dim, vocab;
    uint64_t seed;
};

/* Eight blocks, so that two are left to drop when four and two are kept. The vocabulary is the tokenizer's. */
static const struct tiny tiny_default = {8, 16, 2, 1, 8, 24, 260, 1};

/* xorshift64*, mapped to [-0.5, 0.5) */
static inline float tiny_random(uint64_t *s)
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return (float)(*s * 0x2545f4914f6cdd1du >> 40) / 16777216.0f - 0.5f;
}

/* Calls fn for each tensor of the model with its values. n_dims 1: a norm, around 1. */
typedef void tiny_fn(void *arg, const char *hf, const char *gguf, const int64_t *shape, int n_dims, const float *v, int64_t n);

static inline void tiny_tensor(const struct tiny *t, tiny_fn *fn, void *arg, int64_t block, const char *hf, const char *gguf,
                               int64_t rows, int64_t cols)
{
    char hf_name[160], gguf_name[160];
    int64_t n = rows * (cols ? cols : 1), shape[2] = {rows, cols};
    uint64_t seed = t->seed * 0x9e3779b97f4a7c15u + (uint64_t)(block + 2) * 1000003u;
    float *v = malloc((size_t)n * sizeof *v);
    for (const char *p = hf; *p; p++)
        seed = seed * 31 + (unsigned char)*p;
    for (int64_t i = 0; i < n; i++)
        v[i] = cols ? 0.8f * tiny_random(&seed) : 1 + 0.2f * tiny_random(&seed);
    snprintf(hf_name, sizeof hf_name, block < 0 ? "%.0lld%s" : "model.layers.%lld.%s", block < 0 ? 0LL : (long long)block, hf);
    snprintf(gguf_name, sizeof gguf_name, block < 0 ? "%.0lld%s" : "blk.%lld.%s", block < 0 ? 0LL : (long long)block, gguf);
    fn(arg, hf_name, gguf_name, shape, cols ? 2 : 1, v, n);
    free(v);
}

static inline void tiny_each(const struct tiny *t, tiny_fn *fn, void *arg)
{
    int64_t q = t->n_heads * t->head_dim, kv = t->n_kv_heads * t->head_dim;
    tiny_tensor(t, fn, arg, -1, "model.embed_tokens.weight", "token_embd.weight", t->vocab, t->dim);
    for (int64_t b = 0; b < t->n_blocks; b++) {
        tiny_tensor(t, fn, arg, b, "self_attn.q_proj.weight", "attn_q.weight", q, t->dim);
        tiny_tensor(t, fn, arg, b, "self_attn.k_proj.weight", "attn_k.weight", kv, t->dim);
        tiny_tensor(t, fn, arg, b, "self_attn.v_proj.weight", "attn_v.weight", kv, t->dim);
        tiny_tensor(t, fn, arg, b, "self_attn.o_proj.weight", "attn_output.weight", t->dim, q);
        tiny_tensor(t, fn, arg, b, "mlp.gate_proj.weight", "ffn_gate.weight", t->ffn_dim, t->dim);
        tiny_tensor(t, fn, arg, b, "mlp.up_proj.weight", "ffn_up.weight", t->ffn_dim, t->dim);
        tiny_tensor(t, fn, arg, b, "mlp.down_proj.weight", "ffn_down.weight", t->dim, t->ffn_dim);
        tiny_tensor(t, fn, arg, b, "input_layernorm.weight", "attn_norm.weight", t->dim, 0);
        tiny_tensor(t, fn, arg, b, "post_attention_layernorm.weight", "ffn_norm.weight", t->dim, 0);
    }
    tiny_tensor(t, fn, arg, -1, "model.norm.weight", "output_norm.weight", t->dim, 0);
    tiny_tensor(t, fn, arg, -1, "lm_head.weight", "output.weight", t->vocab, t->dim);
}

/* ---- its tokenizer: id = byte, 256 <s>, 257 </s>, 258 "th", 259 "the" (merges only when asked for) ---- */

/* The character that stands for a byte in a byte-level vocabulary: printable ones for themselves, the others from U+0100 on. */
static inline int tiny_char(int byte)
{
    int n = 0;
    for (int b = 0; b < 256; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte)
            return printable ? b : 256 + n;
        n += !printable;
    }
    return -1;
}

static inline void tiny_tokenizer_json(struct buf *b, bool merges)
{
    buf_text(b, "{\"version\":\"1.0\",\"added_tokens\":["
                "{\"id\":256,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
                "{\"id\":257,\"content\":\"</s>\",\"special\":true,\"normalized\":false}],\"normalizer\":null,"
                "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
                "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int i = 0; i < 256; i++)
        buf_text(b, "\"\\u%04x\":%d,", (unsigned)tiny_char(i), i);
    buf_text(b, "\"th\":258,\"the\":259},\"merges\":[%s]}}", merges ? "\"t h\",\"th e\"" : "");
}

static inline void tiny_tokenizer(const char *path, bool merges)
{
    struct buf b = {0};
    tiny_tokenizer_json(&b, merges);
    write_bytes(path, b.p, b.n);
    buf_free(&b);
}

/* ---- as a Hugging Face folder ---- */

static inline void tiny_st_add(void *arg, const char *hf, const char *gguf, const int64_t *shape, int n_dims, const float *v,
                               int64_t n)
{
    (void)gguf;
    st_add(arg, hf, "F32", shape, n_dims, v, (size_t)n * sizeof *v);
}

static inline void tiny_config_json(struct buf *b, const struct tiny *t)
{
    buf_text(b,
             "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\",\"hidden_size\":%lld,"
             "\"intermediate_size\":%lld,\"num_attention_heads\":%lld,\"num_key_value_heads\":%lld,\"head_dim\":%lld,"
             "\"num_hidden_layers\":%lld,\"vocab_size\":%lld,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-05,"
             "\"rope_theta\":10000.0,\"tie_word_embeddings\":false,\"torch_dtype\":\"float32\",\"bos_token_id\":256,"
             "\"eos_token_id\":257}\n",
             (long long)t->dim, (long long)t->ffn_dim, (long long)t->n_heads, (long long)t->n_kv_heads, (long long)t->head_dim,
             (long long)t->n_blocks, (long long)t->vocab);
}

static inline void tiny_folder(const char *dir, const struct tiny *t)
{
    char path[1024];
    struct st s = {{0}, {0}};
    struct buf b = {0};
    mkdir(dir, 0777);
    tiny_each(t, tiny_st_add, &s);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    st_write(&s, path);
    tiny_config_json(&b, t);
    snprintf(path, sizeof path, "%s/config.json", dir);
    write_bytes(path, b.p, b.n);
    buf_free(&b);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    tiny_tokenizer(path, false);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    write_text(path, "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"add_bos_token\":false}\n");
}

/* ---- as a GGUF ---- */

enum { TYPE_U32 = 4, TYPE_I32 = 5, TYPE_F32 = 6, TYPE_STRING = 8, TYPE_ARRAY = 9 };

static inline void gg_string(struct buf *b, const char *s)
{
    buf_uint(b, strlen(s), 8);
    buf_put(b, s, strlen(s));
}

static inline void gg_u32(struct buf *b, const char *key, uint32_t v)
{
    gg_string(b, key);
    buf_uint(b, TYPE_U32, 4);
    buf_uint(b, v, 4);
}

static inline void gg_f32(struct buf *b, const char *key, float v)
{
    gg_string(b, key);
    buf_uint(b, TYPE_F32, 4);
    buf_put(b, &v, 4);
}

static inline void gg_text(struct buf *b, const char *key, const char *v)
{
    gg_string(b, key);
    buf_uint(b, TYPE_STRING, 4);
    gg_string(b, v);
}

static inline void gg_array(struct buf *b, const char *key, uint32_t type, uint64_t n)
{
    gg_string(b, key);
    buf_uint(b, TYPE_ARRAY, 4);
    buf_uint(b, type, 4);
    buf_uint(b, n, 8);
}

struct gg {
    struct buf table, data;
    uint64_t n;
    int64_t head_dim;
};

/* Row r of q or k in a GGUF: there the two halves of a head are interleaved, a rotary pair on adjacent rows. */
static inline int64_t gg_row(int64_t r, int64_t head_dim)
{
    int64_t in_head = r % head_dim;
    return r - in_head + in_head / 2 + in_head % 2 * head_dim / 2;
}

static inline void tiny_gg_add(void *arg, const char *hf, const char *gguf, const int64_t *shape, int n_dims, const float *v,
                               int64_t n)
{
    (void)hf;
    struct gg *g = arg;
    gg_string(&g->table, gguf);
    buf_uint(&g->table, (uint64_t)n_dims, 4);
    for (int i = n_dims - 1; i >= 0; i--)
        buf_uint(&g->table, (uint64_t)shape[i], 8);
    buf_uint(&g->table, 0, 4); /* f32 */
    buf_uint(&g->table, g->data.n, 8);
    bool pairs = strstr(gguf, "attn_q") || strstr(gguf, "attn_k");
    int64_t cols = n / shape[0];
    for (int64_t r = 0; r < shape[0]; r++)
        buf_put(&g->data, v + (pairs ? gg_row(r, g->head_dim) : r) * cols, (size_t)cols * sizeof *v);
    while (g->data.n % 32)
        buf_put(&g->data, "", 1);
    g->n++;
}

/* The tokenizer's keys; there are seven. */
static inline void tiny_gg_tokenizer(struct buf *b)
{
    gg_text(b, "tokenizer.ggml.model", "gpt2");
    gg_text(b, "tokenizer.ggml.pre", "gpt-2");
    gg_array(b, "tokenizer.ggml.tokens", TYPE_STRING, 260);
    for (int i = 0; i < 256; i++) {
        int c = tiny_char(i);
        char s[3] = {(char)c, 0, 0};
        if (c >= 128) {
            s[0] = (char)(0xc0 | c >> 6);
            s[1] = (char)(0x80 | (c & 63));
        }
        gg_string(b, s);
    }
    gg_string(b, "<s>");
    gg_string(b, "</s>");
    gg_string(b, "th");
    gg_string(b, "the");
    gg_array(b, "tokenizer.ggml.token_type", TYPE_I32, 260);
    for (int i = 0; i < 260; i++)
        buf_uint(b, i == 256 || i == 257 ? 3 : 1, 4);
    gg_array(b, "tokenizer.ggml.merges", TYPE_STRING, 2);
    gg_string(b, "t h");
    gg_string(b, "th e");
    gg_u32(b, "tokenizer.ggml.bos_token_id", 256);
    gg_u32(b, "tokenizer.ggml.eos_token_id", 257);
}

static inline void tiny_gguf(const char *path, const struct tiny *t)
{
    struct gg g = {{0}, {0}, 0, t->head_dim};
    struct buf b = {0};
    tiny_each(t, tiny_gg_add, &g);
    buf_put(&b, "GGUF", 4);
    buf_uint(&b, 3, 4);
    buf_uint(&b, g.n, 8);
    buf_uint(&b, 9 + 7, 8);
    gg_text(&b, "general.architecture", "llama");
    gg_u32(&b, "llama.block_count", (uint32_t)t->n_blocks);
    gg_u32(&b, "llama.embedding_length", (uint32_t)t->dim);
    gg_u32(&b, "llama.feed_forward_length", (uint32_t)t->ffn_dim);
    gg_u32(&b, "llama.attention.head_count", (uint32_t)t->n_heads);
    gg_u32(&b, "llama.attention.head_count_kv", (uint32_t)t->n_kv_heads);
    gg_u32(&b, "llama.attention.key_length", (uint32_t)t->head_dim);
    gg_u32(&b, "llama.context_length", 512);
    gg_f32(&b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tiny_gg_tokenizer(&b);
    buf_put(&b, g.table.p, g.table.n);
    while (b.n % 32)
        buf_put(&b, "", 1);
    buf_put(&b, g.data.p, g.data.n);
    write_bytes(path, b.p, b.n);
    buf_free(&b);
    buf_free(&g.table);
    buf_free(&g.data);
}

#endif
