#include "cli/comparison_tasks.h"

#include <stdlib.h>
#include <string.h>

#include "cli/scoring.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/record.h"

/* The models that are evaluated: the intact one, and the variants of which no earlier one drops the same. */
struct models {
    const struct comparison *k;
    struct variants run;
    int64_t *of;                     /* [k->n_variants]: which of the models a variant is */
    const struct variant **variant;  /* [run.n]; NULL is the intact model */
    struct zeroshot_result *results; /* [tasks, run.n] */
    struct arena arena;
};

static int list_models(struct models *all, const struct comparison *k, struct model *m, int64_t n_tasks, struct err *err)
{
    int64_t blocks = m->cfg.n_blocks, n = 1;
    size_t most = (size_t)k->n_variants + 1;
    uint8_t *parts = arena_alloc(&all->arena, most, (size_t)blocks, err);
    all->k = k;
    all->of = arena_alloc(&all->arena, most, sizeof *all->of, err);
    all->variant = arena_alloc(&all->arena, most, sizeof *all->variant, err);
    all->results = arena_alloc(&all->arena, most, (size_t)n_tasks * sizeof *all->results, err);
    if (!parts || !all->of || !all->variant || !all->results)
        return -1;
    running_parts(parts, m);
    for (int64_t i = 0; i < k->n_variants; i++) {
        const struct variant *v = &k->variants[i];
        all->of[i] = v->same_as == i ? n : all->of[v->same_as];
        if (v->same_as != i)
            continue;
        if (model_drop(m, v->dropped, v->count, err) != 0)
            return -1;
        running_parts(parts + n * blocks, m);
        model_restore(m);
        all->variant[n++] = v;
    }
    all->run = (struct variants){n, parts};
    return 0;
}

/* ---- a task's file ---- */

/* A hash over everything that the results of task i depend on. */
static int work_key(char key[65], const struct models *all, const struct eval_tasks *t, int64_t i, const struct session *s,
                    const struct common *o, struct err *err)
{
    const struct task_set *set = &t->set[i];
    char parts[65];
    json_t *work = work_describe(s, o, err);
    int rc = -1;
    if (!work || bytes_sha256(parts, all->run.parts, (size_t)(s->m.cfg.n_blocks * all->run.n), err) != 0)
        goto done;
    json_t *more =
        json_pack("{ss ss sI sI sb ss ss}", "task", set->task->name, "data", set->sha256, "offset", (json_int_t)t->words.offset,
                  "documents", (json_int_t)set->n, "bos", t->words.bos, "tokens", t->tokens[i], "variants", parts);
    if (!more || json_object_update(work, more) != 0)
        err_set(err, "out of memory");
    else
        rc = record_key(key, work, err);
    json_decref(more);
done:
    json_decref(work);
    return rc;
}

static int write_results(const char *path, const struct models *all, const struct eval_tasks *t, int64_t i, json_t *facts,
                         struct err *err)
{
    json_t *list = json_array();
    for (int64_t m = 0; m < all->run.n; m++) {
        const struct variant *v = all->variant[m];
        json_t *one = json_pack("{so}", "drop", plan_units(v ? v->dropped : NULL, v ? v->count : 0));
        json_object_update_new(one, task_result_json(&all->results[i * all->run.n + m]));
        json_array_append_new(list, one);
    }
    json_t *root = json_pack("{ss sb sI so}", "task", t->task[i]->name, "bos", t->words.bos, "offset", (json_int_t)t->words.offset,
                             "variants", list);
    json_object_update_new(root, task_source_json(&t->set[i]));
    json_object_update_new(root, facts);
    int rc = root ? json_write(path, root, err) : err_set(err, "%s: out of memory", path);
    json_decref(root);
    return rc;
}

/* Whether the file of the same work is there (1 or 0); if so, its results. What is there but is damaged or of other work is said,
 * and made anew. */
static int take_over(struct models *all, const struct task *task, int64_t i, const char *path, const char *key,
                     struct progress *progress, struct err *err)
{
    struct err why = {0};
    int there = path_status(path, err);
    if (there <= 0)
        return there;
    json_t *root = json_read(path, &why);
    const json_t *list = json_object_get(root, "variants");
    const char *was = json_string_value(json_object_get(root, "work_key"));
    bool same = was && !strcmp(was, key) && json_array_size(list) == (size_t)all->run.n;
    for (int64_t m = 0; same && m < all->run.n; m++)
        same = task_result_read(&all->results[i * all->run.n + m], task, json_array_get(list, (size_t)m));
    if (!root)
        progress_say(progress, "%s; measured again", why.msg);
    else if (!same)
        progress_say(progress, "%s: of another model, other data, variants or options; measured again", path);
    json_decref(root);
    return same;
}

static int run_task(struct models *all, const struct eval_tasks *t, int64_t i, struct cli *cli, const struct session *s,
                    const struct common *o, const char *dir, bool resume, struct err *err)
{
    struct zeroshot_result *results = all->results + i * all->run.n;
    char key[65], name[64], *path;
    int rc = -1;
    snprintf(name, sizeof name, "zeroshot-%s.json", t->task[i]->name);
    if (!(path = path_join(dir, name, err)) || work_key(key, all, t, i, s, o, err) != 0)
        goto done;
    int found = resume ? take_over(all, t->task[i], i, path, key, &cli->progress, err) : 0;
    if (found < 0)
        goto done;
    if (found) {
        progress_say(&cli->progress, "%s was finished before", path);
        rc = 0;
    } else if (zeroshot_run(results, &t->set[i], &s->m, &s->c, s->adapter, s->t, &all->run, t->words.bos, &cli->progress, err) ==
               0) {
        for (int64_t m = 0; m < all->run.n; m++) { /* documents, of which there may be thousands, are done with */
            free(results[m].docs);
            results[m].docs = NULL;
        }
        rc = write_results(path, all, t, i, work_facts(cli, s, o, key), err);
    }
done:
    free(path);
    return rc;
}

/* ---- results to scores ---- */

static void fill(struct zeroshot_scores *z, const struct models *all, const struct eval_tasks *t, int64_t model)
{
    int64_t n = all->run.n;
    for (int64_t i = 0; i < t->n; i++) {
        z->acc[i] = zeroshot_reported(&all->results[i * n + model]);
        z->std_error[i] = zeroshot_reported_stderr(&all->results[i * n + model]);
    }
    z->average = eval_tasks_average(&z->average_std_error, t, all->results, n, model);
}

int comparison_tasks_run(struct comparison *k, const struct eval_tasks *t, struct cli *cli, struct session *s,
                         const struct common *o, const char *dir, bool resume, struct err *err)
{
    struct models all = {0};
    int rc = -1;
    if (list_models(&all, k, &s->m, t->n, err) != 0)
        goto done;
    progress_say(&cli->progress, "zero-shot tasks: the intact model and %lld variants at once", (long long)all.run.n - 1);
    for (int64_t i = 0; i < t->n; i++)
        if (run_task(&all, t, i, cli, s, o, dir, resume, err) != 0)
            goto done;
    fill(&k->intact_zeroshot, &all, t, 0);
    for (int64_t i = 0; i < k->n_variants; i++)
        fill(&k->variants[i].zeroshot, &all, t, all.of[i]);
    rc = 0;
done:
    for (int64_t i = 0; i < t->n * all.run.n; i++)
        zeroshot_free(&all.results[i]);
    arena_free(&all.arena);
    return rc;
}
