/* zip: entries (local header, data, perhaps a descriptor), central directory, end record. Source: PKWARE's APPNOTE.TXT 6.3.
 * Two descriptions of each entry, and three places that say where the directory is, are room to lie: here they have to agree. */
#include "core/io/zip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIG_LOCAL = 0x04034b50,
    SIG_CENTRAL = 0x02014b50,
    SIG_END = 0x06054b50,
    SIG_END64 = 0x06064b50,
    SIG_LOCATOR = 0x07064b50,
    SIG_DESCRIPTOR = 0x08074b50,
    LOCAL_BYTES = 30,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    FLAG_ENCRYPTED = 1 << 0,
    FLAG_DESCRIPTOR = 1 << 3, /* crc and sizes follow the data, the local header has zeros */
    FLAG_UTF8 = 1 << 11,
    EXTRA_ZIP64 = 1,
};

static uint64_t le(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    memcpy(&v, p, (size_t)bytes); /* little-endian, like every machine this runs on */
    return v;
}

/* Where the central directory lies and how many entries it has. */
struct directory {
    uint64_t n, at, size;
};

/* A number of the end record, which is all ones where only the zip64 record can hold it. */
static bool agree(uint64_t small, uint64_t large, int bytes)
{
    return small == large || small == (bytes == 2 ? 0xffffu : 0xffffffffu);
}

/* The zip64 end record, when there is a locator before the end record. `end` moves to where the directory must end. */
static int read_end64(struct directory *d, uint64_t *end, const struct file_map *map, const char *file, struct err *err)
{
    const uint8_t *locator = map->data + *end - LOCATOR_BYTES; /* the caller saw its signature */
    uint64_t at = le(locator + 8, 8);
    if (*end < LOCATOR_BYTES + END64_BYTES || at != *end - LOCATOR_BYTES - END64_BYTES || le(map->data + at, 4) != SIG_END64)
        return err_set(err, "%s: damaged zip archive: no zip64 end record where its locator says", file);
    const uint8_t *r = map->data + at;
    struct directory big = {.n = le(r + 32, 8), .at = le(r + 48, 8), .size = le(r + 40, 8)};
    if (le(r + 4, 8) != END64_BYTES - 12 || le(locator + 4, 4) != 0 || le(locator + 16, 4) > 1 || le(r + 16, 4) || le(r + 20, 4) ||
        le(r + 24, 8) != big.n)
        return err_set(err, "%s: damaged zip archive: a zip64 end record of one part and %d bytes was expected", file, END64_BYTES);
    if (!agree(d->n, big.n, 2) || !agree(d->at, big.at, 4) || !agree(d->size, big.size, 4))
        return err_set(err, "%s: damaged zip archive: its two end records differ", file);
    *d = big;
    *end = at;
    return 0;
}

static int read_end(struct directory *d, const struct file_map *map, const char *file, struct err *err)
{
    if (map->size < END_BYTES || le(map->data + map->size - END_BYTES, 4) != SIG_END || le(map->data + map->size - 2, 2) != 0)
        return err_set(err, "%s: truncated, or no zip archive: its %zu bytes do not close with an end-of-central-directory record",
                       file, map->size);
    uint64_t end = map->size - END_BYTES;
    const uint8_t *r = map->data + end;
    *d = (struct directory){.n = le(r + 10, 2), .at = le(r + 16, 4), .size = le(r + 12, 4)};
    if (le(r + 4, 2) || le(r + 6, 2) || le(r + 8, 2) != d->n)
        return err_set(err, "%s: one part of a zip archive split into several", file);
    if (end >= LOCATOR_BYTES && le(map->data + end - LOCATOR_BYTES, 4) == SIG_LOCATOR && read_end64(d, &end, map, file, err) != 0)
        return -1;
    if (d->at > end || d->size != end - d->at)
        return err_set(err, "%s: damaged zip archive: a directory of %llu bytes at %llu was stated, it has to end at %llu", file,
                       (unsigned long long)d->size, (unsigned long long)d->at, (unsigned long long)end);
    if (d->n > d->size / CENTRAL_BYTES)
        return err_set(err, "%s: damaged zip archive: %llu entries do not fit into a directory of %llu bytes", file,
                       (unsigned long long)d->n, (unsigned long long)d->size);
    return 0;
}

/* One entry on its way in: what the central directory says of it, then where its bytes are. */
struct found {
    struct zip_entry e;
    size_t name_len;
    uint32_t flags;
    uint64_t packed, size, header; /* header: offset of the local one */
    uint64_t end;                  /* offset past its data and descriptor */
};

/* The zip64 field among the extra ones: the numbers that are all ones in the header proper, in this order. */
static int read_zip64_extra(uint64_t *const numbers[], int n, const uint8_t *extra, size_t len)
{
    const uint8_t *field = NULL;
    size_t field_len = 0;
    while (len >= 4) {
        size_t k = le(extra + 2, 2);
        if (k > len - 4)
            return -1;
        if (le(extra, 2) == EXTRA_ZIP64) {
            if (field)
                return -1;
            field = extra + 4;
            field_len = k;
        }
        extra += 4 + k;
        len -= 4 + k;
    }
    for (int i = 0; i < n; i++) {
        if (*numbers[i] != 0xffffffffu)
            continue;
        if (field_len < 8)
            return -1;
        *numbers[i] = le(field, 8);
        field += 8;
        field_len -= 8;
    }
    return 0;
}

/* The name is copied to *names, which moves on. */
static int read_central(struct found *f, const uint8_t **p, uint64_t *left, char **names, const char *file, struct err *err)
{
    const uint8_t *h = *p;
    if (*left < CENTRAL_BYTES || le(h, 4) != SIG_CENTRAL)
        return err_set(err, "%s: damaged zip archive: its central directory breaks off", file);
    size_t name_len = le(h + 28, 2), extra_len = le(h + 30, 2), all = CENTRAL_BYTES + name_len + extra_len + le(h + 32, 2);
    if (all > *left)
        return err_set(err, "%s: damaged zip archive: an entry goes past its central directory", file);
    for (size_t i = 0; i < name_len; i++)
        if (h[CENTRAL_BYTES + i] < 0x20 || h[CENTRAL_BYTES + i] == 0x7f)
            return err_set(err, "%s: damaged zip archive: an entry has a control character in its name", file);
    memcpy(*names, h + CENTRAL_BYTES, name_len);
    (*names)[name_len] = 0;
    *f = (struct found){{.name = *names, .crc = (uint32_t)le(h + 16, 4)},
                        name_len,
                        (uint32_t)le(h + 8, 2),
                        le(h + 20, 4),
                        le(h + 24, 4),
                        le(h + 42, 4),
                        0};
    *names += name_len + 1;
    *p += all;
    *left -= all;
    uint64_t *const numbers[] = {&f->size, &f->packed, &f->header};
    if (read_zip64_extra(numbers, 3, h + CENTRAL_BYTES + name_len, extra_len) != 0)
        return err_set(err, "%s: entry %s: damaged extra fields", file, f->e.name);
    if (f->flags & FLAG_ENCRYPTED)
        return err_set(err, "%s: entry %s is encrypted", file, f->e.name);
    if (le(h + 10, 2) != 0)
        return err_set(err, "%s: entry %s is compressed (method %d); stored entries are supported, as torch.save writes them", file,
                       f->e.name, (int)le(h + 10, 2));
    if (f->flags & ~(uint32_t)(FLAG_DESCRIPTOR | FLAG_UTF8))
        return err_set(err, "%s: entry %s has flags 0x%04x that are not supported", file, f->e.name, f->flags);
    if (f->packed != f->size || le(h + 34, 2) != 0)
        return err_set(err, "%s: entry %s: %llu bytes stored as %llu were stated", file, f->e.name, (unsigned long long)f->size,
                       (unsigned long long)f->packed);
    return 0;
}

/* crc and both sizes behind the data, with or without a signature, the sizes of 4 or 8 bytes. Returns its length, 0: none fits. */
static size_t descriptor_bytes(const struct found *f, const uint8_t *p, uint64_t left)
{
    for (int signature = 4; signature >= 0; signature -= 4)
        for (int width = 8; width >= 4; width -= 4) { /* the wide form first: of an empty entry the narrow one is its beginning */
            size_t n = (size_t)(signature + 4 + 2 * width);
            const uint8_t *q = p + signature;
            if (n <= left && (!signature || le(p, 4) == SIG_DESCRIPTOR) && le(q, 4) == f->e.crc && le(q + 4, width) == f->size &&
                le(q + 4 + width, width) == f->size)
                return n;
        }
    return 0;
}

/* Finds the data behind the local header and compares the two headers. `end`: where the central directory begins. */
static int read_local(struct found *f, const struct file_map *map, uint64_t end, const char *file, struct err *err)
{
    const uint8_t *h = f->header <= end ? map->data + f->header : NULL;
    if (!h || end - f->header < LOCAL_BYTES || le(h, 4) != SIG_LOCAL)
        return err_set(err, "%s: entry %s: no local header at %llu, where the directory says", file, f->e.name,
                       (unsigned long long)f->header);
    uint64_t left = end - f->header - LOCAL_BYTES, packed = le(h + 18, 4), size = le(h + 22, 4), crc = le(h + 14, 4);
    size_t name_len = le(h + 26, 2), extra_len = le(h + 28, 2);
    if (name_len + extra_len > left)
        return err_set(err, "%s: entry %s: its local header goes past the entries", file, f->e.name);
    left -= name_len + extra_len;
    uint64_t *const numbers[] = {&size, &packed};
    if (read_zip64_extra(numbers, 2, h + LOCAL_BYTES + name_len, extra_len) != 0)
        return err_set(err, "%s: entry %s: damaged extra fields in its local header", file, f->e.name);
    bool later = f->flags & FLAG_DESCRIPTOR && size == 0 && packed == 0 && crc == 0;
    if (name_len != f->name_len || memcmp(h + LOCAL_BYTES, f->e.name, name_len) || le(h + 6, 2) != f->flags || le(h + 8, 2) != 0 ||
        (!later && (size != f->size || packed != f->packed || crc != f->e.crc)))
        return err_set(err, "%s: entry %s: its local header and the central directory differ", file, f->e.name);
    if (f->size > left)
        return err_set(err, "%s: entry %s: %llu bytes go past the entries", file, f->e.name, (unsigned long long)f->size);
    f->e.data = h + LOCAL_BYTES + name_len + extra_len;
    f->e.size = f->size;
    f->end = end - left + f->size;
    if (f->flags & FLAG_DESCRIPTOR) {
        size_t n = descriptor_bytes(f, map->data + f->end, end - f->end);
        if (!n)
            return err_set(err, "%s: entry %s: the record behind its data and the central directory differ", file, f->e.name);
        f->end += n;
    }
    return 0;
}

static int by_place(const void *a, const void *b)
{
    uint64_t x = ((const struct found *)a)->header, y = ((const struct found *)b)->header;
    return x < y ? -1 : x > y;
}

/* Sorts the entries by place. They follow each other without a gap: a local header that lies about its own length would else
 * move the data unseen. */
static int check_places(struct found *f, const struct directory *d, const char *file, struct err *err)
{
    uint64_t at = 0;
    qsort(f, d->n, sizeof *f, by_place);
    for (uint64_t i = 0; i < d->n; at = f[i++].end) {
        if (f[i].header < at)
            return err_set(err, "%s: entries %s and %s overlap", file, f[i - 1].e.name, f[i].e.name);
        if (f[i].header > at)
            return err_set(err, "%s: damaged zip archive: %llu bytes before entry %s belong to none", file,
                           (unsigned long long)(f[i].header - at), f[i].e.name);
    }
    if (at != d->at)
        return err_set(err, "%s: damaged zip archive: %llu bytes before its directory belong to no entry", file,
                       (unsigned long long)(d->at - at));
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zip_entry *)a)->name, ((const struct zip_entry *)b)->name);
}

const struct zip_entry *zip_find(const struct zip *z, const char *name)
{
    struct zip_entry key = {.name = name};
    return z->n ? bsearch(&key, z->entries, z->n, sizeof key, by_name) : NULL;
}

int zip_read(struct zip *z, const struct file_map *map, const char *file, struct arena *arena, struct err *err)
{
    struct directory d = {0};
    struct found *found = NULL;
    int rc = -1;
    *z = (struct zip){.file = file};
    if (read_end(&d, map, file, err) != 0)
        return -1;
    /* Each entry's header in the directory is longer than the NUL behind its name. */
    char *names = arena_alloc(arena, d.size + 1, 1, err);
    z->entries = arena_alloc(arena, d.n, sizeof *z->entries, err);
    found = mem_alloc(d.n, sizeof *found, err);
    if (!names || !z->entries || !found)
        goto done;
    const uint8_t *p = map->data + d.at;
    uint64_t left = d.size;
    for (uint64_t i = 0; i < d.n; i++)
        if (read_central(&found[i], &p, &left, &names, file, err) != 0 || read_local(&found[i], map, d.at, file, err) != 0)
            goto done;
    if (left) {
        err_set(err, "%s: damaged zip archive: %llu bytes more in the directory than its %llu entries take", file,
                (unsigned long long)left, (unsigned long long)d.n);
        goto done;
    }
    if (check_places(found, &d, file, err) != 0)
        goto done;
    for (; z->n < d.n; z->n++)
        z->entries[z->n] = found[z->n].e;
    qsort(z->entries, z->n, sizeof *z->entries, by_name);
    for (size_t i = 1; i < z->n; i++)
        if (by_name(&z->entries[i - 1], &z->entries[i]) == 0) {
            err_set(err, "%s: entry %s is there twice", file, z->entries[i].name);
            goto done;
        }
    rc = 0;
done:
    free(found);
    return rc;
}
