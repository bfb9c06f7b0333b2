/* How files that were written get their names: one by itself, or the parts of a result together. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/bus.h"
#include "core/base/file.h"
#include "core/base/part.h"

enum { MAX_PARTS = 4 }; /* of one result */

int file_writer_finish(struct file_writer *w, struct err *err)
{
    bool flushed = fflush(w->f) == 0 && (!w->tmp || fsync(fileno(w->f)) == 0);
    if (!flushed)
        err_errno(err, "%s: cannot write", w->path);
    bool closed = fclose(w->f) == 0;
    w->f = NULL;
    if (flushed && !closed)
        err_errno(err, "%s: cannot write", w->path);
    return flushed && closed ? 0 : -1;
}

/* Moves what has the name out of the way. *aside is malloc'ed, or NULL where there was nothing. */
static int move_aside(char **aside, const struct file_writer *w, struct err *err)
{
    *aside = NULL;
    if (!w->tmp)
        return 0;
    char *name = path_temporary(w->path, err);
    if (!name)
        return -1;
    if (rename(w->path, name) == 0) {
        *aside = name;
        return 0;
    }
    int rc = errno == ENOENT ? 0 : err_errno(err, "%s: cannot replace", w->path);
    free(name);
    return rc;
}

static int give_name(struct file_writer *w, struct err *err)
{
    if (!w->tmp)
        return 0;
    if (!path_is_same(w->tmp, &w->made))
        return err_set(err, "%s: cannot write: %s is gone, or is not the file that was written", w->path, w->tmp);
    if (rename(w->tmp, w->path) != 0)
        return err_errno(err, "%s: cannot rename", w->path);
    part_end(w->tmp);
    free(w->tmp);
    w->tmp = NULL;
    return path_sync(w->path, err);
}

/* All get their names, part[0] last. What fails leaves their old files, or nothing, under their names. */
static int name_parts(struct file_writer *part[], int n, struct err *err)
{
    char *aside[MAX_PARTS] = {NULL};
    int rc = 0;
    for (int i = 0; n > 1 && rc == 0 && i < n; i++)
        rc = move_aside(&aside[i], part[i], err);
    for (int i = n; rc == 0 && i-- > 0;)
        rc = give_name(part[i], err);
    for (int i = n; i-- > 0;) {
        if (rc == 0 && aside[i])
            unlink(aside[i]);
        else if (aside[i])
            rename(aside[i], part[i]->path);
        else if (rc != 0 && n > 1 && path_is_same(part[i]->path, &part[i]->made))
            unlink(part[i]->path);
        free(aside[i]);
    }
    return rc;
}

int file_writer_commit(struct file_writer *w, struct err *err)
{
    struct file_writer *part[MAX_PARTS];
    int n = 0, rc = 0;
    for (struct file_writer *p = w; p && rc == 0; p = p->before, n++) {
        if (n == MAX_PARTS)
            rc = err_set(err, "%s: a result of too many parts", w->path);
        else if (p->f)
            rc = file_writer_finish(p, err);
        if (rc == 0)
            part[n] = p;
    }
    if (rc == 0)
        rc = bus_check(err);
    if (rc == 0)
        rc = name_parts(part, n, err);
    file_writer_abort(w);
    return rc;
}

void file_writer_abort(struct file_writer *w)
{
    if (w->before)
        file_writer_abort(w->before);
    if (w->f)
        fclose(w->f);
    if (w->tmp) {
        if (path_is_same(w->tmp, &w->made))
            unlink(w->tmp);
        part_end(w->tmp);
    }
    free(w->tmp);
    free(w->path);
    *w = (struct file_writer){0};
}
