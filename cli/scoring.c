#include "cli/scoring.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
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

void work_describe(FILE *f, const struct session *s, const struct common *o)
{
    fprintf(f, "%s %s %s %s %s [%s] [%s]\n", ESPALIER_VERSION, s->m.path, s->m.hash, s->c.rows->isa, gemm_backend(),
            o->adapter ? o->adapter : "", o->drop ? o->drop : "");
}

/* A hash over everything that the scores by these criteria depend on. */
static void work_key(char key[65], const struct scoring *g, const int64_t *job, int64_t n, const struct session *s,
                     const struct common *o, const struct calibration *cal)
{
    const struct score_options *p = &g->o;
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return;
    work_describe(f, s, o);
    for (int64_t i = 0; i < n; i++)
        fprintf(f, "%s ", g->which[job[i]]->name);
    fprintf(f, "%d %lld %lld %lld %d %lld %d %d %lld %llu %lld %s\n", p->sublayers, (long long)p->count, (long long)p->keep_first,
            (long long)p->keep_last, p->all_tokens, (long long)p->weights.norm_power, p->weights.rows, p->weights.tensors,
            (long long)p->weights.sample_batch, (unsigned long long)p->seed, (long long)p->bootstrap, o->compute);
    fwrite(cal->ids, sizeof *cal->ids, (size_t)(cal->n * cal->len), f);
    fprintf(f, " %lld", (long long)cal->len);
    fclose(f);
    bytes_sha256(key, text, size);
    free(text);
}

/* Whether a score file of the same work is there; if so, its scores. */
static bool take_over(struct scores *s, const char *path, const char *key)
{
    struct err none = {0};
    char *was = NULL;
    json_t *root = NULL;
    if (!path_exists(path))
        return false;
    if (path_has_suffix(path, ".h5")) {
        h5_read_attr_string(&was, path, "/", "work_key", &none);
    } else {
        root = json_read(path, &none);
        const char *text = json_string_value(json_object_get(root, "work_key"));
        was = text ? strdup(text) : NULL;
        json_decref(root);
    }
    bool same = was && !strcmp(was, key) && scores_read(s, path, &none) == 0;
    free(was);
    return same;
}

json_t *work_facts(const struct cli *cli, const struct session *s, const struct common *o, const char *key)
{
    json_t *facts = session_facts(s, cli, o), *words = json_object_get(facts, "arguments");
    for (size_t i = json_array_size(words); i-- > 0;)
        if (!strcmp(json_string_value(json_array_get(words, i)), "--resume"))
            json_array_remove(words, i);
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

/* Writes what was made; the copy first, so that a result under its name is complete. */
static int write_job(struct scoring *g, int64_t i, const struct calibration *cal, const char *copy, struct err *err)
{
    char *second = copy ? file_of(g, i, copy, err) : NULL;
    int rc = (!copy || (second && scores_write(second, &g->scores[i], cal, g->facts[i], err) == 0))
                 ? scores_write(g->files[i], &g->scores[i], cal, g->facts[i], err)
                 : -1;
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
    work_key(partial.key, g, job, n, s, o, cal);
    for (int64_t i = 0; i < n; i++)
        which[i] = g->which[job[i]];
    if (asprintf(&path, "%s.partial", g->files[job[0]]) < 0) /* of its own for each job: they do not resume each other */
        return err_set(err, "out of memory");
    partial.path = path;
    while (g->resume && there < n && take_over(&g->scores[job[there]], g->files[job[there]], partial.key))
        there++;
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
        json_array_append_new(files, json_string(g->files[i]));
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
}
