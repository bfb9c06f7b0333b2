#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/file.h"
#include "data/text.h"
#include "eval/ppl.h"
#include "eval/speed.h"

/* The row rule that --rows and --format ask for. */
static int row_rule(enum row_rule *rule, const char *rows, const char *format, struct err *err)
{
    if (rows && !strcmp(rows, "wikitext"))
        *rule = ROWS_WIKITEXT;
    else if (rows && !strcmp(rows, "ptb"))
        *rule = ROWS_PTB;
    else if (rows)
        return err_usage(err, "--rows %s: wikitext or ptb was expected", rows);
    else if (!strcmp(format, "raw"))
        *rule = ROWS_RAW;
    else if (!strcmp(format, "lines"))
        *rule = ROWS_LINES;
    else
        return err_usage(err, "--format %s: raw or lines was expected", format);
    return 0;
}

int cmd_eval_ppl(struct cli *cli, struct err *err)
{
    const char *text = NULL, *protocol = "shortened-128", *format = "raw", *rows = NULL;
    int64_t seq_len = 0, max_tokens = 0;
    struct opt own[] = {
        {OPT_STRING, "text", &text, "FILE", "the text; may be gzipped"},
        {OPT_STRING, "protocol", &protocol, "P", "shortened-128, shortened-128-bos or gptq-2048"},
        {OPT_INT, "seq-len", &seq_len, "T", "another window length than the protocol's"},
        {OPT_STRING, "format", &format, "F", "raw: the file as it is; lines: its lines, joined by two line breaks"},
        {OPT_STRING, "rows", &rows, "R", "wikitext or ptb: the rows of those data sets, joined as the published scripts do"},
        {OPT_INT, "max-tokens", &max_tokens, "N", "use only the first N tokens of the text"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    struct ppl_protocol p;
    struct ppl_result r;
    struct ids ids = {0};
    enum row_rule rule = ROWS_RAW;
    char *data = NULL, sha[65];
    size_t size;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL --text FILE --protocol P", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (!text)
        return err_usage(err, "eval ppl needs --text");
    if (seq_len < 0 || max_tokens < 0)
        return err_usage(err, "--seq-len and --max-tokens must not be negative");
    if (row_rule(&rule, rows, format, err) != 0 || ppl_protocol(&p, protocol, seq_len, err) != 0 ||
        session_open(&s, &o, words.word[0], NEEDS_TOKENIZER, err) != 0)
        return -1;
    rc = -1;
    if (file_sha256(sha, text, err) != 0 || text_read(&data, &size, text, rule, err) != 0 ||
        tokenizer_encode(&ids, s.t, data, size, err) != 0)
        goto done;
    if (max_tokens > 0 && (size_t)max_tokens < ids.n)
        ids.n = (size_t)max_tokens;
    struct err ppl_err = {0};
    if (ppl_evaluate(&r, &s.m, &s.c, s.adapter, &p, ids.ids, (int64_t)ids.n, tokenizer_bos(s.t), &cli->progress, &ppl_err) != 0) {
        if (ppl_err.code == ERR_USAGE)
            err_usage(err, "%s", ppl_err.msg);
        else
            err_set(err, "%s: %s", text, ppl_err.msg);
        goto done;
    }
    cli->result = session_facts(&s, cli, &o);
    const char *bos = p.bos_stream ? "once before the stream" : p.bos_window ? "before every window" : "none";
    json_object_update_new(cli->result, json_pack("{sf sf sI sI ss ss ss ss}", "ppl", r.ppl, "nll", r.nll, "tokens_scored",
                                                  (json_int_t)r.tokens_scored, "windows", (json_int_t)r.windows, "protocol", p.name,
                                                  "bos", bos, "text", text, "text_sha256", sha));
    if (cli->out && !cli->json)
        fprintf(cli->out, "perplexity %.4f  (%s: %lld tokens scored in %lld windows, BOS %s; %s, sha256 %.12s)\n", r.ppl, p.name,
                (long long)r.tokens_scored, (long long)r.windows, bos, text, sha);
    rc = 0;
done:
    free(data);
    free(ids.ids);
    session_close(&s);
    return rc;
}

int cmd_eval_speed(struct cli *cli, struct err *err)
{
    const char *prompt = "The Leaning Tower of Pisa is known for";
    int64_t in_len = 12, out_len = 128, warmup = 2, runs = 5;
    struct opt own[] = {
        {OPT_STRING, "prompt", &prompt, "TEXT", "what the prompt's tokens are taken from, again and again"},
        {OPT_INT, "in-len", &in_len, "N", "prompt tokens"},
        {OPT_INT, "out-len", &out_len, "N", "new tokens"},
        {OPT_INT, "warmup", &warmup, "N", "runs before the clock starts"},
        {OPT_INT, "runs", &runs, "N", "timed runs"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    struct speed_result r;
    struct ids ids = {0};
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (in_len < 1)
        return err_usage(err, "--in-len %lld: at least 1 was expected", (long long)in_len);
    if (session_open(&s, &o, words.word[0], NEEDS_TOKENIZER, err) != 0)
        return -1;
    rc = -1;
    do
        if (tokenizer_encode(&ids, s.t, prompt, strlen(prompt), err) != 0)
            goto done;
    while (ids.n > 0 && (int64_t)ids.n < in_len);
    if (ids.n == 0) {
        err_set(err, "--prompt holds no tokens");
        goto done;
    }
    if (speed_measure(&r, &s.m, &s.c, s.adapter, ids.ids, in_len, out_len, warmup, runs, &cli->progress, err) != 0)
        goto done;
    cli->result = session_facts(&s, cli, &o);
    json_object_update_new(cli->result,
                           json_pack("{sf sf sf sf sf sI sI sI}", "prefill_tok_s", r.prefill_tok_s, "decode_tok_s", r.decode_tok_s,
                                     "latency_s", r.latency_s, "latency_std", r.latency_std, "throughput_tok_s", r.throughput_tok_s,
                                     "bytes_per_token", (json_int_t)r.bytes_per_token, "in_len", (json_int_t)in_len, "out_len",
                                     (json_int_t)out_len));
    if (cli->out && !cli->json)
        fprintf(
            cli->out,
            "%lld tokens in, %lld out, batch 1, %lld runs\n  prefill     %9.1f tokens/s\n  decode      %9.1f tokens/s, %.1f MB of "
            "weights each\n  latency     %9.3f s +- %.3f\n  throughput  %9.1f tokens/s\n  peak memory %9.1f MiB\n",
            (long long)in_len, (long long)out_len, (long long)runs, r.prefill_tok_s, r.decode_tok_s,
            1e-6 * (double)r.bytes_per_token, r.latency_s, r.latency_std, r.throughput_tok_s, (double)mem_peak_rss() / (1 << 20));
    rc = 0;
done:
    free(ids.ids);
    session_close(&s);
    return rc;
}
