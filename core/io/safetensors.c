/* safetensors: u64 header length, JSON header {name: {dtype, shape, data_offsets}}, data.
 * Source: the format description in the safetensors repository's README. */
#include "core/io/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/io/source.h"

enum { HEADER_MAX = 100 << 20 }; /* the reference implementation's limit */

static const struct {
    const char *name;
    int dtype; /* -1: a known type that no weight of a LLaMA has; such tensors are passed over */
} type_names[] = {
    {"F32", DTYPE_F32}, {"F16", DTYPE_F16}, {"BF16", DTYPE_BF16}, {"F8_E4M3", DTYPE_F8_E4M3},
    {"I64", -1},        {"I32", -1},        {"I16", -1},          {"I8", -1},
    {"U8", -1},         {"U16", -1},        {"U32", -1},          {"U64", -1},
    {"BOOL", -1},
};
enum { N_TYPE_NAMES = sizeof type_names / sizeof *type_names };

static int read_shape(struct tensor *t, const json_t *shape, struct err *err)
{
    if (!json_is_array(shape) || json_array_size(shape) > TENSOR_MAX_DIMS)
        return err_set(err, "%s: tensor %s: a shape of at most %d dimensions was expected", t->file, t->name, TENSOR_MAX_DIMS);
    int64_t n = 1;
    t->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < t->n_dims; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        t->shape[i] = json_integer_value(d);
        if (!json_is_integer(d) || t->shape[i] < 0 || __builtin_mul_overflow(n, t->shape[i], &n) || n > INT64_MAX / 8)
            return err_set(err, "%s: tensor %s: impossible shape", t->file, t->name);
    }
    return 0;
}

/* Fills t from one header entry. *passed: the name of its type when that is one to pass over, else NULL. */
static int read_entry(struct tensor *t, const char **passed, const json_t *entry, const uint8_t *data, size_t size, struct err *err)
{
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    const json_t *range = json_object_get(entry, "data_offsets");
    if (!type || json_array_size(range) != 2)
        return err_set(err, "%s: tensor %s: dtype, shape and two data_offsets were expected", t->file, t->name);
    int k = 0;
    while (k < N_TYPE_NAMES && strcmp(type, type_names[k].name))
        k++;
    *passed = k == N_TYPE_NAMES || type_names[k].dtype < 0 ? type : NULL; /* an error only where a weight has it */
    if (!*passed && read_shape(t, json_object_get(entry, "shape"), err) != 0)
        return -1;
    const json_t *a = json_array_get(range, 0), *b = json_array_get(range, 1);
    json_int_t begin = json_integer_value(a), end = json_integer_value(b);
    if (!json_is_integer(a) || !json_is_integer(b) || begin < 0 || end < begin || (uint64_t)end > size)
        return err_set(err, "%s: tensor %s: data_offsets [%lld, %lld] lie outside the %zu bytes of data (file truncated?)", t->file,
                       t->name, (long long)begin, (long long)end, size);
    if (*passed)
        return 0;
    t->dtype = (enum dtype)type_names[k].dtype;
    t->data = data + begin;
    t->bytes = (size_t)(end - begin);
    size_t need = dtype_bytes(t->dtype, tensor_elements(t));
    if (need != t->bytes)
        return err_set(err, "%s: tensor %s: its shape needs %zu bytes, its offsets hold %zu", t->file, t->name, need, t->bytes);
    return 0;
}

/* The header, n bytes from the eighth on, as a new reference; NULL and an error. */
static json_t *read_header(uint64_t *n, const struct file_map *map, const char *file, struct err *err)
{
    json_error_t why;
    *n = 0;
    if (map->size >= 8)
        memcpy(n, map->data, 8); /* little-endian, like every machine this runs on */
    if (map->size < 8 || *n > map->size - 8 || *n > HEADER_MAX || *n < 2) {
        err_set(err, "%s: not a safetensors file, or truncated: a header of %llu bytes in a file of %zu", file,
                (unsigned long long)*n, map->size);
        return NULL;
    }
    json_t *root = json_loadb((const char *)map->data + 8, (size_t)*n, JSON_REJECT_DUPLICATES, &why);
    if (root && json_is_object(root))
        return root;
    err_set(err, "%s: the safetensors header is not valid JSON: %s", file, root ? "an object was expected" : why.text);
    json_decref(root);
    return NULL;
}

int safetensors_note(char **note, const char *path, struct err *err)
{
    struct file_map map;
    uint64_t n;
    *note = NULL;
    if (file_map(&map, path, err) != 0)
        return -1;
    json_t *root = read_header(&n, &map, path, err);
    const char *text = json_string_value(json_object_get(json_object_get(root, "__metadata__"), "espalier"));
    int rc = !root ? -1 : text && !(*note = strdup(text)) ? err_set(err, "%s: out of memory", path) : 0;
    json_decref(root);
    file_unmap(&map);
    return rc;
}

int safetensors_add(struct source *s, const struct file_map *map, const char *file, int64_t *cap, struct err *err)
{
    uint64_t n;
    int rc = 0;
    json_t *root = read_header(&n, map, file, err);
    if (!root)
        return -1;
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry) {
        if (!strcmp(name, "__metadata__"))
            continue;
        struct tensor t = {.file = file, .name = arena_strdup(&s->arena, name, err)};
        const char *passed = NULL;
        rc = t.name ? read_entry(&t, &passed, entry, map->data + 8 + n, map->size - 8 - (size_t)n, err) : -1;
        if (rc == 0 && passed)
            passed = arena_strdup(&s->arena, passed, err);
        if (rc == 0)
            rc = passed ? source_pass_over(s, &t, passed, err) : t.data ? source_add(s, &t, cap, err) : -1;
        if (rc != 0)
            break;
    }
    json_decref(root);
    return rc;
}

/* ---- writing ---- */

static const char *type_name(enum dtype t)
{
    for (int k = 0; k < N_TYPE_NAMES; k++)
        if (type_names[k].dtype == (int)t)
            return type_names[k].name;
    return NULL;
}

int safetensors_writer_open(struct safetensors_writer *w, const char *path, const struct tensor_entry *entries, int64_t n,
                            const char *note, struct err *err)
{
    int rc = -1;
    char *text = NULL;
    json_t *root = json_object();
    int64_t at = 0;
    json_object_set_new(root, "__metadata__", json_pack("{ss ss*}", "format", "pt", "espalier", note));
    for (int64_t i = 0; i < n; i++) {
        const struct tensor_entry *e = &entries[i];
        json_t *shape = json_array();
        for (int d = 0; d < e->n_dims; d++)
            json_array_append_new(shape, json_integer(e->shape[d]));
        int64_t end = at + (int64_t)entry_bytes(e);
        json_object_set_new(root, e->name,
                            json_pack("{ss,so,s[I,I]}", "dtype", type_name(e->dtype), "shape", shape, "data_offsets",
                                      (json_int_t)at, (json_int_t)end));
        at = end;
    }
    *w = (struct safetensors_writer){.entries = entries, .n = n};
    text = json_dumps(root, JSON_COMPACT);
    if (!text) {
        err_set(err, "%s: out of memory", path);
        goto done;
    }
    if (file_writer_open(&w->file, path, err) != 0)
        goto done;
    /* Spaces pad the header so that the data starts at a multiple of 8, as the reference writer does. */
    uint64_t len = strlen(text), padded = (len + 7) / 8 * 8;
    if (file_writer_put(&w->file, &padded, 8, err) != 0 || file_writer_put(&w->file, text, len, err) != 0 ||
        file_writer_put(&w->file, "       ", padded - len, err) != 0) {
        file_writer_abort(&w->file);
        goto done;
    }
    rc = 0;
done:
    free(text);
    json_decref(root);
    return rc;
}

int safetensors_writer_put(struct safetensors_writer *w, const void *data, size_t bytes, struct err *err)
{
    return file_writer_put(&w->file, data, bytes, err);
}

/* The tensor e of data as the header of the file says. */
static int check_entry(const struct tensor_entry *e, const void *data, const json_t *root, const struct file_map *map, uint64_t n,
                       const char *file, struct err *err)
{
    struct tensor t = {.file = file, .name = e->name};
    const char *passed = NULL;
    if (read_entry(&t, &passed, json_object_get(root, e->name), map->data + 8 + n, map->size - 8 - (size_t)n, err) != 0)
        return -1;
    bool same = !passed && t.dtype == e->dtype && t.n_dims == e->n_dims && t.bytes == entry_bytes(e);
    for (int d = 0; same && d < t.n_dims; d++)
        same = t.shape[d] == e->shape[d];
    return same && !memcmp(t.data, data, t.bytes)
               ? 0
               : err_set(err, "%s: reading back what was written: tensor %s differs", file, e->name);
}

int safetensors_writer_check(struct safetensors_writer *w, const void *const data[], struct err *err)
{
    struct file_map map;
    uint64_t n;
    if (file_writer_flush(&w->file, err) != 0)
        return -1;
    if (!w->file.tmp) /* a device or a pipe, which is not read back */
        return 0;
    if (file_map(&map, w->file.tmp, err) != 0)
        return -1;
    json_t *root = read_header(&n, &map, w->file.path, err);
    int rc = root ? 0 : -1;
    for (int64_t i = 0; rc == 0 && i < w->n; i++)
        rc = check_entry(&w->entries[i], data[i], root, &map, n, w->file.path, err);
    json_decref(root);
    file_unmap(&map);
    return rc;
}

int safetensors_writer_fill(struct safetensors_writer *w, const char *path, const struct tensor_entry *entries,
                            const void *const data[], int64_t n, const char *note, struct err *err)
{
    int rc = safetensors_writer_open(w, path, entries, n, note, err);
    if (rc != 0)
        return -1;
    for (int64_t i = 0; rc == 0 && i < n; i++)
        rc = safetensors_writer_put(w, data[i], entry_bytes(&entries[i]), err);
    if (rc == 0)
        rc = safetensors_writer_check(w, data, err);
    if (rc != 0)
        safetensors_writer_abort(w);
    return rc;
}

int safetensors_writer_commit(struct safetensors_writer *w, struct err *err)
{
    return file_writer_commit(&w->file, err);
}

void safetensors_writer_abort(struct safetensors_writer *w)
{
    file_writer_abort(&w->file);
}

/* ---- a folder of shards ---- */

static void shard_name(char name[64], const struct safetensors_folder *f, int64_t shard)
{
    if (f->n_shards == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05lld-of-%05lld.safetensors", (long long)shard + 1, (long long)f->n_shards);
}

/* Fills shards in order: a tensor that would make one too large begins the next. */
static int cut_shards(struct safetensors_folder *f, int64_t limit, struct err *err)
{
    size_t used = 0;
    f->first = calloc((size_t)f->n + 2, sizeof *f->first);
    if (!f->first)
        return err_set(err, "%s: out of memory", f->dir);
    f->n_shards = 1;
    for (int64_t i = 0; i < f->n; i++) {
        size_t bytes = entry_bytes(&f->entries[i]);
        if (used > 0 && used + bytes > (size_t)limit) {
            f->first[f->n_shards++] = i;
            used = 0;
        }
        used += bytes;
    }
    f->first[f->n_shards] = f->n;
    return 0;
}

static int open_shard(struct safetensors_folder *f, struct err *err)
{
    char name[64];
    int64_t a = f->first[f->shard], b = f->first[f->shard + 1];
    shard_name(name, f, f->shard);
    char *path = path_join(f->dir, name, err);
    if (!path)
        return -1;
    f->left = 0;
    for (int64_t i = a; i < b; i++)
        f->left += entry_bytes(&f->entries[i]);
    f->open = safetensors_writer_open(&f->w, path, f->entries + a, b - a, NULL, err) == 0;
    free(path);
    return f->open ? 0 : -1;
}

static int close_shard(struct safetensors_folder *f, struct err *err)
{
    f->open = false;
    return safetensors_writer_commit(&f->w, err);
}

int safetensors_folder_open(struct safetensors_folder *f, const char *dir, const struct tensor_entry *entries, int64_t n,
                            int64_t limit, struct err *err)
{
    *f = (struct safetensors_folder){.dir = dir, .entries = entries, .n = n};
    if (cut_shards(f, limit, err) == 0 && open_shard(f, err) == 0)
        return 0;
    safetensors_folder_abort(f);
    return -1;
}

int safetensors_folder_put(struct safetensors_folder *f, const void *data, size_t bytes, struct err *err)
{
    if (f->left == 0 && f->shard + 1 < f->n_shards) {
        if (close_shard(f, err) != 0)
            return -1;
        f->shard++;
        if (open_shard(f, err) != 0)
            return -1;
    }
    f->left -= bytes;
    return safetensors_writer_put(&f->w, data, bytes, err);
}

static int write_index(const struct safetensors_folder *f, struct err *err)
{
    size_t total = 0;
    char name[64];
    json_t *map = json_object();
    for (int64_t k = 0; k < f->n_shards; k++)
        for (int64_t i = f->first[k]; i < f->first[k + 1]; i++) {
            shard_name(name, f, k);
            json_object_set_new(map, f->entries[i].name, json_string(name));
            total += entry_bytes(&f->entries[i]);
        }
    json_t *root = json_pack("{s{sI}so}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    char *path = path_join(f->dir, "model.safetensors.index.json", err);
    int rc = path && root ? json_write(path, root, err) : err_set(err, "%s: out of memory", f->dir);
    free(path);
    json_decref(root);
    return rc;
}

int safetensors_folder_commit(struct safetensors_folder *f, struct err *err)
{
    int rc = close_shard(f, err);
    if (rc == 0 && f->n_shards > 1)
        rc = write_index(f, err);
    safetensors_folder_abort(f);
    return rc;
}

void safetensors_folder_abort(struct safetensors_folder *f)
{
    if (f->open)
        safetensors_writer_abort(&f->w);
    free(f->first);
    *f = (struct safetensors_folder){0};
}
