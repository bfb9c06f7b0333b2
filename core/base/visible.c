#include "core/base/visible.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of the UTF-8 character that s begins with, 0 where it is none; its number in *code. Overlong forms are none. */
static size_t utf8_char(unsigned *code, const unsigned char *s, size_t n)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if (len == 0 || len > n)
        return 0;
    *code = len == 1 ? s[0] : s[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        *code = *code << 6 | (s[i] & 0x3fu);
    }
    return *code >= least[len] ? len : 0;
}

/* The form of what s begins with, in `form`; returns how many bytes of s that is. `kept`: controls that stay as they are. */
static size_t visible_form(char form[8], const unsigned char *s, size_t n, const char *kept)
{
    unsigned code;
    size_t len = utf8_char(&code, s, n);
    bool control = len == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0);
    if (len == 0)
        len = 1, code = s[0];
    if (control && !(code && code < 0x20 && strchr(kept, (int)code))) {
        snprintf(form, 8, "\\x%02x", code & 0xff);
    } else {
        memcpy(form, s, len);
        form[len] = 0;
    }
    return len;
}

/* ---- a stream ---- */

struct filter {
    FILE *under;
    unsigned char held[4]; /* the beginning of a character whose rest is yet to come */
    size_t n_held;
};

/* Whether these n bytes begin a character that has more. */
static bool cut(const unsigned char *s, size_t n)
{
    size_t len = s[0] < 0xc2 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 1;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return false;
    return n < len;
}

static bool put_forms(struct filter *f, const unsigned char *s, size_t n, bool last)
{
    bool ok = true;
    while (n > 0) {
        char form[8];
        if (!last && n < 4 && cut(s, n)) {
            memcpy(f->held, s, n);
            f->n_held = n;
            return ok;
        }
        size_t used = visible_form(form, s, n, "\n\t");
        ok &= fputs(form, f->under) >= 0;
        s += used;
        n -= used;
    }
    return ok;
}

static ssize_t filter_write(void *cookie, const char *data, size_t size)
{
    struct filter *f = cookie;
    const unsigned char *s = (const unsigned char *)data;
    size_t left = size;
    bool ok = true;
    while (f->n_held > 0 && left > 0) { /* byte by byte until that character is whole, or none */
        unsigned char joined[4];
        size_t n = f->n_held;
        memcpy(joined, f->held, n);
        joined[n++] = *s++;
        left--;
        f->n_held = 0;
        ok &= put_forms(f, joined, n, false);
    }
    ok &= put_forms(f, s, left, false);
    return fflush(f->under) == 0 && ok ? (ssize_t)size : 0;
}

static int filter_close(void *cookie)
{
    struct filter *f = cookie;
    bool ok = put_forms(f, f->held, f->n_held, true) && fflush(f->under) == 0;
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
