/* Weights block by block. A model's files are mapped, so the system reads what is touched; what is left is to touch little at a
 * time. While one block computes, the next is read ahead; the one before is given back. Results do not depend on it. */
#ifndef ESPALIER_MODEL_STREAM_H
#define ESPALIER_MODEL_STREAM_H

#include "core/model/model.h"

/* Begins to stream. */
int model_stream(struct model *m, struct err *err);

/* Says what is used next: a block, or with m->cfg.n_blocks the head. Does nothing for a model that is not streamed, or when it is
 * the one in use. Called by one thread. */
void model_use(const struct model *m, int64_t block);

/* Rows [first, first + n) of a weight will be read, or have been and are given back. For who goes through the weights once,
 * streamed or not; what is given back stays in the system's file cache as long as there is room. */
enum rows_advice { ROWS_AHEAD, ROWS_DONE };
void model_advise_rows(const struct model *m, const struct weight *w, int64_t first, int64_t n, enum rows_advice what);

/* Bytes of all tensors. */
size_t model_bytes(const struct model *m);

#endif
