#include "core/io/source.h"

#include <stdlib.h>
#include <string.h>

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

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

const struct tensor *source_find(const struct source *s, const char *name)
{
    struct tensor key = {.name = name};
    return s->n_tensors ? bsearch(&key, s->tensors, (size_t)s->n_tensors, sizeof key, by_name) : NULL;
}

static int sort_and_check(struct source *s, struct err *err)
{
    if (s->n_tensors == 0)
        return 0;
    qsort(s->tensors, (size_t)s->n_tensors, sizeof *s->tensors, by_name);
    for (int64_t i = 1; i < s->n_tensors; i++)
        if (by_name(&s->tensors[i - 1], &s->tensors[i]) == 0)
            return err_set(err, "%s: tensor %s is there twice (also in %s)", s->tensors[i].file, s->tensors[i].name,
                           s->tensors[i - 1].file);
    return 0;
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
    if (path_has_suffix(path, ".gguf"))
        return err_set(err, "%s: not a GGUF file: the magic \"GGUF\" was expected at its start", path);
    return safetensors_add(s, map, name, cap, err);
}

/* Opens every shard that the index names and checks that each tensor is where the index says. */
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
        json_object_set_new(seen, shard, json_true());
        char *path = path_join(dir, shard, err);
        int added = path ? add_file(s, path, cap, err) : -1;
        free(path);
        if (added != 0)
            goto done;
    }
    if (sort_and_check(s, err) != 0)
        goto done;
    json_object_foreach(map, name, value) {
        const struct tensor *t = source_find(s, name);
        if (!t || strcmp(path_base(t->file), json_string_value(value))) {
            err_set(err, "%s: names tensor %s in %s, which does not hold it", index, name, json_string_value(value));
            goto done;
        }
    }
    rc = 0;
done:
    json_decref(seen);
    json_decref(root);
    return rc;
}

static int open_folder(struct source *s, const char *dir, int64_t *cap, struct err *err)
{
    int rc = -1;
    char *index = path_join(dir, "model.safetensors.index.json", err);
    char *single = path_join(dir, "model.safetensors", err);
    if (!index || !single)
        goto done;
    if (path_exists(single))
        rc = add_file(s, single, cap, err);
    else if (path_exists(index))
        rc = add_shards(s, dir, index, cap, err);
    else
        err_set(err, "%s: holds neither model.safetensors nor model.safetensors.index.json", dir);
done:
    free(index);
    free(single);
    return rc;
}

int source_open(struct source *s, const char *path, struct err *err)
{
    *s = (struct source){0};
    int64_t cap = 0;
    int rc;
    if (path_is_dir(path))
        rc = open_folder(s, path, &cap, err);
    else if (!path_exists(path))
        rc = err_set(err, "%s: no such model: a Hugging Face folder or a .gguf file was expected", path);
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
    arena_free(&s->arena);
    *s = (struct source){0};
}
