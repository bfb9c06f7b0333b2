#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"

json_t *json_parse(const char *text, size_t n, const char *path, struct err *err)
{
    json_error_t why;
    json_t *v = json_loadb(text, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);
    if (!v)
        err_set(err, "%s: not valid JSON: line %d: %s", path, why.line, why.text);
    return v;
}

json_t *json_read(const char *path, struct err *err)
{
    char *text;
    size_t n;
    if (file_read(&text, &n, path, err) != 0)
        return NULL;
    json_t *v = json_parse(text, n, path, err);
    free(text);
    return v;
}

char *json_pretty(const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY), *line = text ? realloc(text, strlen(text) + 2) : NULL;
    if (!line)
        free(text);
    return line ? strcat(line, "\n") : NULL;
}

int json_write(const char *path, const json_t *value, struct err *err)
{
    char *text = json_pretty(value);
    int rc = text ? file_write(path, text, strlen(text), err) : err_set(err, "%s: out of memory", path);
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
