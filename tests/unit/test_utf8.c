/* UTF-8 and what becomes of other bytes; what is expected is bytes.decode("utf-8", "replace") of Python 3.11. */
#include "tests/tiny_model.h"

#include "core/base/json.h"
#include "core/base/utf8.h"
#include "core/base/visible.h"

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

/* The same forms in a message and in a stream, into which the bytes come one at a time. */
static void visible(void **state)
{
    (void)state;
    static const char text[] = "a\tb\x1b[\x7f\xC2\x9b\xC3\xA9\xE2\xE2\x82\xAC\xED\xA0\x80\xC0\xF0\x9F\x8C";
    char message[128], *got = NULL;
    size_t n = 0;
    utf8_visible(message, sizeof message, text);
    assert_string_equal(message, "a\\x09b\\x1b[\\x7f\\xc2\\x9b\xC3\xA9\\xe2\xE2\x82\xAC\\xed\\xa0\\x80\\xc0\\xf0\\x9f\\x8c");
    for (size_t piece = 1; piece <= 5; piece += 4) {
        FILE *under = open_memstream(&got, &n), *out = visible_open(under);
        for (size_t i = 0; i < strlen(text); i += piece) {
            fwrite(text + i, 1, strlen(text) - i < piece ? strlen(text) - i : piece, out);
            fflush(out);
        }
        fclose(out);
        fclose(under);
        assert_string_equal(got, "a\tb\\x1b[\\x7f\\xc2\\x9b\xC3\xA9\\xe2\xE2\x82\xAC\\xed\\xa0\\x80\\xc0\\xf0\\x9f\\x8c");
        free(got);
    }
    for (size_t size = 1; size <= 9; size++) { /* cut between characters */
        utf8_visible(message, size, "a\x1b\xC3\xA9z");
        assert_string_equal(message, size == 1   ? ""
                                     : size < 6  ? "a"
                                     : size < 8  ? "a\\x1b"
                                     : size == 8 ? "a\\x1b\xC3\xA9"
                                                 : "a\\x1b\xC3\xA9z");
    }
}

/* JSON that a terminal may get: every control character escaped, and the value unchanged. */
static void json(void **state)
{
    (void)state;
    json_t *v = json_pack("{ss}", "k\x7f", "\xC2\x85\x1b\xC2\xA0\xC3\xA9"), *back;
    char *line = json_line(v);
    assert_string_equal(line, "{\"k\\u007f\":\"\\u0085\\u001B\xC2\xA0\xC3\xA9\"}\n");
    back = json_loads(line, 0, NULL);
    assert_true(json_equal(v, back));
    json_decref(back);
    json_decref(v);
    free(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(repaired), cmocka_unit_test(nul), cmocka_unit_test(visible),
                                       cmocka_unit_test(json)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
