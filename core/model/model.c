#include "core/model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const proj_names[PROJ_COUNT] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
};
static const char *const gguf_proj_names[PROJ_COUNT] = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
};

const struct tensor_names hf_names = {
    .embed = "model.embed_tokens.weight",
    .norm = "model.norm.weight",
    .head = "lm_head.weight",
    .norm_attn = "input_layernorm.weight",
    .norm_ffn = "post_attention_layernorm.weight",
    .block_prefix = "model.layers.%lld.",
    .proj = proj_names,
};
const struct tensor_names gguf_names = {
    .embed = "token_embd.weight",
    .norm = "output_norm.weight",
    .head = "output.weight",
    .norm_attn = "attn_norm.weight",
    .norm_ffn = "ffn_norm.weight",
    .block_prefix = "blk.%lld.",
    .proj = gguf_proj_names,
    .rope_factors = "rope_freqs.weight",
};

void model_proj_shape(int64_t *rows, int64_t *cols, const struct config *cfg, enum proj p)
{
    int64_t q = cfg->n_heads * cfg->head_dim, kv = cfg->n_kv_heads * cfg->head_dim;
    *rows = p == PROJ_Q ? q : p == PROJ_K || p == PROJ_V ? kv : p == PROJ_GATE || p == PROJ_UP ? cfg->ffn_dim : cfg->dim;
    *cols = p == PROJ_O ? q : p == PROJ_DOWN ? cfg->ffn_dim : cfg->dim;
}

/* A checkpoint of the model without its head (transformers' LlamaModel) has the same names without "model.". */
static const char *name_in_file(const struct model *m, const char *name)
{
    enum { PREFIX = sizeof "model." - 1 };
    bool there = source_find(&m->src, name) || source_passed_over(&m->src, name);
    if (there || strncmp(name, "model.", PREFIX) != 0)
        return name;
    return source_find(&m->src, name + PREFIX) || source_passed_over(&m->src, name + PREFIX) ? name + PREFIX : name;
}

static const struct tensor *need(const struct model *m, const char *name, int64_t rows, int64_t cols, struct err *err)
{
    name = name_in_file(m, name);
    const struct tensor *t = source_find(&m->src, name);
    const struct passed_over *p = source_passed_over(&m->src, name);
    if (!t && p && !p->type)
        err_set(err, "%s: the index has tensor %s in %s, which is missing", m->path, name, p->file);
    else if (!t && p)
        err_set(err, "%s: tensor %s is of type %s; f32, f16 or bf16 was expected", p->file, name, p->type);
    else if (!t)
        err_set(err, "%s: tensor %s is missing", m->path, name);
    if (!t)
        return NULL;
    int64_t r = t->n_dims == 2 ? t->shape[0] : 1, k = t->n_dims == 2 ? t->shape[1] : t->n_dims == 1 ? t->shape[0] : -1;
    if (r != rows || k != cols || (t->n_dims == 1) != (rows == 1)) {
        err_set(err, "%s: tensor %s: shape [%lld, %lld] was expected from the config, [%lld, %lld] found", t->file, name,
                (long long)rows, (long long)cols, (long long)r, (long long)k);
        return NULL;
    }
    return t;
}

/* The scales of an f8_e4m3 weight's rows: a tensor [rows, 1] or [rows] of floats named after it, as compressed-tensors and vLLM
 * call those of a channel. Without one the values would be off by orders of magnitude. */
static int bind_scale(struct weight *w, struct model *m, const struct tensor *t, struct err *err)
{
    char name[200];
    snprintf(name, sizeof name, "%s_scale", t->name);
    const struct tensor *s = source_find(&m->src, name);
    if (!s)
        return err_set(err, "%s: tensor %s is f8_e4m3, but there is no %s, a scale for each of its rows", t->file, t->name, name);
    bool column = s->n_dims == 2 && s->shape[1] == 1;
    if ((!column && s->n_dims != 1) || s->shape[0] != w->rows || s->dtype > DTYPE_BF16)
        return err_set(err, "%s: tensor %s: floats of shape [%lld, 1] were expected, a scale for each row", s->file, name,
                       (long long)w->rows);
    float *scale = arena_alloc(&m->arena, (size_t)w->rows, sizeof *scale, err);
    if (!scale)
        return -1;
    rows_portable.decode[s->dtype](scale, s->data, w->rows);
    w->scale = scale;
    return 0;
}

static int bind_weight(struct weight *w, struct model *m, const char *name, int64_t rows, int64_t cols, int64_t pair_dim,
                       struct err *err)
{
    const struct tensor *t = need(m, name, rows, cols, err);
    if (!t)
        return -1;
    *w = (struct weight){t->dtype, rows, cols, t->data, dtype_bytes(t->dtype, cols), pair_dim, NULL};
    return t->dtype == DTYPE_F8_E4M3 ? bind_scale(w, m, t, err) : 0;
}

/* Vectors (norms, biases) are small: decoded once to floats. A missing optional one leaves *out NULL. */
static int bind_vector(const float **out, struct model *m, const char *name, int64_t n, bool optional, int64_t pair_dim,
                       struct err *err)
{
    *out = NULL;
    const char *there = name_in_file(m, name);
    if (optional && !source_find(&m->src, there) && !source_passed_over(&m->src, there))
        return 0;
    const struct tensor *t = need(m, name, 1, n, err);
    if (!t)
        return -1;
    if (n % dtype_table[t->dtype].block || t->dtype == DTYPE_F8_E4M3)
        return err_set(err, "%s: tensor %s: dtype %s does not fit %lld values", t->file, name, dtype_table[t->dtype].name,
                       (long long)n);
    float *raw = arena_alloc(&m->arena, (size_t)n, sizeof *raw, err), *v = arena_alloc(&m->arena, (size_t)n, sizeof *v, err);
    if (!raw || !v)
        return -1;
    rows_portable.decode[t->dtype](raw, t->data, n);
    struct weight order = {.rows = n, .row_bytes = sizeof *raw, .data = (const uint8_t *)raw, .pair_dim = pair_dim};
    for (int64_t i = 0; i < n; i++)
        v[i] = *(const float *)weight_row(&order, i);
    *out = v;
    return 0;
}

/* Whether a half adds nothing because its output projection is zero: how formats that know no missing halves keep a model that
 * lost some. Such halves are not run. One row tells in nearly every case. */
static bool half_is_zero(const struct block *b, enum proj output)
{
    const struct weight *w = &b->proj[output];
    float row[w->cols];
    for (int64_t r = 0; r < w->rows; r++) {
        rows_portable.decode[w->dtype](row, weight_row(w, r), w->cols);
        for (int64_t k = 0; k < w->cols; k++)
            if (row[k] != 0)
                return false;
        if (b->bias[output] && b->bias[output][r] != 0)
            return false;
    }
    return true;
}

static int bind_block(struct block *b, struct model *m, const struct tensor_names *names, int64_t index, bool pairs,
                      struct err *err)
{
    const struct config *cfg = &m->cfg;
    int64_t rows, cols;
    char prefix[64], name[160];
    snprintf(prefix, sizeof prefix, names->block_prefix, (long long)index);
    for (int p = 0; p < PROJ_COUNT; p++) {
        int64_t pair_dim = pairs && (p == PROJ_Q || p == PROJ_K) ? cfg->head_dim : 0;
        model_proj_shape(&rows, &cols, cfg, (enum proj)p);
        snprintf(name, sizeof name, "%s%s.weight", prefix, names->proj[p]);
        if (bind_weight(&b->proj[p], m, name, rows, cols, pair_dim, err) != 0)
            return -1;
        snprintf(name, sizeof name, "%s%s.bias", prefix, names->proj[p]);
        if (bind_vector(&b->bias[p], m, name, rows, true, pair_dim, err) != 0)
            return -1;
    }
    snprintf(name, sizeof name, "%s%s", prefix, names->norm_attn);
    if (bind_vector(&b->norm_attn, m, name, cfg->dim, false, 0, err) != 0)
        return -1;
    snprintf(name, sizeof name, "%s%s", prefix, names->norm_ffn);
    return bind_vector(&b->norm_ffn, m, name, cfg->dim, false, 0, err);
}

/* A GGUF keeps the llama3 scaling of the rotary frequencies as a list of divisors. Where parameters of that rule give the same
 * list, they take its place: a Hugging Face config can say them. Every published model has 1 and 4 for the two bounds. */
static void recognise_llama3(struct model *m)
{
    int64_t half = m->cfg.head_dim / 2;
    float plain[half], scaled[half];
    struct config guess = m->cfg;
    config_rope_frequencies(plain, &guess);
    guess.rope_kind = ROPE_LLAMA3;
    guess.rope_factor = (double)m->rope_factors[half - 1];
    guess.rope_low_freq_factor = 1;
    guess.rope_high_freq_factor = 4;
    for (int64_t context = 32; context <= 1 << 20; context *= 2) {
        int64_t i = 0;
        guess.rope_original_context = context;
        config_rope_frequencies(scaled, &guess);
        while (i < half && fabsf(plain[i] / scaled[i] / m->rope_factors[i] - 1) < 1e-4f)
            i++;
        if (i == half) {
            m->cfg = guess;
            m->rope_factors = NULL;
            return;
        }
    }
}

/* Whether the file has a head of its own that is not the embedding, whatever the config says: transformers uses it then. */
static bool has_other_head(const struct model *m, const struct tensor_names *names)
{
    const struct tensor *t = source_find(&m->src, names->head);
    size_t bytes = (size_t)m->embed.rows * m->embed.row_bytes;
    return t &&
           (t->dtype != m->embed.dtype || t->bytes != bytes || (t->data != m->embed.data && memcmp(t->data, m->embed.data, bytes)));
}

static int bind_tensors(struct model *m, struct err *err)
{
    const struct config *cfg = &m->cfg;
    bool gguf = m->src.gguf != NULL;
    const struct tensor_names *names = gguf ? &gguf_names : &hf_names;
    const char *embed = source_find(&m->src, name_in_file(m, names->embed)) || !cfg->tied_embeddings ? names->embed : names->head;
    if (bind_weight(&m->embed, m, embed, cfg->vocab_size, cfg->dim, 0, err) != 0 ||
        bind_vector(&m->head.norm, m, names->norm, cfg->dim, false, 0, err) != 0)
        return -1;
    m->head.eps = (float)cfg->norm_eps;
    m->cfg.tied_embeddings = cfg->tied_embeddings && !has_other_head(m, names);
    if (cfg->tied_embeddings)
        m->head.w = m->embed;
    else if (bind_weight(&m->head.w, m, names->head, cfg->vocab_size, cfg->dim, 0, err) != 0)
        return -1;
    if (gguf && bind_vector(&m->rope_factors, m, names->rope_factors, cfg->head_dim / 2, true, 0, err) != 0)
        return -1;
    if (m->rope_factors)
        recognise_llama3(m);
    m->blocks = arena_alloc(&m->arena, (size_t)cfg->n_blocks, sizeof *m->blocks, err);
    m->order = arena_alloc(&m->arena, (size_t)cfg->n_blocks, sizeof *m->order, err);
    if (!m->blocks || !m->order)
        return -1;
    for (int64_t i = 0; i < cfg->n_blocks; i++) {
        if (bind_block(&m->blocks[i], m, names, i, gguf, err) != 0)
            return -1;
        m->blocks[i].stored =
            (half_is_zero(&m->blocks[i], PROJ_O) ? 0 : PART_ATTN) | (half_is_zero(&m->blocks[i], PROJ_DOWN) ? 0 : PART_FFN);
    }
    model_restore(m);
    return 0;
}

static int read_config(struct model *m, struct err *err)
{
    if (m->src.config) {
        m->format = "h5";
        return config_from_text(&m->cfg, m->src.config, m->path, err);
    }
    if (!m->src.gguf) {
        m->format = "hf";
        return config_from_hf(&m->cfg, m->path, err);
    }
    m->format = "gguf";
    if (config_from_gguf(&m->cfg, m->src.gguf, err) != 0)
        return -1;
    const struct tensor *embed = source_find(&m->src, gguf_names.embed);
    if (!embed || embed->n_dims != 2)
        return err_set(err, "%s: holds no model: the tensor %s is missing", m->path, gguf_names.embed);
    m->cfg.vocab_size = embed->shape[0];
    m->cfg.tied_embeddings = source_find(&m->src, gguf_names.head) == NULL;
    return config_check(&m->cfg, m->path, err);
}

static int hash_index(struct model *m, struct err *err)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return err_set(err, "out of memory");
    const struct config *c = &m->cfg;
    fprintf(f, "%lld %lld %lld %lld %lld %lld %lld %.9g %.9g %d %d\n", (long long)c->n_blocks, (long long)c->dim,
            (long long)c->n_heads, (long long)c->n_kv_heads, (long long)c->head_dim, (long long)c->ffn_dim,
            (long long)c->vocab_size, c->norm_eps, c->rope_theta, c->rope_kind, c->tied_embeddings);
    for (int64_t i = 0; i < m->src.n_tensors; i++) {
        const struct tensor *t = &m->src.tensors[i];
        fprintf(f, "%s %s", t->name, dtype_table[t->dtype].name);
        for (int d = 0; d < t->n_dims; d++)
            fprintf(f, " %lld", (long long)t->shape[d]);
        fputc('\n', f);
    }
    bool whole = !ferror(f);
    whole &= fclose(f) == 0;
    if (!whole) {
        free(text);
        return err_set(err, "out of memory");
    }
    int rc = bytes_sha256(m->hash, text, n, err); /* of the shape; see model_fingerprint for the weights */
    free(text);
    return rc;
}

int model_open(struct model *m, const char *path, struct err *err)
{
    *m = (struct model){0};
    if (!(m->path = arena_strdup(&m->arena, path, err)) || source_open(&m->src, path, err) != 0 || read_config(m, err) != 0 ||
        bind_tensors(m, err) != 0 || hash_index(m, err) != 0) {
        model_close(m);
        return -1;
    }
    const struct config *c = &m->cfg;
    m->shape = (struct block_shape){c->dim, c->ffn_dim, {c->n_heads, c->n_kv_heads, c->head_dim}, (float)c->norm_eps};
    return 0;
}

void model_close(struct model *m)
{
    source_close(&m->src);
    arena_free(&m->arena);
    *m = (struct model){0};
}

int model_view(struct model *view, const struct model *m, struct err *err)
{
    *view = *m;
    view->arena = (struct arena){0};
    view->blocks = arena_alloc(&view->arena, (size_t)m->cfg.n_blocks, sizeof *m->blocks, err);
    view->order = arena_alloc(&view->arena, (size_t)m->cfg.n_blocks, sizeof *m->order, err);
    if (!view->blocks || !view->order) {
        model_view_free(view);
        return -1;
    }
    memcpy(view->blocks, m->blocks, (size_t)m->cfg.n_blocks * sizeof *m->blocks);
    memcpy(view->order, m->order, (size_t)m->n_order * sizeof *m->order);
    return 0;
}

void model_view_free(struct model *view)
{
    arena_free(&view->arena);
    *view = (struct model){0};
}

static int drop_one(struct model *m, struct unit u, struct err *err)
{
    int64_t at = 0;
    char name[UNIT_NAME];
    if (u.block < 0 || u.block >= m->cfg.n_blocks)
        return err_set(err, "block %lld to drop is out of range: %s has blocks 0 to %lld", (long long)u.block, m->path,
                       (long long)m->cfg.n_blocks - 1);
    struct block *b = &m->blocks[u.block];
    while (at < m->n_order && m->order[at] != u.block)
        at++;
    if (at == m->n_order || (b->parts && !(b->parts & u.parts)))
        return err_set(err, "%s to drop: it is named twice, or the model runs without it already", unit_name(name, u));
    b->parts &= ~u.parts;
    if (b->parts)
        return 0;
    memmove(&m->order[at], &m->order[at + 1], (size_t)(m->n_order - at - 1) * sizeof *m->order);
    m->n_order--;
    return 0;
}

int model_drop(struct model *m, const struct unit *drop, int64_t n, struct err *err)
{
    for (int64_t i = 0; i < n; i++)
        if (drop_one(m, drop[i], err) != 0)
            return -1;
    if (m->n_order < 1)
        return err_set(err, "dropping %lld blocks leaves none of %s", (long long)n, m->path);
    return 0;
}

int model_drop_list(struct model *m, const char *list, struct err *err)
{
    struct unit *drop;
    int64_t n;
    if (units_parse(&drop, &n, list, err) != 0)
        return -1;
    int rc = model_drop(m, drop, n, err);
    free(drop);
    return rc;
}

void model_restore(struct model *m)
{
    m->n_order = m->cfg.n_blocks;
    for (int64_t i = 0; i < m->n_order; i++) {
        m->order[i] = i;
        m->blocks[i].parts = m->blocks[i].stored;
    }
}

int64_t model_block_params(const struct model *m, unsigned parts)
{
    const struct block *b = &m->blocks[0];       /* all have one shape */
    int64_t n = parts_count(parts) * m->cfg.dim; /* the norms */
    for (int p = 0; p < PROJ_COUNT; p++)
        if (parts & proj_part((enum proj)p))
            n += b->proj[p].rows * b->proj[p].cols + (b->bias[p] ? b->proj[p].rows : 0);
    return n;
}

int64_t model_params(const struct model *m)
{
    return model_running_params(m) + m->cfg.dim + (m->cfg.tied_embeddings ? 1 : 2) * m->cfg.vocab_size * m->cfg.dim;
}

int64_t model_running_params(const struct model *m)
{
    int64_t n = 0;
    for (int64_t k = 0; k < m->n_order; k++)
        n += model_block_params(m, m->blocks[m->order[k]].parts);
    return n;
}

const char *model_dtype(const struct model *m)
{
    return dtype_table[m->blocks[0].proj[PROJ_GATE].dtype].name;
}

int model_rope(struct rope *rope, const struct model *m, int64_t n_pos, struct arena *arena, struct err *err)
{
    int64_t half = m->cfg.head_dim / 2;
    float *freq = arena_alloc(arena, (size_t)half, sizeof *freq, err);
    rope->n_pos = n_pos;
    rope->cos = arena_alloc(arena, (size_t)n_pos, (size_t)half * sizeof(float), err);
    rope->sin = arena_alloc(arena, (size_t)n_pos, (size_t)half * sizeof(float), err);
    if (!freq || !rope->cos || !rope->sin)
        return -1;
    config_rope_frequencies(freq, &m->cfg);
    for (int64_t i = 0; i < half; i++) {
        if (m->rope_factors)
            freq[i] /= m->rope_factors[i];
        for (int64_t pos = 0; pos < n_pos; pos++) {
            float angle = (float)pos * freq[i]; /* rounded to float before the cosine, as the reference does */
            rope->cos[pos * half + i] = (float)cos((double)angle);
            rope->sin[pos * half + i] = (float)sin((double)angle);
        }
    }
    return 0;
}

int model_blame_nonfinite(const struct model *m, const struct compute *c, const char *what, struct err *err)
{
    for (int64_t i = 0; i < m->src.n_tensors; i++) {
        const struct tensor *t = &m->src.tensors[i];
        int64_t cols = t->n_dims ? t->shape[t->n_dims - 1] : 1, n = tensor_elements(t);
        if (cols > PANEL_FLOATS)
            continue;
        for (int64_t r = 0; r * cols < n; r++) {
            c->rows->decode[t->dtype](c->panel, t->data + (size_t)r * dtype_bytes(t->dtype, cols), cols);
            for (int64_t k = 0; k < cols; k++)
                if (!isfinite(c->panel[k]))
                    return err_set(err, "%s: tensor %s holds %f at element %lld; finite weights were expected", t->file, t->name,
                                   (double)c->panel[k], (long long)(r * cols + k));
        }
    }
    return err_set(err, "%s: %s is not a finite number though every weight is", m->path, what);
}
