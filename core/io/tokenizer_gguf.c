/* Reads a byte-level BPE or a SentencePiece BPE from GGUF metadata ("tokenizer.ggml.*"). Keys: ggml's docs/gguf.md; what a "pre"
 * name stands for: llama.cpp's vocabulary loader, which defines the names. */
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "core/io/gguf.h"
#include "core/io/source.h"
#include "core/io/tokenizer_impl.h"

static const char llama3_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const struct pre_kind tokenizer_pre_kinds[] = {
    {.names = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"},
     .patterns = {"\\p{N}", tokenizer_gpt2_pattern}},
    {.names = {"gpt-2", "mpt", "olmo", "phi-2", "jais"}, .patterns = {tokenizer_gpt2_pattern}},
    {.names = {"llama-bpe", "llama3", "llama-v3"}, .patterns = {llama3_pattern}, .ignore_merges = true, .adds_bos = true},
    {.names = {"dbrx", "smaug-bpe"}, .patterns = {llama3_pattern}},
    /* its tokenizer.json has the NFC normalizer; llama.cpp leaves that out */
    {.names = {"qwen2", "deepseek-r1-qwen"}, .patterns = {qwen2_pattern}, .nfc = true},
    {.names = {"default"}, .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", tokenizer_gpt2_pattern, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = {NULL}},
};

static const struct pre_kind *find_kind(struct gguf_string name)
{
    for (const struct pre_kind *k = tokenizer_pre_kinds; k->names[0]; k++)
        for (int i = 0; i < 8 && k->names[i]; i++)
            if (strlen(k->names[i]) == name.n && !memcmp(k->names[i], name.s, name.n))
                return k;
    return NULL;
}

/* The steps go through tokenizer.json's form, so that what is saved is what is used. */
static int set_pre_tokenizer(struct tokenizer *t, const struct pre_kind *kind, struct err *err)
{
    json_t *list = json_array();
    for (int i = 0; i < 5 && kind->patterns[i]; i++)
        json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", kind->patterns[i],
                                              "behavior", "Isolated", "invert", 0));
    json_array_append_new(
        list, json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 0));
    t->pre_tokenizer = json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
    if (!t->pre_tokenizer)
        return err_set(err, "out of memory");
    return pre_tokenizer_from_json(t, t->pre_tokenizer, err);
}

static int read_pre(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    struct gguf_string pre = {"default", 7};
    if (!gguf_text(&pre, g, "tokenizer.ggml.pre") && gguf_find(g, "tokenizer.ggml.pre"))
        return err_set(err, "%s: tokenizer.ggml.pre must be a string", t->file);
    const struct pre_kind *kind = find_kind(pre);
    if (!kind)
        return err_set(err, "%s: unknown tokenizer.ggml.pre \"%.*s\"", t->file, (int)pre.n, pre.s);
    t->ignore_merges = kind->ignore_merges;
    t->adds_bos = kind->adds_bos;
    if (kind->nfc)
        t->forms[t->n_forms++] = (struct form){.kind = FORM_UNICODE, .options = UTF8PROC_STABLE | UTF8PROC_COMPOSE};
    return set_pre_tokenizer(t, kind, err);
}

static int read_kind(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    struct gguf_string model;
    bool said = gguf_text(&model, g, "tokenizer.ggml.model");
    t->absent = !said || (model.n == 8 && !memcmp(model.s, "no_vocab", 8)) || (model.n == 4 && !memcmp(model.s, "none", 4));
    if (t->absent)
        return err_set(err, "%s: no tokenizer in this file: tokenizer.ggml.model is %s", t->file, said ? "none" : "missing");

    if (model.n == 4 && !memcmp(model.s, "gpt2", 4)) {
        if (read_pre(t, g, err) != 0)
            return -1;
    } else if (model.n == 5 && !memcmp(model.s, "llama", 5)) {
        t->kind = PIECES;
        t->adds_bos = t->add_dummy_prefix = t->escape_whitespaces = true;
        t->unk_surface = " \xE2\x81\x87 ";
        gguf_bool(&t->add_dummy_prefix, g, "tokenizer.ggml.add_space_prefix");
    } else {
        return err_set(err,
                       "%s: tokenizer.ggml.model \"%.*s\" is not supported: gpt2 (byte-level BPE) or llama (SentencePiece) "
                       "expected",
                       t->file, (int)model.n, model.s);
    }
    gguf_bool(&t->adds_bos, g, "tokenizer.ggml.add_bos_token");
    return 0;
}

/* An array of strings under a key, or NULL and an error. */
static const struct gguf_value *find_strings(const struct tokenizer *t, const struct gguf *g, const char *key, struct err *err)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (v && v->type == GGUF_ARRAY && v->element_type == GGUF_STRING)
        return v;
    err_set(err, v ? "%s: %s must be an array of strings" : "%s: %s is missing", t->file, key);
    return NULL;
}

static bool is_integer_type(enum gguf_type type)
{
    return type == GGUF_I32 || type == GGUF_U32 || type == GGUF_I64 || type == GGUF_U64 || type == GGUF_I16 || type == GGUF_U16 ||
           type == GGUF_I8 || type == GGUF_U8;
}

/* The tokens of a type that is looked for in the text. */
static int add_special(struct tokenizer *t, size_t n, struct err *err)
{
    if (added_reserve(t, n, err) != 0)
        return -1;
    for (int32_t id = 0; id < t->n_tokens; id++) {
        enum token_type type = t->tokens[id].type;
        struct added a = {.id = id, .special = type != TYPE_USER_DEFINED};
        if (type >= TYPE_UNKNOWN && type <= TYPE_USER_DEFINED && added_add(t, &a, err) != 0)
            return -1;
    }
    return 0;
}

static int read_tokens(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    const struct gguf_value *tokens = find_strings(t, g, "tokenizer.ggml.tokens", err);
    if (!tokens)
        return -1;
    const struct gguf_value *types = gguf_find(g, "tokenizer.ggml.token_type");
    if (types && (types->type != GGUF_ARRAY || !is_integer_type(types->element_type) || types->count != tokens->count))
        return err_set(err, "%s: tokenizer.ggml.token_type must be an array of %llu integers", t->file,
                       (unsigned long long)tokens->count);
    int64_t n = tokens->count <= TOKENIZER_MAX_IDS ? (int64_t)tokens->count : TOKENIZER_MAX_IDS + 1;
    if (vocab_reserve(t, n, err) != 0)
        return -1;
    size_t n_added = 0;
    for (int64_t id = 0; id < n; id++) {
        const struct gguf_string *s = &tokens->strings[id];
        if (vocab_set(t, id, s->s, s->n, true, err) != 0)
            return -1;
        int64_t type = types ? gguf_array_int(types, (uint64_t)id) : 0;
        t->tokens[id].type = (enum token_type)(type > 0 && type <= TYPE_BYTE ? type : 0);
        t->byte_fallback |= type == TYPE_BYTE;
        n_added += type >= TYPE_UNKNOWN && type <= TYPE_USER_DEFINED;
    }
    return add_special(t, n_added, err);
}

static int read_merges(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    const struct gguf_value *merges = find_strings(t, g, "tokenizer.ggml.merges", err);
    if (!merges || merges_reserve(t, merges->count, err) != 0)
        return -1;
    for (uint64_t i = 0; i < merges->count; i++) {
        const struct gguf_string *s = &merges->strings[i];
        const char *space = s->n ? memchr(s->s, ' ', s->n) : NULL;
        if (!space)
            return err_set(err, "%s: merge %llu \"%.*s\": two tokens with a space between them expected", t->file,
                           (unsigned long long)i, (int)s->n, s->s);
        struct span left = {s->s, (size_t)(space - s->s)}, right = {space + 1, s->n - left.n - 1};
        if (merges_add(t, left, right, err) != 0)
            return -1;
    }
    return 0;
}

static int read_scores(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    const struct gguf_value *scores = gguf_find(g, "tokenizer.ggml.scores");
    if (!scores || scores->type != GGUF_ARRAY || scores->element_type != GGUF_F32 || scores->count != (uint64_t)t->n_tokens)
        return err_set(err, "%s: tokenizer.ggml.scores must be an array of %d 32-bit floats", t->file, t->n_tokens);
    for (int32_t id = 0; id < t->n_tokens; id++)
        memcpy(&t->tokens[id].score, scores->data + sizeof(float) * (size_t)id, sizeof(float));
    return gguf_find(g, "tokenizer.ggml.token_type") ? 0 : err_set(err, "%s: tokenizer.ggml.token_type is missing", t->file);
}

static int read_id(int32_t *out, const struct tokenizer *t, const struct gguf *g, const char *key, struct err *err)
{
    int64_t id;
    if (!gguf_find(g, key))
        return 0;
    if (!gguf_int(&id, g, key) || id < -1 || id >= t->n_tokens)
        return err_set(err, "%s: %s must be an id below %d", t->file, key, t->n_tokens);
    *out = (int32_t)id;
    return 0;
}

static int read_rest(struct tokenizer *t, const struct gguf *g, struct err *err)
{
    if (read_id(&t->bos, t, g, "tokenizer.ggml.bos_token_id", err) != 0 ||
        read_id(&t->eos, t, g, "tokenizer.ggml.eos_token_id", err) != 0 ||
        read_id(&t->unk, t, g, "tokenizer.ggml.unknown_token_id", err) != 0 ||
        read_id(&t->pad, t, g, "tokenizer.ggml.padding_token_id", err) != 0)
        return -1;
    static const char *const ends[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int32_t id = -1;
        if (read_id(&id, t, g, ends[i], err) != 0)
            return -1;
        if (id >= 0 && tokenizer_add_end(t, id, err) != 0)
            return -1;
    }
    struct gguf_string s;
    if (gguf_text(&s, g, "tokenizer.chat_template")) {
        t->chat_template = tokenizer_keep(t, s.s, s.n, err);
        if (!t->chat_template)
            return -1;
    }
    char key[128];
    if (gguf_text(&s, g, "general.architecture") && s.n < 64) {
        snprintf(key, sizeof key, "%.*s.context_length", (int)s.n, s.s);
        gguf_int(&t->context_length, g, key);
    }
    return 0;
}

static int finish_pieces(struct tokenizer *t, struct err *err)
{
    return pieces_finish(t, err) != 0 ? -1 : added_finish(t, err);
}

int tokenizer_from_gguf(struct tokenizer *t, const char *path, struct err *err)
{
    struct source s;
    t->file = arena_strdup(&t->arena, path, err);
    if (!t->file || source_open(&s, path, err) != 0)
        return -1;
    int rc = -1;
    if (!s.gguf)
        err_set(err, "%s: not a GGUF file", path);
    else if (read_kind(t, s.gguf, err) == 0 && read_tokens(t, s.gguf, err) == 0 &&
             (t->kind == PIECES ? read_scores : read_merges)(t, s.gguf, err) == 0 && read_rest(t, s.gguf, err) == 0)
        rc = t->kind == PIECES ? finish_pieces(t, err) : vocab_finish(t, err);
    source_close(&s);
    return rc;
}
