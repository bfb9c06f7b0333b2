/* The zero-shot scores of a comparison: what `compare --tasks` measures. */
#ifndef ESPALIER_CLI_COMPARISON_TASKS_H
#define ESPALIER_CLI_COMPARISON_TASKS_H

#include "cli/tasks.h"
#include "prune/compare.h"

/* Evaluates the intact model and every distinct variant of a planned comparison, all of them in one walk through each task
 * (checked by eval_tasks_check), and fills their zero-shot scores. Each task leaves dir/zeroshot-TASK.json when it is done; with
 * `resume`, one of the very same work is read instead of made again. */
int comparison_tasks_run(struct comparison *k, const struct eval_tasks *t, struct cli *cli, struct session *s,
                         const struct common *o, const char *dir, bool resume, struct err *err);

#endif
