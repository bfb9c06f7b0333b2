/* A fork-join pool of threads. Work is split into tasks whose number and content never depend on the number of threads, so
 * results are the same, bit for bit, whatever that number is. */
#ifndef ESPALIER_BASE_POOL_H
#define ESPALIER_BASE_POOL_H

#include <stdint.h>

#include "core/base/err.h"

struct pool;

/* One task: task in [0, n_tasks), worker in [0, pool_threads). Two tasks run at once never share a worker number. */
typedef void pool_fn(void *arg, int64_t task, int worker);

/* n_threads counts the caller; 0 means one per processor this process may use. */
int pool_create(struct pool **out, int n_threads, struct err *err);
void pool_free(struct pool *p);

/* Runs fn for every task and returns when all are done. Not to be called from inside a task. */
void pool_run(struct pool *p, pool_fn *fn, void *arg, int64_t n_tasks);

int pool_threads(const struct pool *p);

#endif
