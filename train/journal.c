#include "train/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/record.h"
#include "core/io/h5.h"
#include "core/io/safetensors.h"
#include "core/io/source.h"

int journal_open(FILE **out, const char *dir, int64_t step, struct err *err)
{
    char *path = path_join(dir, "train.jsonl", err), *line = NULL;
    size_t cap = 0;
    int rc = -1;
    off_t keep = 0;
    int fd = path ? open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | (step > 0 ? 0 : O_CREAT), 0666) : -1;
    FILE *f = fd >= 0 ? fdopen(fd, "r+") : NULL;
    if (!f) {
        if (path && fd < 0 && errno == ELOOP)
            err_set(err, "%s: is a link, which is not written through; remove it", path);
        else if (path)
            err_errno(err, "%s", path);
        goto done;
    }
    while (step > 0 && getline(&line, &cap, f) > 0) {
        json_error_t why;
        json_t *v = json_loads(line, 0, &why);
        json_int_t at = json_integer_value(json_object_get(v, "step"));
        json_decref(v);
        if (!v || at > step)
            break;
        keep = ftello(f);
    }
    if (ftruncate(fileno(f), keep) != 0 || fseeko(f, keep, SEEK_SET) != 0) {
        err_errno(err, "%s", path);
        goto done;
    }
    *out = f;
    f = NULL;
    rc = 0;
done:
    if (f)
        fclose(f);
    free(line);
    free(path);
    return rc;
}

int journal_put(FILE *f, const char *dir, json_t *line, struct err *err)
{
    char *text = json_failed() ? NULL : json_dumps(line, JSON_COMPACT);
    if (!text)
        errno = ENOMEM;
    int rc = text && fprintf(f, "%s\n", text) > 0 && fflush(f) == 0 ? 0 : err_errno(err, "%s/train.jsonl: cannot write", dir);
    free(text);
    json_decref(line);
    return rc;
}

/* ---- curves ---- */

static const char *const curves[] = {"loss", "grad_norm", "lr", "tokens_per_s"};
enum { N_CURVES = 4 };

struct table {
    int64_t n, n_evals, micro;
    int64_t *step, *eval_step;
    double *curve[N_CURVES], *micro_losses, *eval_loss;
    struct arena arena;
};

static int table_alloc(struct table *t, int64_t lines, int64_t micro, struct err *err)
{
    size_t n = (size_t)lines;
    t->micro = micro;
    t->step = arena_alloc(&t->arena, n, sizeof *t->step, err);
    t->eval_step = arena_alloc(&t->arena, n, sizeof *t->eval_step, err);
    t->eval_loss = arena_alloc(&t->arena, n, sizeof *t->eval_loss, err);
    t->micro_losses = arena_alloc(&t->arena, n * (size_t)micro, sizeof *t->micro_losses, err);
    for (int k = 0; k < N_CURVES; k++)
        if (!(t->curve[k] = arena_alloc(&t->arena, n, sizeof(double), err)))
            return -1;
    return t->step && t->eval_step && t->eval_loss && t->micro_losses ? 0 : -1;
}

static void table_add(struct table *t, const json_t *line)
{
    const json_t *micro = json_object_get(line, "micro_losses");
    int64_t step = json_integer_value(json_object_get(line, "step"));
    if (!micro) {
        t->eval_step[t->n_evals] = step;
        t->eval_loss[t->n_evals++] = json_number_value(json_object_get(line, "eval_loss"));
        return;
    }
    t->step[t->n] = step;
    for (int k = 0; k < N_CURVES; k++)
        t->curve[k][t->n] = json_number_value(json_object_get(line, curves[k]));
    for (int64_t k = 0; k < t->micro; k++) {
        const json_t *v = json_array_get(micro, (size_t)k);
        t->micro_losses[t->n * t->micro + k] = v ? json_number_value(v) : NAN; /* a last, short step has fewer */
    }
    t->n++;
}

/* Parses the lines; the widest list of micro-losses sets the table's width. */
static int table_read(struct table *t, const char *path, struct err *err)
{
    char *text;
    size_t size, widest = 1;
    int rc = -1;
    if (file_read(&text, &size, path, err) != 0)
        return -1;
    json_t *lines = json_array(), *v;
    size_t i;
    for (char *p = text; *p; p += strcspn(p, "\n") + (p[strcspn(p, "\n")] == '\n')) {
        json_error_t why;
        json_t *line = json_loadb(p, strcspn(p, "\n"), 0, &why);
        size_t n = json_array_size(json_object_get(line, "micro_losses"));
        widest = n > widest ? n : widest;
        if (line)
            json_array_append_new(lines, line);
    }
    if (table_alloc(t, (int64_t)json_array_size(lines) + 1, (int64_t)widest, err) != 0)
        goto done;
    json_array_foreach(lines, i, v)
        table_add(t, v);
    rc = 0;
done:
    json_decref(lines);
    free(text);
    return rc;
}

static int write_table(const char *path, const struct table *t, const json_t *facts, struct err *err)
{
    struct h5_writer w;
    if (h5_writer_open(&w, path, err) != 0)
        return -1;
    if (h5_put_i64(&w, "step", t->step, &t->n, 1, err) != 0 || h5_attr_json(&w, facts, err) != 0 ||
        h5_put_f64(&w, "micro_losses", t->micro_losses, (int64_t[]){t->n, t->micro}, 2, err) != 0 ||
        h5_put_i64(&w, "eval/step", t->eval_step, &t->n_evals, 1, err) != 0 ||
        h5_put_f64(&w, "eval/loss", t->eval_loss, &t->n_evals, 1, err) != 0)
        goto fail;
    for (int k = 0; k < N_CURVES; k++)
        if (h5_put_f64(&w, curves[k], t->curve[k], &t->n, 1, err) != 0)
            goto fail;
    return h5_writer_commit(&w, err);
fail:
    h5_writer_abort(&w);
    return -1;
}

int journal_to_h5(const char *dir, const json_t *facts, struct err *err)
{
    struct table t = {0};
    int rc = -1;
    char *in = path_join(dir, "train.jsonl", err), *out = path_join(dir, "train.h5", err);
    if (in && out && table_read(&t, in, err) == 0)
        rc = write_table(out, &t, facts, err);
    arena_free(&t.arena);
    free(in);
    free(out);
    return rc;
}

/* ---- the state to resume from ---- */

static const char STATE[] = "checkpoint.safetensors";
enum { STATE_PARAMS, STATE_M, STATE_V, STATE_STEP, STATE_BEST, STATE_TENSORS };
static const char *const state_names[STATE_TENSORS] = {"params", "m", "v", "step", "best_eval_loss"};

int state_save(const char *dir, const struct lora_set *l, const struct adamw *o, double best, const json_t *work, struct err *err)
{
    /* step as two floats: each below 2^24, so exact */
    float step[2] = {(float)(o->t >> 20), (float)(o->t & ((1 << 20) - 1))}, best_loss = (float)best;
    const void *data[STATE_TENSORS] = {l->params, o->m, o->v, step, &best_loss};
    const int64_t n[STATE_TENSORS] = {l->n_params, l->n_params, l->n_params, 2, 1};
    struct tensor_entry entries[STATE_TENSORS];
    struct safetensors_writer w;
    char *path = path_join(dir, STATE, err), *note = work ? json_dumps(work, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    int rc = -1;
    for (int i = 0; i < STATE_TENSORS; i++)
        entries[i] = (struct tensor_entry){state_names[i], DTYPE_F32, 1, {n[i]}};
    if (work && !note)
        err_set(err, "out of memory");
    if (path && (!work || note) && safetensors_writer_fill(&w, path, entries, data, STATE_TENSORS, note, err) == 0)
        rc = safetensors_writer_commit(&w, err);
    free(note);
    free(path);
    return rc;
}

/* A training goes on only as what it was. */
static int check_work(const char *path, const json_t *work, struct err *err)
{
    char *note;
    if (safetensors_note(&note, path, err) != 0)
        return -1;
    if (!note)
        return err_set(err, "%s: does not say what training it is of: an older program made it; --force begins anew", path);
    json_t *was = json_parse(note, strlen(note), path, err);
    int rc = was ? record_compare(was, work, path, err) : -1;
    json_decref(was);
    free(note);
    return rc;
}

int state_load(const char *dir, struct lora_set *l, struct adamw *o, double *best, const json_t *work, struct err *err)
{
    struct source src = {0};
    float step[2], best_loss;
    float *data[STATE_TENSORS] = {l->params, o->m, o->v, step, &best_loss};
    const int64_t n[STATE_TENSORS] = {l->n_params, l->n_params, l->n_params, 2, 1};
    char *path = path_join(dir, STATE, err);
    int rc = -1;
    if (!path || (work && check_work(path, work, err) != 0) || source_open(&src, path, err) != 0)
        goto done;
    for (int i = 0; i < STATE_TENSORS; i++) {
        const struct tensor *t = source_find(&src, state_names[i]);
        if (!t || t->dtype != DTYPE_F32 || tensor_elements(t) != n[i]) {
            err_set(err, "%s: tensor %s of %lld floats was expected; was the training started with other options?", path,
                    state_names[i], (long long)n[i]);
            goto done;
        }
        memcpy(data[i], t->data, (size_t)n[i] * sizeof(float));
    }
    for (int i = 0; i < 2; i++)
        if (!(step[i] >= 0 && step[i] < 1 << 20) || step[i] != floorf(step[i])) {
            err_set(err, "%s: tensor step holds no number of steps", path);
            goto done;
        }
    o->t = ((int64_t)step[0] << 20) + (int64_t)step[1];
    *best = (double)best_loss;
    rc = 0;
done:
    source_close(&src);
    free(path);
    return rc;
}
