/* Writes a tokenizer as the files of a Hugging Face folder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/dir.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/tokenizer_impl.h"

/* What may belong to a tokenizer in a Hugging Face folder. */
static const char *const names[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "tokenizer.model",
};
enum { N_NAMES = sizeof names / sizeof *names };

bool tokenizer_has_file(const char *name)
{
    for (int i = 0; i < N_NAMES; i++)
        if (!strcmp(names[i], name))
            return true;
    return false;
}

/* Where the files go. */
struct receiver {
    tokenizer_sink *put;
    void *arg;
};

static int put_file(const struct receiver *to, const char *name, json_t *value, struct err *err)
{
    char *text = value ? json_pretty(value) : NULL;
    int rc = text ? to->put(to->arg, name, text, strlen(text), err) : err_set(err, "out of memory: %s", name);
    free(text);
    json_decref(value);
    return rc;
}

static json_t *token_text(const struct tokenizer *t, int32_t id)
{
    return json_stringn(t->tokens[id].text.s, t->tokens[id].text.n);
}

static json_t *vocab_json(const struct tokenizer *t)
{
    json_t *vocab = json_object();
    for (int32_t id = 0; id < t->n_tokens; id++)
        if (t->tokens[id].in_model)
            json_object_setn_new(vocab, t->tokens[id].text.s, t->tokens[id].text.n, json_integer(id));
    return vocab;
}

static json_t *merges_json(const struct tokenizer *t)
{
    json_t *merges = json_array();
    for (uint32_t i = 0; i < t->n_merges; i++)
        json_array_append_new(merges,
                              json_pack("[o, o]", token_text(t, t->merge_list[i].left), token_text(t, t->merge_list[i].right)));
    return merges;
}

static json_t *flags_json(const struct tokenizer *t, const struct added *a)
{
    return json_pack("{s:o, s:b, s:b, s:b, s:b, s:b}", "content", token_text(t, a->id), "single_word", a->single_word, "lstrip",
                     a->lstrip, "rstrip", a->rstrip, "normalized", a->normalized, "special", a->special);
}

static json_t *added_json(const struct tokenizer *t)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < t->n_added; i++) {
        json_t *item = json_pack("{s:i}", "id", t->added[i].id), *flags = flags_json(t, &t->added[i]);
        json_object_update(item, flags);
        json_decref(flags);
        json_array_append_new(list, item);
    }
    return list;
}

/* What puts BOS before a text. */
static json_t *bos_template(const struct tokenizer *t)
{
    const char *bos = t->tokens[t->bos].text.s;
    json_t *single =
        json_pack("[{s:{s:s, s:i}}, {s:{s:s, s:i}}]", "SpecialToken", "id", bos, "type_id", 0, "Sequence", "id", "A", "type_id", 0);
    json_t *pair = json_deep_copy(single);
    json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", bos, "type_id", 1));
    json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "B", "type_id", 1));
    json_t *special = json_pack("{s:{s:s, s:[i], s:[s]}}", bos, "id", bos, "ids", t->bos, "tokens", bos);
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair, "special_tokens",
                     special);
}

/* ByteLevel only moves offsets; a tokenizer that puts BOS before a text needs a template as well. */
static json_t *post_processor_json(const struct tokenizer *t)
{
    if (t->kind == PIECES)
        return tokenizer_adds_bos(t) ? bos_template(t) : json_null();
    json_t *bytes =
        json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0, "use_regex", 1);
    return tokenizer_adds_bos(t) ? json_pack("{s:s, s:[o, o]}", "type", "Sequence", "processors", bytes, bos_template(t)) : bytes;
}

static json_t *model_json(const struct tokenizer *t, json_t *merges)
{
    bool llama = t->kind == PIECES; /* without byte tokens, byte_fallback changes nothing */
    json_t *unk = llama && t->model_unk >= 0 ? token_text(t, t->model_unk) : json_null();
    return json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token", unk,
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", llama, "byte_fallback", llama, "ignore_merges",
                     t->ignore_merges, "vocab", vocab_json(t), "merges", merges);
}

static json_t *byte_level_json(const struct tokenizer *t)
{
    json_t *decoder =
        json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1);
    json_t *normalizer = t->n_forms ? json_pack("{s:s}", "type", "NFC") : json_null(); /* the only one a GGUF implies */
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:O, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding", "added_tokens",
                     added_json(t), "normalizer", normalizer, "pre_tokenizer", t->pre_tokenizer, "post_processor",
                     post_processor_json(t), "decoder", decoder, "model", model_json(t, merges_json(t)));
}

/* A normalizer puts the dummy prefix before each text between added tokens, and the decoder takes the first one back. */
static json_t *llama_json(const struct tokenizer *t, json_t *merges)
{
    static const char blank[] = "\xE2\x96\x81";
    json_t *decoders = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String", blank, "content",
                                 " ", "type", "ByteFallback", "type", "Fuse");
    json_t *normalizers = json_array();
    if (t->add_dummy_prefix) {
        json_array_append_new(decoders, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
        json_array_append_new(normalizers, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", blank));
    }
    json_array_append_new(normalizers,
                          json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content", blank));
    return json_pack("{s:s, s:n, s:n, s:o, s:{s:s, s:o}, s:n, s:o, s:{s:s, s:o}, s:o}", "version", "1.0", "truncation", "padding",
                     "added_tokens", added_json(t), "normalizer", "type", "Sequence", "normalizers", normalizers, "pre_tokenizer",
                     "post_processor", post_processor_json(t), "decoder", "type", "Sequence", "decoders", decoders, "model",
                     model_json(t, merges));
}

/* NULL and an error where the tokenizer has no such form. */
static json_t *tokenizer_json(const struct tokenizer *t, struct err *err)
{
    json_t *merges = NULL;
    if (t->kind == BYTE_LEVEL)
        return byte_level_json(t);
    return pieces_merges(&merges, t, err) == 0 ? llama_json(t, merges) : NULL;
}

/* Sets the special tokens there are in the way tokenizer_config.json and special_tokens_map.json share. */
static void set_specials(json_t *obj, const struct tokenizer *t)
{
    const struct {
        const char *key;
        int32_t id;
    } specials[] = {{"bos_token", t->bos}, {"eos_token", t->eos}, {"pad_token", t->pad}, {"unk_token", t->unk}};
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++)
        if (specials[i].id >= 0)
            json_object_set_new(obj, specials[i].key, token_text(t, specials[i].id));
}

static json_t *config_json(const struct tokenizer *t)
{
    json_t *decoder = json_object();
    for (uint32_t i = 0; i < t->n_added; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", t->added[i].id);
        json_object_set_new(decoder, id, flags_json(t, &t->added[i]));
    }
    json_t *config = json_pack("{s:s, s:b, s:b, s:o}", "tokenizer_class", "PreTrainedTokenizerFast", "clean_up_tokenization_spaces",
                               0, "add_bos_token", tokenizer_adds_bos(t), "added_tokens_decoder", decoder);
    if (t->kind == BYTE_LEVEL)
        json_object_set_new(config, "add_prefix_space", json_false());
    else
        json_object_set_new(config, "legacy", json_true()); /* a dummy prefix after special tokens too */
    set_specials(config, t);
    if (t->context_length > 0)
        json_object_set_new(config, "model_max_length", json_integer(t->context_length));
    if (t->chat_template)
        json_object_set_new(config, "chat_template", json_string(t->chat_template));
    return config;
}

static json_t *generation_json(const struct tokenizer *t)
{
    const struct {
        const char *key;
        int32_t id;
    } ids[] = {{"bos_token_id", t->bos}, {"eos_token_id", t->eos}, {"pad_token_id", t->pad}};
    json_t *config = json_object();
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i].id >= 0)
            json_object_set_new(config, ids[i].key, json_integer(ids[i].id));
    if (t->ends.n > 1) {
        json_t *ends = json_array();
        for (int i = 0; i < t->ends.n; i++)
            json_array_append_new(ends, json_integer(t->ends.id[i]));
        json_object_set_new(config, "eos_token_id", ends);
    }
    return config;
}

static int generate_files(const struct tokenizer *t, const struct receiver *to, struct err *err)
{
    json_t *map = json_object();
    set_specials(map, t);
    if (put_file(to, "special_tokens_map.json", map, err) != 0 ||
        put_file(to, "tokenizer.json", tokenizer_json(t, err), err) != 0 ||
        put_file(to, "tokenizer_config.json", config_json(t), err) != 0)
        return -1;
    return put_file(to, "generation_config.json", generation_json(t), err);
}

static int copy_file(const char *from, const struct receiver *to, const char *name, struct err *err)
{
    struct file_map map = {0};
    int rc = file_map(&map, from, err);
    if (rc == 0)
        rc = to->put(to->arg, name, map.data, map.size, err);
    file_unmap(&map);
    return rc;
}

static int copy_files(const struct tokenizer *t, const struct receiver *to, struct err *err)
{
    const char *own = t->kind == PIECES ? "tokenizer.model" : "tokenizer.json";
    if (copy_file(t->file, to, own, err) != 0)
        return -1;
    for (int i = 0; i < N_NAMES; i++) {
        if (!strcmp(names[i], own))
            continue;
        char *from = path_join(t->dir, names[i], err);
        int there = from ? path_status(from, err) : -1, rc = there > 0 ? copy_file(from, to, names[i], err) : there;
        free(from);
        if (rc != 0)
            return -1;
        if (!there && t->ends.n > 1 &&
            !strcmp(names[i], "generation_config.json") && /* config.json named them: they must not get lost */
            put_file(to, names[i], generation_json(t), err) != 0)
            return -1;
    }
    return 0;
}

int tokenizer_files(const struct tokenizer *t, tokenizer_sink *sink, void *arg, struct err *err)
{
    const struct receiver to = {sink, arg};
    for (int64_t i = 0; i < t->n_files; i++)
        if (sink(arg, t->files[i].name, t->files[i].data, t->files[i].n, err) != 0)
            return -1;
    if (t->n_files)
        return 0;
    return t->dir ? copy_files(t, &to, err) : generate_files(t, &to, err);
}

static int to_folder(void *dir, const char *name, const void *data, size_t n, struct err *err)
{
    char *path = path_join(dir, name, err);
    int rc = path ? file_write(path, data, n, err) : -1;
    free(path);
    return rc;
}

int tokenizer_save(const struct tokenizer *t, const char *dir, struct err *err)
{
    return dir_make(dir, err) == 0 ? tokenizer_files(t, to_folder, (void *)dir, err) : -1;
}
