/* Calibration rows. The expected draws were made by Python's random as the published scripts use it, on documents
 * with one token per byte. */
#include "tests/tiny_model.h"

#include "core/base/json.h"
#include "core/io/h5.h"
#include "data/calibration.h"

static struct tokenizer *tok;

/* 40 documents of 1 to 23 letters: document i is letters i, i + 1, ... of the alphabet, (7 i mod 23) + 1 of them. */
static int set_up(void **state)
{
    if (scratch_open(state) != 0)
        return -1;
    FILE *f = fopen(in_scratch("docs.txt"), "w");
    for (int i = 0; f && i < 40; i++) {
        for (int k = 0; k < i * 7 % 23 + 1; k++)
            fputc('a' + (i + k) % 26, f);
        fputc('\n', f);
    }
    if (!f || fclose(f) != 0)
        return -1;
    mkdir(in_scratch("tok"), 0777);
    tiny_tokenizer(in_scratch("tok/tokenizer.json"), false);
    write_text(in_scratch("tok/tokenizer_config.json"), "{\"bos_token\":\"<s>\"}");
    struct err err = {0};
    return tokenizer_open(&tok, in_scratch("tok"), &err);
}

static int tear_down(void **state)
{
    tokenizer_free(tok);
    return scratch_close(state);
}

static void expect_rows(const struct calibration *c, const int64_t *docs, const int64_t *offsets, const char *const *rows, bool bos)
{
    for (int64_t i = 0; i < c->n; i++) {
        assert_int_equal(c->documents[i], docs[i]);
        assert_int_equal(c->offsets[i], offsets[i]);
        if (bos)
            assert_int_equal(c->ids[i * c->len], 256);
        for (int64_t k = bos; k < c->len; k++)
            assert_int_equal(c->ids[i * c->len + k], rows[i][k - bos]);
    }
}

static void draws_are_those_of_python(void **state)
{
    (void)state;
    static const int64_t docs[] = {28, 5, 2, 6, 15, 22}, offsets[] = {0, 4, 5, 5, 0, 7};
    static const char *const rows[] = {"cdefghijk", "jklmnopqr", "hijklmnop", "lmnopqrst", "pqrstuvwx", "defghijkl"};
    struct calibration c;
    char sha[65];
    OK(calibration_read(&c, in_scratch("docs.txt"), tok, 6, 9, 1234, false, &err));
    assert_int_equal(c.n, 6);
    assert_int_equal(c.len, 9);
    expect_rows(&c, docs, offsets, rows, false);
    OK(file_sha256(sha, in_scratch("docs.txt"), &err));
    assert_string_equal(c.sha256, sha);
    calibration_free(&c);
    calibration_free(&c);
}

static void bos_before_every_row(void **state)
{
    (void)state;
    static const int64_t docs[] = {9, 3, 6, 32}, offsets[] = {6, 1, 5, 3};
    static const char *const rows[] = {"pqrstuvwxyz", "efghijklmno", "lmnopqrstuv", "jklmnopqrst"};
    struct calibration c;
    OK(calibration_read(&c, in_scratch("docs.txt"), tok, 4, 12, 7, true, &err));
    expect_rows(&c, docs, offsets, rows, true);
    calibration_free(&c);
}

/* 20 of the 21 documents that are long enough: most draws hit one that was used. */
static void scarce_documents(void **state)
{
    (void)state;
    static const int64_t docs[] = {15, 6, 5, 2, 13, 32, 35, 26, 28, 9, 22, 38, 29, 18, 36, 3, 25, 16, 19, 12};
    static const int64_t offsets[] = {0, 8, 1, 0, 3, 4, 1, 3, 1, 1, 2, 1, 8, 0, 3, 3, 2, 2, 3, 2};
    static const char *const rows[] = {"pqrstuvwxyza", "opqrstuvwxyz", "ghijklmnopqr", "cdefghijklmn", "qrstuvwxyzab",
                                       "klmnopqrstuv", "klmnopqrstuv", "defghijklmno", "defghijklmno", "klmnopqrstuv",
                                       "yzabcdefghij", "nopqrstuvwxy", "lmnopqrstuvw", "stuvwxyzabcd", "nopqrstuvwxy",
                                       "ghijklmnopqr", "bcdefghijklm", "stuvwxyzabcd", "wxyzabcdefgh", "opqrstuvwxyz"};
    struct calibration c;
    OK(calibration_read(&c, in_scratch("docs.txt"), tok, 20, 12, 42, false, &err));
    expect_rows(&c, docs, offsets, rows, false);
    calibration_free(&c);
}

static void all_that_there_are(void **state)
{
    (void)state;
    struct calibration c;
    bool seen[40] = {false};
    OK(calibration_read(&c, in_scratch("docs.txt"), tok, 21, 12, 3, false, &err));
    for (int i = 0; i < 21; i++) {
        assert_false(seen[c.documents[i]]);
        seen[c.documents[i]] = true;
    }
    calibration_free(&c);
}

static void too_few_documents_says_how_many(void **state)
{
    (void)state;
    struct calibration c;
    struct err few = {0}, none = {0}, empty = {0};
    expect_error(calibration_read(&c, in_scratch("docs.txt"), tok, 22, 12, 42, false, &few), &few, "docs.txt");
    expect_error(-1, &few, "21 of its 40 documents");
    expect_error(calibration_read(&c, in_scratch("docs.txt"), tok, 1, 24, 42, false, &none), &none, "0 of its 40 documents");
    write_text(in_scratch("empty.txt"), "");
    expect_error(calibration_read(&c, in_scratch("empty.txt"), tok, 1, 4, 42, false, &empty), &empty, "empty.txt");
}

static void wrong_calls(void **state)
{
    (void)state;
    struct calibration c;
    struct err e[4] = {{0}};
    expect_error(calibration_read(&c, in_scratch("docs.txt"), tok, 0, 12, 1, false, &e[0]), &e[0], "sample");
    assert_int_equal(e[0].code, ERR_USAGE);
    expect_error(calibration_read(&c, in_scratch("docs.txt"), tok, 1, 1, 1, false, &e[1]), &e[1], "two tokens");
    expect_error(calibration_read(&c, in_scratch("docs.txt"), NULL, 1, 8, 1, false, &e[2]), &e[2], "docs.txt");
    expect_error(calibration_read(&c, in_scratch("absent.txt"), tok, 1, 8, 1, false, &e[3]), &e[3], "absent.txt");
}

static void no_bos_to_put_first(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct calibration c;
    struct err err = {0};
    mkdir(in_scratch("bare"), 0777);
    tiny_tokenizer(in_scratch("bare/tokenizer.json"), false);
    OK(tokenizer_open(&t, in_scratch("bare"), &err));
    expect_error(calibration_read(&c, in_scratch("docs.txt"), t, 1, 8, 1, true, &err), &err, "BOS");
    tokenizer_free(t);
}

static void ready_rows(void **state)
{
    (void)state;
    struct calibration c;
    write_text(in_scratch("rows.json"), "[[1,2,3],[4,5,2147483647]]");
    OK(calibration_read(&c, in_scratch("rows.json"), NULL, 77, 88, 1, false, &err));
    assert_int_equal(c.n, 2);
    assert_int_equal(c.len, 3);
    static const int32_t want[] = {1, 2, 3, 4, 5, 2147483647};
    assert_memory_equal(c.ids, want, sizeof want);
    calibration_free(&c);
}

static void ready_rows_in_hdf5(void **state)
{
    (void)state;
    static const char *const names[] = {"ids", "calibration/ids"};
    static const int64_t ids[] = {7, 8, 9, 10}, wrong[] = {1, 2, -1, 3};
    for (int i = 0; i < 2; i++) {
        struct h5_writer w;
        struct calibration c;
        OK(h5_writer_open(&w, in_scratch("rows.h5"), &err));
        OK(h5_put_i64(&w, names[i], ids, (int64_t[]){2, 2}, 2, &err));
        OK(h5_writer_commit(&w, &err));
        OK(calibration_read(&c, in_scratch("rows.h5"), NULL, 0, 0, 0, false, &err));
        assert_true(c.n == 2 && c.len == 2 && c.ids[0] == 7 && c.ids[3] == 10);
        calibration_free(&c);
    }
    for (int n_dims = 1; n_dims <= 3; n_dims++) { /* a shape that is none, an id that is none */
        struct h5_writer w;
        struct calibration c;
        struct err err = {0};
        OK(h5_writer_open(&w, in_scratch("rows.h5"), &err));
        OK(h5_put_i64(&w, "ids", n_dims == 2 ? wrong : ids, n_dims == 1 ? (int64_t[]){4} : (int64_t[]){2, 2, 1}, n_dims, &err));
        OK(h5_writer_commit(&w, &err));
        expect_error(calibration_read(&c, in_scratch("rows.h5"), NULL, 0, 0, 0, false, &err), &err, "rows.h5");
    }
}

static void damaged_ready_rows(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "[]",
                                      "{}",
                                      "3",
                                      "[[1]]",
                                      "[[1,2],[3]]",
                                      "[[1,2],3]",
                                      "[[1,2.5]]",
                                      "[[1,\"2\"]]",
                                      "[[1,-1]]",
                                      "[[1,2],[]]",
                                      "[[1,2147483648]]",
                                      "[[1,2]",
                                      "[[1,2],null]",
                                      "[{\"a\":1}]",
                                      "[[1,[2,3]]]",
                                      "[[1,99999999999999999999]]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct calibration c;
        struct err err = {0};
        write_text(in_scratch("bad.json"), bad[i]);
        int rc = calibration_read(&c, in_scratch("bad.json"), tok, 1, 2, 1, false, &err);
        if (rc == 0)
            fail_msg("accepted: %s", bad[i]);
        expect_error(rc, &err, "bad.json");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_are_those_of_python),
        cmocka_unit_test(bos_before_every_row),
        cmocka_unit_test(scarce_documents),
        cmocka_unit_test(all_that_there_are),
        cmocka_unit_test(too_few_documents_says_how_many),
        cmocka_unit_test(wrong_calls),
        cmocka_unit_test(no_bos_to_put_first),
        cmocka_unit_test(ready_rows),
        cmocka_unit_test(ready_rows_in_hdf5),
        cmocka_unit_test(damaged_ready_rows),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
