#include "core/base/visible.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"

struct filter {
    FILE *under;
    char held[4]; /* the beginning of a character whose rest is yet to come */
    size_t n_held;
};

static bool put_forms(struct filter *f, const char *s, size_t n)
{
    bool ok = true;
    for (size_t i = 0; i < n;) {
        char form[UTF8_FORM];
        i += utf8_form(form, s + i, n - i, "\n\t");
        ok &= fputs(form, f->under) >= 0;
    }
    return ok;
}

/* Passes on s[n] but for the beginning of a character at its end, which is held. */
static bool put_whole(struct filter *f, const char *s, size_t n)
{
    size_t whole = utf8_whole(s, n);
    bool ok = put_forms(f, s, whole);
    f->n_held = n - whole;
    memmove(f->held, s + whole, f->n_held);
    return ok;
}

static ssize_t filter_write(void *cookie, const char *data, size_t size)
{
    struct filter *f = cookie;
    size_t taken = 0;
    bool ok = true;
    while (f->n_held > 0 && taken < size) { /* byte by byte until that character is whole, or none */
        f->held[f->n_held++] = data[taken++];
        ok &= put_whole(f, f->held, f->n_held);
    }
    if (taken < size)
        ok &= put_whole(f, data + taken, size - taken);
    return fflush(f->under) == 0 && ok ? (ssize_t)size : 0;
}

static int filter_close(void *cookie)
{
    struct filter *f = cookie;
    bool ok = put_forms(f, f->held, f->n_held) && fflush(f->under) == 0;
    free(f);
    return ok ? 0 : EOF;
}

FILE *visible_open(FILE *under)
{
    struct filter *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->under = under;
    FILE *out = fopencookie(f, "w", (cookie_io_functions_t){.write = filter_write, .close = filter_close});
    if (!out)
        free(f);
    else
        setvbuf(out, NULL, _IOFBF, 1 << 16);
    return out;
}
