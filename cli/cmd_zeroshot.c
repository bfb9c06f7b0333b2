#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/file.h"
#include "eval/zeroshot.h"

enum { MAX_TASKS = 16 };

/* What one run of the command works with. */
struct work {
    const char *tasks, *data, *samples_out;
    int64_t limit, offset;
    bool bos;
    struct opt_list drop;
    int64_t n_tasks;
    struct task_set set[MAX_TASKS];
    struct variants variants;
    struct zeroshot_result *results; /* [n_tasks, variants] */
    struct file_writer samples;
    struct arena arena;
};

/* ---- tasks and variants ---- */

/* The tasks that --tasks names; their files are read at once, so that what is wrong with them shows before the work begins. */
static int read_tasks(struct work *w, struct err *err)
{
    char *rest = arena_strdup(&w->arena, w->tasks, err);
    const struct task *task[MAX_TASKS];
    int64_t n = 0;
    for (char *name; rest && (name = strsep(&rest, ","));) {
        if (n == MAX_TASKS || !(task[n] = task_find(name)))
            return err_usage(err,
                             "--tasks %s: \"%s\" is no task; there are boolq, piqa, hellaswag, winogrande, arc_easy, "
                             "arc_challenge, openbookqa and lambada",
                             w->tasks, name);
        for (int64_t i = 0; i < n; i++)
            if (task[i] == task[n])
                return err_usage(err, "--tasks %s: %s comes twice", w->tasks, name);
        n++;
    }
    if (n == 0)
        return -1;
    if (n > 1 && path_exists(w->data) && !path_is_dir(w->data))
        return err_usage(err, "--data %s: a folder was expected, as %lld tasks were asked for", w->data, (long long)n);
    for (; w->n_tasks < n; w->n_tasks++)
        if (task_read(&w->set[w->n_tasks], task[w->n_tasks], w->data, w->offset, w->limit, err) != 0)
            return -1;
    return 0;
}

/* Several --drop: what of each block runs in each variant. The model itself is left whole. */
static int make_variants(struct work *w, struct model *m, struct err *err)
{
    w->variants = (struct variants){.n = 1};
    if (w->drop.n < 2)
        return 0;
    int64_t n = m->n_order;
    uint8_t *parts = arena_alloc(&w->arena, (size_t)w->drop.n, (size_t)n, err);
    if (!parts)
        return -1;
    for (int v = 0; v < w->drop.n; v++) {
        if (model_drop_list(m, w->drop.value[v], err) != 0)
            return -1;
        for (int64_t k = 0; k < m->n_order; k++)
            parts[v * n + m->order[k]] = (uint8_t)m->blocks[m->order[k]].parts;
        model_restore(m);
    }
    w->variants = (struct variants){w->drop.n, parts};
    return 0;
}

/* ---- output ---- */

static json_t *share(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

/* {"task", "index", "ll", ...} of one document, a line. */
static int put_sample(struct work *w, const struct task_set *s, int64_t variant, int64_t i, const struct zeroshot_result *r,
                      struct err *err)
{
    const struct task_document *d = &s->docs[i];
    const struct zeroshot_document *z = &r->docs[i];
    json_t *ll = json_array(), *len = json_array();
    for (int k = 0; k < d->n_choices; k++) {
        json_array_append_new(ll, json_real(z->ll[k]));
        json_array_append_new(len, json_integer(d->choice[k].chars));
    }
    json_t *o =
        json_pack("{ss sI so so si si so}", "task", s->task->name, "index", (json_int_t)d->index, "ll", ll, "choice_len", len,
                  "gold", d->gold, "acc", (int)z->acc, "acc_norm", s->task->has_norm ? json_integer(z->acc_norm) : json_null());
    if (w->variants.n > 1)
        json_object_set_new(o, "drop", json_string(w->drop.value[variant]));
    char *line = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    int rc = line ? file_writer_put(&w->samples, line, strlen(line), err) : err_set(err, "out of memory");
    free(line);
    return rc == 0 ? file_writer_put(&w->samples, "\n", 1, err) : -1;
}

/* The mean of the published metrics, which is one of all seven tasks or none. */
static double average(const struct work *w, int64_t variant)
{
    double sum = 0;
    int n = 0, all = 0;
    for (const struct task *t = task_table; t->name; t++)
        all += t->averaged;
    for (int64_t i = 0; i < w->n_tasks; i++)
        if (w->set[i].task->averaged) {
            sum += zeroshot_reported(&w->results[i * w->variants.n + variant]);
            n++;
        }
    return n == all ? sum / n : (double)NAN;
}

static json_t *task_json(const struct task_set *s, const struct zeroshot_result *r)
{
    const struct task *t = s->task;
    json_t *norm = t->has_norm ? share(r->acc_norm) : json_null(),
           *norm_stderr = t->has_norm ? share(r->acc_norm_stderr) : json_null();
    json_t *file = json_string(s->file);
    json_t *o = json_pack("{sf so so so sI ss so ss sI}", "acc", r->acc, "acc_stderr", share(r->acc_stderr), "acc_norm", norm,
                          "acc_norm_stderr", norm_stderr, "n", (json_int_t)r->n, "reported", t->reports_norm ? "acc_norm" : "acc",
                          "file", file ? file : json_null(), "sha256", s->sha256, "documents_in_file", (json_int_t)s->n_rows);
    if (t->greedy)
        json_object_set_new(o, "perplexity", share(r->perplexity));
    return o;
}

static json_t *variant_json(const struct work *w, int64_t variant)
{
    json_t *tasks = json_object();
    for (int64_t i = 0; i < w->n_tasks; i++)
        json_object_set_new(tasks, w->set[i].task->name, task_json(&w->set[i], &w->results[i * w->variants.n + variant]));
    return json_pack("{so so}", "tasks", tasks, "average", share(average(w, variant)));
}

static json_t *all_json(const struct work *w)
{
    json_t *o, *list = json_array();
    if (w->variants.n == 1) {
        json_decref(list);
        o = variant_json(w, 0);
    } else {
        for (int64_t v = 0; v < w->variants.n; v++) {
            json_t *one = variant_json(w, v);
            json_object_set_new(one, "drop", json_string(w->drop.value[v]));
            json_array_append_new(list, one);
        }
        o = json_pack("{so}", "variants", list);
    }
    json_object_set_new(o, "bos", json_boolean(w->bos));
    json_object_set_new(o, "offset", json_integer(w->offset));
    return o;
}

static void print_share(FILE *out, double v, double error, bool published)
{
    fprintf(out, "  %7.2f%s", 100 * v, published ? "*" : " ");
    if (isfinite(error))
        fprintf(out, " +- %5.2f", 100 * error);
    else
        fprintf(out, "         ");
}

static void print_variant(FILE *out, const struct work *w, int64_t variant)
{
    double mean = average(w, variant);
    if (w->variants.n > 1)
        fprintf(out, "%swithout blocks %s\n", variant ? "\n" : "", *w->drop.value[variant] ? w->drop.value[variant] : "(none)");
    fprintf(out, "%-14s %9s  %-17s  %-17s\n", "task", "documents", "   acc %", "   acc_norm %");
    for (int64_t i = 0; i < w->n_tasks; i++) {
        const struct zeroshot_result *r = &w->results[i * w->variants.n + variant];
        fprintf(out, "%-14s %9lld", r->task->name, (long long)r->n);
        print_share(out, r->acc, r->acc_stderr, !r->task->reports_norm);
        if (r->task->has_norm)
            print_share(out, r->acc_norm, r->acc_norm_stderr, r->task->reports_norm);
        if (r->task->greedy)
            fprintf(out, "  perplexity %.4f", r->perplexity);
        fputc('\n', out);
    }
    if (isfinite(mean))
        fprintf(out, "%-14s %9s  %7.2f   (of the published metrics, *)\n", "average", "", 100 * mean);
}

/* ---- the command ---- */

static int run_tasks(struct work *w, struct session *s, struct cli *cli, struct err *err)
{
    int64_t n = w->variants.n;
    if (!(w->results = arena_alloc(&w->arena, (size_t)(w->n_tasks * n), sizeof *w->results, err)))
        return -1;
    for (int64_t i = 0; i < w->n_tasks; i++) {
        struct zeroshot_result *r = w->results + i * n;
        const struct task_set *set = &w->set[i];
        if (zeroshot_run(r, set, &s->m, &s->c, s->adapter, s->t, &w->variants, w->bos, &cli->progress, err) != 0)
            return -1;
        for (int64_t v = 0; v < n && w->samples_out; v++)
            for (int64_t d = 0; d < set->n; d++)
                if (put_sample(w, set, v, d, &r[v], err) != 0)
                    return -1;
    }
    return w->samples_out ? file_writer_commit(&w->samples, err) : 0;
}

static void work_free(struct work *w)
{
    for (int64_t i = 0; w->results && i < w->n_tasks * w->variants.n; i++)
        zeroshot_free(&w->results[i]);
    for (int64_t i = 0; i < w->n_tasks; i++)
        task_free(&w->set[i]);
    file_writer_abort(&w->samples);
    arena_free(&w->arena);
}

/* Checks the words; one --drop is the common option, several need a whole model. */
static int check_words(struct work *w, struct common *o, struct err *err)
{
    if (!w->data)
        return err_usage(err, "eval zeroshot needs --data");
    if (w->limit < 0 || w->offset < 0)
        return err_usage(err, "--limit and --offset must not be negative");
    if (w->drop.n > 1 && o->adapter)
        return err_usage(err, "--adapter goes with one --drop, as it was trained for one of them");
    o->drop = w->drop.n == 1 ? w->drop.value[0] : NULL;
    return 0;
}

int cmd_eval_zeroshot(struct cli *cli, struct err *err)
{
    struct work w = {.tasks = "boolq,piqa,hellaswag,winogrande,arc_easy,arc_challenge,openbookqa"};
    struct opt own[] = {
        {OPT_STRING, "tasks", &w.tasks, "LIST", "which ones; there is lambada, too"},
        {OPT_STRING, "data", &w.data, "DIR", "where the published files are; for one task, a file"},
        {OPT_INT, "limit", &w.limit, "N", "only N documents of each task"},
        {OPT_INT, "offset", &w.offset, "K", "documents to leave out before"},
        {OPT_FLAG, "bos", &w.bos, NULL,
         "BOS before every text, as lm-eval 0.4 has it for LLaMA; without: as the published numbers"},
        {OPT_STRING, "samples-out", &w.samples_out, "FILE", "a line of JSON for each document"},
        {OPT_LIST, "drop", &w.drop, "10,11", "run without these blocks; again and again for several models at once"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s = {0};
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL --tasks LIST --data DIR", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    rc = -1;
    if (check_words(&w, &o, err) != 0 || read_tasks(&w, err) != 0 ||
        session_open(&s, &o, words.word[0], NEEDS_TOKENIZER | BLOCKWISE, err) != 0)
        goto done;
    if ((w.samples_out && file_writer_open(&w.samples, w.samples_out, err) != 0) || make_variants(&w, &s.m, err) != 0 ||
        run_tasks(&w, &s, cli, err) != 0)
        goto done;
    cli->result = session_facts(&s, cli, &o);
    json_object_update_new(cli->result, all_json(&w));
    for (int64_t v = 0; v < w.variants.n && cli->out && !cli->json; v++)
        print_variant(cli->out, &w, v);
    rc = 0;
done:
    work_free(&w);
    session_close(&s);
    return rc;
}
