/* `espalier compare`: criteria x ratios x (with / without the protected ends), each variant measured on texts and zero-shot
 * tasks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/comparison_facts.h"
#include "cli/comparison_tasks.h"
#include "cli/scoring.h"
#include "cli/texts.h"
#include "core/base/dir.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/place.h"

enum { MAX_COMPARED_TEXTS = 8, MAX_RATIOS = 32 };

struct compare_words {
    const char *criteria, *ratios, *calib, *texts, *out;
    int64_t samples, seq_len;
    bool bos_every;
    struct task_words tasks;
};

struct job {
    struct cli *cli;
    struct session *s;
    const struct common *o;
    struct scoring scoring;
    struct comparison k;
    struct calibration cal;
    struct eval_text texts[MAX_COMPARED_TEXTS];
    const char *text_names[MAX_COMPARED_TEXTS];
    struct comparison_text sources[MAX_COMPARED_TEXTS];
    struct eval_tasks tasks;
    double ratios[MAX_RATIOS];
    char *list; /* the text paths, cut apart */
};

/* "0.1,0.2" */
static int parse_ratios(struct job *j, const char *list, struct err *err)
{
    for (const char *p = list;;) {
        char *end;
        double v = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !(v > 0 && v < 1) || j->k.n_ratios == MAX_RATIOS)
            return err_usage(err, "--ratios %s: 1 to %d numbers between 0 and 1, with commas between them, were expected", list,
                             MAX_RATIOS);
        j->ratios[j->k.n_ratios++] = v;
        if (!*end)
            return 0;
        p = end + 1;
    }
}

/* "a.txt,b.txt" */
static int open_texts(struct job *j, const char *list, const struct text_words *how, struct err *err)
{
    if (!(j->list = strdup(list)))
        return err_set(err, "out of memory");
    for (char *p = j->list, *next; p; p = next) {
        next = strchr(p, ',');
        if (next)
            *next++ = 0;
        if (j->k.n_texts == MAX_COMPARED_TEXTS)
            return err_usage(err, "--text takes at most %d files", MAX_COMPARED_TEXTS);
        j->text_names[j->k.n_texts] = path_base(p);
        if (eval_text_open(&j->texts[j->k.n_texts++], j->s, p, how, err) != 0)
            return -1;
    }
    return 0;
}

static int evaluate(double *ppl, struct job *j, struct err *err)
{
    struct ppl_result r;
    for (int64_t i = 0; i < j->k.n_texts; i++) {
        if (eval_text_ppl(&r, &j->texts[i], j->s, &j->cli->progress, err) != 0)
            return -1;
        ppl[i] = r.ppl;
        comparison_text_set(&j->sources[i], &j->texts[i], &r); /* the same of every model */
    }
    return 0;
}

/* Measures every distinct variant once. */
static int evaluate_all(struct job *j, struct err *err)
{
    struct comparison *k = &j->k;
    int64_t distinct = 0, done = 0;
    for (int64_t i = 0; i < k->n_variants; i++)
        distinct += k->variants[i].same_as == i;
    if (evaluate(k->intact_ppl, j, err) != 0)
        return -1;
    for (int64_t i = 0; i < k->n_variants; i++) {
        struct variant *v = &k->variants[i];
        if (v->same_as != i) {
            memcpy(v->ppl, k->variants[v->same_as].ppl, (size_t)k->n_texts * sizeof *v->ppl);
            continue;
        }
        progress_say(&j->cli->progress, "variant %lld of %lld: %s, ratio %g, %s", (long long)++done, (long long)distinct,
                     k->which[v->criterion]->name, k->ratios[v->ratio], v->protected_ ? "ends protected" : "nothing protected");
        int rc = model_drop(&j->s->m, v->dropped, v->count, err) == 0 ? evaluate(v->ppl, j, err) : -1;
        model_restore(&j->s->m);
        if (rc != 0)
            return -1;
    }
    return 0;
}

/* The largest number of units that any ratio takes out: the steps of a greedy search that serves all of them. A ratio that cannot
 * be had is refused here, before the scoring, which may take hours. */
static int largest_count(int64_t *count, const struct job *j, struct err *err)
{
    const struct model *m = &j->s->m;
    int64_t n, units = 0, may_go = 0;
    *count = 0;
    for (int64_t i = 0; i < m->n_order; i++) {
        int64_t block = m->order[i], here = j->scoring.o.sublayers ? parts_count(m->blocks[block].parts) : 1;
        units += here;
        may_go += block >= j->k.keep_first && block < m->cfg.n_blocks - j->k.keep_last ? here : 0;
    }
    may_go = may_go < units ? may_go : units - 1;
    for (int64_t i = 0; i < j->k.n_ratios; i++) {
        if (plan_count(&n, j->ratios[i], units, err) != 0)
            return -1;
        if (n < 1 || n > may_go)
            return err_usage(
                err, "--ratios: %g of %lld %s is %lld to drop; 1 to %lld may go when the first %lld and the last %lld blocks stay",
                j->ratios[i], (long long)units, j->scoring.o.sublayers ? "halves of blocks" : "blocks", (long long)n,
                (long long)may_go, (long long)j->k.keep_first, (long long)j->k.keep_last);
        *count = n > *count ? n : *count;
    }
    return 0;
}

/* ---- what is left behind ---- */

static int characters(const char *utf8)
{
    int n = 0;
    for (; *utf8; utf8++)
        n += (*utf8 & 0xC0) != 0x80;
    return n;
}

/* Of a text's column: its name, which is not cut, or a perplexity. */
static int text_width(const char *name)
{
    enum { LEAST = 12 };
    int n = characters(name);
    return n > LEAST ? n : LEAST;
}

/* "wiki.test.raw: first 3,072 of 304,896 tokens, sha256 1ab..." */
static void print_texts(FILE *out, const struct job *j)
{
    char part[PART_SIZE];
    for (int64_t t = 0; t < j->k.n_texts; t++)
        fprintf(out, "%s: %s, sha256 %.12s\n", j->text_names[t], comparison_text_part(part, &j->sources[t]), j->sources[t].sha256);
}

static void print_values(FILE *out, const struct comparison *k, const double *ppl, const struct zeroshot_scores *z)
{
    for (int64_t t = 0; t < k->n_texts; t++)
        fprintf(out, "  %*.2f", text_width(k->texts[t]), ppl[t]);
    if (k->n_tasks > 0)
        fprintf(out, "  %11.2f", 100 * z->average);
}

static void print_table(FILE *out, const struct comparison *k)
{
    char name[UNIT_NAME];
    fprintf(out, "%-20s %6s %-9s %10s", "criterion", "ratio", "ends", "parameters");
    for (int64_t t = 0; t < k->n_texts; t++)
        fprintf(out, "  %*s%s", text_width(k->texts[t]) - characters(k->texts[t]), "", k->texts[t]);
    fprintf(out, "%s  dropped\n", k->n_tasks > 0 ? "  zero-shot %" : "");
    fprintf(out, "%-20s %6s %-9s %8.2f M", "intact", "", "", 1e-6 * (double)k->intact_params);
    print_values(out, k, k->intact_ppl, &k->intact_zeroshot);
    fputc('\n', out);
    for (int64_t i = 0; i < k->n_variants; i++) {
        const struct variant *v = &k->variants[i];
        fprintf(out, "%-20s %6g %-9s %8.2f M", k->which[v->criterion]->name, k->ratios[v->ratio],
                v->protected_ ? "protected" : "free", 1e-6 * (double)v->params);
        print_values(out, k, v->ppl, &v->zeroshot);
        for (int64_t d = 0; d < v->count; d++)
            fprintf(out, "%s%s", d ? "," : "  ", unit_name(name, v->dropped[d]));
        fprintf(out, "%s\n", v->cut_swap > PLAN_UNSETTLED ? "  (cut not settled)" : "");
    }
}

/* What the column of zero-shot averages is. */
static void print_tasks(FILE *out, const struct job *j)
{
    fprintf(out, "zero-shot %%: mean of");
    for (int64_t i = 0, said = 0; i < j->tasks.n; i++)
        if (j->tasks.averaged[i])
            fprintf(out, "%s %s (%s)", said++ ? "," : "", j->tasks.task[i]->name, task_metric(j->tasks.task[i]));
    if (isfinite(j->k.intact_zeroshot.average_std_error))
        fprintf(out, "; standard error of the intact model's %.2f", 100 * j->k.intact_zeroshot.average_std_error);
    fputc('\n', out);
}

static int write_all(struct job *j, const char *dir, struct err *err)
{
    const struct comparison_origin from = {&j->k, &j->cal, &j->tasks, j->sources, j->o->seed};
    struct facts facts;
    comparison_facts(&facts, &from, j->cli->result);
    json_t *record = comparison_record(&from, j->cli->result);
    char *csv = path_join(dir, "compare.csv", err), *h5 = path_join(dir, "compare.h5", err),
         *html = path_join(dir, "compare.html", err);
    struct comparison_sheet sheet = {.k = &j->k,
                                     .title = "Criteria compared",
                                     .model = path_base(j->s->m.path),
                                     .n_facts = facts.n,
                                     .facts = facts.pair,
                                     .sources = j->sources,
                                     .record = record};
    int rc = csv && h5 && html && comparison_write_csv(csv, &sheet, err) == 0 && comparison_write_h5(h5, &sheet, err) == 0
                 ? comparison_write_html(html, &sheet, err)
                 : -1;
    if (rc == 0) {
        json_object_update(j->cli->result, record);
        json_object_update_new(j->cli->result,
                               json_pack("{so so so}", "csv", json_text(csv), "h5", json_text(h5), "report", json_text(html)));
    }
    json_decref(record);
    free(csv);
    free(h5);
    free(html);
    return rc;
}

static int run(struct job *j, const struct compare_words *w, const struct text_words *how, struct err *err)
{
    char *scores = path_join(w->out, "scores.json", err), *copy = path_join(w->out, "scores.h5", err);
    int64_t largest;
    int rc = -1;
    if (!scores || !copy || open_texts(j, w->texts, how, err) != 0 ||
        calibration_read(&j->cal, w->calib, j->s->t, w->samples, w->seq_len, (uint64_t)j->o->seed, w->bos_every, err) != 0)
        goto done;
    if (largest_count(&largest, j, err) != 0 || eval_tasks_check(&j->tasks, j->s, err) != 0)
        goto done;
    if (j->scoring.o.count == 0)
        j->scoring.o.count = largest;
    if (dir_make(w->out, err) != 0 || scoring_run(&j->scoring, j->cli, j->s, j->o, &j->cal, scores, copy, err) != 0)
        goto done;
    j->k.n_criteria = j->scoring.n;
    j->k.which = j->scoring.which;
    j->k.scores = j->scoring.scores;
    j->k.ratios = j->ratios;
    j->k.texts = j->text_names;
    j->k.n_tasks = j->tasks.n;
    j->k.tasks = j->tasks.task;
    j->k.averaged = j->tasks.averaged;
    if (compare_plan(&j->k, &j->s->m, err) != 0 || evaluate_all(j, err) != 0 ||
        (j->tasks.n > 0 && comparison_tasks_run(&j->k, &j->tasks, j->cli, j->s, j->o, w->out, j->scoring.resume, err) != 0))
        goto done;
    j->cli->result = session_facts(j->s, j->cli, j->o);
    if (write_all(j, w->out, err) != 0)
        goto done;
    if (j->cli->out && !j->cli->json) {
        fprintf(j->cli->out, "perplexities by %s\n", j->texts[0].protocol.name);
        print_table(j->cli->out, &j->k);
        if (j->tasks.n > 0)
            print_tasks(j->cli->out, j);
        print_texts(j->cli->out, j);
        fprintf(j->cli->out, "report: %s\n", json_string_value(json_object_get(j->cli->result, "report")));
    }
    rc = 0;
done:
    free(scores);
    free(copy);
    return rc;
}

static int check(struct job *j, const struct compare_words *w, const struct scoring_words *scoring, const struct text_words *how,
                 const struct common *o, struct err *err)
{
    if (!w->calib || !w->texts || !w->out)
        return err_usage(err, "compare needs --calib, --text and --out");
    if (o->drop || o->adapter)
        return err_usage(err, "compare drops blocks itself: it takes neither --drop nor --adapter");
    if (j->k.keep_first < 0 || j->k.keep_last < 0)
        return err_usage(err, "--keep-first and --keep-last must not be negative");
    return place_check_dir(w->out, err) == 0 && parse_ratios(j, w->ratios, err) == 0 &&
                   scoring_check(&j->scoring, scoring, "criteria", w->criteria, err) == 0 &&
                   eval_text_open(&j->texts[0], NULL, NULL, how, err) == 0
               ? eval_tasks_open(&j->tasks, &w->tasks, err)
               : -1;
}

int cmd_compare(struct cli *cli, struct err *err)
{
    enum { OWN = 10 };
    struct compare_words w = {.criteria = "ppl,taylor,magnitude,bi,greedy", .ratios = "0.1,0.2,0.3", .samples = 10, .seq_len = 128};
    struct text_words how;
    struct scoring_words scoring_words;
    struct opt_words words;
    struct common o;
    struct session s = {0};
    struct job j = {.cli = cli, .s = &s, .o = &o, .k = {.keep_first = 4, .keep_last = 2}};
    struct opt own[OWN + TEXT_OPTS - 1 + TASK_OPTS + SCORING_OPTS] = {
        {OPT_STRING, "criteria", &w.criteria, "C,C", "criteria to compare, of those that `score` knows"},
        {OPT_STRING, "ratios", &w.ratios, "R,R", "parts of the blocks to drop"},
        {OPT_STRING, "calib", &w.calib, "FILE", "calibration text (.txt, .jsonl, either .gz) or token rows (.json, .h5)"},
        {OPT_STRING, "text", &w.texts, "FILE", "text to measure on; several with commas between them"},
        {OPT_STRING, "out", &w.out, "DIR", "folder for compare.html, compare.csv, compare.h5 and the results behind them"},
        {OPT_INT, "samples", &w.samples, "N", "calibration samples"},
        {OPT_INT, "seq-len", &w.seq_len, "T", "tokens per calibration sample"},
        {OPT_FLAG, "bos-every", &w.bos_every, NULL, "samples begin with BOS"},
        {OPT_INT, "keep-first", &j.k.keep_first, "N", "blocks at the start that the protected variants keep"},
        {OPT_INT, "keep-last", &j.k.keep_last, "N", "blocks at the end that the protected variants keep"},
    };
    struct opt text_opts[TEXT_OPTS];
    text_options(text_opts, &how);
    memcpy(own + OWN, text_opts, (TEXT_OPTS - 1) * sizeof *own); /* --seq-len is the calibration's here */
    task_options(own + OWN + TEXT_OPTS - 1, &w.tasks);
    scoring_options(own + OWN + TEXT_OPTS - 1 + TASK_OPTS, &scoring_words, &j.scoring);
    int rc = command_parse(cli, &words, own, &o, 1234, 1, 1,
                           "MODEL --criteria C,C --ratios R,R --calib FILE --text FILE --out DIR [--tasks LIST --data DIR]", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    rc = -1;
    if (scoring_describe(&j.scoring, own, err) == 0 && opt_exclusive(&words, text_either, err) == 0 &&
        check(&j, &w, &scoring_words, &how, &o, err) == 0 &&
        session_open(&s, &o, words.word[0], NEEDS_TOKENIZER | BLOCKWISE, err) == 0)
        rc = run(&j, &w, &how, err);
    for (int64_t i = 0; i < j.k.n_texts; i++)
        eval_text_free(&j.texts[i]);
    eval_tasks_free(&j.tasks);
    compare_free(&j.k);
    scoring_free(&j.scoring);
    calibration_free(&j.cal);
    free(j.list);
    session_close(&s);
    return rc;
}
