#include "core/base/dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/bus.h"
#include "core/base/file.h"
#include "core/base/part.h"

/* ---- making and removing ---- */

int dir_make(const char *path, struct err *err)
{
    char *s = strdup(path);
    if (!s)
        return err_set(err, "out of memory");
    int rc = 0;
    for (char *p = s + 1; rc == 0; p++) {
        if (*p != '/' && *p != 0)
            continue;
        char saved = *p;
        *p = 0;
        if (mkdir(s, 0777) != 0 && errno != EEXIST)
            rc = err_errno(err, "%s: cannot make the folder", path);
        *p = saved;
        if (!saved)
            break;
    }
    if (rc == 0 && !path_is_dir(path))
        rc = err_set(err, "%s: exists and is not a folder", path);
    free(s);
    return rc;
}

/* Removes what the open folder holds, by names inside it: nothing that is put in the way of a path is followed. Takes fd. */
static void remove_contents(int fd)
{
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        int inner = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (inner >= 0)
            remove_contents(inner);
        unlinkat(dirfd(d), e->d_name, inner >= 0 ? AT_REMOVEDIR : 0);
    }
    closedir(d);
}

/* Removes a folder if it is the one that is meant; NULL: any. */
static void remove_folder(const char *path, const struct stat *meant)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    if (meant && (fstat(fd, &st) != 0 || !stat_is_same(&st, meant))) {
        close(fd);
        return;
    }
    remove_contents(fd);
    rmdir(path); /* of a folder that is not empty, or of a link, this does nothing */
}

void dir_remove(const char *path)
{
    remove_folder(path, NULL);
}

void dir_remove_files(const char *parent, const char *name, const char *const files[], size_t n)
{
    int outer = open(parent, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd = outer >= 0 ? openat(outer, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    for (size_t i = 0; fd >= 0 && i < n; i++)
        unlinkat(fd, files[i], 0);
    if (fd >= 0) {
        unlinkat(outer, name, AT_REMOVEDIR); /* of a folder that is not empty, or of a link, this does nothing */
        close(fd);
    }
    if (outer >= 0)
        close(outer);
}

/* ---- writing ---- */

static int is_empty(const char *path, struct err *err)
{
    DIR *d = opendir(path);
    if (!d)
        return err_errno(err, "%s", path);
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) && n < 3;)
        n++;
    closedir(d);
    return n <= 2; /* "." and ".." */
}

/* The name without slashes at its end, behind which a link would be followed. */
static char *plain_name(const char *path, struct err *err)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    char *s = strndup(path, n);
    if (!s)
        err_set(err, "out of memory");
    return s;
}

/* What is there under the name: *st, or st_ino 0 where there is nothing. */
static int look(struct stat *st, const char *name, bool replace, struct err *err)
{
    int empty;
    *st = (struct stat){0};
    if (lstat(name, st) != 0) {
        *st = (struct stat){0};
        return errno == ENOENT ? 0 : err_errno(err, "%s", name);
    }
    if (S_ISLNK(st->st_mode))
        return err_set(err, "%s: is a link, which is not replaced: name the folder itself, or remove the link", name);
    if (!S_ISDIR(st->st_mode))
        return err_set(err, "%s: exists and is not a folder", name);
    if ((empty = is_empty(name, err)) < 0)
        return -1;
    return empty || replace ? 0 : err_set(err, "%s: exists already and is not empty (--force replaces it)", name);
}

int dir_check_no_link(const char *path, struct err *err)
{
    struct stat st;
    char *name = plain_name(path, err);
    int rc = name ? 0 : -1;
    if (name && lstat(name, &st) == 0 && S_ISLNK(st.st_mode))
        rc = err_set(err, "%s: is a link, which is not written through: name the folder itself, or remove the link", name);
    free(name);
    return rc;
}

int dir_writer_check(const char *path, bool replace, struct err *err)
{
    struct stat st;
    char *name = plain_name(path, err);
    int rc = name ? look(&st, name, replace, err) : -1;
    free(name);
    return rc;
}

static int make_parent(const char *path, struct err *err)
{
    char *parent = strdup(path), *slash = parent ? strrchr(parent, '/') : NULL;
    int rc = parent ? 0 : err_set(err, "out of memory");
    if (slash && slash > parent) {
        *slash = 0;
        rc = dir_make(parent, err);
    }
    free(parent);
    return rc;
}

int dir_writer_open(struct dir_writer *w, const char *path, bool replace, struct err *err)
{
    *w = (struct dir_writer){.path = plain_name(path, err), .replace = replace};
    char *tmp = NULL;
    if (!w->path || look(&w->old, w->path, replace, err) != 0 || make_parent(w->path, err) != 0 ||
        !(tmp = path_temporary(w->path, err)))
        goto fail;
    if (mkdir(tmp, 0777) != 0) { /* whatever has that name already is not ours */
        err_errno(err, "%s: cannot make the folder", path);
        goto fail;
    }
    w->tmp = tmp;
    tmp = NULL;
    if (lstat(w->tmp, &w->made) == 0) {
        part_begin(w->tmp, &w->made);
        return 0;
    }
    err_errno(err, "%s", w->tmp);
fail:
    free(tmp);
    dir_writer_abort(w);
    return -1;
}

/* Whether what was under the name, and has the name `now`, is what commit was told that it may remove. */
static bool is_replaceable(const struct dir_writer *w, const char *now)
{
    struct err unread = {0};
    return path_is_same(now, &w->old) && (w->replace || is_empty(now, &unread) == 1);
}

static int not_the_same(const struct dir_writer *w, struct err *err)
{
    return err_set(err, "%s: was changed by somebody else in the meantime, and is left as it is", w->path);
}

/* In one go; -1 without an error where names cannot be exchanged so. */
static int exchange(struct dir_writer *w, struct err *err)
{
    if (renameat2(AT_FDCWD, w->tmp, AT_FDCWD, w->path, RENAME_EXCHANGE) != 0)
        return -1;
    if (is_replaceable(w, w->tmp)) {
        remove_folder(w->tmp, &w->old);
        return 0;
    }
    if (renameat2(AT_FDCWD, w->tmp, AT_FDCWD, w->path, RENAME_EXCHANGE) != 0)
        return err_errno(err, "%s: was changed by somebody else in the meantime; what they put there is %s now", w->path, w->tmp);
    return not_the_same(w, err);
}

/* Where names cannot be exchanged in one go: the old folder gets out of the way, and back if the new one cannot take its place. */
static int replace_in_steps(struct dir_writer *w, struct err *err)
{
    char *aside = path_temporary(w->path, err);
    int rc = -1;
    if (!aside)
        return -1;
    if (rename(w->path, aside) != 0) {
        err_errno(err, "%s: cannot replace", w->path);
    } else if (!is_replaceable(w, aside)) {
        rename(aside, w->path);
        rc = not_the_same(w, err);
    } else if (rename(w->tmp, w->path) != 0) {
        err_errno(err, "%s: cannot rename", w->path);
        rename(aside, w->path);
    } else {
        remove_folder(aside, &w->old);
        rc = 0;
    }
    free(aside);
    return rc;
}

int dir_writer_commit(struct dir_writer *w, struct err *err)
{
    int rc = -1;
    bool replaced = w->old.st_ino != 0;
    if (bus_check(err) != 0)
        goto done;
    if (!replaced && renameat2(AT_FDCWD, w->tmp, AT_FDCWD, w->path, RENAME_NOREPLACE) == 0) {
        rc = 0;
    } else if (!replaced && errno != EEXIST) { /* a file system that knows no flags */
        rc = rename(w->tmp, w->path) == 0 ? 0 : err_errno(err, "%s: cannot rename", w->path);
    } else if (!replaced) {
        err_set(err, "%s: was made by somebody else in the meantime", w->path);
    } else if ((rc = exchange(w, err)) != 0 && !err->code) {
        rc = replace_in_steps(w, err);
    }
    if (rc == 0) {
        part_end(w->tmp);
        free(w->tmp);
        w->tmp = NULL;
        rc = path_sync(w->path, err);
    }
done:
    dir_writer_abort(w);
    return rc;
}

void dir_writer_abort(struct dir_writer *w)
{
    if (w->tmp) {
        remove_folder(w->tmp, &w->made);
        part_end(w->tmp);
    }
    free(w->tmp);
    free(w->path);
    *w = (struct dir_writer){0};
}
