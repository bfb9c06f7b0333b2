#include "core/base/json.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/utf8.h"

/* The end of the number at p, in text that ends at `end`; *integer: it has neither a point nor an exponent. */
static const char *number_end(bool *integer, const char *p, const char *end)
{
    *integer = true;
    for (p++; p < end && strchr("0123456789+-.eE", *p) && *p; p++)
        *integer &= *p >= '0' && *p <= '9';
    return p;
}

/* text[n] with an exponent behind each integer that 64 bits may not hold, so that it is read as a real number: "no limit" is
 * written as such integers, and what nobody asks for must not make a file unreadable. malloc'ed. */
static char *soften_integers(size_t *n_out, const char *text, size_t n)
{
    enum { SAFE_DIGITS = 18 };
    char *out = malloc(n + n / SAFE_DIGITS * 2 + 1), *to = out;
    bool in_string = false, integer;
    for (const char *p = text, *end = text + n; out && p < end;) {
        const char *stop = p + 1;
        bool number = !in_string && (*p == '-' || (*p >= '0' && *p <= '9'));
        if (number)
            stop = number_end(&integer, p, end);
        else if (in_string && *p == '\\' && stop < end)
            stop++;
        else if (*p == '"')
            in_string = !in_string;
        to = mempcpy(to, p, (size_t)(stop - p));
        if (number && integer && stop - p > SAFE_DIGITS)
            to = mempcpy(to, "e0", 2);
        p = stop;
    }
    *n_out = out ? (size_t)(to - out) : 0;
    return out;
}

/* jansson refuses integers beyond 64 bits with these words. */
json_t *json_load(const char *text, size_t n, json_error_t *why)
{
    enum { FLAGS = JSON_ALLOW_NUL | JSON_DECODE_ANY };
    size_t mark = utf8_mark(text, n);
    text += mark;
    n -= mark;
    size_t n_soft;
    json_t *v = json_loadb(text, n, FLAGS, why);
    if (v || json_error_code(why) != json_error_numeric_overflow)
        return v;
    char *soft = soften_integers(&n_soft, text, n);
    v = soft ? json_loadb(soft, n_soft, FLAGS, why) : NULL;
    free(soft);
    return v;
}

json_t *json_parse(const char *text, size_t n, const char *path, struct err *err)
{
    json_error_t why;
    json_t *v = json_load(text, n, &why);
    if (!v)
        err_set(err, "%s: not valid JSON: line %d: %s", path, why.line, why.text);
    return v;
}

json_t *json_utf8(const char *s, size_t n)
{
    size_t n_repaired;
    if (utf8_valid(s, n))
        return json_stringn(s, n);
    char *repaired = utf8_repaired(&n_repaired, s, n);
    json_t *v = repaired ? json_stringn(repaired, n_repaired) : NULL;
    free(repaired);
    return v;
}

json_t *json_text(const char *s)
{
    return json_utf8(s, strlen(s));
}

json_t *json_read(const char *path, struct err *err)
{
    char *text;
    size_t n;
    if (file_read_text(&text, &n, path, err) != 0)
        return NULL;
    json_t *v = json_parse(text, n, path, err);
    free(text);
    return v;
}

static atomic_bool failed;

static void *allocate(size_t n)
{
    void *p = malloc(n);
    if (!p && n > 0)
        atomic_store(&failed, true);
    return p;
}

void json_guard(void)
{
    json_set_alloc_funcs(allocate, free);
}

bool json_failed(void)
{
    return atomic_load(&failed);
}

/* Bytes of the control character beyond U+001F that s begins with, DEL or one of C1; 0 where it begins with none. jansson escapes
 * those before it. */
static size_t late_control(const char *s)
{
    unsigned char second = *s == '\xC2' ? (unsigned char)s[1] : 0;
    return *s == 0x7F ? 1 : second >= 0x80 && second < 0xA0 ? 2 : 0;
}

char *json_pretty(const json_t *value)
{
    if (json_failed())
        return NULL;
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY), *line = text ? realloc(text, strlen(text) + 2) : NULL;
    if (!line)
        free(text);
    return line ? strcat(line, "\n") : NULL;
}

char *json_line(const json_t *value)
{
    char *text = json_failed() ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    size_t n = text ? strlen(text) : 0, escaped = 0;
    for (size_t i = 0; i < n; i++)
        escaped += late_control(text + i) > 0;
    char *line = text ? malloc(n + escaped * (sizeof "\\u0085" - 1) + 2) : NULL, *to = line;
    for (size_t i = 0, k; line && i < n; i += k ? k : 1) {
        k = late_control(text + i);
        if (k)
            to += sprintf(to, "\\u%04x", (unsigned char)text[i + k - 1]);
        else
            *to++ = text[i];
    }
    if (line)
        strcpy(to, "\n");
    free(text);
    return line;
}

int json_write(const char *path, const json_t *value, struct err *err)
{
    struct file_writer w;
    return json_write_part(&w, path, value, err) == 0 ? file_writer_commit(&w, err) : -1;
}

int json_write_part(struct file_writer *w, const char *path, const json_t *value, struct err *err)
{
    char *text = json_pretty(value);
    *w = (struct file_writer){0};
    int rc = -1;
    if (!text)
        err_set(err, "%s: out of memory", path);
    else if (file_writer_open(w, path, err) == 0 && file_writer_put(w, text, strlen(text), err) == 0)
        rc = file_writer_finish(w, err);
    if (rc != 0)
        file_writer_abort(w);
    free(text);
    return rc;
}

static const json_t *member(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_null(v) ? NULL : v;
}

int json_get_int(int64_t *out, const json_t *obj, const char *key, const char *file, struct err *err)
{
    const json_t *v = member(obj, key);
    if (!v)
        return 0;
    if (!json_is_integer(v))
        return err_set(err, "%s: \"%s\" must be a whole number", file, key);
    *out = json_integer_value(v);
    return 0;
}

int json_get_real(double *out, const json_t *obj, const char *key, const char *file, struct err *err)
{
    const json_t *v = member(obj, key);
    if (!v)
        return 0;
    if (!json_is_number(v))
        return err_set(err, "%s: \"%s\" must be a number", file, key);
    *out = json_number_value(v);
    return 0;
}

int json_get_bool(bool *out, const json_t *obj, const char *key, const char *file, struct err *err)
{
    const json_t *v = member(obj, key);
    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return err_set(err, "%s: \"%s\" must be true or false", file, key);
    *out = json_is_true(v);
    return 0;
}

int json_get_string(const char **out, const json_t *obj, const char *key, const char *file, struct err *err)
{
    const json_t *v = member(obj, key);
    if (!v)
        return 0;
    if (!json_is_string(v))
        return err_set(err, "%s: \"%s\" must be a string", file, key);
    *out = json_string_value(v);
    return 0;
}
