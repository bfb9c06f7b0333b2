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

/* Bytes of all tensors. */
size_t model_bytes(const struct model *m);

#endif
