#include "cli/scoring.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/record.h"
#include "core/io/h5.h"

void scoring_options(struct opt *table, struct scoring_words *w, struct scoring *g)
{
    *w = (struct scoring_words){"block", "last", "sum", "sum"};
    g->o.weights = (struct weight_options){.norm_power = 1, .sample_batch = 1};
    g->save_every = 60;
    struct opt opts[SCORING_OPTS] = {
        {OPT_STRING, "unit", &w->unit, "U", "what goes at once: block, or sublayer (attention and feed-forward each for itself)"},
        {OPT_INT, "count", &g->o.count, "K", "greedy: removals to search; angular: blocks of the window; 0: a fifth of all"},
        {OPT_STRING, "tokens", &w->tokens, "T", "angular: distance at the last token of each sample, or at all of them: last, all"},
        {OPT_INT, "norm-power", &g->o.weights.norm_power, "P", "taylor, magnitude: power of each weight's score, 1 or 2"},
        {OPT_STRING, "weight-reduction", &w->weight_reduction, "R",
         "taylor, magnitude: rows of a tensor to one: sum, mean, max, prod"},
        {OPT_STRING, "block-reduction", &w->block_reduction, "R",
         "taylor, magnitude: tensors of a block to one: sum, mean, max, prod"},
        {OPT_INT, "sample-batch", &g->o.weights.sample_batch, "B", "taylor: samples that share one mean loss"},
        {OPT_FLAG, "resume", &g->resume, NULL, "go on after an interruption; what is finished stays as it is"},
        {OPT_REAL, "save-every", &g->save_every, "S", "seconds between saves of the work so far, as SCORES.partial"},
        {.kind = OPT_END},
    };
    memcpy(table, opts, sizeof opts);
}

/* "ppl,taylor" to criteria. */
static int parse_names(struct scoring *g, const char *option, const char *names, struct err *err)
{
    struct err why = {0};
    for (const char *p = names;; p++) {
        char name[40];
        size_t n = strcspn(p, ",");
        snprintf(name, sizeof name, "%.*s", (int)n, p);
        const struct criterion *k = criterion_find(name, &why);
        if (!k)
            return err_usage(err, "--%s %s: %s", option, names, why.msg);
        for (int64_t i = 0; i < g->n; i++)
            if (g->which[i] == k)
                return err_usage(err, "--%s %s: %s is named twice", option, names, name);
        g->which[g->n++] = k; /* no more than there are, so they fit */
        p += n;
        if (!*p)
            return 0;
    }
}

/* Options that count something. */
static int check_counts(const struct score_options *o, struct err *err)
{
    const struct {
        const char *name;
        int64_t value, least;
    } counts[] = {{"sample-batch", o->weights.sample_batch, 1},
                  {"count", o->count, 0},
                  {"keep-first", o->keep_first, 0},
                  {"keep-last", o->keep_last, 0},
                  {"bootstrap", o->bootstrap, 0}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].value < counts[i].least)
            return err_usage(err, "--%s %lld: at least %lld was expected", counts[i].name, (long long)counts[i].value,
                             (long long)counts[i].least);
    return 0;
}

int scoring_check(struct scoring *g, const struct scoring_words *w, const char *option, const char *names, struct err *err)
{
    bool ppl = false;
    if (parse_names(g, option, names, err) != 0 ||
        reduction_parse(&g->o.weights.rows, w->weight_reduction, "weight-reduction", err) != 0 ||
        reduction_parse(&g->o.weights.tensors, w->block_reduction, "block-reduction", err) != 0)
        return -1;
    for (int64_t i = 0; i < g->n; i++)
        ppl |= g->which[i]->perplexity;
    g->o.sublayers = !strcmp(w->unit, "sublayer");
    g->o.all_tokens = !strcmp(w->tokens, "all");
    if (!g->o.sublayers && strcmp(w->unit, "block"))
        return err_usage(err, "--unit %s: block or sublayer was expected", w->unit);
    if (!g->o.all_tokens && strcmp(w->tokens, "last"))
        return err_usage(err, "--tokens %s: last or all was expected", w->tokens);
    if (g->o.weights.norm_power != 1 && g->o.weights.norm_power != 2)
        return err_usage(err, "--norm-power %lld: 1 or 2 was expected", (long long)g->o.weights.norm_power);
    if (check_counts(&g->o, err) != 0)
        return -1;
    if (!(g->save_every >= 0))
        return err_usage(err, "--save-every %g: seconds were expected", g->save_every);
    if (g->o.bootstrap && !ppl)
        return err_usage(err, "--bootstrap resamples losses: it needs the criterion ppl");
    return 0;
}

/* "dir/s.json" to "dir/s-ppl.json" when there are several. */
static char *file_of(const struct scoring *g, int64_t i, const char *path, struct err *err)
{
    const char *dot = strrchr(path_base(path), '.');
    char *name;
    int n = dot ? (int)(dot - path) : (int)strlen(path);
    if ((g->n == 1 ? asprintf(&name, "%s", path) : asprintf(&name, "%.*s-%s%s", n, path, g->which[i]->name, dot ? dot : "")) < 0) {
        err_set(err, "out of memory");
        return NULL;
    }
    return name;
}

json_t *work_describe(const struct session *s, const struct common *o, struct err *err)
{
    json_t *work =
        json_pack("{ss ss ss ss ss ss ss}", "version", ESPALIER_VERSION, "model", s->m.fingerprint, "isa", s->c.rows->isa, "blas",
                  gemm_backend(), "adapter", s->adapter_content, "drop", o->drop ? o->drop : "", "compute", o->compute);
    if (!work)
        err_set(err, "out of memory");
    return work;
}

int scoring_describe(struct scoring *g, const struct opt *own, struct err *err)
{
    /* the rows themselves and the criteria of each walk are in the key; the others decide nothing, or nothing of the scores */
    static const char *const skip[] = {
        "criterion", "criteria", "calib",  "samples", "seq-len",    "bos-every", "out",  "copy",  "resume", "save-every", "ratios",
        "text",      "protocol", "format", "rows",    "max-tokens", "tasks",     "data", "limit", "offset", "bos",        NULL};
    if ((g->options = json_object()) && opt_describe(g->options, own, skip) == 0)
        return 0;
    return err_set(err, "out of memory");
}

/* A hash over everything that the scores by these criteria depend on. */
static int work_key(char key[65], const struct scoring *g, const int64_t *job, int64_t n, const struct session *s,
                    const struct common *o, const struct calibration *cal, struct err *err)
{
    char rows[65];
    json_t *work = work_describe(s, o, err), *names = json_array();
    int rc = -1;
    if (!work || bytes_sha256(rows, cal->ids, (size_t)(cal->n * cal->len) * sizeof *cal->ids, err) != 0)
        goto done;
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(names, json_string(g->which[job[i]]->name));
    if (json_array_size(names) != (size_t)n || json_object_set(work, "criteria", names) != 0 ||
        json_object_set(work, "options", g->options) != 0 || json_object_set_new(work, "calibration", json_string(rows)) != 0 ||
        json_object_set_new(work, "seq-len", json_integer(cal->len)) != 0 ||
        json_object_set_new(work, "seed", json_integer(o->seed)) != 0 ||
        json_object_set_new(work, "count", json_integer(g->o.count)) != 0)
        err_set(err, "out of memory");
    else
        rc = record_key(key, work, err);
done:
    json_decref(names);
    json_decref(work);
    return rc;
}

/* The key that a result carries, malloc'ed; NULL and an error. */
static char *recorded_key(const char *path, struct err *err)
{
    char *was = NULL;
    if (path_has_suffix(path, ".h5")) {
        h5_read_attr_string(&was, path, "/", "work_key", err);
        return was;
    }
    json_t *root = json_read(path, err);
    const char *text = json_string_value(json_object_get(root, "work_key"));
    if (root && !(was = strdup(text ? text : "")))
        err_set(err, "out of memory");
    json_decref(root);
    return was;
}

/* Whether a score file of the same work is there (1 or 0); if so, its scores. One of other work is not what is to be resumed. */
static int take_over(struct scores *s, const char *path, const char *key, struct err *err)
{
    int there = path_status(path, err);
    char *was = there > 0 ? recorded_key(path, err) : NULL;
    if (there <= 0 || !was)
        return there > 0 ? -1 : there;
    int rc = 1;
    if (strcmp(was, key))
        rc = err_set(
            err, "%s: made with another model, calibration, options or processor; remove it or leave out --resume to begin anew",
            path);
    else if (scores_read(s, path, err) != 0)
        rc = -1;
    free(was);
    return rc;
}

json_t *work_facts(const struct cli *cli, const struct session *s, const struct common *o, const char *key)
{
    json_t *facts = session_facts(s, cli, o), *words = json_object_get(facts, "arguments");
    for (size_t i = json_array_size(words); i-- > 0;)
        if (!strcmp(json_string_value(json_array_get(words, i)), "--resume"))
            json_array_remove(words, i);
    json_object_del(json_object_get(facts, "options"), "resume");
    json_object_set_new(facts, "work_key", json_string(key));
    return facts;
}

static void warn_of_zeros(struct cli *cli, const struct scores *s)
{
    for (int64_t i = 0; i < s->n; i++)
        if (s->score[i] != 0)
            return;
    progress_say(&cli->progress, "note: every %s score is 0 (products of many small numbers are); such scores rank nothing",
                 s->criterion);
}

/* Writes what was made; a copy gets its name together with it. */
static int write_job(struct scoring *g, int64_t i, const struct calibration *cal, const char *copy, struct err *err)
{
    struct file_writer file = {0}, other = {0};
    char *second = copy ? file_of(g, i, copy, err) : NULL;
    int rc = copy ? -1 : 0;
    if (second)
        rc = scores_write_part(&other, second, &g->scores[i], cal, g->facts[i], err);
    if (rc == 0)
        rc = scores_write_part(&file, g->files[i], &g->scores[i], cal, g->facts[i], err);
    if (rc == 0) {
        file.before = copy ? &other : NULL;
        rc = file_writer_commit(&file, err);
    }
    file_writer_abort(&other); /* nothing to do where it was committed */
    free(second);
    return rc;
}

/* The criteria job[n] in one go. */
static int run_job(struct scoring *g, const int64_t *job, int64_t n, struct cli *cli, const struct session *s,
                   const struct common *o, const struct calibration *cal, const char *copy, struct err *err)
{
    const struct criterion *which[MAX_CRITERIA];
    struct scores made[MAX_CRITERIA];
    struct partial partial = {.every = g->save_every, .resume = g->resume, .saved_at = clock_seconds()};
    char *path = NULL;
    int64_t there = 0;
    int rc = -1;
    if (work_key(partial.key, g, job, n, s, o, cal, err) != 0)
        return -1;
    for (int64_t i = 0; i < n; i++)
        which[i] = g->which[job[i]];
    if (asprintf(&path, "%s.partial", g->files[job[0]]) < 0) /* of its own for each job: they do not resume each other */
        return err_set(err, "out of memory");
    partial.path = path;
    int found = 1;
    while (g->resume && there < n && (found = take_over(&g->scores[job[there]], g->files[job[there]], partial.key, err)) > 0)
        there++;
    if (found < 0)
        goto done;
    if (there == n) {
        for (int64_t i = 0; i < n; i++)
            progress_say(&cli->progress, "%s was finished before", g->files[job[i]]);
        partial_remove(&partial);
        rc = 0;
        goto done;
    }
    for (int64_t i = 0; i < there; i++)
        scores_free(&g->scores[job[i]]);
    if (score_run(made, which, n, &g->o, &s->m, &s->c, s->adapter, cal, &partial, &cli->progress, err) != 0)
        goto done;
    rc = 0;
    for (int64_t i = 0; i < n; i++) {
        g->scores[job[i]] = made[i];
        g->facts[job[i]] = work_facts(cli, s, o, partial.key);
        warn_of_zeros(cli, &made[i]);
        if (rc == 0)
            rc = write_job(g, job[i], cal, copy, err);
    }
    if (rc == 0)
        partial_remove(&partial);
done:
    free(path);
    return rc;
}

int scoring_run(struct scoring *g, struct cli *cli, const struct session *s, const struct common *o, const struct calibration *cal,
                const char *out, const char *copy, struct err *err)
{
    int64_t walk[MAX_CRITERIA], n_walk = 0;
    g->o.seed = (uint64_t)o->seed;
    for (int64_t i = 0; i < g->n; i++) {
        if (!(g->files[i] = file_of(g, i, out, err)))
            return -1;
        if (!g->which[i]->backward)
            walk[n_walk++] = i;
    }
    if (n_walk > 0 && run_job(g, walk, n_walk, cli, s, o, cal, copy, err) != 0)
        return -1;
    for (int64_t i = 0; i < g->n; i++)
        if (g->which[i]->backward && run_job(g, &i, 1, cli, s, o, cal, copy, err) != 0)
            return -1;
    return 0;
}

json_t *scoring_summary(const struct scoring *g)
{
    json_t *files = json_array();
    for (int64_t i = 0; i < g->n; i++)
        json_array_append_new(files, json_text(g->files[i]));
    if (g->n == 1) {
        json_t *one = json_incref(json_array_get(files, 0));
        json_decref(files);
        files = one;
    }
    return json_pack("{sf so}", "base_ppl", g->scores[0].base_ppl, "out", files);
}

void scoring_free(struct scoring *g)
{
    for (int64_t i = 0; i < MAX_CRITERIA; i++) {
        scores_free(&g->scores[i]);
        free(g->files[i]);
        json_decref(g->facts[i]);
    }
    json_decref(g->options);
}
