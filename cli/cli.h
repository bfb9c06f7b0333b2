/* The command line: the one room above prune, train and eval, and the only one that prints or decides an exit status.
 * A command is a function from words to a result; `espalier run` calls the same functions for the stages of an experiment. */
#ifndef ESPALIER_CLI_CLI_H
#define ESPALIER_CLI_CLI_H

#include <jansson.h>
#include <stdio.h>

#include "core/base/opt.h"
#include "core/base/progress.h"
#include "core/io/tokenizer.h"
#include "core/model/lora.h"
#include "core/model/model.h"
#include "core/model/save.h"

#define ESPALIER_VERSION "0.1.0" /* see struct cli for the commit, which only main.c is built with */

/* What every command gets and leaves. */
struct cli {
    FILE *out;        /* results, made visible for stdout; NULL inside `run` */
    json_t *result;   /* set by the command: what --json prints */
    bool json, quiet; /* common options */
    bool checking;    /* the words are judged, nothing is done: a command returns once its options are found to be in order */
    struct progress progress;
    const char *commit;    /* that the program was built from, "-dirty" behind it where files differed; "unknown" */
    const char *command;   /* "eval ppl" */
    const struct opt *own; /* its options, from command_parse on */
    int argc;              /* the words after the command, for provenance */
    char **argv;
};

/* Options that every command that runs a model takes. */
struct common {
    int64_t threads;
    int64_t seed;
    enum precision precision; /* what `compute` names */
    const char *compute, *adapter, *drop, *tokenizer, *memory;
    bool hf_legacy, json, quiet, help;
};

enum { COMMON_OPTS = 12 };

/* Fills a table (with its end) for opt_parse; defaults go into *common. */
void common_options(struct opt table[COMMON_OPTS], struct common *common, int64_t default_seed);

/* Parses a command's words: its own options and the common ones; handles --help (returns 1 when it was printed). From
 * min_words to max_words words must be left; usage is the line that --help shows. */
int command_parse(struct cli *cli, struct opt_words *words, const struct opt *own, struct common *common, int64_t default_seed,
                  int min_words, int max_words, const char *usage, struct err *err);

/* Where text goes that is itself the result: bytes as they are, but made visible on a terminal. */
FILE *text_output(const struct cli *cli);

/* Opens --tokenizer, or the model's own, in the way --hf-legacy says. */
int common_tokenizer(struct tokenizer **t, const struct common *o, const char *model, struct err *err);

/* A model ready to run. */
struct session {
    struct compute c;
    struct model m;
    struct tokenizer *t; /* NULL when the model has none and none was asked for */
    struct err no_tokenizer;
    struct lora_set lora;
    const struct lora_set *adapter; /* &lora, or NULL */
    char adapter_content[65];       /* its record_content */
    struct save_told saved;         /* by session_save */
    double started;
};

/* TELLS_TOKENIZER: a tokenizer that cannot be read is no error; no_tokenizer says why. BLOCKWISE: every pass takes many rows through
 * each block, so that weights may be given back behind it. */
enum session_needs { NEEDS_TOKENIZER = 1, NO_ADAPTER = 2, BLOCKWISE = 4, TELLS_TOKENIZER = 8 };

int session_open(struct session *s, const struct common *o, const char *model, int needs, struct err *err);
void session_close(struct session *s);

/* A line on standard error, "espalier: ..."; control characters in it are spelled out. */
void cli_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Says, unless quiet, that an adapter was trained on other weights than those it runs on. */
void tell_other_base(const struct lora_set *l, const char *adapter, const char *model, bool quiet);

/* What result files record: version, command, arguments, every option in effect whether it was given or not, model and hash, seed,
 * dtype, compute mode, ISA, threads, wall seconds, peak RSS; of an adapter the path and identity. The command's table of options
 * must still be there. */
json_t *session_facts(const struct session *s, const struct cli *cli, const struct common *o);

/* Adds a file of data: its path under `name`, its sum under `name`_sha256. */
void facts_file(json_t *facts, const char *name, const char *path, const char *sha256);

/* Adds what session_save took: "written_bytes" (of weights), "write_s", "check_s"; and brings time and memory up to date. */
void session_saved_facts(json_t *facts, const struct session *s);

/* Where and how a command writes a model. */
struct target {
    const char *out;
    const char *dtype;      /* --dtype D; NULL: each weight keeps its own, or becomes f16 where the format has not that */
    const char *format;     /* --format F; NULL: what the ending of `out` says, else hf */
    const char *shard_size; /* --shard-size: of a Hugging Face folder's files */
    bool force;
};

/* The options that fill a target, but for `out`. */
#define TARGET_OPTIONS(t)                                                                                                          \
    {OPT_STRING, "format", &(t).format, "F", "hf (a folder), gguf or h5 (a file); default what the ending of OUT says"},           \
        {OPT_STRING, "dtype", &(t).dtype, "D",                                                                                     \
         "f32, f16, bf16; f8_e4m3 (hf, h5); q8_0, q4_0, q4_1 (gguf); default the model's own, f16 where the format lacks it"},     \
        {OPT_STRING, "shard-size", &(t).shard_size, "N", "bytes of one file of an hf model, such as 500MB or 5GB"},                \
    {                                                                                                                              \
        OPT_FLAG, "force", &(t).force, NULL, "replace OUT if it exists"                                                            \
    }

/* Mistakes in a target, and places that cannot be written to, are found before any work is done. */
int target_check(const struct target *t, struct err *err);

/* "5GB", "500MB", "3G" or "3GiB", "1000000"; `option` is named in the error. */
int parse_bytes(int64_t *bytes, const char *option, const char *text, struct err *err);

struct file_writer;
typedef int also_write_fn(struct file_writer *w, void *arg, const char *path, struct err *err);

/* Writes the session's model (its blocks that run, its adapter merged in, its tokenizer), checked. hf: the folder `out`. gguf
 * and h5: the file `out` where its name ends so, else model.gguf or model.h5 in a folder. also_write, if given, adds a file of
 * its own, `name` in the folder, or <out without ending>.<name> beside the file; it writes all but the commit of *w. Both get their
 * names together. */
int session_save(struct session *s, struct cli *cli, const struct target *t, const char *name, also_write_fn *also_write, void *arg,
                 struct err *err);

/* ---- commands; each returns 0, or -1 and an error ---- */

typedef int command_fn(struct cli *cli, struct err *err);
command_fn cmd_inspect, cmd_tokenize, cmd_score, cmd_prune, cmd_train, cmd_merge, cmd_eval_ppl, cmd_eval_zeroshot, cmd_eval_speed,
    cmd_generate, cmd_chat, cmd_run, cmd_bench, cmd_compare, cmd_convert, cmd_synth, cmd_serve;

struct command {
    const char *name, *summary;
    command_fn *run;
};
extern const struct command command_table[]; /* closed by a NULL name */

/* Runs a command of the table with words argv[argc]; the result is left in *result (a new reference, or NULL). For `run`. */
int command_call(json_t **result, const struct cli *parent, const char *name, int argc, char **argv, struct err *err);

/* Judges a command's words as the command would, and does nothing else. */
int command_check(const char *name, int argc, char **argv, struct err *err);

#endif
