#include "core/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { ALIGNMENT = 64 }; /* a cache line and the widest vector register */

void *mem_alloc(size_t count, size_t size, struct err *err)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - ALIGNMENT) {
        err_set(err, "out of memory: %zu x %zu bytes asked for", count, size);
        return NULL;
    }
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    void *p = aligned_alloc(ALIGNMENT, bytes ? bytes : ALIGNMENT);
    if (!p) {
        err_set(err, "out of memory: %.1f MiB asked for", (double)bytes / (1 << 20));
        return NULL;
    }
    memset(p, 0, bytes ? bytes : ALIGNMENT);
    return p;
}

void *mem_reserve(size_t bytes, struct err *err)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED)
        return p;
    err_set(err, "out of memory: %.1f MiB asked for", (double)bytes / (1 << 20));
    return NULL;
}

void mem_unreserve(void *p, size_t bytes)
{
    if (p)
        munmap(p, bytes);
}

void *arena_alloc(struct arena *a, size_t count, size_t size, struct err *err)
{
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 16;
        void **items = realloc(a->items, cap * sizeof *items);
        if (!items) {
            err_set(err, "out of memory");
            return NULL;
        }
        a->items = items;
        a->cap = cap;
    }
    void *p = mem_alloc(count, size, err);
    if (p) {
        a->items[a->n++] = p;
        a->bytes += count * size;
    }
    return p;
}

char *arena_strdup(struct arena *a, const char *s, struct err *err)
{
    char *p = arena_alloc(a, strlen(s) + 1, 1, err);
    if (p)
        strcpy(p, s);
    return p;
}

void arena_free(struct arena *a)
{
    while (a->n > 0)
        free(a->items[--a->n]);
    free(a->items);
    *a = (struct arena){0};
}

size_t mem_available(void)
{
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f)
        return 0;
    char line[128];
    size_t kib = 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %zu kB", &kib) == 1)
            break;
    fclose(f);
    return kib * 1024;
}

void mem_peak_reset(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f)
        return;
    fputs("5", f); /* VmHWM begins again at what is there now (proc(5)) */
    fclose(f);
}

size_t mem_peak_rss(void)
{
    char line[128];
    size_t kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %zu kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    if (kib > 0)
        return kib * 1024;
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (size_t)u.ru_maxrss * 1024 : 0;
}
