#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/record.h"
#include "core/base/utf8.h"
#include "core/model/stream.h"

static void common_table(struct opt table[COMMON_OPTS], struct common *o)
{
    struct opt opts[COMMON_OPTS] = {
        {OPT_INT, "threads", &o->threads, "N", "threads; 0 is one per processor"},
        {OPT_STRING, "compute", &o->compute, "MODE", "of large products: f32, or bf16 with float32 sums"},
        {OPT_INT, "seed", &o->seed, "N", "seed of everything random"},
        {OPT_STRING, "adapter", &o->adapter, "DIR", "run with this LoRA adapter (a PEFT folder)"},
        {OPT_STRING, "drop", &o->drop, "10,11", "run without these blocks, or halves of them: 10.attn, 11.ffn"},
        {OPT_STRING, "tokenizer", &o->tokenizer, "PATH", "tokenizer to use instead of the model's own; none goes on without one"},
        {OPT_STRING, "memory", &o->memory, "3G", "memory to plan for; a model that takes most of it is read block by block"},
        {OPT_FLAG, "hf-legacy", &o->hf_legacy, NULL, "SentencePiece: literal <s>, </s>, <unk> as in the old slow LlamaTokenizer"},
        {OPT_FLAG, "json", &o->json, NULL, "one JSON object on standard output"},
        {OPT_FLAG, "quiet", &o->quiet, NULL, "no progress"},
        {OPT_FLAG, "help", &o->help, NULL, "this text"},
        {.kind = OPT_END},
    };
    memcpy(table, opts, sizeof opts);
}

void common_options(struct opt table[COMMON_OPTS], struct common *o, int64_t default_seed)
{
    *o = (struct common){.seed = default_seed, .compute = "f32"};
    common_table(table, o);
}

int command_parse(struct cli *cli, struct opt_words *words, const struct opt *own, struct common *common, int64_t default_seed,
                  int min_words, int max_words, const char *usage, struct err *err)
{
    struct opt shared[COMMON_OPTS];
    common_options(shared, common, default_seed);
    const struct opt *tables[] = {own, shared};
    for (int i = 0; i < cli->argc; i++) /* help wins over whatever else is wrong, and shows the defaults */
        if (!strcmp(cli->argv[i], "--help")) {
            printf("usage: espalier %s %s\n", cli->command, usage);
            opt_help(stdout, tables, (const char *const[]){"options", "common options"}, 2);
            return 1;
        }
    if (opt_parse(words, tables, 2, cli->argc, cli->argv, err) != 0)
        return -1;
    if (words->n < min_words || words->n > max_words)
        return err_usage(err, "usage: espalier %s %s", cli->command, usage);
    if (precision_named(&common->precision, common->compute, err) != 0)
        return -1;
    if (common->threads < 0 || common->seed < 0)
        return err_usage(err, "--threads and --seed must not be negative");
    cli->own = own;
    cli->json |= common->json;
    cli->quiet |= common->quiet;
    progress_open(&cli->progress, stderr, cli->quiet);
    return 0;
}

FILE *text_output(const struct cli *cli)
{
    return cli->out && !isatty(STDOUT_FILENO) ? stdout : cli->out;
}

int common_tokenizer(struct tokenizer **t, const struct common *o, const char *model, struct err *err)
{
    const char *path = o->tokenizer ? o->tokenizer : model;
    return o->hf_legacy ? tokenizer_open_legacy(t, path, err) : tokenizer_open(t, path, err);
}

/* Whether to read the weights block by block: where they would take most of the memory, and where giving them back costs nothing
 * worth having. */
static int choose_streaming(struct session *s, const struct common *o, int needs, struct err *err)
{
    int64_t room = (int64_t)mem_available();
    double bytes = (double)model_bytes(&s->m);
    if (o->memory && parse_bytes(&room, "memory", o->memory, err) != 0)
        return -1;
    bool large = bytes > (double)(1 << 30), tight = bytes > (o->memory ? 0.5 : 0.9) * (double)room;
    return tight || (large && (needs & BLOCKWISE)) ? model_stream(&s->m, err) : 0;
}

/* The tokenizer, if there is one or one must be there. One that cannot be read is not taken for none: what is made without it would
 * be another model, so that must be asked for. */
static int open_tokenizer(struct session *s, const struct common *o, const char *model, int needs, struct err *err)
{
    struct err why = {0};
    if (o->tokenizer && !strcmp(o->tokenizer, "none") && !(needs & NEEDS_TOKENIZER))
        return 0;
    if (o->tokenizer || o->hf_legacy || (needs & NEEDS_TOKENIZER)) {
        if (common_tokenizer(&s->t, o, model, err) != 0)
            return -1;
    } else if (tokenizer_open_if_any(&s->t, model, &why) != 0) {
        if (!(needs & TELLS_TOKENIZER))
            return err_set(err, "%s (--tokenizer none goes on without a tokenizer)", why.msg);
        s->no_tokenizer = why;
    }
    if (s->t)
        tokenizer_set_limit(s->t, s->m.cfg.vocab_size);
    return 0;
}

void cli_say(const char *fmt, ...)
{
    char text[2048], shown[sizeof text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    utf8_visible(shown, sizeof shown, text); /* names come from files and paths */
    fprintf(stderr, "espalier: %s\n", shown);
}

void tell_other_base(const struct lora_set *l, const char *adapter, const char *model, bool quiet)
{
    if (l->other_base && !quiet)
        cli_say("%s was trained on other weights than %s", adapter, model);
}

int session_open(struct session *s, const struct common *o, const char *model, int needs, struct err *err)
{
    *s = (struct session){.started = clock_seconds()};
    if (model_open(&s->m, model, err) != 0 || model_fingerprint(&s->m, err) != 0 || choose_streaming(s, o, needs, err) != 0 ||
        (o->drop && model_drop_list(&s->m, o->drop, err) != 0))
        goto fail;
    if (open_tokenizer(s, o, model, needs, err) != 0)
        goto fail;
    if (o->adapter && !(needs & NO_ADAPTER)) {
        if (lora_load(&s->lora, &s->m, o->adapter, false, err) != 0 || record_content(s->adapter_content, o->adapter, err) != 0)
            goto fail;
        s->adapter = &s->lora;
        tell_other_base(&s->lora, o->adapter, model, o->quiet);
    }
    if (compute_open(&s->c, (int)o->threads, o->precision, err) != 0)
        goto fail;
    return 0;
fail:
    session_close(s);
    return -1;
}

void session_close(struct session *s)
{
    compute_close(&s->c);
    lora_free(&s->lora);
    tokenizer_free(s->t);
    model_close(&s->m);
    *s = (struct session){0};
}

/* The options in effect, the command's own before the common ones; how the result is shown is none of it. */
static json_t *options_json(const struct cli *cli, const struct common *o)
{
    static const char *const skip[] = {"json", "quiet", "help", NULL};
    struct common values = *o;
    struct opt shared[COMMON_OPTS];
    json_t *options = json_object(), *common = json_object();
    common_table(shared, &values);
    opt_describe(common, shared, skip); /* a failure for lack of memory is remembered, see json_guard */
    if (cli->own)
        opt_describe(options, cli->own, skip);
    json_object_update_missing(options, common);
    json_decref(common);
    return options;
}

void facts_file(json_t *facts, const char *name, const char *path, const char *sha256)
{
    char sum[64];
    snprintf(sum, sizeof sum, "%s_sha256", name);
    json_object_set_new(facts, name, json_text(path));
    json_object_set_new(facts, sum, json_string(sha256));
}

json_t *session_facts(const struct session *s, const struct cli *cli, const struct common *o)
{
    json_t *args = json_array();
    for (int i = 0; i < cli->argc; i++)
        json_array_append_new(args, json_text(cli->argv[i]));
    json_t *facts =
        json_pack("{ss ss ss so so so ss ss ss ss ss ss ss sI sI sf sI}", "program_version", ESPALIER_VERSION, "commit",
                  cli->commit ? cli->commit : "unknown", "command", cli->command, "arguments", args, "options",
                  options_json(cli, o), "model", json_text(s->m.path), "model_hash", s->m.hash, "model_fingerprint",
                  s->m.fingerprint, "dtype", model_dtype(&s->m), "compute", o->compute, "products", s->c.gemm->name, "isa",
                  s->c.rows->isa, "blas", gemm_backend(), "threads", (json_int_t)pool_threads(s->c.pool), "seed",
                  (json_int_t)o->seed, "wall_seconds", clock_seconds() - s->started, "peak_rss_bytes", (json_int_t)mem_peak_rss());
    if (s->adapter)
        json_object_update_new(facts,
                               json_pack("{so ss}", "adapter", json_text(o->adapter), "adapter_fingerprint", s->adapter_content));
    return facts;
}

void session_saved_facts(json_t *facts, const struct session *s)
{
    json_object_update_new(facts, json_pack("{sI sf sf sf sI}", "written_bytes", (json_int_t)s->saved.bytes, "write_s",
                                            s->saved.write_seconds, "check_s", s->saved.check_seconds, "wall_seconds",
                                            clock_seconds() - s->started, "peak_rss_bytes", (json_int_t)mem_peak_rss()));
}
