/* Results in HDF5: arrays of numbers and strings under "group/name", and attributes. Writing leaves a whole file or nothing;
 * reading takes any stored integer or float type. HDF5's own error printing stays silent, its reasons end up in `struct err`.
 * libhdf5 serves one thread at a time: so do these functions. */
#ifndef ESPALIER_IO_H5_H
#define ESPALIER_IO_H5_H

#include <jansson.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/file.h"

enum { H5_MAX_DIMS = 4 };

/* ---- writing ---- */

/* A file being written. It grows in memory (results take megabytes) and goes to disk at commit through a file_writer, so a
 * full disk or a crash leaves nothing under the final name. */
struct h5_writer {
    int64_t file;           /* hid_t; not positive when closed */
    struct file_writer out; /* out.path names the file in messages */
};

int h5_writer_open(struct h5_writer *w, const char *path, struct err *err);
int h5_writer_commit(struct h5_writer *w, struct err *err); /* also releases w, whether it succeeds or not */
/* Releases w as commit does, but leaves the finished file to be committed. */
int h5_writer_finish(struct file_writer *out, struct h5_writer *w, struct err *err);
void h5_writer_abort(struct h5_writer *w); /* does nothing after commit or on a zeroed writer */

/* A dataset data[dims[0], ..., dims[n_dims - 1]], row-major, compressed. n_dims 0 is one number. With a dim of 0 there are no
 * elements and data may be NULL. Groups in `name` are made; a name that is taken is an error. */
int h5_put_f64(struct h5_writer *w, const char *name, const double *data, const int64_t *dims, int n_dims, struct err *err);
int h5_put_i64(struct h5_writer *w, const char *name, const int64_t *data, const int64_t *dims, int n_dims, struct err *err);

/* A dataset [n] of UTF-8 strings. */
int h5_put_strings(struct h5_writer *w, const char *name, const char *const *data, int64_t n, struct err *err);

/* An attribute of an existing group or dataset, or of the root ("/"). Replaces an attribute of the same name. */
int h5_attr_string(struct h5_writer *w, const char *object, const char *name, const char *value, struct err *err);
int h5_attr_i64(struct h5_writer *w, const char *object, const char *name, int64_t value, struct err *err);
int h5_attr_f64(struct h5_writer *w, const char *object, const char *name, double value, struct err *err);

/* Each member of a JSON object as an attribute of the root, or of a group or dataset: strings, integers and reals as such, true
 * and false as the boolean enumeration of h5py, arrays and objects as compact JSON text. Null members are left out. */
int h5_attr_json(struct h5_writer *w, const json_t *members, struct err *err);
int h5_attr_json_at(struct h5_writer *w, const char *object, const json_t *members, struct err *err);

/* ---- reading ---- */

/* Whether the object "group/name" is there, or the root has the attribute: 1, or 0; -1 and an error where that cannot be told. */
int h5_has(const char *path, const char *name, struct err *err);
int h5_has_attr(const char *path, const char *name, struct err *err);

/* A whole dataset. *data is malloc'ed (never NULL on success) and holds the product of dims[0 .. *n_dims - 1] numbers,
 * row-major; the rest of dims is 1. On failure *data is NULL. Rejected: more than H5_MAX_DIMS dims, more than 2^28 elements
 * or than a file of that size can hold packed, data that lives in other files, and, by h5_read_i64, values that are not whole or do not fit. */
int h5_read_f64(double **data, int64_t dims[H5_MAX_DIMS], int *n_dims, const char *path, const char *name, struct err *err);
int h5_read_i64(int64_t **data, int64_t dims[H5_MAX_DIMS], int *n_dims, const char *path, const char *name, struct err *err);

/* A string attribute of an object ("/" is the root); *out is malloc'ed, or NULL on failure. */
int h5_read_attr_string(char **out, const char *path, const char *object, const char *name, struct err *err);

/* An attribute that is one number. */
int h5_read_attr_f64(double *out, const char *path, const char *object, const char *name, struct err *err);

#endif
