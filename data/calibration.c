#include "data/calibration.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/io/h5.h"
#include "data/rows.h"
#include "data/text.h"

static int make_room(struct calibration *cal, struct err *err)
{
    cal->ids = mem_alloc((size_t)cal->n, (size_t)cal->len * sizeof *cal->ids, err);
    cal->documents = mem_alloc((size_t)cal->n, sizeof *cal->documents, err);
    cal->offsets = mem_alloc((size_t)cal->n, sizeof *cal->offsets, err);
    return cal->ids && cal->documents && cal->offsets ? 0 : -1;
}

static int set_id(int32_t *out, int64_t id, const char *path, struct err *err)
{
    if (id < 0 || id > INT32_MAX)
        return err_set(err, "%s: token id %lld is out of range", path, (long long)id);
    *out = (int32_t)id;
    return 0;
}

/* Ready rows of token ids. */
static int take_token_rows(struct calibration *cal, const struct rows *rows, struct err *err)
{
    cal->n = rows->n;
    cal->len = (int64_t)json_array_size(json_array_get(rows->list, 0));
    if (cal->len < 2)
        return err_set(err, "%s: an array of rows of at least two token ids was expected", rows->file);
    if (make_room(cal, err) != 0)
        return -1;
    for (int64_t i = 0; i < rows->n; i++) {
        struct row row = row_at(rows, i);
        if ((int64_t)json_array_size(row.v) != cal->len)
            return row_error(&row, err, "%zu ids, the first one has %lld", json_array_size(row.v), (long long)cal->len);
        for (int64_t k = 0; k < cal->len; k++) {
            const json_t *id = json_array_get(row.v, (size_t)k);
            if (!json_is_integer(id))
                return row_error(&row, err, "holds something that is not a token id");
            if (set_id(&cal->ids[i * cal->len + k], json_integer_value(id), rows->file, err) != 0)
                return -1;
        }
    }
    return 0;
}

/* A file of JSON holds ready rows, or else documents, which is for others to read: *ready says which. */
static int read_json_rows(struct calibration *cal, bool *ready, const char *path, struct err *err)
{
    struct rows rows;
    *ready = false;
    if (rows_read_any(&rows, path, err) != 0)
        return -1;
    *ready = rows.n > 0 && !json_is_object(json_array_get(rows.list, 0));
    int rc = *ready ? take_token_rows(cal, &rows, err) : 0;
    rows_free(&rows);
    return rc;
}

static int read_h5_rows(struct calibration *cal, const char *path, struct err *err)
{
    int64_t *ids = NULL, dims[4];
    int n_dims, rc = -1;
    int top = h5_has(path, "ids", err);
    if (top < 0 || h5_read_i64(&ids, dims, &n_dims, path, top ? "ids" : "calibration/ids", err) != 0)
        return -1;
    if (n_dims != 2 || dims[0] < 1 || dims[1] < 2) {
        err_set(err, "%s: token rows of shape [n, T] were expected", path);
        goto done;
    }
    cal->n = dims[0];
    cal->len = dims[1];
    if (make_room(cal, err) != 0)
        goto done;
    for (int64_t i = 0; i < cal->n * cal->len; i++)
        if (set_id(&cal->ids[i], ids[i], path, err) != 0)
            goto done;
    rc = 0;
done:
    free(ids);
    return rc;
}

/* Tokens of documents, made when first asked for. */
struct token_store {
    const struct documents *docs;
    const struct tokenizer *t;
    struct ids *ids;
    bool *have, *used;
};

static int tokens_of(struct ids **out, struct token_store *s, int64_t i, struct err *err)
{
    *out = &s->ids[i];
    if (s->have[i])
        return 0;
    s->have[i] = true;
    if (tokenizer_adds_bos(s->t) && ids_push(*out, tokenizer_bos(s->t), err) != 0)
        return -1;
    return tokenizer_encode(*out, s->t, s->docs->docs[i], s->docs->lens[i], err);
}

/* How many documents could serve; only counted once sampling has become hopeless. */
static int64_t usable(struct token_store *s, int64_t need, struct err *err)
{
    int64_t n = 0;
    for (size_t i = 0; i < s->docs->n; i++) {
        struct ids *t;
        if (tokens_of(&t, s, (int64_t)i, err) != 0)
            return -1;
        n += (int64_t)t->n >= need;
    }
    return n;
}

static int sample(struct calibration *cal, struct token_store *s, uint64_t seed, bool bos_every, struct err *err)
{
    struct rng rng;
    int64_t lead = bos_every ? 1 : 0, need = cal->len - lead, n_docs = (int64_t)s->docs->n, misses = 0;
    bool counted = false;
    rng_seed(&rng, seed);
    for (int64_t row = 0; row < cal->n; row++) {
        struct ids *t = NULL;
        int64_t doc;
        for (;; misses++) {
            if (!counted && misses > 4 * n_docs + 1000) { /* unlucky, or impossible? */
                int64_t n = usable(s, need, err);
                if (n < cal->n)
                    return n < 0 ? -1
                                 : err_set(
                                       err,
                                       "%s: %lld samples of %lld tokens were asked for; %lld of its %lld documents are long enough",
                                       cal->file, (long long)cal->n, (long long)cal->len, (long long)n, (long long)n_docs);
                counted = true;
            }
            doc = rng_below(&rng, n_docs);
            if (tokens_of(&t, s, doc, err) != 0)
                return -1;
            if ((int64_t)t->n >= need && !s->used[doc])
                break;
        }
        s->used[doc] = true;
        int64_t at = rng_below(&rng, (int64_t)t->n - need + 1);
        cal->documents[row] = doc;
        cal->offsets[row] = at;
        if (lead)
            cal->ids[row * cal->len] = tokenizer_bos(s->t);
        memcpy(cal->ids + row * cal->len + lead, t->ids + at, (size_t)need * sizeof *cal->ids);
    }
    return 0;
}

static int read_documents(struct calibration *cal, const struct tokenizer *t, uint64_t seed, bool bos_every, struct err *err)
{
    struct documents docs;
    int rc = -1;
    if (documents_read(&docs, cal->file, err) != 0)
        return -1;
    struct token_store s = {&docs, t, calloc(docs.n + 1, sizeof *s.ids), calloc(docs.n + 1, 1), calloc(docs.n + 1, 1)};
    if (!s.ids || !s.have || !s.used)
        err_set(err, "out of memory");
    else if (docs.n == 0)
        err_set(err, "%s: holds no documents; one per line was expected", cal->file);
    else if (bos_every && tokenizer_bos(t) < 0)
        err_set(err, "--bos-every: the tokenizer has no BOS token");
    else if (make_room(cal, err) == 0)
        rc = sample(cal, &s, seed, bos_every, err);
    for (size_t i = 0; s.ids && i < docs.n; i++)
        free(s.ids[i].ids);
    free(s.ids);
    free(s.have);
    free(s.used);
    documents_free(&docs);
    return rc;
}

int calibration_read(struct calibration *cal, const char *path, const struct tokenizer *t, int64_t n, int64_t len, uint64_t seed,
                     bool bos_every, struct err *err)
{
    *cal = (struct calibration){.file = strdup(path), .n = n, .len = len};
    bool ready;
    int rc;
    if (!cal->file)
        rc = err_set(err, "out of memory");
    else if (file_sha256(cal->sha256, path, err) != 0)
        rc = -1;
    else if (path_has_suffix(path, ".h5"))
        rc = read_h5_rows(cal, path, err);
    else if (documents_are_json(path) && (read_json_rows(cal, &ready, path, err) != 0 || ready))
        rc = err->code ? -1 : 0;
    else if (n < 1 || len < 2)
        rc = err_usage(err, "calibration needs at least one sample of at least two tokens");
    else if (!t)
        rc = err_set(err, "%s: text needs a tokenizer, and the model has none", path);
    else
        rc = read_documents(cal, t, seed, bos_every, err);
    if (rc != 0)
        calibration_free(cal);
    return rc;
}

void calibration_free(struct calibration *cal)
{
    free(cal->file);
    free(cal->ids);
    free(cal->documents);
    free(cal->offsets);
    *cal = (struct calibration){0};
}
