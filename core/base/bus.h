/* Mapped files that get shorter while they are read. Touching a page that is gone raises SIGBUS, which would end the program without a
 * word; what is missing of a file's last page is zeros, without even that. */
#ifndef ESPALIER_BASE_BUS_H
#define ESPALIER_BASE_BUS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"

/* Installs the handler. It calls `end` with a line, which names the file and ends in a line break; `end` may do only what is safe in a
 * handler, and must end the program. NULL: zeros are read instead, whoever reads a mapping asks bus_cut, and what is computed from then
 * on counts for nothing; bus_check is silent. */
void bus_guard(void (*end)(const char *line));

/* A mapping begins and ends; file_map and file_unmap call these. `fd` is the file's; it is closed when the mapping ends. */
void bus_watch(const void *data, size_t size, int fd, const char *path);
void bus_forget(const void *data);

/* Whether something is, or was, missing in the mapping that begins at `data`. A file that another one replaced is whole. */
bool bus_cut(const void *data);

/* Fails if a mapped file was cut, now or in a mapping that has ended: results pass here before they get a name or are printed. */
int bus_check(struct err *err);

#endif
