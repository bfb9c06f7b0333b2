/* The life of a tokenizer, and encoding with it. */
#include "core/io/tokenizer.h"

#include <stdio.h>
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

static int encode(struct ids *out, const struct tokenizer *t, const char *text, size_t n, bool plain, bool literal, struct err *err)
{
    struct encoder e = {.t = t, .out = out, .err = err, .plain = plain, .literal = literal};
    e.match = pcre2_match_data_create(1, NULL);
    size_t before = out->n;
    int rc = e.match ? split_text(&e, text, n) : err_set(err, "out of memory");
    for (size_t i = before; rc == 0 && t->limit > 0 && i < out->n; i++)
        if (out->ids[i] >= t->limit)
            rc = err_set(err, "%s: the token \"%.*s\" has the id %d, the model's embedding has the rows 0 to %lld", t->file,
                         (int)t->tokens[out->ids[i]].text.n, t->tokens[out->ids[i]].text.s, out->ids[i], (long long)t->limit - 1);
    pcre2_match_data_free(e.match);
    free(e.left_of);
    free(e.work);
    return rc;
}

int tokenizer_encode(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err)
{
    return encode(out, t, text, n, t->plain, false, err);
}

int tokenizer_encode_literal(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err)
{
    return encode(out, t, text, n, t->plain, true, err);
}

int tokenizer_encode_chat(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err)
{
    return encode(out, t, text, n, false, false, err);
}

/* ---- opening ---- */

/* The tokenizer's file in a Hugging Face folder, malloc'ed, or NULL and an error. The model goes before the JSON where the old
 * tokenizer is asked for, which read that. */
static char *file_in_folder(struct tokenizer *t, const char *dir, bool legacy, struct err *err)
{
    char *json = path_join(dir, "tokenizer.json", err), *spm = path_join(dir, "tokenizer.model", err), *found = NULL;
    if (!json || !spm)
        goto done;
    int has_json = path_status(json, err), has_spm = path_status(spm, err);
    if (has_json < 0 || has_spm < 0)
        goto done;
    if (has_spm && (legacy || !has_json)) {
        found = spm;
        spm = NULL;
    } else if (has_json) {
        found = json;
        json = NULL;
    } else {
        t->absent = true;
        err_set(err, "%s: no tokenizer.json or tokenizer.model in this folder", dir);
    }
done:
    free(spm);
    free(json);
    return found;
}

/* The first bytes of a file, zeros where it has fewer. */
static int read_magic(char magic[4], const char *path, struct err *err)
{
    memset(magic, 0, 4);
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_errno(err, "%s", path);
    int rc = fread(magic, 1, 4, f) == 4 || !ferror(f) ? 0 : err_errno(err, "%s", path);
    fclose(f);
    return rc;
}

/* Takes over the files that lie inside of an HDF5 model. */
static int keep_files(struct tokenizer *t, const struct source *s, struct err *err)
{
    t->files = arena_alloc(&t->arena, (size_t)s->n_files, sizeof *t->files, err);
    if (!t->files)
        return -1;
    for (int64_t i = 0; i < s->n_files; i++) {
        const struct inner_file *f = &s->files[i];
        if (!tokenizer_has_file(f->name)) /* names become files when the tokenizer is saved */
            continue;
        char *data = arena_alloc(&t->arena, f->n + 1, 1, err);
        t->files[t->n_files] = (struct inner_file){arena_strdup(&t->arena, f->name, err), data, f->n};
        if (!data || !t->files[t->n_files].name)
            return -1;
        memcpy(data, f->data, f->n);
        t->n_files++;
    }
    return 0;
}

static bool has_file(const struct tokenizer *t, const char *name)
{
    for (int64_t i = 0; i < t->n_files; i++)
        if (!strcmp(t->files[i].name, name))
            return true;
    return false;
}

static int open_inside(struct tokenizer *t, const char *path, bool legacy, struct err *err)
{
    struct source s;
    t->file = arena_strdup(&t->arena, path, err);
    if (!t->file || source_open(&s, path, err) != 0)
        return -1;
    int rc = keep_files(t, &s, err);
    source_close(&s);
    if (rc != 0)
        return -1;
    bool json = has_file(t, "tokenizer.json"), spm = has_file(t, "tokenizer.model");
    if (spm && (legacy || !json))
        return tokenizer_from_spm(t, "tokenizer.model", err);
    t->absent = !json;
    return json ? tokenizer_from_json(t, "tokenizer.json", err) : err_set(err, "%s: no tokenizer in this file", path);
}

static int open_file(struct tokenizer *t, const char *path, bool legacy, struct err *err)
{
    static const struct {
        const char *suffix;
        int (*read)(struct tokenizer *t, const char *path, struct err *err);
    } readers[] = {{".json", tokenizer_from_json}, {".model", tokenizer_from_spm}, {".gguf", tokenizer_from_gguf}};
    char magic[4];
    int there = path_status(path, err);
    if (there < 0)
        return -1;
    if (!there)
        return err_set(
            err, "%s: no such tokenizer: a folder, a tokenizer.json, a tokenizer.model, a .gguf or a .h5 file was expected", path);
    if (path_is_dir(path)) {
        char *file = file_in_folder(t, path, legacy, err);
        int rc = file ? open_file(t, file, legacy, err) : -1;
        free(file);
        return rc;
    }
    if (read_magic(magic, path, err) != 0)
        return -1;
    bool gguf = !memcmp(magic, "GGUF", 4); /* a model not yet under its final name has no such ending */
    if (path_has_suffix(path, ".h5") || !memcmp(magic, "\x89HDF", 4))
        return open_inside(t, path, legacy, err);
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
        if (path_has_suffix(path, readers[i].suffix) || (gguf && readers[i].read == tokenizer_from_gguf))
            return readers[i].read(t, path, err);
    return err_set(err, "%s: not a tokenizer that can be read: tokenizer.json, tokenizer.model, .gguf or .h5 was expected", path);
}

/* *absent: there is none; that is an error like others. */
static int open_as(struct tokenizer **out, bool *absent, const char *path, bool legacy, struct err *err)
{
    *out = NULL;
    *absent = false;
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
    if (rc == 0)
        rc = tokenizer_read_ends(t, err);
    *absent = rc != 0 && t->absent;
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
    bool absent;
    return open_as(out, &absent, path, false, err);
}

int tokenizer_open_if_any(struct tokenizer **out, const char *path, struct err *err)
{
    struct err why = {0};
    bool absent;
    if (open_as(out, &absent, path, false, &why) == 0 || absent)
        return 0;
    *err = err->code ? *err : why;
    return -1;
}

void tokenizer_set_limit(struct tokenizer *t, int64_t rows)
{
    t->limit = rows;
}

int tokenizer_open_legacy(struct tokenizer **out, const char *path, struct err *err)
{
    bool absent;
    return open_as(out, &absent, path, true, err);
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

const struct tokenizer_ends *tokenizer_ends(const struct tokenizer *t)
{
    return &t->ends;
}

bool tokenizer_is_end(const struct tokenizer_ends *ends, int32_t id)
{
    for (int i = 0; ends && i < ends->n; i++)
        if (ends->id[i] == id)
            return true;
    return false;
}

int tokenizer_add_end(struct tokenizer *t, int64_t id, struct err *err)
{
    if (id == -1) /* how some files say that there is none */
        return 0;
    if (id < 0 || id > INT32_MAX)
        return err_set(err, "%s: token id %lld, which is to end an answer, is out of range", t->file, (long long)id);
    if (tokenizer_is_end(&t->ends, (int32_t)id))
        return 0;
    if (t->ends.n == TOKENIZER_MAX_ENDS)
        return err_set(err, "%s: more than %d tokens are to end an answer", t->file, TOKENIZER_MAX_ENDS);
    t->ends.id[t->ends.n++] = (int32_t)id;
    return 0;
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

bool tokenizer_has_chat(const struct tokenizer *t)
{
    return t->chat_template != NULL;
}
