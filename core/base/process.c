#include "core/base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/progress.h"

/* Reads until the other end is closed. */
static int read_all(struct process *p, int fd, struct err *err)
{
    size_t cap = 0;
    for (;;) {
        if (cap - p->n < 2) {
            cap = cap ? 2 * cap : 4096;
            char *grown = realloc(p->out, cap);
            if (!grown)
                return err_set(err, "out of memory");
            p->out = grown;
        }
        ssize_t got = read(fd, p->out + p->n, cap - p->n - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, "reading what a program printed");
        p->n += (size_t)got;
        p->out[p->n] = 0;
        if (got == 0)
            return 0;
    }
}

static int start(pid_t *pid, char *const argv[], int out, struct err *err)
{
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return err_set(err, "out of memory");
    errno = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    if (errno == 0)
        errno = posix_spawn(pid, argv[0], &actions, NULL, argv, environ);
    int rc = errno == 0 ? 0 : err_errno(err, "%s: cannot be run", argv[0]);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

int process_run(struct process *p, char *const argv[], struct err *err)
{
    int ends[2], status = 0;
    pid_t pid;
    struct rusage used = {0};
    *p = (struct process){0};
    double begun = clock_seconds();
    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_errno(err, "%s: cannot be run", argv[0]);
    int rc = start(&pid, argv, ends[1], err);
    bool started = rc == 0;
    close(ends[1]);
    if (started)
        rc = read_all(p, ends[0], err);
    close(ends[0]); /* before waiting: a program that still writes is not to wait for us */
    if (started) {
        while (wait4(pid, &status, 0, &used) < 0 && errno == EINTR)
            ;
        p->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        p->seconds = clock_seconds() - begun;
        p->peak_rss = (size_t)used.ru_maxrss * 1024;
    }
    if (rc != 0)
        process_free(p);
    return rc;
}

void process_free(struct process *p)
{
    free(p->out);
    *p = (struct process){0};
}
