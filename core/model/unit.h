/* What depth pruning takes out: a block, or one of its halves. Written as "10", "10.attn" and "10.ffn". */
#ifndef ESPALIER_MODEL_UNIT_H
#define ESPALIER_MODEL_UNIT_H

#include <stdint.h>

#include "core/base/err.h"
#include "core/nn/block.h"

struct unit {
    int64_t block;  /* its index in the model on disk */
    unsigned parts; /* PARTS_ALL, PART_ATTN or PART_FFN */
};

enum { UNIT_NAME = 32 };

/* Writes the unit's name and returns it. */
const char *unit_name(char out[UNIT_NAME], struct unit u);

/* Parses "10,11.attn,12.ffn"; "" is no unit. *units is malloc'ed, for the caller to free. */
int units_parse(struct unit **units, int64_t *n, const char *list, struct err *err);

#endif
