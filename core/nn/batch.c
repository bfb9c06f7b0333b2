#include "core/nn/batch.h"

#include <assert.h>

#include "core/nn/tile.h"

int batch_bind(struct batch *b, struct arena *arena, int64_t max_rows, int64_t max_seqs, struct err *err)
{
    *b = (struct batch){.max_rows = max_rows, .max_seqs = max_seqs};
    b->seqs = arena_alloc(arena, (size_t)max_seqs, sizeof *b->seqs, err);
    b->pos = arena_alloc(arena, (size_t)max_rows, sizeof *b->pos, err);
    b->tiles = arena_alloc(arena, (size_t)(max_rows / QUERY_TILE + max_seqs), sizeof *b->tiles, err);
    return b->seqs && b->pos && b->tiles ? 0 : -1;
}

void batch_clear(struct batch *b)
{
    b->rows = b->n_seqs = b->n_tiles = 0;
    b->dotted = -1;
}

static void add(struct batch *b, struct seq s)
{
    assert(b->rows + s.len <= b->max_rows && b->n_seqs < b->max_seqs);
    s.row = b->rows;
    b->seqs[b->n_seqs] = s;
    for (int64_t i = 0; i < s.len; i++)
        b->pos[b->rows + i] = (int32_t)(s.pos + i);
    for (int64_t i = 0; i < s.len; i += QUERY_TILE)
        b->tiles[b->n_tiles++] = (struct query_tile){(int32_t)b->n_seqs, i, min_i64(QUERY_TILE, s.len - i)};
    b->n_seqs++;
    b->rows += s.len;
}

void batch_add(struct batch *b, int64_t len, int64_t pos, struct kv_cache *kv)
{
    add(b, (struct seq){.len = len, .pos = pos, .kv = kv});
}

void batch_branch(struct batch *b, int64_t len, int64_t trunk, int64_t shared)
{
    const struct seq *t = &b->seqs[trunk];
    assert(trunk < b->n_seqs && shared > 0 && shared <= t->len && !t->kv);
    add(b, (struct seq){.len = len, .pos = t->pos + shared, .trunk = t});
}

void batch_uniform(struct batch *b, int64_t n, int64_t len)
{
    batch_clear(b);
    for (int64_t i = 0; i < n; i++)
        batch_add(b, len, 0, NULL);
}
