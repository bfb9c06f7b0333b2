#include "cli/tasks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"

void task_options(struct opt *table, struct task_words *w)
{
    struct opt opts[TASK_OPTS] = {
        {OPT_STRING, "tasks", &w->tasks, "LIST",
         "zero-shot tasks: boolq, piqa, hellaswag, winogrande, arc_easy, arc_challenge, openbookqa, lambada"},
        {OPT_STRING, "data", &w->data, "DIR", "where the tasks' published files are; for one task, a file"},
        {OPT_INT, "limit", &w->limit, "N", "only N documents of each task"},
        {OPT_INT, "offset", &w->offset, "K", "documents of each task to leave out before"},
        {OPT_FLAG, "bos", &w->bos, NULL,
         "BOS before every text of a task, as lm-eval 0.4 has it for LLaMA; without: as the published numbers"},
    };
    memcpy(table, opts, sizeof opts);
}

/* ---- reading ---- */

/* Options that mean nothing without --tasks. */
static int check_no_tasks(const struct task_words *w, struct err *err)
{
    const char *name = w->data ? "data" : w->limit ? "limit" : w->offset ? "offset" : w->bos ? "bos" : NULL;
    return name ? err_usage(err, "--%s goes with --tasks", name) : 0;
}

/* "boolq,piqa" */
static int parse_tasks(struct eval_tasks *t, const char *list, struct err *err)
{
    char *copy = strdup(list), *rest = copy;
    int rc = copy ? 0 : err_set(err, "out of memory");
    for (char *name; rc == 0 && (name = strsep(&rest, ","));) {
        const struct task *task = t->n < MAX_TASKS ? task_find(name) : NULL;
        if (!task)
            rc = err_usage(err,
                           "--tasks %s: \"%s\" is no task; there are boolq, piqa, hellaswag, winogrande, arc_easy, arc_challenge, "
                           "openbookqa and lambada",
                           list, name);
        for (int64_t i = 0; i < t->n && rc == 0; i++)
            if (t->task[i] == task)
                rc = err_usage(err, "--tasks %s: %s comes twice", list, name);
        if (rc == 0)
            t->task[t->n++] = task;
    }
    free(copy);
    return rc;
}

int eval_tasks_open(struct eval_tasks *t, const struct task_words *w, struct err *err)
{
    *t = (struct eval_tasks){.words = *w};
    if (w->limit < 0 || w->offset < 0)
        return err_usage(err, "--limit and --offset must not be negative");
    if (!w->tasks)
        return check_no_tasks(w, err);
    if (parse_tasks(t, w->tasks, err) != 0)
        return -1;
    if (!w->data)
        return err_usage(err, "--data is missing: the folder where the files of the tasks are");
    int there = path_status(w->data, err);
    if (there < 0)
        return -1;
    if (t->n > 1 && there && !path_is_dir(w->data))
        return err_usage(err, "--data %s: a folder was expected, as %lld tasks were asked for", w->data, (long long)t->n);
    t->published = tasks_average(t->averaged, t->task, t->n);
    for (int64_t i = 0; i < t->n; i++)
        if (task_read(&t->set[i], t->task[i], w->data, w->offset, w->limit, err) != 0)
            return -1;
    return 0;
}

void eval_tasks_free(struct eval_tasks *t)
{
    for (int64_t i = 0; i < t->n; i++)
        task_free(&t->set[i]);
    *t = (struct eval_tasks){0};
}

/* ---- running ---- */

int eval_tasks_check(struct eval_tasks *t, const struct session *s, struct err *err)
{
    for (int64_t i = 0; i < t->n; i++)
        if (zeroshot_check(t->tokens[i], &t->set[i], &s->m, s->t, t->words.bos, err) != 0)
            return -1;
    return 0;
}

void running_parts(uint8_t *parts, const struct model *m)
{
    memset(parts, 0, (size_t)m->cfg.n_blocks);
    for (int64_t k = 0; k < m->n_order; k++)
        parts[m->order[k]] = (uint8_t)m->blocks[m->order[k]].parts;
}

double eval_tasks_average(double *std_error, const struct eval_tasks *t, const struct zeroshot_result *results, int64_t n,
                          int64_t v)
{
    return zeroshot_average(std_error, results + v, t->averaged, t->n, n);
}

/* ---- results ---- */

static json_t *share(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

json_t *task_result_json(const struct zeroshot_result *r)
{
    const struct task *t = r->task;
    json_t *norm = t->has_norm ? share(r->acc_norm) : json_null(),
           *norm_stderr = t->has_norm ? share(r->acc_norm_stderr) : json_null();
    json_t *o = json_pack("{sf so so so sI}", "acc", r->acc, "acc_stderr", share(r->acc_stderr), "acc_norm", norm,
                          "acc_norm_stderr", norm_stderr, "n", (json_int_t)r->n);
    if (t->greedy)
        json_object_set_new(o, "perplexity", share(r->perplexity));
    return o;
}

bool task_result_read(struct zeroshot_result *r, const struct task *t, const json_t *o)
{
    const struct {
        const char *key;
        double *value;
        bool wanted;
    } numbers[] = {{"acc", &r->acc, true},
                   {"acc_stderr", &r->acc_stderr, false},
                   {"acc_norm", &r->acc_norm, t->has_norm},
                   {"acc_norm_stderr", &r->acc_norm_stderr, false},
                   {"perplexity", &r->perplexity, false}};
    *r = (struct zeroshot_result){.task = t, .n = json_integer_value(json_object_get(o, "n"))};
    bool whole = r->n > 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const json_t *v = json_object_get(o, numbers[i].key);
        *numbers[i].value = json_is_number(v) ? json_number_value(v) : (double)NAN; /* null: not a number, or not there */
        whole &= json_is_number(v) || !numbers[i].wanted;
    }
    return whole;
}

json_t *task_source_json(const struct task_set *s)
{
    return json_pack("{ss so ss sI}", "reported", task_metric(s->task), "file", json_text(s->file), "sha256", s->sha256,
                     "documents_in_file", (json_int_t)s->n_rows);
}
