#include "data/instructions.h"

#include <stdlib.h>
#include <string.h>

#include "data/rows.h"

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

/* Text with its length: it may hold U+0000. */
struct text {
    const char *s;
    size_t n;
};

static int encode(struct ids *ids, const struct tokenizer *t, const char *text, size_t n, int64_t cutoff, struct err *err)
{
    ids->n = 0;
    if (tokenizer_adds_bos(t) && ids_push(ids, tokenizer_bos(t), err) != 0)
        return -1;
    if (tokenizer_encode(ids, t, text, n, err) != 0)
        return -1;
    if ((int64_t)ids->n > cutoff)
        ids->n = (size_t)cutoff;
    return 0;
}

/* The template with its two %s filled in and the output behind it, malloc'ed; *n_prompt: where the output begins. */
static char *fill_template(size_t *n, size_t *n_prompt, const struct text *instruction, const struct text *input,
                           const struct text *output)
{
    const struct text *fill[] = {instruction, input};
    const char *template = input->n ? WITH_INPUT : WITHOUT_INPUT;
    size_t room = sizeof WITH_INPUT + instruction->n + input->n + output->n;
    char *text = malloc(room), *to = text;
    for (int k = 0; text && *template;) {
        size_t plain = strcspn(template, "%");
        to = mempcpy(to, template, plain);
        template += plain;
        if (!*template)
            break;
        to = mempcpy(to, fill[k]->s, fill[k]->n);
        k++;
        template += 2; /* %s */
    }
    if (!text)
        return NULL;
    *n_prompt = (size_t)(to - text);
    to = mempcpy(to, output->s, output->n);
    *n = (size_t)(to - text);
    return text;
}

static int make_row(struct instruction_row *r, const struct tokenizer *t, const struct text *instruction, const struct text *input,
                    const struct text *output, int64_t cutoff, bool train_on_inputs, struct err *err)
{
    struct ids whole = {0}, alone = {0};
    size_t n = 0, n_prompt = 0;
    char *text = fill_template(&n, &n_prompt, instruction, input, output);
    int32_t eos = tokenizer_eos(t);
    int rc = -1;
    if (!text) {
        err_set(err, "out of memory");
        goto done;
    }
    if (encode(&whole, t, text, n, cutoff, err) != 0 || encode(&alone, t, text, n_prompt, cutoff, err) != 0)
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

/* What makes one training row of one row of the file, and the settings it does that with. */
struct maker {
    int (*make)(struct instruction_row *r, const struct maker *m, const struct row *row, struct err *err);
    const char *path;
    const struct tokenizer *t;
    int64_t cutoff;
    bool train_on_inputs;
};

static int alpaca_row(struct instruction_row *r, const struct maker *m, const struct row *row, struct err *err)
{
    struct text instruction, input = {"", 0}, output;
    if (!row_has(row, "instruction") || !row_has(row, "output"))
        return row_error(row, err, "\"instruction\" and \"output\" were expected");
    if (!(instruction.s = row_string(&instruction.n, row, "instruction", err)) ||
        !(output.s = row_string(&output.n, row, "output", err)) ||
        (row_has(row, "input") && !(input.s = row_string(&input.n, row, "input", err))))
        return -1;
    return make_row(r, m->t, &instruction, &input, &output, m->cutoff, m->train_on_inputs, err);
}

static int ready_row(struct instruction_row *r, const struct maker *m, const struct row *row, struct err *err)
{
    const json_t *ids = json_object_get(row->v, "ids"), *labels = json_object_get(row->v, "labels");
    int64_t n = (int64_t)json_array_size(ids);
    if (n == 0 || n != (int64_t)json_array_size(labels))
        return row_error(row, err, "\"ids\" and \"labels\" of one length were expected");
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
            return row_error(row, err, "position %lld is no token id, or its label neither an id nor -100", (long long)i);
        }
        r->ids[i] = (int32_t)a;
        r->labels[i] = (int32_t)b;
    }
    return 0;
}

/* Every row of the file that has something to learn. */
static int read_all(struct instructions *d, const struct maker *m, struct err *err)
{
    struct rows rows;
    int rc = -1;
    *d = (struct instructions){0};
    if (rows_read(&rows, m->path, err) != 0)
        return -1;
    d->rows = calloc((size_t)rows.n + 1, sizeof *d->rows);
    if (!d->rows) {
        err_set(err, "out of memory");
        goto done;
    }
    for (int64_t i = 0; i < rows.n; i++) {
        struct row row = row_at(&rows, i);
        if (m->make(&d->rows[d->n], m, &row, err) != 0)
            goto done;
        keep(d);
    }
    if (d->n == 0) {
        err_set(err, "%s: holds no row with anything to learn in its first %lld tokens", m->path, (long long)m->cutoff);
        goto done;
    }
    rc = 0;
done:
    rows_free(&rows);
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
