/* Running another program and waiting for it: what it printed, how long it took, the most memory it had. */
#ifndef ESPALIER_BASE_PROCESS_H
#define ESPALIER_BASE_PROCESS_H

#include <stddef.h>

#include "core/base/err.h"

struct process {
    char *out; /* [n] and a NUL: its standard output; malloc'ed */
    size_t n;
    int status; /* of its exit; 128 + the signal that ended it */
    double seconds;
    size_t peak_rss; /* bytes; this process's own is the least that the system can tell */
};

/* Runs argv, closed by NULL, whose first word is the path of a program. Standard input and error are shared. A program that cannot
 * be started is an error; what status it ends with is for the caller to judge. */
int process_run(struct process *p, char *const argv[], struct err *err);
void process_free(struct process *p);

#endif
