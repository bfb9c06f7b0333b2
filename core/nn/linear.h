/* y = x W^T + bias, with W in its file's dtype, an optional LoRA beside it, and the derivatives. */
#ifndef ESPALIER_NN_LINEAR_H
#define ESPALIER_NN_LINEAR_H

#include <stdbool.h>
#include <stdint.h>

#include "core/kernel/compute.h"

/* A [rows, cols] weight as it lies in the file. Row r of the Hugging Face order is found by weight_row: GGUF files of the
 * architecture "llama" store the rows of q and k as interleaved rope pairs, Hugging Face files as two halves of a head. */
struct weight {
    enum dtype dtype;
    int64_t rows, cols; /* outputs, inputs */
    const uint8_t *data;
    size_t row_bytes;
    int64_t pair_dim;   /* head_dim where each head's rows are interleaved pairs, else 0 */
    const float *scale; /* [rows], in the Hugging Face order: what the row's decoded values are times; NULL: 1 */
};

/* Where row r of the Hugging Face order lies. */
static inline int64_t paired_row(int64_t r, int64_t pair_dim)
{
    if (!pair_dim)
        return r;
    int64_t half = pair_dim / 2, in_head = r % pair_dim;
    return r - in_head + (in_head < half ? 2 * in_head : 2 * (in_head - half) + 1);
}

static inline const void *weight_row(const struct weight *w, int64_t r)
{
    return w->data + (size_t)paired_row(r, w->pair_dim) * w->row_bytes;
}

/* Decodes rows [first, first + n) into out[n, cols], on the calling thread. */
void weight_decode(const struct compute *c, float *out, const struct weight *w, int64_t first, int64_t n);

/* Rows [first, first + n) of a weight as floats. */
struct panel {
    int64_t first, n;
    const float *data; /* [n, cols]; in the compute's panel buffer, or the file's own floats */
};

/* Rows of so many columns that the panel buffer holds as floats: a multiple of GEMM_UNIT_N. */
int64_t panel_rows(int64_t cols);

/* panel_rows from `first` on, or all that are left. */
struct panel panel_load(const struct compute *c, const struct weight *w, int64_t first);

/* The same, packed as the right-hand side W^T [cols, n] of gemm_packed in the first `size` floats of the panel buffer. */
struct panel panel_pack(const struct compute *c, const struct weight *w, int64_t first, int64_t size);

/* Rows [first, first + n), packed as the right-hand side W [n, cols] in `room`, packed_floats of cols and n. Returns room. */
const float *panel_pack_across(const struct compute *c, const struct weight *w, int64_t first, int64_t n, float *room);

/* Low-rank adaptation (Hu et al., arXiv 2106.09685): y += scale * dropout(x) A^T B^T. */
struct lora {
    int64_t rank;   /* 0: none here */
    float scale;    /* alpha / rank */
    float *a, *b;   /* [rank, cols], [rows, rank] */
    float *da, *db; /* gradients of the same shapes, accumulated; NULL when not training */
};

/* Inverted dropout on the input of A. threshold / 2^32 is the probability of zero; 0 is no dropout. */
struct dropout {
    uint64_t key;
    uint32_t threshold;
    float scale; /* 1 / (1 - p) */
};

/* Up to here linear_forward takes dot products, decoding the file's bytes on the way; above, it decodes and packs once, then
 * multiplies. */
enum { LINEAR_FEW_ROWS = 32 };

/* One projection of a pass. */
struct linear {
    const struct weight *w;
    const float *bias;       /* [w->rows] or NULL */
    const struct lora *lora; /* or NULL */
    struct dropout dropout;
    float *t; /* [rows, rank]: dropout(x) A^T, kept for the backward; NULL without LoRA */
};

/* y[i] [rows, ops[i].w->rows] = (accumulate ? y[i] : 0) + x [rows, cols] W_i^T + bias_i + LoRA_i, for n ops on the same x. */
void linear_forward(const struct compute *c, float *const y[], const struct linear ops[], int n, const float *x, int64_t rows,
                    bool accumulate);

/* The same, but rows [0, dotted) are dot products and the others a product of packed matrices, however many there are of each. So
 * a row's bits depend on which of the two it is, never on the rows beside it (but for LoRA among the packed ones, whose products
 * are cut at every 64th). dotted <= rows. */
void linear_forward_split(const struct compute *c, float *const y[], const struct linear ops[], int n, const float *x, int64_t rows,
                          int64_t dotted, bool accumulate);

/* dx [rows, cols] += dy [rows, w->rows] W + the LoRA's part; where lora->da is set, da and db += their gradients.
 * x is the forward's input; it is read only for the LoRA gradients and may be NULL without them. */
void linear_backward(const struct compute *c, float *dx, const float *dy, const struct linear *op, const float *x, int64_t rows);

/* dw [outputs, cols] += dy [rows, outputs]^T x [rows, cols], for rows [first, first + n) of dw only; dw points at row `first`. Uses
 * the panel buffer. */
void linear_weight_gradient(const struct compute *c, float *dw, const float *dy, const float *x, int64_t rows, int64_t outputs,
                            int64_t cols, int64_t first, int64_t n);

#endif
