/* Score files and what is chosen by them. */
#include "tests/there.h"
#include "tests/tiny_model.h"

#include <math.h>

#include "core/base/json.h"
#include "core/io/h5.h"
#include "prune/plan.h"
#include "prune/scores.h"

static struct scores made(const double *score, int64_t n)
{
    struct scores s;
    struct block blocks[16];
    int64_t order[16];
    struct model m = {.blocks = blocks, .order = order, .n_order = n, .cfg = {.n_blocks = n}};
    for (int64_t i = 0; i < n; i++) {
        blocks[i].parts = PARTS_ALL;
        order[i] = i;
    }
    OK(scores_alloc(&s, "ppl", &m, false, &err));
    memcpy(s.score, score, (size_t)n * sizeof *score);
    strcpy(s.model_hash, "0123456789abcdef");
    s.base_ppl = 12.5;
    return s;
}

static void order_keeps_ties_in_index_order(void **state)
{
    (void)state;
    static const double score[] = {3, 1, 2, 1, 3, 1};
    static const int64_t want[] = {1, 3, 5, 2, 0, 4}, kept[] = {3, 2};
    struct scores s = made(score, 6);
    int64_t order[6];
    scores_order(order, &s);
    assert_memory_equal(order, want, sizeof want);
    assert_int_equal(scores_protected_order(order, &s, 2, 2), 2);
    assert_memory_equal(order, kept, sizeof kept);
    assert_int_equal(scores_protected_order(order, &s, 0, 0), 6);
    assert_memory_equal(order, want, sizeof want);
    assert_int_equal(scores_protected_order(order, &s, 4, 2), 0);
    assert_int_equal(scores_protected_order(order, &s, 100, 0), 0);
    assert_int_equal(scores_protected_order(order, &s, 0, 100), 0);
    scores_free(&s);
    scores_free(&s);
}

static struct calibration rows(void)
{
    struct calibration c = {.file = strdup("calib.txt"), .n = 2, .len = 3};
    strcpy(c.sha256, "aa");
    c.ids = calloc(6, sizeof *c.ids);
    c.documents = calloc(2, sizeof *c.documents);
    c.offsets = calloc(2, sizeof *c.offsets);
    c.documents[1] = 17;
    c.offsets[1] = 4;
    return c;
}

static void written_and_read(void **state)
{
    (void)state;
    static const char *const names[] = {"s.json", "s.h5"};
    double score[7] = {4, 3, 0.1, 7e300, 5e-324, -2.5, 3};
    struct calibration c = rows();
    for (int i = 0; i < 2; i++) {
        struct scores s = made(score, 7), back;
        float nll[4] = {1, 2, 3, 4};
        s.samples = 2;
        s.targets = 2;
        s.base_nll = malloc(sizeof nll);
        memcpy(s.base_nll, nll, sizeof nll);
        json_t *facts = json_pack("{ss si}", "program_version", "x", "seed", 7);
        OK(scores_write(in_scratch(names[i]), &s, &c, facts, &err));
        json_decref(facts);
        OK(scores_read(&back, in_scratch(names[i]), &err));
        assert_int_equal(back.n, 7);
        assert_string_equal(back.criterion, "ppl");
        assert_string_equal(back.model_hash, s.model_hash);
        assert_memory_equal(back.score, score, sizeof score);
        scores_free(&s);
        scores_free(&back);
    }
    calibration_free(&c);
}

/* The contract's keys, with the contract's meaning. */
static void json_form(void **state)
{
    (void)state;
    static const double score[] = {9, 8, 7, 6, 3, 2, 1, 0};
    struct scores s = made(score, 8);
    struct calibration c = rows();
    json_t *facts = json_pack("{ss ss}", "program_version", "x", "criterion", "not this");
    OK(scores_write(in_scratch("form.json"), &s, &c, facts, &err));
    struct err err = {0};
    json_t *root = json_read(in_scratch("form.json"), &err), *want;
    want = json_pack("[iiiiiiii]", 7, 6, 5, 4, 3, 2, 1, 0);
    assert_true(json_equal(json_object_get(root, "order"), want));
    json_decref(want);
    want = json_pack("[ii]", 5, 4);
    assert_true(json_equal(json_object_get(root, "protected_order"), want));
    json_decref(want);
    want = json_pack("{ss ss s[ii] s[ii] si si}", "file", "calib.txt", "sha256", "aa", "documents", 0, 17, "offsets", 0, 4,
                     "seq_len", 3, "samples", 2);
    assert_true(json_equal(json_object_get(root, "calibration"), want));
    json_decref(want);
    want = json_pack("{si sf}", "index", 2, "score", 7.0);
    assert_true(json_equal(json_array_get(json_object_get(root, "blocks"), 2), want));
    json_decref(want);
    assert_string_equal(json_string_value(json_object_get(root, "criterion")), "ppl");
    assert_string_equal(json_string_value(json_object_get(root, "program_version")), "x");
    assert_true(json_real_value(json_object_get(root, "base_ppl")) == 12.5);
    json_decref(root);
    json_decref(facts);
    scores_free(&s);
    calibration_free(&c);
}

static void damaged_json(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "3",
        "{\"blocks\":[]}",
        "{\"blocks\":{}}",
        "{\"blocks\":[1,2]}",
        "{\"blocks\":[{\"index\":0}]}",
        "{\"blocks\":[{\"score\":1}]}",
        "{\"blocks\":[{\"index\":1,\"score\":1}]}",
        "{\"blocks\":[{\"index\":-1,\"score\":1}]}",
        "{\"blocks\":[{\"index\":0.0,\"score\":1}]}",
        "{\"blocks\":[{\"index\":0,\"score\":\"1\"}]}",
        "{\"blocks\":[{\"index\":0,\"score\":null}]}",
        "{\"blocks\":[{\"index\":0,\"score\":1},{\"index\":0,\"score\":2}]}", /* twice the same block */
        "{\"criterion\":5,\"blocks\":[{\"index\":0,\"score\":1}]}",
        "{\"model_hash\":[],\"blocks\":[{\"index\":0,\"score\":1}]}",
        "{\"model_blocks\":-9223372036854775808,\"blocks\":[{\"index\":0,\"score\":1}]}",
        "{\"model_blocks\":1,\"blocks\":[{\"index\":0,\"score\":1},{\"index\":1,\"score\":1}]}",
        "{\"blocks\":[{\"index\":0,\"score\":1e999}]}",
        "{\"blocks\":[{\"index\":9223372036854775807,\"score\":1}]}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct scores s;
        struct err err = {0};
        write_text(in_scratch("bad.json"), bad[i]);
        int rc = scores_read(&s, in_scratch("bad.json"), &err);
        if (rc == 0)
            fail_msg("accepted: %s", bad[i]);
        expect_error(rc, &err, "bad.json");
        assert_null(s.score);
    }
}

static void a_long_criterion_is_no_danger(void **state)
{
    (void)state;
    struct buf b = {0};
    struct scores s;
    buf_text(&b, "{\"criterion\":\"%0500d\",\"model_hash\":\"%0500d\",\"blocks\":[{\"index\":0,\"score\":1}]}", 1, 2);
    write_bytes(in_scratch("long.json"), b.p, b.n);
    buf_free(&b);
    OK(scores_read(&s, in_scratch("long.json"), &err));
    assert_int_equal(strlen(s.criterion), sizeof s.criterion - 1);
    assert_int_equal(strlen(s.model_hash), sizeof s.model_hash - 1);
    scores_free(&s);
}

/* A score file with these datasets; attributes only where asked for. */
static void put_h5(const char *path, const double *score, const int64_t *score_dims, int score_rank, const int64_t *block,
                   int64_t n_block, bool attributes)
{
    struct h5_writer w;
    OK(h5_writer_open(&w, path, &err));
    if (score)
        OK(h5_put_f64(&w, "score", score, score_dims, score_rank, &err));
    if (block) {
        int64_t parts[8] = {3, 3, 3, 3, 3, 3, 3, 3};
        OK(h5_put_i64(&w, "block", block, &n_block, 1, &err));
        OK(h5_put_i64(&w, "parts", parts, &n_block, 1, &err));
    }
    if (attributes) {
        OK(h5_attr_i64(&w, "/", "model_blocks", 4, &err));
        OK(h5_attr_f64(&w, "/", "base_ppl", 2, &err));
        OK(h5_attr_string(&w, "/", "criterion", "ppl", &err));
        OK(h5_attr_string(&w, "/", "model_hash", "x", &err));
    }
    OK(h5_writer_commit(&w, &err));
}

static void damaged_hdf5(void **state)
{
    (void)state;
    static const double v[] = {1, 2, 3, 4};
    static const int64_t good[] = {0, 1, 2, 3}, twice[] = {0, 1, 1, 2}, negative[] = {-1, 0, 1, 2}, most[] = {0, 1, 2, INT64_MAX};
    static const struct {
        const double *score;
        int64_t dims[2];
        int rank;
        const int64_t *block;
        int64_t n_block;
        bool attributes, ok;
    } cases[] = {
        {v, {4}, 1, good, 4, true, true},      {NULL, {0}, 0, NULL, 0, false, false}, {v, {4}, 1, good, 4, false, false},
        {v, {4}, 1, NULL, 0, true, false},     {v, {4}, 1, good, 3, true, false},     {v, {4}, 1, twice, 4, true, false},
        {v, {4}, 1, negative, 4, true, false}, {v, {2, 2}, 2, good, 2, true, false},  {v, {0}, 1, good, 0, true, false},
        {v, {4}, 1, most, 4, true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scores s;
        struct err err = {0};
        put_h5(in_scratch("bad.h5"), cases[i].score, cases[i].dims, cases[i].rank, cases[i].block, cases[i].n_block,
               cases[i].attributes);
        int rc = scores_read(&s, in_scratch("bad.h5"), &err);
        if ((rc == 0) != cases[i].ok)
            fail_msg("case %zu: rc %d: %s", i, rc, err.msg);
        if (rc != 0)
            expect_error(rc, &err, "bad.h5");
        scores_free(&s);
    }
    struct scores s;
    struct err err = {0};
    write_text(in_scratch("bad.h5"), "not HDF5");
    expect_error(scores_read(&s, in_scratch("bad.h5"), &err), &err, "bad.h5");
}

/* Scores of a model that ran without blocks 1 and 4: what is protected is counted on the model on disk. */
static void some_blocks_only(void **state)
{
    (void)state;
    static const char *const names[] = {"some.json", "some.h5"};
    static const double score[] = {5, 4, 3, 2};
    static const int64_t block[] = {0, 2, 3, 5};
    struct calibration c = rows();
    json_t *facts = json_object();
    for (int i = 0; i < 2; i++) {
        struct scores s = made(score, 4), back;
        int64_t order[4];
        for (int k = 0; k < 4; k++)
            s.unit[k].block = block[k];
        s.model_blocks = 6;
        OK(scores_write(in_scratch(names[i]), &s, &c, facts, &err));
        OK(scores_read(&back, in_scratch(names[i]), &err));
        assert_int_equal(back.n, 4);
        for (int k = 0; k < 4; k++)
            assert_int_equal(back.unit[k].block, block[k]);
        assert_int_equal(scores_protected_order(order, &back, 1, 1), 2);
        assert_true(order[0] == 2 && order[1] == 1); /* positions: blocks 3 and 2 */
        scores_free(&s);
        scores_free(&back);
    }
    json_decref(facts);
    calibration_free(&c);
}

static void scores_that_are_no_numbers(void **state)
{
    (void)state;
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        double v[] = {1, bad[i], 0.5};
        struct scores s;
        struct err err = {0};
        put_h5(in_scratch("nan.h5"), v, (int64_t[]){3}, 1, (int64_t[]){0, 1, 2}, 3, true);
        expect_error(scores_read(&s, in_scratch("nan.h5"), &err), &err, "nan.h5"); /* nothing can be ranked by them */
    }
}

static void what_cannot_be_written_says_why(void **state)
{
    (void)state;
    double v[] = {1, INFINITY}; /* JSON has no infinity; exp of a large mean loss is one */
    struct scores s = made(v, 2);
    struct calibration c = rows();
    struct err err = {0};
    json_t *facts = json_object();
    expect_error(scores_write(in_scratch("inf.json"), &s, &c, facts, &err), &err, "inf.json");
    assert_null(strstr(err.msg, "memory"));
    assert_false(path_exists(in_scratch("inf.json")));
    json_decref(facts);
    scores_free(&s);
    calibration_free(&c);
}

static void counts_by_ratio(void **state)
{
    (void)state;
    static const struct {
        double ratio;
        int64_t blocks, count;
    } cases[] = {{0.2, 32, 6}, {0.2, 30, 6}, {0.25, 10, 3}, {0.3, 32, 10}, {0.5, 5, 3}, {0.01, 8, 0}, {0.1, 5, 1}, {0.35, 32, 11}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t n = -1;
        OK(plan_count(&n, cases[i].ratio, cases[i].blocks, &err));
        assert_int_equal(n, cases[i].count);
    }
    static const double bad[] = {0, 1, -0.1, 1.5, NAN, INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t n;
        struct err err = {0};
        expect_error(plan_count(&n, bad[i], 32, &err), &err, "--ratio");
        assert_int_equal(err.code, ERR_USAGE);
    }
}

static void choices(void **state)
{
    (void)state;
    static const double score[] = {1, 2, 3, 4, 6, 5, 0.5, 0.1};
    struct scores s = made(score, 8);
    struct unit d[8] = {{-1, 0}, {-1, 0}, {-1, 0}};
    OK(plan_choose(d, &s, 2, 4, 2, &err));
    assert_true(d[0].block == 5 && d[1].block == 4 && d[2].block == -1);
    OK(plan_choose(d, &s, 3, 0, 0, &err));
    assert_true(d[0].block == 7 && d[1].block == 6 && d[2].block == 0);
    OK(plan_choose(d, &s, 7, 0, 0, &err));
    static const int64_t bad[][3] = {{3, 4, 2}, {0, 4, 2}, {-1, 0, 0}, {8, 0, 0}, {9, 0, 0}, {1, 8, 0}, {1, 4, 4}, {1, 100, 100}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        expect_error(plan_choose(d, &s, bad[i][0], bad[i][1], bad[i][2], &err), &err, "blocks to drop");
    }
    scores_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_keeps_ties_in_index_order),
        cmocka_unit_test(written_and_read),
        cmocka_unit_test(json_form),
        cmocka_unit_test(damaged_json),
        cmocka_unit_test(a_long_criterion_is_no_danger),
        cmocka_unit_test(damaged_hdf5),
        cmocka_unit_test(some_blocks_only),
        cmocka_unit_test(scores_that_are_no_numbers),
        cmocka_unit_test(what_cannot_be_written_says_why),
        cmocka_unit_test(counts_by_ratio),
        cmocka_unit_test(choices),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
