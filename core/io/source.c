#include "core/io/source.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/bus.h"
#include "core/base/json.h"

int64_t tensor_elements(const struct tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

int source_add(struct source *s, const struct tensor *t, int64_t *cap, struct err *err)
{
    if (s->n_tensors == *cap) {
        int64_t grown_cap = *cap ? 2 * *cap : 256;
        struct tensor *grown = realloc(s->tensors, (size_t)grown_cap * sizeof *grown);
        if (!grown)
            return err_set(err, "%s: out of memory", t->file);
        s->tensors = grown;
        *cap = grown_cap;
    }
    s->tensors[s->n_tensors++] = *t;
    return 0;
}

int source_pass_over(struct source *s, const struct tensor *t, const char *type, struct err *err)
{
    if ((s->n_passed & (s->n_passed - 1)) == 0) { /* full at each power of two */
        struct passed_over *grown = realloc(s->passed, (size_t)(s->n_passed ? 2 * s->n_passed : 1) * sizeof *grown);
        if (!grown)
            return err_set(err, "%s: out of memory", t->file);
        s->passed = grown;
    }
    s->passed[s->n_passed++] = (struct passed_over){t->name, t->file, type};
    return 0;
}

const char *source_cut(const struct source *s)
{
    for (int i = 0; i < s->n_maps; i++)
        if (s->maps[i].data && bus_cut(s->maps[i].data))
            for (int64_t t = 0; t < s->n_tensors; t++)
                if (s->tensors[t].data >= s->maps[i].data && s->tensors[t].data < s->maps[i].data + s->maps[i].size)
                    return s->tensors[t].file;
    return NULL;
}

int64_t source_bytes(const struct source *s)
{
    size_t n = 0;
    for (int i = 0; i < s->n_maps; i++)
        n += s->maps[i].size;
    return (int64_t)n;
}

void source_advise(const struct source *s, const void *data, size_t bytes, int advice)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < s->n_maps; i++) {
        const uint8_t *begin = s->maps[i].data, *p = data;
        if (!begin || p < begin || p >= begin + s->maps[i].size)
            continue;
        size_t first = (size_t)(p - begin) / page * page; /* a mapping begins at a page */
        madvise((void *)(uintptr_t)(begin + first), bytes + (size_t)(p - begin) - first, advice);
    }
}

/* Tensors and what was passed over have their name in front. */
static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const struct tensor *source_find(const struct source *s, const char *name)
{
    struct tensor key = {.name = name};
    return s->n_tensors ? bsearch(&key, s->tensors, (size_t)s->n_tensors, sizeof key, by_name) : NULL;
}

const struct passed_over *source_passed_over(const struct source *s, const char *name)
{
    struct passed_over key = {.name = name};
    return s->n_passed ? bsearch(&key, s->passed, (size_t)s->n_passed, sizeof key, by_name) : NULL;
}

static int sort_and_check(struct source *s, struct err *err)
{
    if (s->n_passed)
        qsort(s->passed, (size_t)s->n_passed, sizeof *s->passed, by_name);
    if (s->n_tensors)
        qsort(s->tensors, (size_t)s->n_tensors, sizeof *s->tensors, by_name);
    for (int64_t i = 1; i < s->n_tensors; i++)
        if (by_name(&s->tensors[i - 1], &s->tensors[i]) == 0)
            return err_set(err, "%s: tensor %s is there twice (also in %s)", s->tensors[i].file, s->tensors[i].name,
                           s->tensors[i - 1].file);
    for (int64_t i = 0; i < s->n_passed; i++)
        if ((i && by_name(&s->passed[i - 1], &s->passed[i]) == 0) || source_find(s, s->passed[i].name))
            return err_set(err, "%s: tensor %s is there twice", s->passed[i].file, s->passed[i].name);
    return 0;
}

/* By its content, save where the name leaves no doubt. */
static bool is_pytorch(const struct file_map *map, const char *path)
{
    if (path_has_suffix(path, ".bin"))
        return true;
    return !path_has_suffix(path, ".safetensors") && map->size >= 4 && !memcmp(map->data, "PK\3\4", 4);
}

/* Maps one more file; its path is kept in the arena for messages. */
static int add_file(struct source *s, const char *path, int64_t *cap, struct err *err)
{
    struct file_map *maps = realloc(s->maps, (size_t)(s->n_maps + 1) * sizeof *maps);
    if (!maps)
        return err_set(err, "%s: out of memory", path);
    s->maps = maps;
    const char *name = arena_strdup(&s->arena, path, err);
    if (!name || file_map(&maps[s->n_maps], path, err) != 0)
        return -1;
    const struct file_map *map = &maps[s->n_maps++];
    if (map->size >= 4 && !memcmp(map->data, "GGUF", 4))
        return gguf_add(s, map, name, cap, err);
    if (map->size >= 8 && !memcmp(map->data, "\x89HDF\r\n\x1a\n", 8))
        return h5_model_add(s, map, name, cap, err);
    if (path_has_suffix(path, ".h5"))
        return err_set(err, "%s: not an HDF5 file", path);
    if (path_has_suffix(path, ".gguf"))
        return err_set(err, "%s: not a GGUF file: the magic \"GGUF\" was expected at its start", path);
    return is_pytorch(map, path) ? pytorch_add(s, map, name, cap, err) : safetensors_add(s, map, name, cap, err);
}

/* file: the missing one that should hold the tensor; NULL: none is missing. */
static int pass_over_missing(struct source *s, const char *name, const char *file, struct err *err)
{
    if (!file)
        return 0;
    struct tensor t = {.name = arena_strdup(&s->arena, name, err), .file = arena_strdup(&s->arena, file, err)};
    return t.name && t.file ? source_pass_over(s, &t, NULL, err) : -1;
}

/* Opens every shard that the index names and checks that each tensor is where the index says. One that no shard holds, or only one
 * that is missing, is missed where it is needed. */
static int add_shards(struct source *s, const char *dir, const char *index, int64_t *cap, struct err *err)
{
    json_t *root = json_read(index, err), *seen = json_object();
    int rc = -1;
    const char *name;
    json_t *value;
    json_t *map = json_object_get(root, "weight_map");
    if (!root)
        goto done;
    if (!json_is_object(map) || json_object_size(map) == 0) {
        err_set(err, "%s: an object \"weight_map\" of tensor names was expected", index);
        goto done;
    }
    json_object_foreach(map, name, value) {
        const char *shard = json_string_value(value);
        if (!shard || strchr(shard, '/') || !*shard) {
            err_set(err, "%s: tensor %s: the name of a file in the same folder was expected", index, name);
            goto done;
        }
        if (json_object_get(seen, shard))
            continue;
        char *path = path_join(dir, shard, err);
        int there = path ? path_status(path, err) : -1, added = there > 0 ? add_file(s, path, cap, err) : there;
        json_object_set_new(seen, shard, there ? json_true() : json_string(path));
        free(path);
        if (added != 0)
            goto done;
    }
    if (sort_and_check(s, err) != 0)
        goto done;
    json_object_foreach(map, name, value) {
        const struct tensor *t = source_find(s, name);
        if (!t && pass_over_missing(s, name, json_string_value(json_object_get(seen, json_string_value(value))), err) != 0)
            goto done;
        if (t && strcmp(path_base(t->file), json_string_value(value))) {
            err_set(err, "%s: names tensor %s in %s, but %s holds it", index, name, json_string_value(value), t->file);
            goto done;
        }
    }
    rc = 0;
done:
    json_decref(seen);
    json_decref(root);
    return rc;
}

/* The first of the usual files that is there; safetensors go before PyTorch's own. */
static int open_folder(struct source *s, const char *dir, int64_t *cap, struct err *err)
{
    static const struct {
        const char *name;
        bool index;
    } files[] = {
        {"model.safetensors", false},
        {"model.safetensors.index.json", true},
        {"pytorch_model.bin", false},
        {"pytorch_model.bin.index.json", true},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = path_join(dir, files[i].name, err);
        if (!path)
            return -1;
        int there = path_status(path, err);
        int rc = there < 0 ? -1 : !there ? 0 : files[i].index ? add_shards(s, dir, path, cap, err) : add_file(s, path, cap, err);
        free(path);
        if (there)
            return rc;
    }
    return err_set(err, "%s: holds neither model.safetensors nor pytorch_model.bin, nor the index of either", dir);
}

int source_open(struct source *s, const char *path, struct err *err)
{
    *s = (struct source){0};
    int64_t cap = 0;
    int rc, there = path_status(path, err);
    if (there < 0)
        rc = -1;
    else if (path_is_dir(path))
        rc = open_folder(s, path, &cap, err);
    else if (!there)
        rc = err_set(err, "%s: no such model: a Hugging Face folder, a .gguf or a .h5 file was expected", path);
    else
        rc = add_file(s, path, &cap, err);
    if (rc == 0)
        rc = sort_and_check(s, err);
    if (rc != 0)
        source_close(s);
    return rc;
}

void source_close(struct source *s)
{
    for (int i = 0; i < s->n_maps; i++)
        file_unmap(&s->maps[i]);
    free(s->maps);
    free(s->tensors);
    free(s->passed);
    arena_free(&s->arena);
    *s = (struct source){0};
}
