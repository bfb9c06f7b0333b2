/* espalier serve: opens models and variants, and runs the server until a signal comes. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/bus.h"
#include "core/base/file.h"
#include "core/model/stream.h"
#include "eval/serve/server.h"

enum { MAX_VARIANTS = 16, MAX_KEYS = 1024 };

/* What --variant, MODEL and --against open. */
struct house {
    struct session s;
    struct session against;
    bool has_against;
    struct model views[MAX_VARIANTS];
    struct lora_set adapters[MAX_VARIANTS];
    struct serve_variant variants[MAX_VARIANTS];
    int n, n_views;
    char *keys_text;
    const char *keys[MAX_KEYS];
    int n_keys;
    struct arena arena;
};

static bool is_taken(const struct house *h, const char *name)
{
    for (int i = 0; i < h->n; i++)
        if (!strcmp(h->variants[i].name, name))
            return true;
    return false;
}

static int add_variant(struct house *h, const char *name, const struct model *m, const struct lora_set *lora,
                       const struct tokenizer *t, struct err *err)
{
    if (h->n == MAX_VARIANTS)
        return err_usage(err, "%d models and variants at most", MAX_VARIANTS);
    if (is_taken(h, name))
        return err_usage(err, "--variant %s: there is a model of that name already", name);
    h->variants[h->n++] = (struct serve_variant){name, {m, lora}, t};
    return 0;
}

/* The last part of a path, without ".gguf" and slashes at its end: all that is told of where a model lies. */
static const char *model_name(struct house *h, const char *path, struct err *err)
{
    char *name = arena_strdup(&h->arena, path, err);
    if (!name)
        return NULL;
    size_t n = strlen(name);
    while (n > 1 && name[n - 1] == '/')
        name[--n] = 0;
    if (path_has_suffix(name, ".gguf"))
        name[n - 5] = 0;
    const char *base = path_base(name);
    json_t *utf8 = json_string(base);
    const char *shown = utf8 && *base ? base : "model";
    json_decref(utf8);
    char *second = arena_alloc(&h->arena, strlen(shown) + 3, 1, err); /* two folders may end alike */
    if (second && is_taken(h, shown))
        snprintf(second, strlen(shown) + 3, "%s-2", shown);
    return !second ? NULL : *second ? second : shown;
}

/* NAME=drop:10,11;adapter:DIR */
static int open_variant(struct house *h, const char *text, bool quiet, struct err *err)
{
    char *copy = arena_strdup(&h->arena, text, err), *equals = copy ? strchr(copy, '=') : NULL, *rest = NULL;
    if (!copy)
        return -1;
    json_t *utf8 = equals ? json_stringn(copy, (size_t)(equals - copy)) : NULL;
    json_decref(utf8);
    if (!utf8 || equals == copy || h->n_views == MAX_VARIANTS)
        return err_usage(err, "--variant %s: NAME=drop:10,11 or NAME=adapter:DIR or both with ; between them was expected", text);
    *equals = 0;
    struct model *view = &h->views[h->n_views];
    struct lora_set *lora = NULL;
    const char *adapter = NULL;
    if (model_view(view, &h->s.m, err) != 0)
        return -1;
    h->n_views++;
    for (char *part = strtok_r(equals + 1, ";", &rest); part; part = strtok_r(NULL, ";", &rest)) {
        if (!strncmp(part, "drop:", 5)) {
            if (model_drop_list(view, part + 5, err) != 0)
                return -1;
        } else if (!strncmp(part, "adapter:", 8)) {
            adapter = part + 8;
        } else {
            return err_usage(err, "--variant %s: %s: drop:LIST or adapter:DIR was expected", text, part);
        }
    }
    if (adapter) { /* after every drop: an adapter belongs to what runs */
        lora = &h->adapters[h->n_views - 1];
        if (lora_load(lora, view, adapter, false, err) != 0)
            return -1;
        tell_other_base(lora, adapter, h->s.m.path, quiet);
    }
    return add_variant(h, copy, view, lora, h->s.t, err);
}

/* A key a line; blank lines and those that begin with # do not count. */
static int read_keys(struct house *h, const char *path, struct err *err)
{
    size_t n;
    char *rest = NULL;
    if (file_read_text(&h->keys_text, &n, path, err) != 0)
        return -1;
    for (char *line = strtok_r(h->keys_text, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
        line += strspn(line, " \t"); /* blanks around a key belong to none */
        for (size_t end = strlen(line); end > 0 && (line[end - 1] == ' ' || line[end - 1] == '\t'); end--)
            line[end - 1] = 0;
        if (*line == '#' || !*line)
            continue;
        if (h->n_keys == MAX_KEYS)
            return err_set(err, "%s: %d keys at most", path, MAX_KEYS);
        h->keys[h->n_keys++] = line;
    }
    return h->n_keys > 0 ? 0 : err_set(err, "%s: no key in it", path);
}

static void house_close(struct house *h)
{
    for (int i = 0; i < h->n_views; i++) {
        lora_free(&h->adapters[i]);
        model_view_free(&h->views[i]);
    }
    if (h->has_against)
        session_close(&h->against);
    session_close(&h->s);
    free(h->keys_text);
    arena_free(&h->arena);
}

static int house_open(struct house *h, const struct common *o, const char *model, const char *against,
                      const struct opt_words *variants, struct err *err)
{
    if (session_open(&h->s, o, model, NEEDS_TOKENIZER, err) != 0)
        return -1;
    const char *name = model_name(h, model, err);
    if (!name || add_variant(h, name, &h->s.m, h->s.adapter, h->s.t, err) != 0)
        return -1;
    for (int i = 0; i < variants->n; i++)
        if (open_variant(h, variants->word[i], o->quiet, err) != 0)
            return -1;
    if (!against)
        return 0;
    struct common plain = *o; /* what the options change, they change of MODEL */
    plain.drop = plain.adapter = plain.tokenizer = NULL;
    plain.threads = 1; /* computes nothing by itself */
    if (session_open(&h->against, &plain, against, NEEDS_TOKENIZER, err) != 0)
        return -1;
    h->has_against = true;
    name = model_name(h, against, err);
    return name ? add_variant(h, name, &h->against.m, NULL, h->against.t, err) : -1;
}

/* Takes the --variant options, of which there may be several, out of the command line. */
static int take_variants(struct opt_words *variants, struct cli *cli, char **argv, struct err *err)
{
    int kept = 0;
    variants->n = 0;
    for (int i = 0; i < cli->argc; i++) {
        const char *value = !strncmp(cli->argv[i], "--variant=", 10)                  ? cli->argv[i] + 10
                            : !strcmp(cli->argv[i], "--variant") && i + 1 < cli->argc ? cli->argv[++i]
                                                                                      : NULL;
        if (!value) {
            argv[kept++] = cli->argv[i];
            continue;
        }
        if (variants->n == OPT_MAX_WORDS)
            return err_usage(err, "--variant: %d at most", OPT_MAX_WORDS);
        variants->word[variants->n++] = value;
    }
    return kept;
}

static double gib(double bytes)
{
    return bytes / (1 << 30);
}

/* The context of each slot, and whether the caches can grow to what is promised. */
static int choose_context(struct serve_options *o, const struct house *h, struct err *err)
{
    struct engine_variant runs[MAX_VARIANTS];
    int64_t most = INT64_MAX;
    for (int i = 0; i < h->n; i++) {
        runs[i] = h->variants[i].run;
        most = runs[i].m->cfg.context_length < most ? runs[i].m->cfg.context_length : most;
    }
    if (o->engine.context == 0)
        o->engine.context = most > 0 && most < 2048 ? most : 2048;
    if (o->engine.context < 2)
        return err_usage(err, "--context must be 2 or more");
    double bytes = engine_cache_bytes(runs, h->n, &o->engine), room = (double)mem_available();
    if (room > 0 && bytes > room)
        return err_usage(err, "%lld --slots of a --context of %lld positions can take %.1f GiB of memory; %.1f are there",
                         (long long)o->engine.slots, (long long)o->engine.context, gib(bytes), gib(room));
    if (o->prompt_tokens == 0 || o->prompt_tokens > o->engine.context)
        o->prompt_tokens = o->engine.context;
    return 0;
}

/* What answers, and what it takes: weights, which variants of one model share, and caches, which grow as they fill. */
static void tell_memory(const struct house *h, const struct serve_options *o)
{
    struct engine_variant runs[MAX_VARIANTS];
    for (int i = 0; i < h->n; i++) {
        const struct model *m = h->variants[i].run.m;
        runs[i] = h->variants[i].run;
        bool own = m == &h->s.m || m == &h->against.m;
        char weights[40];
        snprintf(weights, sizeof weights, "%.2f GiB of weights", gib((double)model_bytes(m)));
        cli_say("%s: %lld blocks, %.1f M parameters, %s%s", h->variants[i].name, (long long)m->n_order,
                (double)model_params(m) / 1e6, own ? weights : "sharing the weights of ", own ? "" : h->variants[0].name);
    }
    double weights = (double)model_bytes(&h->s.m) + (h->has_against ? (double)model_bytes(&h->against.m) : 0);
    double caches = engine_cache_bytes(runs, h->n, &o->engine), room = (double)mem_available();
    cli_say("caches grow to %.2f GiB: %lld slots of %lld positions%s", gib(caches), (long long)o->engine.slots,
            (long long)o->engine.context, h->n > 1 ? " each" : "");
    if (room > 0 && weights + caches > room)
        cli_say("that is more than the %.2f GiB that are there: full slots may push weights out of memory", gib(room));
}

static int run_server(struct house *h, const struct serve_options *o, struct cli *cli, struct err *err)
{
    struct server *server;
    sigset_t signals;
    int which;
    bool v6 = strchr(o->host, ':') != NULL;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    bus_guard(NULL);                            /* a file that gets shorter costs its model, not the others */
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* the server's threads inherit that: only sigwait sees them */
    if (server_open(&server, h->variants, h->n, &h->s.c, o, err) != 0)
        return -1;
    if (!cli->quiet)
        tell_memory(h, o);
    cli_say("serving %s at http://%s%s%s:%d/", h->variants[0].name, v6 ? "[" : "", o->host, v6 ? "]" : "", server_port(server));
    sigwait(&signals, &which);
    if (!cli->quiet)
        cli_say("stopping when what runs is through");
    server_drain(server);
    server_close(server);
    return 0;
}

/* What the command line said, done. */
static int serve_words(struct house *h, struct serve_options *v, struct cli *cli, const struct common *o, const char *model,
                       const char *against, const struct opt_words *variants, const char *key_file, struct err *err)
{
    if ((key_file && read_keys(h, key_file, err) != 0) || house_open(h, o, model, against, variants, err) != 0 ||
        choose_context(v, h, err) != 0)
        return -1;
    v->keys = h->keys;
    v->n_keys = h->n_keys;
    return run_server(h, v, cli, err);
}

int cmd_serve(struct cli *cli, struct err *err)
{
    const char *against = NULL, *key_file = NULL;
    int64_t port = 8080;
    struct serve_options v = {.host = "127.0.0.1",
                              .engine = {.slots = 16, .queue = 64, .prefill = 256},
                              .body_bytes = 4 << 20,
                              .max_tokens = 1024,
                              .prompts = 64,
                              .connections = 256,
                              .request_seconds = 600};
    struct opt own[] = {
        {OPT_STRING, "against", &against, "MODEL2", "another model beside it"},
        {OPT_STRING, "variant", &(const char *){NULL}, "NAME=drop:10,11;adapter:DIR",
         "MODEL without blocks or with an adapter; several"},
        {OPT_STRING, "host", &v.host, "ADDRESS",
         "where to listen; on a loopback address the Host header must name it, or localhost"},
        {OPT_INT, "port", &port, "N", "0 is any that is free"},
        {OPT_INT, "slots", &v.engine.slots, "N", "requests of a model that run at once"},
        {OPT_INT, "context", &v.engine.context, "N", "positions of each; 0 is the model's, 2048 at most"},
        {OPT_INT, "queue", &v.engine.queue, "N", "requests that may wait; more get status 429"},
        {OPT_INT, "prefill", &v.engine.prefill, "N", "prompt tokens of a step, which running answers wait for"},
        {OPT_INT, "max-body", &v.body_bytes, "BYTES", "of a request"},
        {OPT_INT, "max-prompt", &v.prompt_tokens, "N", "tokens of a prompt; 0 is the context"},
        {OPT_INT, "max-tokens", &v.max_tokens, "N", "new tokens of a request"},
        {OPT_INT, "max-prompts", &v.prompts, "N", "prompts of a request"},
        {OPT_INT, "max-connections", &v.connections, "N", "open at once"},
        {OPT_REAL, "max-seconds", &v.request_seconds, "S", "of a request"},
        {OPT_STRING, "api-key-file", &key_file, "FILE", "keys, a line each, one of which a request must bring"},
        {OPT_STRING, "chat-template", &v.chat_template, "NAME", "chatml, vicuna, llama2 or alpaca instead of the model's own"},
        {OPT_STRING, "cors", &v.cors, "ORIGIN", "pages of this site may ask, too, and its name may be the Host header"},
        {.kind = OPT_END},
    };
    struct opt_words words, variants = {.n = 0};
    struct common o;
    char **argv = calloc((size_t)cli->argc + 1, sizeof *argv), **all = cli->argv;
    int argc = cli->argc, rc;
    struct house *h = calloc(1, sizeof *h);
    if (!argv || !h)
        rc = err_set(err, "out of memory");
    else if ((rc = take_variants(&variants, cli, argv, err)) >= 0) {
        cli->argc = rc;
        cli->argv = argv;
        rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL [--against MODEL2] [--variant NAME=drop:10,11;adapter:DIR]...",
                           err);
        cli->argc = argc;
        cli->argv = all;
    }
    if (rc == 0 && (port < 0 || port > 65535))
        rc = err_usage(err, "--port %lld: 0 to 65535 was expected", (long long)port);
    v.port = (int)port;
    if (rc == 0)
        rc = serve_words(h, &v, cli, &o, words.word[0], against, &variants, key_file, err);
    if (h)
        house_close(h);
    free(h);
    free(argv);
    return rc > 0 ? 0 : rc;
}
