#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/scoring.h"

static double score_of(const struct scores *s, int64_t position)
{
    return s->score[position];
}

/* The ranking as a table, with a bar that shows each score between the smallest and the third quartile: the last few are often
 * far away. */
static void print_scores(FILE *out, const struct scores *s, const char *heading)
{
    int64_t order[s->n];
    char name[UNIT_NAME];
    scores_order(order, s);
    double low = score_of(s, order[0]), high = score_of(s, order[s->n - 1 - s->n / 4]);
    fprintf(out, "%s; perplexity of the model as it is: %.4f\n%5s  %8s  %20s%s\n", s->criterion, s->base_ppl, "rank",
            scores_sublayers(s) ? "sublayer" : "block", heading, s->swap ? "  swaps with next" : "");
    for (int64_t i = 0; i < s->n; i++) {
        double v = score_of(s, order[i]), part = high > low ? (v - low) / (high - low) : 0;
        int bar = part > 1 ? 30 : (int)(30 * part);
        fprintf(out, "%5lld  %8s  %20.6g", (long long)i + 1, unit_name(name, s->unit[order[i]]), v);
        if (s->swap && i + 1 < s->n)
            fprintf(out, "  %13.1f %%", 100 * s->swap[i]);
        else if (s->swap)
            fprintf(out, "%17s", "");
        fprintf(out, "  %.*s%s\n", bar, "##############################", part > 1 ? ">" : "");
    }
}

static void print_results(FILE *out, const struct scoring *g)
{
    for (int64_t i = 0; i < g->n; i++)
        if (g->scores[i].n) /* empty where a finished file was taken over */
            print_scores(out, &g->scores[i], g->which[i]->score);
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
    if (scoring_check(&g, &w, names, err) != 0 || session_open(&s, &o, words.word[0], 0, err) != 0)
        return -1;
    rc = -1;
    if (calibration_read(&cal, calib, s.t, samples, seq_len, (uint64_t)o.seed, bos_every, err) != 0 ||
        scoring_run(&g, cli, &s, &o, &cal, out, copy, err) != 0)
        goto done;
    cli->result = session_facts(&s, cli, &o);
    json_object_update_new(cli->result, scoring_summary(&g));
    if (cli->out && !cli->json)
        print_results(cli->out, &g);
    rc = 0;
done:
    scoring_free(&g);
    calibration_free(&cal);
    session_close(&s);
    return rc;
}
