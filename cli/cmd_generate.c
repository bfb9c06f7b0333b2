#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "eval/generate.h"

struct sampling_options {
    struct sampling s;
    int64_t max_tokens;
    bool ignore_eos;
};

static int check_sampling(struct sampling_options *k, const struct common *o, struct err *err)
{
    if (k->s.temperature < 0 || k->s.top_k < 0 || !(k->s.top_p > 0 && k->s.top_p <= 1) || k->max_tokens < 1)
        return err_usage(err, "--temperature and --top-k must not be negative, --top-p must be in (0, 1], --max-tokens positive");
    k->s.seed = (uint64_t)o->seed;
    return 0;
}

/* Prints tokens as they come. Bytes of an unfinished UTF-8 character wait for the rest. */
struct printer {
    const struct tokenizer *t;
    FILE *out;
    struct ids ids; /* everything so far */
    size_t shown;   /* bytes printed */
    struct err err;
};

static size_t whole_utf8(const char *s, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)s[n - back];
        if (c >= 0xc0)
            return (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u) > back ? n - back : n;
        if (c < 0x80)
            return n;
    }
    return n;
}

static bool print_token(void *arg, int32_t id)
{
    struct printer *p = arg;
    char *text;
    size_t n;
    if (ids_push(&p->ids, id, &p->err) != 0 || tokenizer_decode(&text, &n, p->t, p->ids.ids, p->ids.n, &p->err) != 0)
        return false;
    n = whole_utf8(text, n);
    if (n > p->shown) {
        fwrite(text + p->shown, 1, n - p->shown, p->out);
        fflush(p->out);
        p->shown = n;
    }
    free(text);
    return true;
}

static json_t *json_ids(const int32_t *ids, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_integer(ids[i]));
    return a;
}

int cmd_generate(struct cli *cli, struct err *err)
{
    const char *prompt = NULL;
    struct sampling_options k = {.s = {.temperature = 0, .top_p = 1}, .max_tokens = 64};
    struct opt own[] = {
        {OPT_STRING, "prompt", &prompt, "T", "the text to continue"},
        {OPT_INT, "max-tokens", &k.max_tokens, "N", "new tokens at most"},
        {OPT_REAL, "temperature", &k.s.temperature, "T", "0 is greedy"},
        {OPT_INT, "top-k", &k.s.top_k, "K", "draw among the K likeliest tokens; 0 is all"},
        {OPT_REAL, "top-p", &k.s.top_p, "P", "draw among the likeliest tokens that together have probability P"},
        {OPT_FLAG, "ignore-eos", &k.ignore_eos, NULL, "go on after an end-of-sequence token"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    struct generator g = {0};
    struct ids in = {0}, out = {0};
    struct printer printer = {0};
    char *text = NULL;
    size_t n_text;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL --prompt T", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (!prompt)
        return err_usage(err, "generate needs --prompt");
    if (check_sampling(&k, &o, err) != 0 || session_open(&s, &o, words.word[0], NEEDS_TOKENIZER, err) != 0)
        return -1;
    rc = -1;
    if (tokenizer_adds_bos(s.t) && ids_push(&in, tokenizer_bos(s.t), err) != 0)
        goto done;
    if (tokenizer_encode(&in, s.t, prompt, strlen(prompt), err) != 0)
        goto done;
    if (in.n == 0 && (tokenizer_bos(s.t) < 0 || ids_push(&in, tokenizer_bos(s.t), err) != 0)) {
        err_set(err, "--prompt holds no tokens, and the tokenizer has no BOS to begin with");
        goto done;
    }
    bool stream = cli->out && !cli->json;
    printer = (struct printer){.t = s.t, .out = cli->out};
    if (generator_open(&g, &s.m, &s.c, s.adapter, (int64_t)in.n + k.max_tokens, err) != 0)
        goto done;
    if (stream)
        fputs(prompt, cli->out);
    if (generate(&out, &g, in.ids, (int64_t)in.n, k.max_tokens, k.ignore_eos ? -1 : tokenizer_eos(s.t), &k.s,
                 stream ? print_token : NULL, &printer, err) != 0 ||
        tokenizer_decode(&text, &n_text, s.t, out.ids, out.n, err) != 0)
        goto done;
    if (printer.err.code) {
        *err = printer.err;
        goto done;
    }
    if (stream)
        fputc('\n', cli->out);
    json_t *string = json_stringn(text, n_text);
    cli->result = session_facts(&s, cli, &o);
    json_object_update_new(cli->result, json_pack("{so so so}", "prompt_ids", json_ids(in.ids, in.n), "ids",
                                                  json_ids(out.ids, out.n), "text", string ? string : json_string("")));
    rc = 0;
done:
    free(text);
    free(printer.ids.ids);
    free(in.ids);
    free(out.ids);
    generator_close(&g);
    session_close(&s);
    return rc;
}

/* One turn: renders the conversation, answers, appends the answer to the messages. The whole conversation is run again; the part
 * of it that the cache already holds is only a prefix of the same tokens, so it is kept. */
static int answer(struct session *s, struct generator *g, json_t *messages, const struct sampling_options *k, FILE *out,
                  struct ids *cached, struct err *err)
{
    struct ids in = {0}, new = {0};
    struct printer p = {.t = s->t, .out = out};
    char *text = NULL, *reply = NULL;
    size_t n_reply;
    int rc = -1;
    if (tokenizer_chat(&text, s->t, messages, true, err) != 0 || tokenizer_encode_chat(&in, s->t, text, strlen(text), err) != 0)
        goto done;
    size_t same = 0;
    while (same < cached->n && same + 1 < in.n && cached->ids[same] == in.ids[same])
        same++;
    g->kv.len = (int64_t)same;
    if ((int64_t)in.n + k->max_tokens > g->kv.cap) {
        err_set(err, "the conversation has grown past the %lld tokens there is room for", (long long)g->kv.cap);
        goto done;
    }
    if (generate(&new, g, in.ids + same, (int64_t)(in.n - same), k->max_tokens, tokenizer_eos(s->t), &k->s, print_token, &p, err) !=
            0 ||
        tokenizer_decode(&reply, &n_reply, s->t, new.ids, new.n, err) != 0)
        goto done;
    fputc('\n', out);
    json_array_append_new(messages, json_pack("{ss ss}", "role", "assistant", "content", reply));
    cached->n = 0;
    for (size_t i = 0; i < (size_t)g->kv.len; i++)
        if (ids_push(cached, i < in.n ? in.ids[i] : new.ids[i - in.n], err) != 0)
            goto done;
    rc = 0;
done:
    free(text);
    free(reply);
    free(in.ids);
    free(new.ids);
    free(p.ids.ids);
    return rc;
}

int cmd_chat(struct cli *cli, struct err *err)
{
    const char *system = NULL;
    int64_t context = 2048;
    struct sampling_options k = {.s = {.temperature = 0.7, .top_k = 50, .top_p = 0.95}, .max_tokens = 256};
    struct opt own[] = {
        {OPT_STRING, "system", &system, "TEXT", "system message"},
        {OPT_INT, "context", &context, "N", "tokens of conversation at most"},
        {OPT_INT, "max-tokens", &k.max_tokens, "N", "tokens of an answer at most"},
        {OPT_REAL, "temperature", &k.s.temperature, "T", "0 is greedy"},
        {OPT_INT, "top-k", &k.s.top_k, "K", "draw among the K likeliest tokens; 0 is all"},
        {OPT_REAL, "top-p", &k.s.top_p, "P", "draw among the likeliest tokens that together have probability P"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    struct generator g = {0};
    struct ids cached = {0};
    json_t *messages = NULL;
    char *line = NULL;
    size_t cap = 0;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (check_sampling(&k, &o, err) != 0 || session_open(&s, &o, words.word[0], NEEDS_TOKENIZER, err) != 0)
        return -1;
    messages = json_array();
    if (system)
        json_array_append_new(messages, json_pack("{ss ss}", "role", "system", "content", system));
    rc = generator_open(&g, &s.m, &s.c, s.adapter, context, err);
    while (rc == 0) {
        fputs("> ", cli->out);
        fflush(cli->out);
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0) {
            fputc('\n', cli->out);
            break;
        }
        if (n > 0 && line[n - 1] == '\n')
            line[--n] = 0;
        if (n == 0)
            continue;
        json_t *text = json_stringn(line, (size_t)n);
        if (!text) {
            fputs("(that line is not UTF-8)\n", cli->out);
            continue;
        }
        json_array_append_new(messages, json_pack("{ss so}", "role", "user", "content", text));
        rc = answer(&s, &g, messages, &k, cli->out, &cached, err);
        k.s.seed++; /* a new draw for every answer */
    }
    free(line);
    free(cached.ids);
    json_decref(messages);
    generator_close(&g);
    session_close(&s);
    return rc;
}
