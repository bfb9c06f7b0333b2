/* Mapped files that get shorter while they are read: touching what is gone raises SIGBUS, which would end the program without a word. */
#ifndef ESPALIER_BASE_BUS_H
#define ESPALIER_BASE_BUS_H

#include <stdbool.h>
#include <stddef.h>

/* Installs the handler. Without go_on the program ends with one line that names the file, and status 1. With go_on it reads zeros
 * instead, and bus_hit says so: what was computed from then on counts for nothing. */
void bus_guard(bool go_on);

/* A mapping begins and ends; file_map and file_unmap call these. */
void bus_watch(const void *data, size_t size, const char *path);
void bus_forget(const void *data);

/* Whether something was missing in the mapping that begins at `data`. */
bool bus_hit(const void *data);

#endif
