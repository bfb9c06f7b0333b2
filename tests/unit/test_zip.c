/* Zip archives that lie: the directory, the local headers and the records behind the data have to tell the same story. */
#include "tests/pytorch_file.h"

#include "core/io/zip.h"

static const struct zip_style styles[] = {{0}, {.plain = true}, {.zip64 = true}, {.plain = true, .zip64 = true}, {.no_crc = true}};
enum { N_STYLES = sizeof styles / sizeof *styles };

/* Three entries, the last of them empty. Offsets for the style {.plain = true}: local headers at 0, 45 and 92, each of 36 bytes
 * and its name; the directory at 131, each entry of 46 bytes and its name. */
enum { LOCAL_0 = 0, LOCAL_1 = 45, LOCAL_2 = 92, CENTRAL = 131, CENTRAL_1 = CENTRAL + 49, CENTRAL_2 = CENTRAL_1 + 49, END = 278 };

static struct buf archive(struct zip_style style)
{
    struct zw z = {.style = style};
    zw_add(&z, "a/b", "first!", 6);
    zw_add(&z, "a/c", "second!!", 8);
    zw_add(&z, "a/d", "", 0);
    zw_close(&z);
    return z.b;
}

/* Reads an archive from memory of just its size; 1 when it is the one of archive(), 0 for another. */
static int read_archive(struct zip *z, struct arena *arena, const struct buf *b, struct err *err)
{
    uint8_t *data = malloc(b->n + !b->n);
    assert_non_null(data);
    memcpy(data, b->p, b->n);
    struct file_map map = {data, b->n};
    int rc = zip_read(z, &map, "a.zip", arena, err);
    for (size_t i = 0; rc == 0 && i < z->n; i++)
        if (z->entries[i].data < map.data || z->entries[i].size > (size_t)(map.data + map.size - z->entries[i].data))
            fail_msg("entry %s lies outside the file", z->entries[i].name);
    const struct zip_entry *e = rc == 0 ? zip_find(z, "a/b") : NULL;
    if (e && e->size == 6 && !memcmp(e->data, "first!", 6) && (e = zip_find(z, "a/c")) && e->size == 8 &&
        !memcmp(e->data, "second!!", 8) && (e = zip_find(z, "a/d")) && e->size == 0 && z->n == 3)
        rc = 1;
    free(data);
    return rc;
}

static void refused(const struct buf *b, const char *part)
{
    struct zip z;
    struct arena arena = {0};
    struct err err = {0};
    int rc = read_archive(&z, &arena, b, &err);
    if (rc >= 0)
        fail_msg("accepted; an error about \"%s\" was expected", part);
    expect_error(rc, &err, "a.zip");
    expect_error(rc, &err, part);
    arena_free(&arena);
}

static void good_archives(void **state)
{
    (void)state;
    for (int i = 0; i < N_STYLES; i++) {
        struct zip z;
        struct arena arena = {0};
        struct err err = {0};
        struct buf b = archive(styles[i]);
        int rc = read_archive(&z, &arena, &b, &err);
        if (rc != 1)
            fail_msg("style %d: rc %d: %s", i, rc, err.msg);
        assert_null(zip_find(&z, "a"));
        arena_free(&arena);
        buf_free(&b);
    }
    struct zip z;
    struct arena arena = {0};
    struct zw none = {.style = {.plain = true}};
    zw_close(&none);
    struct err err = {0};
    assert_int_equal(read_archive(&z, &arena, &none.b, &err), 0);
    assert_int_equal(z.n, 0);
    assert_null(zip_find(&z, "a/b"));
    arena_free(&arena);
    buf_free(&none.b);
}

/* One number of the plain archive exchanged for another. */
static void numbers_that_lie(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        int bytes;
        uint64_t v;
        const char *part;
    } lies[] = {
        /* the end record */
        {END, 4, 0, "end-of-central-directory"},
        {END + 4, 2, 1, "split"},
        {END + 8, 2, 2, "split"},
        {END + 10, 2, 4, "split"},
        {END + 12, 4, 146, "a directory of 146 bytes"},
        {END + 12, 4, UINT32_MAX, "a directory of 4294967295 bytes"},
        {END + 16, 4, CENTRAL + 1, "a directory of 147 bytes at 132"},
        {END + 16, 4, UINT32_MAX, "a directory of 147 bytes at 4294967295"},
        {END + 20, 2, 1, "end-of-central-directory"},
        /* the directory */
        {CENTRAL, 4, 0, "breaks off"},
        {CENTRAL_2, 4, 0, "breaks off"},
        {CENTRAL_1 + 8, 2, 0x801, "a/c is encrypted"},
        {CENTRAL_1 + 8, 2, 0x840, "a/c has flags 0x0840"},
        {CENTRAL_1 + 8, 2, 0x808, "a/c: its local header and"},
        {CENTRAL_1 + 10, 2, 8, "a/c is compressed (method 8)"},
        {CENTRAL_1 + 16, 4, 1, "a/c: its local header and"},
        {CENTRAL_1 + 20, 4, 7, "a/c: 8 bytes stored as 7"},
        {CENTRAL_1 + 24, 4, 9, "a/c: 9 bytes stored as 8"},
        {CENTRAL_1 + 24, 4, UINT32_MAX, "a/c: damaged extra fields"},
        {CENTRAL_2 + 28, 2, 4, "goes past its central directory"},
        {CENTRAL_2 + 28, 2, 2, "a/: its local header and"},
        {CENTRAL_2 + 28, 2, UINT16_MAX, "goes past its central directory"},
        {CENTRAL_1 + 30, 2, UINT16_MAX, "goes past its central directory"},
        {CENTRAL_1 + 32, 2, UINT16_MAX, "goes past its central directory"},
        {CENTRAL_1 + 34, 2, 1, "a/c"},
        {CENTRAL_1 + 42, 4, LOCAL_0, "a/c: its local header and"},
        {CENTRAL_1 + 42, 4, LOCAL_1 + 1, "a/c: no local header at 46"},
        {CENTRAL_1 + 42, 4, CENTRAL, "a/c: no local header at 131"},
        {CENTRAL_1 + 42, 4, END, "a/c: no local header at 278"},
        {CENTRAL_1 + 42, 4, UINT32_MAX - 1, "a/c: no local header at 4294967294"},
        {CENTRAL_1 + 46, 1, '\n', "control character"},
        {CENTRAL_1 + 46, 1, 0, "control character"},
        /* the local headers */
        {LOCAL_1, 4, 0, "a/c: no local header"},
        {LOCAL_1 + 6, 2, 0, "a/c: its local header and"},
        {LOCAL_1 + 8, 2, 8, "a/c: its local header and"},
        {LOCAL_1 + 14, 4, 0, "a/c: its local header and"},
        {LOCAL_1 + 18, 4, 0, "a/c: its local header and"},
        {LOCAL_1 + 18, 4, UINT32_MAX, "a/c: damaged extra fields in its local header"},
        {LOCAL_1 + 22, 4, 9, "a/c: its local header and"},
        {LOCAL_1 + 26, 2, 2, "a/c: "},
        {LOCAL_1 + 26, 2, UINT16_MAX, "a/c: its local header goes past the entries"},
        {LOCAL_1 + 28, 2, 2, "4 bytes before entry a/d belong to none"},
        {LOCAL_2 + 28, 2, 2, "4 bytes before its directory belong to no entry"},
        {LOCAL_1 + 28, 2, 7, "entries a/c and a/d overlap"},
        {LOCAL_1 + 28, 2, UINT16_MAX, "a/c: its local header goes past the entries"},
        {LOCAL_1 + 30, 1, 'b', "a/c: its local header and"},
        {LOCAL_1 + 35, 2, 0xffff, "a/c: damaged extra fields in its local header"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct buf b = archive((struct zip_style){.plain = true});
        assert_int_equal(b.n, END + 22);
        memcpy(b.p + lies[i].at, &lies[i].v, (size_t)lies[i].bytes);
        refused(&b, lies[i].part);
        buf_free(&b);
    }
}

/* Each of them alone is well-formed. */
static void entries_that_share_bytes(void **state)
{
    (void)state;
    struct zw inner = {.style = {.plain = true}}, outer = {.style = {.plain = true}};
    zw_add(&inner, "a/c", "second!!", 8);
    zw_add(&outer, "a/b", inner.b.p, inner.b.n); /* the data of the first is the second, header and all */
    uint32_t at = 30 + 3 + 6;
    memcpy(inner.central.p + 42, &at, 4);
    buf_put(&outer.central, inner.central.p, inner.central.n);
    outer.n = 2;
    zw_close(&outer);
    refused(&outer.b, "entries a/b and a/c overlap");
    buf_free(&outer.b);
    buf_free(&inner.b);
    buf_free(&inner.central);

    struct zw twice = {.style = {.plain = true}}, again = twice;
    zw_add(&twice, "a/b", "first!", 6);
    zw_add(&again, "a/b", "first!", 6);
    buf_put(&twice.central, again.central.p, again.central.n); /* one entry, listed twice */
    buf_free(&again.central);
    buf_free(&again.b);
    twice.n = 2;
    zw_close(&twice);
    refused(&twice.b, "entries a/b and a/b overlap");
    buf_free(&twice.b);

    struct zw late = {.style = {.plain = true}};
    buf_put(&late.b, "MZ", 2); /* a program that unpacks itself */
    zw_add(&late, "a/b", "first!", 6);
    zw_close(&late);
    refused(&late.b, "2 bytes before entry a/b belong to none");
    buf_free(&late.b);

    struct zw same = {.style = {.plain = true}};
    zw_add(&same, "a/b", "first!", 6);
    zw_add(&same, "a/b", "other!", 6);
    zw_close(&same);
    refused(&same.b, "entry a/b is there twice");
    buf_free(&same.b);
}

/* Both headers of the last entry tell the same lie. */
static void sizes_past_the_entries(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, END + 22 - CENTRAL, INT32_MAX, UINT32_MAX - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char part[64];
        struct buf b = archive((struct zip_style){.plain = true});
        for (int k = 0; k < 2; k++) {
            memcpy(b.p + LOCAL_2 + 18 + 4 * k, &sizes[i], 4);
            memcpy(b.p + CENTRAL_2 + 20 + 4 * k, &sizes[i], 4);
        }
        snprintf(part, sizeof part, "a/d: %u bytes go past the entries", sizes[i]);
        refused(&b, part);
        buf_free(&b);
    }
}

/* The record behind the data, as torch.save writes it; the local header has zeros then. Here CENTRAL moves by 16 each. */
static void descriptors_that_lie(void **state)
{
    (void)state;
    for (size_t at = LOCAL_0 + 45 + 4; at < LOCAL_0 + 45 + 16; at++) {
        struct buf b = archive((struct zip_style){0});
        b.p[at] ^= 1;
        refused(&b, "a/b: the record behind its data and");
        buf_free(&b);
    }
    struct buf b = archive((struct zip_style){0});
    b.p[LOCAL_0 + 22] = 6; /* a size in the local header, but not the other one: neither zeros nor the truth */
    refused(&b, "a/b: its local header and");
    buf_free(&b);
}

static void zip64_records_that_lie(void **state)
{
    (void)state;
    static const struct {
        int from_end, bytes;
        uint64_t v;
        const char *part;
    } lies[] = {
        {22 + 20 + 56, 4, 0, "no zip64 end record"},
        {22 + 20 + 52, 8, 45, "zip64 end record of one part"},
        {22 + 20 + 40, 4, 1, "zip64 end record of one part"},
        {22 + 20 + 36, 4, 1, "zip64 end record of one part"},
        {22 + 20 + 32, 8, 2, "zip64 end record of one part"},
        {22 + 20 + 24, 8, 2, "zip64 end record of one part"},
        {22 + 20 + 16, 8, UINT64_MAX, "a directory of 18446744073709551615 bytes"},
        {22 + 20 + 8, 8, UINT64_MAX, "bytes at 18446744073709551615"},
        {22 + 20, 4, 0, "a directory of 4294967295 bytes"}, /* without a locator its numbers are taken as they are */
        {22 + 16, 4, 1, "zip64 end record of one part"},
        {22 + 12, 8, 0, "no zip64 end record"},
        {22 + 12, 8, UINT64_MAX, "no zip64 end record"},
        {22 + 4, 4, 2, "zip64 end record of one part"},
        {14, 4, 3, "split"},
        {10, 4, 7, "two end records differ"},
        {6, 4, 7, "two end records differ"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct buf b = archive((struct zip_style){.plain = true, .zip64 = true});
        memcpy(b.p + b.n - lies[i].from_end, &lies[i].v, (size_t)lies[i].bytes);
        refused(&b, lies[i].part);
        buf_free(&b);
    }
    /* More entries than the directory has room for; then one entry fewer than it has. */
    for (uint64_t n = 2; n <= (uint64_t)1 << 60; n = n == 2 ? (uint64_t)1 << 60 : n + 1) {
        struct buf b = archive((struct zip_style){.plain = true, .zip64 = true});
        memcpy(b.p + b.n - 22 - 20 - 32, &n, 8);
        memcpy(b.p + b.n - 22 - 20 - 24, &n, 8);
        memset(b.p + b.n - 22 + 8, 0xff, 4);
        refused(&b, n == 2 ? "bytes more in the directory than its 2 entries take" : "1152921504606846976 entries do not fit");
        buf_free(&b);
    }
}

static void truncated_at_every_length(void **state)
{
    (void)state;
    for (int i = 0; i < N_STYLES; i++) {
        struct buf b = archive(styles[i]);
        for (b.n--; b.n > 0; b.n--)
            refused(&b, "truncated, or no zip archive");
        buf_free(&b);
    }
}

/* Any one bit turned: an error, or what matters is untouched. */
static void flipped_bits(void **state)
{
    (void)state;
    int accepted = 0;
    for (int i = 0; i < N_STYLES; i++) {
        struct buf b = archive(styles[i]);
        size_t first = (size_t)((char *)memmem(b.p, b.n, "first!", 6) - b.p);
        size_t second = (size_t)((char *)memmem(b.p, b.n, "second!!", 8) - b.p);
        for (size_t bit = 0; bit < 8 * b.n; bit++) {
            struct zip z;
            struct arena arena = {0};
            struct err err = {0};
            b.p[bit / 8] ^= (char)(1 << bit % 8);
            int rc = read_archive(&z, &arena, &b, &err);
            if (rc < 0)
                expect_error(rc, &err, "a.zip");
            else if (rc == 0 && bit / 8 - first >= 6 && bit / 8 - second >= 8)
                fail_msg("style %d, bit %zu: another archive", i, bit);
            accepted += rc >= 0;
            b.p[bit / 8] ^= (char)(1 << bit % 8);
            arena_free(&arena);
        }
        buf_free(&b);
    }
    assert_true(accepted > 0); /* times, dates, padding, the data itself */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_archives),
        cmocka_unit_test(numbers_that_lie),
        cmocka_unit_test(entries_that_share_bytes),
        cmocka_unit_test(sizes_past_the_entries),
        cmocka_unit_test(descriptors_that_lie),
        cmocka_unit_test(zip64_records_that_lie),
        cmocka_unit_test(truncated_at_every_length),
        cmocka_unit_test(flipped_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
