/* Python's str methods; what is expected was worked out with Python 3.11. */
#include "tests/tiny_model.h"

#include "data/pytext.h"

static void lengths(void **state)
{
    (void)state;
    assert_int_equal(pytext_len(""), 0);
    assert_int_equal(pytext_len("pear"), 4);
    assert_int_equal(pytext_len("p\u00eache \u6797\U0001F333"), 8);
    assert_int_equal(pytext_rstrip("a b \n\t\u00a0\u3000\u2029", strlen("a b \n\t\u00a0\u3000\u2029")), 3);
    assert_int_equal(pytext_rstrip("a\u200b", 4), 4); /* the zero-width space is none */
    assert_int_equal(pytext_rstrip(" \n", 2), 0);
    assert_int_equal(pytext_rstrip("", 0), 0);
}

static void expect_strip(const char *in, const char *out)
{
    char s[64];
    strcpy(s, in);
    pytext_strip(s);
    assert_string_equal(s, out);
}

static void stripping(void **state)
{
    (void)state;
    expect_strip("  a b\x1c\x1f ", "a b");
    expect_strip("\u1680\u2003\xc2\x85"
                 "x\u202f",
                 "x");
    expect_strip("\ufeffx", "\ufeffx");
    expect_strip(" \t\n", "");
    expect_strip("", "");
}

static void expect_replaced(const char *in, const char *from, const char *to, const char *out)
{
    char s[64];
    strcpy(s, in);
    pytext_replace(s, from, to);
    assert_string_equal(s, out);
}

static void replacing(void **state)
{
    (void)state;
    expect_replaced("a  b   c    d", "  ", " ", "a b  c  d"); /* one pass, from the left */
    expect_replaced("How [title] Now [title]", " [title]", ". ", "How.  Now. ");
    expect_replaced("[title]", " [title]", ". ", "[title]");
    expect_replaced("", "x", "", "");
}

static void expect_unbracketed(const char *in, const char *out)
{
    char s[64];
    strcpy(s, in);
    pytext_remove_brackets(s);
    assert_string_equal(s, out);
}

static void brackets(void **state)
{
    (void)state;
    expect_unbracketed("a [step] b[]c", "a  bc");
    expect_unbracketed("[a] [b", " [b");
    expect_unbracketed("a [[b]] c", "a ] c"); /* up to the first bracket that closes */
    expect_unbracketed("a [b\nc] [d]", "a [b\nc] ");
    expect_unbracketed("a ] b [c]", "a ] b ");
    expect_unbracketed("[b\n[c]d", "[b\nd");
}

static void expect_capital(const char *in, const char *out)
{
    struct arena arena = {0};
    struct err err = {0};
    assert_string_equal(pytext_capitalize(in, &arena, &err), out);
    arena_free(&arena);
}

static void capitals(void **state)
{
    (void)state;
    expect_capital("", "");
    expect_capital("she CUTS It", "She cuts it");
    expect_capital(" She", " she");
    expect_capital("\u00e9T\u00c9", "\u00c9t\u00e9");
    expect_capital("\u01c6", "\u01c5"); /* a letter with a title case of its own */
    expect_capital("\u00dfA", "Ssa");   /* title cases of several characters */
    expect_capital("\ufb03X", "Ffix");
    expect_capital("\u0149", "\u02bcN");
    expect_capital("a\u0130", "Ai\u0307");
    expect_capital("\u0391\u03a3 \u03a3\u0391", "\u0391\u03c2 \u03c3\u03b1"); /* a sigma at the end of its word */
    expect_capital("\u0391\u03a3\u0301.", "\u0391\u03c2\u0301.");
    expect_capital("x\u023a\u023a\u023a", "X\u2c65\u2c65\u2c65"); /* longer in lower case */
    expect_capital("\U00010428\U00010400", "\U00010400\U00010428");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths),  cmocka_unit_test(stripping), cmocka_unit_test(replacing),
        cmocka_unit_test(brackets), cmocka_unit_test(capitals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
