/* One tensor of a file to be written. */
#ifndef ESPALIER_IO_ENTRY_H
#define ESPALIER_IO_ENTRY_H

#include "core/kernel/dtype.h"

struct tensor_entry {
    const char *name;
    enum dtype dtype;
    int n_dims;
    int64_t shape[4]; /* outermost first */
};

static inline size_t entry_bytes(const struct tensor_entry *e)
{
    int64_t count = 1;
    for (int d = 0; d < e->n_dims; d++)
        count *= e->shape[d];
    return dtype_bytes(e->dtype, count);
}

#endif
