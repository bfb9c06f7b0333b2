/* Memory. Buffers are taken when a workspace is bound and released together; nothing allocates inside a token loop. */
#ifndef ESPALIER_BASE_MEM_H
#define ESPALIER_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

/* count * size zeroed bytes, 64-byte aligned (free with free()); NULL and an error when they overflow or are not there. */
void *mem_alloc(size_t count, size_t size, struct err *err);

/* Zeroed bytes of which the system gives a page when it is first written; for buffers of which little may be used. NULL and an
 * error when there is no such address range. Release with mem_unreserve, which accepts NULL. */
void *mem_reserve(size_t bytes, struct err *err);
void mem_unreserve(void *p, size_t bytes);

/* A list of allocations released by one call. Zero-initialise before use. */
struct arena {
    void **items;
    size_t n, cap;
    size_t bytes; /* sum of what was handed out */
};

/* As mem_alloc, owned by the arena. */
void *arena_alloc(struct arena *a, size_t count, size_t size, struct err *err);

/* A copy of a string, owned by the arena. */
char *arena_strdup(struct arena *a, const char *s, struct err *err);

void arena_free(struct arena *a);

/* Bytes the system can still give without swapping (MemAvailable); 0 if it does not say. */
size_t mem_available(void);

/* The largest resident set of this process so far, in bytes. */
size_t mem_peak_rss(void);

/* Lets the peak begin again, so that each of several pieces of work in one process has its own. Where the system cannot, the peak stays
 * that of the process. */
void mem_peak_reset(void);

#endif
