#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/texts.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "prune/plan.h"
#include "prune/repair.h"

/* What is to go, and why: the content of plan.json. */
struct decision {
    const char *scores_path; /* NULL: the blocks of --drop */
    double ratio;
    int64_t count, keep_first, keep_last;
    struct unit *dropped; /* [n], in the order of removal */
    int64_t n;
    char criterion[32], sha256[65];
    double cut_swap; /* see plan_cut_swap */
    const struct model *m;
    json_t *facts, *repair;
};

/* How a cut is repaired. */
struct repair_words {
    const char *method, *calib, *text;
    double alpha;
    int64_t samples, seq_len;
    struct text_words how;
};

/* By scores: ranks the units and takes the first of them. */
static int decide_by_scores(struct decision *d, const struct model *m, struct progress *progress, struct err *err)
{
    struct scores scores;
    int64_t units = 0;
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
    if (*scores.fingerprint && strcmp(scores.fingerprint, m->fingerprint)) {
        err_set(
            err,
            "%s: scores of another model: its shape is the same, its weights are not (fingerprint %.16s was expected, %.16s found)",
            d->scores_path, m->fingerprint, scores.fingerprint);
        goto done;
    }
    if (!*scores.fingerprint)
        progress_say(progress, "%s: does not say which weights it is of; only the model's shape was compared", d->scores_path);
    for (int64_t i = 0; i < m->cfg.n_blocks; i++)
        units += scores_sublayers(&scores) ? parts_count(m->blocks[i].stored) : 1;
    if (scores.n != units) {
        err_set(err, "%s: scores of %lld of the model's %lld %s; all were expected", d->scores_path, (long long)scores.n,
                (long long)units, scores_sublayers(&scores) ? "halves of blocks" : "blocks");
        goto done;
    }
    if (d->count == 0 && plan_count(&d->n, d->ratio, units, err) != 0)
        goto done;
    d->dropped = mem_alloc((size_t)(d->n > 0 ? d->n : 1), sizeof *d->dropped, err);
    if (!d->dropped || plan_choose(d->dropped, &scores, d->n, d->keep_first, d->keep_last, err) != 0)
        goto done;
    d->cut_swap = scores.distance ? NAN : plan_cut_swap(&scores, d->n, d->keep_first, d->keep_last);
    rc = file_sha256(d->sha256, d->scores_path, err);
done:
    scores_free(&scores);
    return rc;
}

static int write_plan(struct file_writer *w, void *arg, const char *path, struct err *err)
{
    struct decision *d = arg;
    return plan_write(w, path, d->m, d->dropped, d->n, d->scores_path ? d->criterion : NULL, d->scores_path ? d->sha256 : NULL,
                      d->repair, d->facts, err);
}

/* ---- repair, and what it is worth ---- */

/* What a repair is judged by: a text of its own, or else the calibration rows that it was made from. */
static int judge(double *ppl, const struct eval_text *text, const struct calibration *cal, const struct session *s, struct cli *cli,
                 struct err *err)
{
    struct ppl_result r = {0};
    struct ppl_protocol rows = {.name = "calibration rows", .window = cal->len};
    int rc = text->path ? eval_text_ppl(&r, text, s, &cli->progress, err)
                        : ppl_evaluate(&r, &s->m, &s->c, NULL, &rows, cal->ids, cal->n * cal->len, -1, &cli->progress, err);
    *ppl = r.ppl;
    return rc;
}

/* Perplexity of the whole model, cut, and cut and repaired. Leaves the model repaired and cut. */
static int repair(struct decision *d, const struct repair_words *w, struct session *s, struct cli *cli, const struct common *o,
                  struct err *err)
{
    struct calibration cal = {0};
    struct eval_text text = {0};
    double whole, cut, repaired;
    int64_t runs;
    int rc = -1;
    if (repair_check(&s->m, d->dropped, d->n, err) != 0 ||
        calibration_read(&cal, w->calib, s->t, w->samples, w->seq_len, (uint64_t)o->seed, false, err) != 0 ||
        eval_text_open(&text, s, w->text, &w->how, err) != 0 || judge(&whole, &text, &cal, s, cli, err) != 0 ||
        model_drop(&s->m, d->dropped, d->n, err) != 0 || judge(&cut, &text, &cal, s, cli, err) != 0)
        goto done;
    model_restore(&s->m);
    if (repair_linear(&s->m, &s->c, d->dropped, d->n, &cal, w->alpha, &runs, &cli->progress, err) != 0 ||
        model_drop(&s->m, d->dropped, d->n, err) != 0 || judge(&repaired, &text, &cal, s, cli, err) != 0)
        goto done;
    d->repair = json_pack("{ss sf sI so ss sI sI so sf sf sf}", "method", w->method, "alpha", w->alpha, "runs", (json_int_t)runs,
                          "calibration", json_text(cal.file), "calibration_sha256", cal.sha256, "samples", (json_int_t)cal.n,
                          "seq_len", (json_int_t)cal.len, "ppl_on", json_text(w->text ? w->text : "the calibration rows"),
                          "ppl_whole", whole, "ppl_without", cut, "ppl_with", repaired);
    if (d->repair && text.path)
        eval_text_facts(d->repair, &text);
    rc = d->repair ? 0 : err_set(err, "out of memory");
done:
    eval_text_free(&text);
    calibration_free(&cal);
    return rc;
}

/* ---- */

static double repaired_ppl(const struct decision *d, const char *key)
{
    return json_real_value(json_object_get(d->repair, key));
}

static void report(struct cli *cli, const struct decision *d, const char *out)
{
    char name[UNIT_NAME];
    bool halves = false;
    for (int64_t i = 0; i < d->n; i++)
        halves |= d->dropped[i].parts != PARTS_ALL;
    json_object_update_new(cli->result,
                           json_pack("{so sI sI so sI sO*}", "dropped", plan_units(d->dropped, d->n), "keep_first",
                                     (json_int_t)d->keep_first, "keep_last", (json_int_t)d->keep_last, "out", json_text(out),
                                     "params_after", (json_int_t)model_params(d->m), "repair", d->repair));
    if (d->scores_path)
        facts_file(cli->result, "scores", d->scores_path, d->sha256);
    if (!isnan(d->cut_swap))
        json_object_set_new(cli->result, "cut_swap", json_real(d->cut_swap));
    if (!cli->out || cli->json)
        return;
    fprintf(cli->out, "dropped");
    for (int64_t i = 0; i < d->n; i++)
        fprintf(cli->out, "%s%s", i ? ", " : " ", unit_name(name, d->dropped[i]));
    fprintf(cli->out, "; %lld blocks and %.2f M parameters left in %s\n", (long long)d->m->n_order,
            1e-6 * (double)model_params(d->m), out);
    if (halves)
        fprintf(cli->out,
                "halves of blocks: this program runs the model without them; for other loaders their output projections are "
                "zero (plan.json lists them), which costs them the time and memory of the whole blocks\n");
    if (d->cut_swap > PLAN_UNSETTLED)
        fprintf(cli->out,
                "the cut is not settled: on other texts of the kind the last one dropped and the first one kept would change "
                "places with a probability of %.0f %%\n",
                100 * d->cut_swap);
    if (d->repair)
        fprintf(cli->out, "perplexity on %s: %.2f whole, %.2f cut, %.2f repaired\n",
                json_string_value(json_object_get(d->repair, "ppl_on")), repaired_ppl(d, "ppl_whole"),
                repaired_ppl(d, "ppl_without"), repaired_ppl(d, "ppl_with"));
}

/* Options that say how a repair is made, which there must be. */
static int check_repair_options(const struct opt_words *words, struct err *err)
{
    static const char *const names[] = {"calib", "samples", "seq-len", "repair-alpha", "text"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (opt_given(words, names[i]) && !opt_given(words, "repair"))
            return err_usage(err, "--%s goes with --repair", names[i]);
    return 0;
}

static int check(struct decision *d, const struct target *t, const struct repair_words *w, const struct opt_words *words,
                 const struct common *o, bool no_protect, struct err *err)
{
    static const char *const either[][2] = {{"drop", "scores"},           {"drop", "ratio"},           {"drop", "count"},
                                            {"drop", "keep-first"},       {"drop", "keep-last"},       {"ratio", "count"},
                                            {"no-protect", "keep-first"}, {"no-protect", "keep-last"}, {NULL}};
    const char *drop = o->drop;
    if (opt_exclusive(words, either, err) != 0)
        return -1;
    if (!t->out || !d->scores_path == !drop || (d->scores_path && (d->ratio != 0) == (d->count != 0)))
        return err_usage(err, "prune needs --out, and either --drop or --scores with one of --ratio and --count");
    if (d->ratio != 0 && plan_count(&d->n, d->ratio, 1, err) != 0) /* of however many blocks there are */
        return -1;
    if (check_repair_options(words, err) != 0 || target_check(t, err) != 0)
        return -1;
    if (w->method && strcmp(w->method, "linear"))
        return err_usage(err, "--repair %s: linear was expected", w->method);
    if (!w->method != !w->calib)
        return err_usage(err, "--repair and --calib belong together");
    if (w->method && o->adapter)
        return err_usage(err, "--repair changes weights that the adapter was trained beside: merge it into the model first");
    if (no_protect)
        d->keep_first = d->keep_last = 0;
    if (d->keep_first < 0 || d->keep_last < 0 || d->count < 0)
        return err_usage(err, "--keep-first, --keep-last and --count must not be negative");
    return 0;
}

int cmd_prune(struct cli *cli, struct err *err)
{
    struct target t = {0};
    struct decision d = {.keep_first = 4, .keep_last = 2, .cut_swap = NAN};
    struct repair_words w = {.alpha = -0.1, .samples = 128, .seq_len = 128, .how = text_defaults};
    bool no_protect = false;
    struct opt own[] = {
        {OPT_STRING, "scores", &d.scores_path, "S", "scores made by `espalier score` for this model"},
        {OPT_REAL, "ratio", &d.ratio, "R", "part of the blocks to drop, rounded to the nearest whole block"},
        {OPT_INT, "count", &d.count, "N", "number of blocks (or halves, if those were scored) to drop"},
        {OPT_INT, "keep-first", &d.keep_first, "N", "blocks at the start that stay whatever their score"},
        {OPT_INT, "keep-last", &d.keep_last, "N", "blocks at the end that stay whatever their score"},
        {OPT_FLAG, "no-protect", &no_protect, NULL, "the same as --keep-first 0 --keep-last 0"},
        {OPT_STRING, "repair", &w.method, "METHOD", "linear: the block before each cut learns to make up for it, without training"},
        {OPT_STRING, "calib", &w.calib, "FILE", "repair: calibration text or token rows"},
        {OPT_INT, "samples", &w.samples, "N", "repair: calibration samples"},
        {OPT_INT, "seq-len", &w.seq_len, "T", "repair: tokens per sample"},
        {OPT_REAL, "repair-alpha", &w.alpha, "A",
         "repair: ridge added to the Gram matrix; negative: that part of its mean diagonal"},
        {OPT_STRING, "text", &w.text, "FILE", "repair: text to report perplexities on; default the calibration rows"},
        {OPT_STRING, "out", &t.out, "OUT", "folder, or file that ends in .gguf or .h5, for the pruned model"},
        TARGET_OPTIONS(t),
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    int rc =
        command_parse(cli, &words, own, &o, 1234, 1, 1, "MODEL (--scores S (--ratio R | --count N) | --drop LIST) --out OUT", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    const char *drop = o.drop;
    if (check(&d, &t, &w, &words, &o, no_protect, err) != 0)
        return -1;
    if (cli->checking)
        return 0;
    o.drop = NULL; /* applied below, for a repair needs the whole model */
    if (session_open(&s, &o, words.word[0], BLOCKWISE, err) != 0)
        return -1;
    o.drop = drop;
    d.m = &s.m;
    rc = d.scores_path ? decide_by_scores(&d, &s.m, &cli->progress, err) : units_parse(&d.dropped, &d.n, drop, err);
    if (rc == 0)
        rc = w.method ? repair(&d, &w, &s, cli, &o, err) : model_drop(&s.m, d.dropped, d.n, err);
    if (rc == 0) {
        cli->result = d.facts = session_facts(&s, cli, &o);
        rc = session_save(&s, cli, &t, "plan.json", write_plan, &d, err);
    }
    if (rc == 0) {
        session_saved_facts(cli->result, &s);
        report(cli, &d, t.out);
    }
    json_decref(d.repair);
    free(d.dropped);
    session_close(&s);
    return rc;
}
