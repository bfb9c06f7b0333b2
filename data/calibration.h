/* Calibration rows: n crops of one length out of a set of documents, drawn as the published scripts draw them. */
#ifndef ESPALIER_DATA_CALIBRATION_H
#define ESPALIER_DATA_CALIBRATION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/io/tokenizer.h"

struct calibration {
    char *file;
    char sha256[65];
    int64_t n, len;     /* rows and tokens per row */
    int32_t *ids;       /* [n, len] */
    int64_t *documents; /* [n]: index of each row's document, or NULL for ready rows */
    int64_t *offsets;   /* [n]: where in the document the crop begins */
};

/* Sampling (Shortened LLaMA, src/dataset.py): with Python's random seeded, draw a document until it has at least `len` tokens
 * and was not drawn before, then an offset. bos_every: rows are BOS and len - 1 tokens. A .json or .h5 file holds ready rows
 * (a JSON array of arrays of ids; a dataset "ids" or "calibration/ids") and is taken as it is; n, len and seed are then unused.
 * t may be NULL for ready rows. */
int calibration_read(struct calibration *cal, const char *path, const struct tokenizer *t, int64_t n, int64_t len, uint64_t seed,
                     bool bos_every, struct err *err);
void calibration_free(struct calibration *cal);

#endif
