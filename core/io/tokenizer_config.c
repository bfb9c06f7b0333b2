/* What lies beside a tokenizer in a Hugging Face folder: special tokens, add_bos_token, the chat template. */
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/tokenizer_impl.h"

/* A special token is a string or an object with "content"; one that the vocabulary lacks is as good as none. */
static void read_special(int32_t *id, const struct tokenizer *t, const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v))
        v = json_object_get(v, "content");
    if (*id < 0 && json_is_string(v))
        *id = vocab_find(t, json_string_value(v), json_string_length(v));
}

/* "chat_template" is a string, or a list of named ones of which "default" counts. */
static int read_template(struct tokenizer *t, const json_t *config, struct err *err)
{
    const json_t *v = json_object_get(config, "chat_template"), *item;
    size_t i;
    if (json_is_array(v)) {
        const json_t *list = v;
        v = NULL;
        json_array_foreach(list, i, item) {
            const char *name = json_string_value(json_object_get(item, "name"));
            if (name && !strcmp(name, "default"))
                v = json_object_get(item, "template");
        }
    }
    if (t->chat_template || !json_is_string(v))
        return 0;
    t->chat_template = tokenizer_keep(t, json_string_value(v), json_string_length(v), err);
    return t->chat_template ? 0 : -1;
}

int tokenizer_read_file(char **data, size_t *n, const struct tokenizer *t, const char *name, struct err *err)
{
    *data = NULL;
    *n = 0;
    for (int64_t i = 0; i < t->n_files; i++) {
        if (strcmp(t->files[i].name, name))
            continue;
        *n = t->files[i].n;
        *data = malloc(*n + 1);
        if (!*data)
            return err_set(err, "%s: out of memory", t->file);
        memcpy(*data, t->files[i].data, *n + 1);
        return 0;
    }
    if (!t->dir)
        return 0;
    char *path = path_join(t->dir, name, err);
    int there = path ? path_status(path, err) : -1, rc = there > 0 ? file_read(data, n, path, err) : there;
    free(path);
    return rc;
}

static int read_config(struct tokenizer *t, const char *name, struct err *err)
{
    int rc = -1;
    size_t n;
    json_t *config = NULL;
    char *text = NULL, *path = path_join(t->dir ? t->dir : t->file, name, err);
    if (!path || tokenizer_read_file(&text, &n, t, name, err) != 0)
        goto done;
    if (!text) {
        rc = 0;
        goto done;
    }
    config = json_parse(text, n, path, err);
    if (!config)
        goto done;
    if (!json_is_object(config)) {
        err_set(err, "%s: a JSON object expected", path);
        goto done;
    }
    read_special(&t->bos, t, config, "bos_token");
    read_special(&t->eos, t, config, "eos_token");
    read_special(&t->pad, t, config, "pad_token");
    read_special(&t->unk, t, config, "unk_token");
    if (json_get_bool(&t->adds_bos, config, "add_bos_token", path, err) == 0)
        rc = read_template(t, config, err);
done:
    json_decref(config);
    free(text);
    free(path);
    return rc;
}

/* "eos_token_id" of a file beside the tokenizer: a number or a list of them. */
static int read_ends(struct tokenizer *t, const char *name, struct err *err)
{
    char *text = NULL;
    size_t n, i;
    json_t *v;
    if (tokenizer_read_file(&text, &n, t, name, err) != 0)
        return -1;
    char *path = text ? path_join(t->dir ? t->dir : t->file, name, err) : NULL;
    json_t *root = path ? json_parse(text, n, path, err) : NULL;
    int rc = text && !root ? -1 : 0;
    json_t *ends = json_object_get(root, "eos_token_id");
    if (root && !json_is_object(root))
        rc = err_set(err, "%s: a JSON object was expected", path);
    else if (ends && !json_is_null(ends) && !json_is_integer(ends) && !json_is_array(ends))
        rc = err_set(err, "%s: \"eos_token_id\": a token id or a list of them was expected", path);
    else if (json_is_integer(ends))
        rc = tokenizer_add_end(t, json_integer_value(ends), err);
    json_array_foreach(ends, i, v)
        if (rc == 0)
            rc = json_is_integer(v) ? tokenizer_add_end(t, json_integer_value(v), err)
                                    : err_set(err, "%s: \"eos_token_id\": number %zu is no token id", path, i);
    json_decref(root);
    free(path);
    free(text);
    return rc;
}

int tokenizer_read_ends(struct tokenizer *t, struct err *err)
{
    struct tokenizer_ends found = t->ends; /* a GGUF's further ones */
    t->ends.n = 0;
    if (t->eos >= 0 && tokenizer_add_end(t, t->eos, err) != 0) /* the first */
        return -1;
    for (int i = 0; i < found.n; i++)
        if (tokenizer_add_end(t, found.id[i], err) != 0)
            return -1;
    return read_ends(t, "generation_config.json", err) == 0 ? read_ends(t, "config.json", err) : -1;
}

static int read_jinja(struct tokenizer *t, struct err *err)
{
    char *text = NULL;
    size_t n;
    int rc = tokenizer_read_file(&text, &n, t, "chat_template.jinja", err);
    if (rc == 0 && text) {
        t->chat_template = tokenizer_keep(t, text, n, err);
        rc = t->chat_template ? 0 : -1;
    }
    free(text);
    return rc;
}

int tokenizer_read_config(struct tokenizer *t, struct err *err)
{
    /* a template of its own file goes before the one in the config, as in transformers */
    if (read_jinja(t, err) != 0 || read_config(t, "tokenizer_config.json", err) != 0)
        return -1;
    return read_config(t, "special_tokens_map.json", err);
}

int tokenizer_set_paths(struct tokenizer *t, const char *path, struct err *err)
{
    const char *base = path_base(path);
    size_t n = (size_t)(base - path);
    if (t->n_files) /* inside of t->file */
        return 0;
    t->file = arena_strdup(&t->arena, path, err);
    t->dir = n == 0 ? "." : tokenizer_keep(t, path, n > 1 ? n - 1 : n, err);
    return t->file && t->dir ? 0 : -1;
}
