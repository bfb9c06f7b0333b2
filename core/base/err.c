#include "core/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/utf8.h"

static int record(struct err *err, enum err_code code, const char *fmt, va_list ap)
{
    if (err->code == ERR_NONE) {
        char text[sizeof err->msg];
        err->code = code;
        vsnprintf(text, sizeof text, fmt, ap);
        for (char *p = text; *p; p++)
            if (*p == '\n' || *p == '\r')
                *p = ' '; /* names and values from files may hold line breaks; the message stays one line */
        utf8_visible(err->msg, sizeof err->msg, text); /* and other things that a terminal would obey */
    }
    return -1;
}

int err_set(struct err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(err, ERR_FAILED, fmt, ap);
    va_end(ap);
    return -1;
}

int err_usage(struct err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(err, ERR_USAGE, fmt, ap);
    va_end(ap);
    return -1;
}

int err_errno(struct err *err, const char *fmt, ...)
{
    int saved = errno;
    if (err->code != ERR_NONE)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    record(err, ERR_FAILED, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->msg);
    snprintf(err->msg + n, sizeof err->msg - n, ": %s", strerror(saved));
    return -1;
}
