/* Running programs: what they print, how they end, and memory that is theirs. */
#include "tests/tiny_model.h"

#include <signal.h>

#include "core/base/mem.h"
#include "core/base/process.h"

static void output_and_status(void **state)
{
    (void)state;
    struct process p;
    OK(process_run(&p, (char *[]){"/bin/sh", "-c", "printf 'a\\nb'; exit 3", NULL}, &err));
    assert_int_equal(p.status, 3);
    assert_int_equal(p.n, 3);
    assert_string_equal(p.out, "a\nb");
    process_free(&p);
    OK(process_run(&p, (char *[]){"/bin/sh", "-c", "kill -KILL $$", NULL}, &err));
    assert_int_equal(p.status, 128 + SIGKILL);
    assert_string_equal(p.out, "");
    process_free(&p);
}

static void more_than_a_pipe_holds(void **state)
{
    (void)state;
    struct process p;
    OK(process_run(&p, (char *[]){"/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i + 1)); done", NULL}, &err));
    assert_int_equal(p.status, 0);
    assert_int_equal(p.n, 10 * 2 + 90 * 3 + 900 * 4 + 9000 * 5 + 10000 * 6);
    process_free(&p);
}

static void its_own_memory(void **state)
{
    (void)state;
    struct process small, large;
    OK(process_run(&small, (char *[]){"/bin/sh", "-c", ":", NULL}, &err));
    OK(process_run(&large, (char *[]){"/bin/sh", "-c", "x=$(head -c 40000000 /dev/zero | tr '\\0' x)", NULL}, &err));
    assert_true(small.seconds > 0 && small.peak_rss > 0);
    assert_true(large.peak_rss > 40000000 && large.peak_rss > small.peak_rss + 30000000);
    process_free(&small);
    process_free(&large);
}

static void no_such_program(void **state)
{
    (void)state;
    struct process p;
    struct err err = {0};
    assert_int_equal(process_run(&p, (char *[]){"/nowhere/program", NULL}, &err), -1);
    assert_non_null(strstr(err.msg, "/nowhere/program"));
    assert_null(p.out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_and_status),
        cmocka_unit_test(more_than_a_pipe_holds),
        cmocka_unit_test(its_own_memory),
        cmocka_unit_test(no_such_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
