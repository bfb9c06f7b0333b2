/* Reads tokenizer.json and the files beside it. Format: the serialisation of Hugging Face's tokenizers library. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/tokenizer_impl.h"

static const char *type_of(const json_t *obj)
{
    const char *type = json_string_value(json_object_get(obj, "type"));
    return type ? type : "(no type)";
}

/* ---- pre_tokenizer ---- */

static int add_split(struct tokenizer *t, const json_t *pre, struct err *err)
{
    static const char *const rules[] = {
        [SPLIT_ISOLATED] = "Isolated",        [SPLIT_REMOVED] = "Removed",       [SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_WITH_NEXT] = "MergedWithNext", [SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const char *behavior = NULL;
    bool invert = false;
    if (json_get_string(&behavior, pre, "behavior", t->file, err) != 0 || json_get_bool(&invert, pre, "invert", t->file, err) != 0)
        return -1;
    size_t rule = 0;
    while (rule < sizeof rules / sizeof *rules && (!behavior || strcmp(behavior, rules[rule])))
        rule++;
    if (rule == sizeof rules / sizeof *rules)
        return err_set(err, "%s: pre_tokenizer Split: unknown behavior \"%s\"", t->file, behavior ? behavior : "");
    const json_t *pattern = json_object_get(pre, "pattern"), *regex = json_object_get(pattern, "Regex");
    const json_t *literal = json_object_get(pattern, "String");
    if (json_is_string(regex))
        return split_add_step(t, json_string_value(regex), json_string_length(regex), (enum split_rule)rule, invert, err);
    if (!json_is_string(literal) || json_string_length(literal) == 0)
        return err_set(err, "%s: pre_tokenizer Split: pattern must be {\"Regex\": ...} or a non-empty {\"String\": ...}", t->file);
    const char *s = json_string_value(literal);
    size_t n = json_string_length(literal), n_escaped = 0;
    char *escaped = malloc(2 * n);
    if (!escaped)
        return err_set(err, "out of memory");
    for (size_t i = 0; i < n; i++) {
        if (s[i] && strchr("\\^$.|?*+()[]{}&#-", s[i]))
            escaped[n_escaped++] = '\\';
        escaped[n_escaped++] = s[i];
    }
    int rc = split_add_step(t, escaped, n_escaped, (enum split_rule)rule, invert, err);
    free(escaped);
    return rc;
}

static int add_byte_level(struct tokenizer *t, const json_t *pre, struct err *err)
{
    bool prefix = true, regex = true; /* the library's defaults */
    if (json_get_bool(&prefix, pre, "add_prefix_space", t->file, err) != 0 ||
        json_get_bool(&regex, pre, "use_regex", t->file, err) != 0)
        return -1;
    if (prefix && split_add_step(t, NULL, 0, SPLIT_ISOLATED, false, err) != 0)
        return -1;
    const char *pattern = tokenizer_gpt2_pattern;
    return regex ? split_add_step(t, pattern, strlen(pattern), SPLIT_ISOLATED, false, err) : 0;
}

static int add_pre_tokenizer(struct tokenizer *t, const json_t *pre, bool last, struct err *err)
{
    const char *type = type_of(pre);
    if (!strcmp(type, "ByteLevel")) {
        if (!last)
            return err_set(err, "%s: pre_tokenizer: ByteLevel must come last", t->file);
        return add_byte_level(t, pre, err);
    }
    if (last)
        return err_set(err, "%s: pre_tokenizer \"%s\": only byte-level BPE is supported, whose last step is ByteLevel", t->file,
                       type);
    if (!strcmp(type, "Split"))
        return add_split(t, pre, err);
    if (!strcmp(type, "Digits")) {
        bool each = false;
        if (json_get_bool(&each, pre, "individual_digits", t->file, err) != 0)
            return -1;
        return split_add_step(t, "\\p{N}", 5, each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false, err);
    }
    return err_set(err, "%s: pre_tokenizer \"%s\" is not supported", t->file, type);
}

int pre_tokenizer_from_json(struct tokenizer *t, const json_t *pre, struct err *err)
{
    if (strcmp(type_of(pre), "Sequence"))
        return add_pre_tokenizer(t, pre, true, err);
    const json_t *list = json_object_get(pre, "pretokenizers");
    size_t n = json_array_size(list);
    if (n == 0)
        return err_set(err, "%s: pre_tokenizer Sequence: \"pretokenizers\" must be a non-empty array", t->file);
    for (size_t i = 0; i < n; i++)
        if (add_pre_tokenizer(t, json_array_get(list, i), i + 1 == n, err) != 0)
            return -1;
    return 0;
}

/* ---- normalizer ---- */

static int add_normalizer(struct tokenizer *t, const json_t *normalizer, struct err *err)
{
    static const struct {
        const char *type;
        int form;
    } forms[] = {
        {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
        {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
        {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
        {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
    };
    const char *type = type_of(normalizer);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(type, forms[i].type))
            continue;
        if (t->n_forms == TOKENIZER_MAX_FORMS)
            return err_set(err, "%s: more than %d normalizers", t->file, TOKENIZER_MAX_FORMS);
        t->forms[t->n_forms++] = forms[i].form;
        return 0;
    }
    return err_set(err, "%s: normalizer \"%s\" is not supported", t->file, type);
}

static int read_normalizer(struct tokenizer *t, const json_t *normalizer, struct err *err)
{
    if (!normalizer || json_is_null(normalizer))
        return 0;
    if (strcmp(type_of(normalizer), "Sequence"))
        return add_normalizer(t, normalizer, err);
    const json_t *list = json_object_get(normalizer, "normalizers"), *item;
    if (!json_is_array(list))
        return err_set(err, "%s: normalizer Sequence: \"normalizers\" must be an array", t->file);
    size_t i;
    json_array_foreach(list, i, item)
        if (add_normalizer(t, item, err) != 0)
            return -1;
    return 0;
}

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
    if (fallback)
        return err_set(err, "%s: a BPE with byte_fallback (the LLaMA kind) is not supported yet: byte-level BPE expected", t->file);
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
        if (!strcmp(type_of(item), "TemplateProcessing") && template_adds_bos(item))
            return true;
    return json_object_get(json_array_get(json_object_get(post, "single"), 0), "SpecialToken") != NULL;
}

static int check_decoder(const struct tokenizer *t, const json_t *decoder, struct err *err)
{
    if (!decoder || json_is_null(decoder) || !strcmp(type_of(decoder), "ByteLevel"))
        return 0;
    return err_set(err, "%s: decoder \"%s\" is not supported: ByteLevel expected", t->file, type_of(decoder));
}

static int read_root(struct tokenizer *t, const json_t *root, struct err *err)
{
    const json_t *model = json_object_get(root, "model");
    if (check_model(t, model, err) != 0 || read_normalizer(t, json_object_get(root, "normalizer"), err) != 0 ||
        pre_tokenizer_from_json(t, json_object_get(root, "pre_tokenizer"), err) != 0 ||
        check_decoder(t, json_object_get(root, "decoder"), err) != 0 ||
        read_vocab(t, model, json_object_get(root, "added_tokens"), err) != 0 ||
        read_merges(t, json_object_get(model, "merges"), err) != 0)
        return -1;
    t->adds_bos = template_adds_bos(json_object_get(root, "post_processor"));
    return vocab_finish(t, err);
}

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

static int read_config(struct tokenizer *t, const char *name, struct err *err)
{
    int rc = -1;
    json_t *config = NULL;
    char *path = path_join(t->dir, name, err);
    if (!path)
        return -1;
    if (!path_exists(path)) {
        rc = 0;
        goto done;
    }
    config = json_read(path, err);
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
    free(path);
    return rc;
}

static int read_jinja(struct tokenizer *t, struct err *err)
{
    char *text = NULL, *path = path_join(t->dir, "chat_template.jinja", err);
    size_t n;
    int rc = path ? 0 : -1;
    if (rc == 0 && path_exists(path)) {
        rc = file_read(&text, &n, path, err);
        if (rc == 0) {
            t->chat_template = tokenizer_keep(t, text, n, err);
            rc = t->chat_template ? 0 : -1;
            free(text);
        }
    }
    free(path);
    return rc;
}

/* Sets t->file and t->dir for a folder or a tokenizer.json. */
static int set_paths(struct tokenizer *t, const char *path, struct err *err)
{
    if (!path_is_dir(path)) {
        const char *base = path_base(path);
        t->file = arena_strdup(&t->arena, path, err);
        t->dir = base == path ? "." : tokenizer_keep(t, path, (size_t)(base - path), err);
        return t->file && t->dir ? 0 : -1;
    }
    char *json = path_join(path, "tokenizer.json", err), *spm = path_join(path, "tokenizer.model", err);
    int rc = -1;
    if (!json || !spm)
        goto done;
    if (!path_exists(json)) {
        err_set(err,
                path_exists(spm) ? "%s: only a tokenizer.model, which is not supported yet: tokenizer.json expected"
                                 : "%s: no tokenizer.json in this folder",
                path);
        goto done;
    }
    t->file = arena_strdup(&t->arena, json, err);
    t->dir = arena_strdup(&t->arena, path, err);
    rc = t->file && t->dir ? 0 : -1;
done:
    free(spm);
    free(json);
    return rc;
}

int tokenizer_from_json(struct tokenizer *t, const char *path, struct err *err)
{
    if (set_paths(t, path, err) != 0)
        return -1;
    json_t *root = json_read(t->file, err);
    if (!root)
        return -1;
    int rc = read_root(t, root, err);
    json_decref(root);
    if (rc != 0)
        return -1;
    /* a template of its own file goes before the one in the config, as in transformers */
    if (read_jinja(t, err) != 0 || read_config(t, "tokenizer_config.json", err) != 0)
        return -1;
    return read_config(t, "special_tokens_map.json", err);
}
