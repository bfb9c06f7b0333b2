#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/io/h5.h"
#include "prune/scores_impl.h"

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

/* Units as block indices and halves, and orders as positions in them: for whole blocks of a whole model, block indices. */
static int put_units(struct h5_writer *w, const struct scores *s, const struct ranking *r, struct err *err)
{
    int64_t n = s->n, *v = mem_alloc((size_t)n, 2 * sizeof *v, err);
    const char **names = mem_alloc((size_t)n, sizeof *names, err);
    char(*text)[UNIT_NAME] = mem_alloc((size_t)n, sizeof *text, err);
    int rc = -1;
    if (!v || !names || !text)
        goto done;
    for (int64_t i = 0; i < n; i++) {
        v[i] = s->unit[i].block;
        v[n + i] = s->unit[i].parts;
        names[i] = unit_name(text[i], s->unit[i]);
    }
    if (h5_put_i64(w, "block", v, &n, 1, err) != 0 || h5_put_i64(w, "parts", v + n, &n, 1, err) != 0 ||
        h5_put_strings(w, "unit", names, n, err) != 0)
        goto done;
    for (int64_t i = 0; i < n; i++)
        v[i] = s->unit[r->order[i]].block;
    for (int64_t i = 0; i < r->n_protected; i++)
        v[n + i] = s->unit[r->protected[i]].block;
    if (scores_sublayers(s)) {
        memcpy(v, r->order, (size_t)n * sizeof *v);
        memcpy(v + n, r->protected, (size_t)r->n_protected * sizeof *v);
    }
    if (h5_put_i64(w, "order", v, &n, 1, err) == 0 && h5_put_i64(w, "protected_order", v + n, &r->n_protected, 1, err) == 0)
        rc = h5_attr_string(w, "order", "counts", scores_sublayers(s) ? "positions in unit" : "block indices", err);
done:
    free(v);
    free(names);
    free(text);
    return rc;
}

static int put_weights(struct h5_writer *w, const struct scores *s, struct err *err)
{
    const char **names = mem_alloc((size_t)s->n_weights, sizeof *names, err);
    if (!names)
        return -1;
    for (int64_t i = 0; i < s->n_weights; i++)
        names[i] = s->weight_name[i];
    int rc = h5_put_strings(w, "weights/name", names, s->n_weights, err) == 0
                 ? h5_put_f64(w, "weights/score", s->weight, &s->n_weights, 1, err)
                 : -1;
    free(names);
    return rc;
}

static int put_extras(struct h5_writer *w, const struct scores *s, struct err *err)
{
    int64_t n = s->n, pairs = n - 1;
    if (s->base_nll && put_floats(w, "token_nll/base", s->base_nll, (int64_t[]){s->samples, s->targets}, 2, err) != 0)
        return -1;
    if (s->removed_nll && put_floats(w, "token_nll/removed", s->removed_nll, (int64_t[]){n, s->samples, s->targets}, 3, err) != 0)
        return -1;
    if (s->row_nll && h5_put_f64(w, "row_nll", s->row_nll, (int64_t[]){n, s->samples}, 2, err) != 0)
        return -1;
    if (s->weight && put_weights(w, s, err) != 0)
        return -1;
    if (s->trace && (h5_put_f64(w, "greedy/trace", s->trace, &s->steps, 1, err) != 0 ||
                     h5_put_f64(w, "greedy/candidates", s->candidates, (int64_t[]){s->steps, n}, 2, err) != 0))
        return -1;
    if (s->distance && (h5_put_f64(w, "windows/distance", s->distance, (int64_t[]){n + 1, n}, 2, err) != 0 ||
                        h5_attr_i64(w, "windows", "length", s->window, err) != 0))
        return -1;
    if (s->swap && (h5_put_f64(w, "bootstrap/swap_with_next", s->swap, &pairs, 1, err) != 0 ||
                    h5_attr_i64(w, "bootstrap", "resamples", s->resamples, err) != 0))
        return -1;
    return 0;
}

int scores_write_h5(struct file_writer *out, const char *path, const struct scores *s, const struct ranking *r,
                    const struct calibration *cal, const json_t *facts, struct err *err)
{
    struct h5_writer w;
    int rc = -1;
    if (h5_writer_open(&w, path, err) != 0)
        return -1;
    if (h5_put_f64(&w, "score", s->score, &s->n, 1, err) != 0 || put_units(&w, s, r, err) != 0 ||
        put_calibration(&w, cal, err) != 0 || put_extras(&w, s, err) != 0 || h5_attr_json(&w, facts, err) != 0 ||
        h5_attr_string(&w, "/", "criterion", s->criterion, err) != 0 ||
        h5_attr_string(&w, "/", "model_hash", s->model_hash, err) != 0 || h5_attr_f64(&w, "/", "base_ppl", s->base_ppl, err) != 0 ||
        h5_attr_i64(&w, "/", "model_blocks", s->model_blocks, err) != 0)
        goto done;
    rc = h5_writer_finish(out, &w, err);
done:
    if (rc != 0)
        h5_writer_abort(&w);
    return rc;
}

/* ---- reading ---- */

static int read_units(struct scores *s, const char *path, struct err *err)
{
    double *score = NULL;
    int64_t *block = NULL, *parts = NULL, dims[H5_MAX_DIMS], n_blocks[H5_MAX_DIMS], n_parts[H5_MAX_DIMS];
    int n_dims, block_dims, parts_dims, rc = -1;
    if (h5_read_f64(&score, dims, &n_dims, path, "score", err) != 0 ||
        h5_read_i64(&block, n_blocks, &block_dims, path, "block", err) != 0 ||
        h5_read_i64(&parts, n_parts, &parts_dims, path, "parts", err) != 0)
        goto done;
    if (n_dims != 1 || block_dims != 1 || parts_dims != 1 || dims[0] < 1 || n_blocks[0] != dims[0] || n_parts[0] != dims[0]) {
        err_set(err, "%s: datasets score, block and parts: one number per block was expected", path);
        goto done;
    }
    if (scores_room(s, dims[0], err) != 0)
        goto done;
    for (int64_t i = 0; i < s->n; i++) {
        s->score[i] = score[i];
        s->unit[i] = (struct unit){block[i], (unsigned)parts[i]};
        if (parts[i] != PARTS_ALL && parts[i] != PART_ATTN && parts[i] != PART_FFN) {
            err_set(err, "%s: dataset parts: 1, 2 or 3 was expected, %lld found", path, (long long)parts[i]);
            goto done;
        }
    }
    rc = 0;
done:
    free(score);
    free(block);
    free(parts);
    return rc;
}

/* A table [rows, *cols] that not every file has: NULL then. *cols of 0 takes what is there. */
static int read_optional(double **out, int64_t rows, int64_t *cols, const char *path, const char *name, struct err *err)
{
    int64_t dims[H5_MAX_DIMS];
    int n_dims, there = h5_has(path, name, err);
    if (there <= 0)
        return there;
    if (h5_read_f64(out, dims, &n_dims, path, name, err) != 0)
        return -1;
    if (n_dims != 2 || dims[0] != rows || dims[1] < 1 || (*cols && dims[1] != *cols))
        return err_set(err, "%s: dataset %s: its size does not fit the other ones", path, name);
    *cols = dims[1];
    return 0;
}

int scores_read_h5(struct scores *s, const char *path, struct err *err)
{
    char *criterion = NULL, *hash = NULL, *fingerprint = NULL;
    double model_blocks;
    int rc = -1;
    if (read_units(s, path, err) != 0 || h5_read_attr_string(&criterion, path, "/", "criterion", err) != 0 ||
        h5_read_attr_string(&hash, path, "/", "model_hash", err) != 0 ||
        h5_read_attr_f64(&model_blocks, path, "/", "model_blocks", err) != 0 ||
        h5_read_attr_f64(&s->base_ppl, path, "/", "base_ppl", err) != 0)
        goto done;
    if (!(model_blocks >= 1 && model_blocks <= 1 << 20)) {
        err_set(err, "%s: attribute model_blocks: a number of blocks was expected, %g found", path, model_blocks);
        goto done;
    }
    s->model_blocks = (int64_t)model_blocks;
    snprintf(s->criterion, sizeof s->criterion, "%s", criterion);
    snprintf(s->model_hash, sizeof s->model_hash, "%s", hash);
    int known = h5_has_attr(path, "model_fingerprint", err); /* not in files of earlier versions */
    if (known < 0 || (known && h5_read_attr_string(&fingerprint, path, "/", "model_fingerprint", err) != 0))
        goto done;
    if (known)
        snprintf(s->fingerprint, sizeof s->fingerprint, "%s", fingerprint);
    rc = read_optional(&s->row_nll, s->n, &s->samples, path, "row_nll", err) == 0
             ? read_optional(&s->distance, s->n + 1, &(int64_t){s->n}, path, "windows/distance", err)
             : -1;
done:
    free(criterion);
    free(fingerprint);
    free(hash);
    return rc;
}
