#include "data/instructions.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"

/* The Alpaca templates (Taori et al., 2023). */
static const char WITH_INPUT[] =
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n%s\n\n### Input:\n%s\n\n### Response:\n";
static const char WITHOUT_INPUT[] =
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n%s\n\n### Response:\n";

static int row_alloc(struct instruction_row *r, int64_t n, struct err *err)
{
    r->n = n;
    r->ids = malloc((size_t)n * sizeof *r->ids + 1);
    r->labels = malloc((size_t)n * sizeof *r->labels + 1);
    if (!r->ids || !r->labels) {
        free(r->ids);
        free(r->labels);
        *r = (struct instruction_row){0};
        return err_set(err, "out of memory");
    }
    return 0;
}

/* Whether some position but the first has a label: the first one has nothing before it to be predicted from. */
static bool has_target(const struct instruction_row *r)
{
    for (int64_t i = 1; i < r->n; i++)
        if (r->labels[i] != LABEL_NONE)
            return true;
    return false;
}

static int encode(struct ids *ids, const struct tokenizer *t, const char *text, int64_t cutoff, struct err *err)
{
    ids->n = 0;
    if (tokenizer_adds_bos(t) && ids_push(ids, tokenizer_bos(t), err) != 0)
        return -1;
    if (tokenizer_encode(ids, t, text, strlen(text), err) != 0)
        return -1;
    if ((int64_t)ids->n > cutoff)
        ids->n = (size_t)cutoff;
    return 0;
}

static int make_row(struct instruction_row *r, const struct tokenizer *t, const char *instruction, const char *input,
                    const char *output, int64_t cutoff, bool train_on_inputs, struct err *err)
{
    struct ids whole = {0}, alone = {0};
    char *prompt = NULL, *text = NULL;
    int32_t eos = tokenizer_eos(t);
    int rc = -1;
    if (asprintf(&prompt, *input ? WITH_INPUT : WITHOUT_INPUT, instruction, input) < 0 ||
        asprintf(&text, "%s%s", prompt, output) < 0) {
        err_set(err, "out of memory");
        goto done;
    }
    if (encode(&whole, t, text, cutoff, err) != 0 || encode(&alone, t, prompt, cutoff, err) != 0)
        goto done;
    if (eos >= 0 && (int64_t)whole.n < cutoff && (whole.n == 0 || whole.ids[whole.n - 1] != eos) && ids_push(&whole, eos, err) != 0)
        goto done;
    if (row_alloc(r, (int64_t)whole.n, err) != 0)
        goto done;
    for (int64_t i = 0; i < r->n; i++) {
        r->ids[i] = whole.ids[i];
        r->labels[i] = i < (int64_t)alone.n && !train_on_inputs ? LABEL_NONE : whole.ids[i];
    }
    rc = 0;
done:
    free(prompt);
    free(text);
    free(whole.ids);
    free(alone.ids);
    return rc;
}

/* Keeps the row just made at d->rows[d->n], or lets it go when there is nothing to learn in it. */
static void keep(struct instructions *d)
{
    struct instruction_row *r = &d->rows[d->n];
    if (has_target(r)) {
        d->n++;
        return;
    }
    free(r->ids);
    free(r->labels);
    *r = (struct instruction_row){0};
    d->skipped++;
}

/* The file as one JSON array, whether it is one or a .jsonl. */
static json_t *read_array(const char *path, struct err *err)
{
    if (!path_has_suffix(path, ".jsonl") && !path_has_suffix(path, ".jsonl.gz")) {
        json_t *root = json_read(path, err);
        if (root && !json_is_array(root)) {
            err_set(err, "%s: a JSON array was expected", path);
            json_decref(root);
            return NULL;
        }
        return root;
    }
    char *text;
    size_t n, at = 0, line = 0;
    if (file_read(&text, &n, path, err) != 0)
        return NULL;
    json_t *list = json_array();
    while (list && at < n) {
        size_t len = strcspn(text + at, "\n");
        json_error_t why;
        line++;
        if (strspn(text + at, " \t\r") < len) {
            json_t *v = json_loadb(text + at, len, 0, &why);
            if (!v) {
                err_set(err, "%s: line %zu is not valid JSON: %s", path, line, why.text);
                json_decref(list);
                list = NULL;
                break;
            }
            json_array_append_new(list, v);
        }
        at += len + 1;
    }
    free(text);
    return list;
}

/* What makes one training row of one JSON value, and the settings it does that with. */
struct maker {
    int (*make)(struct instruction_row *r, const struct maker *m, const json_t *v, size_t at, struct err *err);
    const char *path;
    const struct tokenizer *t;
    int64_t cutoff;
    bool train_on_inputs;
};

static int alpaca_row(struct instruction_row *r, const struct maker *m, const json_t *v, size_t at, struct err *err)
{
    const char *instruction = NULL, *input = "", *output = NULL;
    if (json_get_string(&instruction, v, "instruction", m->path, err) != 0 ||
        json_get_string(&input, v, "input", m->path, err) != 0 || json_get_string(&output, v, "output", m->path, err) != 0)
        return -1;
    if (!instruction || !output)
        return err_set(err, "%s: row %zu: \"instruction\" and \"output\" were expected", m->path, at);
    return make_row(r, m->t, instruction, input, output, m->cutoff, m->train_on_inputs, err);
}

static int ready_row(struct instruction_row *r, const struct maker *m, const json_t *v, size_t at, struct err *err)
{
    const json_t *ids = json_object_get(v, "ids"), *labels = json_object_get(v, "labels");
    int64_t n = (int64_t)json_array_size(ids);
    if (n == 0 || n != (int64_t)json_array_size(labels))
        return err_set(err, "%s: row %zu: \"ids\" and \"labels\" of one length were expected", m->path, at);
    if (row_alloc(r, n < m->cutoff ? n : m->cutoff, err) != 0)
        return -1;
    for (int64_t i = 0; i < r->n; i++) {
        const json_t *id = json_array_get(ids, (size_t)i), *label = json_array_get(labels, (size_t)i);
        json_int_t a = json_integer_value(id), b = json_integer_value(label);
        if (!json_is_integer(id) || !json_is_integer(label) || a < 0 || a > INT32_MAX || (b < 0 && b != LABEL_NONE) ||
            b > INT32_MAX) {
            free(r->ids);
            free(r->labels);
            *r = (struct instruction_row){0};
            return err_set(err, "%s: row %zu: position %lld is no token id, or its label neither an id nor -100", m->path, at,
                           (long long)i);
        }
        r->ids[i] = (int32_t)a;
        r->labels[i] = (int32_t)b;
    }
    return 0;
}

/* Every row of the file that has something to learn. */
static int read_all(struct instructions *d, const struct maker *m, struct err *err)
{
    json_t *root = read_array(m->path, err), *v;
    size_t i;
    int rc = -1;
    *d = (struct instructions){0};
    if (!root)
        return -1;
    d->rows = calloc(json_array_size(root) + 1, sizeof *d->rows);
    if (!d->rows) {
        err_set(err, "out of memory");
        goto done;
    }
    json_array_foreach(root, i, v) {
        if (m->make(&d->rows[d->n], m, v, i, err) != 0)
            goto done;
        keep(d);
    }
    if (d->n == 0) {
        err_set(err, "%s: holds no row with anything to learn in its first %lld tokens", m->path, (long long)m->cutoff);
        goto done;
    }
    rc = 0;
done:
    json_decref(root);
    if (rc != 0)
        instructions_free(d);
    return rc;
}

int instructions_read(struct instructions *d, const char *path, const struct tokenizer *t, int64_t cutoff, bool train_on_inputs,
                      struct err *err)
{
    return read_all(d, &(struct maker){alpaca_row, path, t, cutoff, train_on_inputs}, err);
}

int instructions_read_rows(struct instructions *d, const char *path, int64_t cutoff, struct err *err)
{
    return read_all(d, &(struct maker){.make = ready_row, .path = path, .cutoff = cutoff}, err);
}

void instructions_free(struct instructions *d)
{
    for (int64_t i = 0; i < d->n; i++) {
        free(d->rows[i].ids);
        free(d->rows[i].labels);
    }
    free(d->rows);
    *d = (struct instructions){0};
}
