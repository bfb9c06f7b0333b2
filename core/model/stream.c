#include "core/model/stream.h"

#include <sys/mman.h>

/* What is in use; in the arena of a model that is otherwise not changed by running it. */
struct stream {
    int64_t in_use; /* a block, n_blocks for the head, or -1 */
};

int model_stream(struct model *m, struct err *err)
{
    if (m->stream)
        return 0;
    if (!(m->stream = arena_alloc(&m->arena, 1, sizeof *m->stream, err)))
        return -1;
    m->stream->in_use = -1;
    return 0;
}

size_t model_bytes(const struct model *m)
{
    size_t n = 0;
    for (int64_t i = 0; i < m->src.n_tensors; i++)
        n += m->src.tensors[i].bytes;
    return n;
}

void model_advise_rows(const struct model *m, const struct weight *w, int64_t first, int64_t n, enum rows_advice what)
{
    if (!w->data) /* a shape without values */
        return;
    source_advise(&m->src, w->data + (size_t)first * w->row_bytes, (size_t)n * w->row_bytes,
                  what == ROWS_AHEAD ? MADV_WILLNEED : MADV_DONTNEED);
}

static void advise(const struct model *m, int64_t block, enum rows_advice what)
{
    if (block == m->cfg.n_blocks)
        model_advise_rows(m, &m->head.w, 0, m->head.w.rows, what);
    else if (block >= 0)
        for (int p = 0; p < PROJ_COUNT; p++)
            if (m->blocks[block].parts & proj_part((enum proj)p))
                model_advise_rows(m, &m->blocks[block].proj[p], 0, m->blocks[block].proj[p].rows, what);
}

/* Where a block comes in the order that blocks run in; the head comes last. */
static int64_t place(const struct model *m, int64_t block)
{
    int64_t k = 0;
    while (k < m->n_order && m->order[k] != block)
        k++;
    return k;
}

void model_use(const struct model *m, int64_t block)
{
    struct stream *s = m->stream;
    if (!s || s->in_use == block)
        return;
    int64_t here = place(m, block), next = here + (s->in_use >= 0 && place(m, s->in_use) > here ? -1 : 1);
    if (here == 0)
        next = 1; /* from the head back to the first block: a new pass */
    advise(m, s->in_use, ROWS_DONE);
    if (next >= 0 && next <= m->n_order)
        advise(m, next == m->n_order ? m->cfg.n_blocks : m->order[next], ROWS_AHEAD);
    s->in_use = block;
}
