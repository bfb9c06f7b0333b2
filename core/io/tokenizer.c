/* The life of a tokenizer, and encoding with it. */
#include "core/io/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/io/tokenizer_impl.h"

int ids_push(struct ids *list, int32_t id, struct err *err)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 64;
        int32_t *ids = cap <= SIZE_MAX / sizeof *ids ? realloc(list->ids, cap * sizeof *ids) : NULL;
        if (!ids)
            return err_set(err, "out of memory: a list of %zu ids", cap);
        list->ids = ids;
        list->cap = cap;
    }
    list->ids[list->n++] = id;
    return 0;
}

static int encode(struct ids *out, const struct tokenizer *t, const char *text, size_t n, bool plain, struct err *err)
{
    struct encoder e = {.t = t, .out = out, .err = err, .plain = plain};
    e.match = pcre2_match_data_create(1, NULL);
    int rc = e.match ? split_text(&e, text, n) : err_set(err, "out of memory");
    pcre2_match_data_free(e.match);
    free(e.left_of);
    free(e.work);
    return rc;
}

int tokenizer_encode(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err)
{
    return encode(out, t, text, n, t->plain, err);
}

int tokenizer_encode_chat(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err)
{
    return encode(out, t, text, n, false, err);
}

/* ---- opening ---- */

/* The tokenizer's file in a Hugging Face folder, malloc'ed, or NULL and an error. The model goes before the JSON where the old
 * tokenizer is asked for, which read that. */
static char *file_in_folder(const char *dir, bool legacy, struct err *err)
{
    char *json = path_join(dir, "tokenizer.json", err), *spm = path_join(dir, "tokenizer.model", err), *found = NULL;
    if (!json || !spm)
        goto done;
    bool has_json = path_exists(json), has_spm = path_exists(spm);
    if (has_spm && (legacy || !has_json)) {
        found = spm;
        spm = NULL;
    } else if (has_json) {
        found = json;
        json = NULL;
    } else {
        err_set(err, "%s: no tokenizer.json or tokenizer.model in this folder", dir);
    }
done:
    free(spm);
    free(json);
    return found;
}

static int open_file(struct tokenizer *t, const char *path, bool legacy, struct err *err)
{
    static const struct {
        const char *suffix;
        int (*read)(struct tokenizer *t, const char *path, struct err *err);
    } readers[] = {{".json", tokenizer_from_json}, {".model", tokenizer_from_spm}, {".gguf", tokenizer_from_gguf}};
    if (!path_exists(path))
        return err_set(err, "%s: no such tokenizer: a folder, a tokenizer.json, a tokenizer.model or a .gguf file was expected",
                       path);
    if (path_is_dir(path)) {
        char *file = file_in_folder(path, legacy, err);
        int rc = file ? open_file(t, file, legacy, err) : -1;
        free(file);
        return rc;
    }
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
        if (path_has_suffix(path, readers[i].suffix))
            return readers[i].read(t, path, err);
    return err_set(err, "%s: not a tokenizer that can be read: tokenizer.json, tokenizer.model or .gguf was expected", path);
}

static int open_as(struct tokenizer **out, const char *path, bool legacy, struct err *err)
{
    *out = NULL;
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(err, "out of memory");
    t->bos = t->eos = t->pad = t->unk = t->model_unk = -1;
    int rc = open_file(t, path, legacy, err);
    if (rc == 0 && legacy && t->kind != PIECES)
        rc =
            err_usage(err,
                      "%s: the legacy treatment of special tokens is that of a SentencePiece model: a tokenizer.model or a GGUF of "
                      "the llama kind was expected",
                      t->file);
    if (rc != 0) {
        tokenizer_free(t);
        return -1;
    }
    if (legacy)
        t->plain = false;
    *out = t;
    return 0;
}

int tokenizer_open(struct tokenizer **out, const char *path, struct err *err)
{
    return open_as(out, path, false, err);
}

int tokenizer_open_legacy(struct tokenizer **out, const char *path, struct err *err)
{
    return open_as(out, path, true, err);
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    split_free(t);
    json_decref(t->pre_tokenizer);
    arena_free(&t->arena);
    free(t);
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_pad(const struct tokenizer *t)
{
    return t->pad;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->adds_bos && t->bos >= 0;
}

int64_t tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->n_tokens;
}

const char *tokenizer_kind(const struct tokenizer *t)
{
    return t->kind == PIECES ? "sentencepiece" : "bpe";
}
