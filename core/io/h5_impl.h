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

#endif
