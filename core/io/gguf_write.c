/* Source of the format: the specification in ggml's docs/gguf.md. */
#include "core/io/gguf_write.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32 }; /* the format's default */

int gguf_writer_open(struct gguf_writer *w, const char *path, struct err *err)
{
    *w = (struct gguf_writer){0};
    if (file_writer_open(&w->file, path, err) != 0)
        return -1;
    w->meta = open_memstream(&w->text, &w->text_bytes);
    if (w->meta)
        return 0;
    gguf_writer_abort(w);
    return err_set(err, "%s: out of memory", path);
}

/* ---- metadata ---- */

static void put_bytes(struct gguf_writer *w, const void *data, size_t n)
{
    fwrite(data, 1, n, w->meta); /* its error stays with the stream */
}

static void put_uint(struct gguf_writer *w, uint64_t v, size_t bytes)
{
    put_bytes(w, &v, bytes); /* little-endian, like every machine this runs on */
}

void gguf_add_text(struct gguf_writer *w, const char *s, size_t n)
{
    put_uint(w, n, 8);
    put_bytes(w, s, n);
}

void gguf_add_i32(struct gguf_writer *w, int32_t v)
{
    put_bytes(w, &v, 4);
}

void gguf_add_f32(struct gguf_writer *w, float v)
{
    put_bytes(w, &v, 4);
}

static void put_key(struct gguf_writer *w, const char *key, size_t n, enum gguf_type type)
{
    w->n_keys++;
    gguf_add_text(w, key, n);
    put_uint(w, type, 4);
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    put_key(w, key, strlen(key), GGUF_U32);
    put_uint(w, v, 4);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float v)
{
    put_key(w, key, strlen(key), GGUF_F32);
    gguf_add_f32(w, v);
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool v)
{
    put_key(w, key, strlen(key), GGUF_BOOL);
    put_uint(w, v, 1);
}

void gguf_put_text(struct gguf_writer *w, const char *key, const char *s, size_t n)
{
    put_key(w, key, strlen(key), GGUF_STRING);
    gguf_add_text(w, s, n);
}

void gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_type element, uint64_t n)
{
    put_key(w, key, strlen(key), GGUF_ARRAY);
    put_uint(w, element, 4);
    put_uint(w, n, 8);
}

static void put_elements(struct gguf_writer *w, const struct gguf_value *v, const int64_t *pick, int64_t n)
{
    size_t bytes = gguf_type_bytes(v->element_type);
    put_uint(w, v->element_type, 4);
    put_uint(w, (uint64_t)n, 8);
    for (int64_t i = 0; i < n; i++) {
        int64_t k = pick ? pick[i] : i;
        if (v->element_type == GGUF_STRING)
            gguf_add_text(w, v->strings[k].s, v->strings[k].n);
        else
            put_bytes(w, v->data + (size_t)k * bytes, bytes);
    }
}

void gguf_put_value(struct gguf_writer *w, const struct gguf_value *v, const int64_t *pick, int64_t n)
{
    put_key(w, v->key.s, v->key.n, v->type);
    if (v->type == GGUF_ARRAY)
        put_elements(w, v, pick, pick ? n : (int64_t)v->count);
    else if (v->type == GGUF_STRING)
        gguf_add_text(w, v->string.s, v->string.n);
    else if (v->type == GGUF_F32)
        gguf_add_f32(w, (float)v->f);
    else if (v->type == GGUF_F64)
        put_bytes(w, &v->f, 8);
    else
        put_uint(w, (uint64_t)v->i, gguf_type_bytes(v->type));
}

/* ---- tensors ---- */

int gguf_number_of_dtype(enum dtype t)
{
    for (uint32_t k = 0; k <= GGUF_LARGEST_NUMBER; k++)
        if (gguf_dtype_of_number(k) == (int)t)
            return (int)k;
    return -1;
}

static size_t aligned(size_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int put_padding(struct gguf_writer *w, size_t n, struct err *err)
{
    static const char zeros[ALIGNMENT];
    return file_writer_put(&w->file, zeros, aligned(n) - n, err);
}

int gguf_writer_tensors(struct gguf_writer *w, const struct tensor_entry *entries, int64_t n, struct err *err)
{
    uint64_t offset = 0, head[2] = {(uint64_t)n, w->n_keys};
    uint32_t version = 3;
    w->entries = entries;
    w->n = n;
    for (int64_t i = 0; i < n; i++) {
        const struct tensor_entry *e = &entries[i];
        gguf_add_text(w, e->name, strlen(e->name));
        put_uint(w, (uint64_t)e->n_dims, 4);
        for (int d = e->n_dims - 1; d >= 0; d--)
            put_uint(w, (uint64_t)e->shape[d], 8);
        put_uint(w, (uint64_t)gguf_number_of_dtype(e->dtype), 4);
        put_uint(w, offset, 8);
        offset += aligned(entry_bytes(e));
    }
    bool whole = !ferror(w->meta);
    whole &= fclose(w->meta) == 0;
    w->meta = NULL;
    if (!whole)
        return err_set(err, "%s: out of memory", w->file.path);
    if (file_writer_put(&w->file, "GGUF", 4, err) != 0 || file_writer_put(&w->file, &version, 4, err) != 0 ||
        file_writer_put(&w->file, head, sizeof head, err) != 0 || file_writer_put(&w->file, w->text, w->text_bytes, err) != 0)
        return -1;
    return put_padding(w, 24 + w->text_bytes, err);
}

int gguf_writer_put(struct gguf_writer *w, const void *data, size_t bytes, struct err *err)
{
    if (file_writer_put(&w->file, data, bytes, err) != 0)
        return -1;
    w->in_tensor += bytes;
    if (w->in_tensor < entry_bytes(&w->entries[w->at]))
        return 0;
    size_t n = w->in_tensor;
    w->in_tensor = 0;
    w->at++;
    return put_padding(w, n, err);
}

int gguf_writer_flush(struct gguf_writer *w, struct err *err)
{
    return file_writer_flush(&w->file, err);
}

int gguf_writer_commit(struct gguf_writer *w, struct err *err)
{
    int rc = file_writer_commit(&w->file, err);
    gguf_writer_abort(w);
    return rc;
}

void gguf_writer_abort(struct gguf_writer *w)
{
    if (w->meta)
        fclose(w->meta);
    free(w->text);
    file_writer_abort(&w->file);
    *w = (struct gguf_writer){0};
}
