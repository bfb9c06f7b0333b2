/* Normal forms of text. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/io/tokenizer_impl.h"

char *text_replace(size_t *n_out, const char *text, size_t n, const struct span *from, const struct span *to, size_t more,
                   struct err *err)
{
    size_t count = 0;
    for (const char *p = text, *end = p + n; (p = memmem(p, (size_t)(end - p), from->s, from->n)); p += from->n)
        count++;
    if (count > (SIZE_MAX / 2 - n - more) / (to->n + 1)) {
        err_set(err, "out of memory");
        return NULL;
    }
    char *out = malloc(n + count * to->n + more + 1), *q = out + more;
    if (!out) {
        err_set(err, "out of memory: %zu bytes of text", n);
        return NULL;
    }
    for (const char *p = text, *end = p + n; p < end;) {
        const char *next = memmem(p, (size_t)(end - p), from->s, from->n);
        size_t before = (size_t)((next ? next : end) - p);
        memcpy(q, p, before);
        q += before;
        p += before;
        if (next) {
            memcpy(q, to->s, to->n);
            q += to->n;
            p += from->n;
        }
    }
    *n_out = (size_t)(q - out);
    return out;
}

static bool is_ascii(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] >= 0x80)
            return false;
    return true;
}

/* s[n] in one normal form: *out is malloc'ed, or NULL when s is so already. */
static int apply_form(char **out, size_t *n_out, const struct tokenizer *t, const struct form *form, const char *s, size_t n,
                      struct err *err)
{
    *out = NULL;
    *n_out = n;
    if (form->kind == FORM_REPLACE) {
        *out = text_replace(n_out, s, n, &form->from, &form->to, 0, err);
        return *out ? 0 : -1;
    }
    if (form->kind == FORM_PREPEND) {
        *n_out = n > 0 ? form->to.n + n : 0;
        *out = malloc(*n_out + 1);
        if (!*out)
            return err_set(err, "out of memory: %zu bytes of text", n);
        if (n > 0) {
            memcpy(*out, form->to.s, form->to.n);
            memcpy(*out + form->to.n, s, n);
        }
        return 0;
    }
    if (is_ascii(s, n))
        return 0;
    utf8proc_uint8_t *text = NULL;
    utf8proc_ssize_t got = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &text, (utf8proc_option_t)form->options);
    if (got < 0)
        return err_set(err, "%s: normalising text: %s", t->file, utf8proc_errmsg(got));
    *out = (char *)text;
    *n_out = (size_t)got;
    return 0;
}

int split_normalize(char **out, size_t *n_out, const struct tokenizer *t, const char *s, size_t n, struct err *err)
{
    *out = NULL;
    *n_out = n;
    for (int k = 0; k < t->n_forms; k++) {
        char *text;
        int rc = apply_form(&text, n_out, t, &t->forms[k], *out ? *out : s, *n_out, err);
        if (text || rc != 0) {
            free(*out);
            *out = text;
        }
        if (rc != 0)
            return -1;
    }
    return 0;
}
