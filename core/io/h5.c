#include "core/io/h5.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/bus.h"
#include "core/base/mem.h"
#include "core/base/json.h"
#include "core/io/h5_impl.h"

enum {
    DEFLATE_LEVEL = 6,
    CHUNK_BYTES = 1 << 20, /* HDF5's chunk cache is 1 MiB per dataset */
    IMAGE_STEP = 1 << 20,  /* by how much the image in memory grows */
};
static const hsize_t MAX_ELEMENTS = (hsize_t)1 << 28; /* 2 GiB of numbers: far above any result, far below a bomb */

/* ---- shared with h5_read.c ---- */

struct quiet h5_quiet_begin(void)
{
    struct quiet q = {0};
    H5dont_atexit(); /* counts on the first call: what a damaged file left open would be told on stderr when the process ends */
    q.known = H5Eget_auto2(H5E_DEFAULT, &q.print, &q.data) >= 0;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    return q;
}

int h5_quiet_end(struct quiet q, int rc)
{
    if (q.known)
        H5Eset_auto2(H5E_DEFAULT, q.print, q.data);
    return rc;
}

static herr_t take_innermost(unsigned n, const H5E_error2_t *e, void *out)
{
    if (n == 0 && e->desc)
        snprintf(out, 256, "%s", e->desc);
    return 0;
}

int h5_fail(struct err *err, const char *path, const char *object, const char *what)
{
    if (bus_check(err) != 0) /* data of a mapped file that was cut cannot be written: not HDF5's fault */
        return -1;
    char why[256] = "no reason given by HDF5";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, why);
    return err_set(err, "%s: \"%s\": %s: %s", path, object, what, why);
}

void h5_release(hid_t id)
{
    if (id > 0)
        H5Idec_ref(id);
}

int h5_shape(hsize_t *out, hsize_t *n, const int64_t *dims, int n_dims, const char *path, const char *name, struct err *err)
{
    *n = 1;
    if (n_dims < 0 || n_dims > H5_MAX_DIMS)
        return err_set(err, "%s: \"%s\": 0 to %d dims were expected, found %d", path, name, H5_MAX_DIMS, n_dims);
    for (int i = 0; i < n_dims; i++) {
        if (dims[i] < 0)
            return err_set(err, "%s: \"%s\": dim %d is negative (%lld)", path, name, i, (long long)dims[i]);
        out[i] = (hsize_t)dims[i];
        if (__builtin_mul_overflow(*n, out[i], n) || *n > MAX_ELEMENTS)
            return err_set(err, "%s: \"%s\": more than %llu elements", path, name, (unsigned long long)MAX_ELEMENTS);
    }
    return 0;
}

/* ---- writing ---- */

/* alignment 0: in memory. */
static int open_writer(struct h5_writer *w, const char *path, int64_t alignment, struct err *err)
{
    *w = (struct h5_writer){0};
    if (file_writer_open(&w->out, path, err) != 0)
        return -1;
    if (alignment && !w->out.tmp) {
        h5_writer_abort(w);
        return err_set(err, "%s: a regular file was expected", path);
    }
    struct quiet q = h5_quiet_begin();
    int rc = -1;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0 || H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) < 0 ||
        (alignment ? H5Pset_alignment(access, 1, (hsize_t)alignment) : H5Pset_fapl_core(access, IMAGE_STEP, false)) < 0 ||
        (w->file = H5Fcreate(alignment ? w->out.tmp : path, H5F_ACC_TRUNC, H5P_DEFAULT, access)) < 0) {
        h5_fail(err, path, "/", "cannot make an HDF5 file");
        goto done;
    }
    rc = 0;
done:
    h5_release(access);
    if (rc != 0)
        h5_writer_abort(w);
    return h5_quiet_end(q, rc);
}

int h5_writer_open(struct h5_writer *w, const char *path, struct err *err)
{
    return open_writer(w, path, 0, err);
}

int h5_writer_open_on_disk(struct h5_writer *w, const char *path, int64_t alignment, struct err *err)
{
    return open_writer(w, path, alignment, err);
}

int h5_writer_close_on_disk(struct h5_writer *w, struct err *err)
{
    struct quiet q = h5_quiet_begin();
    int rc = H5Fflush(w->file, H5F_SCOPE_GLOBAL) < 0 ? h5_fail(err, w->out.path, "/", "cannot finish the HDF5 file") : 0;
    h5_release(w->file);
    w->file = 0;
    return h5_quiet_end(q, rc);
}

int h5_writer_finish(struct file_writer *out, struct h5_writer *w, struct err *err)
{
    struct quiet q = h5_quiet_begin();
    void *image = NULL;
    int rc = -1;
    ssize_t size = H5Fflush(w->file, H5F_SCOPE_GLOBAL) < 0 ? -1 : H5Fget_file_image(w->file, NULL, 0);
    if (size < 0) {
        h5_fail(err, w->out.path, "/", "cannot finish the HDF5 file");
        goto done;
    }
    image = mem_alloc((size_t)size, 1, err);
    if (!image)
        goto done;
    if (H5Fget_file_image(w->file, image, (size_t)size) != size) {
        h5_fail(err, w->out.path, "/", "cannot finish the HDF5 file");
        goto done;
    }
    if (file_writer_put(&w->out, image, (size_t)size, err) != 0 || file_writer_finish(&w->out, err) != 0)
        goto done;
    *out = w->out;
    w->out = (struct file_writer){0};
    rc = 0;
done:
    free(image);
    h5_writer_abort(w);
    return h5_quiet_end(q, rc);
}

int h5_writer_commit(struct h5_writer *w, struct err *err)
{
    struct file_writer out;
    return h5_writer_finish(&out, w, err) == 0 ? file_writer_commit(&out, err) : -1;
}

void h5_writer_abort(struct h5_writer *w)
{
    struct quiet q = h5_quiet_begin();
    h5_release(w->file);
    file_writer_abort(&w->out);
    *w = (struct h5_writer){0};
    h5_quiet_end(q, 0);
}

/* Chunks of at most CHUNK_BYTES: whole trailing rows where they fit, the leading dims halved first where they do not. */
static void chunk_shape(hsize_t *chunk, const hsize_t *dims, int n_dims, size_t element)
{
    hsize_t n = 1;
    for (int i = 0; i < n_dims; i++)
        n *= chunk[i] = dims[i];
    for (int i = 0; i < n_dims; i++)
        while (n * element > CHUNK_BYTES && chunk[i] > 1) {
            n /= chunk[i];
            chunk[i] = (chunk[i] + 1) / 2;
            n *= chunk[i];
        }
}

/* How a dataset is stored. Fixed-size dims of 0 cannot be chunked, a single number need not be. */
static hid_t storage(const hsize_t *dims, int n_dims, hsize_t n, size_t element)
{
    hsize_t chunk[H5_MAX_DIMS];
    hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    bool ok = p >= 0 && H5Pset_obj_track_times(p, false) >= 0; /* no clock in the file: equal results, equal bytes */
    if (ok && n > 0 && n_dims > 0) {
        chunk_shape(chunk, dims, n_dims, element);
        ok = H5Pset_chunk(p, n_dims, chunk) >= 0 && H5Pset_shuffle(p) >= 0 && H5Pset_deflate(p, DEFLATE_LEVEL) >= 0;
    }
    if (ok)
        return p;
    h5_release(p);
    return H5I_INVALID_HID;
}

static int put(struct h5_writer *w, const char *name, hid_t type, hid_t memory_type, const void *data, const int64_t *dims,
               int n_dims, struct err *err)
{
    const char *path = w->out.path;
    hsize_t d[H5_MAX_DIMS], n;
    if (h5_shape(d, &n, dims, n_dims, path, name, err) != 0)
        return -1;
    int rc = -1;
    hid_t links = H5Pcreate(H5P_LINK_CREATE), store = storage(d, n_dims, n, H5Tget_size(type)), set = H5I_INVALID_HID;
    hid_t space = n_dims == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(n_dims, d, NULL);
    if (links < 0 || store < 0 || space < 0 || H5Pset_create_intermediate_group(links, 1) < 0 ||
        H5Pset_char_encoding(links, H5T_CSET_UTF8) < 0) {
        h5_fail(err, path, name, "cannot describe the dataset");
        goto done;
    }
    set = H5Dcreate2(w->file, name, type, space, links, store, H5P_DEFAULT);
    if (set < 0) {
        h5_fail(err, path, name, "cannot make the dataset");
        goto done;
    }
    if (n > 0 && H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
        h5_fail(err, path, name, "cannot write the dataset");
        goto done;
    }
    rc = 0;
done:
    h5_release(set);
    h5_release(space);
    h5_release(store);
    h5_release(links);
    return rc;
}

int h5_put_f64(struct h5_writer *w, const char *name, const double *data, const int64_t *dims, int n_dims, struct err *err)
{
    struct quiet q = h5_quiet_begin();
    return h5_quiet_end(q, put(w, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, data, dims, n_dims, err));
}

int h5_put_i64(struct h5_writer *w, const char *name, const int64_t *data, const int64_t *dims, int n_dims, struct err *err)
{
    struct quiet q = h5_quiet_begin();
    return h5_quiet_end(q, put(w, name, H5T_STD_I64LE, H5T_NATIVE_INT64, data, dims, n_dims, err));
}

/* Variable-length UTF-8: what h5py reads as str, and no limit on the length, unlike a fixed-length attribute's 64 KiB. */
static hid_t string_type(void)
{
    hid_t t = H5Tcopy(H5T_C_S1);
    if (t >= 0 && H5Tset_size(t, H5T_VARIABLE) >= 0 && H5Tset_cset(t, H5T_CSET_UTF8) >= 0)
        return t;
    h5_release(t);
    return H5I_INVALID_HID;
}

int h5_put_strings(struct h5_writer *w, const char *name, const char *const *data, int64_t n, struct err *err)
{
    for (int64_t i = 0; i < n; i++)
        if (!data[i])
            return err_set(err, "%s: \"%s\": string %lld is missing", w->out.path, name, (long long)i);
    struct quiet q = h5_quiet_begin();
    hid_t type = string_type();
    int rc = type < 0 ? h5_fail(err, w->out.path, name, "cannot describe the strings") : put(w, name, type, type, data, &n, 1, err);
    h5_release(type);
    return h5_quiet_end(q, rc);
}

static int put_attr(struct h5_writer *w, const char *object, const char *name, hid_t type, hid_t memory_type, const void *value,
                    struct err *err)
{
    int rc = -1;
    hid_t space = H5I_INVALID_HID, attr = H5I_INVALID_HID, names = H5Pcreate(H5P_ATTRIBUTE_CREATE);
    hid_t owner = H5Oopen(w->file, object, H5P_DEFAULT);
    if (owner < 0) {
        h5_fail(err, w->out.path, object, "cannot open the object for an attribute");
        goto done;
    }
    if (H5Aexists(owner, name) > 0 && H5Adelete(owner, name) < 0) {
        h5_fail(err, w->out.path, name, "cannot replace the attribute");
        goto done;
    }
    space = H5Screate(H5S_SCALAR);
    if (names < 0 || space < 0 || H5Pset_char_encoding(names, H5T_CSET_UTF8) < 0 ||
        (attr = H5Acreate2(owner, name, type, space, names, H5P_DEFAULT)) < 0 || H5Awrite(attr, memory_type, value) < 0) {
        h5_fail(err, w->out.path, name, "cannot write the attribute");
        goto done;
    }
    rc = 0;
done:
    h5_release(attr);
    h5_release(space);
    h5_release(owner);
    h5_release(names);
    return rc;
}

int h5_attr_string(struct h5_writer *w, const char *object, const char *name, const char *value, struct err *err)
{
    if (!value)
        return err_set(err, "%s: \"%s\": the value of the attribute is missing", w->out.path, name);
    struct quiet q = h5_quiet_begin();
    hid_t type = string_type();
    int rc = type < 0 ? h5_fail(err, w->out.path, name, "cannot describe the string")
                      : put_attr(w, object, name, type, type, &value, err);
    h5_release(type);
    return h5_quiet_end(q, rc);
}

int h5_attr_fixed(struct h5_writer *w, const char *object, const char *name, const char *value, struct err *err)
{
    struct quiet q = h5_quiet_begin();
    hid_t type = H5Tcopy(H5T_C_S1);
    int rc = type < 0 || H5Tset_size(type, strlen(value) + 1) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0
                 ? h5_fail(err, w->out.path, name, "cannot describe the string")
                 : put_attr(w, object, name, type, type, value, err);
    h5_release(type);
    return h5_quiet_end(q, rc);
}

int h5_attr_i64(struct h5_writer *w, const char *object, const char *name, int64_t value, struct err *err)
{
    struct quiet q = h5_quiet_begin();
    return h5_quiet_end(q, put_attr(w, object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value, err));
}

int h5_attr_f64(struct h5_writer *w, const char *object, const char *name, double value, struct err *err)
{
    struct quiet q = h5_quiet_begin();
    return h5_quiet_end(q, put_attr(w, object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value, err));
}

/* HDF5 has no boolean; h5py reads this enumeration as one. */
static int put_attr_bool(struct h5_writer *w, const char *object, const char *name, bool value, struct err *err)
{
    struct quiet q = h5_quiet_begin();
    int8_t no = 0, yes = 1, v = value;
    hid_t type = H5Tenum_create(H5T_STD_I8LE);
    int rc = type < 0 || H5Tenum_insert(type, "FALSE", &no) < 0 || H5Tenum_insert(type, "TRUE", &yes) < 0
                 ? h5_fail(err, w->out.path, name, "cannot describe the boolean")
                 : put_attr(w, object, name, type, type, &v, err);
    h5_release(type);
    return h5_quiet_end(q, rc);
}

static int put_attr_text(struct h5_writer *w, const char *object, const char *name, const json_t *value, struct err *err)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text)
        return err_set(err, "%s: \"%s\": cannot be written as JSON", w->out.path, name);
    int rc = h5_attr_string(w, object, name, text, err);
    free(text);
    return rc;
}

int h5_attr_json_at(struct h5_writer *w, const char *object, const json_t *members, struct err *err)
{
    if (json_failed())
        return err_set(err, "%s: out of memory", w->out.path);
    if (!json_is_object(members))
        return err_set(err, "%s: a JSON object was expected for the attributes", w->out.path);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)members, key, v) { /* the macro only reads */
        int rc = 0;
        switch (json_typeof(v)) {
        case JSON_STRING:
            if (strlen(json_string_value(v)) != json_string_length(v))
                return err_set(err, "%s: \"%s\": the text holds a NUL", w->out.path, key);
            rc = h5_attr_string(w, object, key, json_string_value(v), err);
            break;
        case JSON_INTEGER: rc = h5_attr_i64(w, object, key, json_integer_value(v), err); break;
        case JSON_REAL: rc = h5_attr_f64(w, object, key, json_real_value(v), err); break;
        case JSON_TRUE:
        case JSON_FALSE: rc = put_attr_bool(w, object, key, json_is_true(v), err); break;
        case JSON_ARRAY:
        case JSON_OBJECT: rc = put_attr_text(w, object, key, v, err); break;
        case JSON_NULL: break;
        }
        if (rc != 0)
            return rc;
    }
    return 0;
}

int h5_attr_json(struct h5_writer *w, const json_t *members, struct err *err)
{
    return h5_attr_json_at(w, "/", members, err);
}
