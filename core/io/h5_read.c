#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/io/h5_impl.h"

enum { MAX_STRING = 64 << 20 }; /* bytes of a fixed-length string attribute that we believe */

static herr_t refuse_link(const char *parent_file, const char *parent_group, const char *child_file, const char *child,
                          unsigned *flags, hid_t access, void *data)
{
    (void)parent_file, (void)parent_group, (void)child_file, (void)child, (void)flags, (void)access, (void)data;
    return -1;
}

hid_t h5_access_within_file(hid_t class)
{
    hid_t p = H5Pcreate(class);
    if (p >= 0 && H5Pset_elink_cb(p, refuse_link, NULL) < 0) {
        h5_release(p);
        return H5I_INVALID_HID;
    }
    return p;
}

hid_t h5_open_file(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* for a plain reason where there is no file, or no right to it */
    struct stat st;
    if (fd < 0)
        return err_errno(err, "%s", path);
    int rc = fstat(fd, &st);
    close(fd);
    if (rc != 0 || !S_ISREG(st.st_mode))
        return err_set(err, "%s: a regular file was expected", path);
    if (H5Fis_hdf5(path) <= 0)
        return err_set(err, "%s: not an HDF5 file", path);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    return file < 0 ? h5_fail(err, path, "/", "cannot open") : file;
}

/* Whether a dataset's values are in its own file, as numbers. */
static int check_dataset(hid_t set, const char *path, const char *name, struct err *err)
{
    int rc = -1;
    hid_t store = H5Dget_create_plist(set), type = H5Dget_type(set);
    if (store < 0 || type < 0) {
        h5_fail(err, path, name, "cannot read how it is stored");
        goto done;
    }
    if (H5Pget_layout(store) == H5D_VIRTUAL || H5Pget_external_count(store) != 0) {
        err_set(err, "%s: \"%s\": keeps its data in other files, which is not followed", path, name);
        goto done;
    }
    if (H5Tget_class(type) != H5T_INTEGER && H5Tget_class(type) != H5T_FLOAT) {
        err_set(err, "%s: \"%s\": integers or floats were expected, found another type", path, name);
        goto done;
    }
    rc = 0;
done:
    h5_release(type);
    h5_release(store);
    return rc;
}

static int read_shape(int64_t dims[H5_MAX_DIMS], int *n_dims, hsize_t *n, hid_t space, const char *path, const char *name,
                      struct err *err)
{
    hsize_t d[H5S_MAX_RANK];
    int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 0 || rank > H5_MAX_DIMS)
        return err_set(err, "%s: \"%s\": 0 to %d dims were expected, found %d", path, name, H5_MAX_DIMS, rank);
    H5Sget_simple_extent_dims(space, d, NULL);
    if (H5Sget_simple_extent_type(space) == H5S_NULL) { /* h5py's Empty */
        rank = 1;
        d[0] = 0;
    }
    for (int i = 0; i < H5_MAX_DIMS; i++) {
        if (i < rank && d[i] > INT64_MAX)
            return err_set(err, "%s: \"%s\": dim %d is too large", path, name, i);
        dims[i] = i < rank ? (int64_t)d[i] : 1;
    }
    *n_dims = rank;
    return h5_shape(d, n, dims, rank, path, name, err);
}

/* The two element types of this reader; they share a size, so that floats can be turned into integers in place. */
union number {
    double real;
    int64_t whole;
};

/* Without this HDF5 would clip integers that do not fit. */
static H5T_conv_ret_t refuse_clipping(H5T_conv_except_t kind, hid_t from, hid_t to, void *value, void *out, void *data)
{
    (void)kind, (void)from, (void)to, (void)value, (void)out;
    *(bool *)data = true;
    return H5T_CONV_ABORT;
}

static int to_whole(union number *v, hsize_t n, const char *path, const char *name, struct err *err)
{
    for (hsize_t i = 0; i < n; i++) {
        double x = v[i].real;
        if (!(x >= -0x1p63 && x < 0x1p63) || x != floor(x)) /* not so for NaN either */
            return err_set(err, "%s: \"%s\": whole numbers of 64 bits were expected, found %g", path, name, x);
        v[i].whole = (int64_t)x;
    }
    return 0;
}

/* Reads a dataset's n numbers as doubles or as integers. Floats become integers here, not in HDF5, which would truncate
 * fractions and turn NaN into 0 (and, in 1.10, takes whole big-endian floats for fractions where it is asked to object). */
static int read_values(union number *v, hsize_t n, hid_t set, bool whole, const char *path, const char *name, struct err *err)
{
    int rc = -1;
    bool clipped = false;
    hid_t type = H5Dget_type(set), transfer = H5Pcreate(H5P_DATASET_XFER);
    bool stored_whole = H5Tget_class(type) == H5T_INTEGER;
    if (transfer < 0 || (whole && stored_whole && H5Pset_type_conv_cb(transfer, refuse_clipping, &clipped) < 0) ||
        H5Dread(set, whole && stored_whole ? H5T_NATIVE_INT64 : H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, transfer, v) < 0) {
        if (clipped)
            err_set(err, "%s: \"%s\": integers of at most 63 bits and a sign were expected, found a larger one", path, name);
        else
            h5_fail(err, path, name, "cannot read the dataset");
        goto done;
    }
    rc = whole && !stored_whole ? to_whole(v, n, path, name, err) : 0;
done:
    h5_release(transfer);
    h5_release(type);
    return rc;
}

static int read_dataset(union number **data, int64_t dims[H5_MAX_DIMS], int *n_dims, const char *path, const char *name, bool whole,
                        struct err *err)
{
    hid_t access = H5I_INVALID_HID, set = H5I_INVALID_HID, space = H5I_INVALID_HID;
    hsize_t n;
    struct stat st;
    int rc = -1;
    *data = NULL;
    hid_t file = h5_open_file(path, err);
    if (file < 0)
        return -1;
    access = h5_access_within_file(H5P_DATASET_ACCESS);
    if (access < 0 || (set = H5Dopen2(file, name, access)) < 0 || (space = H5Dget_space(set)) < 0) {
        h5_fail(err, path, name, "a dataset was expected");
        goto done;
    }
    if (check_dataset(set, path, name, err) != 0 || read_shape(dims, n_dims, &n, space, path, name, err) != 0)
        goto done;
    if (stat(path, &st) != 0) {
        err_errno(err, "%s", path);
        goto done;
    }
    if (n >
        inflated_limit((size_t)st.st_size) / sizeof **data) { /* what is packed unpacks to so much, and the shape is only said */
        err_set(err, "%s: \"%s\": %llu numbers are said to be in a file of %lld bytes", path, name, (unsigned long long)n,
                (long long)st.st_size);
        goto done;
    }
    *data = mem_alloc(n, sizeof **data, err);
    if (!*data || (n > 0 && read_values(*data, n, set, whole, path, name, err) != 0))
        goto done;
    rc = 0;
done:
    if (rc != 0) {
        free(*data);
        *data = NULL;
    }
    h5_release(space);
    h5_release(set);
    h5_release(access);
    h5_release(file);
    return rc;
}

char *h5_read_string(hid_t attr, hid_t type, const char *path, const char *name, struct err *err)
{
    char *s = NULL;
    if (H5Tis_variable_str(type) > 0) {
        char *theirs = NULL;
        if (H5Aread(attr, type, &theirs) < 0) {
            h5_fail(err, path, name, "cannot read the attribute");
            return NULL;
        }
        s = strdup(theirs ? theirs : ""); /* h5py stores an empty string as no string */
        H5free_memory(theirs);
        if (!s)
            err_set(err, "out of memory");
        return s;
    }
    size_t n = H5Tget_size(type);
    if (n == 0 || n > MAX_STRING) {
        err_set(err, "%s: \"%s\": a string of at most %d bytes was expected, found %zu", path, name, MAX_STRING, n);
        return NULL;
    }
    s = mem_alloc(n + 1, 1, err);
    if (s && H5Aread(attr, type, s) < 0) {
        h5_fail(err, path, name, "cannot read the attribute");
        free(s);
        s = NULL;
    }
    return s;
}

/* One string (text not NULL) or one number. */
static int read_attr(char **text, double *number, const char *path, const char *object, const char *name, struct err *err)
{
    int rc = -1;
    hid_t access = H5I_INVALID_HID, attr = H5I_INVALID_HID, type = H5I_INVALID_HID, space = H5I_INVALID_HID;
    hid_t file = h5_open_file(path, err);
    if (file < 0)
        return -1;
    access = h5_access_within_file(H5P_LINK_ACCESS);
    if (access < 0 || (attr = H5Aopen_by_name(file, object, name, H5P_DEFAULT, access)) < 0 || (type = H5Aget_type(attr)) < 0 ||
        (space = H5Aget_space(attr)) < 0) {
        h5_fail(err, path, name, "an attribute was expected");
        goto done;
    }
    H5T_class_t class = H5Tget_class(type);
    if ((text ? class != H5T_STRING : class != H5T_INTEGER && class != H5T_FLOAT) || H5Sget_simple_extent_npoints(space) != 1) {
        err_set(err, "%s: \"%s\": an attribute with one %s was expected, found another type or number of values", path, name,
                text ? "string" : "number");
        goto done;
    }
    if (text)
        rc = (*text = h5_read_string(attr, type, path, name, err)) ? 0 : -1;
    else if (H5Aread(attr, H5T_NATIVE_DOUBLE, number) >= 0)
        rc = 0;
    else
        h5_fail(err, path, name, "a number was expected");
done:
    h5_release(space);
    h5_release(type);
    h5_release(attr);
    h5_release(access);
    h5_release(file);
    return rc;
}

/* Whether the file has the object "group/.../name", link by link, as the library wants it asked; or its root has the attribute. */
static int look_up(bool *found, const char *path, const char *name, bool attr, struct err *err)
{
    hid_t file = h5_open_file(path, err);
    char *part = file >= 0 ? strdup(name) : NULL;
    if (file >= 0 && !part)
        err_set(err, "out of memory");
    htri_t there = part ? 1 : -1;
    if (part && attr)
        there = H5Aexists(file, name);
    for (char *slash = part; part && !attr && there > 0 && slash;) {
        if ((slash = strchr(slash, '/')))
            *slash = 0;
        there = H5Lexists(file, part, H5P_DEFAULT);
        if (slash)
            *slash++ = '/';
    }
    if (part && there < 0)
        h5_fail(err, path, name, "cannot tell whether it is there");
    *found = there > 0;
    free(part);
    h5_release(file);
    return there < 0 ? -1 : 0;
}

/* ---- reading from a library that may crash ---- */

/* One read, with the places for what it finds. */
struct reading {
    enum { READ_FLOATS, READ_WHOLE, READ_TEXT, READ_NUMBER, FIND_OBJECT, FIND_ATTR } kind;
    const char *path, *object, *name;
    union number *data;
    int64_t *dims;
    int *n_dims;
    char *text;
    double number;
    bool found;
};

static int perform(void *reading, struct err *err)
{
    struct reading *r = reading;
    struct quiet q = h5_quiet_begin();
    bool text = r->kind == READ_TEXT;
    if (r->kind == FIND_OBJECT || r->kind == FIND_ATTR)
        return h5_quiet_end(q, look_up(&r->found, r->path, r->name, r->kind == FIND_ATTR, err));
    return h5_quiet_end(q, text || r->kind == READ_NUMBER
                               ? read_attr(text ? &r->text : NULL, &r->number, r->path, r->object, r->name, err)
                               : read_dataset(&r->data, r->dims, r->n_dims, r->path, r->name, r->kind == READ_WHOLE, err));
}

int h5_attr_text(char **out, const char *path, const char *object, const char *name, struct err *err)
{
    struct reading r = {.kind = READ_TEXT, .path = path, .object = object, .name = name};
    int rc = perform(&r, err);
    *out = r.text;
    return rc;
}

/* Seconds of computing that reading a file may take: libhdf5 goes round and round in some damaged ones. */
static rlim_t seconds_for(const char *path)
{
    enum { LEAST = 2, BYTES_A_SECOND = 8 << 20 };
    struct stat st;
    return LEAST + (stat(path, &st) == 0 ? (rlim_t)st.st_size / BYTES_A_SECOND : 0);
}

/* A child process, which begins with this very memory, reads first; what it survives, its parent survives too. What is read is
 * small enough to be read twice. The child says so when it has come through, and its parent ends it then, or when it has crashed
 * or taken too long (by the clock too, where a disk does not answer); it dies with its parent. */
int h5_guard(int (*read_it)(void *arg, struct err *err), void *arg, const char *path, const char *what, struct err *err)
{
    const rlim_t seconds = seconds_for(path);
    const int milliseconds = seconds < 100000 ? 60000 + (int)seconds * 1000 : -1;
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    int ends[2];
    char byte = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_errno(err, "%s: cannot make a pipe to read it through", path);
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        struct err ignored = {0}; /* an error value is no crash; the parent meets it again */
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        setrlimit(RLIMIT_CPU, &(struct rlimit){seconds, seconds});
        for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
            signal(crashes[i], SIG_DFL); /* nobody needs to hear of it */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent)
            read_it(arg, &ignored);
        while (write(ends[1], &byte, 1) < 0 && errno == EINTR)
            ;
        for (;;)
            pause();
    }
    close(ends[1]);
    bool came_through = false;
    if (child > 0) {
        struct pollfd wait = {.fd = ends[0], .events = POLLIN};
        came_through = poll(&wait, 1, milliseconds) > 0 && read(ends[0], &byte, 1) == 1;
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    close(ends[0]);
    if (child < 0)
        return err_set(err, "%s: cannot start a process to read it", path);
    return came_through ? read_it(arg, err) : err_set(err, "%s: damaged: the HDF5 library fails while reading \"%s\"", path, what);
}

static int read_guarded(struct reading *r, struct err *err)
{
    return h5_guard(perform, r, r->path, r->name, err);
}

int h5_has(const char *path, const char *name, struct err *err)
{
    struct reading r = {.kind = FIND_OBJECT, .path = path, .name = name};
    return read_guarded(&r, err) == 0 ? r.found : -1;
}

int h5_has_attr(const char *path, const char *name, struct err *err)
{
    struct reading r = {.kind = FIND_ATTR, .path = path, .name = name};
    return read_guarded(&r, err) == 0 ? r.found : -1;
}

int h5_read_f64(double **data, int64_t dims[H5_MAX_DIMS], int *n_dims, const char *path, const char *name, struct err *err)
{
    struct reading r = {.kind = READ_FLOATS, .path = path, .name = name, .dims = dims, .n_dims = n_dims};
    int rc = read_guarded(&r, err);
    *data = (void *)r.data;
    return rc;
}

int h5_read_i64(int64_t **data, int64_t dims[H5_MAX_DIMS], int *n_dims, const char *path, const char *name, struct err *err)
{
    struct reading r = {.kind = READ_WHOLE, .path = path, .name = name, .dims = dims, .n_dims = n_dims};
    int rc = read_guarded(&r, err);
    *data = (void *)r.data;
    return rc;
}

int h5_read_attr_string(char **out, const char *path, const char *object, const char *name, struct err *err)
{
    struct reading r = {.kind = READ_TEXT, .path = path, .object = object, .name = name};
    int rc = read_guarded(&r, err);
    *out = r.text;
    return rc;
}

int h5_read_attr_f64(double *out, const char *path, const char *object, const char *name, struct err *err)
{
    struct reading r = {.kind = READ_NUMBER, .path = path, .object = object, .name = name};
    int rc = read_guarded(&r, err);
    *out = r.number;
    return rc;
}
