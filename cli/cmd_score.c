#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "prune/score_ppl.h"

static double score_of(const struct scores *s, int64_t block)
{
    int64_t i = 0;
    while (s->block[i] != block)
        i++;
    return s->score[i];
}

static void print_scores(FILE *out, const struct scores *s)
{
    int64_t order[s->n_blocks];
    scores_order(order, s);
    fprintf(out, "perplexity of the model as it is: %.4f\n%5s  %6s  %12s\n", s->base_ppl, "rank", "block", "ppl without");
    for (int64_t i = 0; i < s->n_blocks; i++)
        fprintf(out, "%5lld  %6lld  %12.4f\n", (long long)i + 1, (long long)order[i], score_of(s, order[i]));
}

int cmd_score(struct cli *cli, struct err *err)
{
    const char *criterion = "ppl", *calib = NULL, *out = NULL, *copy = NULL;
    int64_t samples = 10, seq_len = 128;
    bool bos_every = false;
    struct opt own[] = {
        {OPT_STRING, "criterion", &criterion, "C", "ppl: perplexity with the block removed"},
        {OPT_STRING, "calib", &calib, "FILE", "calibration text (.txt, .jsonl, either .gz) or token rows (.json, .h5)"},
        {OPT_STRING, "out", &out, "SCORES", "result, .json or .h5"},
        {OPT_STRING, "copy", &copy, "FILE", "write the result there too, in the other format for one"},
        {OPT_INT, "samples", &samples, "N", "calibration samples"},
        {OPT_INT, "seq-len", &seq_len, "T", "tokens per sample"},
        {OPT_FLAG, "bos-every", &bos_every, NULL, "samples begin with BOS"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    struct calibration cal = {0};
    struct scores scores = {0};
    int rc = command_parse(cli, &words, own, &o, 1234, 1, 1, "MODEL --criterion ppl --calib FILE --out SCORES", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (!calib || !out)
        return err_usage(err, "score needs --calib and --out");
    if (strcmp(criterion, "ppl"))
        return err_usage(err, "--criterion %s: ppl was expected", criterion);
    if (session_open(&s, &o, words.word[0], 0, err) != 0)
        return -1;
    rc = -1;
    if (calibration_read(&cal, calib, s.t, samples, seq_len, (uint64_t)o.seed, bos_every, err) != 0 ||
        score_ppl(&scores, &s.m, &s.c, s.adapter, &cal, &cli->progress, err) != 0)
        goto done;
    cli->result = session_facts(&s, cli, &o);
    if (scores_write(out, &scores, &cal, cli->result, err) != 0 ||
        (copy && scores_write(copy, &scores, &cal, cli->result, err) != 0))
        goto done;
    json_object_set_new(cli->result, "base_ppl", json_real(scores.base_ppl));
    json_object_set_new(cli->result, "out", json_string(out));
    if (cli->out && !cli->json)
        print_scores(cli->out, &scores);
    rc = 0;
done:
    scores_free(&scores);
    calibration_free(&cal);
    session_close(&s);
    return rc;
}
