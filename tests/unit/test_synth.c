/* Checkpoints of random weights: the shape that the config says, the same bytes from any number of threads, and weights that are
 * what the config asks for. */
#include "core/base/dir.h"
#include "tests/tiny_model.h"

#include <math.h>

#include "core/base/json.h"
#include "core/model/save.h"

static const struct tiny shape = {4, 48, 4, 2, 12, 80, 300, 1};

static int synth(const char *to, enum dtype t, uint64_t seed, int threads, int64_t shard, struct err *err)
{
    struct compute c;
    int64_t params;
    OK(compute_open(&c, threads, PRECISION_F32, &err));
    dir_remove(in_scratch(to));
    scratch_dir(to);
    int rc = model_synthesise(&params, in_scratch("shape.json"), &c, in_scratch(to), t, seed, shard, NULL, err);
    if (rc == 0)
        assert_int_equal(params, 2 * 300 * 48 + 48 + 4 * (2 * 48 * 48 + 2 * 24 * 48 + 3 * 80 * 48 + 2 * 48));
    compute_close(&c);
    return rc;
}

static bool same_file(const char *a, const char *b)
{
    struct buf x = read_bytes(in_scratch(a)), y = read_bytes(in_scratch(b));
    bool same = x.n == y.n && !memcmp(x.p, y.p, x.n);
    buf_free(&x);
    buf_free(&y);
    return same;
}

static void seeds_and_threads(void **state)
{
    (void)state;
    OK(synth("a", DTYPE_F16, 1, 1, 0, &err));
    OK(synth("b", DTYPE_F16, 1, 5, 0, &err));
    OK(synth("c", DTYPE_F16, 2, 5, 0, &err));
    assert_true(same_file("a/model.safetensors", "b/model.safetensors"));
    assert_false(same_file("a/model.safetensors", "c/model.safetensors"));
    setenv("ESPALIER_ISA", "portable", 1);
    OK(synth("b", DTYPE_F16, 1, 2, 0, &err));
    unsetenv("ESPALIER_ISA");
    assert_true(same_file("a/model.safetensors", "b/model.safetensors"));
}

static void shards(void **state)
{
    (void)state;
    struct source s, whole;
    OK(synth("a", DTYPE_BF16, 9, 2, 0, &err));
    OK(synth("b", DTYPE_BF16, 9, 2, 30000, &err));
    OK(source_open(&whole, in_scratch("a"), &err));
    OK(source_open(&s, in_scratch("b"), &err));
    assert_true(s.n_maps > 3 && s.n_tensors == whole.n_tensors);
    for (int64_t i = 0; i < s.n_tensors; i++) {
        assert_string_equal(s.tensors[i].name, whole.tensors[i].name);
        assert_memory_equal(s.tensors[i].data, whole.tensors[i].data, whole.tensors[i].bytes);
    }
    source_close(&s);
    source_close(&whole);
}

static void check_spread(const struct source *s, const char *name, double want)
{
    const struct tensor *t = source_find(s, name);
    int64_t n = tensor_elements(t);
    double sum = 0, squares = 0;
    assert_int_equal(t->dtype, DTYPE_F32);
    for (int64_t i = 0; i < n; i++) {
        float v;
        memcpy(&v, t->data + 4 * i, 4);
        sum += (double)v;
        squares += (double)v * (double)v;
    }
    double deviation = sqrt(squares / (double)n), error = want / sqrt((double)n);
    if (fabs(sum / (double)n) > 5 * error || fabs(deviation - want) > 5 * error / sqrt(2)) /* five standard errors */
        fail_msg("%s: mean %g, deviation %g, %g was expected", name, sum / (double)n, deviation, want);
}

static void weights(void **state)
{
    (void)state;
    struct source s;
    OK(synth("a", DTYPE_F32, 3, 2, 0, &err));
    OK(source_open(&s, in_scratch("a"), &err));
    check_spread(&s, "model.embed_tokens.weight", 0.05);
    check_spread(&s, "lm_head.weight", 0.05);
    check_spread(&s, "model.layers.3.mlp.up_proj.weight", 0.05);
    check_spread(&s, "model.layers.0.self_attn.o_proj.weight", 0.05 / sqrt(8)); /* sqrt(2 blocks) */
    check_spread(&s, "model.layers.2.mlp.down_proj.weight", 0.05 / sqrt(8));
    const struct tensor *norm = source_find(&s, "model.layers.1.input_layernorm.weight");
    for (int64_t i = 0; i < 48; i++)
        assert_memory_equal(norm->data + 4 * i, &(float){1}, 4);
    /* no two tensors and no two rows are alike */
    const struct tensor *a = source_find(&s, "model.layers.0.mlp.up_proj.weight"),
                        *b = source_find(&s, "model.layers.1.mlp.up_proj.weight");
    assert_memory_not_equal(a->data, b->data, 64);
    for (int64_t r = 0; r < 80; r++)
        for (int64_t k = 0; k < r; k++)
            assert_memory_not_equal(a->data + r * 48 * 4, a->data + k * 48 * 4, 64);
    source_close(&s);
}

/* In every dtype of a Hugging Face folder. */
static void dtypes(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F8_E4M3};
    for (int i = 0; i < 4; i++) {
        struct model m;
        OK(synth("a", types[i], 4, 2, 0, &err));
        OK(model_open(&m, in_scratch("a"), &err));
        assert_int_equal(m.blocks[0].proj[0].dtype, types[i]);
        assert_int_equal(m.head.w.dtype, types[i] == DTYPE_F8_E4M3 ? DTYPE_F16 : types[i]);
        model_close(&m);
    }
}

static void configs_that_lie(void **state)
{
    (void)state;
    struct err err[3] = {{0}};
    struct buf b = read_bytes(in_scratch("shape.json"));
    write_text(in_scratch("shape.json"), "[]");
    expect_error(synth("a", DTYPE_F16, 1, 1, 0, &err[0]), &err[0], "shape.json");
    char *at = strstr(b.p, "0.05");
    memcpy(at, "-1.0", 4);
    write_bytes(in_scratch("shape.json"), b.p, b.n);
    expect_error(synth("a", DTYPE_F16, 1, 1, 0, &err[1]), &err[1], "initializer_range");
    memcpy(at, "0.05", 4);
    write_bytes(in_scratch("shape.json"), b.p, b.n);
    buf_free(&b);
}

static int set_up(void **state)
{
    struct buf b = {0};
    if (scratch_open(state) != 0)
        return -1;
    tiny_config_json(&b, &shape);
    while (b.p[b.n - 1] != '}')
        b.n--;
    b.n--;
    buf_text(&b, ",\"initializer_range\":0.05}\n");
    write_bytes(in_scratch("shape.json"), b.p, b.n);
    buf_free(&b);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(seeds_and_threads), cmocka_unit_test(shards), cmocka_unit_test(weights),
                                       cmocka_unit_test(dtypes), cmocka_unit_test(configs_that_lie)};
    return cmocka_run_group_tests(tests, set_up, scratch_close);
}
