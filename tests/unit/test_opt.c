/* Command-line options. */
#include "tests/tiny_model.h"

#include "core/base/opt.h"

struct values {
    bool flag, no;
    int64_t n;
    double x;
    const char *s, *other;
};

static int parse(struct values *v, struct opt_words *w, struct err *err, int argc, const char *const *argv)
{
    *v = (struct values){.no = true, .n = 5, .x = 0.5, .s = "default"};
    const struct opt own[] = {
        {OPT_FLAG, "flag", &v->flag, NULL, "a flag"}, {OPT_NO, "no-thing", &v->no, NULL, "not"},
        {OPT_INT, "n", &v->n, "N", "a number"},       {OPT_REAL, "x", &v->x, "X", "a real"},
        {OPT_STRING, "name", &v->s, "S", "a string"}, {.kind = OPT_END},
    };
    const struct opt shared[] = {{OPT_STRING, "other", &v->other, "O", "of the second table"}, {.kind = OPT_END}};
    const struct opt *tables[] = {own, shared};
    return opt_parse(w, tables, 2, argc, (char **)argv, err);
}

#define PARSE(v, w, err, ...)                                                                                                      \
    parse(v, w, err, (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), (const char *[]){__VA_ARGS__})

static void values_and_words(void **state)
{
    (void)state;
    struct values v;
    struct opt_words w;
    OK(PARSE(&v, &w, &err, "model", "--n", "-12", "--x=1e-4", "--flag", "--name", "a=b", "word", "--no-thing", "--other=", "-"));
    assert_true(v.flag && !v.no && v.n == -12 && v.x == 1e-4);
    assert_string_equal(v.s, "a=b");
    assert_string_equal(v.other, "");
    assert_int_equal(w.n, 3);
    assert_string_equal(w.word[0], "model");
    assert_string_equal(w.word[1], "word");
    assert_string_equal(w.word[2], "-");
}

/* A list keeps every value; what an own table has hides the shared option of that name, in the help too. */
static void lists_and_hidden_options(void **state)
{
    (void)state;
    struct opt_list list = {.n = 0};
    const char *hidden = NULL;
    struct opt_words w;
    const struct opt own[] = {{OPT_LIST, "drop", &list, "D", "ours"}, {.kind = OPT_END}};
    const struct opt shared[] = {{OPT_STRING, "drop", &hidden, "D", "theirs"}, {.kind = OPT_END}};
    const struct opt *tables[] = {own, shared};
    OK(opt_parse(&w, tables, 2, 4, (char *[]){"--drop", "1", "--drop=", "--drop=2,3"}, &err));
    assert_int_equal(list.n, 3);
    assert_string_equal(list.value[0], "1");
    assert_string_equal(list.value[1], "");
    assert_string_equal(list.value[2], "2,3");
    assert_null(hidden);
    char *help, *many[OPT_MAX_VALUES];
    size_t n;
    FILE *out = open_memstream(&help, &n);
    opt_help(out, tables, (const char *const[]){"options", "common"}, 2);
    fclose(out);
    assert_non_null(strstr(help, "ours"));
    assert_null(strstr(help, "theirs"));
    free(help);
    for (int i = 0; i < OPT_MAX_VALUES; i++)
        many[i] = "--drop=1";
    struct err err = {0};
    expect_error(opt_parse(&w, tables, 2, OPT_MAX_VALUES, many, &err), &err, "--drop");
}

static void defaults_and_the_end_of_options(void **state)
{
    (void)state;
    struct values v;
    struct opt_words w;
    OK(PARSE(&v, &w, &err, "--", "--flag", "-x", "--"));
    assert_true(!v.flag && v.no && v.n == 5 && v.x == 0.5);
    assert_string_equal(v.s, "default");
    assert_int_equal(w.n, 3);
    assert_string_equal(w.word[2], "--");
    OK(PARSE(&v, &w, &err, "--name", "--flag")); /* what follows an option is its value, whatever it looks like */
    assert_string_equal(v.s, "--flag");
    assert_false(v.flag);
    OK(PARSE(&v, &w, &err, "--n", "1", "--n=2"));
    assert_int_equal(v.n, 2);
}

static void mistakes(void **state)
{
    (void)state;
    static const char *const bad[][3] = {
        {"--nope", NULL, "--nope"},
        {"--na", "x", "--na"},
        {"--name", NULL, "--name"},
        {"--n", NULL, "--n"},
        {"--n", "12x", "12x"},
        {"--n", "", "--n"},
        {"--n=1.5", NULL, "1.5"},
        {"--n", "9223372036854775808", "--n"},
        {"--x", "1e999", "1e999"},
        {"--x", "nan", "nan"},
        {"--x", "inf", "inf"},
        {"--x", "1,5", "1,5"},
        {"--flag=1", NULL, "--flag"},
        {"--no-thing=", NULL, "--no-thing"},
        {"-n", "3", "-n"},
        {"--name2=x", NULL, "--name2"},
        {"--=x", NULL, "--"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct values v;
        struct opt_words w;
        struct err err = {0};
        int rc = parse(&v, &w, &err, bad[i][1] ? 2 : 1, bad[i]);
        expect_error(rc, &err, bad[i][2]);
        assert_int_equal(err.code, ERR_USAGE);
    }
}

static void words_have_a_limit(void **state)
{
    (void)state;
    struct values v;
    struct opt_words w;
    const char *many[OPT_MAX_WORDS + 1];
    for (int i = 0; i <= OPT_MAX_WORDS; i++)
        many[i] = i == OPT_MAX_WORDS ? "last" : "w";
    struct err err = {0};
    assert_int_equal(parse(&v, &w, &err, OPT_MAX_WORDS, many), 0);
    assert_int_equal(w.n, OPT_MAX_WORDS);
    expect_error(parse(&v, &w, &err, OPT_MAX_WORDS + 1, many), &err, "last");
}

static void help_names_every_option(void **state)
{
    (void)state;
    int64_t n = 7;
    double x = 0.25;
    const char *s = "deflt";
    const struct opt own[] = {{OPT_INT, "count", &n, "N", "how many"},
                              {OPT_REAL, "part", &x, "P", "how much"},
                              {OPT_STRING, "name", &s, "S", "which"},
                              {.kind = OPT_END}};
    const struct opt none[] = {{.kind = OPT_END}};
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    opt_help(f, (const struct opt *const[]){own, none}, (const char *const[]){"own", "unseen"}, 2);
    fclose(f);
    static const char *const parts[] = {"own:", "--count N", "how many [7]", "--part P", "[0.25]", "--name S", "[deflt]"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(text, parts[i]))
            fail_msg("%s is not in the help:\n%s", parts[i], text);
    assert_null(strstr(text, "unseen"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_words),         cmocka_unit_test(defaults_and_the_end_of_options),
        cmocka_unit_test(lists_and_hidden_options), cmocka_unit_test(mistakes),
        cmocka_unit_test(words_have_a_limit),       cmocka_unit_test(help_names_every_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
