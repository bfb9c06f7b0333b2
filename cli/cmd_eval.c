#include "cli/texts.h"
#include "core/base/json.h"

static void print_result(FILE *out, const struct ppl_result *r, const struct eval_text *t, const char *bos)
{
    fprintf(out, "perplexity %.4f  (%s: %lld tokens scored in %lld windows, BOS %s; ", r->ppl, t->protocol.name,
            (long long)r->tokens_scored, (long long)r->windows, bos);
    if ((int64_t)t->ids.n < t->tokens_in_text)
        fprintf(out, "the first %lld of ", (long long)t->ids.n);
    fprintf(out, "%lld tokens of %s, sha256 %.12s)\n", (long long)t->tokens_in_text, t->path, t->sha256);
}

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
    if (opt_exclusive(&words, text_either, err) != 0 || eval_text_open(&text, NULL, NULL, &w, err) != 0)
        return -1;
    if (cli->checking)
        return 0;
    if (session_open(&s, &o, words.word[0], NEEDS_TOKENIZER | BLOCKWISE, err) != 0)
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
    json_object_update_new(cli->result, json_pack("{sf sf sI sI ss ss}", "ppl", r.ppl, "nll", r.nll, "tokens_scored",
                                                  (json_int_t)r.tokens_scored, "windows", (json_int_t)r.windows, "protocol",
                                                  p->name, "bos", bos));
    eval_text_facts(cli->result, &text);
    if (cli->out && !cli->json)
        print_result(cli->out, &r, &text, bos);
    rc = 0;
done:
    eval_text_free(&text);
    session_close(&s);
    return rc;
}
