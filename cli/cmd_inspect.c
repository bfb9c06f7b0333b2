#include "cli/cli.h"

/* Its kind, or why there is none. */
static const char *tokenizer_name(const struct session *s)
{
    return s->t ? tokenizer_kind(s->t) : s->no_tokenizer.code ? s->no_tokenizer.msg : "none";
}

static void print_table(FILE *out, const struct session *s)
{
    const struct config *c = &s->m.cfg;
    fprintf(out, "%s\n  format         %s, weights %s\n", s->m.path, s->m.format, model_dtype(&s->m));
    fprintf(out, "  blocks         %lld of %.2f M parameters each\n", (long long)s->m.n_order,
            1e-6 * (double)model_block_params(&s->m, PARTS_ALL));
    fprintf(out, "  parameters     %.2f M, embeddings %s\n", 1e-6 * (double)model_params(&s->m),
            c->tied_embeddings ? "tied" : "not tied");
    fprintf(out, "  width          %lld, feed-forward %lld\n", (long long)c->dim, (long long)c->ffn_dim);
    fprintf(out, "  heads          %lld of %lld, %lld for keys and values\n", (long long)c->n_heads, (long long)c->head_dim,
            (long long)c->n_kv_heads);
    fprintf(out, "  context        %lld tokens, rope theta %g\n", (long long)c->context_length, c->rope_theta);
    fprintf(out, "  vocabulary     %lld tokens, tokenizer %s\n", (long long)c->vocab_size, tokenizer_name(s));
    fprintf(out, "  hash           %.16s (of the description and the tensor index)\n", s->m.hash);
}

int cmd_inspect(struct cli *cli, struct err *err)
{
    struct opt own[] = {{.kind = OPT_END}};
    struct opt_words words;
    struct common o;
    struct session s;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (cli->checking)
        return 0;
    if (session_open(&s, &o, words.word[0], TELLS_TOKENIZER, err) != 0)
        return -1;
    const struct config *c = &s.m.cfg;
    cli->result =
        json_pack("{ss ss sI sI sI sI sI sI sI sI sI ss sb ss sI ss ss}", "format", s.m.format, "architecture", "llama", "n_blocks",
                  (json_int_t)s.m.n_order, "dim", (json_int_t)c->dim, "n_heads", (json_int_t)c->n_heads, "n_kv_heads",
                  (json_int_t)c->n_kv_heads, "head_dim", (json_int_t)c->head_dim, "ffn_dim", (json_int_t)c->ffn_dim, "vocab_size",
                  (json_int_t)c->vocab_size, "n_params", (json_int_t)model_params(&s.m), "params_per_block",
                  (json_int_t)model_block_params(&s.m, PARTS_ALL), "dtype", model_dtype(&s.m), "tied_embeddings",
                  c->tied_embeddings, "tokenizer", tokenizer_name(&s), "context_length", (json_int_t)c->context_length,
                  "model_hash", s.m.hash, "model_fingerprint", s.m.fingerprint);
    if (cli->out && !cli->json)
        print_table(cli->out, &s);
    session_close(&s);
    return 0;
}
