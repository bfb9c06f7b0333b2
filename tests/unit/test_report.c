/* The report as text: what must be in it is, what must not be is not, and hostile or odd input stays harmless. How it looks is
 * for eyes to judge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/report.h"
#include "cli/report_impl.h"
#include "core/base/file.h"
#include "tests/html_page.h"

/* The page for a report, malloc'ed. */
static char *page(const struct report *r)
{
    char dir[] = "/tmp/espalier-report-XXXXXX", path[64], *text;
    size_t n;
    struct err err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/r.html", dir);
    if (report_write(r, path, &err) != 0 || file_read(&text, &n, path, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(strlen(text), n);
    unlink(path);
    rmdir(dir);
    return text;
}

static const double scores[4] = {31.5, 12.25, 10.5, 11};
static const bool dropped[4] = {false, false, true, false}, guarded[4] = {true, false, false, false};
static const double loss[3] = {3, 2.5, 2}, rates[3] = {1e-4, 2e-4, 1e-4}, eval_loss[2] = {3.25, 2.125};
static const int64_t eval_step[2] = {0, 3};
static const double ppl[3][1] = {{20}, {260}, {25}};
static const struct report_model models[3] = {
    {"intact", 134515008, 4, ppl[0], 40, 2}, {"pruned", 107612006, 3, ppl[1], 50, 3}, {"retrained", 107612006, 3, ppl[2], 0, 0}};
static const char *const texts[1] = {"prose"}, *const prompts[1] = {"Once"};
static const char *const answers[3] = {" upon a time", NULL, " again"};
static const char *const facts[1][2] = {{"Seed", "1234"}};

static struct report full(void)
{
    return (struct report){.title = "T",
                           .subtitle = "S",
                           .criterion = "ppl",
                           .n_blocks = 4,
                           .score = scores,
                           .base_ppl = 10,
                           .dropped = dropped,
                           .protected_ = guarded,
                           .n_steps = 3,
                           .loss = loss,
                           .lr = rates,
                           .n_evals = 2,
                           .eval_step = eval_step,
                           .eval_loss = eval_loss,
                           .n_models = 3,
                           .models = models,
                           .n_texts = 1,
                           .text_names = texts,
                           .n_prompts = 1,
                           .prompts = prompts,
                           .continuations = answers,
                           .n_facts = 1,
                           .facts = facts};
}

static void test_full(void **state)
{
    (void)state;
    struct report r = full();
    char *t = page(&r);
    assert_nested(t);
    assert_int_equal(occurrences(t, "<section"), 5);
    assert_int_equal(occurrences(t, "class=\"block drop\""), 2); /* in the wide and in the narrow picture */
    assert_int_equal(occurrences(t, "class=\"block guard\""), 2);
    assert_int_equal(occurrences(t, "class=\"block keep\""), 4);
    assert_int_equal(occurrences(t, "class=\"eval\" cx"), 2 * 2 + 1); /* and in the legend */
    assert_has(t, "<title>Block 2: 10.50 (+5.0 %), dropped</title>");
    assert_has(t, "<title>Block 0: 31.50 (+215.0 %), protected</title>");
    assert_has(t, "Dropped blocks: 2.");
    assert_has(t, "134.5 M");
    assert_has(t, "−20.0 %");
    assert_has(t, "×13.0");   /* 260 against 20 */
    assert_has(t, "+25.0 %"); /* 25 against 20, and 50 tokens/s against 40 */
    assert_has(t, "<dd>upon a time</dd>");
    assert_has(t, "scope=\"row\">Seed</th><td role=\"cell\">1234</td>");
    assert_lacks(t, "log scale");
    assert_finite(t);
    assert_lacks(t, "http"); /* nothing from elsewhere */
    assert_lacks(t, "<script");
    free(t);
}

static void test_parts_left_out(void **state)
{
    (void)state;
    struct report r = {.title = "only a title"};
    char *t = page(&r);
    assert_nested(t);
    assert_int_equal(occurrences(t, "<section"), 0);
    assert_lacks(t, "<svg");
    assert_lacks(t, "class=\"subtitle\"");
    free(t);

    r = full(); /* no speed measured: no column for it, and none invented */
    struct report_model slow[3];
    memcpy(slow, models, sizeof slow);
    slow[0].decode_tok_s = slow[1].decode_tok_s = 0;
    r.models = slow;
    r.lr = NULL;
    r.n_evals = 0;
    t = page(&r);
    assert_lacks(t, "tokens/s");
    assert_lacks(t, "Learning rate");
    assert_lacks(t, "held-out");
    free(t);

    r = (struct report){.n_evals = 2, .eval_step = eval_step, .eval_loss = eval_loss}; /* evaluations without steps */
    t = page(&r);
    assert_nested(t);
    assert_int_equal(occurrences(t, "<section"), 1);
    free(t);
}

/* A speed has its spread, and a difference that the two spreads explain is none. */
static void test_speeds(void **state)
{
    (void)state;
    static const struct {
        double std;
        const char *says;
    } cases[] = {{3, "40.00 ± 3.00"}, {4.9, "+25.0 %"}, {5, "no difference beyond the noise"}, {0, "noise not measured"}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct report r = full();
        struct report_model m[2] = {{"intact", 10, 4, ppl[0], 40, cases[k].std}, {"pruned", 8, 3, ppl[0], 50, cases[k].std}};
        r.models = m;
        r.n_models = 2;
        r.n_prompts = 0;
        char *t = page(&r);
        assert_nested(t);
        assert_int_equal(occurrences(t, cases[k].says), 2); /* table and summary */
        assert_int_equal(occurrences(t, "+25.0 %"), k < 2 ? 2 : 0);
        free(t);
    }
}

static void test_escaping(void **state)
{
    (void)state;
    static const char evil[] = "<script>alert('x' & \"y\")</script>";
    const char *const names[1] = {evil}, *const said[3] = {evil, evil, evil}, *const known[1][2] = {{evil, evil}};
    struct report_model m[3];
    memcpy(m, models, sizeof m);
    m[0].name = evil;
    struct report r = full();
    r.title = r.subtitle = r.criterion = evil;
    r.models = m;
    r.text_names = r.prompts = names;
    r.continuations = said;
    r.facts = r.recipe = known;
    r.n_recipe = 1;
    char *t = page(&r);
    assert_nested(t);
    assert_lacks(t, "<script");
    assert_lacks(t, "alert('");
    assert_has(t, "<h1>&lt;script&gt;alert(&#39;x&#39; &amp; &quot;y&quot;)&lt;/script&gt;</h1>");
    free(t);
}

static void escaped(const char *in, const char *want)
{
    char *out = NULL;
    size_t n;
    FILE *f = open_memstream(&out, &n);
    html_text(f, in);
    fclose(f);
    assert_string_equal(out, want);
    free(out);
}

#define BAD "\xEF\xBF\xBD"

static void test_utf8(void **state)
{
    (void)state;
    escaped(NULL, "");
    escaped("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8C\xB3\n\tb", "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8C\xB3\n\tb");
    escaped("\xFF\xFE", BAD BAD);
    escaped("\xC3", BAD);                         /* cut */
    escaped("\xE2\x82", BAD);                     /* cut */
    escaped("\xC3<", BAD "&lt;");                 /* the follower is not swallowed */
    escaped("\xC0\xBC", BAD BAD);                 /* overlong '<' */
    escaped("\xE0\x80\xBC", BAD BAD BAD);         /* overlong '<' */
    escaped("\xED\xA0\x80", BAD BAD BAD);         /* surrogate */
    escaped("\xF4\x90\x80\x80", BAD BAD BAD BAD); /* past U+10FFFF */
    escaped("a\x01"
            "b\x7F\r",
            "a" BAD "b" BAD BAD);
}

static void test_numbers(void **state)
{
    (void)state;
    char s[NUMBER_SIZE];
    assert_string_equal(number_plain(s, 56.956), "56.96");
    assert_string_equal(number_plain(s, 0), "0.00");
    assert_string_equal(number_plain(s, 999.99), "999.99");
    assert_string_equal(number_plain(s, 999.996), "1,000");
    assert_string_equal(number_plain(s, 999999.4), "999,999");
    assert_string_equal(number_plain(s, 999999.6), "1.00 × 10⁶");
    assert_string_equal(number_plain(s, 0.00012), "1.20 × 10⁻⁴");
    assert_string_equal(number_plain(s, NAN), "n/a");
    assert_string_equal(number_plain(s, INFINITY), "∞");
    assert_string_equal(number_plain(s, 1e308), "1.00 × 10³⁰⁸");
    assert_string_equal(number_count(s, 134515008), "134.5 M");
    assert_string_equal(number_count(s, 6738415616), "6.74 B");
    assert_string_equal(number_count(s, 999499), "999,499");
    assert_string_equal(number_count(s, 30), "30");
    assert_string_equal(number_count(s, INT64_MIN), "-9,223,372,036,854,775,808");
    assert_string_equal(number_change(s, 110, 100), "+10.0 %");
    assert_string_equal(number_change(s, 80, 100), "−20.0 %");
    assert_string_equal(number_change(s, 100, 100), "±0 %");
    assert_string_equal(number_change(s, 1234, 100), "×12.3");
    assert_string_equal(number_change(s, 1e9, 2), "×5.00 × 10⁸");
    assert_string_equal(number_change(s, 5, 0), "");
    assert_string_equal(number_change(s, NAN, 1), "");
    assert_string_equal(number_tick(s, 0.1 + 0.2), "0.3");
    assert_string_equal(number_tick(s, 2000), "2,000");
    assert_string_equal(number_tick(s, 1e6), "10⁶");
    assert_string_equal(number_tick(s, 5e-4), "5 × 10⁻⁴");
}

static void test_scales(void **state)
{
    (void)state;
    double v[16];
    struct report r = {.n_blocks = 16, .score = v, .base_ppl = 10};
    for (int i = 0; i < 16; i++)
        v[i] = 11 + i;
    v[0] = 80; /* 8 times the base: still linear */
    assert_false(blocks_log_scale(&r));
    v[0] = 80.1;
    assert_true(blocks_log_scale(&r));
    assert_true(isinf(blocks_ceiling(&r))); /* log(8) is less than three times log(2.6): all have room */
    v[0] = 1e5;
    v[1] = NAN;
    assert_true(blocks_ceiling(&r) == 26);
    char *t = page(&r);
    assert_nested(t);
    assert_has(t, "log scale");
    assert_has(t, "Off the scale (arrows): block 0 (100,000), block 1 (n/a).");
    assert_finite(t);
    free(t);
    v[2] = -1; /* no logarithm */
    assert_false(blocks_log_scale(&r));
}

/* Odd input draws something, and never a coordinate that is no number. */
static void test_odd_input(void **state)
{
    (void)state;
    const double none[2] = {NAN, INFINITY}, same[2] = {5, 5}, zero[2] = {0, 0}, below[2] = {-3, -1}, tiny[2] = {1e-300, 1e-290};
    const double *const cases[] = {none, same, zero, below, tiny};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int n = 1; n <= 2; n++)
            for (int base = 0; base < 2; base++) {
                struct report r = {.n_blocks = n,
                                   .score = cases[k],
                                   .base_ppl = base ? 5 : 0,
                                   .n_steps = n,
                                   .loss = cases[k],
                                   .lr = cases[k],
                                   .n_evals = n,
                                   .eval_step = eval_step,
                                   .eval_loss = cases[k]};
                char *t = page(&r);
                assert_nested(t);
                assert_int_equal(occurrences(t, "<svg class=\"plot"), 4);
                assert_finite(t);
                free(t);
            }
}

/* A spike between thousands of steps is drawn, though there are fewer columns than steps; the page stays small. */
static void test_long_run(void **state)
{
    (void)state;
    enum { N = 100000 };
    double *v = malloc(sizeof *v * N);
    for (int i = 0; i < N; i++)
        v[i] = 2;
    v[70001] = 102;
    struct report r = {.n_steps = N, .loss = v};
    char *t = page(&r);
    assert_true(strlen(t) < 200000);
    const char *raw = strstr(t, "<svg class=\"plot wide\"");
    raw = strstr(raw, "class=\"raw\" d=\"");
    double least = INFINITY, most = -INFINITY;
    for (const char *p = raw + 15; *p != '"';) { /* the highest and the lowest point: "M54.0 200.1h0L..." */
        double x, y;
        int n = 0;
        assert_int_equal(sscanf(p, "%*c%lf %lf%n", &x, &y, &n), 2);
        least = fmin(least, y);
        most = fmax(most, y);
        p += n;
        p += !strncmp(p, "h0", 2) ? 2 : 0;
    }
    assert_true(most - least > 150); /* of the 230 that the panel is high */
    free(t);
    free(v);
}

static void test_unwritable(void **state)
{
    (void)state;
    struct err err = {0};
    struct report r = full();
    assert_int_equal(report_write(&r, "/nonexistent/r.html", &err), -1);
    assert_non_null(strstr(err.msg, "/nonexistent/r.html"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),      cmocka_unit_test(test_parts_left_out), cmocka_unit_test(test_escaping),
        cmocka_unit_test(test_utf8),      cmocka_unit_test(test_numbers),        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_odd_input), cmocka_unit_test(test_long_run),       cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_speeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
