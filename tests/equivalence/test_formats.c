/* The same model in every format and dtype gives the same numbers, forward and backward; and a scale per row is where it should be,
 * whatever path the product takes. */
#include "tests/fixtures/fixture.h"

#include "core/model/backprop.h"
#include "core/model/save.h"

/* Saves the model at `from` (NULL: the fixture's) under a name in the scratch folder. */
static void save_as(char path[128], const struct fixture *f, const char *from, const char *name, enum model_format format,
                    enum dtype dtype)
{
    struct model m;
    struct save_options o = {.format = format, .dtype = dtype};
    OK(model_open(&m, from ? from : f->dir, &err));
    if (format == FORMAT_HF)
        scratch_dir(path, f, name);
    else
        snprintf(path, 128, "%s/%s", f->scratch, name);
    OK(model_save(&m, &f->c, path, &o, NULL, &err));
    model_close(&m);
}

static float *logits_at(const struct fixture *f, const char *path, int64_t n, int64_t len)
{
    struct model m;
    OK(model_open(&m, path, &err));
    float *logits = logits_of(&m, &f->c, NULL, f->ids, n, len);
    model_close(&m);
    return logits;
}

/* Few rows go through the fused dot products, many through decoded panels. */
static void check_same(const struct fixture *f, const char *a, const char *b, const char *what)
{
    int64_t vocab = f->m.cfg.vocab_size;
    for (int few = 0; few < 2; few++) {
        int64_t n = few ? 1 : f->n, len = few ? 3 : f->len;
        float *x = logits_at(f, a, n, len), *y = logits_at(f, b, n, len);
        assert_same_bits(x, y, (size_t)(n * len * vocab) * sizeof *x, what);
        free(x);
        free(y);
    }
}

static void formats(void **state)
{
    struct fixture *f = *state;
    char hf[128], gguf[128], h5[128], back[128];
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int i = 0; i < 3; i++) {
        save_as(hf, f, NULL, "hf", FORMAT_HF, types[i]);
        save_as(gguf, f, hf, "m.gguf", FORMAT_GGUF, types[i]);
        save_as(h5, f, gguf, "m.h5", FORMAT_H5, types[i]);
        save_as(back, f, h5, "back", FORMAT_HF, types[i]);
        if (types[i] == DTYPE_F32) /* which loses nothing against the fixture itself */
            check_same(f, f->dir, hf, "hf");
        check_same(f, hf, gguf, "gguf");
        check_same(f, hf, h5, "h5");
        check_same(f, hf, back, "and back");
    }
}

/* A model in f8_e4m3, and the float32 model of its very values. */
static void open_both(struct model *f8, struct model *f32, const struct fixture *f)
{
    char path[128], plain[128];
    save_as(path, f, NULL, "f8", FORMAT_HF, DTYPE_F8_E4M3);
    save_as(plain, f, path, "f8 as f32", FORMAT_HF, DTYPE_F32);
    OK(model_open(f8, path, &err));
    OK(model_open(f32, plain, &err));
    for (int p = 0; p < PROJ_COUNT; p++)
        assert_true(f8->blocks[0].proj[p].dtype == DTYPE_F8_E4M3 && f8->blocks[0].proj[p].scale);
}

/* Enough rows for packed products. */
enum { MANY = LINEAR_FEW_ROWS + 5 };

static void many_ids(int32_t ids[MANY], const struct fixture *f)
{
    for (int i = 0; i < MANY; i++)
        ids[i] = f->ids[i % (f->n * f->len)];
}

static void scaled_rows(void **state)
{
    struct fixture *f = *state;
    struct model f8, f32;
    open_both(&f8, &f32, f);
    int64_t vocab = f->m.cfg.vocab_size;
    enum { FEW = 5 };
    int32_t ids[MANY];
    many_ids(ids, f);
    for (int64_t len = 1; len <= 8; len++) { /* few rows: the scale comes after the dot product, rounded once more */
        float *x = logits_of(&f8, &f->c, NULL, ids, 1, len), *y = logits_of(&f32, &f->c, NULL, ids, 1, len);
        assert_close(x, y, len * vocab, 1e-5, "few rows");
        free(x);
        free(y);
    }
    float *x = logits_of(&f8, &f->c, NULL, ids, MANY, 1), *y = logits_of(&f32, &f->c, NULL, ids, MANY, 1);
    assert_same_bits(x, y, (size_t)(MANY * vocab) * sizeof *x, "many rows");
    free(x);
    free(y);
    x = logits_of(&f8, &f->c, NULL, ids, FEW, 1);
    for (int i = 0; i < FEW; i++) { /* what is decoded once for several rows, and what is not */
        y = logits_of(&f8, &f->c, NULL, ids + i, 1, 1);
        assert_same_bits(x + i * vocab, y, (size_t)vocab * sizeof *x, "one of few rows");
        free(y);
    }
    free(x);
    x = logits_of(&f8, &f->c, NULL, f->ids, f->n, f->len);
    double far = 0, size = 0; /* and three bits of mantissa are not far from the model they came from */
    float *z = logits_of(&f->m, &f->c, NULL, f->ids, f->n, f->len);
    for (int64_t i = 0; i < f->n * f->len * vocab; i++) {
        far += fabs((double)x[i] - (double)z[i]);
        size += fabs((double)z[i]);
    }
    assert_true(far > 0 && far < 0.25 * size); /* 2.6 % each, of some twenty products in a row: 12 % in all */
    free(x);
    free(z);
    model_close(&f8);
    model_close(&f32);
}

/* Gradients of an adapter's matrices. */
static void gradients(float *grads, const struct model *m, const struct fixture *f)
{
    struct lora_set l;
    struct lm lm;
    struct backprop bp;
    int64_t rows = MANY, n;
    int32_t ids[MANY], *labels = calloc((size_t)rows, sizeof *labels);
    float *nll = floats(rows), *weight = floats(rows);
    many_ids(ids, f);
    random_lora(&l, m, 4, 0.1f, true);
    OK(lm_open(&lm, m, &f->c, &l, rows, 1, rows, &err));
    OK(backprop_open(&bp, &lm, BACKPROP_KEEP, &err));
    batch_uniform(&lm.batch, 1, rows);
    for (int64_t i = 0; i < rows; i++) {
        labels[i] = i + 1 < rows ? ids[i + 1] : -100;
        weight[i] = 1;
    }
    OK(backprop_forward(&bp, nll, &n, ids, labels, &err));
    backprop_backward(&bp, f->ids, weight, NULL);
    memcpy(grads, l.grads, (size_t)l.n_params * sizeof *grads);
    backprop_close(&bp);
    lm_close(&lm);
    lora_free(&l);
    free(labels);
    free(nll);
    free(weight);
}

static void scaled_rows_backward(void **state)
{
    struct fixture *f = *state;
    struct model f8, f32;
    struct lora_set l;
    open_both(&f8, &f32, f);
    random_lora(&l, &f8, 4, 0.1f, false);
    float *x = floats(l.n_params), *y = floats(l.n_params);
    gradients(x, &f8, f);
    gradients(y, &f32, f);
    double size = 0;
    for (int64_t i = 0; i < l.n_params; i++)
        size += fabs((double)y[i]);
    assert_true(size > 0);
    assert_same_bits(x, y, (size_t)l.n_params * sizeof *x, "gradients");
    free(x);
    free(y);
    lora_free(&l);
    model_close(&f8);
    model_close(&f32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {ON_BOTH(formats), ON_BOTH(scaled_rows), ON_BOTH(scaled_rows_backward)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
