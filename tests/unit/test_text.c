/* Documents and the row rules of the published data sets. */
#include "tests/tiny_model.h"

#include <zlib.h>

#include "data/text.h"

static void gzip_text(const char *path, const char *text)
{
    gzFile f = gzopen(path, "wb");
    assert_non_null(f);
    gzputs(f, text);
    gzclose(f);
}

/* The documents of a file must be those listed, closed by NULL. */
static void expect_docs(const char *name, const char *const want[])
{
    struct documents d;
    size_t n = 0;
    OK(documents_read(&d, in_scratch(name), &err));
    for (; want[n]; n++) {
        assert_true(n < d.n);
        assert_int_equal(d.lens[n], strlen(want[n]));
        assert_string_equal(d.docs[n], want[n]);
    }
    assert_int_equal(d.n, n);
    documents_free(&d);
}

static void lines(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *docs[5];
    } cases[] = {
        {"one\ntwo\n", {"one", "two"}},
        {"one\ntwo", {"one", "two"}},
        {"\n\nx\n", {"", "", "x"}},
        {"", {NULL}},
        {"\n", {""}},
        {" a \r\nb", {" a ", "b"}},
        {"a\rb\r\rc", {"a", "b", "", "c"}},
        {"\xEF\xBB\xBF"
         "a\n",
         {"a"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(in_scratch("d.txt"), cases[i].text);
        expect_docs("d.txt", cases[i].docs);
        gzip_text(in_scratch("d.txt.gz"), cases[i].text);
        expect_docs("d.txt.gz", cases[i].docs);
    }
}

static void json_lines(void **state)
{
    (void)state;
    static const char text[] = "{\"text\": \"a\\nb\", \"n\": 1}\n\n  \t\n{\"other\": [], \"text\": \"\"}\n{\"text\":\"\\u00e9\"}";
    static const char *const docs[] = {"a\nb", "", "\xc3\xa9", NULL};
    write_text(in_scratch("d.jsonl"), text);
    expect_docs("d.jsonl", docs);
    gzip_text(in_scratch("d.jsonl.gz"), text);
    expect_docs("d.jsonl.gz", docs);
    write_text(in_scratch("d.jsonl"), "");
    expect_docs("d.jsonl", (const char *const[]){NULL});
}

static void documents_may_hold_nul(void **state)
{
    (void)state;
    struct documents d;
    write_text(in_scratch("nul.jsonl"), "{\"text\": \"a\\u0000b\"}\n");
    OK(documents_read(&d, in_scratch("nul.jsonl"), &err));
    assert_int_equal(d.lens[0], 3);
    assert_memory_equal(d.docs[0], "a\0b", 4);
    documents_free(&d);
    write_bytes(in_scratch("nul.txt"), "a\0b\nc", 5);
    OK(documents_read(&d, in_scratch("nul.txt"), &err));
    assert_int_equal(d.n, 2);
    assert_int_equal(d.lens[0], 3);
    assert_memory_equal(d.docs[0], "a\0b", 4);
    assert_string_equal(d.docs[1], "c");
    documents_free(&d);
}

static void damaged_json_lines(void **state)
{
    (void)state;
    static const char *const bad[] = {"{\"text\": \"a\"}\n{\"text\": 3}\n", "{\"text\": \"a\"}\nnot json\n",
                                      "{\"text\": \"a\"}\n{}\n", "{\"text\": \"a\"}\n[\"text\"]\n",
                                      "{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct documents d;
        struct err err = {0};
        write_text(in_scratch("bad.jsonl"), bad[i]);
        expect_error(documents_read(&d, in_scratch("bad.jsonl"), &err), &err, "bad.jsonl: line 2");
        documents_free(&d);
    }
}

static void row_rules(void **state)
{
    (void)state;
    /* what a Python version of the published scripts' joining makes of each */
    static const struct {
        const char *file, *wikitext, *ptb;
    } cases[] = {
        {" = Title = \n\n Some text \n  \t \nlast", " = Title = \n\n\n\n\n Some text \n\n\n\n\nlast\n",
         "= Title =\n\n\n\nSome text\n\n\n\nlast"},
        {" one \ntwo\n\n three\n", " one \n\n\ntwo\n\n\n\n\n three\n", "one\n\ntwo\n\n\n\nthree"},
        {"", "", ""},
        {"\n", "", ""},
        {"\n\n", "\n\n", "\n\n"},
        {"x", "x\n", "x"},
        {"a\r\n b\x1c\n", "a\n\n\n b\x1c\n", "a\n\nb"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *want[] = {[ROWS_RAW] = strchr(cases[i].file, '\r') ? "a\n b\x1c\n" : cases[i].file,
                              [ROWS_WIKITEXT] = cases[i].wikitext,
                              [ROWS_PTB] = cases[i].ptb};
        write_text(in_scratch("rows"), cases[i].file);
        for (int rule = 0; rule < 4; rule++) {
            char *text;
            size_t n;
            if (rule == ROWS_LINES)
                continue;
            OK(text_read(&text, &n, in_scratch("rows"), (enum row_rule)rule, &err));
            if (n != strlen(want[rule]) || memcmp(text, want[rule], n + 1))
                fail_msg("rule %d, file %zu: [%s], expected [%s]", rule, i, text, want[rule]);
            free(text);
        }
    }
}

static void lines_joined(void **state)
{
    (void)state;
    char *text;
    size_t n;
    write_text(in_scratch("rows"), " a \n\nb\n");
    OK(text_read(&text, &n, in_scratch("rows"), ROWS_LINES, &err));
    assert_string_equal(text, " a \n\n\n\nb");
    assert_int_equal(n, strlen(text));
    free(text);
    struct err err = {0};
    expect_error(text_read(&text, &n, in_scratch("absent"), ROWS_PTB, &err), &err, "absent");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(json_lines),
        cmocka_unit_test(documents_may_hold_nul),
        cmocka_unit_test(damaged_json_lines),
        cmocka_unit_test(row_rules),
        cmocka_unit_test(lines_joined),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
