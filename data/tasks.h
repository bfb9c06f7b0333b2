/* Zero-shot tasks: documents of published data sets as contexts and the continuations that a model chooses from. Prompts, choices
 * and metrics are those of lm-evaluation-harness (commit 3326c54, and 0.4). */
#ifndef ESPALIER_DATA_TASKS_H
#define ESPALIER_DATA_TASKS_H

#include <stdbool.h>

#include "core/base/mem.h"
#include "data/rows.h"

enum { TASK_MAX_CHOICES = 8 };

struct task_choice {
    const char *context, *continuation; /* what is given, and what is scored behind it */
    int64_t chars;                      /* code points of the choice; acc_norm divides by them */
};

struct task_document {
    int64_t index; /* in the whole set */
    int n_choices, gold;
    struct task_choice choice[TASK_MAX_CHOICES];
};

struct task {
    const char *name;
    bool has_norm;     /* acc_norm is a metric of this task */
    bool reports_norm; /* and the one that is published; else acc is */
    bool greedy;       /* one continuation, right when it is the greedy one (lambada) */
    bool averaged;     /* one of the seven of the published average */
    int (*read)(struct task_document *d, const struct row *r, struct arena *arena, struct err *err);
    const char *rows;     /* what its rows are, for who looks for them */
    const char *names[8]; /* where they may be below a folder of data, without the ending; the first is what messages name */
};

extern const struct task task_table[]; /* closed by a NULL name */
const struct task *task_find(const char *name);

/* The name of the metric that is published for the task: acc or acc_norm. */
const char *task_metric(const struct task *t);

/* averaged [n]: which of n tasks an average is over: those of the published one, or all where none of these is there. Returns
 * whether it is the published average itself. */
bool tasks_average(bool *averaged, const struct task *const *tasks, int64_t n);

/* The documents of one task. */
struct task_set {
    const struct task *task;
    char *file;
    char sha256[65];
    int64_t n_rows; /* the file has */
    int64_t n;      /* were read */
    struct task_document *docs;
    struct arena arena;
};

/* Reads rows [offset, offset + limit) (limit 0: all from offset on) of a task, from the file `data`, or from one of the task's
 * names below the folder `data`, with the ending .jsonl, .json (or .txt), gzipped or not. */
int task_read(struct task_set *s, const struct task *t, const char *data, int64_t offset, int64_t limit, struct err *err);
void task_free(struct task_set *s);

#endif
