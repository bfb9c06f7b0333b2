/* Error values. A function that can fail returns 0 or -1 and describes the failure in the caller's `struct err`;
 * the first error wins, so cleanup code may fail again without hiding the cause. Nothing below cli/ prints or exits. */
#ifndef ESPALIER_BASE_ERR_H
#define ESPALIER_BASE_ERR_H

enum err_code {
    ERR_NONE = 0,
    ERR_FAILED = 1, /* the work failed: exit status 1 */
    ERR_USAGE = 2,  /* the command line is wrong: exit status 2 */
};

struct err {
    enum err_code code;
    char msg[768]; /* one line, no newline at the end */
};

/* Records a failure unless one is recorded already. Always returns -1, so that `return err_set(...)` reads well. */
int err_set(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* As err_set, for mistakes on the command line. */
int err_usage(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* As err_set, with ": " and the text of errno appended. */
int err_errno(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
