#include "core/model/manifest.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/stream.h"
#include "core/nn/tile.h"

enum { STRIP_ROWS = 256, TASK_ROWS = 16 };

/* ---- the list ---- */

/* Adds a tensor; its name is set already. */
static void add(struct manifest *p, enum dtype dtype, int64_t rows, int64_t cols, struct item item)
{
    struct tensor_entry *e = &p->entries[p->n];
    struct item *t = &p->items[p->n++];
    memcpy(item.name, t->name, sizeof item.name);
    *t = item;
    *e = (struct tensor_entry){t->name, dtype, rows ? 2 : 1, {rows ? rows : cols, rows ? cols : 0}};
    p->bytes += (int64_t)entry_bytes(e);
    p->widest = cols > p->widest ? cols : p->widest;
}

static void set_name(struct manifest *p, const char *prefix, const char *name, const char *suffix)
{
    snprintf(p->items[p->n].name, sizeof p->items->name, "%.120s%.32s%.7s", prefix, name, suffix);
}

static void add_vector(struct manifest *p, const struct manifest_options *o, const float *v, int64_t n, struct item how)
{
    how.vector = v;
    add(p, o->rest, 0, n, how);
}

/* The dtype a weight is written in. Embedding and head decide more than their size tells: f8_e4m3 is not for them, and next to
 * four bits they have eight. */
static enum dtype choose_dtype(struct manifest *p, const struct manifest_options *o, const struct weight *w, bool outer)
{
    enum dtype t = o->dtype;
    if (o->keep && (o->kept >> w->dtype & 1))
        t = w->dtype;
    else if (outer && t == DTYPE_F8_E4M3)
        t = o->rest;
    else if (outer && (t == DTYPE_Q4_0 || t == DTYPE_Q4_1))
        t = DTYPE_Q8_0;
    if (w->cols % dtype_table[t].block) {
        t = DTYPE_F16;
        p->fallbacks++;
    }
    return t;
}

/* A weight, and its scales where its dtype has some; its name is set. */
static void add_weight(struct manifest *p, const struct manifest_options *o, const struct weight *w, bool outer, struct item how)
{
    how.w = w;
    enum dtype t = choose_dtype(p, o, w, outer);
    add(p, t, w->rows, w->cols, how);
    if (t != DTYPE_F8_E4M3)
        return;
    char name[160];
    memcpy(name, p->items[p->n - 1].name, sizeof name);
    set_name(p, name, "_scale", "");
    add(p, DTYPE_F32, w->rows, 1, (struct item){.scales = true});
}

static void add_block(struct manifest *p, const struct model *m, const struct manifest_options *o, int64_t k)
{
    const struct block *b = &m->blocks[m->order[k]];
    char prefix[64];
    snprintf(prefix, sizeof prefix, o->names->block_prefix, (long long)k);
    for (int i = 0; i < PROJ_COUNT; i++) {
        const struct lora *l = o->lora && o->lora->blocks[k].proj[i].rank ? &o->lora->blocks[k].proj[i] : NULL;
        struct item how = {.lora = l};
        how.zero = (i == PROJ_O || i == PROJ_DOWN) && !(b->parts & proj_part((enum proj)i));
        how.pair_dim = o->pairs && (i == PROJ_Q || i == PROJ_K) ? m->cfg.head_dim : 0;
        set_name(p, prefix, o->names->proj[i], ".weight");
        add_weight(p, o, &b->proj[i], false, how);
        how.lora = NULL;
        set_name(p, prefix, o->names->proj[i], ".bias");
        if (b->bias[i])
            add_vector(p, o, b->bias[i], b->proj[i].rows, how);
    }
    set_name(p, prefix, o->names->norm_attn, "");
    add_vector(p, o, b->norm_attn, m->cfg.dim, (struct item){0});
    set_name(p, prefix, o->names->norm_ffn, "");
    add_vector(p, o, b->norm_ffn, m->cfg.dim, (struct item){0});
}

/* The divisors of the rotary frequencies that a format says by a tensor: the file's own, or those of llama3's rule. */
static int add_rope_factors(struct manifest *p, const struct model *m, const struct manifest_options *o, struct err *err)
{
    int64_t half = m->cfg.head_dim / 2;
    if (!o->names->rope_factors || (!m->rope_factors && m->cfg.rope_kind != ROPE_LLAMA3))
        return 0;
    float *v = arena_alloc(&p->arena, (size_t)half, sizeof *v, err), *scaled = arena_alloc(&p->arena, (size_t)half, sizeof *v, err);
    if (!v || !scaled)
        return -1;
    struct config plain = m->cfg;
    plain.rope_kind = ROPE_DEFAULT;
    config_rope_frequencies(v, &plain);
    config_rope_frequencies(scaled, &m->cfg);
    for (int64_t i = 0; i < half; i++)
        v[i] = m->rope_factors ? m->rope_factors[i] : v[i] / scaled[i];
    set_name(p, o->names->rope_factors, "", "");
    add_vector(p, o, v, half, (struct item){0});
    return 0;
}

int manifest_make(struct manifest *p, const struct model *m, const struct manifest_options *o, struct err *err)
{
    size_t max = (size_t)m->n_order * (3 * PROJ_COUNT + 2) + 6; /* weight, scales and bias of each, norms; what is around */
    *p = (struct manifest){.m = m, .buffer_rows = STRIP_ROWS};
    p->items = arena_alloc(&p->arena, max, sizeof *p->items, err);
    p->entries = arena_alloc(&p->arena, max, sizeof *p->entries, err);
    if (!p->items || !p->entries)
        goto fail;
    if (o->pairs && m->cfg.head_dim > STRIP_ROWS)
        p->buffer_rows = m->cfg.head_dim;
    set_name(p, o->names->embed, "", "");
    add_weight(p, o, &m->embed, true, (struct item){0});
    for (int64_t k = 0; k < m->n_order; k++)
        add_block(p, m, o, k);
    set_name(p, o->names->norm, "", "");
    add_vector(p, o, m->head.norm, m->cfg.dim, (struct item){0});
    if (!m->cfg.tied_embeddings) {
        set_name(p, o->names->head, "", "");
        add_weight(p, o, &m->head.w, true, (struct item){0});
    }
    if (add_rope_factors(p, m, o, err) == 0)
        return 0;
fail:
    manifest_free(p);
    return -1;
}

void manifest_free(struct manifest *p)
{
    arena_free(&p->arena);
    *p = (struct manifest){0};
}

/* ---- random values ---- */

/* The finaliser of SplitMix64 (Steele, Lea and Flood, 2014). */
static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

void manifest_randomise(struct manifest *p, uint64_t seed, float deviation, int64_t blocks)
{
    float narrow = deviation / (float)sqrt(2 * (double)blocks);
    for (int64_t i = 0; i < p->n; i++) {
        struct item *t = &p->items[i];
        uint64_t key = mix(seed);
        for (const char *s = t->name; *s; s++)
            key = mix(key ^ (unsigned char)*s);
        bool output = strstr(t->name, proj_names[PROJ_O]) || strstr(t->name, proj_names[PROJ_DOWN]);
        t->noise = (struct noise){key, t->w ? output ? narrow : deviation : 0};
    }
}

/* ---- producing the bytes ---- */

struct strip_job {
    const struct compute *c;
    const struct item *item;
    enum dtype dtype;
    int64_t first, n;
    float *values;    /* [n, cols], in the Hugging Face order of rows */
    uint8_t *encoded; /* the same in the target dtype, in the order they are written */
    float *scales;    /* [n], where the dtype has some */
    atomic_llong bad; /* some element that is not finite, or -1 */
    struct delivery *delivery;
};

/* Takes bytes to the sink, in their order. A strip goes there while the next one is made: a disk then works all the time. */
struct delivery {
    sink_fn *sink;
    void *arg;
    struct err *err;
    bool failed;
    int64_t tensor; /* of the strip that is due */
    const uint8_t *due;
    size_t bytes; /* of it; 0: none is */
};

/* Whether the bytes of the file will do as they are. */
static bool is_copy(const struct item *t, enum dtype dtype)
{
    return t->w->dtype == dtype && !t->lora && !t->zero && t->noise.deviation == 0;
}

static void make_values(const struct strip_job *j, float *v, int64_t first, int64_t n)
{
    const struct item *t = j->item;
    int64_t cols = t->w->cols;
    if (t->zero)
        memset(v, 0, (size_t)(n * cols) * sizeof *v);
    else if (t->noise.deviation != 0)
        for (int64_t r = 0; r < n; r++)
            j->c->rows->gaussian(v + r * cols, mix(t->noise.key ^ (uint64_t)(first + r)), t->noise.deviation, cols);
    else
        weight_decode(j->c, v, t->w, first, n);
    if (t->lora) {
        const struct lora *l = t->lora;
        gemm(j->c, v, cols, l->b + first * l->rank, l->rank, l->a, cols, n, cols, l->rank, l->scale, 1, 0);
    }
}

static int deliver(struct delivery *d)
{
    if (d->bytes > 0 && d->sink(d->arg, d->tensor, d->due, d->bytes, d->err) != 0)
        d->failed = true;
    d->bytes = 0;
    return d->failed ? -1 : 0;
}

/* The first of n elements that is beyond the limit or not a number, or -1. */
static int64_t find_unfit(const float *v, int64_t n, float limit)
{
    int unfit = 0; /* counted first, which takes a fraction of the time of searching */
    for (int64_t k = 0; k < n; k++)
        unfit += !(fabsf(v[k]) <= limit);
    for (int64_t k = 0; unfit && k < n; k++)
        if (!(fabsf(v[k]) <= limit))
            return k;
    return -1;
}

/* Rows of the strip; or, as the first task, the delivery of the strip before it. */
static void strip_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct strip_job *j = arg;
    const struct item *t = j->item;
    if (task == 0) {
        deliver(j->delivery);
        return;
    }
    bool copy = is_copy(t, j->dtype);
    int64_t cols = t->w->cols, i = (task - 1) * TASK_ROWS, n = min_i64(TASK_ROWS, j->n - i);
    float *v = j->values + i * cols;
    size_t row_bytes = dtype_bytes(j->dtype, cols);
    make_values(j, v, j->first + i, n);
    int64_t unfit = find_unfit(v, n * cols, dtype_max(j->dtype));
    if (unfit >= 0)
        j->bad = (j->first + i) * cols + unfit; /* any one of them will do */
    for (int64_t k = 0; k < n; k++) {
        int64_t r = j->first + i + k;
        uint8_t *out = j->encoded + (size_t)(paired_row(r, t->pair_dim) - j->first) * row_bytes;
        if (copy)
            memcpy(out, weight_row(t->w, r), row_bytes);
        else if (j->dtype != DTYPE_F8_E4M3)
            dtype_encode(out, v + k * cols, cols, j->dtype);
        if (j->dtype == DTYPE_F8_E4M3)
            j->scales[r] = copy ? t->w->scale[r] : f8_e4m3_encode_row(out, v + k * cols, cols);
    }
}

static int not_finite(const struct manifest *p, int64_t tensor, int64_t element, struct err *err)
{
    return err_set(err, "%s: tensor %s, as numbered in the saved model: element %lld is not a finite number in %s", p->m->path,
                   p->items[tensor].name, (long long)element, dtype_table[p->entries[tensor].dtype].name);
}

static int produce_vector(const struct manifest *p, int64_t tensor, struct strip_job *j, struct err *err)
{
    const struct item *t = j->item;
    int64_t n = p->entries[tensor].shape[0];
    for (int64_t k = 0; k < n; k++) {
        float v = t->zero ? 0 : t->vector[k];
        if (!(fabsf(v) <= dtype_max(j->dtype)))
            return not_finite(p, tensor, k, err);
        j->values[paired_row(k, t->pair_dim)] = v;
    }
    dtype_encode(j->encoded, j->values, n, j->dtype);
    return 0;
}

/* Leaves its last strip due. */
static int produce_weight(const struct manifest *p, int64_t tensor, struct strip_job *j, uint8_t *const buffers[2],
                          struct progress *progress, int64_t *done, struct err *err)
{
    const struct weight *w = j->item->w;
    int64_t pair = j->item->pair_dim, strip = pair > STRIP_ROWS ? pair : pair ? STRIP_ROWS / pair * pair : STRIP_ROWS;
    struct delivery *d = j->delivery;
    for (j->first = 0; j->first < w->rows; j->first += j->n) {
        j->n = min_i64(strip, w->rows - j->first);
        j->encoded = d->due == buffers[0] ? buffers[1] : buffers[0];
        model_advise_rows(p->m, w, j->first + j->n, min_i64(strip, w->rows - j->first - j->n), ROWS_AHEAD);
        pool_run(j->c->pool, strip_task, j, 1 + ceil_div(j->n, TASK_ROWS));
        if (d->failed)
            return -1;
        if (j->bad >= 0)
            return not_finite(p, tensor, (int64_t)atomic_load(&j->bad), err);
        d->tensor = tensor;
        d->due = j->encoded;
        d->bytes = dtype_bytes(j->dtype, j->n * w->cols);
        model_advise_rows(p->m, w, j->first, j->n, ROWS_DONE);
        progress_update(progress, (*done += (int64_t)d->bytes) >> 20);
    }
    return 0;
}

/* What is no weight is small, and goes to the sink at once. */
static int produce_rest(const struct manifest *p, int64_t tensor, struct strip_job *j, uint8_t *const buffers[2], struct err *err)
{
    struct delivery *d = j->delivery;
    if (deliver(d) != 0)
        return -1;
    j->encoded = buffers[0];
    if (!j->item->scales && produce_vector(p, tensor, j, err) != 0)
        return -1;
    d->tensor = tensor;
    d->due = j->item->scales ? (const uint8_t *)j->scales : j->encoded;
    d->bytes = entry_bytes(&p->entries[tensor]);
    return deliver(d);
}

int manifest_produce(const struct manifest *p, const struct compute *c, sink_fn *sink, void *arg, struct progress *progress,
                     struct err *err)
{
    int rc = -1;
    int64_t done = 0, most_rows = 1;
    struct delivery d = {.sink = sink, .arg = arg, .err = err};
    struct strip_job j = {.c = c, .bad = -1, .delivery = &d};
    for (int64_t i = 0; i < p->n; i++)
        most_rows = p->entries[i].shape[0] > most_rows ? p->entries[i].shape[0] : most_rows;
    size_t rows = (size_t)p->buffer_rows, row_bytes = (size_t)p->widest * sizeof(float);
    uint8_t *buffers[2] = {mem_alloc(rows, row_bytes, err), mem_alloc(rows, row_bytes, err)};
    j.values = mem_alloc(rows, row_bytes, err);
    j.scales = mem_alloc((size_t)most_rows, sizeof(float), err);
    if (!buffers[0] || !buffers[1] || !j.values || !j.scales)
        goto done;
    for (int64_t i = 0; i < p->n; i++) {
        j.item = &p->items[i];
        j.dtype = p->entries[i].dtype;
        int made = j.item->w ? produce_weight(p, i, &j, buffers, progress, &done, err) : produce_rest(p, i, &j, buffers, err);
        if (made != 0)
            goto done;
    }
    rc = deliver(&d);
done:
    free(j.values);
    free(buffers[0]);
    free(buffers[1]);
    free(j.scales);
    return rc;
}
