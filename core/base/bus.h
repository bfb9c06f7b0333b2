/* Mapped files that get shorter while they are read: touching what is gone raises SIGBUS, which would end the program without a
 * word. */
#ifndef ESPALIER_BASE_BUS_H
#define ESPALIER_BASE_BUS_H

#include <stdbool.h>
#include <stddef.h>

/* Installs the handler. It calls `end` with a line, which names the file and ends in a line break; `end` may do only what is safe in a
 * handler, and must end the program. NULL: zeros are read instead, and bus_hit says so: what is computed from then on counts for
 * nothing. */
void bus_guard(void (*end)(const char *line));

/* A mapping begins and ends; file_map and file_unmap call these. */
void bus_watch(const void *data, size_t size, const char *path);
void bus_forget(const void *data);

/* Whether something was missing in the mapping that begins at `data`. */
bool bus_hit(const void *data);

#endif
