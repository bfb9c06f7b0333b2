/* Writes a tokenizer as the metadata of a GGUF. Keys: ggml's docs/gguf.md; what llama.cpp does with them decides what can be
 * said. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/gguf_write.h"
#include "core/io/tokenizer_impl.h"

static const char blank[] = "\xE2\x96\x81";

static int refuse(const struct tokenizer *t, const char *why, struct err *err)
{
    return err_set(err, "%s: the tokenizer cannot be written to a GGUF: %s", t->file, why);
}

/* ---- from a GGUF: the keys as they are ---- */

static int copy_keys(const struct tokenizer *t, struct gguf_writer *w, int64_t vocab_size, struct err *err)
{
    struct source s;
    if (source_open(&s, t->file, err) != 0)
        return -1;
    int rc = 0;
    for (uint64_t i = 0; s.gguf && i < s.gguf->n_values; i++) {
        const struct gguf_value *v = &s.gguf->values[i];
        if (v->key.n > 10 && !memcmp(v->key.s, "tokenizer.", 10))
            gguf_put_value(w, v, NULL, 0);
    }
    if (t->n_tokens != vocab_size)
        rc = err_set(err, "%s: its vocabulary has %d tokens, the model's embedding %lld", t->file, t->n_tokens,
                     (long long)vocab_size);
    source_close(&s);
    return rc;
}

/* ---- byte-level BPE: llama.cpp knows ways to split a text by name only ---- */

/* The patterns that a pre-tokenizer applies in turn, added to list[*n]; false where it does something else as well. */
static bool collect_patterns(const char *list[5], int *n, const json_t *pre)
{
    const char *type = type_member(pre), *pattern = NULL;
    const json_t *item;
    size_t i;
    if (!strcmp(type, "Sequence")) {
        json_array_foreach(json_object_get(pre, "pretokenizers"), i, item)
            if (!collect_patterns(list, n, item))
                return false;
        return true;
    }
    if (!strcmp(type, "Split")) {
        const char *behavior = json_string_value(json_object_get(pre, "behavior"));
        pattern = json_string_value(json_object_get(json_object_get(pre, "pattern"), "Regex"));
        if (!pattern || !behavior || strcmp(behavior, "Isolated") || json_is_true(json_object_get(pre, "invert")))
            return false;
    } else if (!strcmp(type, "Digits") && json_is_true(json_object_get(pre, "individual_digits"))) {
        pattern = "\\p{N}";
    } else if (!strcmp(type, "ByteLevel") && json_is_false(json_object_get(pre, "add_prefix_space"))) {
        if (json_is_false(json_object_get(pre, "use_regex")))
            return true;
        pattern = tokenizer_gpt2_pattern;
    }
    if (!pattern || *n == 5)
        return false;
    list[(*n)++] = pattern;
    return true;
}

static bool is_kind(const struct pre_kind *k, const char *const list[5], int n, bool ignore_merges, bool nfc)
{
    int i = 0;
    while (i < n && k->patterns[i] && !strcmp(k->patterns[i], list[i]))
        i++;
    return i == n && (i == 5 || !k->patterns[i]) && k->ignore_merges == ignore_merges && k->nfc == nfc;
}

static int put_pre(const struct tokenizer *t, struct gguf_writer *w, struct err *err)
{
    const char *list[5];
    int n = 0, rc = -1;
    char *text;
    size_t bytes;
    bool nfc = t->n_forms == 1 && t->forms[0].kind == FORM_UNICODE && t->forms[0].options == (UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (tokenizer_read_file(&text, &bytes, t, t->n_files ? "tokenizer.json" : path_base(t->file), err) != 0)
        return -1;
    json_t *root = text ? json_parse(text, bytes, t->file, err) : NULL;
    const struct pre_kind *k = tokenizer_pre_kinds;
    if (root && (t->n_forms == 0 || nfc) && collect_patterns(list, &n, json_object_get(root, "pre_tokenizer")))
        while (k->names[0] && !is_kind(k, list, n, t->ignore_merges, nfc))
            k++;
    else
        k = NULL;
    if (k && k->names[0]) {
        gguf_put_text(w, "tokenizer.ggml.pre", k->names[0], strlen(k->names[0]));
        rc = 0;
    } else {
        refuse(t, "its way of splitting a text is none that GGUF has a name for (of those known here)", err);
    }
    json_decref(root);
    free(text);
    return rc;
}

static int put_merges(const struct tokenizer *t, struct gguf_writer *w, struct err *err)
{
    struct token *tokens = t->tokens;
    gguf_put_array(w, "tokenizer.ggml.merges", GGUF_STRING, t->n_merges);
    for (uint32_t i = 0; i < t->n_merges; i++) {
        const struct span a = tokens[t->merge_list[i].left].text, b = tokens[t->merge_list[i].right].text;
        char *both;
        int n = asprintf(&both, "%.*s %.*s", (int)a.n, a.s, (int)b.n, b.s);
        if (n < 0)
            return err_set(err, "out of memory");
        gguf_add_text(w, both, (size_t)n);
        free(both);
    }
    return 0;
}

/* ---- LLaMA's kinds: pieces with scores, the pair that makes the piece of the highest score is merged first ---- */

static bool is_blanks(struct span text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.s[i] != blank[i % 3])
            return false;
    return true;
}

/* Merges by rank as scores: what makes one piece must be of neighbouring ranks, and each way to cut a piece in two must be a merge,
 * since llama.cpp would merge it. LLaMA's runs of blanks share one score below all others; their merges come last, in an order that
 * gives the same (which is seen when the file is read back). */
static int scores_of_merges(float *score, const struct tokenizer *t, struct err *err)
{
    int32_t last = -1;
    int64_t group = 0;
    bool runs = false; /* of blanks: nothing else comes behind them */
    for (int32_t id = 0; id < t->n_tokens; id++)
        score[id] = 1;
    for (uint32_t i = 0; i < t->n_merges; i++) {
        const struct merge *listed = &t->merge_list[i], *m = merges_find(t, listed->left, listed->right);
        if (!m || m->result == last)
            continue;
        last = m->result;
        bool run = is_blanks(t->tokens[last].text);
        if (!run && (score[last] <= 0 || runs))
            return refuse(t, "its merges follow no order of pieces", err);
        runs |= run;
        score[last] = run ? -1e9f : -(float)group++;
    }
    for (int32_t id = 0; id < t->n_tokens; id++) {
        const struct span text = t->tokens[id].text;
        bool merged = score[id] <= 0;
        for (size_t at = 1; t->tokens[id].in_model && t->tokens[id].byte < 0 && at < text.n; at++) {
            int32_t a = vocab_find(t, text.s, at), b = vocab_find(t, text.s + at, text.n - at);
            if (a >= 0 && b >= 0 && t->tokens[a].in_model && t->tokens[b].in_model && !merges_find(t, a, b))
                return refuse(t, "a pair of its pieces that makes another is no merge", err);
        }
        if (!merged)
            score[id] = -(float)group; /* a single character; its score is never asked for */
    }
    return 0;
}

/* Whether a blank goes before a text, from the normalizers and steps of CHARACTERS. */
static int dummy_prefix(bool *prefix, const struct tokenizer *t, struct err *err)
{
    bool known = !t->ignore_merges;
    *prefix = false;
    for (int i = 0; i < t->n_forms; i++) {
        const struct form *f = &t->forms[i];
        bool to_blank = f->to.n == 3 && !memcmp(f->to.s, blank, 3);
        *prefix |= f->kind == FORM_PREPEND;
        known &= to_blank && (f->kind == FORM_PREPEND || (f->kind == FORM_REPLACE && f->from.n == 1 && f->from.s[0] == ' '));
    }
    for (int i = 0; i < t->n_steps; i++) {
        const struct step *s = &t->steps[i];
        known &= s->kind == STEP_METASPACE && s->blank.n == 3 && !memcmp(s->blank.s, blank, 3) && !s->splits;
        *prefix |= s->kind == STEP_METASPACE && s->prepend != PREPEND_NEVER;
    }
    return known ? 0 : refuse(t, "it prepares a text in another way than SentencePiece", err);
}

static int put_scores(const struct tokenizer *t, struct gguf_writer *w, int64_t vocab_size, struct err *err)
{
    bool prefix = t->add_dummy_prefix;
    float *score = calloc((size_t)t->n_tokens + 1, sizeof *score);
    int rc = score ? 0 : err_set(err, "out of memory");
    for (int i = 0; i < 256 && rc == 0; i++)
        if (t->byte_ids[i] < 0)
            rc = refuse(t, "a token for each byte was expected", err);
    if (rc == 0 && t->kind == CHARACTERS && (scores_of_merges(score, t, err) != 0 || dummy_prefix(&prefix, t, err) != 0))
        rc = -1;
    if (rc == 0 && t->kind == PIECES && (t->remove_extra_whitespaces || !t->escape_whitespaces))
        rc = refuse(t, "it treats blanks in another way than LLaMA's", err);
    if (rc == 0) {
        gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, (uint64_t)vocab_size);
        for (int64_t id = 0; id < vocab_size; id++)
            gguf_add_f32(w, id >= t->n_tokens ? -1e4f : t->kind == PIECES ? t->tokens[id].score : score[id]);
        gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", prefix);
    }
    free(score);
    return rc;
}

/* ---- what both have ---- */

static enum token_type type_of(const struct tokenizer *t, int32_t id, const enum token_type *added)
{
    if (t->kind == PIECES)
        return t->tokens[id].type ? t->tokens[id].type : TYPE_NORMAL;
    if (!t->tokens[id].text.s)
        return TYPE_UNUSED;
    if (t->kind == CHARACTERS && id == t->model_unk)
        return TYPE_UNKNOWN;
    if (added[id])
        return added[id];
    return t->kind == CHARACTERS && t->tokens[id].byte >= 0 ? TYPE_BYTE : TYPE_NORMAL;
}

static int put_tokens(const struct tokenizer *t, struct gguf_writer *w, int64_t vocab_size, struct err *err)
{
    enum token_type *added = calloc((size_t)t->n_tokens + 1, sizeof *added);
    if (!added)
        return err_set(err, "out of memory");
    for (uint32_t i = 0; i < t->n_added; i++)
        added[t->added[i].id] = t->added[i].special ? TYPE_CONTROL : TYPE_USER_DEFINED;
    gguf_put_array(w, "tokenizer.ggml.tokens", GGUF_STRING, (uint64_t)vocab_size);
    for (int64_t id = 0; id < vocab_size; id++) {
        char filler[32];
        struct span text = id < t->n_tokens ? t->tokens[id].text : (struct span){NULL, 0};
        if (!text.s)
            text = (struct span){filler, (size_t)snprintf(filler, sizeof filler, "[PAD%lld]", (long long)id)};
        gguf_add_text(w, text.s, text.n);
    }
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, (uint64_t)vocab_size);
    for (int64_t id = 0; id < vocab_size; id++)
        gguf_add_i32(w, id < t->n_tokens ? (int32_t)type_of(t, (int32_t)id, added) : TYPE_UNUSED);
    free(added);
    return 0;
}

/* An id that a key of the format names must be a token of the model. A GGUF has two keys for further tokens that end an answer. */
static void put_ids(const struct tokenizer *t, struct gguf_writer *w, int64_t vocab_size)
{
    const struct {
        const char *key;
        int32_t id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", t->bos},
               {"tokenizer.ggml.eos_token_id", t->eos},
               {"tokenizer.ggml.unknown_token_id", t->unk},
               {"tokenizer.ggml.padding_token_id", t->pad}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i].id >= 0 && ids[i].id < vocab_size)
            gguf_put_u32(w, ids[i].key, (uint32_t)ids[i].id);
    static const char *const further[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    for (int i = 0, k = 0; i < t->ends.n && k < 2; i++)
        if (t->ends.id[i] != t->eos && t->ends.id[i] < vocab_size)
            gguf_put_u32(w, further[k++], (uint32_t)t->ends.id[i]);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", tokenizer_adds_bos(t));
    if (t->chat_template)
        gguf_put_text(w, "tokenizer.chat_template", t->chat_template, strlen(t->chat_template));
}

int tokenizer_put_gguf(const struct tokenizer *t, struct gguf_writer *w, int64_t vocab_size, struct err *err)
{
    if (!t->dir && !t->n_files)
        return copy_keys(t, w, vocab_size, err);
    bool bytes = t->kind == BYTE_LEVEL;
    int further = t->ends.n - tokenizer_is_end(&t->ends, t->eos);
    if (further > 2)
        return refuse(t, "more than two tokens beside EOS end an answer", err);
    gguf_put_text(w, "tokenizer.ggml.model", bytes ? "gpt2" : "llama", bytes ? 4 : 5);
    if (!bytes)
        gguf_put_text(w, "tokenizer.ggml.pre", "default", 7);
    if ((bytes && put_pre(t, w, err) != 0) || put_tokens(t, w, vocab_size, err) != 0 ||
        (bytes ? put_merges(t, w, err) : put_scores(t, w, vocab_size, err)) != 0)
        return -1;
    put_ids(t, w, vocab_size);
    return 0;
}
