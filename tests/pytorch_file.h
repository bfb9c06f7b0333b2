/* PyTorch checkpoints by hand: a pickle put together opcode by opcode, in a zip archive put together header by header. */
#ifndef ESPALIER_TESTS_PYTORCH_FILE_H
#define ESPALIER_TESTS_PYTORCH_FILE_H

#include "tests/tiny_model.h"

#include <zlib.h>

#include "core/io/source.h"

/* ---- zip ---- */

/* What an archive looks like; zeros for what torch.save writes. */
struct zip_style {
    bool plain;  /* sizes in the local headers and no descriptors, as most programs write */
    bool zip64;  /* numbers in zip64 records, as for files over 4 GiB */
    bool no_crc; /* checksums not computed */
};

struct zw {
    struct zip_style style;
    struct buf b, central;
    int n;
};

/* The zip64 extra field of n numbers. */
static inline void zw_extra(struct buf *b, const uint64_t *v, int n)
{
    buf_uint(b, 1, 2);
    buf_uint(b, (uint64_t)(8 * n), 2);
    for (int i = 0; i < n; i++)
        buf_uint(b, v[i], 8);
}

static inline void zw_add(struct zw *z, const char *name, const void *data, size_t size)
{
    uint64_t at = z->b.n, flags = z->style.plain ? 0x800 : 0x808, len = strlen(name);
    uint64_t crc = z->style.no_crc ? 0 : crc32_z(0, data, size);
    bool big = z->style.zip64, later = !z->style.plain;
    buf_put(&z->b, "PK\3\4\0\0", 6);
    buf_uint(&z->b, flags, 2);
    buf_uint(&z->b, 0, 6); /* stored; time and date */
    buf_uint(&z->b, later ? 0 : crc, 4);
    buf_uint(&z->b, later ? 0 : big ? UINT32_MAX : size, 4);
    buf_uint(&z->b, later ? 0 : big ? UINT32_MAX : size, 4);
    buf_uint(&z->b, len, 2);
    buf_uint(&z->b, big && !later ? 20 : 6, 2);
    buf_put(&z->b, name, len);
    if (big && !later)
        zw_extra(&z->b, (uint64_t[]){size, size}, 2);
    else
        buf_put(&z->b, "FB\2\0ZZ", 6); /* torch.save pads so */
    buf_put(&z->b, data, size);
    if (later) {
        buf_put(&z->b, "PK\7\10", 4);
        buf_uint(&z->b, crc, 4);
        buf_uint(&z->b, size, big ? 8 : 4);
        buf_uint(&z->b, size, big ? 8 : 4);
    }
    buf_put(&z->central, "PK\1\2\0\0\0\0", 8);
    buf_uint(&z->central, flags, 2);
    buf_uint(&z->central, 0, 6);
    buf_uint(&z->central, crc, 4);
    buf_uint(&z->central, big ? UINT32_MAX : size, 4);
    buf_uint(&z->central, big ? UINT32_MAX : size, 4);
    buf_uint(&z->central, len, 2);
    buf_uint(&z->central, big ? 28 : 0, 2);
    buf_uint(&z->central, 0, 8); /* comment, disk, attributes */
    buf_uint(&z->central, 0, 2);
    buf_uint(&z->central, big ? UINT32_MAX : at, 4);
    buf_put(&z->central, name, len);
    if (big)
        zw_extra(&z->central, (uint64_t[]){size, size, at}, 3);
    z->n++;
}

/* Puts directory and end records behind the entries; the archive is z->b. */
static inline void zw_close(struct zw *z)
{
    uint64_t at = z->b.n, size = z->central.n, n = (uint64_t)z->n;
    bool big = z->style.zip64;
    buf_put(&z->b, z->central.p, z->central.n);
    buf_free(&z->central);
    if (big || !z->style.plain) {
        uint64_t end64 = z->b.n;
        buf_put(&z->b, "PK\6\6", 4);
        buf_uint(&z->b, 44, 8);
        buf_uint(&z->b, 0, 4);
        buf_uint(&z->b, 0, 8);
        buf_uint(&z->b, n, 8);
        buf_uint(&z->b, n, 8);
        buf_uint(&z->b, size, 8);
        buf_uint(&z->b, at, 8);
        buf_put(&z->b, "PK\6\7\0\0\0\0", 8);
        buf_uint(&z->b, end64, 8);
        buf_uint(&z->b, 1, 4);
    }
    buf_put(&z->b, "PK\5\6\0\0\0\0", 8);
    buf_uint(&z->b, big ? UINT16_MAX : n, 2);
    buf_uint(&z->b, big ? UINT16_MAX : n, 2);
    buf_uint(&z->b, big ? UINT32_MAX : size, 4);
    buf_uint(&z->b, big ? UINT32_MAX : at, 4);
    buf_uint(&z->b, 0, 2);
}

/* ---- pickle, protocol 2 ---- */

/* A literal of opcodes, NULs and all. */
#define PK(b, bytes) buf_put(b, bytes, sizeof bytes - 1)

static inline void pk_text(struct buf *b, const char *s)
{
    buf_put(b, "X", 1);
    buf_uint(b, strlen(s), 4);
    buf_put(b, s, strlen(s));
}

static inline void pk_int(struct buf *b, int64_t v)
{
    buf_put(b, "\x8a\x08", 2);
    buf_put(b, &v, 8);
}

static inline void pk_tuple(struct buf *b, const int64_t *v, int n)
{
    buf_put(b, "(", 1);
    for (int i = 0; i < n; i++)
        pk_int(b, v[i]);
    buf_put(b, "t", 1);
}

/* A tensor to come, as _rebuild_tensor_v2 gets it. */
struct pt_tensor {
    const char *type, *key;  /* "FloatStorage", the name of the entry with its bytes */
    int64_t storage, offset; /* elements */
    int n_dims;
    int64_t shape[6], stride[6];
};

static inline void pk_storage(struct buf *b, const struct pt_tensor *t)
{
    buf_put(b, "(", 1);
    pk_text(b, "storage");
    buf_text(b, "ctorch\n%s\n", t->type);
    pk_text(b, t->key);
    pk_text(b, "cpu");
    pk_int(b, t->storage);
    buf_put(b, "tQ", 2);
}

static inline void pk_tensor(struct buf *b, const struct pt_tensor *t)
{
    buf_text(b, "ctorch._utils\n_rebuild_tensor_v2\n(");
    pk_storage(b, t);
    pk_int(b, t->offset);
    pk_tuple(b, t->shape, t->n_dims);
    pk_tuple(b, t->stride, t->n_dims);
    buf_text(b, "\x89"
                "ccollections\nOrderedDict\n)RtR");
}

/* Begins and ends an OrderedDict with _metadata on it; between the two stand names and tensors. */
static inline void pk_begin(struct buf *b)
{
    buf_text(b, "\x80\x02"
                "ccollections\nOrderedDict\n)R(");
}

static inline void pk_end(struct buf *b)
{
    buf_text(b, "u}");
    pk_text(b, "_metadata");
    buf_text(b, "ccollections\nOrderedDict\n)R");
    pk_text(b, "model");
    buf_text(b, "}");
    pk_text(b, "version");
    buf_text(b, "K\1sssb.");
}

/* ---- a checkpoint ---- */

enum { PT_MAX = 128 };

struct pt {
    struct buf pkl, storages[PT_MAX]; /* the key of a storage is its number */
    int n;
};

static inline void pt_rows(struct pt_tensor *t, const int64_t *shape, int n_dims)
{
    int64_t stride = 1;
    t->n_dims = n_dims;
    for (int d = n_dims - 1; d >= 0; d--) {
        t->shape[d] = shape[d];
        t->stride[d] = stride;
        stride *= shape[d] > 1 ? shape[d] : 1;
    }
}

/* A tensor of n elements with a storage of its own. */
static inline void pt_add(struct pt *p, const char *name, const char *type, const int64_t *shape, int n_dims, const void *data,
                          size_t bytes, int64_t n)
{
    char key[16];
    struct pt_tensor t = {.type = type, .key = key, .storage = n};
    if (p->n == PT_MAX)
        abort();
    if (!p->n)
        pk_begin(&p->pkl);
    snprintf(key, sizeof key, "%d", p->n);
    pt_rows(&t, shape, n_dims);
    buf_put(&p->storages[p->n++], data, bytes);
    pk_text(&p->pkl, name);
    pk_tensor(&p->pkl, &t);
}

/* The archive of a pickle and p's storages; releases both. */
static inline void pt_close(struct zw *z, struct pt *p)
{
    char name[64];
    zw_add(z, "m/data.pkl", p->pkl.p, p->pkl.n);
    zw_add(z, "m/byteorder", "little", 6);
    for (int i = 0; i < p->n; i++) {
        snprintf(name, sizeof name, "m/data/%d", i);
        zw_add(z, name, p->storages[i].p, p->storages[i].n);
        buf_free(&p->storages[i]);
    }
    zw_close(z);
    buf_free(&p->pkl);
    p->n = 0;
}

static inline void pt_write(struct pt *p, const char *path)
{
    struct zw z = {0};
    pk_end(&p->pkl);
    pt_close(&z, p);
    write_bytes(path, z.b.p, z.b.n);
    buf_free(&z.b);
}

/* tiny_each's callback: float32 tensors into a struct pt. */
static inline void tiny_pt_add(void *arg, const char *hf, const char *gguf, const int64_t *shape, int n_dims, const float *v,
                               int64_t n)
{
    (void)gguf;
    pt_add(arg, hf, "FloatStorage", shape, n_dims, v, (size_t)n * sizeof *v, n);
}
/* ---- checkpoints of one tensor, for readers to refuse ---- */

static const float checkpoint_values[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static const char checkpoint_name[] = "pytorch_model.bin";

/* A checkpoint of one pickle and a storage of twelve floats under the key "0". */
static inline struct buf checkpoint(const struct buf *pkl, struct zip_style style)
{
    struct zw z = {.style = style};
    zw_add(&z, "m/data.pkl", pkl->p, pkl->n);
    zw_add(&z, "m/byteorder", "little", 6);
    zw_add(&z, "m/data/0", checkpoint_values, sizeof checkpoint_values);
    zw_close(&z);
    return z.b;
}

static inline int open_bytes(struct source *s, const void *data, size_t n, struct err *err)
{
    unlink(in_scratch(checkpoint_name)); /* some file systems wait for the disk where a file is written over */
    write_bytes(in_scratch(checkpoint_name), data, n);
    return source_open(s, in_scratch(checkpoint_name), err);
}

/* Opens a checkpoint with this pickle; the caller closes s when 0 comes back. */
static inline int open_pickle(struct source *s, const struct buf *pkl, struct err *err)
{
    struct buf b = checkpoint(pkl, (struct zip_style){0});
    int rc = open_bytes(s, b.p, b.n, err);
    buf_free(&b);
    return rc;
}

static inline void refused_pickle(const struct buf *pkl, const char *part)
{
    struct source s;
    struct err err = {0};
    int rc = open_pickle(&s, pkl, &err);
    if (rc == 0)
        fail_msg("accepted; an error about \"%s\" was expected", part);
    expect_error(rc, &err, checkpoint_name);
    expect_error(rc, &err, part);
}

/* The pickle that torch.save makes of {"a": a tensor [2, 6] of the storage}. */
static inline struct buf good_pickle(void)
{
    struct buf b = {0};
    struct pt_tensor t = {.type = "FloatStorage", .key = "0", .storage = 12};
    pt_rows(&t, (int64_t[]){2, 6}, 2);
    pk_begin(&b);
    pk_text(&b, "a");
    pk_tensor(&b, &t);
    pk_end(&b);
    return b;
}

static inline bool is_good(const struct source *s)
{
    const struct tensor *t = source_find(s, "a");
    return t && s->n_tensors == 1 && t->n_dims == 2 && t->shape[0] == 2 && t->shape[1] == 6 && t->dtype == DTYPE_F32 &&
           t->bytes == sizeof checkpoint_values && !memcmp(t->data, checkpoint_values, sizeof checkpoint_values);
}

#endif
