#include "data/rows.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/mem.h"

static int out_of_memory(const struct rows *r, struct err *err)
{
    return err_set(err, "%s: out of memory", r->file ? r->file : "rows");
}

/* One line of JSON, or of plain text. */
static int add_line(struct rows *r, const char *text, size_t n, int64_t line, bool plain, struct err *err)
{
    json_error_t why = {0};
    json_t *v = plain ? json_pack("{s:s%}", "text", text, n) : json_load(text, n, &why);
    if (!v && plain)
        return err_set(err, "%s: line %lld is not valid UTF-8", r->file, (long long)line);
    if (!v)
        return err_set(err, "%s: line %lld is not valid JSON: %s", r->file, (long long)line, why.text);
    r->line[r->n++] = line;
    return json_array_append_new(r->list, v) == 0 ? 0 : out_of_memory(r, err);
}

static int read_lines(struct rows *r, const char *text, size_t size, bool plain, struct err *err)
{
    int64_t lines = 1;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    r->unit = "line";
    r->list = json_array();
    r->line = mem_alloc((size_t)lines, sizeof *r->line, err);
    if (!r->list || !r->line)
        return out_of_memory(r, err);
    int64_t line = 1;
    for (const char *p = text, *end = text + size; p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p)), *last = stop ? stop : end;
        while (last > p && last[-1] == '\r')
            last--;
        if (strspn(p, " \t\r") < (size_t)(last - p) && add_line(r, p, (size_t)(last - p), line, plain, err) != 0)
            return -1;
        p = stop ? stop + 1 : end;
    }
    return 0;
}

/* Whether the file is one array; its first line may be one by itself, too: then the rows are lines of arrays. */
static bool is_array(const char *text, size_t size)
{
    json_error_t why;
    size_t blank = strspn(text, " \t\r\n"), line = strcspn(text + blank, "\n"), rest = blank + line;
    if (text[blank] != '[')
        return false;
    json_t *first = rest + strspn(text + rest, " \t\r\n") < size ? json_load(text + blank, line, &why) : NULL;
    bool lines = json_is_array(first);
    json_decref(first);
    return !lines;
}

static int read_array(struct rows *r, const char *text, size_t size, struct err *err)
{
    size_t i;
    json_t *v;
    r->unit = "row";
    r->list = json_parse(text, size, r->file, err);
    if (!r->list)
        return -1;
    r->n = (int64_t)json_array_size(r->list);
    r->line = mem_alloc((size_t)r->n + 1, sizeof *r->line, err);
    if (!r->line)
        return -1;
    json_array_foreach(r->list, i, v)
        r->line[i] = (int64_t)i;
    return 0;
}

int rows_read(struct rows *r, const char *path, struct err *err)
{
    if (rows_read_any(r, path, err) != 0)
        return -1;
    for (int64_t i = 0; i < r->n; i++)
        if (!json_is_object(json_array_get(r->list, (size_t)i))) {
            struct row row = row_at(r, i);
            row_error(&row, err, "an object was expected, found %s", json_kind(row.v));
            rows_free(r);
            return -1;
        }
    return 0;
}

int rows_read_any(struct rows *r, const char *path, struct err *err)
{
    char *text = NULL;
    size_t size = 0;
    *r = (struct rows){.file = strdup(path)};
    int rc = r->file ? file_read_text(&text, &size, path, err) : out_of_memory(r, err);
    bool plain = path_has_suffix(path, ".txt") || path_has_suffix(path, ".txt.gz");
    if (rc == 0)
        rc = !plain && is_array(text, size) ? read_array(r, text, size, err) : read_lines(r, text, size, plain, err);
    free(text);
    if (rc != 0)
        rows_free(r);
    return rc;
}

void rows_free(struct rows *r)
{
    free(r->file);
    free(r->line);
    json_decref(r->list);
    *r = (struct rows){0};
}

struct row row_at(const struct rows *r, int64_t at)
{
    return (struct row){r, at, json_array_get(r->list, (size_t)at)};
}

int row_error(const struct row *r, struct err *err, const char *fmt, ...)
{
    char what[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(err, "%s: %s %lld: %s", r->rows->file, r->rows->unit, (long long)r->rows->line[r->at], what);
}

const char *json_kind(const json_t *v)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string", [JSON_INTEGER] = "a number",
        [JSON_REAL] = "a number",    [JSON_TRUE] = "true",      [JSON_FALSE] = "false",     [JSON_NULL] = "null"};
    return v ? names[json_typeof(v)] : "nothing";
}

static int wrong(const struct row *r, const char *key, const char *wanted, struct err *err)
{
    return row_error(r, err, "\"%s\": %s was expected, found %s", key, wanted, json_kind(json_object_get(r->v, key)));
}

const char *row_text(const struct row *r, const char *key, struct err *err)
{
    size_t n;
    const char *s = row_string(&n, r, key, err);
    if (s && strlen(s) != n) {
        row_error(r, err, "\"%s\" holds the character U+0000, which no text of a task has", key);
        return NULL;
    }
    return s;
}

const char *row_string(size_t *n, const struct row *r, const char *key, struct err *err)
{
    const json_t *v = json_object_get(r->v, key);
    *n = json_string_length(v);
    if (!json_is_string(v))
        wrong(r, key, "a string", err);
    return json_string_value(v);
}

const json_t *row_array(const struct row *r, const char *key, struct err *err)
{
    const json_t *v = json_object_get(r->v, key);
    if (json_is_array(v))
        return v;
    wrong(r, key, "an array", err);
    return NULL;
}

int row_object(struct row *inner, const struct row *r, const char *key, struct err *err)
{
    *inner = (struct row){r->rows, r->at, json_object_get(r->v, key)};
    return json_is_object(inner->v) ? 0 : wrong(r, key, "an object", err);
}

int row_index(int *out, const struct row *r, const char *key, int low, int high, struct err *err)
{
    const json_t *v = json_object_get(r->v, key);
    const char *s = json_string_value(v);
    char *end = NULL;
    json_int_t number = s ? strtoll(s, &end, 10) : json_integer_value(v);
    if (s ? end == s || *end : !json_is_integer(v))
        return wrong(r, key, "a whole number", err);
    if (number < low || number > high)
        return row_error(r, err, "\"%s\": %lld is not between %d and %d", key, (long long)number, low, high);
    *out = (int)number;
    return 0;
}

bool row_has(const struct row *r, const char *key)
{
    const json_t *v = json_object_get(r->v, key);
    return v && !json_is_null(v);
}
