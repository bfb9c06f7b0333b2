/* One transformer block of the LLaMA family, forward and backward: the only code that knows what a block is.
 *
 *   xa = rmsnorm(x, attn)      q, k, v = xa Wq^T, xa Wk^T, xa Wv^T      q, k = rope(q), rope(k)
 *   mid = x + attention(q, k, v) Wo^T
 *   xf = rmsnorm(mid, ffn)     act = silu(xf Wgate^T) * (xf Wup^T)
 *   y = mid + act Wdown^T
 */
#ifndef ESPALIER_NN_BLOCK_H
#define ESPALIER_NN_BLOCK_H

#include "core/nn/attention.h"
#include "core/nn/linear.h"

enum proj { PROJ_Q, PROJ_K, PROJ_V, PROJ_O, PROJ_GATE, PROJ_UP, PROJ_DOWN, PROJ_COUNT };

/* The halves of a block, each of which adds to the residual stream and can be left out. */
enum { PART_ATTN = 1, PART_FFN = 2, PARTS_ALL = 3 };

/* The half that a projection belongs to. */
static inline unsigned proj_part(enum proj p)
{
    return p <= PROJ_O ? PART_ATTN : PART_FFN;
}

static inline int64_t parts_count(unsigned parts)
{
    return ((parts & PART_ATTN) != 0) + ((parts & PART_FFN) != 0);
}

struct block_shape {
    int64_t dim, ffn_dim;
    struct heads heads;
    float eps; /* of the norms */
};

struct block {
    struct weight proj[PROJ_COUNT];
    const float *bias[PROJ_COUNT];     /* NULL: none */
    const float *norm_attn, *norm_ffn; /* [dim] */
    unsigned parts;                    /* the halves that run */
    unsigned stored;                   /* the halves that the file has: those whose output projection is not zero */
};

/* The low-rank adapters of one block. */
struct block_lora {
    struct lora proj[PROJ_COUNT];
};

/* Cosine and sine of every position: [n_pos, head_dim / 2]. */
struct rope {
    int64_t n_pos;
    float *cos, *sin;
};

/* What a forward leaves for its backward. When nothing will go backward, one set serves every block in turn. */
struct block_acts {
    float *x_attn, *r_attn; /* [rows, dim] normed input, [rows] 1/rms */
    float *q, *k, *v;       /* [rows, heads * head_dim], [rows, kv_heads * head_dim] twice; after rope */
    float *att, *lse;       /* [rows, heads * head_dim], [rows, heads] */
    float *mid;             /* [rows, dim] */
    float *x_ffn, *r_ffn;   /* [rows, dim], [rows] */
    float *gate, *up, *act; /* [rows, ffn_dim] */
    float *t[PROJ_COUNT];   /* [rows, rank] LoRA's inner values */
};

/* Everything a pass through one block needs beside its input. */
struct block_pass {
    const struct compute *c;
    const struct block_shape *shape;
    const struct block *block;
    const struct block_lora *lora; /* or NULL */
    const struct rope *rope;
    const struct batch *batch;
    unsigned parts; /* the halves to run */
    int64_t slot;   /* this block's place in the KV caches */
    struct block_acts *acts;
    struct dropout dropout; /* of the LoRA inputs; its key is mixed with the projection's number */
};

/* y [rows, dim] = block(x [rows, dim]); y may be x (acts->mid may then be x too). */
void block_forward(const struct block_pass *p, float *y, const float *x);

/* Buffers of the backward; shared by all blocks. */
struct block_grads {
    float *d_dim;         /* [rows, dim] */
    float *d_gate, *d_up; /* [rows, ffn_dim] */
    float *d_att, *dq;    /* [rows, heads * head_dim] */
    float *dk, *dv;       /* [rows, kv_heads * head_dim] */
};

/* Who wants the gradients of the frozen weights (Taylor scores, tests). Members may be NULL. */
struct weight_sink {
    void *arg;
    /* dW = dy [rows, outputs]^T x [rows, inputs] is left to be formed as the receiver likes. */
    void (*proj)(void *arg, enum proj which, const float *dy, const float *x, int64_t rows);
    float *norm_attn, *norm_ffn; /* [dim], accumulated */
    float *bias[PROJ_COUNT];     /* accumulated */
};

/* d [rows, dim] comes in as the gradient by the output and leaves as the gradient by the input x. p->acts and p->dropout are
 * those of the forward. Gradients of LoRA matrices are accumulated; sink may be NULL. */
void block_backward(const struct block_pass *p, float *d, const float *x, struct block_grads *g, const struct weight_sink *sink);

int block_acts_bind(struct block_acts *a, struct arena *arena, const struct block_shape *s, int64_t rows, int64_t rank,
                    struct err *err);
int block_grads_bind(struct block_grads *g, struct arena *arena, const struct block_shape *s, int64_t rows, struct err *err);

/* Bytes that block_acts_bind takes. */
size_t block_acts_bytes(const struct block_shape *s, int64_t rows, int64_t rank);

/* y [rows, dim] = rmsnorm(x) w, r [rows] = 1/rms (or NULL). */
void norm_forward(const struct compute *c, float *y, float *r, const float *x, const float *w, float eps, int64_t rows,
                  int64_t dim);
/* dx += the derivative by x. */
void norm_backward(const struct compute *c, float *dx, const float *dy, const float *x, const float *w, const float *r,
                   int64_t rows, int64_t dim);
/* dw [dim] += sum over rows of dy x r. */
void norm_weight_gradient(const struct compute *c, float *dw, const float *dy, const float *x, const float *r, int64_t rows,
                          int64_t dim);

#endif
