/* One projection with LoRA, dropout and bias, forward and back, against plain loops in double: shapes that need several of every
 * tile, strip and chunk, which the small models of the other tests do not. */
#include "tests/fixtures/fixture.h"

#include "core/nn/linear.h"

/* More columns than two strips of 128, more outputs than one tile of 512, more rows than one strip of 2,048 masked inputs. */
enum { ROWS = 2100, COLS = 300, OUT = 530, RANK = 5 };

struct shape {
    float *w, *bias, *x, *dy, *y, *dx, *masked; /* [OUT, COLS], [OUT], [ROWS, COLS], [ROWS, OUT], ... */
    struct lora lora;
    struct weight weight;
    struct linear op;
    struct compute c;
    int64_t rows; /* in use */
};

static int shape_open(void **state)
{
    struct shape *s = calloc(1, sizeof *s);
    struct rng rng;
    assert_non_null(s);
    rng_seed(&rng, 41);
    OK(compute_open(&s->c, 2, PRECISION_F32, &err));
    struct {
        float **p;
        int64_t n;
    } buffers[] = {
        {&s->w, OUT * COLS},        {&s->bias, OUT},           {&s->x, ROWS * COLS},
        {&s->dy, ROWS * OUT},       {&s->y, ROWS * OUT},       {&s->dx, ROWS * COLS},
        {&s->masked, ROWS * COLS},  {&s->lora.a, RANK * COLS}, {&s->lora.b, OUT * RANK},
        {&s->lora.da, RANK * COLS}, {&s->lora.db, OUT * RANK}, {&s->op.t, ROWS * RANK},
    };
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        *buffers[i].p = floats(buffers[i].n);
        fill_random(*buffers[i].p, buffers[i].n, 1, &rng); /* results too: what lies there is added to or written over */
    }
    s->lora.rank = RANK;
    s->lora.scale = 0.7f;
    s->weight = (struct weight){DTYPE_F32, OUT, COLS, (const uint8_t *)s->w, COLS * sizeof(float), 0, NULL};
    s->op.w = &s->weight;
    s->op.bias = s->bias;
    s->op.lora = &s->lora;
    s->op.dropout = (struct dropout){.key = 77ull << 33 | 5, .threshold = 1u << 30, .scale = 4.0f / 3};
    /* The mask of the whole input at once: element i of x has place i. (test_isa.c proves the mask itself.) */
    rows_portable.dropout(s->masked, s->x, s->op.dropout.key, 0, s->op.dropout.threshold, s->op.dropout.scale, ROWS * COLS);
    *state = s;
    return 0;
}

static int shape_close(void **state)
{
    struct shape *s = *state;
    float *all[] = {s->w, s->bias, s->x, s->dy, s->y, s->dx, s->masked, s->lora.a, s->lora.b, s->lora.da, s->lora.db, s->op.t};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    compute_close(&s->c);
    free(s);
    return 0;
}

/* Random sums of k products of values below 1: float32 keeps them to about sqrt(k) half units of a few; seen: a quarter of this. */
static void check(float got, double want, int64_t k, const char *what, int64_t i, int64_t j)
{
    if (!(fabs((double)got - want) <= 4 * EPS * (double)k + 8 * EPS * fabs(want)))
        fail_msg("%s [%lld, %lld]: %.9g, expected %.9g", what, (long long)i, (long long)j, (double)got, want);
}

/* t [ROWS, RANK] = masked x A^T and scale dy B, in double. */
static double *inner(const struct shape *s, bool backward)
{
    double *t = calloc((size_t)(s->rows * RANK), sizeof *t);
    assert_non_null(t);
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t r = 0; r < RANK; r++) {
            double sum = 0;
            for (int64_t k = 0; k < (backward ? OUT : COLS); k++)
                sum += backward ? (double)s->dy[i * OUT + k] * (double)s->lora.b[k * RANK + r]
                                : (double)s->masked[i * COLS + k] * (double)s->lora.a[r * COLS + k];
            t[i * RANK + r] = backward ? (double)s->lora.scale * sum : sum;
        }
    return t;
}

static void check_forward(struct shape *s, bool accumulate)
{
    float *before = floats(s->rows * OUT);
    double *t = inner(s, false);
    memcpy(before, s->y, (size_t)(s->rows * OUT) * sizeof *before);
    linear_forward(&s->c, &s->y, &s->op, 1, s->x, s->rows, accumulate);
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t o = 0; o < OUT; o++) {
            double want = (accumulate ? (double)before[i * OUT + o] : 0) + (double)s->bias[o];
            for (int64_t k = 0; k < COLS; k++)
                want += (double)s->x[i * COLS + k] * (double)s->w[o * COLS + k];
            for (int64_t r = 0; r < RANK; r++)
                want += (double)s->lora.scale * t[i * RANK + r] * (double)s->lora.b[o * RANK + r];
            check(s->y[i * OUT + o], want, COLS, "y", i, o);
        }
    free(before);
    free(t);
}

static void forward(void **state)
{
    struct shape *s = *state;
    static const int64_t rows[] = {1, 5, 6, 7, 300};
    for (int i = 0; i < 5; i++) {
        s->rows = rows[i];
        check_forward(s, false);
        check_forward(s, true);
    }
}

/* dx of some rows; a whole one would take a second. */
static void check_input_gradient(const struct shape *s, const float *before, const double *dt)
{
    for (int64_t i = 0; i < s->rows; i += 37)
        for (int64_t k = 0; k < COLS; k++) {
            double want = (double)before[i * COLS + k], low = 0;
            for (int64_t o = 0; o < OUT; o++)
                want += (double)s->dy[i * OUT + o] * (double)s->w[o * COLS + k];
            for (int64_t r = 0; r < RANK; r++)
                low += dt[i * RANK + r] * (double)s->lora.a[r * COLS + k];
            if (s->masked[i * COLS + k] != 0)
                want += low * (double)s->op.dropout.scale;
            check(s->dx[i * COLS + k], want, OUT, "dx", i, k);
        }
}

static void check_lora_gradients(const struct shape *s, const float *a0, const float *b0, const double *t, const double *dt)
{
    for (int64_t r = 0; r < RANK; r++) {
        for (int64_t k = 0; k < COLS; k++) {
            double want = (double)a0[r * COLS + k];
            for (int64_t i = 0; i < s->rows; i++)
                want += dt[i * RANK + r] * (double)s->masked[i * COLS + k];
            check(s->lora.da[r * COLS + k], want, 8 * s->rows, "dA", r, k); /* its factors are themselves sums of size 8 */
        }
        for (int64_t o = 0; o < OUT; o++) {
            double want = (double)b0[o * RANK + r];
            for (int64_t i = 0; i < s->rows; i++)
                want += (double)s->lora.scale * (double)s->dy[i * OUT + o] * t[i * RANK + r];
            check(s->lora.db[o * RANK + r], want, 8 * s->rows, "dB", o, r);
        }
    }
}

static void backward(void **state)
{
    struct shape *s = *state;
    s->rows = ROWS;
    linear_forward(&s->c, &s->y, &s->op, 1, s->x, s->rows, false); /* leaves t for the backward */
    float *dx = floats(ROWS * COLS), *a0 = floats(RANK * COLS), *b0 = floats(OUT * RANK);
    memcpy(dx, s->dx, sizeof *dx * ROWS * COLS); /* gradients are added to what is there */
    memcpy(a0, s->lora.da, sizeof *a0 * RANK * COLS);
    memcpy(b0, s->lora.db, sizeof *b0 * OUT * RANK);
    linear_backward(&s->c, s->dx, s->dy, &s->op, s->x, s->rows);
    double *t = inner(s, false), *dt = inner(s, true);
    check_input_gradient(s, dx, dt);
    check_lora_gradients(s, a0, b0, t, dt);
    free(dx);
    free(a0);
    free(b0);
    free(t);
    free(dt);
}

static void weight_gradient(void **state)
{
    struct shape *s = *state;
    const int64_t first = 13, n = 512;
    float *dw = floats(n * COLS);
    for (int64_t i = 0; i < n * COLS; i++)
        dw[i] = 0.5f;
    linear_weight_gradient(&s->c, dw, s->dy, s->x, 700, OUT, COLS, first, n);
    for (int64_t o = 0; o < n; o += 3)
        for (int64_t k = 0; k < COLS; k++) {
            double want = 0.5;
            for (int64_t i = 0; i < 700; i++)
                want += (double)s->dy[i * OUT + first + o] * (double)s->x[i * COLS + k];
            check(dw[o * COLS + k], want, 700, "dW", o, k);
        }
    free(dw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(forward, shape_open, shape_close),
        cmocka_unit_test_setup_teardown(backward, shape_open, shape_close),
        cmocka_unit_test_setup_teardown(weight_gradient, shape_open, shape_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
