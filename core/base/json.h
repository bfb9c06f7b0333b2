/* Small helpers over jansson: loading with messages that name the file, and typed look-ups that fail with a reason. */
#ifndef ESPALIER_BASE_JSON_H
#define ESPALIER_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"

/* Parses a JSON file (plain or gzip). Returns a new reference, or NULL and an error that names file and line. */
json_t *json_read(const char *path, struct err *err);

/* Parses text[n], of which *why says what is wrong (NULL then). Any value is taken, U+0000 in strings too, and an integer that 64 bits
 * do not hold becomes a real number. Every reader of JSON that others wrote goes through here. */
json_t *json_load(const char *text, size_t n, json_error_t *why);

/* The same of text[n] that came from `path`. */
json_t *json_parse(const char *text, size_t n, const char *path, struct err *err);

/* A string of any bytes: what is not UTF-8 becomes U+FFFD. A new reference; NULL: out of memory. */
json_t *json_utf8(const char *s, size_t n);

/* The same of a whole string: a path, a name, an argument. What json_pack's "s" is given has to be UTF-8, or the value is lost. */
json_t *json_text(const char *s);

/* Makes every failed allocation of a JSON value be remembered: a result that was put together without memory lacks a part, and nobody
 * looks at each member. To be called once, before any value is made. What is written then fails. */
void json_guard(void);
bool json_failed(void);

/* Writes a JSON file with 2-space indentation, whole or not at all. */
int json_write(const char *path, const json_t *value, struct err *err);

/* The same up to the commit: *w is finished, and still without its name. On failure there is nothing to abort. */
struct file_writer;
int json_write_part(struct file_writer *w, const char *path, const json_t *value, struct err *err);

/* What json_write writes, malloc'ed; NULL when there is no memory. */
char *json_pretty(const json_t *value);

/* One compact line with its line break, malloc'ed, for whoever reads it, a terminal too: all control characters are escaped. NULL:
 * there is no memory. */
char *json_line(const json_t *value);

/* Members of an object. An absent or null member leaves *out alone and returns 0; one of the wrong type is an error that
 * names `file` and the key. */
int json_get_int(int64_t *out, const json_t *obj, const char *key, const char *file, struct err *err);
int json_get_real(double *out, const json_t *obj, const char *key, const char *file, struct err *err);
int json_get_bool(bool *out, const json_t *obj, const char *key, const char *file, struct err *err);
int json_get_string(const char **out, const json_t *obj, const char *key, const char *file, struct err *err);

#endif
