#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/json.h"
#include "core/base/utf8.h"
#include "eval/serve/text.h"
#include "eval/generate.h"
#include "eval/speculate.h"

struct sampling_options {
    struct sampling s;
    int64_t max_tokens;
    bool ignore_eos;
};

static int check_sampling(struct sampling_options *k, const struct opt_words *words, const struct common *o, struct err *err)
{
    static const char *const drawing[] = {"top-k", "top-p"};
    for (size_t i = 0; i < sizeof drawing / sizeof *drawing; i++)
        if (k->s.temperature == 0 && opt_given(words, drawing[i]))
            return err_usage(err, "--%s contradicts --temperature 0, which takes the likeliest token", drawing[i]);
    if (k->s.temperature < 0 || k->s.top_k < 0 || !(k->s.top_p > 0 && k->s.top_p <= 1) || k->max_tokens < 1)
        return err_usage(err, "--temperature and --top-k must not be negative, --top-p must be in (0, 1], --max-tokens positive");
    k->s.seed = (uint64_t)o->seed;
    return 0;
}

/* Prints tokens as they come: what they add to the text of the prompt, so that the blank before the first of them is there. */
struct printer {
    struct text_out text;
    FILE *out;
    const char *prompt; /* comes first */
    struct err err;
};

enum { TOKENS_BEFORE = 16 }; /* of the prompt, enough for what a decoder makes of its end */

static int printer_open(struct printer *p, const struct tokenizer *t, const struct ids *in, FILE *out, const char *prompt,
                        struct err *err)
{
    size_t n = in->n < TOKENS_BEFORE ? in->n : TOKENS_BEFORE;
    *p = (struct printer){.out = out, .prompt = prompt};
    return text_open(&p->text, t, in->ids + in->n - n, n, err);
}

static void print_ready(struct printer *p, bool end)
{
    size_t n, n_valid;
    const char *s = text_take(&p->text, &n, end);
    if (n == 0 || !p->out)
        return;
    char *valid = utf8_repaired(&n_valid, s, n);
    if (!valid) {
        err_set(&p->err, "out of memory");
        return;
    }
    fwrite(valid, 1, n_valid, p->out);
    fflush(p->out);
    free(valid);
}

static bool print_token(void *arg, int32_t id)
{
    struct printer *p = arg;
    if (text_add(&p->text, id, &p->err) != 0)
        return false;
    print_ready(p, false);
    return p->err.code == ERR_NONE;
}

/* Once nothing can go wrong any more that could be told before. */
static void print_prompt(const struct printer *p)
{
    if (p && p->prompt && p->out)
        fputs(p->prompt, p->out);
}

static json_t *json_ids(const int32_t *ids, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_integer(ids[i]));
    return a;
}

/* What proposes tokens: the model without some blocks, maybe with an adapter. */
struct draft_options {
    const char *drop, *adapter;
    int64_t tokens;
    bool quiet;
};

struct drafted {
    int64_t passes, proposed, accepted;
    double speed_up; /* against the model alone */
};

/* Greedy generation with a draft. */
static int generate_drafted(struct ids *out, struct drafted *told, struct session *s, const struct draft_options *d,
                            const struct ids *in, const struct sampling_options *k, struct printer *p, struct err *err)
{
    struct model view = {0};
    struct lora_set lora = {0};
    struct speculator spec = {0};
    double plain = 0;
    int rc = -1;
    if (model_view(&view, &s->m, err) != 0 || model_drop_list(&view, d->drop, err) != 0 ||
        (d->adapter && lora_load(&lora, &view, d->adapter, false, err) != 0) ||
        speculator_open(&spec, &s->m, s->adapter, &view, d->adapter ? &lora : NULL, d->tokens, &s->c,
                        (int64_t)in->n + k->max_tokens, err) != 0)
        goto done;
    if (d->adapter)
        tell_other_base(&lora, d->adapter, s->m.path, d->quiet);
    print_prompt(p);
    if (speculate(out, &spec, in->ids, (int64_t)in->n, k->max_tokens, k->ignore_eos ? NULL : tokenizer_ends(s->t),
                  p ? print_token : NULL, p, err) != 0 ||
        speculator_plain_seconds(&plain, &spec, err) != 0)
        goto done;
    *told = (struct drafted){spec.passes, spec.proposed, spec.accepted,
                             spec.seconds > 0 && out->n > 1 ? (double)(out->n - 1) * plain / spec.seconds : 1};
    rc = 0;
done:
    speculator_close(&spec);
    lora_free(&lora);
    model_view_free(&view);
    return rc;
}

static int generate_plain(struct ids *out, struct session *s, const struct ids *in, const struct sampling_options *k,
                          struct printer *p, struct err *err)
{
    struct generator g = {0};
    if (generator_open(&g, &s->m, &s->c, s->adapter, (int64_t)in->n + k->max_tokens, err) != 0)
        return -1;
    print_prompt(p);
    int rc = generate(out, &g, in->ids, (int64_t)in->n, k->max_tokens, k->ignore_eos ? NULL : tokenizer_ends(s->t), &k->s,
                      p ? print_token : NULL, p, err);
    generator_close(&g);
    return rc;
}

static int encode_prompt(struct ids *in, const struct tokenizer *t, const char *prompt, struct err *err)
{
    if (tokenizer_adds_bos(t) && ids_push(in, tokenizer_bos(t), err) != 0)
        return -1;
    if (tokenizer_encode(in, t, prompt, strlen(prompt), err) != 0)
        return -1;
    if (in->n == 0 && (tokenizer_bos(t) < 0 || ids_push(in, tokenizer_bos(t), err) != 0))
        return err_set(err, "--prompt holds no tokens, and the tokenizer has no BOS to begin with");
    return 0;
}

/* Positions that the model was not made for give text, too, and no sign of it. */
static void warn_of_context(struct cli *cli, const struct session *s, size_t prompt, int64_t max_tokens)
{
    if ((int64_t)prompt + max_tokens > s->m.cfg.context_length)
        progress_say(&cli->progress, "%lld tokens of the prompt and up to %lld new ones: the model was made for %lld positions",
                     (long long)prompt, (long long)max_tokens, (long long)s->m.cfg.context_length);
}

static int check_draft(const struct draft_options *d, const struct sampling_options *k, struct err *err)
{
    if (!d->drop && (d->adapter || d->tokens != 4))
        return err_usage(err, "--draft-adapter and --draft-tokens go with --draft-drop");
    if (d->drop && k->s.temperature > 0)
        return err_usage(err, "--draft-drop is for greedy generation: --temperature 0");
    if (d->tokens < 1 || d->tokens > MAX_DRAFT)
        return err_usage(err, "--draft-tokens: 1 to %d were expected", MAX_DRAFT);
    return 0;
}

static void tell_drafted(struct cli *cli, const struct drafted *t)
{
    double rate = t->proposed ? (double)t->accepted / (double)t->proposed : 0;
    progress_say(&cli->progress, "draft: %lld of %lld proposed tokens accepted (%.0f %%), %.2f times the speed without",
                 (long long)t->accepted, (long long)t->proposed, 100 * rate, t->speed_up);
    json_object_set_new(cli->result, "draft",
                        json_pack("{sI sI sI sf sf}", "passes", (json_int_t)t->passes, "proposed", (json_int_t)t->proposed,
                                  "accepted", (json_int_t)t->accepted, "acceptance", rate, "speed_up", t->speed_up));
}

/* text: what the ids add to the prompt's; bytes that make no character are U+FFFD in it. */
static json_t *generated_json(const struct ids *in, const struct ids *out, const struct text_out *text)
{
    return json_pack("{so so so}", "prompt_ids", json_ids(in->ids, in->n), "ids", json_ids(out->ids, out->n), "text",
                     json_utf8(text->text ? text->text : "", text->n));
}

int cmd_generate(struct cli *cli, struct err *err)
{
    const char *prompt = NULL;
    struct draft_options draft = {.tokens = 4};
    struct drafted drafted = {0};
    struct sampling_options k = {.s = {.temperature = 0, .top_p = 1}, .max_tokens = 64};
    struct opt own[] = {
        {OPT_STRING, "prompt", &prompt, "T", "the text to continue"},
        {OPT_INT, "max-tokens", &k.max_tokens, "N", "new tokens at most"},
        {OPT_REAL, "temperature", &k.s.temperature, "T", "0 is greedy"},
        {OPT_INT, "top-k", &k.s.top_k, "K", "draw among the K likeliest tokens; 0 is all"},
        {OPT_REAL, "top-p", &k.s.top_p, "P", "draw among the likeliest tokens that together have probability P"},
        {OPT_FLAG, "ignore-eos", &k.ignore_eos, NULL, "go on after an end-of-sequence token"},
        {OPT_STRING, "draft-drop", &draft.drop, "10,11",
         "greedy: the model without these blocks proposes tokens; the text is the same"},
        {OPT_STRING, "draft-adapter", &draft.adapter, "DIR", "adapter of the draft"},
        {OPT_INT, "draft-tokens", &draft.tokens, "N", "tokens proposed at a time"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    struct ids in = {0}, out = {0};
    struct printer printer = {0};
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL --prompt T", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (!prompt)
        return err_usage(err, "generate needs --prompt");
    if (check_sampling(&k, &words, &o, err) != 0 || check_draft(&draft, &k, err) != 0)
        return -1;
    if (cli->checking)
        return 0;
    if (session_open(&s, &o, words.word[0], NEEDS_TOKENIZER, err) != 0)
        return -1;
    bool stream = cli->out && !cli->json;
    if ((rc = encode_prompt(&in, s.t, prompt, err)) != 0 ||
        (rc = printer_open(&printer, s.t, &in, stream ? cli->out : NULL, prompt, err)) != 0)
        goto done;
    warn_of_context(cli, &s, in.n, k.max_tokens);
    if (draft.drop)
        draft.quiet = cli->quiet, rc = generate_drafted(&out, &drafted, &s, &draft, &in, &k, &printer, err);
    else
        rc = generate_plain(&out, &s, &in, &k, &printer, err);
    if (rc == 0 && printer.err.code) {
        *err = printer.err;
        rc = -1;
    }
    if (rc != 0)
        goto done;
    print_ready(&printer, true);
    if (stream)
        fputc('\n', text_output(cli));
    cli->result = session_facts(&s, cli, &o);
    json_object_update_new(cli->result, generated_json(&in, &out, &printer.text));
    if (draft.drop)
        tell_drafted(cli, &drafted);
done:
    text_close(&printer.text);
    free(in.ids);
    free(out.ids);
    session_close(&s);
    return rc;
}

/* One turn: renders the conversation, answers, appends the answer to the messages. The whole conversation is run again; the part
 * of it that the cache already holds is only a prefix of the same tokens, so it is kept. */
static int answer(struct session *s, struct generator *g, json_t *messages, const struct sampling_options *k, FILE *out,
                  struct ids *cached, struct err *err)
{
    struct ids in = {0}, new = {0};
    struct printer p = {0};
    char *text = NULL;
    int rc = -1;
    if (tokenizer_chat(&text, s->t, messages, true, err) != 0 || tokenizer_encode_chat(&in, s->t, text, strlen(text), err) != 0 ||
        printer_open(&p, s->t, &in, out, NULL, err) != 0)
        goto done;
    size_t same = 0;
    while (same < cached->n && same + 1 < in.n && cached->ids[same] == in.ids[same])
        same++;
    g->kv.len = (int64_t)same;
    if ((int64_t)in.n + k->max_tokens > g->kv.cap) {
        err_set(err, "the conversation has grown past the %lld tokens there is room for", (long long)g->kv.cap);
        goto done;
    }
    if (generate(&new, g, in.ids + same, (int64_t)(in.n - same), k->max_tokens, tokenizer_ends(s->t), &k->s, print_token, &p,
                 err) != 0)
        goto done;
    print_ready(&p, true);
    fputc('\n', out);
    json_array_append_new(
        messages, json_pack("{ss so}", "role", "assistant", "content", json_utf8(p.text.text ? p.text.text : "", p.text.n)));
    cached->n = 0;
    for (size_t i = 0; i < (size_t)g->kv.len; i++)
        if (ids_push(cached, i < in.n ? in.ids[i] : new.ids[i - in.n], err) != 0)
            goto done;
    rc = 0;
done:
    free(text);
    free(in.ids);
    free(new.ids);
    text_close(&p.text);
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
    if (check_sampling(&k, &words, &o, err) != 0 || session_open(&s, &o, words.word[0], NEEDS_TOKENIZER, err) != 0)
        return -1;
    messages = json_array();
    if (system)
        json_array_append_new(messages, json_pack("{ss so}", "role", "system", "content", json_text(system)));
    if (context > s.m.cfg.context_length)
        progress_say(&cli->progress, "--context %lld: the model was made for %lld positions", (long long)context,
                     (long long)s.m.cfg.context_length);
    rc = generator_open(&g, &s.m, &s.c, s.adapter, context, err);
    while (rc == 0) {
        fputs("> ", text_output(cli));
        fflush(text_output(cli));
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0) {
            fputc('\n', text_output(cli));
            break;
        }
        if (n > 0 && line[n - 1] == '\n')
            line[--n] = 0;
        if (n == 0)
            continue;
        json_t *text = json_stringn(line, (size_t)n);
        if (!text) {
            fputs("(that line is not UTF-8)\n", text_output(cli));
            continue;
        }
        json_array_append_new(messages, json_pack("{ss so}", "role", "user", "content", text));
        rc = answer(&s, &g, messages, &k, text_output(cli), &cached, err);
        k.s.seed++; /* a new draw for every answer */
    }
    free(line);
    free(cached.ids);
    json_decref(messages);
    generator_close(&g);
    session_close(&s);
    return rc;
}
