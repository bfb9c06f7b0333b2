/* What the two halves of h5.h share: errors, handles and shapes. */
#ifndef ESPALIER_IO_H5_IMPL_H
#define ESPALIER_IO_H5_IMPL_H

#include <hdf5.h>
#include <stdbool.h>

#include "core/io/h5.h"

_Static_assert(sizeof(hid_t) == sizeof(int64_t), "h5.h keeps handles in int64_t so that its users need no hdf5.h");

/* HDF5 prints its error stack unless told otherwise. Every public function takes that setting, and gives it back. */
struct quiet {
    H5E_auto2_t print;
    void *data;
    bool known;
};
struct quiet h5_quiet_begin(void);
int h5_quiet_end(struct quiet q, int rc); /* returns rc */

/* Records a failed HDF5 call with the reason on HDF5's error stack; -1. Call it before the next HDF5 call clears that stack. */
int h5_fail(struct err *err, const char *path, const char *object, const char *what);

/* Releases any kind of handle; those that never came to be are negative. */
void h5_release(hid_t id);

/* Checks a shape; out [n_dims] is the same for HDF5, *n the number of elements. */
int h5_shape(hsize_t *out, hsize_t *n, const int64_t *dims, int n_dims, const char *path, const char *name, struct err *err);

/* A file of many gigabytes is written by HDF5 itself under the temporary name, its datasets' bytes at multiples of `alignment`.
 * After closing, w->out is all that is left of w: more bytes may be put into the file before its commit. */
int h5_writer_open_on_disk(struct h5_writer *w, const char *path, int64_t alignment, struct err *err);
int h5_writer_close_on_disk(struct h5_writer *w, struct err *err);

/* As h5_attr_string with a string of fixed length, which lies with its object and not in a heap of its own; at most 64 KiB. */
int h5_attr_fixed(struct h5_writer *w, const char *object, const char *name, const char *value, struct err *err);

/* ---- reading ---- */

/* Opens a file for reading; negative and an error when it cannot be. */
hid_t h5_open_file(const char *path, struct err *err);

/* A property list for opening objects that follows no link into another file: a file decides nothing about what else is read. */
hid_t h5_access_within_file(hid_t class);

/* The one string of an attribute that is known to hold one, of fixed or variable length, malloc'ed; NULL and an error otherwise. */
char *h5_read_string(hid_t attr, hid_t type, const char *path, const char *name, struct err *err);

/* As h5_read_attr_string, but without a rehearsal: for use in one. *out is NULL on failure. */
int h5_attr_text(char **out, const char *path, const char *object, const char *name, struct err *err);

/* Calls `read` in a child process first, and then here if that came through: libhdf5 (1.10 for one) crashes on some damaged files.
 * `what` is read, for the message. */
int h5_guard(int (*read)(void *arg, struct err *err), void *arg, const char *path, const char *what, struct err *err);

#endif
