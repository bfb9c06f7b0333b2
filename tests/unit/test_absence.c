/* What is there and cannot be read is not taken for what is not there. */
#include "tests/tiny_model.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/io/h5.h"
#include "core/io/tokenizer.h"
#include "data/calibration.h"
#include "prune/scores.h"

static void found_or_not(void **state)
{
    (void)state;
    struct h5_writer w;
    struct err err = {0};
    const char *path = in_scratch("has.h5");
    OK(h5_writer_open(&w, path, &err));
    OK(h5_put_f64(&w, "group/x", (double[]){1}, (int64_t[]){1}, 1, &err));
    OK(h5_attr_string(&w, "/", "a", "text", &err));
    OK(h5_writer_commit(&w, &err));
    assert_int_equal(h5_has(path, "group/x", &err), 1);
    assert_int_equal(h5_has(path, "group", &err), 1);
    assert_int_equal(h5_has(path, "group/y", &err), 0);
    assert_int_equal(h5_has(path, "none/x", &err), 0);
    assert_int_equal(h5_has_attr(path, "a", &err), 1);
    assert_int_equal(h5_has_attr(path, "b", &err), 0);
    assert_int_equal(err.code, 0);
    assert_int_equal(h5_has(in_scratch("gone.h5"), "x", &err), -1);
    assert_int_equal(err.code, ERR_FAILED);
}

/* A score file whose `name` is text where numbers are usual, or the fingerprint a number. */
static void optional_scores(void **state)
{
    (void)state;
    static const char *const names[] = {"row_nll", "windows/distance", "model_fingerprint", NULL};
    for (int i = 0; i < 4; i++) {
        struct h5_writer w;
        struct scores s = {0};
        struct err bad = {0};
        const char *path = in_scratch("optional.h5");
        int64_t n = 2;
        OK(h5_writer_open(&w, path, &err));
        OK(h5_put_f64(&w, "score", (double[]){1, 2}, &n, 1, &err));
        OK(h5_put_i64(&w, "block", (int64_t[]){0, 1}, &n, 1, &err));
        OK(h5_put_i64(&w, "parts", (int64_t[]){3, 3}, &n, 1, &err));
        OK(h5_attr_i64(&w, "/", "model_blocks", 2, &err));
        OK(h5_attr_f64(&w, "/", "base_ppl", 2, &err));
        OK(h5_attr_string(&w, "/", "criterion", "ppl", &err));
        OK(h5_attr_string(&w, "/", "model_hash", "x", &err));
        if (i == 2)
            OK(h5_attr_i64(&w, "/", names[i], 2, &err));
        else if (names[i])
            OK(h5_put_strings(&w, names[i], (const char *const[]){"a", "b"}, 2, &err));
        OK(h5_writer_commit(&w, &err));
        int rc = scores_read(&s, path, &bad);
        if (names[i])
            expect_error(rc, &bad, names[i]);
        else
            OK(rc);
        scores_free(&s);
    }
}

/* A tokenizer that cannot be opened for want of handles has no wrong format. */
static void no_handles(void **state)
{
    (void)state;
    struct rlimit was, few;
    struct tokenizer *t;
    struct err bad = {0};
    tiny_gguf(in_scratch("tokenizer.part"), &tiny_default);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    int next = open("/dev/null", O_RDONLY);
    close(next);
    few = (struct rlimit){(rlim_t)next, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    int rc = tokenizer_open(&t, in_scratch("tokenizer.part"), &bad);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    expect_error(rc, &bad, "Too many open files");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_or_not),
        cmocka_unit_test(optional_scores),
        cmocka_unit_test(no_handles),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
