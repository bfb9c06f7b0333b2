#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "prune/scores_impl.h"

static json_t *int_array(const int64_t *v, int64_t n)
{
    json_t *a = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(a, json_integer(v[i]));
    return a;
}

static json_t *real_array(const double *v, int64_t n)
{
    json_t *a = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(a, json_real(v[i]));
    return a;
}

json_t *unit_json(struct unit u)
{
    char name[UNIT_NAME];
    return u.parts == PARTS_ALL ? json_integer(u.block) : json_string(unit_name(name, u));
}

static json_t *units_json(const struct scores *s, const int64_t *positions, int64_t n)
{
    json_t *a = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(a, unit_json(s->unit[positions[i]]));
    return a;
}

static json_t *blocks_json(const struct scores *s)
{
    json_t *blocks = json_array();
    for (int64_t i = 0; i < s->n; i++) {
        json_t *b = json_pack("{sI sf}", "index", (json_int_t)s->unit[i].block, "score", s->score[i]);
        if (s->unit[i].parts != PARTS_ALL)
            json_object_set_new(b, "part", json_string(s->unit[i].parts == PART_ATTN ? "attn" : "ffn"));
        json_array_append_new(blocks, b);
    }
    return blocks;
}

static json_t *calibration_json(const struct calibration *cal)
{
    json_t *c = json_pack("{so ss sI sI}", "file", json_text(cal->file), "sha256", cal->sha256, "seq_len", (json_int_t)cal->len,
                          "samples", (json_int_t)cal->n);
    json_object_set_new(c, "documents", int_array(cal->documents, cal->n));
    json_object_set_new(c, "offsets", int_array(cal->offsets, cal->n));
    return c;
}

static void add_greedy(json_t *root, const struct scores *s)
{
    json_t *steps = json_array();
    char name[UNIT_NAME];
    for (int64_t k = 0; k < s->steps; k++) {
        json_t *one = json_object();
        for (int64_t i = 0; i < s->n; i++)
            if (!isnan(s->candidates[k * s->n + i]))
                json_object_set_new(one, unit_name(name, s->unit[i]), json_real(s->candidates[k * s->n + i]));
        json_array_append_new(steps, one);
    }
    json_object_set_new(root, "trace", real_array(s->trace, s->steps));
    json_object_set_new(root, "candidates", steps);
}

static void add_windows(json_t *root, const struct scores *s)
{
    json_t *by_length = json_object();
    int64_t best = 0;
    for (int64_t w = 1; w <= s->n; w++) {
        char key[24];
        snprintf(key, sizeof key, "%lld", (long long)w);
        json_object_set_new(by_length, key, real_array(s->distance + w * s->n, s->n - w + 1));
    }
    for (int64_t i = 0; i + s->window <= s->n; i++)
        if (s->distance[s->window * s->n + i] < s->distance[s->window * s->n + best])
            best = i;
    json_object_set_new(
        root, "windows",
        json_pack("{sI so so}", "length", (json_int_t)s->window, "first", unit_json(s->unit[best]), "distance", by_length));
}

static void add_extras(json_t *root, const struct scores *s)
{
    if (s->weight) {
        json_t *weights = json_object();
        for (int64_t i = 0; i < s->n_weights; i++)
            json_object_set_new(weights, s->weight_name[i], json_real(s->weight[i]));
        json_object_set_new(root, "weights", weights);
    }
    if (s->trace)
        add_greedy(root, s);
    if (s->distance)
        add_windows(root, s);
    if (s->row_nll) {
        json_t *rows = json_array();
        for (int64_t i = 0; i < s->n; i++)
            json_array_append_new(rows, real_array(s->row_nll + i * s->samples, s->samples));
        json_object_set_new(root, "row_nll", rows);
    }
    if (s->swap)
        json_object_set_new(
            root, "bootstrap",
            json_pack("{sI so}", "resamples", (json_int_t)s->resamples, "swap_with_next", real_array(s->swap, s->n - 1)));
}

int scores_write_json(struct file_writer *w, const char *path, const struct scores *s, const struct ranking *r,
                      const struct calibration *cal, const json_t *facts, struct err *err)
{
    json_t *root =
        json_pack("{ss ss sf so so so so ss sI}", "criterion", s->criterion, "unit", scores_sublayers(s) ? "sublayer" : "block",
                  "base_ppl", s->base_ppl, "blocks", blocks_json(s), "order", units_json(s, r->order, s->n), "protected_order",
                  units_json(s, r->protected, r->n_protected), "calibration", calibration_json(cal), "model_hash", s->model_hash,
                  "model_blocks", (json_int_t)s->model_blocks);
    add_extras(root, s);
    json_object_update_missing(root, (json_t *)facts);
    int rc = root ? json_write_part(w, path, root, err) : err_set(err, "%s: out of memory", path);
    json_decref(root);
    return rc;
}

/* ---- reading ---- */

static int read_blocks(struct scores *s, const json_t *blocks, const char *path, struct err *err)
{
    size_t i;
    json_t *b;
    if (json_array_size(blocks) == 0)
        return err_set(err, "%s: not a score file: an array \"blocks\" was expected", path);
    if (scores_room(s, (int64_t)json_array_size(blocks), err) != 0)
        return -1;
    json_array_foreach(blocks, i, b) {
        const json_t *index = json_object_get(b, "index"), *score = json_object_get(b, "score");
        const char *part = json_string_value(json_object_get(b, "part"));
        if (!json_is_integer(index) || !json_is_number(score) || (part && strcmp(part, "attn") && strcmp(part, "ffn")))
            return err_set(err, "%s: blocks[%zu]: an index and a score were expected", path, i);
        s->unit[i] = (struct unit){json_integer_value(index), !part ? PARTS_ALL : *part == 'a' ? PART_ATTN : PART_FFN};
        s->score[i] = json_number_value(score);
    }
    return 0;
}

static int read_numbers(double *out, const json_t *list, int64_t n, const char *what, const char *path, struct err *err)
{
    size_t i;
    json_t *v;
    if ((int64_t)json_array_size(list) != n)
        return err_set(err, "%s: %s: a list of %lld numbers was expected", path, what, (long long)n);
    json_array_foreach(list, i, v) {
        if (!json_is_number(v))
            return err_set(err, "%s: %s: a list of %lld numbers was expected", path, what, (long long)n);
        out[i] = json_number_value(v);
    }
    return 0;
}

static int read_rows(struct scores *s, const json_t *rows, const char *path, struct err *err)
{
    s->samples = (int64_t)json_array_size(json_array_get(rows, 0));
    if ((int64_t)json_array_size(rows) != s->n || s->samples < 1)
        return err_set(err, "%s: row_nll: a list for each of %lld blocks was expected", path, (long long)s->n);
    if (!(s->row_nll = mem_alloc((size_t)s->n, (size_t)s->samples * sizeof *s->row_nll, err)))
        return -1;
    for (int64_t i = 0; i < s->n; i++)
        if (read_numbers(s->row_nll + i * s->samples, json_array_get(rows, (size_t)i), s->samples, "row_nll", path, err) != 0)
            return -1;
    return 0;
}

static int read_windows(struct scores *s, const json_t *windows, const char *path, struct err *err)
{
    const json_t *by_length = json_object_get(windows, "distance");
    if (!(s->distance = mem_alloc((size_t)(s->n + 1), (size_t)s->n * sizeof *s->distance, err)) ||
        json_get_int(&s->window, windows, "length", path, err) != 0)
        return -1;
    for (int64_t i = 0; i < (s->n + 1) * s->n; i++)
        s->distance[i] = NAN;
    for (int64_t w = 1; w <= s->n; w++) {
        char key[24];
        snprintf(key, sizeof key, "%lld", (long long)w);
        if (read_numbers(s->distance + w * s->n, json_object_get(by_length, key), s->n - w + 1, "windows", path, err) != 0)
            return -1;
    }
    return 0;
}

int scores_read_json(struct scores *s, const char *path, struct err *err)
{
    json_t *root = json_read(path, err);
    int rc = -1;
    const char *criterion = "", *hash = "", *fingerprint = "";
    const json_t *rows = json_object_get(root, "row_nll"), *windows = json_object_get(root, "windows");
    if (!root || json_get_string(&criterion, root, "criterion", path, err) != 0 ||
        json_get_string(&hash, root, "model_hash", path, err) != 0 ||
        json_get_string(&fingerprint, root, "model_fingerprint", path, err) != 0 ||
        read_blocks(s, json_object_get(root, "blocks"), path, err) != 0)
        goto done;
    s->model_blocks = s->n; /* where the file does not say */
    if (json_get_int(&s->model_blocks, root, "model_blocks", path, err) != 0 ||
        json_get_real(&s->base_ppl, root, "base_ppl", path, err) != 0)
        goto done;
    snprintf(s->criterion, sizeof s->criterion, "%s", criterion);
    snprintf(s->model_hash, sizeof s->model_hash, "%s", hash);
    snprintf(s->fingerprint, sizeof s->fingerprint, "%s", fingerprint);
    rc = (!rows || read_rows(s, rows, path, err) == 0) && (!windows || read_windows(s, windows, path, err) == 0) ? 0 : -1;
done:
    json_decref(root);
    return rc;
}
