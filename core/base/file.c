#include "core/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

#include "core/base/bus.h"
#include "core/base/part.h"
#include "core/base/utf8.h"

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
        bus_watch(p, map->size, fd, path);
        fd = -1;
    }
    rc = 0;
done:
    if (fd >= 0)
        close(fd);
    return rc;
}

void file_unmap(struct file_map *map)
{
    if (map->data) {
        bus_forget(map->data);
        munmap((void *)map->data, map->size);
    }
    *map = (struct file_map){0};
}

size_t inflated_limit(size_t compressed)
{
    enum { RATIO = 40, ALWAYS = 64 << 20 };
    return compressed > (SIZE_MAX - ALWAYS) / RATIO ? SIZE_MAX : ALWAYS + RATIO * compressed;
}

int file_read(char **data, size_t *size, const char *path, struct err *err)
{
    /* gzread passes plain files through unchanged, so one loop reads both. */
    char *buf = NULL;
    size_t n = 0, cap = 1 << 16;
    int rc = -1;
    struct stat st;
    if (path_is_dir(path))
        return err_set(err, "%s: is a folder, a file was expected", path);
    gzFile f = gzopen(path, "rb");
    if (!f)
        return err_errno(err, "%s", path);
    size_t limit = inflated_limit(stat(path, &st) == 0 && st.st_size > 0 ? (size_t)st.st_size : 0);
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
        if (n > limit && !gzdirect(f)) {
            err_set(err, "%s: its gzip data grow to more than 40 times their size; unpack the file first if that is right", path);
            goto done;
        }
        if (n == cap)
            cap += cap / 2;
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

int file_read_text(char **data, size_t *size, const char *path, struct err *err)
{
    if (file_read(data, size, path, err) != 0)
        return -1;
    if (*size >= 2 && (!memcmp(*data, "\xFF\xFE", 2) || !memcmp(*data, "\xFE\xFF", 2))) {
        free(*data);
        *data = NULL;
        return err_set(err, "%s: begins with the byte order mark of UTF-16; UTF-8 was expected", path);
    }
    size_t mark = utf8_mark(*data, *size);
    *size -= mark;
    memmove(*data, *data + mark, *size + 1);
    return 0;
}

void sha256_begin(struct sha256 *s)
{
    s->context = EVP_MD_CTX_new();
    if (s->context && EVP_DigestInit_ex(s->context, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(s->context);
        s->context = NULL;
    }
}

void sha256_put(struct sha256 *s, const void *data, size_t size)
{
    if (s->context && EVP_DigestUpdate(s->context, data, size) != 1) {
        EVP_MD_CTX_free(s->context);
        s->context = NULL;
    }
}

int sha256_end(char hex[65], struct sha256 *s, struct err *err)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    bool done = s->context && EVP_DigestFinal_ex(s->context, md, &len) == 1 && len == 32;
    EVP_MD_CTX_free(s->context);
    s->context = NULL;
    hex[0] = 0;
    if (!done)
        return err_set(err, "SHA-256 cannot be computed: OpenSSL does not provide it here, or there is no memory");
    for (unsigned i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", md[i]);
    return 0;
}

int bytes_sha256(char hex[65], const void *data, size_t size, struct err *err)
{
    struct sha256 s;
    sha256_begin(&s);
    sha256_put(&s, data, size);
    return sha256_end(hex, &s, err);
}

int file_sha256(char hex[65], const char *path, struct err *err)
{
    struct file_map m;
    if (file_map(&m, path, err) != 0)
        return -1;
    int rc = bytes_sha256(hex, m.data ? m.data : (const void *)"", m.size, err);
    file_unmap(&m);
    return rc;
}

/* Beside the target, so that rename stays within one file system. Nobody can tell the digits before. */
char *path_temporary(const char *path, struct err *err)
{
    uint64_t digits;
    char *s;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (getrandom(&digits, sizeof digits, 0) != (ssize_t)sizeof digits) {
        err_errno(err, "random numbers cannot be had");
        return NULL;
    }
    if (asprintf(&s, "%.*s.part-%016llx", (int)n, path, (unsigned long long)digits) < 0) {
        err_set(err, "out of memory");
        return NULL;
    }
    return s;
}

/* What the name stands for: a link's target, so that the target is replaced and not the link. A name that is not there, or a link
 * to nothing, stands for itself. */
static char *real_target(const char *path, struct err *err)
{
    char *real = realpath(path, NULL);
    if (!real)
        real = strdup(path);
    if (!real)
        err_set(err, "out of memory");
    return real;
}

/* A device or a pipe is written into; what is no file at all is refused. */
static int open_special(struct file_writer *w, const struct stat *st, struct err *err)
{
    if (S_ISDIR(st->st_mode))
        return err_set(err, "%s: is a folder, a file was expected", w->path);
    int fd = open(w->path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && (w->f = fdopen(fd, "wb")))
        return 0;
    err_errno(err, "%s: cannot write", w->path);
    if (fd >= 0)
        close(fd);
    return -1;
}

static int open_temporary(struct file_writer *w, struct err *err)
{
    char *tmp = path_temporary(w->path, err);
    if (!tmp)
        return -1;
    int fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) {
        err_errno(err, "%s: cannot write", w->path);
        free(tmp);
        return -1;
    }
    w->tmp = tmp; /* from here on it is ours to remove */
    if (fstat(fd, &w->made) == 0) {
        part_begin(tmp, &w->made);
        if ((w->f = fdopen(fd, "wb")))
            return 0;
    }
    err_errno(err, "%s: cannot write", w->path);
    close(fd);
    return -1;
}

int file_writer_open(struct file_writer *w, const char *path, struct err *err)
{
    struct stat st;
    *w = (struct file_writer){.path = real_target(path, err)};
    if (!w->path)
        return -1;
    int rc;
    if (lstat(w->path, &st) != 0)
        rc = errno == ENOENT ? open_temporary(w, err) : err_errno(err, "%s: cannot write", path);
    else if (S_ISLNK(st.st_mode))
        rc = err_set(err, "%s: is a link to nothing; remove it or name the file itself", path);
    else
        rc = S_ISREG(st.st_mode) ? open_temporary(w, err) : open_special(w, &st, err);
    if (rc != 0)
        file_writer_abort(w);
    return rc;
}

/* The kernel takes no bytes from a mapped file that was cut, and calls it a bad address: not the fault of this file. */
static int cannot_write(const struct file_writer *w, struct err *err)
{
    int number = errno;
    if (bus_check(err) != 0)
        return -1;
    errno = number;
    return err_errno(err, "%s: cannot write", w->path);
}

int file_writer_put(struct file_writer *w, const void *data, size_t size, struct err *err)
{
    enum { PIECE = 8 << 20 };
    if (size > 0 && fwrite(data, 1, size, w->f) != size)
        return cannot_write(w, err);
    w->pending += size;
    if (w->tmp && w->pending >= PIECE) {
        /* the kernel would let gigabytes pile up first; no matter whether it takes the hint */
        sync_file_range(fileno(w->f), 0, 0, SYNC_FILE_RANGE_WRITE);
        w->pending = 0;
    }
    return 0;
}

int file_writer_flush(struct file_writer *w, struct err *err)
{
    return fflush(w->f) == 0 ? 0 : cannot_write(w, err);
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

int path_status(const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st) == 0)
        return 1;
    int why = errno;
    bool link = lstat(path, &st) == 0; /* a link to nothing is something that cannot be read */
    errno = why;
    if (!link && (why == ENOENT || why == ENOTDIR))
        return 0;
    return link && why == ENOENT ? err_set(err, "%s: is a link to nothing", path) : err_errno(err, "%s", path);
}

bool stat_is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool path_is_same(const char *path, const struct stat *meant)
{
    struct stat st;
    return lstat(path, &st) == 0 && stat_is_same(&st, meant);
}

int path_sync(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash > path ? (size_t)(slash - path) : 1) : strdup(".");
    if (!folder)
        return err_set(err, "out of memory");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    if (fd < 0) /* a folder may be written to and not read */
        return errno == EACCES ? 0 : err_errno(err, "%s: its folder cannot be opened", path);
    int rc = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : err_errno(err, "%s: cannot write its folder", path);
    close(fd);
    return rc;
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
