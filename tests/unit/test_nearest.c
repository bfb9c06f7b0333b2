/* The nearest name: by hand-counted changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/nearest.h"

static const char *const names[] = {"steps", "samples", "seq-len", "seed", "ratio", "rank", "lr", "out"};

static const char *nearest(const char *name)
{
    return nearest_name(name, names, sizeof names / sizeof *names);
}

static void one_change(void **state)
{
    (void)state;
    assert_string_equal(nearest("stepz"), "steps");      /* another letter */
    assert_string_equal(nearest("step"), "steps");       /* one less */
    assert_string_equal(nearest("sampples"), "samples"); /* one more */
    assert_string_equal(nearest("sede"), "seed");        /* two swapped, which plain Levenshtein counts as two */
    assert_string_equal(nearest("ration"), "ratio");
}

static void nothing_near(void **state)
{
    (void)state;
    assert_null(nearest("zeroshot"));
    assert_null(nearest("x"));
    assert_null(nearest("adapter"));
    assert_null(nearest("a-name-that-is-far-longer-than-any-option-could-be-and-fits-no-table-of-distances"));
    assert_null(nearest_name("steps", NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_change), cmocka_unit_test(nothing_near)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
