#include "core/base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How many of s[n] belong together: a character, or (*whole false) the beginning of one, or 0. The second byte's bounds are those
 * of Unicode's table 3-7. */
static size_t sequence(bool *whole, const unsigned char *s, size_t n)
{
    size_t length = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
    unsigned char low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80, high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    size_t k = length ? 1 : 0;
    while (k && k < length && k < n && s[k] >= (k == 1 ? low : 0x80) && s[k] <= (k == 1 ? high : 0xBF))
        k++;
    *whole = length && k == length;
    return k;
}

size_t utf8_char(const char *s, size_t n)
{
    bool whole;
    size_t k = n ? sequence(&whole, (const unsigned char *)s, n) : 0;
    return n && whole ? k : 0;
}

size_t utf8_bad(const char *s, size_t n)
{
    bool whole;
    size_t k = sequence(&whole, (const unsigned char *)s, n);
    return k ? k : 1;
}

bool utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0, k; i < n; i += k)
        if (!(k = utf8_char(s + i, n - i)))
            return false;
    return true;
}

size_t utf8_mark(const char *s, size_t n)
{
    return n >= 3 && !memcmp(s, "\xEF\xBB\xBF", 3) ? 3 : 0;
}

size_t utf8_whole(const char *s, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)s[n - back];
        if (c < 0x80)
            return n;
        if (c >= 0xC0) { /* where the last character begins */
            bool whole;
            size_t k = sequence(&whole, (const unsigned char *)s + n - back, back);
            return k == back && !whole ? n - back : n;
        }
    }
    return n;
}

char *utf8_repaired(size_t *n_out, const char *s, size_t n)
{
    char *out = malloc(3 * n + 1), *to = out;
    if (!out)
        return NULL;
    for (size_t i = 0; i < n;) {
        size_t k = utf8_char(s + i, n - i);
        to = k ? mempcpy(to, s + i, k) : mempcpy(to, "\xEF\xBF\xBD", 3);
        i += k ? k : utf8_bad(s + i, n - i);
    }
    *to = 0;
    *n_out = (size_t)(to - out);
    return out;
}

size_t utf8_form(char form[UTF8_FORM], const char *s, size_t n, const char *kept)
{
    const unsigned char *c = (const unsigned char *)s;
    size_t k = utf8_char(s, n);
    bool control = *c < 0x20 || *c == 0x7F || (k == 2 && *c == 0xC2 && c[1] < 0xA0);
    if (k > 0 && (!control || (*c && strchr(kept, *c)))) {
        memcpy(form, s, k);
        form[k] = 0;
        return k;
    }
    snprintf(form, UTF8_FORM, "\\x%02x", *c);
    return 1; /* of U+0080 to U+009F the second byte comes next, which alone is no character */
}

void utf8_visible(char *to, size_t size, const char *s)
{
    size_t n = strlen(s), at = 0;
    for (size_t i = 0; i < n;) {
        char form[UTF8_FORM];
        i += utf8_form(form, s + i, n - i, "");
        size_t k = strlen(form);
        if (at + k >= size)
            break;
        memcpy(to + at, form, k);
        at += k;
    }
    to[at] = 0;
}
