#include "core/nn/block.h"

#include <string.h>

#include "core/nn/tile.h"

enum { ROWS_PER_TASK = 16 };

/* ---- elementwise steps over rows, forked only when there are enough rows to pay for it ---- */

struct rows_job {
    const struct block_pass *p;
    float *a, *b;
    const float *x;
    float sign;
    int64_t width;
};

static void rope_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct rows_job *j = arg;
    const struct heads *h = &j->p->shape->heads;
    const struct batch *b = j->p->batch;
    int64_t half = h->dim / 2, end = min_i64((task + 1) * ROWS_PER_TASK, b->rows);
    for (int64_t i = task * ROWS_PER_TASK; i < end; i++) {
        const float *cos = j->p->rope->cos + b->pos[i] * half, *sin = j->p->rope->sin + b->pos[i] * half;
        for (int64_t k = 0; k < h->n; k++)
            j->p->c->rows->rope(j->a + (i * h->n + k) * h->dim, cos, sin, j->sign, half);
        for (int64_t k = 0; k < h->n_kv; k++)
            j->p->c->rows->rope(j->b + (i * h->n_kv + k) * h->dim, cos, sin, j->sign, half);
    }
}

/* Rotary embedding (Su et al., arXiv 2104.09864) of q and k in place; sign -1 is the derivative, the rotation back. */
static void rope_apply(const struct block_pass *p, float *q, float *k, float sign)
{
    struct rows_job j = {.p = p, .a = q, .b = k, .sign = sign};
    pool_run(p->c->pool, rope_task, &j, ceil_div(p->batch->rows, ROWS_PER_TASK));
}

static void swiglu_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct rows_job *j = arg;
    int64_t i = task * ROWS_PER_TASK * j->width, n = min_i64(ROWS_PER_TASK * j->width, j->p->batch->rows * j->width - i);
    const struct block_acts *a = j->p->acts;
    j->p->c->rows->swiglu(a->act + i, a->gate + i, a->up + i, n);
}

/* a = gradient by act on entry, by gate on leaving; b = gradient by up. */
static void swiglu_backward_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    struct rows_job *j = arg;
    int64_t i = task * ROWS_PER_TASK * j->width, n = min_i64(ROWS_PER_TASK * j->width, j->p->batch->rows * j->width - i);
    const struct block_acts *a = j->p->acts;
    j->p->c->rows->swiglu_backward(j->a + i, j->b + i, j->a + i, a->gate + i, a->up + i, n);
}

/* ---- the block ---- */

static struct linear projection(const struct block_pass *p, enum proj which)
{
    struct linear op = {.w = &p->block->proj[which], .bias = p->block->bias[which]};
    if (p->lora && p->lora->proj[which].rank > 0) {
        op.lora = &p->lora->proj[which];
        op.t = p->acts->t[which];
        op.dropout = p->dropout;
        op.dropout.key += 0x9e3779b97f4a7c15u * (uint64_t)(which + 1);
    }
    return op;
}

/* The batch's rows through n projections of one input. */
static void project(const struct block_pass *p, float *const y[], const struct linear ops[], int n, const float *x, bool accumulate)
{
    const struct batch *b = p->batch;
    if (b->dotted < 0)
        linear_forward(p->c, y, ops, n, x, b->rows, accumulate);
    else
        linear_forward_split(p->c, y, ops, n, x, b->rows, b->dotted, accumulate);
}

static void attention_half(const struct block_pass *p, const float *x)
{
    const struct compute *c = p->c;
    const struct block_shape *s = p->shape;
    struct block_acts *a = p->acts;
    int64_t rows = p->batch->rows;
    struct linear op[] = {projection(p, PROJ_Q), projection(p, PROJ_K), projection(p, PROJ_V), projection(p, PROJ_O)};
    norm_forward(c, a->x_attn, a->r_attn, x, p->block->norm_attn, s->eps, rows, s->dim);
    project(p, (float *[]){a->q, a->k, a->v}, op, 3, a->x_attn, false);
    rope_apply(p, a->q, a->k, 1);
    kv_append(a->k, a->v, p->batch, p->slot, &s->heads);
    attention_forward(c, a->att, a->lse, a->q, a->k, a->v, p->batch, p->slot, &s->heads);
    project(p, &a->mid, &op[3], 1, a->att, true);
}

static void ffn_half(const struct block_pass *p, float *y)
{
    const struct compute *c = p->c;
    const struct block_shape *s = p->shape;
    struct block_acts *a = p->acts;
    int64_t rows = p->batch->rows;
    struct linear op[] = {projection(p, PROJ_GATE), projection(p, PROJ_UP), projection(p, PROJ_DOWN)};
    norm_forward(c, a->x_ffn, a->r_ffn, a->mid, p->block->norm_ffn, s->eps, rows, s->dim);
    project(p, (float *[]){a->gate, a->up}, op, 2, a->x_ffn, false);
    struct rows_job j = {.p = p, .width = s->ffn_dim};
    pool_run(c->pool, swiglu_task, &j, ceil_div(rows, ROWS_PER_TASK));
    project(p, &y, &op[2], 1, a->act, true);
}

void block_forward(const struct block_pass *p, float *y, const float *x)
{
    float *mid = p->acts->mid;
    size_t stream_bytes = (size_t)(p->batch->rows * p->shape->dim) * sizeof *y;
    if (mid != x)
        memcpy(mid, x, stream_bytes);
    if (p->parts & PART_ATTN)
        attention_half(p, x);
    if (y != mid)
        memcpy(y, mid, stream_bytes);
    if (p->parts & PART_FFN)
        ffn_half(p, y);
}

/* dx += dy W, and tell the sink. */
static void projection_backward(const struct block_pass *p, enum proj which, float *dx, const float *dy, const float *x,
                                const struct weight_sink *sink)
{
    struct linear op = projection(p, which);
    int64_t rows = p->batch->rows, n = op.w->rows;
    linear_backward(p->c, dx, dy, &op, x, rows);
    if (sink && sink->proj)
        sink->proj(sink->arg, which, dy, x, rows);
    if (sink && sink->bias[which])
        for (int64_t i = 0; i < rows; i++)
            p->c->rows->add(sink->bias[which], dy + i * n, n);
}

/* y = mid + act Wdown^T: d, the gradient by y, becomes the gradient by mid. */
static void ffn_backward(const struct block_pass *p, float *d, struct block_grads *g, const struct weight_sink *sink)
{
    const struct compute *c = p->c;
    const struct block_shape *s = p->shape;
    const struct block_acts *a = p->acts;
    int64_t rows = p->batch->rows;
    memset(g->d_gate, 0, (size_t)(rows * s->ffn_dim) * sizeof *d);
    projection_backward(p, PROJ_DOWN, g->d_gate, d, a->act, sink);
    struct rows_job j = {.p = p, .a = g->d_gate, .b = g->d_up, .width = s->ffn_dim};
    pool_run(c->pool, swiglu_backward_task, &j, ceil_div(rows, ROWS_PER_TASK));
    memset(g->d_dim, 0, (size_t)(rows * s->dim) * sizeof *d);
    projection_backward(p, PROJ_GATE, g->d_dim, g->d_gate, a->x_ffn, sink);
    projection_backward(p, PROJ_UP, g->d_dim, g->d_up, a->x_ffn, sink);
    norm_backward(c, d, g->d_dim, a->mid, p->block->norm_ffn, a->r_ffn, rows, s->dim);
    if (sink && sink->norm_ffn)
        norm_weight_gradient(c, sink->norm_ffn, g->d_dim, a->mid, a->r_ffn, rows, s->dim);
}

/* mid = x + att Wo^T: d, the gradient by mid, becomes the gradient by x. */
static void attention_half_backward(const struct block_pass *p, float *d, const float *x, struct block_grads *g,
                                    const struct weight_sink *sink)
{
    const struct compute *c = p->c;
    const struct block_shape *s = p->shape;
    const struct block_acts *a = p->acts;
    int64_t rows = p->batch->rows;
    memset(g->d_att, 0, (size_t)(rows * s->heads.n * s->heads.dim) * sizeof *d);
    projection_backward(p, PROJ_O, g->d_att, d, a->att, sink);
    attention_backward(c, g->dq, g->dk, g->dv, g->d_att, a->att, a->lse, a->q, a->k, a->v, p->batch, &s->heads);
    rope_apply(p, g->dq, g->dk, -1);
    memset(g->d_dim, 0, (size_t)(rows * s->dim) * sizeof *d);
    projection_backward(p, PROJ_Q, g->d_dim, g->dq, a->x_attn, sink);
    projection_backward(p, PROJ_K, g->d_dim, g->dk, a->x_attn, sink);
    projection_backward(p, PROJ_V, g->d_dim, g->dv, a->x_attn, sink);
    norm_backward(c, d, g->d_dim, x, p->block->norm_attn, a->r_attn, rows, s->dim);
    if (sink && sink->norm_attn)
        norm_weight_gradient(c, sink->norm_attn, g->d_dim, x, a->r_attn, rows, s->dim);
}

void block_backward(const struct block_pass *p, float *d, const float *x, struct block_grads *g, const struct weight_sink *sink)
{
    if (p->parts & PART_FFN)
        ffn_backward(p, d, g, sink);
    if (p->parts & PART_ATTN)
        attention_half_backward(p, d, x, g, sink);
}

/* ---- buffers ---- */

/* One table says how wide each buffer is, for binding and for counting. */
static int64_t acts_table(struct block_acts *a, float **where[], int64_t width[], const struct block_shape *s, int64_t rank)
{
    int64_t q = s->heads.n * s->heads.dim, kv = s->heads.n_kv * s->heads.dim, n = 0;
    struct {
        float **p;
        int64_t w;
    } row[] = {
        {&a->x_attn, s->dim},
        {&a->r_attn, 1},
        {&a->q, q},
        {&a->k, kv},
        {&a->v, kv},
        {&a->att, q},
        {&a->lse, s->heads.n},
        {&a->mid, s->dim},
        {&a->x_ffn, s->dim},
        {&a->r_ffn, 1},
        {&a->gate, s->ffn_dim},
        {&a->up, s->ffn_dim},
        {&a->act, s->ffn_dim},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++, n++) {
        where[n] = row[i].p;
        width[n] = row[i].w;
    }
    for (int i = 0; i < PROJ_COUNT && rank > 0; i++, n++) {
        where[n] = &a->t[i];
        width[n] = rank;
    }
    return n;
}

int block_acts_bind(struct block_acts *a, struct arena *arena, const struct block_shape *s, int64_t rows, int64_t rank,
                    struct err *err)
{
    float **where[32];
    int64_t width[32];
    *a = (struct block_acts){0};
    int64_t n = acts_table(a, where, width, s, rank);
    for (int64_t i = 0; i < n; i++)
        if (!(*where[i] = arena_alloc(arena, (size_t)rows, (size_t)width[i] * sizeof(float), err)))
            return -1;
    return 0;
}

size_t block_acts_bytes(const struct block_shape *s, int64_t rows, int64_t rank)
{
    float **where[32];
    int64_t width[32], sum = 0;
    struct block_acts a;
    for (int64_t n = acts_table(&a, where, width, s, rank); n > 0; n--)
        sum += width[n - 1];
    return (size_t)(sum * rows) * sizeof(float);
}

int block_grads_bind(struct block_grads *g, struct arena *arena, const struct block_shape *s, int64_t rows, struct err *err)
{
    int64_t q = s->heads.n * s->heads.dim, kv = s->heads.n_kv * s->heads.dim;
    struct {
        float **p;
        int64_t w;
    } row[] = {{&g->d_dim, s->dim}, {&g->d_gate, s->ffn_dim}, {&g->d_up, s->ffn_dim}, {&g->d_att, q}, {&g->dq, q}, {&g->dk, kv},
               {&g->dv, kv}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (!(*row[i].p = arena_alloc(arena, (size_t)rows, (size_t)row[i].w * sizeof(float), err)))
            return -1;
    return 0;
}
