#include "core/base/place.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Cuts the last name off `path`: what is left is its folder. */
static void to_parent(char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n > 0 && path[n - 1] != '/')
        n--;
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (n == 0)
        path[n++] = '.'; /* path holds at least one character, and this one */
    path[n] = 0;
}

int place_check_file(const char *path, struct err *err)
{
    struct stat st;
    if (!*path)
        return err_set(err, "the name of a file to write is empty");
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return err_set(err, "%s: is a folder, a file was expected", path);
        if (!S_ISREG(st.st_mode)) /* a device or a pipe is written into */
            return access(path, W_OK) == 0 ? 0 : err_errno(err, "%s: cannot write", path);
    }
    char *folder = strdup(path);
    if (!folder)
        return err_set(err, "out of memory");
    to_parent(folder);
    int rc = access(folder, W_OK | X_OK) == 0 ? 0 : err_errno(err, "%s: cannot write", path);
    free(folder);
    return rc;
}

int place_check_dir(const char *path, struct err *err)
{
    struct stat st;
    char *folder = strdup(*path ? path : ".");
    if (!folder)
        return err_set(err, "out of memory");
    while (stat(folder, &st) != 0 && errno == ENOENT && strcmp(folder, ".") && strcmp(folder, "/"))
        to_parent(folder);
    int rc = 0;
    if (stat(folder, &st) != 0)
        rc = err_errno(err, "%s: cannot make the folder", path);
    else if (!S_ISDIR(st.st_mode))
        rc = err_set(err, "%s: %s is not a folder", path, folder);
    else if (access(folder, W_OK | X_OK) != 0)
        rc = err_errno(err, "%s: cannot make the folder", path);
    free(folder);
    return rc;
}
