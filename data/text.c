#include "data/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "data/rows.h"

size_t text_newlines(char *text, size_t n)
{
    char *to = text;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r' && i + 1 < n && text[i + 1] == '\n')
            continue;
        *to++ = text[i] == '\r' ? '\n' : text[i];
    }
    *to = 0;
    return (size_t)(to - text);
}

/* Documents out of rows of JSON: their field "text". */
static int take_rows(struct documents *d, const char *path, struct err *err)
{
    struct rows rows;
    size_t total = 0, n;
    int rc = -1;
    if (rows_read(&rows, path, err) != 0)
        return -1;
    for (int64_t i = 0; i < rows.n; i++) {
        struct row row = row_at(&rows, i);
        if (!row_string(&n, &row, "text", err))
            goto done;
        total += n + 1;
    }
    d->text = malloc(total + 1);
    d->docs = calloc((size_t)rows.n + 1, sizeof *d->docs);
    d->lens = calloc((size_t)rows.n + 1, sizeof *d->lens);
    if (!d->text || !d->docs || !d->lens) {
        err_set(err, "%s: out of memory", path);
        goto done;
    }
    char *to = d->text;
    for (int64_t i = 0; i < rows.n; i++) {
        struct row row = row_at(&rows, i);
        const char *s = row_string(&d->lens[d->n], &row, "text", err);
        d->docs[d->n] = to;
        to = mempcpy(to, s, d->lens[d->n] + 1);
        d->n++;
    }
    rc = 0;
done:
    rows_free(&rows);
    return rc;
}

/* Documents out of the lines of a text. */
static int take_lines(struct documents *d, const char *path, struct err *err)
{
    size_t size, lines = 0;
    if (file_read_text(&d->text, &size, path, err) != 0)
        return -1;
    size = text_newlines(d->text, size);
    for (size_t i = 0; i < size; i++)
        lines += d->text[i] == '\n';
    d->docs = calloc(lines + 1, sizeof *d->docs);
    d->lens = calloc(lines + 1, sizeof *d->lens);
    if (!d->docs || !d->lens)
        return err_set(err, "%s: out of memory", path);
    for (char *p = d->text, *end = d->text + size; p < end;) {
        char *stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop)
            stop = end;
        *stop = 0;
        d->docs[d->n] = p;
        d->lens[d->n++] = (size_t)(stop - p);
        p = stop + 1;
    }
    return 0;
}

bool documents_are_json(const char *path)
{
    return path_has_suffix(path, ".jsonl") || path_has_suffix(path, ".jsonl.gz") || path_has_suffix(path, ".json") ||
           path_has_suffix(path, ".json.gz");
}

int documents_read(struct documents *d, const char *path, struct err *err)
{
    *d = (struct documents){0};
    if ((documents_are_json(path) ? take_rows : take_lines)(d, path, err) == 0)
        return 0;
    documents_free(d);
    return -1;
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
    if (file_read_text(&raw, &size, path, err) != 0)
        return -1;
    if (rule != ROWS_BYTES)
        size = text_newlines(raw, size);
    if (rule == ROWS_RAW || rule == ROWS_BYTES) {
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
