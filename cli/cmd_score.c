#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/scoring.h"
#include "core/base/place.h"

/* ---- tables ---- */

/* What a unit is listed with: its score; for a greedy search, whose scores are only steps, the perplexity it left behind. NaN where
 * there is none. */
static double listed(const struct scores *s, const int64_t *order, int64_t rank)
{
    if (!s->trace)
        return s->score[order[rank]];
    return rank < s->steps ? s->trace[rank] : s->candidates[(s->steps - 1) * s->n + order[rank]];
}

/* Digits behind the point that show five figures of a low score; -1 where a plain number would be too long. */
static int digits_for(const struct scores *s, const int64_t *order)
{
    double v = listed(s, order, s->n / 4);
    int64_t whole = 0;
    for (int64_t i = 0; i < s->n; i++)
        whole += listed(s, order, i) == (double)(i + 1); /* steps of a search */
    if (whole == s->n)
        return 0;
    int magnitude = v != 0 ? (int)floor(log10(fabs(v))) : 0;
    if (magnitude < -6 || magnitude > 11)
        return -1;
    return magnitude < 4 ? 4 - magnitude : 0;
}

static void print_number(FILE *out, double v, int digits, int width)
{
    if (isnan(v))
        fprintf(out, "%*s", width, "-");
    else if (digits < 0)
        fprintf(out, "%*.5g", width, v);
    else
        fprintf(out, "%*.*f", width, digits, v);
}

static const char *units_name(const struct scores *s)
{
    return scores_sublayers(s) ? "sublayer" : "block";
}

/* One ranking, with a bar that shows each score between the smallest and the third quartile: the last few are often far away. */
static void print_scores(FILE *out, const struct scores *s, const char *heading)
{
    int64_t order[s->n];
    char name[UNIT_NAME];
    scores_order(order, s);
    double low = listed(s, order, 0), high = listed(s, order, s->n - 1 - s->n / 4);
    int digits = digits_for(s, order);
    fprintf(out, "%5s  %8s  %20s%s\n", "rank", units_name(s), s->trace ? "perplexity after" : heading,
            s->swap ? "  swaps with next" : "");
    for (int64_t i = 0; i < s->n; i++) {
        double v = listed(s, order, i), part = high > low && !isnan(v) ? (v - low) / (high - low) : 0;
        int bar = part > 1 ? 30 : part > 0 ? (int)(30 * part) : 0;
        if (s->trace && i == s->steps)
            fprintf(out, "%5s  not taken out; perplexity had this one gone in the last step instead\n", "");
        fprintf(out, "%5lld  %8s  ", (long long)i + 1, unit_name(name, s->unit[order[i]]));
        print_number(out, v, digits, 20);
        if (s->swap && i + 1 < s->n)
            fprintf(out, "  %13.1f %%", 100 * s->swap[i]);
        if (bar > 0)
            fprintf(out, "%*s  %.*s%s", s->swap && i + 1 == s->n ? 17 : 0, "", bar, "##############################",
                    part > 1 ? ">" : "");
        fputc('\n', out);
    }
    if (s->distance) {
        fprintf(out, "the closest window of %lld:", (long long)s->window);
        for (int64_t i = 0; i < s->window; i++)
            fprintf(out, "%s %s", i ? "," : "", unit_name(name, s->unit[order[i]]));
        fputc('\n', out);
    }
    if (s->swap)
        fprintf(out, "swaps with next: probability that the two would change places on other texts of the kind\n");
}

/* Several rankings side by side: which unit each criterion would take out first, second ... */
static void print_orders(FILE *out, const struct scoring *g)
{
    enum { NARROW = 8 };
    int64_t n = g->scores[0].n, orders[g->n][n];
    char name[UNIT_NAME];
    for (int64_t k = 0; k < g->n; k++)
        scores_order(orders[k], &g->scores[k]);
    fprintf(out, "%ss in the order in which they would go\n%5s", units_name(&g->scores[0]), "rank");
    for (int64_t k = 0; k < g->n; k++)
        fprintf(out, "  %*s", NARROW, g->which[k]->name);
    fputc('\n', out);
    for (int64_t i = 0; i < n; i++) {
        fprintf(out, "%5lld", (long long)i + 1);
        for (int64_t k = 0; k < g->n; k++) {
            int width = (int)strlen(g->which[k]->name);
            fprintf(out, "  %*s", width > NARROW ? width : NARROW, unit_name(name, g->scores[k].unit[orders[k][i]]));
        }
        fputc('\n', out);
    }
}

static void print_results(FILE *out, const struct scoring *g)
{
    fprintf(out, "%s%sperplexity of the model as it is: %.4f\n", g->n == 1 ? g->which[0]->name : "", g->n == 1 ? "; " : "",
            g->scores[0].base_ppl);
    if (g->n == 1)
        print_scores(out, &g->scores[0], g->which[0]->score);
    else
        print_orders(out, g);
    for (int64_t i = 0; i < g->n; i++)
        fprintf(out, "%s%s", i ? ", " : "scores in ", g->files[i]);
    fputc('\n', out);
}

int cmd_score(struct cli *cli, struct err *err)
{
    enum { OWN = 10 };
    const char *names = "ppl", *calib = NULL, *out = NULL, *copy = NULL;
    int64_t samples = 10, seq_len = 128;
    bool bos_every = false;
    struct scoring g = {0};
    struct scoring_words w;
    struct opt own[SCORING_OPTS + OWN] = {
        {OPT_STRING, "criterion", &names, "C",
         "ppl, taylor, magnitude, bi, angular, relative-magnitude, cka, greedy, random; or several: ppl,bi"},
        {OPT_STRING, "calib", &calib, "FILE", "calibration text (.txt, .jsonl, either .gz) or token rows (.json, .h5)"},
        {OPT_STRING, "out", &out, "SCORES", "result, .json or .h5; with several criteria each name goes in before the ending"},
        {OPT_STRING, "copy", &copy, "FILE", "write the result there too, in the other format for one"},
        {OPT_INT, "samples", &samples, "N", "calibration samples"},
        {OPT_INT, "seq-len", &seq_len, "T", "tokens per sample"},
        {OPT_FLAG, "bos-every", &bos_every, NULL, "samples begin with BOS"},
        {OPT_INT, "keep-first", &g.o.keep_first, "N", "greedy: blocks at the start that are never taken out"},
        {OPT_INT, "keep-last", &g.o.keep_last, "N", "greedy: blocks at the end that are never taken out"},
        {OPT_INT, "bootstrap", &g.o.bootstrap, "N", "ppl: how sure each rank is, from N resamplings of the calibration rows"},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    struct calibration cal = {0};
    scoring_options(own + OWN, &w, &g);
    int rc = command_parse(cli, &words, own, &o, 1234, 1, 1, "MODEL --criterion C --calib FILE --out SCORES", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (!calib || !out)
        return err_usage(err, "score needs --calib and --out");
    if (scoring_check(&g, &w, "criterion", names, err) != 0)
        return -1;
    if (cli->checking)
        return 0;
    if (scoring_describe(&g, own, err) != 0 || place_check_file(out, err) != 0 || (copy && place_check_file(copy, err) != 0) ||
        session_open(&s, &o, words.word[0], BLOCKWISE, err) != 0)
        return -1;
    rc = -1;
    if (calibration_read(&cal, calib, s.t, samples, seq_len, (uint64_t)o.seed, bos_every, err) != 0 ||
        scoring_run(&g, cli, &s, &o, &cal, out, copy, err) != 0)
        goto done;
    cli->result = session_facts(&s, cli, &o);
    json_object_update_new(cli->result, scoring_summary(&g));
    facts_file(cli->result, "calibration", cal.file, cal.sha256);
    if (cli->out && !cli->json)
        print_results(cli->out, &g);
    rc = 0;
done:
    scoring_free(&g);
    calibration_free(&cal);
    session_close(&s);
    return rc;
}
