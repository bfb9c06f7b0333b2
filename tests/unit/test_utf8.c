/* UTF-8 and what becomes of other bytes; what is expected is bytes.decode("utf-8", "replace") of Python 3.11. */
#include "tests/tiny_model.h"

#include "core/base/utf8.h"

#define FFFD "\xEF\xBF\xBD"

static void repaired(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *want;
    } cases[] = {
        {"a\xC3\xA9\xF0\x9F\x8C\xB3", "a\xC3\xA9\xF0\x9F\x8C\xB3"},
        {"\x80\x80\x80", FFFD FFFD FFFD},
        {"\xE2\x82x", FFFD "x"},
        {"\xF0\x9F\x8C", FFFD},
        {"\xC0\xAF", FFFD FFFD},
        {"\xED\xA0\x80", FFFD FFFD FFFD},
        {"\xF4\x90\x80\x80", FFFD FFFD FFFD FFFD},
        {"\xE0\x9F\x80", FFFD FFFD FFFD},
        {"\xE2\xE2\x82\xAC", FFFD "\xE2\x82\xAC"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        char *got = utf8_repaired(&n, cases[i].bytes, strlen(cases[i].bytes));
        assert_non_null(got);
        assert_string_equal(got, cases[i].want);
        assert_int_equal(n, strlen(cases[i].want));
        assert_int_equal(utf8_valid(cases[i].bytes, strlen(cases[i].bytes)), i == 0);
        free(got);
    }
}

static void nul(void **state)
{
    (void)state;
    size_t n;
    char *got = utf8_repaired(&n, "a\0\xFFz", 4);
    assert_int_equal(n, 6);
    assert_memory_equal(got, "a\0" FFFD "z", 7);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(repaired), cmocka_unit_test(nul)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
