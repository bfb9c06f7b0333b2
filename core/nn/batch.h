/* A batch: rows of token positions, cut into sequences. All sequences of a batch go through a block together. A sequence may go on
 * from somewhere inside another one, so that what several texts have in common at the start is run once. */
#ifndef ESPALIER_NN_BATCH_H
#define ESPALIER_NN_BATCH_H

#include <stdint.h>

#include "core/base/mem.h"

/* Keys and values of one sequence, for every block that runs: data[slot][k or v][cap][kv_dim]. */
struct kv_cache {
    float *data;
    int64_t cap, len; /* positions there is room for, positions filled */
};

struct seq {
    int64_t row, len;        /* rows [row, row + len) of the batch */
    int64_t pos;             /* position of the first row */
    struct kv_cache *kv;     /* NULL: all that the sequence sees is in this batch */
    const struct seq *trunk; /* what came before: the first pos - trunk->pos rows of that sequence, and its own trunk; or NULL */
};

enum { QUERY_TILE = 64 };

/* Up to QUERY_TILE query rows of one sequence: the unit of work of attention. */
struct query_tile {
    int32_t seq;
    int64_t begin, n; /* rows of the sequence */
};

struct batch {
    int64_t rows, max_rows;
    int64_t dotted; /* rows from the first that go through the matrices as dot products, see linear_forward_split; */
                    /* -1: as the number of rows suggests */
    int64_t n_seqs, max_seqs;
    struct seq *seqs;
    int32_t *pos; /* [rows] */
    int64_t n_tiles;
    struct query_tile *tiles;
};

/* Room for max_rows rows in at most max_seqs sequences, owned by the arena. */
int batch_bind(struct batch *b, struct arena *arena, int64_t max_rows, int64_t max_seqs, struct err *err);

/* Empties the batch; then adds sequences one after another (they must fit). */
void batch_clear(struct batch *b);
void batch_add(struct batch *b, int64_t len, int64_t pos, struct kv_cache *kv);

/* Adds a sequence that goes on behind the first `shared` rows (at least one) of sequence number `trunk`. Neither has a cache. */
void batch_branch(struct batch *b, int64_t len, int64_t trunk, int64_t shared);

/* Empties the batch and adds n sequences of one length, without caches. */
void batch_uniform(struct batch *b, int64_t n, int64_t len);

#endif
