#include <stdlib.h>
#include <string.h>

#include "cli/texts.h"
#include "eval/speed.h"

int cmd_eval_ppl(struct cli *cli, struct err *err)
{
    const char *path = NULL;
    struct text_words w;
    struct opt own[TEXT_OPTS + 2] = {{OPT_STRING, "text", &path, "FILE", "the text; may be gzipped"}};
    struct opt_words words;
    struct common o;
    struct session s;
    struct eval_text text;
    struct ppl_result r;
    text_options(own + 1, &w);
    own[TEXT_OPTS + 1].kind = OPT_END;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL --text FILE --protocol P", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (!path)
        return err_usage(err, "eval ppl needs --text");
    if (eval_text_open(&text, NULL, NULL, &w, err) != 0 ||
        session_open(&s, &o, words.word[0], NEEDS_TOKENIZER | BLOCKWISE, err) != 0)
        return -1;
    rc = -1;
    if (eval_text_open(&text, &s, path, &w, err) != 0 || eval_text_ppl(&r, &text, &s, &cli->progress, err) != 0)
        goto done;
    const struct ppl_protocol *p = &text.protocol;
    cli->result = session_facts(&s, cli, &o);
    static const char *const places[] = {[PPL_BOS_NONE] = "none",
                                         [PPL_BOS_STREAM] = "once before the stream",
                                         [PPL_BOS_WINDOW] = "before every window",
                                         [PPL_BOS_FIRST] = "in place of every window's first token"};
    const char *bos = places[p->bos];
    json_object_update_new(cli->result, json_pack("{sf sf sI sI ss ss ss ss}", "ppl", r.ppl, "nll", r.nll, "tokens_scored",
                                                  (json_int_t)r.tokens_scored, "windows", (json_int_t)r.windows, "protocol",
                                                  p->name, "bos", bos, "text", path, "text_sha256", text.sha256));
    if (cli->out && !cli->json)
        fprintf(cli->out, "perplexity %.4f  (%s: %lld tokens scored in %lld windows, BOS %s; %s, sha256 %.12s)\n", r.ppl, p->name,
                (long long)r.tokens_scored, (long long)r.windows, bos, path, text.sha256);
    rc = 0;
done:
    eval_text_free(&text);
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
