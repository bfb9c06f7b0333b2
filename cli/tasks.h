/* Zero-shot tasks: which, of what files, and what is said of their results. For `eval zeroshot` and `compare`. */
#ifndef ESPALIER_CLI_TASKS_H
#define ESPALIER_CLI_TASKS_H

#include "cli/cli.h"
#include "eval/zeroshot.h"

enum { MAX_TASKS = 16, TASK_OPTS = 5 };

/* The options that say which and how. */
struct task_words {
    const char *tasks, *data; /* NULL: none */
    int64_t limit, offset;
    bool bos;
};

struct eval_tasks {
    struct task_words words;
    int64_t n;
    const struct task *task[MAX_TASKS];
    struct task_set set[MAX_TASKS];
    bool averaged[MAX_TASKS];   /* whether it counts in the average */
    bool published;             /* the average is the published one */
    char tokens[MAX_TASKS][65]; /* hashes, see eval_tasks_check */
};

/* Fills TASK_OPTS entries (none of them OPT_END). The words hold the defaults. */
void task_options(struct opt *table, struct task_words *w);

/* Checks the words and reads the files, so that what is wrong with them shows before the work begins. Without --tasks there are
 * none, and the other options are refused. */
int eval_tasks_open(struct eval_tasks *t, const struct task_words *w, struct err *err);
void eval_tasks_free(struct eval_tasks *t);

/* Whether the session's model and tokenizer can score every choice, which shows otherwise when a task is run; fills t->tokens. */
int eval_tasks_check(struct eval_tasks *t, const struct session *s, struct err *err);

/* parts [m->cfg.n_blocks]: what of each block of m runs, as `struct variants` wants it of a model that was whole. */
void running_parts(uint8_t *parts, const struct model *m);

/* The mean of the published metrics of variant v of n; results [t->n, n]. */
double eval_tasks_average(double *std_error, const struct eval_tasks *t, const struct zeroshot_result *results, int64_t n,
                          int64_t v);

/* {"acc", "acc_stderr", ... "n"} of a result, and back: false where that is not what the object is. Documents are not kept. */
json_t *task_result_json(const struct zeroshot_result *r);
bool task_result_read(struct zeroshot_result *r, const struct task *t, const json_t *o);

/* {"reported", "file", ...}: what was scored. */
json_t *task_source_json(const struct task_set *s);

#endif
