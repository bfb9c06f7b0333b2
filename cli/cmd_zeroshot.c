#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tasks.h"
#include "core/base/file.h"
#include "core/base/place.h"

/* What one run of the command works with. */
struct work {
    struct task_words words;
    const char *samples_out;
    struct opt_list drop;
    struct eval_tasks tasks;
    struct variants variants;
    struct zeroshot_result *results; /* [tasks.n, variants] */
    struct file_writer samples;
    struct arena arena;
};

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
        running_parts(parts + v * n, m);
        model_restore(m);
    }
    w->variants = (struct variants){w->drop.n, parts};
    return 0;
}

/* ---- output ---- */

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

/* Of the seven tasks, as it is published, or none. */
static double average(const struct work *w, int64_t variant)
{
    return w->tasks.published ? eval_tasks_average(NULL, &w->tasks, w->results, w->variants.n, variant) : (double)NAN;
}

static json_t *variant_json(const struct work *w, int64_t variant)
{
    json_t *tasks = json_object();
    double mean = average(w, variant);
    for (int64_t i = 0; i < w->tasks.n; i++) {
        json_t *task = task_result_json(&w->results[i * w->variants.n + variant]);
        json_object_update_new(task, task_source_json(&w->tasks.set[i]));
        json_object_set_new(tasks, w->tasks.task[i]->name, task);
    }
    return json_pack("{so so}", "tasks", tasks, "average", isfinite(mean) ? json_real(mean) : json_null());
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
    json_object_set_new(o, "bos", json_boolean(w->words.bos));
    json_object_set_new(o, "offset", json_integer(w->words.offset));
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
    for (int64_t i = 0; i < w->tasks.n; i++) {
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
    if (!(w->results = arena_alloc(&w->arena, (size_t)(w->tasks.n * n), sizeof *w->results, err)))
        return -1;
    for (int64_t i = 0; i < w->tasks.n; i++) {
        struct zeroshot_result *r = w->results + i * n;
        const struct task_set *set = &w->tasks.set[i];
        if (zeroshot_run(r, set, &s->m, &s->c, s->adapter, s->t, &w->variants, w->words.bos, &cli->progress, err) != 0)
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
    for (int64_t i = 0; w->results && i < w->tasks.n * w->variants.n; i++)
        zeroshot_free(&w->results[i]);
    eval_tasks_free(&w->tasks);
    file_writer_abort(&w->samples);
    arena_free(&w->arena);
}

/* Checks the words; one --drop is the common option, several need a whole model. */
static int check_words(struct work *w, struct common *o, struct err *err)
{
    if (w->drop.n > 1 && o->adapter)
        return err_usage(err, "--adapter goes with one --drop, as it was trained for one of them");
    if (w->samples_out && place_check_file(w->samples_out, err) != 0)
        return -1;
    o->drop = w->drop.n == 1 ? w->drop.value[0] : NULL;
    return 0;
}

int cmd_eval_zeroshot(struct cli *cli, struct err *err)
{
    struct work w = {.words = {.tasks = "boolq,piqa,hellaswag,winogrande,arc_easy,arc_challenge,openbookqa"}};
    struct opt more[] = {
        {OPT_STRING, "samples-out", &w.samples_out, "FILE", "a line of JSON for each document"},
        {OPT_LIST, "drop", &w.drop, "10,11", "run without these blocks; again and again for several models at once"},
        {.kind = OPT_END},
    };
    struct opt own[TASK_OPTS + sizeof more / sizeof *more];
    struct opt_words words;
    struct common o;
    struct session s = {0};
    task_options(own, &w.words);
    memcpy(own + TASK_OPTS, more, sizeof more);
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL --tasks LIST --data DIR", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    rc = -1;
    if (check_words(&w, &o, err) != 0 || eval_tasks_open(&w.tasks, &w.words, err) != 0 ||
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
