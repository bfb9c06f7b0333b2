/* Rows of a data set: objects out of a file of JSON lines or of one JSON array, with look-ups whose errors say file, line and
 * field. */
#ifndef ESPALIER_DATA_ROWS_H
#define ESPALIER_DATA_ROWS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"

struct rows {
    char *file;
    json_t *list;     /* array of objects */
    int64_t *line;    /* [n]: where each is in the file */
    const char *unit; /* "line", or "row" for an array */
    int64_t n;
};

/* Reads a file of objects, gzipped or not: lines of JSON or one array, whatever the name ends with. In one that ends in .txt (or .txt.gz) every line is a row {"text": line}. Empty lines do not
 * count. */
int rows_read(struct rows *r, const char *path, struct err *err);

/* The same, but the rows may be any JSON values. */
int rows_read_any(struct rows *r, const char *path, struct err *err);
void rows_free(struct rows *r);

/* One row, or an object inside it. */
struct row {
    const struct rows *rows;
    int64_t at;
    const json_t *v;
};
struct row row_at(const struct rows *r, int64_t at);

/* "FILE: line N: ..." */
int row_error(const struct row *r, struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The member `key`, which must be there and of this type; NULL and an error else. The strings and arrays belong to the rows. */
/* row_text: as a C string, so U+0000 in it is an error; row_string: with its length. */
const char *row_text(const struct row *r, const char *key, struct err *err);
const char *row_string(size_t *n, const struct row *r, const char *key, struct err *err);
const json_t *row_array(const struct row *r, const char *key, struct err *err);
int row_object(struct row *inner, const struct row *r, const char *key, struct err *err);

/* The number in `key`, written as a number or as a string, between low and high. */
int row_index(int *out, const struct row *r, const char *key, int low, int high, struct err *err);

bool row_has(const struct row *r, const char *key);

/* What a JSON value is, in words. */
const char *json_kind(const json_t *v);

#endif
