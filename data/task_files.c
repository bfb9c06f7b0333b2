/* Where the rows of a task are, and reading them. */
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "data/tasks.h"

enum { PATH_LEN = 4096 };

/* The first of the task's names that is a file below `dir`. */
static int find_file(char path[PATH_LEN], const struct task *t, const char *dir, struct err *err)
{
    static const char *const endings[] = {".jsonl", ".jsonl.gz", ".json", ".json.gz", ".txt", ".txt.gz"};
    int n_endings = t->greedy ? 6 : 4; /* only running text is ever plain */
    for (const char *const *name = t->names; *name; name++)
        for (int i = 0; i < n_endings; i++) {
            int there = snprintf(path, PATH_LEN, "%s/%s%s", dir, *name, endings[i]) < PATH_LEN ? path_status(path, err) : 0;
            if (there < 0 || (there && !path_is_dir(path)))
                return there < 0 ? -1 : 0;
        }
    return err_set(err, "%s: no file for %s; put %s there as %s.jsonl (.json and .gz will do too)", dir, t->name, t->rows,
                   t->names[0]);
}

/* The labels of PIQA's original release: a line each in valid-labels.lst beside valid.jsonl. Rows with a label are left alone. */
static int add_piqa_labels(struct rows *r, struct err *err)
{
    char path[PATH_LEN], *labels = NULL, *p;
    size_t size, stem = strlen(r->file);
    int rc = -1;
    if (r->n == 0 || row_has(&(struct row){r, 0, json_array_get(r->list, 0)}, "label"))
        return 0;
    for (size_t cut = stem; cut > 0 && r->file[cut] != '/'; cut--)
        if (r->file[cut] == '.')
            stem = cut;
    if (snprintf(path, sizeof path, "%.*s-labels.lst", (int)stem, r->file) >= PATH_LEN)
        return err_set(err, "%s: the path is too long", r->file);
    int there = path_status(path, err);
    if (there <= 0)
        return err_set(err, "%s: the rows have no \"label\"; put their labels in %s, a line each", r->file, path);
    if (file_read_text(&labels, &size, path, err) != 0)
        return -1;
    p = labels;
    for (int64_t i = 0; i < r->n; i++) {
        size_t len = strcspn(p, "\r\n");
        if (len != 1 || (*p != '0' && *p != '1')) {
            err_set(err, "%s: line %lld: 0 or 1 was expected, for \"label\"", path, (long long)i + 1);
            goto done;
        }
        if (json_object_set_new(json_array_get(r->list, (size_t)i), "label", json_integer(*p - '0')) != 0) {
            err_set(err, "%s: out of memory", path);
            goto done;
        }
        p += len + strspn(p + len, "\r\n");
    }
    if (*p)
        err_set(err, "%s: more labels than %s has rows", path, r->file);
    else
        rc = 0;
done:
    free(labels);
    return rc;
}

static int read_documents(struct task_set *s, struct rows *rows, int64_t offset, int64_t limit, struct err *err)
{
    s->n_rows = rows->n;
    if (offset >= rows->n)
        return err_set(err, "%s: it has %lld documents, none from number %lld on", s->file, (long long)rows->n, (long long)offset);
    s->n = limit > 0 && limit < rows->n - offset ? limit : rows->n - offset;
    s->docs = arena_alloc(&s->arena, (size_t)s->n, sizeof *s->docs, err);
    if (!s->docs)
        return -1;
    for (int64_t i = 0; i < s->n; i++) {
        struct row r = row_at(rows, offset + i);
        s->docs[i].index = offset + i;
        if (s->task->read(&s->docs[i], &r, &s->arena, err) != 0)
            return -1;
    }
    return 0;
}

int task_read(struct task_set *s, const struct task *t, const char *data, int64_t offset, int64_t limit, struct err *err)
{
    char path[PATH_LEN];
    struct rows rows = {0};
    *s = (struct task_set){.task = t};
    if (path_is_dir(data)) {
        if (find_file(path, t, data, err) != 0)
            return -1;
        data = path;
    }
    int rc = -1;
    if (rows_read(&rows, data, err) != 0 || (s->file = arena_strdup(&s->arena, data, err)) == NULL ||
        file_sha256(s->sha256, data, err) != 0)
        goto done;
    if (t == task_find("piqa") && add_piqa_labels(&rows, err) != 0)
        goto done;
    rc = read_documents(s, &rows, offset, limit, err);
done:
    rows_free(&rows);
    if (rc != 0)
        task_free(s);
    return rc;
}

void task_free(struct task_set *s)
{
    arena_free(&s->arena);
    *s = (struct task_set){0};
}
