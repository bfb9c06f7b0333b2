#include "core/base/record.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/file.h"

/* ---- what lies under a path ---- */

static int file_content(char hex[65], const char *path, struct err *err)
{
    enum { WHOLE = 64 << 20, PIECES = 64, PIECE = 64 << 10 };
    struct file_map map;
    int rc = -1;
    if (file_map(&map, path, err) != 0)
        return -1;
    if (map.size <= WHOLE) {
        rc = bytes_sha256(hex, map.data ? map.data : (const void *)"", map.size, err);
        file_unmap(&map);
        return rc;
    }
    size_t n = sizeof map.size + PIECES * (size_t)PIECE;
    uint8_t *sample = malloc(n);
    if (!sample) {
        err_set(err, "%s: out of memory", path);
    } else {
        memcpy(sample, &map.size, sizeof map.size);
        for (size_t i = 0; i < PIECES; i++)
            memcpy(sample + sizeof map.size + i * PIECE, map.data + (map.size - PIECE) / (PIECES - 1) * i, PIECE);
        rc = bytes_sha256(hex, sample, n, err);
    }
    free(sample);
    file_unmap(&map);
    return rc;
}

static int not_hidden(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static int folder_content(char hex[65], const char *path, struct err *err)
{
    struct dirent **names;
    char *text = NULL, inner[65];
    size_t size = 0;
    int n = scandir(path, &names, not_hidden, alphasort), rc = 0;
    if (n < 0)
        return err_errno(err, "%s", path);
    FILE *f = open_memstream(&text, &size);
    for (int i = 0; i < n; i++) {
        char *name = rc == 0 && f ? path_join(path, names[i]->d_name, err) : NULL;
        rc = name ? record_content(inner, name, err) : -1;
        if (rc == 0)
            fprintf(f, "%s %s\n", names[i]->d_name, inner);
        free(name);
        free(names[i]);
    }
    free(names);
    bool whole = f && !ferror(f);
    whole &= !f || fclose(f) == 0;
    if (!whole)
        rc = err_set(err, "%s: out of memory", path);
    if (rc == 0)
        rc = bytes_sha256(hex, text, size, err);
    free(text);
    return rc;
}

int record_content(char hex[65], const char *path, struct err *err)
{
    return path_is_dir(path) ? folder_content(hex, path, err) : file_content(hex, path, err);
}

/* ---- descriptions ---- */

int record_key(char hex[65], const json_t *description, struct err *err)
{
    char *text = json_dumps(description, JSON_COMPACT | JSON_SORT_KEYS);
    int rc = text ? bytes_sha256(hex, text, strlen(text), err) : err_set(err, "out of memory");
    free(text);
    return rc;
}

/* A value as a message shows it. */
static char *shown(const json_t *v)
{
    return v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) : strdup("absent");
}

static int differs(const char *what, const char *name, const json_t *a, const json_t *b, struct err *err)
{
    char *was = shown(a), *is = shown(b);
    int rc = was && is ? err_set(err, "%s: %s was %.100s, now %.100s", what, name, was, is) : err_set(err, "out of memory");
    free(was);
    free(is);
    return rc;
}

int record_compare(const json_t *was, const json_t *now, const char *what, struct err *err)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)now, name, v)
        if (!json_equal(v, json_object_get(was, name)))
            return differs(what, name, json_object_get(was, name), v, err);
    json_object_foreach((json_t *)was, name, v)
        if (!json_object_get(now, name))
            return differs(what, name, v, NULL, err);
    return 0;
}
