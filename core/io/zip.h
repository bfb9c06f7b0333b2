/* Reading zip archives whose entries are stored uncompressed, zip64 included: each entry is a checked view into the mapped file. */
#ifndef ESPALIER_IO_ZIP_H
#define ESPALIER_IO_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/file.h"
#include "core/base/mem.h"

struct zip_entry {
    const char *name; /* NUL-terminated, no control characters */
    const uint8_t *data;
    size_t size;
    uint32_t crc; /* CRC-32 of the data as the archive states it; not checked here */
};

struct zip {
    const char *file;
    struct zip_entry *entries; /* sorted by name, all different */
    size_t n;
};

/* Reads the central directory and checks it against every local header. Anything but plain stored entries that lie apart
 * from each other is refused. The names are kept in the arena; `file` must outlive z. */
int zip_read(struct zip *z, const struct file_map *map, const char *file, struct arena *arena, struct err *err);

/* The entry of that name, or NULL. */
const struct zip_entry *zip_find(const struct zip *z, const char *name);

#endif
