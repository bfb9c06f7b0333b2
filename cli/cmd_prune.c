#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/file.h"
#include "prune/plan.h"

/* What is to go, and why: the content of plan.json. */
struct decision {
    const char *scores_path; /* NULL: the blocks of --drop */
    double ratio;
    int64_t count, keep_first, keep_last;
    int64_t *dropped, n; /* in the order of removal */
    char criterion[32], sha256[65];
    const struct model *m;
    json_t *facts;
};

/* By scores: ranks the blocks and drops the first of them from the model. */
static int decide_by_scores(struct decision *d, struct model *m, struct err *err)
{
    struct scores scores;
    int rc = -1;
    if (scores_read(&scores, d->scores_path, err) != 0)
        return -1;
    d->n = d->count;
    memcpy(d->criterion, scores.criterion, sizeof d->criterion);
    if (strcmp(scores.model_hash, m->hash)) {
        err_set(err, "%s: scores of another model: hash %.16s was expected, %.16s found", d->scores_path, m->hash,
                scores.model_hash);
        goto done;
    }
    if (scores.n_blocks != m->cfg.n_blocks) {
        err_set(err, "%s: scores of %lld of the model's %lld blocks; all were expected", d->scores_path, (long long)scores.n_blocks,
                (long long)m->cfg.n_blocks);
        goto done;
    }
    if (d->count == 0 && plan_count(&d->n, d->ratio, m->cfg.n_blocks, err) != 0)
        goto done;
    d->dropped = mem_alloc((size_t)(d->n > 0 ? d->n : 1), sizeof *d->dropped, err);
    if (!d->dropped || plan_choose(d->dropped, &scores, d->n, d->keep_first, d->keep_last, err) != 0 ||
        file_sha256(d->sha256, d->scores_path, err) != 0)
        goto done;
    rc = model_drop(m, d->dropped, d->n, err);
done:
    scores_free(&scores);
    return rc;
}

/* By --drop, which the session has applied: the list as it was given. */
static int decide_by_list(struct decision *d, const char *list, struct err *err)
{
    if (!(d->dropped = mem_alloc(strlen(list) + 1, sizeof *d->dropped, err)))
        return -1;
    for (const char *p = list; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ','))
        d->dropped[d->n++] = strtoll(p, NULL, 10);
    return 0;
}

static int write_plan(void *arg, const char *dir, struct err *err)
{
    struct decision *d = arg;
    char *path = path_join(dir, "plan.json", err);
    int rc = path ? plan_write(path, d->m, d->dropped, d->n, d->scores_path ? d->criterion : NULL,
                               d->scores_path ? d->sha256 : NULL, d->facts, err)
                  : -1;
    free(path);
    return rc;
}

static void report(struct cli *cli, const struct decision *d, const char *out)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < d->n; i++)
        json_array_append_new(list, json_integer(d->dropped[i]));
    json_object_update_new(cli->result,
                           json_pack("{so sI sI ss sI}", "dropped", list, "keep_first", (json_int_t)d->keep_first, "keep_last",
                                     (json_int_t)d->keep_last, "out", out, "params_after", (json_int_t)model_params(d->m)));
    if (!cli->out || cli->json)
        return;
    fprintf(cli->out, "dropped");
    for (int64_t i = 0; i < d->n; i++)
        fprintf(cli->out, "%s%lld", i ? ", " : " ", (long long)d->dropped[i]);
    fprintf(cli->out, "; %lld blocks and %.2f M parameters left in %s\n", (long long)d->m->n_order,
            1e-6 * (double)model_params(d->m), out);
}

static int check(struct decision *d, const struct target *t, const char *drop, const char *format, bool no_protect, struct err *err)
{
    if (!t->out || !d->scores_path == !drop || (d->scores_path && (d->ratio != 0) == (d->count != 0)))
        return err_usage(err, "prune needs --out, and either --drop or --scores with one of --ratio and --count");
    if (strcmp(format, "hf"))
        return err_usage(err, "--format %s: hf was expected", format);
    if (no_protect)
        d->keep_first = d->keep_last = 0;
    if (d->keep_first < 0 || d->keep_last < 0 || d->count < 0)
        return err_usage(err, "--keep-first, --keep-last and --count must not be negative");
    return 0;
}

int cmd_prune(struct cli *cli, struct err *err)
{
    const char *format = "hf";
    struct target t = {0};
    struct decision d = {.keep_first = 4, .keep_last = 2};
    bool no_protect = false;
    struct opt own[] = {
        {OPT_STRING, "scores", &d.scores_path, "S", "scores made by `espalier score` for this model"},
        {OPT_REAL, "ratio", &d.ratio, "R", "part of the blocks to drop, rounded to the nearest whole block"},
        {OPT_INT, "count", &d.count, "N", "number of blocks to drop"},
        {OPT_INT, "keep-first", &d.keep_first, "N", "blocks at the start that stay whatever their score"},
        {OPT_INT, "keep-last", &d.keep_last, "N", "blocks at the end that stay whatever their score"},
        {OPT_FLAG, "no-protect", &no_protect, NULL, "the same as --keep-first 0 --keep-last 0"},
        {OPT_STRING, "out", &t.out, "DIR", "folder for the pruned model"},
        {OPT_STRING, "format", &format, "F", "of the pruned model: hf"},
        {OPT_STRING, "dtype", &t.dtype, "D", "f32, f16 or bf16; default the model's own, f16 for quantised ones"},
        {OPT_FLAG, "force", &t.force, NULL, "replace DIR if it exists"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    int rc =
        command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL (--scores S (--ratio R | --count N) | --drop LIST) --out DIR", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (check(&d, &t, o.drop, format, no_protect, err) != 0 || session_open(&s, &o, words.word[0], 0, err) != 0)
        return -1;
    d.m = &s.m;
    rc = d.scores_path ? decide_by_scores(&d, &s.m, err) : decide_by_list(&d, o.drop, err);
    if (rc == 0) {
        cli->result = d.facts = session_facts(&s, cli, &o);
        rc = session_save(&s, cli, &t, write_plan, &d, err);
    }
    if (rc == 0)
        report(cli, &d, t.out);
    free(d.dropped);
    session_close(&s);
    return rc;
}
