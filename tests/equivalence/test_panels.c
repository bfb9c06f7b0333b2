/* Weights too large for the panel buffer go through it part by part: products, gradients and the head against the same in float64,
 * from floats that need no decoding and from a 16-bit format. */
#include "tests/fixtures/fixture.h"

#include "core/nn/head.h"

enum { X = 9 }; /* rows of x */

struct shape {
    int64_t rows, cols;
};
static struct shape wide = {600, 16384}, /* the buffer holds 256 rows: three panels, the last one shorter */
    tall = {4000, 40};                   /* one panel of several tiles of logits; columns that fill no tile */

struct sheet {
    struct compute c;
    int64_t rows, cols;
    uint16_t *halves;
    float *floats, *x, *dy, *norm;
    struct weight weights[2]; /* the same numbers as f32 and as bf16 */
    int32_t targets[X];
};

static double *doubles(int64_t n)
{
    double *v = calloc((size_t)n, sizeof *v);
    assert_non_null(v);
    return v;
}

static int sheet_open(void **state)
{
    const struct shape *shape = *state;
    struct sheet *w = calloc(1, sizeof *w);
    struct rng rng;
    int64_t n = shape->rows * shape->cols;
    assert_non_null(w);
    w->rows = shape->rows;
    w->cols = shape->cols;
    OK(compute_open(&w->c, 2, PRECISION_F32, &err));
    rng_seed(&rng, 26);
    w->halves = calloc((size_t)n, sizeof *w->halves);
    w->floats = floats(n);
    w->x = floats(X * w->cols);
    w->dy = floats(X * w->rows);
    w->norm = floats(w->cols);
    assert_non_null(w->halves);
    for (int64_t i = 0; i < n; i++) {
        w->halves[i] = (uint16_t)(0x3c00 + (rng_u32(&rng) & 0x80ff)); /* +- 2^-7 to 2^-5 */
        w->floats[i] = bf16_to_f32(w->halves[i]);
    }
    fill_random(w->x, X * w->cols, 1, &rng);
    fill_random(w->dy, X * w->rows, 1, &rng);
    fill_random(w->norm, w->cols, 1, &rng);
    for (int i = 0; i < X; i++)
        w->targets[i] = (int32_t)rng_below(&rng, w->rows);
    w->targets[0] = 0;
    w->targets[1] = (int32_t)(w->rows - 1);
    w->weights[0] = (struct weight){
        .dtype = DTYPE_F32, .rows = w->rows, .cols = w->cols, .data = (void *)w->floats, .row_bytes = 4 * (size_t)w->cols};
    w->weights[1] = (struct weight){
        .dtype = DTYPE_BF16, .rows = w->rows, .cols = w->cols, .data = (void *)w->halves, .row_bytes = 2 * (size_t)w->cols};
    *state = w;
    return 0;
}

static int sheet_close(void **state)
{
    struct sheet *w = *state;
    compute_close(&w->c);
    free(w->halves);
    free(w->floats);
    free(w->x);
    free(w->dy);
    free(w->norm);
    free(w);
    return 0;
}

/* |a - b| against the size of all of b: sums of up to 16,384 products cancel to values of any size. */
static void assert_close_in_norm(const float *a, const double *b, int64_t n, const char *what)
{
    double off = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        off = fmax(off, fabs((double)a[i] - b[i]));
        size += b[i] * b[i];
    }
    if (!(off <= 2e-5 * sqrt(size / (double)n)))
        fail_msg("%s: off by %g where %g is typical", what, off, sqrt(size / (double)n));
}

/* y [X, rows] = x W^T */
static void naive_forward(double *y, const struct sheet *w, const double *x)
{
    for (int64_t i = 0; i < X; i++)
        for (int64_t r = 0; r < w->rows; r++) {
            double sum = 0;
            for (int64_t k = 0; k < w->cols; k++)
                sum += x[i * w->cols + k] * (double)w->floats[r * w->cols + k];
            y[i * w->rows + r] = sum;
        }
}

/* dx [X, cols] += dy W, dw [rows, cols] += dy^T x */
static void naive_backward(double *dx, double *dw, const struct sheet *w, const double *dy, const double *x)
{
    for (int64_t i = 0; i < X; i++)
        for (int64_t r = 0; r < w->rows; r++)
            for (int64_t k = 0; k < w->cols; k++) {
                dx[i * w->cols + k] += dy[i * w->rows + r] * (double)w->floats[r * w->cols + k];
                dw[r * w->cols + k] += dy[i * w->rows + r] * x[i * w->cols + k];
            }
}

static double *widened(const float *v, int64_t n)
{
    double *d = doubles(n);
    for (int64_t i = 0; i < n; i++)
        d[i] = (double)v[i];
    return d;
}

static void linear_in_panels(void **state)
{
    struct sheet *w = *state;
    double *x = widened(w->x, X * w->cols), *dy = widened(w->dy, X * w->rows), *y_want = doubles(X * w->rows);
    double *dx_want = doubles(X * w->cols), *dw_want = doubles(w->rows * w->cols);
    naive_forward(y_want, w, x);
    naive_backward(dx_want, dw_want, w, dy, x);
    for (int kind = 0; kind < 2; kind++) {
        struct linear op = {.w = &w->weights[kind]};
        float *y = floats(X * w->rows), *dx = floats(X * w->cols), *dw = floats(w->rows * w->cols);
        linear_forward(&w->c, &y, &op, 1, w->x, X, false);
        assert_close_in_norm(y, y_want, X * w->rows, "forward");
        linear_forward(&w->c, &y, &op, 1, w->x, 4, false);
        assert_close_in_norm(y, y_want, 4 * w->rows, "forward of few rows");
        linear_backward(&w->c, dx, w->dy, &op, w->x, X);
        assert_close_in_norm(dx, dx_want, X * w->cols, "backward");
        for (int64_t first = 0; first < w->rows; first += 250) { /* some rows of dw at a time */
            int64_t n = w->rows - first < 250 ? w->rows - first : 250;
            linear_weight_gradient(&w->c, dw + first * w->cols, w->dy, w->x, X, w->rows, w->cols, first, n);
        }
        assert_close_in_norm(dw, dw_want, w->rows * w->cols, "gradient of the weights");
        free(y), free(dx), free(dw);
    }
    free(x), free(dy), free(y_want), free(dx_want), free(dw_want);
}

/* ---- the head ---- */

static const float eps = 1e-5f;

struct head_result {
    double nll[X], best[X], *dx, *dw, *dnorm;
};

static void naive_losses(struct head_result *r, double *gradient, const struct sheet *w, const double *logits)
{
    for (int64_t i = 0; i < X; i++) {
        const double *l = logits + i * w->rows;
        double sum = 0;
        r->best[i] = l[0];
        for (int64_t v = 0; v < w->rows; v++)
            r->best[i] = fmax(r->best[i], l[v]);
        for (int64_t v = 0; v < w->rows; v++)
            sum += exp(l[v] - r->best[i]);
        r->nll[i] = r->best[i] + log(sum) - l[w->targets[i]];
        for (int64_t v = 0; v < w->rows; v++)
            gradient[i * w->rows + v] = (double)w->dy[i] * (exp(l[v] - r->best[i]) / sum - (v == w->targets[i]));
    }
}

/* The head by its formulas: y = x r w with r = 1/rms, logits = y W^T, and back. */
static void naive_head(struct head_result *r, const struct sheet *w)
{
    double *normed = doubles(X * w->cols), *logits = doubles(X * w->rows), *gradient = doubles(X * w->rows),
           *dy = doubles(X * w->cols), rms[X];
    r->dx = doubles(X * w->cols);
    r->dw = doubles(w->rows * w->cols);
    r->dnorm = doubles(w->cols);
    for (int64_t i = 0; i < X; i++) {
        double square = 0;
        for (int64_t k = i * w->cols; k < (i + 1) * w->cols; k++)
            square += (double)w->x[k] * (double)w->x[k];
        rms[i] = 1 / sqrt(square / (double)w->cols + (double)eps);
        for (int64_t k = 0; k < w->cols; k++)
            normed[i * w->cols + k] = (double)w->x[i * w->cols + k] * rms[i] * (double)w->norm[k];
    }
    naive_forward(logits, w, normed);
    naive_losses(r, gradient, w, logits);
    naive_backward(dy, r->dw, w, gradient, normed);
    for (int64_t i = 0; i < X; i++) {
        const double *d = dy + i * w->cols;
        const float *x = w->x + i * w->cols;
        double sum = 0;
        for (int64_t k = 0; k < w->cols; k++) {
            sum += (double)w->norm[k] * d[k] * (double)x[k];
            r->dnorm[k] += d[k] * (double)x[k] * rms[i];
        }
        for (int64_t k = 0; k < w->cols; k++)
            r->dx[i * w->cols + k] =
                rms[i] * (double)w->norm[k] * d[k] - (double)x[k] * rms[i] * rms[i] * rms[i] / (double)w->cols * sum;
    }
    free(normed), free(logits), free(gradient), free(dy);
}

static void head_in_panels(void **state)
{
    struct sheet *w = *state;
    struct head_result want;
    naive_head(&want, w);
    for (int kind = 0; kind < 2; kind++) {
        struct head h = {.w = w->weights[kind], .norm = w->norm, .eps = eps};
        struct head_acts acts;
        struct arena arena = {0};
        float nll[X], *scratch = floats(X * w->cols), *dx = floats(X * w->cols), *dw = floats(w->rows * w->cols),
                      *dnorm = floats(w->cols);
        OK(head_acts_bind(&acts, &arena, &h, X, &err));
        head_nll(&w->c, nll, &h, &acts, w->x, w->targets, X);
        assert_close_in_norm(nll, want.nll, X, "losses");
        assert_close_in_norm(acts.best, want.best, X, "largest logits");
        head_backward(&w->c, dx, dw, dnorm, scratch, &h, &acts, w->x, w->targets, w->dy, X);
        assert_close_in_norm(dx, want.dx, X * w->cols, "dx");
        assert_close_in_norm(dw, want.dw, w->rows * w->cols, "dw");
        assert_close_in_norm(dnorm, want.dnorm, w->cols, "dnorm");
        arena_free(&arena);
        free(scratch), free(dx), free(dw), free(dnorm);
    }
    free(want.dx), free(want.dw), free(want.dnorm);
}

/* ---- side by side ---- */

/* Three weights on one input that nearly fill the buffer together, with rows that are no multiple of any tile: every output is
 * there, on every instruction set, and the same as from each alone. */
static void ops_that_just_fit(void **state)
{
    enum { K = 1024, MOST = 2000, SIDE = 7 };
    struct sheet *w = *state;
    static const int64_t rows[3] = {2000, 1096, 1000};
    const struct gemm_kernels *kernels[MAX_PRODUCTS], *best = w->c.gemm;
    int n_kernels = products_of_machine(kernels);
    struct weight weights[3];
    struct linear ops[3] = {{.w = &weights[0]}, {.w = &weights[1]}, {.w = &weights[2]}};
    float *together[3], *alone = floats(SIDE * MOST);
    for (int k = 0; k < 3; k++) {
        together[k] = floats(SIDE * MOST);
        weights[k] = (struct weight){
            .dtype = DTYPE_BF16, .rows = rows[k], .cols = K, .data = (void *)(w->halves + 1000 * k), .row_bytes = 2 * K};
    }
    for (int kind = 0; kind < n_kernels; kind++) {
        w->c.gemm = kernels[kind];
        linear_forward(&w->c, together, ops, 3, w->x, SIDE, false);
        for (int k = 0; k < 3; k++) {
            linear_forward(&w->c, &alone, &ops[k], 1, w->x, SIDE, false);
            assert_same_bits(together[k], alone, (size_t)(SIDE * rows[k]) * sizeof *alone, "side by side");
            memset(together[k], 0, (size_t)(SIDE * MOST) * sizeof *alone);
        }
    }
    w->c.gemm = best;
    for (int k = 0; k < 3; k++)
        free(together[k]);
    free(alone);
}

#define ON_BOTH_SHAPES(fn)                                                                                                         \
    {#fn " (wide)", fn, sheet_open, sheet_close, &wide},                                                                           \
    {                                                                                                                              \
#fn " (tall)", fn, sheet_open, sheet_close, &tall                                                                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH_SHAPES(linear_in_panels),
        ON_BOTH_SHAPES(head_in_panels),
        {"ops_that_just_fit", ops_that_just_fit, sheet_open, sheet_close, &wide},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
