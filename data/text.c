#include "data/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"

static bool is_jsonl(const char *path)
{
    return path_has_suffix(path, ".jsonl") || path_has_suffix(path, ".jsonl.gz");
}

/* Replaces document i, a line of JSON, by its field "text"; the string is copied over the line, which is always longer. */
static int take_json_text(struct documents *d, size_t i, const char *path, struct err *err)
{
    json_error_t why;
    json_t *v = json_loadb(d->docs[i], d->lens[i], JSON_ALLOW_NUL, &why);
    const json_t *text = json_object_get(v, "text");
    int rc = 0;
    if (!v)
        rc = err_set(err, "%s: line %zu is not valid JSON: %s", path, i + 1, why.text);
    else if (!json_is_string(text))
        rc = err_set(err, "%s: line %zu: an object with a string \"text\" was expected", path, i + 1);
    else {
        d->lens[i] = json_string_length(text);
        memcpy(d->docs[i], json_string_value(text), d->lens[i] + 1);
    }
    json_decref(v);
    return rc;
}

int documents_read(struct documents *d, const char *path, struct err *err)
{
    size_t size;
    *d = (struct documents){0};
    if (file_read(&d->text, &size, path, err) != 0)
        return -1;
    size_t lines = 0;
    for (size_t i = 0; i < size; i++)
        lines += d->text[i] == '\n';
    d->docs = calloc(lines + 1, sizeof *d->docs);
    d->lens = calloc(lines + 1, sizeof *d->lens);
    if (!d->docs || !d->lens) {
        documents_free(d);
        return err_set(err, "%s: out of memory", path);
    }
    bool jsonl = is_jsonl(path);
    for (char *p = d->text, *end = d->text + size; p < end;) {
        char *stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop)
            stop = end;
        *stop = 0;
        bool blank = strspn(p, " \t\r") == (size_t)(stop - p);
        if (!(jsonl && blank)) {
            d->docs[d->n] = p;
            d->lens[d->n++] = (size_t)(stop - p);
            if (jsonl && take_json_text(d, d->n - 1, path, err) != 0) {
                documents_free(d);
                return -1;
            }
        }
        p = stop + 1;
    }
    return 0;
}

void documents_free(struct documents *d)
{
    free(d->text);
    free(d->docs);
    free(d->lens);
    *d = (struct documents){0};
}

/* Python's str.strip on the characters that occur in these files: ASCII white space and the separators U+001C to U+001F. */
static bool is_space(unsigned char c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
}

int text_read(char **text, size_t *n, const char *path, enum row_rule rule, struct err *err)
{
    char *raw;
    size_t size;
    if (file_read(&raw, &size, path, err) != 0)
        return -1;
    if (rule == ROWS_RAW) {
        *text = raw;
        *n = size;
        return 0;
    }
    size_t lines = 1;
    for (size_t i = 0; i < size; i++)
        lines += raw[i] == '\n';
    char *out = malloc(size + 3 * lines + 1);
    if (!out) {
        free(raw);
        return err_set(err, "%s: out of memory", path);
    }
    size_t at = 0;
    for (char *p = raw, *end = raw + size; p < end;) { /* the last line break of the file opens no further row */
        char *stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop)
            stop = end;
        char *a = p, *b = stop;
        while (a < b && is_space((unsigned char)*a))
            a++;
        while (b > a && is_space((unsigned char)b[-1]))
            b--;
        if (p > raw) {
            memcpy(out + at, "\n\n", 2);
            at += 2;
        }
        if (rule == ROWS_PTB || (rule == ROWS_WIKITEXT && a == b)) {
            memcpy(out + at, a, (size_t)(b - a));
            at += (size_t)(b - a);
        } else {
            memcpy(out + at, p, (size_t)(stop - p));
            at += (size_t)(stop - p);
            if (rule == ROWS_WIKITEXT)
                out[at++] = '\n';
        }
        p = stop + 1;
    }
    out[at] = 0;
    free(raw);
    *text = out;
    *n = at;
    return 0;
}
