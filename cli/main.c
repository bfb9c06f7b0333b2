#include <signal.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/base/bus.h"
#include "core/base/json.h"
#include "core/base/part.h"
#include "core/base/visible.h"

const struct command command_table[] = {
    {"inspect", "what a model is made of", cmd_inspect},
    {"tokenize", "text to token ids and back; chat templates", cmd_tokenize},
    {"score", "how much each block matters", cmd_score},
    {"compare", "criteria side by side: what they drop and what that costs", cmd_compare},
    {"prune", "write a model without some blocks", cmd_prune},
    {"train", "LoRA retraining", cmd_train},
    {"merge", "write a model with an adapter merged in", cmd_merge},
    {"convert", "write a model in another format or dtype", cmd_convert},
    {"synth", "write a checkpoint of any shape with random weights", cmd_synth},
    {"eval ppl", "perplexity of a text", cmd_eval_ppl},
    {"eval zeroshot", "BoolQ, PIQA, HellaSwag, WinoGrande, ARC, OpenBookQA, LAMBADA", cmd_eval_zeroshot},
    {"eval speed", "generation speed", cmd_eval_speed},
    {"generate", "continue a prompt", cmd_generate},
    {"chat", "talk to a model in the terminal", cmd_chat},
    {"serve", "an HTTP server with OpenAI's API, and a page", cmd_serve},
    {"run", "a whole experiment from one file", cmd_run},
    {"bench", "speed of scoring, training, prefill and decode against this machine's limits", cmd_bench},
    {NULL, NULL, NULL},
};

static void print_help(FILE *out)
{
    fprintf(out,
            "espalier %s (commit %s): prunes LLaMA-type language models in depth, retrains and evaluates them\n\n"
            "usage: espalier COMMAND ... [--help]\n\n",
            ESPALIER_VERSION, ESPALIER_COMMIT);
    for (const struct command *c = command_table; c->name; c++)
        fprintf(out, "  %-14s %s\n", c->name, c->summary);
    fprintf(out, "\nMODEL is a Hugging Face folder, a .gguf or a .h5 file. `espalier COMMAND --help` lists a command's options.\n");
}

/* The command that argv begins with, and how many words its name takes. */
static const struct command *find_command(int *n_words, int argc, char **argv)
{
    for (const struct command *c = command_table; c->name; c++) {
        const char *space = strchr(c->name, ' ');
        size_t first = space ? (size_t)(space - c->name) : strlen(c->name);
        if (argc < 1 || strlen(argv[0]) != first || memcmp(argv[0], c->name, first))
            continue;
        if (space && (argc < 2 || strcmp(argv[1], space + 1)))
            continue;
        *n_words = space ? 2 : 1;
        return c;
    }
    return NULL;
}

static const struct command *named_command(const char *name)
{
    const struct command *c = command_table;
    while (strcmp(c->name, name))
        c++;
    return c;
}

int command_check(const char *name, int argc, char **argv, struct err *err)
{
    const struct command *c = named_command(name);
    struct cli cli = {.command = c->name, .argc = argc, .argv = argv, .quiet = true, .checking = true};
    return c->run(&cli, err);
}

int command_call(json_t **result, const struct cli *parent, const char *name, int argc, char **argv, struct err *err)
{
    const struct command *c = named_command(name);
    struct cli cli = {
        .command = c->name, .argc = argc, .argv = argv, .commit = parent->commit, .quiet = parent->quiet, .json = true};
    mem_peak_reset();
    int rc = c->run(&cli, err);
    *result = cli.result;
    return rc == 0 ? bus_check(err) : rc;
}

/* Whether what was printed got out; a full disk or a closed pipe is a failure. */
static int flush_output(struct err *err)
{
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : err_errno(err, "standard output");
}

static int fail(const struct err *err)
{
    struct err cut = {0};
    if (err->code != ERR_USAGE && bus_check(&cut) != 0) /* what went wrong then may come of it */
        err = &cut;
    fprintf(stderr, "espalier: %s\n", err->msg);
    return err->code == ERR_USAGE ? 2 : 1;
}

/* From a signal handler: a model file got shorter while it was read. */
static void end_at_once(const char *line)
{
    ssize_t ignored = write(STDERR_FILENO, line, strlen(line));
    (void)ignored;
    part_remove_all();
    _exit(1);
}

static int print_result(const json_t *result, struct err *err)
{
    char *line = json_line(result);
    int rc = line ? 0 : err_set(err, "out of memory");
    if (line)
        fputs(line, stdout);
    free(line);
    return rc;
}

/* What is left to do when the command has ended with rc: all that it printed gets out, and its result, or nothing. */
static int finish(struct cli *cli, int rc, struct err *err)
{
    if (rc == 0 && (rc = bus_check(err)) != 0)
        __fpurge(cli->out); /* computed from a file that was cut: no result */
    if (cli->out && fclose(cli->out) != 0 && rc == 0)
        rc = err_errno(err, "standard output");
    if (rc == 0 && json_failed()) /* the result lacks a part; files that were written have failed at once */
        rc = err_set(err, "out of memory");
    if (rc == 0 && cli->json && cli->result)
        rc = print_result(cli->result, err);
    json_decref(cli->result);
    return rc == 0 ? flush_output(err) : rc;
}

int main(int argc, char **argv)
{
    struct err err = {0};
    int n_words = 0;
    bus_guard(end_at_once);
    json_guard();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a write error like any other */
    if (argc > 1 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version"))) {
        printf("espalier %s (commit %s)\n", ESPALIER_VERSION, ESPALIER_COMMIT);
        return flush_output(&err) == 0 ? 0 : fail(&err);
    }
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "help") || !strcmp(argv[1], "-h")) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : flush_output(&err) == 0 ? 0 : fail(&err);
    }
    const struct command *c = find_command(&n_words, argc - 1, argv + 1);
    if (!c) {
        bool two = !strcmp(argv[1], "eval") && argc > 2;
        err_usage(&err, "unknown command \"%s%s%s\"; `espalier --help` lists them", argv[1], two ? " " : "", two ? argv[2] : "");
        return fail(&err);
    }
    struct cli cli = {.out = visible_open(stdout),
                      .commit = ESPALIER_COMMIT,
                      .command = c->name,
                      .argc = argc - 1 - n_words,
                      .argv = argv + 1 + n_words};
    int rc = cli.out ? c->run(&cli, &err) : err_set(&err, "out of memory");
    return finish(&cli, rc, &err) == 0 ? 0 : fail(&err);
}
