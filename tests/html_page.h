/* What the tests of pages ask of HTML as text: what must be in it is, what must not be is not, and it is well-formed. */
#ifndef ESPALIER_TESTS_HTML_PAGE_H
#define ESPALIER_TESTS_HTML_PAGE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static inline int occurrences(const char *text, const char *part)
{
    int n = 0;
    for (const char *p = text; (p = strstr(p, part)); p += strlen(part))
        n++;
    return n;
}

static inline void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("not in the page: %s", part);
}

static inline void assert_lacks(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("should not be in the page: %s", part);
}

/* No coordinate that is no number: in attributes and paths it would be followed by one of these. */
static inline void assert_finite(const char *text)
{
    static const char *const words[] = {"nan", "inf"};
    for (int w = 0; w < 2; w++)
        for (const char *p = text; (p = strstr(p, words[w])); p += 3)
            if (strchr(" \"hHvVlLMz", p[3]))
                fail_msg("a coordinate is no number: %.60s", p - 20);
}

/* Every element that is opened is closed, in order. A small check of nesting, for the elements that we write. */
static inline void assert_nested(const char *text)
{
    static const char *const leaf[] = {"meta", "path", "circle", "br", "!DOCTYPE"};
    char stack[64][16];
    int depth = 0;
    for (const char *p = strchr(text, '<'); p; p = strchr(p + 1, '<')) {
        bool closes = p[1] == '/';
        const char *name = p + 1 + closes, *end = strchr(p, '>');
        size_t n = strcspn(name, " >/\n");
        assert_non_null(end);
        bool alone = false;
        for (size_t k = 0; k < sizeof leaf / sizeof *leaf; k++)
            alone = alone || (strlen(leaf[k]) == n && !memcmp(name, leaf[k], n));
        if (alone)
            continue;
        if (!closes) {
            assert_true(depth < 64 && n < sizeof stack[0]);
            snprintf(stack[depth++], sizeof stack[0], "%.*s", (int)n, name);
        } else if (depth == 0 || strlen(stack[depth - 1]) != n || memcmp(stack[depth - 1], name, n) != 0) {
            fail_msg("</%.*s> closes <%s>", (int)n, name, depth ? stack[depth - 1] : "");
        } else {
            depth--;
        }
    }
    assert_int_equal(depth, 0);
}

#endif
