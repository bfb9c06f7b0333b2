#include "core/base/bus.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_MAPPINGS = 1024, MAX_LINE = 512 };

static const char line_begin[] = "espalier: ", line_end[] = "; nothing was finished\n";

/* begin is 0 where a place is free; a handler may look at any time, so begin is set last and cleared first. */
static struct mapping {
    atomic_uintptr_t begin;
    size_t size;
    int fd; /* the file that is mapped, whatever has its name by now */
    atomic_bool hit;
    char line[MAX_LINE]; /* what is said: made beforehand, for a handler may not format */
} mappings[MAX_MAPPINGS];
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;
static void (*end_with)(const char *line); /* NULL: go on */
static bool readers_ask;                   /* bus_guard(NULL) */
static char first_cut[MAX_LINE];           /* what is said of the first mapping that was cut when it ended, or "" */
static size_t page_bytes;

void bus_watch(const void *data, size_t size, int fd, const char *path)
{
    pthread_mutex_lock(&changing);
    for (int i = 0; i < MAX_MAPPINGS; i++) {
        struct mapping *m = &mappings[i];
        if (atomic_load(&m->begin))
            continue;
        m->size = size;
        m->fd = fd;
        fd = -1;
        atomic_store(&m->hit, false);
        snprintf(m->line, sizeof m->line, "%s%.400s: became shorter while it was read%s", line_begin, path, line_end);
        atomic_store(&m->begin, (uintptr_t)data);
        break; /* beyond these a file is not watched, and ends the program as before */
    }
    pthread_mutex_unlock(&changing);
    if (fd >= 0)
        close(fd);
}

static struct mapping *find(uintptr_t at)
{
    for (int i = 0; i < MAX_MAPPINGS; i++) {
        uintptr_t begin = atomic_load(&mappings[i].begin);
        if (begin && at >= begin && at - begin < mappings[i].size)
            return &mappings[i];
    }
    return NULL;
}

static bool is_cut(const struct mapping *m)
{
    struct stat st;
    return atomic_load(&m->hit) || (fstat(m->fd, &st) == 0 && (uintmax_t)st.st_size < m->size);
}

void bus_forget(const void *data)
{
    pthread_mutex_lock(&changing);
    struct mapping *m = find((uintptr_t)data);
    if (m) {
        if (!readers_ask && !*first_cut && is_cut(m))
            memcpy(first_cut, m->line, sizeof first_cut);
        atomic_store(&m->begin, 0);
        close(m->fd);
    }
    pthread_mutex_unlock(&changing);
}

bool bus_cut(const void *data)
{
    pthread_mutex_lock(&changing);
    struct mapping *m = find((uintptr_t)data);
    bool cut = m && is_cut(m);
    pthread_mutex_unlock(&changing);
    return cut;
}

int bus_check(struct err *err)
{
    int rc = 0;
    pthread_mutex_lock(&changing);
    const char *line = *first_cut ? first_cut : NULL;
    for (int i = 0; !readers_ask && !line && i < MAX_MAPPINGS; i++)
        if (atomic_load(&mappings[i].begin) && is_cut(&mappings[i]))
            line = mappings[i].line;
    if (line)
        rc = err_set(err, "%.*s", (int)(strlen(line) - strlen(line_begin) - strlen(line_end)), line + strlen(line_begin));
    pthread_mutex_unlock(&changing);
    return rc;
}

/* Calls nothing but what is safe in a handler (mmap is a plain system call). */
static void on_bus(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    uintptr_t at = (uintptr_t)info->si_addr;
    struct mapping *m = find(at);
    if (m && !end_with) {
        atomic_store(&m->hit, true);
        void *page = (void *)(at / page_bytes * page_bytes);
        if (mmap(page, page_bytes, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
            return;
    }
    if (m && end_with) {
        while (atomic_exchange(&m->hit, true)) /* another thread is saying it */
            pause();
        end_with(m->line);
    }
    signal(signal_number, SIG_DFL); /* not a mapped file: the access is tried again and ends the program */
}

void bus_guard(void (*end)(const char *line))
{
    struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    end_with = end;
    readers_ask = !end;
    sigaction(SIGBUS, &action, NULL);
}
