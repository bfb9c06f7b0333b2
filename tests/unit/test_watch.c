/* What is said of a training that goes nowhere. */
#include "tests/tiny_model.h"

#include "train/watch.h"

/* How many warnings the losses bring, closed by a negative one. */
static size_t warnings(const double *losses, double norm)
{
    struct progress progress;
    struct watch w = {0};
    progress_open(&progress, stderr, true);
    for (int64_t i = 0; losses[i] >= 0; i++)
        watch_step(&w, i + 1, losses[i], norm, losses[i + 1] < 0, &progress);
    size_t n = json_array_size(w.warnings);
    watch_free(&w);
    return n;
}

static void losses(void **state)
{
    (void)state;
    assert_int_equal(warnings((double[]){3, 2.9, 3.2, 2.8, 2.7, 2.6, 2.5, -1}, 1), 0);
    assert_int_equal(warnings((double[]){3, 9, 3, 3, 3, 3, 3, -1}, 1), 1);       /* the mean of five is 4.2 */
    assert_int_equal(warnings((double[]){3, 6, 3, 3, 3, 3, 3, -1}, 1), 0);       /* one step alone is not */
    assert_int_equal(warnings((double[]){3, 9, 9, 9, 9, 9, 9, 9, 9, -1}, 1), 1); /* said once */
    assert_int_equal(warnings((double[]){3, 9, -1}, 1), 1);                      /* a short training is judged at its end */
    assert_int_equal(warnings((double[]){0.2, 0.5, 0.5, -1}, 1), 1);             /* twice */
    assert_int_equal(warnings((double[]){3, -1}, 1), 0);
}

static void gradient(void **state)
{
    (void)state;
    assert_int_equal(warnings((double[]){3, 3, 3, -1}, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(losses), cmocka_unit_test(gradient)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
