/* Reads tokenizer.json. Format: the serialisation of Hugging Face's tokenizers library. */
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/tokenizer_impl.h"

/* ---- model ---- */

static int check_model(struct tokenizer *t, const json_t *model, struct err *err)
{
    const char *type = "BPE", *prefix = "", *suffix = "";
    double dropout = 0;
    bool fallback = false;
    if (!json_is_object(model))
        return err_set(err, "%s: no \"model\" object: not a tokenizer.json", t->file);
    if (json_get_string(&type, model, "type", t->file, err) != 0 ||
        json_get_bool(&fallback, model, "byte_fallback", t->file, err) != 0 ||
        json_get_string(&prefix, model, "continuing_subword_prefix", t->file, err) != 0 ||
        json_get_string(&suffix, model, "end_of_word_suffix", t->file, err) != 0 ||
        json_get_real(&dropout, model, "dropout", t->file, err) != 0)
        return -1;
    if (strcmp(type, "BPE"))
        return err_set(err, "%s: model \"%s\" is not supported: BPE expected", t->file, type);
    t->kind = fallback ? CHARACTERS : BYTE_LEVEL;
    if (*prefix || *suffix)
        return err_set(err, "%s: a BPE with %s is not supported", t->file,
                       *prefix ? "continuing_subword_prefix" : "end_of_word_suffix");
    if (dropout != 0)
        return err_set(err, "%s: a BPE with dropout is not supported", t->file);
    return 0;
}

static int largest_id(int64_t *out, const struct tokenizer *t, json_t *vocab, const json_t *added, struct err *err)
{
    int64_t largest = -1;
    const char *text;
    json_t *value;
    size_t i;
    if (!json_is_object(vocab))
        return err_set(err, "%s: \"model\".\"vocab\" must be an object", t->file);
    json_object_foreach(vocab, text, value) {
        if (!json_is_integer(value))
            return err_set(err, "%s: the id of token \"%s\" must be a whole number", t->file, text);
        if (json_integer_value(value) > largest)
            largest = json_integer_value(value);
    }
    json_array_foreach(added, i, value) {
        if (!json_is_integer(json_object_get(value, "id")) || !json_is_string(json_object_get(value, "content")))
            return err_set(err, "%s: \"added_tokens\"[%zu] must have a whole number \"id\" and a string \"content\"", t->file, i);
        if (json_integer_value(json_object_get(value, "id")) > largest)
            largest = json_integer_value(json_object_get(value, "id"));
    }
    *out = largest < TOKENIZER_MAX_IDS ? largest : TOKENIZER_MAX_IDS; /* past the limit is refused by vocab_reserve */
    return 0;
}

static int read_added(struct tokenizer *t, const json_t *item, struct err *err)
{
    const json_t *content = json_object_get(item, "content");
    int64_t id = json_integer_value(json_object_get(item, "id"));
    const char *s = json_string_value(content);
    size_t n = json_string_length(content);
    struct added a = {0};
    if (json_get_bool(&a.special, item, "special", t->file, err) != 0 ||
        json_get_bool(&a.lstrip, item, "lstrip", t->file, err) != 0 || json_get_bool(&a.rstrip, item, "rstrip", t->file, err) != 0)
        return -1;
    a.normalized = !a.special; /* the library's default */
    if (json_get_bool(&a.normalized, item, "normalized", t->file, err) != 0 ||
        json_get_bool(&a.single_word, item, "single_word", t->file, err) != 0)
        return -1;
    int32_t known = vocab_find(t, s, n);
    if (known >= 0 && known != id)
        return err_set(err, "%s: added token \"%s\" has the id %lld but is number %d of the vocabulary", t->file, s, (long long)id,
                       known);
    if (known < 0 && vocab_set(t, id, s, n, false, err) != 0)
        return -1;
    a.id = (int32_t)id;
    return added_add(t, &a, err);
}

static int read_vocab(struct tokenizer *t, const json_t *model, const json_t *added, struct err *err)
{
    json_t *vocab = json_object_get(model, "vocab");
    const char *text, *unk = NULL;
    json_t *value;
    size_t i;
    int64_t largest = -1;
    if (added && !json_is_null(added) && !json_is_array(added))
        return err_set(err, "%s: \"added_tokens\" must be an array", t->file);
    if (largest_id(&largest, t, vocab, added, err) != 0 || vocab_reserve(t, largest + 1, err) != 0 ||
        added_reserve(t, json_array_size(added), err) != 0)
        return -1;
    json_object_foreach(vocab, text, value)
        if (vocab_set(t, json_integer_value(value), text, strlen(text), true, err) != 0)
            return -1;
    json_array_foreach(added, i, value)
        if (read_added(t, value, err) != 0)
            return -1;
    if (json_get_string(&unk, model, "unk_token", t->file, err) != 0 ||
        json_get_bool(&t->fuse_unk, model, "fuse_unk", t->file, err) != 0 ||
        json_get_bool(&t->ignore_merges, model, "ignore_merges", t->file, err) != 0)
        return -1;
    if (unk)
        t->model_unk = t->unk = vocab_find(t, unk, strlen(unk));
    return unk && t->unk < 0 ? err_set(err, "%s: the vocabulary lacks the unknown token \"%s\"", t->file, unk) : 0;
}

/* A merge is "left right", or ["left", "right"] since tokenizers 0.20. */
static int read_merge(struct tokenizer *t, const json_t *item, struct err *err)
{
    struct span left, right;
    const char *s = json_string_value(item);
    if (s) {
        size_t n = json_string_length(item);
        const char *space = memchr(s, ' ', n);
        if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - s)))
            return err_set(err, "%s: merge %u \"%s\": two tokens with a space between them expected", t->file, t->n_merges, s);
        left = (struct span){s, (size_t)(space - s)};
        right = (struct span){space + 1, n - left.n - 1};
    } else {
        const json_t *a = json_array_get(item, 0), *b = json_array_get(item, 1);
        if (json_array_size(item) != 2 || !json_is_string(a) || !json_is_string(b))
            return err_set(err, "%s: merge %u must be a string or a pair of strings", t->file, t->n_merges);
        left = (struct span){json_string_value(a), json_string_length(a)};
        right = (struct span){json_string_value(b), json_string_length(b)};
    }
    return merges_add(t, left, right, err);
}

static int read_merges(struct tokenizer *t, const json_t *merges, struct err *err)
{
    const json_t *item;
    size_t i;
    if (!json_is_array(merges))
        return err_set(err, "%s: \"model\".\"merges\" must be an array", t->file);
    if (merges_reserve(t, json_array_size(merges), err) != 0)
        return -1;
    json_array_foreach(merges, i, item)
        if (read_merge(t, item, err) != 0)
            return -1;
    return 0;
}

/* ---- around the model ---- */

/* Whether the post-processor puts a token before a single text: the convention of tokenizers like Llama 3's. */
static bool template_adds_bos(const json_t *post)
{
    const json_t *item;
    size_t i;
    json_array_foreach(json_object_get(post, "processors"), i, item)
        if (!strcmp(type_member(item), "TemplateProcessing") && template_adds_bos(item))
            return true;
    return json_object_get(json_array_get(json_object_get(post, "single"), 0), "SpecialToken") != NULL;
}

static int read_root(struct tokenizer *t, const json_t *root, struct err *err)
{
    const json_t *model = json_object_get(root, "model");
    if (check_model(t, model, err) != 0 || normalizer_from_json(t, json_object_get(root, "normalizer"), err) != 0 ||
        pre_tokenizer_from_json(t, json_object_get(root, "pre_tokenizer"), err) != 0 ||
        decoder_from_json(t, json_object_get(root, "decoder"), err) != 0 ||
        read_vocab(t, model, json_object_get(root, "added_tokens"), err) != 0 ||
        read_merges(t, json_object_get(model, "merges"), err) != 0)
        return -1;
    t->adds_bos = template_adds_bos(json_object_get(root, "post_processor"));
    return vocab_finish(t, err);
}

/* A special token's usual name in the LLaMA family, where no file beside says which it is. */
static void default_special(int32_t *id, const struct tokenizer *t, const char *text)
{
    int32_t found = *id < 0 ? vocab_find(t, text, strlen(text)) : -1;
    if (found >= 0 && t->tokens[found].added)
        *id = found;
}

int tokenizer_from_json(struct tokenizer *t, const char *path, struct err *err)
{
    if (tokenizer_set_paths(t, path, err) != 0)
        return -1;
    char *text = NULL;
    size_t n = 0;
    if (t->n_files && tokenizer_read_file(&text, &n, t, path_base(path), err) != 0)
        return -1;
    json_t *root = text ? json_parse(text, n, t->file, err) : json_read(t->file, err);
    free(text);
    if (!root)
        return -1;
    int rc = read_root(t, root, err);
    json_decref(root);
    if (rc != 0 || tokenizer_read_config(t, err) != 0)
        return -1;
    if (t->kind == CHARACTERS) {
        default_special(&t->bos, t, "<s>");
        default_special(&t->eos, t, "</s>");
    }
    return 0;
}
