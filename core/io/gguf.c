/* GGUF: header, key-value metadata, tensor table, aligned data. Source: the specification in ggml's docs/gguf.md. */
#include "core/io/gguf.h"

#include <math.h>
#include <string.h>

#include "core/io/source.h"

/* A cursor over the mapped file; `ok` turns false at the first read past the end and stays so. */
struct cursor {
    const uint8_t *p;
    size_t left;
    bool ok;
};

static const uint8_t *take(struct cursor *c, uint64_t n)
{
    if (!c->ok || n > c->left) {
        c->ok = false;
        return NULL;
    }
    const uint8_t *p = c->p;
    c->p += n;
    c->left -= (size_t)n;
    return p;
}

static uint64_t take_uint(struct cursor *c, int bytes)
{
    uint64_t v = 0;
    const uint8_t *p = take(c, (uint64_t)bytes);
    if (p)
        memcpy(&v, p, (size_t)bytes);
    return v;
}

static struct gguf_string take_string(struct cursor *c)
{
    uint64_t n = take_uint(c, 8);
    const uint8_t *p = take(c, n);
    return (struct gguf_string){p ? (const char *)p : "", p ? (size_t)n : 0};
}

static const uint8_t type_bytes[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

size_t gguf_type_bytes(enum gguf_type t)
{
    return t < GGUF_TYPE_COUNT ? type_bytes[t] : 0;
}

static bool is_float(enum gguf_type t)
{
    return t == GGUF_F32 || t == GGUF_F64;
}

static int64_t element_int(const uint8_t *p, enum gguf_type t)
{
    int64_t v = 0;
    memcpy(&v, p, type_bytes[t]);
    switch (t) {
    case GGUF_I8: return (int8_t)v;
    case GGUF_I16: return (int16_t)v;
    case GGUF_I32: return (int32_t)v;
    default: return v;
    }
}

static double element_float(const uint8_t *p, enum gguf_type t)
{
    if (t == GGUF_F32) {
        float f;
        memcpy(&f, p, 4);
        return f;
    }
    if (t == GGUF_F64) {
        double d;
        memcpy(&d, p, 8);
        return d;
    }
    return (double)element_int(p, t);
}

static int read_array(struct gguf_value *v, struct cursor *c, struct arena *arena, const char *file, struct err *err)
{
    v->element_type = (enum gguf_type)take_uint(c, 4);
    v->count = take_uint(c, 8);
    if (v->element_type == GGUF_STRING) {
        if (!c->ok || v->count > c->left / 8) /* each string takes at least its 8-byte length */
            return err_set(err, "%s: truncated: an array of %llu strings goes past the end", file, (unsigned long long)v->count);
        struct gguf_string *s = arena_alloc(arena, v->count, sizeof *s, err);
        if (!s)
            return -1;
        for (uint64_t i = 0; i < v->count; i++)
            s[i] = take_string(c);
        v->strings = s;
        return 0;
    }
    if (v->element_type >= GGUF_TYPE_COUNT || !type_bytes[v->element_type])
        return err_set(err, "%s: key %.*s: arrays of type %d are not supported", file, (int)v->key.n, v->key.s, v->element_type);
    uint64_t bytes;
    if (__builtin_mul_overflow(v->count, (uint64_t)type_bytes[v->element_type], &bytes))
        c->ok = false;
    else
        v->data = take(c, bytes);
    return 0;
}

static int read_value(struct gguf_value *v, struct cursor *c, struct arena *arena, const char *file, struct err *err)
{
    v->key = take_string(c);
    v->type = (enum gguf_type)take_uint(c, 4);
    if (c->ok && v->type >= GGUF_TYPE_COUNT)
        return err_set(err, "%s: key %.*s has the unknown type %d", file, (int)(v->key.n < 80 ? v->key.n : 80), v->key.s, v->type);
    if (v->type == GGUF_STRING) {
        v->string = take_string(c);
    } else if (v->type == GGUF_ARRAY) {
        if (read_array(v, c, arena, file, err) != 0)
            return -1;
    } else {
        const uint8_t *p = take(c, type_bytes[v->type]);
        if (p) {
            v->f = element_float(p, v->type);
            v->i = is_float(v->type) ? 0 : element_int(p, v->type);
        }
    }
    return c->ok ? 0 : err_set(err, "%s: truncated: the metadata goes past the end of the file", file);
}

/* ggml's type numbers, as they stand in the file. */
int gguf_dtype_of_number(uint32_t number)
{
    switch (number) {
    case 0: return DTYPE_F32;
    case 1: return DTYPE_F16;
    case 2: return DTYPE_Q4_0;
    case 3: return DTYPE_Q4_1;
    case 8: return DTYPE_Q8_0;
    case 30: return DTYPE_BF16;
    default: return -1;
    }
}

/* Reads one row of the tensor table. `offset` is left in t->bytes until the start of the data is known. */
static int read_tensor(struct tensor *t, uint64_t *offset, struct cursor *c, struct arena *arena, struct err *err)
{
    struct gguf_string name = take_string(c);
    uint32_t n_dims = (uint32_t)take_uint(c, 4);
    char *copy = arena_alloc(arena, name.n + 1, 1, err);
    if (!copy)
        return -1;
    memcpy(copy, name.s, name.n);
    t->name = copy;
    if (!c->ok)
        return err_set(err, "%s: truncated: the tensor table goes past the end of the file", t->file);
    if (n_dims < 1 || n_dims > TENSOR_MAX_DIMS)
        return err_set(err, "%s: tensor %s has %u dimensions, 1 to %d are supported", t->file, copy, n_dims, TENSOR_MAX_DIMS);
    t->n_dims = (int)n_dims;
    int64_t n = 1;
    for (uint32_t d = 0; d < n_dims; d++) {
        int64_t len = (int64_t)take_uint(c, 8);
        t->shape[n_dims - 1 - d] = len; /* innermost first in the file */
        if (len < 0 || __builtin_mul_overflow(n, len, &n) || n > INT64_MAX / 8)
            return err_set(err, "%s: tensor %s: impossible shape", t->file, copy);
    }
    uint32_t type = (uint32_t)take_uint(c, 4);
    *offset = take_uint(c, 8);
    if (!c->ok)
        return err_set(err, "%s: truncated: the tensor table goes past the end of the file", t->file);
    int dtype = gguf_dtype_of_number(type);
    if (dtype < 0)
        return err_set(err, "%s: tensor %s: ggml type %u is not supported (f32, f16, bf16, q8_0, q4_0 and q4_1 are)", t->file, copy,
                       type);
    t->dtype = (enum dtype)dtype;
    uint32_t block = dtype_table[dtype].block;
    if (t->shape[n_dims - 1] % block)
        return err_set(err, "%s: tensor %s: rows of %lld values do not divide into blocks of %u", t->file, copy,
                       (long long)t->shape[n_dims - 1], block);
    t->bytes = dtype_bytes(t->dtype, n);
    return 0;
}

static int read_metadata(struct gguf *g, struct cursor *c, struct arena *arena, uint64_t *n_tensors, struct err *err)
{
    take(c, 4); /* the magic, seen by the caller */
    g->version = (uint32_t)take_uint(c, 4);
    *n_tensors = take_uint(c, 8);
    g->n_values = take_uint(c, 8);
    if (!c->ok)
        return err_set(err, "%s: truncated: shorter than a GGUF header", g->file);
    if (__builtin_bswap32(g->version) == 2 || __builtin_bswap32(g->version) == 3)
        return err_set(err, "%s: a big-endian GGUF, which is not read; a little-endian one was expected", g->file);
    if (g->version != 2 && g->version != 3)
        return err_set(err, "%s: GGUF version %u is not supported (2 and 3 are)", g->file, g->version);
    if (g->n_values > c->left / 12 || *n_tensors > c->left / 24) /* the least that a key and a tensor take */
        return err_set(err, "%s: truncated: %llu keys and %llu tensors do not fit into %zu bytes", g->file,
                       (unsigned long long)g->n_values, (unsigned long long)*n_tensors, c->left);
    g->values = arena_alloc(arena, g->n_values, sizeof *g->values, err);
    if (!g->values)
        return -1;
    for (uint64_t i = 0; i < g->n_values; i++)
        if (read_value(&g->values[i], c, arena, g->file, err) != 0)
            return -1;
    return 0;
}

int gguf_add(struct source *s, const struct file_map *map, const char *file, int64_t *cap, struct err *err)
{
    struct cursor c = {map->data, map->size, true};
    uint64_t n_tensors;
    struct gguf *g = arena_alloc(&s->arena, 1, sizeof *g, err);
    if (!g)
        return -1;
    g->file = file;
    if (read_metadata(g, &c, &s->arena, &n_tensors, err) != 0)
        return -1;
    s->gguf = g;
    int64_t align = 32, parts = 1;
    gguf_int(&align, g, "general.alignment");
    gguf_int(&parts, g, "split.count");
    if (align < 1 || align > 1 << 20 || align & (align - 1))
        return err_set(err, "%s: impossible general.alignment %lld", file, (long long)align);
    if (parts > 1)
        return err_set(err, "%s: one part of a GGUF split into %lld; join the parts first", file, (long long)parts);

    uint64_t *offsets = arena_alloc(&s->arena, n_tensors, sizeof *offsets, err);
    if (!offsets)
        return -1;
    int64_t first = s->n_tensors;
    for (uint64_t i = 0; i < n_tensors; i++) {
        struct tensor t = {.file = file};
        if (read_tensor(&t, &offsets[i], &c, &s->arena, err) != 0 || source_add(s, &t, cap, err) != 0)
            return -1;
    }
    uint64_t start = ((uint64_t)(map->size - c.left) + (uint64_t)align - 1) / (uint64_t)align * (uint64_t)align;
    for (uint64_t i = 0; i < n_tensors; i++) {
        struct tensor *t = &s->tensors[first + (int64_t)i];
        uint64_t end;
        if (offsets[i] % (uint64_t)align)
            return err_set(err, "%s: tensor %s: offset %llu is not a multiple of %lld", file, t->name,
                           (unsigned long long)offsets[i], (long long)align);
        if (start > map->size || offsets[i] > map->size - start || __builtin_add_overflow(start + offsets[i], t->bytes, &end) ||
            end > map->size)
            return err_set(err, "%s: tensor %s: %zu bytes at offset %llu go past the end of the file (truncated?)", file, t->name,
                           t->bytes, (unsigned long long)offsets[i]);
        t->data = map->data + start + offsets[i];
    }
    return 0;
}

const struct gguf_value *gguf_find(const struct gguf *g, const char *key)
{
    size_t n = strlen(key);
    for (uint64_t i = 0; i < g->n_values; i++)
        if (g->values[i].key.n == n && !memcmp(g->values[i].key.s, key, n))
            return &g->values[i];
    return NULL;
}

static bool is_int(enum gguf_type t)
{
    return t < GGUF_TYPE_COUNT && type_bytes[t] && !is_float(t) && t != GGUF_BOOL;
}

bool gguf_int(int64_t *out, const struct gguf *g, const char *key)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v || !is_int(v->type))
        return false;
    *out = v->i;
    return true;
}

bool gguf_float(double *out, const struct gguf *g, const char *key)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v || !(is_int(v->type) || is_float(v->type)))
        return false;
    *out = v->f;
    return true;
}

bool gguf_bool(bool *out, const struct gguf *g, const char *key)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v || v->type != GGUF_BOOL)
        return false;
    *out = v->i != 0;
    return true;
}

bool gguf_text(struct gguf_string *out, const struct gguf *g, const char *key)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v || v->type != GGUF_STRING)
        return false;
    *out = v->string;
    return true;
}

/* The value that holds the one number: v itself, or *first for an array of equal ones. NULL and an error else. */
static const struct gguf_value *one_number(struct gguf_value *first, const struct gguf *g, const struct gguf_value *v,
                                           const char *key, struct err *err)
{
    bool numbers = is_int(v->element_type) || v->element_type == GGUF_F32;
    if (is_int(v->type) || is_float(v->type))
        return v;
    if (v->type != GGUF_ARRAY || !numbers || v->count == 0) {
        err_set(err, "%s: the key %s is of the wrong type: a number was expected", g->file, key);
        return NULL;
    }
    size_t bytes = type_bytes[v->element_type];
    for (uint64_t k = 1; k < v->count; k++)
        if (memcmp(v->data, v->data + k * bytes, bytes)) {
            err_set(err, "%s: the key %s is an array of different numbers, one for each block; one number for all was expected",
                    g->file, key);
            return NULL;
        }
    float f = 0;
    *first = (struct gguf_value){.type = v->element_type};
    if (v->element_type == GGUF_F32)
        memcpy(&f, v->data, sizeof f);
    else
        first->i = element_int(v->data, v->element_type);
    first->f = v->element_type == GGUF_F32 ? (double)f : (double)first->i;
    return first;
}

static int one(struct gguf_value *out, const struct gguf *g, const char *key, bool needed, struct err *err)
{
    struct gguf_value first;
    const struct gguf_value *v = gguf_find(g, key), *number = v ? one_number(&first, g, v, key, err) : NULL;
    if (!v)
        return needed ? err_set(err, "%s: the key %s (a number) is missing", g->file, key) : 1;
    if (!number)
        return -1;
    *out = *number;
    return 0;
}

int gguf_one_int(int64_t *out, const struct gguf *g, const char *key, bool needed, struct err *err)
{
    struct gguf_value v = {0};
    int rc = one(&v, g, key, needed, err);
    if (rc == 0 && !is_int(v.type))
        return err_set(err, "%s: the key %s is of the wrong type: a whole number was expected", g->file, key);
    if (rc == 0)
        *out = v.i;
    return rc < 0 ? -1 : 0;
}

int gguf_one_float(double *out, const struct gguf *g, const char *key, bool needed, struct err *err)
{
    struct gguf_value v = {0};
    int rc = one(&v, g, key, needed, err);
    if (rc == 0)
        *out = v.f;
    return rc < 0 ? -1 : 0;
}

int64_t gguf_array_int(const struct gguf_value *v, uint64_t k)
{
    return element_int(v->data + k * type_bytes[v->element_type], v->element_type);
}
