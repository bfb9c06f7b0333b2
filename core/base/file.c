#include "core/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

int file_map(struct file_map *map, const char *path, struct err *err)
{
    *map = (struct file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "%s", path);
    struct stat st;
    int rc = -1;
    if (fstat(fd, &st) != 0) {
        err_errno(err, "%s", path);
        goto done;
    }
    if (!S_ISREG(st.st_mode)) {
        err_set(err, "%s: a regular file was expected", path);
        goto done;
    }
    map->size = (size_t)st.st_size;
    if (map->size > 0) {
        void *p = mmap(NULL, map->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            err_errno(err, "%s: cannot map %zu bytes", path, map->size);
            goto done;
        }
        map->data = p;
    }
    rc = 0;
done:
    close(fd);
    return rc;
}

void file_unmap(struct file_map *map)
{
    if (map->data)
        munmap((void *)map->data, map->size);
    *map = (struct file_map){0};
}

int file_read(char **data, size_t *size, const char *path, struct err *err)
{
    /* gzread passes plain files through unchanged, so one loop reads both. */
    char *buf = NULL;
    size_t n = 0, cap = 1 << 16;
    int rc = -1;
    if (path_is_dir(path))
        return err_set(err, "%s: is a folder, a file was expected", path);
    gzFile f = gzopen(path, "rb");
    if (!f)
        return err_errno(err, "%s", path);
    for (;;) {
        char *grown = realloc(buf, cap + 1);
        if (!grown) {
            err_set(err, "%s: out of memory", path);
            goto done;
        }
        buf = grown;
        size_t room = cap - n < INT_MAX / 2 ? cap - n : INT_MAX / 2;
        int got = gzread(f, buf + n, (unsigned)room);
        if (got < 0) {
            int code;
            const char *why = gzerror(f, &code);
            if (code == Z_ERRNO)
                err_errno(err, "%s", path);
            else
                err_set(err, "%s: damaged gzip data: %s", path, why);
            goto done;
        }
        n += (size_t)got;
        if (got == 0)
            break;
        if (n == cap)
            cap *= 2;
    }
    if (gzclose_r(f) != Z_OK) { /* a gzip file that ends too early says so only here */
        f = NULL;
        err_set(err, "%s: the gzip data ends too early", path);
        goto done;
    }
    f = NULL;
    buf[n] = 0;
    *data = buf;
    *size = n;
    buf = NULL;
    rc = 0;
done:
    if (f)
        gzclose_r(f);
    free(buf);
    return rc;
}

void bytes_sha256(char hex[65], const void *data, size_t size)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    EVP_Digest(data, size, md, &len, EVP_sha256(), NULL);
    for (unsigned i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", md[i]);
}

int file_sha256(char hex[65], const char *path, struct err *err)
{
    struct file_map m;
    if (file_map(&m, path, err) != 0)
        return -1;
    bytes_sha256(hex, m.data ? m.data : (const void *)"", m.size);
    file_unmap(&m);
    return 0;
}

/* "<path>.part-<pid>": beside the target, so that rename stays within one file system. */
static char *temporary_name(const char *path, struct err *err)
{
    char *s;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (asprintf(&s, "%.*s.part-%d", (int)n, path, (int)getpid()) < 0) {
        err_set(err, "out of memory");
        return NULL;
    }
    return s;
}

int file_writer_open(struct file_writer *w, const char *path, struct err *err)
{
    *w = (struct file_writer){0};
    w->path = strdup(path);
    w->tmp = temporary_name(path, err);
    if (!w->path || !w->tmp) {
        file_writer_abort(w);
        return err_set(err, "out of memory");
    }
    w->f = fopen(w->tmp, "wb");
    if (!w->f) {
        err_errno(err, "%s: cannot write", path);
        free(w->tmp);
        w->tmp = NULL;
        file_writer_abort(w);
        return -1;
    }
    return 0;
}

int file_writer_put(struct file_writer *w, const void *data, size_t size, struct err *err)
{
    enum { PIECE = 8 << 20 };
    if (size > 0 && fwrite(data, 1, size, w->f) != size)
        return err_errno(err, "%s: cannot write", w->path);
    if ((w->pending += size) >= PIECE) { /* the kernel would let gigabytes pile up first; no matter whether it takes the hint */
        sync_file_range(fileno(w->f), 0, 0, SYNC_FILE_RANGE_WRITE);
        w->pending = 0;
    }
    return 0;
}

int file_writer_flush(struct file_writer *w, struct err *err)
{
    return fflush(w->f) == 0 ? 0 : err_errno(err, "%s: cannot write", w->path);
}

int file_writer_commit(struct file_writer *w, struct err *err)
{
    int rc = -1;
    bool flushed = fflush(w->f) == 0 && fsync(fileno(w->f)) == 0;
    if (!flushed)
        err_errno(err, "%s: cannot write", w->path);
    bool closed = fclose(w->f) == 0;
    w->f = NULL;
    if (flushed && !closed)
        err_errno(err, "%s: cannot write", w->path);
    if (flushed && closed) {
        if (rename(w->tmp, w->path) == 0) {
            free(w->tmp);
            w->tmp = NULL;
            rc = 0;
        } else {
            err_errno(err, "%s: cannot rename", w->path);
        }
    }
    file_writer_abort(w);
    return rc;
}

void file_writer_abort(struct file_writer *w)
{
    if (w->f)
        fclose(w->f);
    if (w->tmp)
        unlink(w->tmp);
    free(w->tmp);
    free(w->path);
    *w = (struct file_writer){0};
}

int file_write(const char *path, const void *data, size_t size, struct err *err)
{
    struct file_writer w;
    if (file_writer_open(&w, path, err) != 0)
        return -1;
    if (file_writer_put(&w, data, size, err) != 0) {
        file_writer_abort(&w);
        return -1;
    }
    return file_writer_commit(&w, err);
}

static bool dir_is_empty(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return false;
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) && n < 3;)
        n++;
    closedir(d);
    return n <= 2; /* "." and ".." */
}

void file_forget(const char *path)
{
    DIR *d = opendir(path);
    int fd = d ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct err none = {0};
        char *p = e->d_name[0] == '.' ? NULL : path_join(path, e->d_name, &none);
        if (p)
            file_forget(p);
        free(p);
    }
    if (d)
        closedir(d);
    if (fd >= 0) {
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
}

void dir_remove(const char *path)
{
    DIR *d = opendir(path);
    if (d) {
        for (struct dirent *e; (e = readdir(d));) {
            if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
                continue;
            struct err ignored = {0};
            char *p = path_join(path, e->d_name, &ignored);
            if (!p)
                continue;
            struct stat st;
            if (lstat(p, &st) == 0 && S_ISDIR(st.st_mode))
                dir_remove(p);
            else
                unlink(p);
            free(p);
        }
        closedir(d);
    }
    rmdir(path);
}

int dir_writer_check(const char *path, bool replace, struct err *err)
{
    if (path_exists(path) && !path_is_dir(path))
        return err_set(err, "%s: exists and is not a folder", path);
    if (path_exists(path) && !dir_is_empty(path) && !replace)
        return err_set(err, "%s: exists already and is not empty (--force replaces it)", path);
    return 0;
}

int dir_writer_open(struct dir_writer *w, const char *path, bool replace, struct err *err)
{
    *w = (struct dir_writer){.replace = replace};
    if (dir_writer_check(path, replace, err) != 0)
        return -1;
    w->path = strdup(path);
    w->tmp = temporary_name(path, err);
    if (w->path && w->tmp) {
        dir_remove(w->tmp);
        if (dir_make(w->tmp, err) == 0)
            return 0;
    }
    dir_writer_abort(w);
    return err_set(err, "out of memory");
}

int dir_writer_commit(struct dir_writer *w, struct err *err)
{
    char *old = NULL;
    int rc = -1;
    if (path_exists(w->path)) {
        if (asprintf(&old, "%s.old", w->tmp) < 0) {
            old = NULL;
            err_set(err, "out of memory");
            goto done;
        }
        if (rename(w->path, old) != 0) {
            err_errno(err, "%s: cannot replace", w->path);
            goto done;
        }
    }
    if (rename(w->tmp, w->path) != 0) {
        err_errno(err, "%s: cannot rename", w->path);
        if (old)
            rename(old, w->path);
        goto done;
    }
    if (old)
        dir_remove(old);
    rc = 0;
done:
    free(old);
    if (rc == 0) {
        free(w->tmp);
        w->tmp = NULL;
    }
    dir_writer_abort(w);
    return rc;
}

void dir_writer_abort(struct dir_writer *w)
{
    if (w->tmp)
        dir_remove(w->tmp);
    free(w->tmp);
    free(w->path);
    *w = (struct dir_writer){0};
}

/* "1.5 GiB" */
static const char *size_text(char text[32], double bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    int k = 0;
    for (; bytes >= 1024 && k < 4; k++)
        bytes /= 1024;
    snprintf(text, 32, k ? "%.1f %s" : "%.0f %s", bytes, units[k]);
    return text;
}

int disk_check(const char *path, int64_t bytes, struct err *err)
{
    struct statvfs v;
    char needed[32], there[32], *slash;
    char *folder = strdup(path);
    if (!folder)
        return err_set(err, "out of memory");
    while (statvfs(folder, &v) != 0 && (slash = strrchr(folder, '/')) && slash > folder)
        *slash = 0; /* up to the first folder that is there */
    bool known = statvfs(folder, &v) == 0 || statvfs(*path == '/' ? "/" : ".", &v) == 0;
    free(folder);
    if (!known)
        return err_errno(err, "%s: cannot tell how much room there is", path);
    int64_t available;
    if (__builtin_mul_overflow((int64_t)v.f_bavail, (int64_t)v.f_frsize, &available) || available >= bytes)
        return 0;
    return err_set(err, "%s: needs %s of disk, %s are free", path, size_text(needed, (double)bytes),
                   size_text(there, (double)available));
}

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

bool path_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool path_has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n >= m && !strcmp(path + n - m, suffix);
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *path_join(const char *dir, const char *name, struct err *err)
{
    char *s;
    size_t n = strlen(dir);
    if (asprintf(&s, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name) < 0) {
        err_set(err, "out of memory");
        return NULL;
    }
    return s;
}
