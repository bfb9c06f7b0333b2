#include "core/io/h5_model.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/io/h5_impl.h"
#include "core/io/source.h"

enum {
    ALIGNMENT = 64,      /* of a tensor's bytes in the file */
    MAX_LINKS = 1 << 17, /* tensors we believe; 4096 blocks have 65,536 with their scales */
    MAX_FILES = 64,
    MAX_FILE = 256 << 20, /* bytes of a tokenizer's file */
    NAME_LENGTH = 256,
    MAX_FIXED = 60000, /* bytes of a string attribute of fixed length */
};
static const char FORMAT[] = "espalier model";

/* How a dtype is stored; the caller releases the type. */
static hid_t stored_type(enum dtype t)
{
    hid_t h = H5Tcopy(t == DTYPE_F32 || t == DTYPE_F16 ? H5T_IEEE_F32LE : t == DTYPE_BF16 ? H5T_STD_U16LE : H5T_STD_U8LE);
    if (h < 0 || t != DTYPE_F16)
        return h;
    /* IEEE 754 binary16: a sign, 5 bits of exponent, 10 of mantissa */
    if (H5Tset_fields(h, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(h, 2) >= 0 && H5Tset_ebias(h, 15) >= 0)
        return h;
    h5_release(h);
    return H5I_INVALID_HID;
}

/* ---- writing ---- */

static int fail(struct h5_model_writer *w, const char *object, const char *what, struct err *err)
{
    return h5_fail(err, w->h5.out.path, object, what);
}

int h5_model_writer_open(struct h5_model_writer *w, const char *path, const char *config, struct err *err)
{
    *w = (struct h5_model_writer){0};
    if (h5_writer_open_on_disk(&w->h5, path, ALIGNMENT, err) == 0 && h5_attr_fixed(&w->h5, "/", "format", FORMAT, err) == 0 &&
        (strlen(config) < MAX_FIXED ? h5_attr_fixed : h5_attr_string)(&w->h5, "/", "config", config, err) == 0)
        return 0;
    h5_model_abort(w);
    return -1;
}

/* A contiguous dataset whose place in the file is made at once, and not filled; group/name. The handle, or negative and an
 * error. */
static hid_t make_place(struct h5_model_writer *w, const char *group, const char *name, hid_t type, const int64_t *dims, int n_dims,
                        struct err *err)
{
    hsize_t d[H5_MAX_DIMS];
    char path[NAME_LENGTH + 16];
    for (int i = 0; i < n_dims; i++)
        d[i] = (hsize_t)dims[i];
    snprintf(path, sizeof path, "%s/%s", group, name);
    hid_t set = H5I_INVALID_HID, links = H5Pcreate(H5P_LINK_CREATE), store = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(n_dims, d, NULL);
    if (links < 0 || store < 0 || space < 0 || type < 0 || H5Pset_create_intermediate_group(links, 1) < 0 ||
        H5Pset_char_encoding(links, H5T_CSET_UTF8) < 0 || H5Pset_obj_track_times(store, false) < 0 ||
        H5Pset_layout(store, H5D_CONTIGUOUS) < 0 || H5Pset_alloc_time(store, H5D_ALLOC_TIME_EARLY) < 0 ||
        H5Pset_fill_time(store, H5D_FILL_TIME_NEVER) < 0 ||
        (set = H5Dcreate2(w->h5.file, path, type, space, links, store, H5P_DEFAULT)) < 0)
        fail(w, path, "cannot make the dataset", err);
    h5_release(space);
    h5_release(store);
    h5_release(links);
    return set;
}

int h5_model_put_file(struct h5_model_writer *w, const char *name, const void *data, size_t n, struct err *err)
{
    if (n == 0) /* such a dataset has no place */
        return 0;
    struct quiet q = h5_quiet_begin();
    hid_t set = make_place(w, "files", name, H5T_STD_U8LE, &(int64_t){(int64_t)n}, 1, err);
    int rc = set < 0 ? -1 : 0;
    if (rc == 0 && H5Dwrite(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        rc = fail(w, name, "cannot write the dataset", err);
    h5_release(set);
    return h5_quiet_end(q, rc);
}

static int make_tensor(struct h5_model_writer *w, int64_t i, struct err *err)
{
    const struct tensor_entry *e = &w->entries[i];
    char path[NAME_LENGTH + 16];
    hid_t type = stored_type(e->dtype), set = make_place(w, "tensors", e->name, type, e->shape, e->n_dims, err);
    int rc = -1;
    if (set >= 0) {
        haddr_t at = H5Dget_offset(set);
        w->offsets[i] = at;
        rc = at == HADDR_UNDEF ? fail(w, e->name, "has no place in the file", err) : 0;
    }
    snprintf(path, sizeof path, "tensors/%s", e->name);
    if (rc == 0)
        rc = h5_attr_fixed(&w->h5, path, "dtype", dtype_table[e->dtype].name, err);
    h5_release(set);
    h5_release(type);
    return rc;
}

int h5_model_tensors(struct h5_model_writer *w, const struct tensor_entry *entries, int64_t n, struct err *err)
{
    w->entries = entries;
    w->n = n;
    w->offsets = mem_alloc((size_t)n, sizeof *w->offsets, err);
    if (!w->offsets)
        return -1;
    struct quiet q = h5_quiet_begin();
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < n; i++)
        rc = make_tensor(w, i, err);
    if (rc == 0)
        rc = h5_writer_close_on_disk(&w->h5, err);
    return h5_quiet_end(q, rc);
}

int h5_model_put(struct h5_model_writer *w, const void *data, size_t bytes, struct err *err)
{
    struct file_writer *out = &w->h5.out;
    if (w->in_tensor == 0 && fseeko(out->f, (off_t)w->offsets[w->at], SEEK_SET) != 0)
        return err_errno(err, "%s: cannot write", out->path);
    w->in_tensor += bytes;
    if (w->in_tensor == entry_bytes(&w->entries[w->at])) {
        w->at++;
        w->in_tensor = 0;
    }
    return file_writer_put(out, data, bytes, err);
}

int h5_model_flush(struct h5_model_writer *w, struct err *err)
{
    return file_writer_flush(&w->h5.out, err);
}

int h5_model_commit(struct h5_model_writer *w, struct err *err)
{
    int rc = file_writer_commit(&w->h5.out, err);
    h5_model_abort(w);
    return rc;
}

void h5_model_abort(struct h5_model_writer *w)
{
    h5_writer_abort(&w->h5);
    free(w->offsets);
    *w = (struct h5_model_writer){0};
}

/* ---- reading ---- */

/* One reading, in the child that rehearses it and then for good. What it finds is in the source's arena. */
struct reading {
    struct source *s;
    const struct file_map *map;
    const char *file;
    int64_t *cap;
    size_t in_memory;  /* bytes of what could not be mapped */
    bool offsets_hold; /* the file begins where HDF5 counts from */
};

/* What a dataset holds, or -1 and an error. */
static int find_dtype(hid_t set, const char *file, const char *name, struct err *err)
{
    int found = -1;
    char *text = NULL;
    hid_t type = H5Dget_type(set), attr = H5Aexists(set, "dtype") > 0 ? H5Aopen(set, "dtype", H5P_DEFAULT) : H5I_INVALID_HID;
    hid_t attr_type = attr >= 0 ? H5Aget_type(attr) : H5I_INVALID_HID;
    hid_t space = attr >= 0 ? H5Aget_space(attr) : H5I_INVALID_HID;
    if (attr_type >= 0 && H5Tget_class(attr_type) == H5T_STRING && space >= 0 && H5Sget_simple_extent_npoints(space) == 1)
        text = h5_read_string(attr, attr_type, file, name, err);
    for (int t = DTYPE_F32; t <= DTYPE_F8_E4M3 && found < 0; t++) {
        hid_t want = stored_type((enum dtype)t);
        /* floats say what they are by themselves */
        bool named = text ? !strcmp(text, dtype_table[t].name) : t <= DTYPE_F16;
        if (named && want >= 0 && H5Tequal(type, want) > 0)
            found = t;
        h5_release(want);
    }
    free(text);
    h5_release(space);
    h5_release(attr_type);
    h5_release(attr);
    h5_release(type);
    if (found < 0)
        err_set(err,
                "%s: tensor %s: stored as f32, f16, bf16 (16-bit unsigned) or f8_e4m3 (8-bit unsigned), and named so by the "
                "attribute dtype, was expected",
                file, name);
    return found;
}

static int find_shape(struct tensor *t, hid_t set, struct err *err)
{
    hsize_t d[H5S_MAX_RANK];
    int64_t n = 1;
    hid_t space = H5Dget_space(set);
    int rank = space >= 0 && H5Sget_simple_extent_type(space) == H5S_SIMPLE ? H5Sget_simple_extent_ndims(space) : -1;
    bool fits = rank >= 1 && rank <= TENSOR_MAX_DIMS && H5Sget_simple_extent_dims(space, d, NULL) == rank;
    for (int i = 0; fits && i < rank; i++) {
        t->shape[i] = (int64_t)d[i];
        fits = d[i] <= INT64_MAX && !__builtin_mul_overflow(n, t->shape[i], &n) && n <= INT64_MAX / 8;
    }
    h5_release(space);
    t->n_dims = rank;
    return fits ? 0
                : err_set(err, "%s: tensor %s: 1 to %d dims of a possible size were expected", t->file, t->name, TENSOR_MAX_DIMS);
}

/* Counts bytes that are read into memory: not more than the file can hold in the tightest packing, nor than there is memory. */
static int count_memory(struct reading *r, size_t bytes, const char *name, struct err *err)
{
    size_t available = mem_available();
    r->in_memory += bytes;
    if (r->in_memory > inflated_limit(r->map->size))
        return err_set(err, "%s: \"%s\": no file of %zu bytes holds so much", r->file, name, r->map->size);
    if (available && r->in_memory > available / 2)
        return err_set(err,
                       "%s: \"%s\": is stored in pieces, and there is no memory to put them together; contiguous datasets are "
                       "read from the file itself",
                       r->file, name);
    return 0;
}

/* Reads what cannot be mapped. */
static int load(struct reading *r, struct tensor *t, hid_t set, struct err *err)
{
    if (H5Dget_storage_size(set) == 0)
        return err_set(err, "%s: tensor %s has no data", t->file, t->name);
    if (count_memory(r, t->bytes, t->name, err) != 0)
        return -1;
    void *data = arena_alloc(&r->s->arena, t->bytes, 1, err);
    if (!data)
        return -1;
    hid_t type = H5Dget_type(set);
    int rc =
        H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0 ? h5_fail(err, t->file, t->name, "cannot read the dataset") : 0;
    h5_release(type);
    t->data = data;
    return rc;
}

/* Finds the bytes of a dataset in the mapped file, or reads them. */
static int find_data(struct reading *r, struct tensor *t, hid_t set, struct err *err)
{
    hid_t store = H5Dget_create_plist(set);
    if (store < 0)
        return h5_fail(err, t->file, t->name, "cannot read how it is stored");
    H5D_layout_t layout = H5Pget_layout(store);
    bool plain = layout == H5D_CONTIGUOUS && H5Pget_external_count(store) == 0;
    bool foreign = layout == H5D_VIRTUAL || (layout == H5D_CONTIGUOUS && !plain);
    h5_release(store);
    if (foreign)
        return err_set(err, "%s: tensor %s: keeps its data in other files, which is not followed", t->file, t->name);
    t->bytes = dtype_bytes(t->dtype, tensor_elements(t));
    if (t->bytes == 0) {
        t->data = r->map->data;
        return 0;
    }
    haddr_t at = plain && r->offsets_hold ? H5Dget_offset(set) : HADDR_UNDEF;
    if (at == HADDR_UNDEF || (t->dtype == DTYPE_F32 && at % sizeof(float)))
        return load(r, t, set, err);
    if (at > r->map->size || t->bytes > r->map->size - at)
        return err_set(err, "%s: tensor %s: %zu bytes at offset %llu go past the end of the file (truncated?)", t->file, t->name,
                       t->bytes, (unsigned long long)at);
    t->data = r->map->data + at;
    return 0;
}

static int read_tensor(struct reading *r, hid_t set, const char *name, struct err *err)
{
    struct tensor t = {.file = r->file, .name = arena_strdup(&r->s->arena, name, err)};
    int dtype = t.name ? find_dtype(set, r->file, name, err) : -1;
    if (dtype < 0)
        return -1;
    t.dtype = (enum dtype)dtype;
    return find_shape(&t, set, err) != 0 || find_data(r, &t, set, err) != 0 ? -1 : source_add(r->s, &t, r->cap, err);
}

static int read_file(struct reading *r, hid_t set, const char *name, struct err *err)
{
    hid_t space = H5Dget_space(set), type = H5Dget_type(set);
    hssize_t n = space >= 0 ? H5Sget_simple_extent_npoints(space) : -1;
    int rc = -1;
    struct inner_file *f = &r->s->files[r->s->n_files];
    if (n < 0 || n > MAX_FILE || H5Tequal(type, H5T_STD_U8LE) <= 0) {
        err_set(err, "%s: \"files/%s\": at most %d bytes were expected", r->file, name, MAX_FILE);
        goto done;
    }
    if (count_memory(r, (size_t)n, name, err) != 0)
        goto done;
    char *data = arena_alloc(&r->s->arena, (size_t)n + 1, 1, err);
    *f = (struct inner_file){arena_strdup(&r->s->arena, name, err), data, (size_t)n};
    if (!data || !f->name)
        goto done;
    if (n > 0 && H5Dread(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
        h5_fail(err, r->file, name, "cannot read the dataset");
        goto done;
    }
    r->s->n_files++;
    rc = 0;
done:
    h5_release(type);
    h5_release(space);
    return rc;
}

/* Calls `read` for each dataset of a group. */
static int each_dataset(struct reading *r, hid_t file, const char *group_name, hsize_t most,
                        int (*read)(struct reading *r, hid_t set, const char *name, struct err *err), struct err *err)
{
    H5G_info_t info;
    int rc = -1;
    char name[NAME_LENGTH];
    hid_t access = h5_access_within_file(H5P_DATASET_ACCESS), set = H5I_INVALID_HID;
    hid_t group = access >= 0 ? H5Gopen2(file, group_name, H5P_DEFAULT) : H5I_INVALID_HID;
    if (group < 0 || H5Gget_info(group, &info) < 0) {
        h5_fail(err, r->file, group_name, "a group was expected");
        goto done;
    }
    if (info.nlinks > most) {
        err_set(err, "%s: \"%s\": at most %llu datasets were expected, found %llu", r->file, group_name, (unsigned long long)most,
                (unsigned long long)info.nlinks);
        goto done;
    }
    for (hsize_t i = 0; i < info.nlinks; i++) {
        ssize_t n = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name, H5P_DEFAULT);
        if (n < 0 || n >= NAME_LENGTH || (set = H5Dopen2(group, name, access)) < 0) {
            h5_fail(err, r->file, group_name, "cannot open what is in the group");
            goto done;
        }
        if (read(r, set, name, err) != 0)
            goto done;
        h5_release(set);
        set = H5I_INVALID_HID;
    }
    rc = 0;
done:
    h5_release(set);
    h5_release(group);
    h5_release(access);
    return rc;
}

static int check_format(struct reading *r, struct err *err)
{
    char *text;
    struct err none = {0};
    bool ours = h5_attr_text(&text, r->file, "/", "format", &none) == 0 && !strcmp(text, FORMAT);
    free(text);
    if (!ours)
        return err_set(err, "%s: no model of this program's: the attribute \"format\" with the text \"%s\" was expected", r->file,
                       FORMAT);
    if (h5_attr_text(&text, r->file, "/", "config", err) != 0)
        return -1;
    r->s->config = arena_strdup(&r->s->arena, text, err);
    free(text);
    return r->s->config ? 0 : -1;
}

static int read_all(void *arg, struct err *err)
{
    struct reading *r = arg;
    struct quiet q = h5_quiet_begin();
    int rc = -1;
    htri_t has_files;
    hsize_t userblock = 0;
    hid_t file = h5_open_file(r->file, err), creation = H5I_INVALID_HID;
    if (file < 0)
        goto done;
    creation = H5Fget_create_plist(file);
    r->offsets_hold = creation >= 0 && H5Pget_userblock(creation, &userblock) >= 0 && userblock == 0;
    r->s->files = arena_alloc(&r->s->arena, MAX_FILES, sizeof *r->s->files, err);
    if (!r->s->files || check_format(r, err) != 0 || each_dataset(r, file, "tensors", MAX_LINKS, read_tensor, err) != 0)
        goto done;
    has_files = H5Lexists(file, "files", H5P_DEFAULT);
    if (has_files < 0)
        h5_fail(err, r->file, "files", "cannot tell whether it is there");
    else
        rc = has_files ? each_dataset(r, file, "files", MAX_FILES, read_file, err) : 0;
done:
    h5_release(creation);
    h5_release(file);
    return h5_quiet_end(q, rc);
}

int h5_model_add(struct source *s, const struct file_map *map, const char *file, int64_t *cap, struct err *err)
{
    struct reading r = {.s = s, .map = map, .file = file, .cap = cap};
    return h5_guard(read_all, &r, file, "a model", err);
}
