#include "core/base/part.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/file.h"

enum { MAX_PARTS = 32 };

/* Never released, so that a handler may look at any time: `used` is set last and cleared first. */
static struct part {
    atomic_bool used;
    struct stat made;
    char name[PATH_MAX];
} parts[MAX_PARTS];
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;

void part_begin(const char *name, const struct stat *made)
{
    pthread_mutex_lock(&changing);
    for (int i = 0; strlen(name) < PATH_MAX && i < MAX_PARTS; i++) {
        if (atomic_load(&parts[i].used))
            continue;
        strcpy(parts[i].name, name);
        parts[i].made = *made;
        atomic_store(&parts[i].used, true);
        break; /* beyond these a sudden end leaves the name behind */
    }
    pthread_mutex_unlock(&changing);
}

void part_end(const char *name)
{
    pthread_mutex_lock(&changing);
    for (int i = 0; i < MAX_PARTS; i++)
        if (atomic_load(&parts[i].used) && !strcmp(parts[i].name, name))
            atomic_store(&parts[i].used, false);
    pthread_mutex_unlock(&changing);
}

/* The files in a folder; readdir would allocate memory. A folder in it stays, and so does what holds it. */
static void remove_files(int fd)
{
    _Alignas(struct dirent64) char entries[4096];
    for (long n; (n = syscall(SYS_getdents64, fd, entries, sizeof entries)) > 0;)
        for (long at = 0; at < n;) {
            const struct dirent64 *e = (const struct dirent64 *)(entries + at);
            unlinkat(fd, e->d_name, 0); /* "." and ".." are not removed */
            at += e->d_reclen;
        }
}

void part_remove_all(void)
{
    for (int i = 0; i < MAX_PARTS; i++) {
        if (!atomic_load(&parts[i].used) || !path_is_same(parts[i].name, &parts[i].made) || unlink(parts[i].name) == 0)
            continue;
        int fd = open(parts[i].name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            continue;
        remove_files(fd);
        close(fd);
        rmdir(parts[i].name);
    }
}
