#include "prune/scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/mem.h"
#include "core/io/h5.h"

enum { KEEP_FIRST = 4, KEEP_LAST = 2 }; /* for the protected order that is written beside the plain one */

int scores_alloc(struct scores *s, const char *criterion, int64_t n_blocks, struct err *err)
{
    *s = (struct scores){.n_blocks = n_blocks, .model_blocks = n_blocks};
    snprintf(s->criterion, sizeof s->criterion, "%s", criterion);
    s->score = mem_alloc((size_t)n_blocks, sizeof *s->score, err);
    s->block = mem_alloc((size_t)n_blocks, sizeof *s->block, err);
    if (!s->score || !s->block) {
        scores_free(s);
        return -1;
    }
    for (int64_t i = 0; i < n_blocks; i++)
        s->block[i] = i;
    return 0;
}

void scores_free(struct scores *s)
{
    free(s->block);
    free(s->score);
    free(s->base_nll);
    free(s->removed_nll);
    *s = (struct scores){0};
}

void scores_order(int64_t *order, const struct scores *s)
{
    for (int64_t i = 0; i < s->n_blocks; i++) { /* insertion keeps ties in index order; there are a few dozen blocks */
        int64_t at = i;
        while (at > 0 && s->score[order[at - 1]] > s->score[i]) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    for (int64_t i = 0; i < s->n_blocks; i++)
        order[i] = s->block[order[i]];
}

int64_t scores_protected_order(int64_t *out, const struct scores *s, int64_t keep_first, int64_t keep_last)
{
    int64_t n = 0;
    scores_order(out, s);
    for (int64_t i = 0; i < s->n_blocks; i++)
        if (out[i] >= keep_first && out[i] < s->model_blocks - keep_last)
            out[n++] = out[i];
    return n;
}

static json_t *int_array(const int64_t *v, int64_t n)
{
    json_t *a = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(a, json_integer(v[i]));
    return a;
}

static json_t *calibration_json(const struct calibration *cal)
{
    json_t *c = json_pack("{ss ss sI sI}", "file", cal->file, "sha256", cal->sha256, "seq_len", (json_int_t)cal->len, "samples",
                          (json_int_t)cal->n);
    json_object_set_new(c, "documents", int_array(cal->documents, cal->n));
    json_object_set_new(c, "offsets", int_array(cal->offsets, cal->n));
    return c;
}

static int write_json(const char *path, const struct scores *s, const struct calibration *cal, const json_t *facts,
                      const int64_t *order, const int64_t *protected_order, int64_t n_protected, struct err *err)
{
    json_t *root = json_pack("{ss sf}", "criterion", s->criterion, "base_ppl", s->base_ppl), *blocks = json_array();
    for (int64_t i = 0; i < s->n_blocks; i++)
        json_array_append_new(blocks, json_pack("{sI sf}", "index", (json_int_t)s->block[i], "score", s->score[i]));
    json_object_set_new(root, "blocks", blocks);
    json_object_set_new(root, "order", int_array(order, s->n_blocks));
    json_object_set_new(root, "protected_order", int_array(protected_order, n_protected));
    json_object_set_new(root, "calibration", calibration_json(cal));
    json_object_set_new(root, "model_hash", json_string(s->model_hash));
    json_object_set_new(root, "model_blocks", json_integer(s->model_blocks));
    json_object_update_missing(root, (json_t *)facts);
    int rc = json_write(path, root, err);
    json_decref(root);
    return rc;
}

/* The losses are kept as float32; HDF5 files hold them as float64 like everything else there. */
static int put_floats(struct h5_writer *w, const char *name, const float *v, const int64_t *dims, int n_dims, struct err *err)
{
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++)
        n *= dims[i];
    double *d = mem_alloc((size_t)n, sizeof *d, err);
    if (!d)
        return -1;
    for (int64_t i = 0; i < n; i++)
        d[i] = (double)v[i];
    int rc = h5_put_f64(w, name, d, dims, n_dims, err);
    free(d);
    return rc;
}

static int put_calibration(struct h5_writer *w, const struct calibration *cal, struct err *err)
{
    int64_t n = cal->n, *ids = mem_alloc((size_t)n, (size_t)cal->len * sizeof *ids, err);
    if (!ids)
        return -1;
    for (int64_t i = 0; i < n * cal->len; i++)
        ids[i] = cal->ids[i];
    int rc = h5_put_i64(w, "calibration/documents", cal->documents, &n, 1, err) == 0 &&
                     h5_put_i64(w, "calibration/offsets", cal->offsets, &n, 1, err) == 0 &&
                     h5_put_i64(w, "calibration/ids", ids, (int64_t[]){n, cal->len}, 2, err) == 0 &&
                     h5_attr_string(w, "calibration", "file", cal->file, err) == 0 &&
                     h5_attr_string(w, "calibration", "sha256", cal->sha256, err) == 0
                 ? 0
                 : -1;
    free(ids);
    return rc;
}

static int write_h5(const char *path, const struct scores *s, const struct calibration *cal, const json_t *facts,
                    const int64_t *order, const int64_t *protected_order, int64_t n_protected, struct err *err)
{
    struct h5_writer w;
    int64_t n = s->n_blocks;
    int rc = -1;
    if (h5_writer_open(&w, path, err) != 0)
        return -1;
    if (h5_put_i64(&w, "block", s->block, &n, 1, err) != 0 || h5_put_f64(&w, "score", s->score, &n, 1, err) != 0 ||
        h5_put_i64(&w, "order", order, &n, 1, err) != 0 ||
        h5_put_i64(&w, "protected_order", protected_order, &n_protected, 1, err) != 0 || put_calibration(&w, cal, err) != 0)
        goto done;
    if (s->base_nll && put_floats(&w, "token_nll/base", s->base_nll, (int64_t[]){s->samples, s->targets}, 2, err) != 0)
        goto done;
    if (s->removed_nll && put_floats(&w, "token_nll/removed", s->removed_nll, (int64_t[]){n, s->samples, s->targets}, 3, err) != 0)
        goto done;
    if (h5_attr_json(&w, facts, err) != 0 || h5_attr_string(&w, "/", "criterion", s->criterion, err) != 0 ||
        h5_attr_string(&w, "/", "model_hash", s->model_hash, err) != 0 || h5_attr_f64(&w, "/", "base_ppl", s->base_ppl, err) != 0 ||
        h5_attr_i64(&w, "/", "model_blocks", s->model_blocks, err) != 0)
        goto done;
    rc = h5_writer_commit(&w, err);
done:
    if (rc != 0)
        h5_writer_abort(&w);
    return rc;
}

/* Scores that are no numbers rank nothing, and JSON cannot hold them. */
static int check_finite(const struct scores *s, const char *path, struct err *err)
{
    if (!isfinite(s->base_ppl))
        return err_set(err, "%s: the perplexity of the model as it is (%g) is not finite", path, s->base_ppl);
    for (int64_t i = 0; i < s->n_blocks; i++)
        if (!isfinite(s->score[i]))
            return err_set(err, "%s: the score of block %lld (%g) is not finite", path, (long long)s->block[i], s->score[i]);
    return 0;
}

int scores_write(const char *path, const struct scores *s, const struct calibration *cal, const json_t *facts, struct err *err)
{
    if (check_finite(s, path, err) != 0)
        return -1;
    int64_t *order = mem_alloc((size_t)s->n_blocks, 2 * sizeof *order, err);
    if (!order)
        return -1;
    int64_t *kept = order + s->n_blocks;
    scores_order(order, s);
    int64_t n_kept = scores_protected_order(kept, s, KEEP_FIRST, KEEP_LAST);
    int rc = (path_has_suffix(path, ".h5") ? write_h5 : write_json)(path, s, cal, facts, order, kept, n_kept, err);
    free(order);
    return rc;
}

/* Whether the blocks read are indices of the model, each once, in ascending order. */
static int check_blocks(const struct scores *s, const char *path, struct err *err)
{
    if (s->model_blocks < s->n_blocks)
        return err_set(err, "%s: scores of %lld blocks of a model that has %lld", path, (long long)s->n_blocks,
                       (long long)s->model_blocks);
    for (int64_t i = 0; i < s->n_blocks; i++)
        if (s->block[i] < 0 || s->block[i] >= s->model_blocks || (i > 0 && s->block[i] <= s->block[i - 1]))
            return err_set(err, "%s: block indices from 0 to %lld, ascending and once each, were expected; %lld found", path,
                           (long long)s->model_blocks - 1, (long long)s->block[i]);
    return 0;
}

static int read_h5(struct scores *s, const char *path, struct err *err)
{
    double *score = NULL;
    int64_t *block = NULL, dims[4], n_blocks[4];
    int n_dims, block_dims, rc = -1;
    char *criterion = NULL, *hash = NULL;
    if (h5_read_f64(&score, dims, &n_dims, path, "score", err) != 0 ||
        h5_read_i64(&block, n_blocks, &block_dims, path, "block", err) != 0 ||
        h5_read_attr_string(&criterion, path, "/", "criterion", err) != 0 ||
        h5_read_attr_string(&hash, path, "/", "model_hash", err) != 0)
        goto done;
    if (n_dims != 1 || block_dims != 1 || dims[0] < 1 || n_blocks[0] != dims[0]) {
        err_set(err, "%s: datasets score and block: one number per block was expected", path);
        goto done;
    }
    if (scores_alloc(s, criterion, dims[0], err) != 0)
        goto done;
    memcpy(s->score, score, (size_t)dims[0] * sizeof *score);
    memcpy(s->block, block, (size_t)dims[0] * sizeof *block);
    s->model_blocks = s->block[s->n_blocks - 1];
    s->model_blocks += s->model_blocks < INT64_MAX; /* at least; the hash says which model it is */
    snprintf(s->model_hash, sizeof s->model_hash, "%s", hash);
    rc = check_blocks(s, path, err);
done:
    free(score);
    free(block);
    free(criterion);
    free(hash);
    return rc;
}

static int read_json(struct scores *s, const char *path, struct err *err)
{
    json_t *root = json_read(path, err), *b;
    size_t i;
    int rc = -1;
    const char *criterion = "", *hash = "";
    const json_t *blocks = json_object_get(root, "blocks");
    if (!root || json_get_string(&criterion, root, "criterion", path, err) != 0 ||
        json_get_string(&hash, root, "model_hash", path, err) != 0)
        goto done;
    if (json_array_size(blocks) == 0) {
        err_set(err, "%s: not a score file: an array \"blocks\" was expected", path);
        goto done;
    }
    if (scores_alloc(s, criterion, (int64_t)json_array_size(blocks), err) != 0)
        goto done;
    snprintf(s->model_hash, sizeof s->model_hash, "%s", hash);
    if (json_get_int(&s->model_blocks, root, "model_blocks", path, err) != 0)
        goto done;
    json_array_foreach(blocks, i, b) {
        const json_t *index = json_object_get(b, "index"), *score = json_object_get(b, "score");
        if (!json_is_integer(index) || !json_is_number(score)) {
            err_set(err, "%s: blocks[%zu]: an index and a score were expected", path, i);
            goto done;
        }
        s->block[i] = json_integer_value(index);
        s->score[i] = json_number_value(score);
    }
    rc = check_blocks(s, path, err);
done:
    json_decref(root);
    return rc;
}

int scores_read(struct scores *s, const char *path, struct err *err)
{
    *s = (struct scores){0};
    int rc = path_has_suffix(path, ".h5") ? read_h5(s, path, err) : read_json(s, path, err);
    if (rc == 0)
        rc = check_finite(s, path, err);
    if (rc != 0)
        scores_free(s);
    return rc;
}
