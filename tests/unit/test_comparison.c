/* What a comparison leaves behind: the table to the letter, the arrays read back, and the page as text. How the page looks is for
 * eyes to judge. */
#include "core/base/dir.h"
#include "tests/html_page.h"
#include "tests/tiny_model.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "cli/comparison.h"
#include "core/io/h5.h"

enum { CRITERIA = 2, RATIOS = 2, UNITS = 6, TEXTS = 2, TASKS = 3, VARIANTS = CRITERIA * RATIOS * 2 };

/* Six blocks, of which the first and the last are protected. Scored by perplexity, and by a criterion that would take block 0. */
struct made {
    struct unit unit[UNITS], dropped[VARIANTS][2];
    double score[CRITERIA][UNITS], ppl[VARIANTS][TEXTS], intact[TEXTS];
    double acc[VARIANTS + 1][TASKS], std_error[VARIANTS + 1][TASKS], average[VARIANTS], average_error[VARIANTS];
    const struct task *tasks[TASKS];
    struct criterion of[CRITERIA];
    const struct criterion *which[CRITERIA];
    struct scores scores[CRITERIA];
    struct variant variants[VARIANTS];
    struct comparison k;
    struct comparison_sheet sheet;
};

static const double ratios[RATIOS] = {0.125, 0.3};
static const char *const texts[TEXTS] = {"prose", "a,\"b\""}, *const facts[2][2] = {{"Seed", "1234"}, {"model", "not this one"}};
static double correlation[CRITERIA * CRITERIA] = {1, -0.25, -0.25, 1};
static double overlap[RATIOS * CRITERIA * CRITERIA] = {1, 0, 0, 1, 1, 0.5, 0.5, 1};

static void make_variants(struct made *m)
{
    static const int64_t dropped[VARIANTS][2] = {{2}, {2}, {2, 3}, {2, 3}, {4}, {0}, {4, 2}, {0, 4}};
    static const double ppl[VARIANTS][TEXTS] = {{20.5, 30},  {20.5, 30}, {29.25, 40.5},    {29.25, 40.5},
                                                {21.25, 28}, {29187, 7}, {28.5, INFINITY}, {1e9, 9}};
    static const double swap[VARIANTS] = {0.25, 0.25, 0.01, 0.01, NAN, NAN, NAN, NAN};
    memcpy(m->ppl, ppl, sizeof ppl);
    for (int64_t i = 0; i < VARIANTS; i++) {
        int64_t count = i / 2 % RATIOS + 1;
        m->variants[i] = (struct variant){.criterion = i / (2 * RATIOS),
                                          .ratio = i / 2 % RATIOS,
                                          .protected_ = i % 2 == 0,
                                          .count = count,
                                          .dropped = m->dropped[i],
                                          .cut_swap = swap[i],
                                          .params = 6000000 - 500000 * count,
                                          .same_as = i < 4 ? i / 2 * 2 : i,
                                          .ppl = m->ppl[i]};
        for (int64_t d = 0; d < count; d++)
            m->dropped[i][d] = m->unit[dropped[i][d]];
    }
}

static struct made *make(void)
{
    static const double score[CRITERIA][UNITS] = {{900, 25, 11, 12, 13, 40}, {1, 5, 3, 4, 2, 6}};
    static struct made made;
    struct made *m = &made;
    *m = (struct made){
        .intact = {10.125, 15},
        .of = {{.name = "ppl", .score = "perplexity without", .perplexity = true}, {.name = "bi", .score = "1 - cos"}}};
    memcpy(m->score, score, sizeof score);
    for (int64_t i = 0; i < UNITS; i++)
        m->unit[i] = (struct unit){i, PARTS_ALL};
    for (int c = 0; c < CRITERIA; c++) {
        m->which[c] = &m->of[c];
        m->scores[c] = (struct scores){.n = UNITS, .unit = m->unit, .model_blocks = UNITS, .score = m->score[c]};
    }
    m->scores[0].base_ppl = m->scores[1].base_ppl = 10; /* of the model, whatever the criterion */
    make_variants(m);
    m->k = (struct comparison){.n_units = UNITS,
                               .n_criteria = CRITERIA,
                               .n_ratios = RATIOS,
                               .n_texts = TEXTS,
                               .n_variants = VARIANTS,
                               .which = m->which,
                               .scores = m->scores,
                               .ratios = ratios,
                               .keep_first = 1,
                               .keep_last = 1,
                               .texts = texts,
                               .intact_ppl = m->intact,
                               .intact_params = 6000000,
                               .variants = m->variants,
                               .correlation = correlation,
                               .overlap = overlap};
    m->sheet = (struct comparison_sheet){.k = &m->k, .title = "T", .model = "M", .n_facts = 2, .facts = facts};
    return m;
}

static const bool averaged[TASKS] = {true, false, true};

static struct zeroshot_scores make_scores(struct made *m, int64_t at, double average)
{
    for (int t = 0; t < TASKS; t++) {
        m->acc[at][t] = average + 0.125 * (t - 1);
        m->std_error[at][t] = 0.0625;
    }
    return (struct zeroshot_scores){m->acc[at], m->std_error[at], average, 0.03125};
}

/* The same with zero-shot scores on three tasks, one of which is no part of the average. */
static struct made *make_with_tasks(void)
{
    static const double average[VARIANTS] = {0.5, 0.5, 0.375, 0.375, 0.4375, 0.25, 0.40625, 0.25};
    struct made *m = make();
    const char *const names[TASKS] = {"piqa", "lambada", "hellaswag"};
    for (int t = 0; t < TASKS; t++)
        m->tasks[t] = task_find(names[t]);
    m->k.n_tasks = TASKS;
    m->k.tasks = m->tasks;
    m->k.averaged = averaged;
    for (int64_t i = 0; i < VARIANTS; i++) {
        m->variants[i].zeroshot = make_scores(m, i, average[i]);
        m->average[i] = average[i];
        m->average_error[i] = 0.03125;
    }
    m->k.intact_zeroshot = make_scores(m, VARIANTS, 0.5625);
    return m;
}

/* ---- CSV ---- */

static void table_to_the_letter(void **state)
{
    (void)state;
    static const char want[] =
        "criterion,ratio,protected,count,dropped,parameters,cut_swap_probability,ppl: prose,\"ppl: a,\"\"b\"\"\"\n"
        "intact,0,,0,,6000000,,10.125,15\n"
        "ppl,0.125,yes,1,2,5500000,0.25,20.5,30\n"
        "ppl,0.125,no,1,2,5500000,0.25,20.5,30\n"
        "ppl,0.3,yes,2,2 3,5000000,0.01,29.25,40.5\n"
        "ppl,0.3,no,2,2 3,5000000,0.01,29.25,40.5\n"
        "bi,0.125,yes,1,4,5500000,,21.25,28\n"
        "bi,0.125,no,1,0,5500000,,29187,7\n"
        "bi,0.3,yes,2,4 2,5000000,,28.5,inf\n"
        "bi,0.3,no,2,0 4,5000000,,1000000000,9\n";
    char *path = in_scratch("c.csv"), *text;
    size_t n;
    struct made *m = make();
    OK(comparison_write_csv(path, &m->sheet, &err));
    OK(file_read(&text, &n, path, &err));
    assert_string_equal(text, want);
    free(text);

    for (int i = 0; i < UNITS; i++)
        m->unit[i] = (struct unit){i / 2, i % 2 ? PART_FFN : PART_ATTN};
    make_variants(m);
    OK(comparison_write_csv(path, &m->sheet, &err));
    OK(file_read(&text, &n, path, &err));
    assert_non_null(strstr(text, "\nppl,0.3,yes,2,1.attn 1.ffn,5000000,"));
    free(text);
}

static void table_with_tasks(void **state)
{
    (void)state;
    static const char want[] =
        "criterion,ratio,protected,count,dropped,parameters,cut_swap_probability,ppl: prose,\"ppl: a,\"\"b\"\"\","
        "zeroshot_average,acc: piqa,acc: lambada,acc_norm: hellaswag\n"
        "intact,0,,0,,6000000,,10.125,15,0.5625,0.4375,0.5625,0.6875\n"
        "ppl,0.125,yes,1,2,5500000,0.25,20.5,30,0.5,0.375,0.5,0.625\n";
    char *path = in_scratch("z.csv"), *text;
    size_t n;
    OK(comparison_write_csv(path, &make_with_tasks()->sheet, &err));
    OK(file_read(&text, &n, path, &err));
    assert_memory_equal(text, want, strlen(want));
    assert_int_equal(occurrences(text, "\n"), VARIANTS + 2);
    free(text);
}

/* ---- HDF5 ---- */

static void expect_f64(const char *path, const char *name, const double *want, const int64_t *dims, int n_dims)
{
    double *v;
    int64_t found[H5_MAX_DIMS], n = 1;
    int found_dims;
    OK(h5_read_f64(&v, found, &found_dims, path, name, &err));
    assert_int_equal(found_dims, n_dims);
    for (int i = 0; i < n_dims; i++) {
        assert_int_equal(found[i], dims[i]);
        n *= dims[i];
    }
    for (int64_t i = 0; i < n; i++)
        if (!(v[i] == want[i] || (isnan(v[i]) && isnan(want[i]))))
            fail_msg("%s: %g at %lld, not %g", name, v[i], (long long)i, want[i]);
    free(v);
}

static void expect_i64(const char *path, const char *name, const int64_t *want, const int64_t *dims, int n_dims)
{
    double v[64];
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++)
        n *= dims[i];
    for (int64_t i = 0; i < n; i++)
        v[i] = (double)want[i];
    expect_f64(path, name, v, dims, n_dims);
}

static void expect_attributes(const char *path)
{
    static const char *const want[][2] = {{"title", "T"}, {"model", "M"}, {"Seed", "1234"}}; /* a fact does not hide the model */
    double last;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        char *text;
        OK(h5_read_attr_string(&text, path, "/", want[i][0], &err));
        assert_string_equal(text, want[i][1]);
        free(text);
    }
    OK(h5_read_attr_f64(&last, path, "/", "keep_last", &err));
    assert_true(last == 1);
}

static void arrays_read_back(void **state)
{
    (void)state;
    const int64_t c = CRITERIA, n = VARIANTS, t = TEXTS, u = UNITS;
    static const int64_t blocks[UNITS] = {0, 1, 2, 3, 4, 5}, whole[UNITS] = {3, 3, 3, 3, 3, 3},
                         orders[] = {2, 3, 4, 1, 5, 0, 0, 4, 2, 3, 1, 5}, criterion[VARIANTS] = {0, 0, 0, 0, 1, 1, 1, 1},
                         ratio[VARIANTS] = {0, 0, 1, 1, 0, 0, 1, 1}, kept[VARIANTS] = {1, 0, 1, 0, 1, 0, 1, 0},
                         dropped[] = {2, -1, 2, -1, 2, 3, 2, 3, 4, -1, 0, -1, 4, 2, 0, 4},
                         same[VARIANTS] = {0, 0, 2, 2, 4, 5, 6, 7};
    char *path = in_scratch("c.h5");
    struct made *m = make();
    int64_t count[VARIANTS], params[VARIANTS];
    double swap[VARIANTS];
    for (int i = 0; i < VARIANTS; i++) {
        count[i] = m->variants[i].count;
        params[i] = m->variants[i].params;
        swap[i] = m->variants[i].cut_swap;
    }
    OK(comparison_write_h5(path, &m->sheet, &err));
    expect_f64(path, "scores", m->score[0], (int64_t[]){c, u}, 2);
    expect_f64(path, "base_ppl", (double[]){10, NAN}, &c, 1);
    expect_f64(path, "correlation", correlation, (int64_t[]){c, c}, 2);
    expect_f64(path, "overlap", overlap, (int64_t[]){RATIOS, c, c}, 3);
    expect_f64(path, "ratios", ratios, (int64_t[]){RATIOS}, 1);
    expect_f64(path, "intact/ppl", m->intact, &t, 1);
    expect_f64(path, "variants/ppl", m->ppl[0], (int64_t[]){n, t}, 2);
    expect_f64(path, "variants/cut_swap", swap, &n, 1);
    expect_i64(path, "block", blocks, &u, 1);
    expect_i64(path, "parts", whole, &u, 1);
    expect_i64(path, "orders", orders, (int64_t[]){c, u}, 2);
    expect_i64(path, "intact/params", &m->k.intact_params, NULL, 0);
    expect_i64(path, "variants/criterion", criterion, &n, 1);
    expect_i64(path, "variants/ratio", ratio, &n, 1);
    expect_i64(path, "variants/protected", kept, &n, 1);
    expect_i64(path, "variants/count", count, &n, 1);
    expect_i64(path, "variants/params", params, &n, 1);
    expect_i64(path, "variants/same_as", same, &n, 1);
    expect_i64(path, "variants/dropped", dropped, (int64_t[]){n, 2}, 2);
    expect_attributes(path);

    static const int64_t halves[] = {0, 0, 1, 1, 2, 2}, half[] = {1, 2, 1, 2, 1, 2};
    for (int i = 0; i < UNITS; i++)
        m->unit[i] = (struct unit){i / 2, i % 2 ? PART_FFN : PART_ATTN};
    make_variants(m);
    OK(comparison_write_h5(path, &m->sheet, &err));
    expect_i64(path, "block", halves, &u, 1);
    expect_i64(path, "parts", half, &u, 1);
    expect_i64(path, "variants/dropped", dropped, (int64_t[]){n, 2}, 2); /* positions in the list: the same ones */
}

static void zeroshot_reads_back(void **state)
{
    (void)state;
    const int64_t n = VARIANTS, t = TASKS, both[2] = {VARIANTS, TASKS};
    static const int64_t counts[TASKS] = {1, 0, 1};
    char *path = in_scratch("z.h5"), *unit;
    struct made *m = make_with_tasks();
    struct err none = {0};
    double *v;
    int64_t dims[H5_MAX_DIMS];
    int n_dims;
    OK(comparison_write_h5(path, &m->sheet, &err));
    expect_f64(path, "variants/zeroshot", m->acc[0], both, 2);
    expect_f64(path, "variants/zeroshot_stderr", m->std_error[0], both, 2);
    expect_f64(path, "variants/zeroshot_average", m->average, &n, 1);
    expect_f64(path, "variants/zeroshot_average_stderr", m->average_error, &n, 1);
    expect_f64(path, "intact/zeroshot", m->acc[VARIANTS], &t, 1);
    expect_f64(path, "intact/zeroshot_average", (double[]){0.5625}, NULL, 0);
    expect_i64(path, "task_averaged", counts, &t, 1);
    expect_f64(path, "variants/ppl", m->ppl[0], (int64_t[]){VARIANTS, TEXTS}, 2);
    OK(h5_read_attr_string(&unit, path, "variants/zeroshot", "unit", &err));
    assert_string_equal(unit, "share of 1");
    free(unit);
    OK(comparison_write_h5(path, &make()->sheet, &err)); /* without tasks there is nothing of them */
    assert_int_equal(h5_read_f64(&v, dims, &n_dims, path, "variants/zeroshot_average", &none), -1);
}

/* ---- HTML ---- */

/* The page, malloc'ed. */
static char *page(const struct comparison_sheet *s)
{
    char *path = in_scratch("c.html"), *text;
    size_t n;
    OK(comparison_write_html(path, s, &err));
    OK(file_read(&text, &n, path, &err));
    assert_int_equal(strlen(text), n);
    assert_nested(text);
    assert_finite(text);
    assert_lacks(text, "<script");
    assert_lacks(text, "http"); /* nothing from elsewhere */
    return text;
}

static void page_in_full(void **state)
{
    (void)state;
    char *t = page(&make()->sheet);
    assert_int_equal(occurrences(t, "<section"), 6);
    assert_has(t, "<p class=\"subtitle\">M: 6 blocks, 6.00 M parameters</p>");
    assert_has(t, "On prose, with the first and the last block protected, the lowest perplexity comes from <strong>ppl</strong> at "
                  "12.5\u00A0% (20.50), and <strong>bi</strong> at 30\u00A0% (28.50); the intact model has 10.12.");
    assert_has(t, "The cut of 2 of the variants is not settled;");
    assert_int_equal(occurrences(t, "aria-label=\"cut not settled\""), 2 * TEXTS);
    assert_int_equal(occurrences(t, "<td class=\"best\">"), RATIOS * 2 * TEXTS);
    assert_has(t, "<td class=\"best\"><span class=\"value\">28.50<");
    assert_has(t, "<td><span class=\"value\">29.25<");
    assert_has(t, "29,187");
    assert_has(t, "1.00 × 10⁹");
    assert_has(t, "∞");
    assert_has(t, "data-label=\"Dropped\">4, 2</td><td role=\"cell\" data-label=\"Parameters left\">5.00 M</td>");
    assert_has(t, "0.25 †");
    assert_int_equal(occurrences(t, "class=\"block drop\""), 2 + 2);  /* by both criteria, at the second ratio */
    assert_int_equal(occurrences(t, "class=\"block guard\""), 2 + 2); /* blocks 0 and 5 */
    assert_has(t, "<title>Block 2: 11.00 (+10.0 %), dropped</title>");
    assert_has(t, "<title>Block 2: 3.00, dropped</title>");                /* no perplexity: nothing to compare it with */
    assert_int_equal(occurrences(t, "<path class=\"gone\" d=\"M5 1h"), 1); /* in the legend */
    assert_int_equal(occurrences(t, "class=\"gone\""), 1 + 1 + 1 + 2 + 2);
    assert_int_equal(occurrences(t, "class=\"gone-free\""), 1 + 1 + 1); /* bi would take block 0 at both ratios */
    assert_int_equal(occurrences(t, "<title>0, where nothing is protected</title>"), 2);
    assert_has(t, "<td style=\"--v: 0.50\">50&nbsp;%</td>");
    assert_has(t, "<td class=\"minus\" style=\"--v: 0.25\">−0.25</td>");
    assert_has(t, "scope=\"row\">Seed</th><td role=\"cell\">1234</td>");
    free(t);
}

/* With tasks: two more sections, a column in the list of variants, and everything of the page without them. */
static void page_with_tasks(void **state)
{
    (void)state;
    char *t = page(&make_with_tasks()->sheet);
    assert_int_equal(occurrences(t, "<section"), 8);
    assert_has(
        t, "The highest zero-shot accuracy comes from <strong>ppl</strong> at 12.5\u00A0% (50.0\u00A0%), and <strong>bi</strong> "
           "at 30\u00A0% (40.6\u00A0%); the intact model has 56.2\u00A0%, with a standard error of 3.1 points. The cut");
    assert_has(t, "<h3>Average of 2 tasks <span class=\"note\">– intact model: 56.2\u00A0%</span></h3>");
    assert_has(t, "<h3>hellaswag <span class=\"note\">– acc_norm, intact model: 68.8\u00A0%</span></h3>");
    assert_has(t,
               "Right answers to piqa (acc), hellaswag (acc_norm). The intact model’s average has a standard error of 3.1 points");
    assert_int_equal(occurrences(t, "(highest)"), RATIOS * 2 * (1 + TASKS));
    assert_has(t, "<td class=\"best\"><span class=\"value\">50.0\u00A0%<span class=\"hidden\"> (highest)");
    assert_has(t, "<td><span class=\"value\">37.5\u00A0%<"); /* at 30 %, where bi is ahead */
    assert_int_equal(occurrences(t, "data-label=\"Zero-shot\""), VARIANTS);
    assert_has(t, "data-label=\"Parameters left\">5.00 M</td><td role=\"cell\" data-label=\"Zero-shot\">40.6\u00A0%</td>");
    assert_has(t, "<title>bi at 30\u00A0%: 40.6\u00A0%</title>");
    assert_has(t, "id=\"ratios-average-wide-title\">Zero-shot accuracy against the part that is dropped<");
    assert_has(t, "Intact model: 56.2\u00A0%. ppl: 50.0\u00A0% at 12.5\u00A0%, 37.5\u00A0% at 30\u00A0%.");
    assert_int_equal(occurrences(t, "<path class=\"base\" d=\"M1 7h20\"/>"), 2);     /* the legends */
    assert_int_equal(occurrences(t, "<path class=\"base\""), 2 + 2 * TEXTS + 2 + 1); /* of each curve, and of ppl's scores */
    assert_has(t, "29,187");
    free(t);

    struct made *m = make_with_tasks();
    m->variants[3].zeroshot.average = 0.01;
    t = page(&m->sheet);
    char *plot = strstr(t, "id=\"ratios-average-wide-title\"");
    assert_non_null(plot);
    *strstr(plot, "</svg>") = 0;
    assert_has(plot, ">30</text>"); /* a step of a linear scale, however far accuracies are apart */
    free(t);

    m = make_with_tasks();
    m->k.n_criteria = 1;
    m->k.n_variants = 2 * RATIOS;
    m->k.tasks = m->tasks + 1;
    m->k.n_tasks = 1;
    m->k.averaged = averaged;
    m->k.intact_zeroshot.average_std_error = NAN; /* of one document */
    t = page(&m->sheet);
    assert_has(
        t, "The zero-shot accuracy is 50.0\u00A0% at 12.5\u00A0% and 37.5\u00A0% at 30\u00A0%; the intact model has 56.2\u00A0%.");
    assert_has(t, "<h3>lambada <span class=\"note\">– intact model: 56.2\u00A0%</span></h3>");
    assert_lacks(t, "<summary>Each task");
    assert_lacks(t, "standard error");
    free(t);
    t = page(&make()->sheet);
    assert_lacks(t, "ero-shot");
    free(t);
}

/* Perplexities beyond the picture are arrows, and the rest keeps its room. */
static void page_off_the_scale(void **state)
{
    (void)state;
    char *t = page(&make()->sheet);
    assert_has(t,
               "Off the scale (arrows): bi at 12.5\u00A0% with nothing protected (29,187), bi at 30\u00A0% with nothing protected "
               "(1.00 × 10⁹).");
    assert_has(t, "Off the scale (arrows): bi at 30\u00A0% (∞).");
    assert_has(t, "Perplexity (log scale)");
    free(t);
}

/* One criterion and ratio, nothing protected, no text: what has no content is left out, and nothing breaks. */
static void page_of_little(void **state)
{
    (void)state;
    struct made *m = make();
    m->k.n_criteria = m->k.n_ratios = m->k.n_texts = 1;
    m->k.n_variants = 2;
    m->k.keep_first = m->k.keep_last = 0;
    m->variants[0].cut_swap = NAN;
    char *t = page(&m->sheet);
    assert_int_equal(occurrences(t, "<section"), 5); /* one criterion agrees with nobody */
    assert_has(
        t, "On prose, dropping by <strong>ppl</strong> gives a perplexity of 20.50 at 12.5\u00A0%; the intact model has 10.12.");
    assert_lacks(t, "†");
    assert_lacks(t, "class=\"best\"");
    assert_lacks(t, "ends protected");
    assert_int_equal(occurrences(t, "Nothing protected: any block may go"), 2);
    free(t);

    m->k.n_texts = 0;
    m->sheet.n_facts = 0;
    t = page(&m->sheet);
    assert_int_equal(occurrences(t, "<section"), 3);
    free(t);
}

static void page_of_odd_numbers(void **state)
{
    (void)state;
    static const double odd[] = {NAN, INFINITY, -INFINITY, 0, -1, 1e-300, 1e300};
    for (size_t k = 0; k < sizeof odd / sizeof *odd; k++)
        for (int all = 0; all < 2; all++) {
            struct made *m = make_with_tasks();
            for (int i = 0; i < VARIANTS; i += all ? 1 : 3)
                m->variants[i].zeroshot.average = m->acc[i][0] = odd[k];
            m->k.intact_zeroshot.average = odd[k];
            for (int i = 0; i < VARIANTS; i += all ? 1 : 3)
                m->ppl[i][0] = m->ppl[i][1] = odd[k];
            for (int i = 0; i < UNITS; i += all ? 1 : 3)
                m->score[0][i] = m->score[1][i] = odd[k];
            m->intact[1] = odd[k];
            free(page(&m->sheet));
        }
}

static void page_escapes(void **state)
{
    (void)state;
    static const char evil[] = "<script>alert('x' & \"y\")</script>";
    static const char *const names[TEXTS] = {evil, evil}, *const known[1][2] = {{evil, evil}};
    struct made *m = make();
    m->of[0].name = m->of[0].score = evil;
    m->k.texts = names;
    m->sheet = (struct comparison_sheet){.k = &m->k, .title = evil, .model = evil, .n_facts = 1, .facts = known};
    char *t = page(&m->sheet);
    assert_lacks(t, "alert('");
    assert_has(t, "<h1>&lt;script&gt;alert(&#39;x&#39; &amp; &quot;y&quot;)&lt;/script&gt;</h1>");
    free(t);
}

/* ---- what goes wrong ---- */

typedef int writer(const char *path, const struct comparison_sheet *s, struct err *e);

static int entries(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += *e->d_name != '.';
    closedir(d);
    return n;
}

/* A disk that takes 64 bytes, and a folder that is not there: an error that names the file, and nothing left behind. */
static void nothing_half_written(void **state)
{
    (void)state;
    static writer *const writers[] = {comparison_write_csv, comparison_write_h5, comparison_write_html};
    struct made *m = make();
    struct rlimit old, small;
    char *dir = in_scratch("full"), *path = in_scratch("full/file"), *astray = in_scratch("absent/file");
    OK(dir_make(dir, &err));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 64;
    for (int k = 0; k < 3; k++) {
        struct err full = {0}, missing = {0};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        int rc = writers[k](path, &m->sheet, &full);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(rc, -1);
        assert_has(full.msg, path);
        assert_int_equal(entries(dir), 0);
        assert_int_equal(writers[k](astray, &m->sheet, &missing), -1);
        assert_has(missing.msg, astray);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_to_the_letter), cmocka_unit_test(arrays_read_back),     cmocka_unit_test(page_in_full),
        cmocka_unit_test(table_with_tasks),    cmocka_unit_test(zeroshot_reads_back),  cmocka_unit_test(page_with_tasks),
        cmocka_unit_test(page_off_the_scale),  cmocka_unit_test(page_of_little),       cmocka_unit_test(page_of_odd_numbers),
        cmocka_unit_test(page_escapes),        cmocka_unit_test(nothing_half_written),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
