/* The page of a comparison. */
#include <math.h>
#include <string.h>

#include "cli/comparison_impl.h"

static const char style[] =
#include "cli/comparison_css.inc"
    ;

/* ---- numbers and words ---- */

/* "the first 4 and the last 2 blocks" */
void print_ends(FILE *f, const struct comparison *k)
{
    long long first = (long long)k->keep_first, last = (long long)k->keep_last;
    if (first == 1 && last == 1)
        fputs("the first and the last block", f);
    else if (first > 0 && last > 0)
        fprintf(f, "the first %lld and the last %lld blocks", first, last);
    else
        fprintf(f, "the %s %lld block%s", first > 0 ? "first" : "last", first + last, first + last == 1 ? "" : "s");
}

static void print_strong(FILE *f, const char *before, const char *text)
{
    fprintf(f, "%s<strong>", before);
    html_text(f, text);
    fputs("</strong>", f);
}

/* ---- summary ---- */

static bool wins(const struct comparison *k, struct measure m, int64_t criterion, int64_t ratio)
{
    return measure_of(m, k, comparison_variant(k, criterion, ratio, true)) == measure_best(m, k, ratio, true);
}

/* Whether the same criteria win at both ratios. */
static bool same_winners(const struct comparison *k, struct measure m, int64_t a, int64_t b)
{
    for (int64_t c = 0; c < k->n_criteria; c++)
        if (wins(k, m, c, a) != wins(k, m, c, b))
            return false;
    return true;
}

/* "ppl", "ppl and greedy", "ppl, taylor and greedy" */
static void print_winners(FILE *f, const struct comparison *k, struct measure m, int64_t ratio)
{
    int64_t n = 0, said = 0;
    for (int64_t c = 0; c < k->n_criteria; c++)
        n += wins(k, m, c, ratio);
    if (n == 0)
        fputs("none", f);
    for (int64_t c = 0; c < k->n_criteria; c++)
        if (wins(k, m, c, ratio)) {
            print_strong(f, said == 0 ? "" : said + 1 == n ? " and " : ", ", k->which[c]->name);
            said++;
        }
}

/* "ppl at 10 % (56.21) and 20 % (82.33), and bi at 30 % (154)": neighbouring ratios with the same winners together. */
static void print_outcome(FILE *f, const struct comparison *k, struct measure m)
{
    char number[NUMBER_SIZE], part[NUMBER_SIZE];
    for (int64_t r = 0; r < k->n_ratios; r++) {
        bool first = r == 0 || !same_winners(k, m, r - 1, r), last = r + 1 == k->n_ratios;
        if (first) {
            fputs(r > 0 ? last ? ", and " : ", " : "", f);
            print_winners(f, k, m, r);
            fputs(" at ", f);
        } else {
            fputs(last || !same_winners(k, m, r, r + 1) ? " and " : ", ", f);
        }
        fprintf(f, "%s (%s)", number_percent(part, k->ratios[r]), measure_number(number, m, measure_best(m, k, r, true)));
    }
}

/* The same where there is nothing to choose from: "56.21 at 10 %, 82.33 at 20 % and 154 at 30 %". */
static void print_only(FILE *f, const struct comparison *k, struct measure m)
{
    char number[NUMBER_SIZE], part[NUMBER_SIZE];
    for (int64_t r = 0; r < k->n_ratios; r++)
        fprintf(f, "%s%s at %s",
                r == 0                 ? ""
                : r + 1 == k->n_ratios ? " and "
                                       : ", ",
                measure_number(number, m, measure_best(m, k, r, true)), number_percent(part, k->ratios[r]));
}

static void print_ppl(FILE *f, const struct comparison *k)
{
    struct measure ppl = {MEASURE_PPL, 0};
    if (k->n_criteria > 1) {
        fputs(", the lowest perplexity comes from ", f);
        print_outcome(f, k, ppl);
        return;
    }
    print_strong(f, ", dropping by ", k->which[0]->name);
    fputs(" gives a perplexity of ", f);
    print_only(f, k, ppl);
}

static void print_zeroshot(FILE *f, const struct comparison *k)
{
    struct measure average = {MEASURE_AVERAGE, 0};
    char number[NUMBER_SIZE];
    fputs(k->n_criteria > 1 ? " The highest zero-shot accuracy comes from " : " The zero-shot accuracy is ", f);
    k->n_criteria > 1 ? print_outcome(f, k, average) : print_only(f, k, average);
    fprintf(f, "; the intact model has %s", measure_number(number, average, measure_of(average, k, NULL)));
    if (isfinite(k->intact_zeroshot.average_std_error))
        fprintf(f, ", with a standard error of %.1f points", 100 * k->intact_zeroshot.average_std_error);
    fputs(".", f);
}

static void summary(FILE *f, const struct comparison *k)
{
    char number[NUMBER_SIZE];
    int64_t unsettled = count_unsettled(k);
    if (k->n_texts < 1)
        return;
    fputs("<p class=\"lead-in\">On ", f);
    html_text(f, k->texts[0]);
    if (comparison_protects(k)) {
        fputs(", with ", f);
        print_ends(f, k);
        fputs(" protected", f);
    }
    print_ppl(f, k);
    fprintf(f, "; the intact model has %s.", number_plain(number, k->intact_ppl[0]));
    if (k->n_tasks > 0)
        print_zeroshot(f, k);
    if (unsettled > 0)
        fprintf(f, " The cut of %lld of the variants is not settled; <a href=\"#unsettled\">†</a> marks %s.", (long long)unsettled,
                unsettled == 1 ? "it" : "them");
    fputs("</p>\n", f);
}

static void page_head(FILE *f, const struct comparison_sheet *s)
{
    const struct comparison *k = s->k;
    char number[NUMBER_SIZE];
    html_head(f, s->title, style);
    fputs("<p class=\"subtitle\">", f);
    html_text(f, s->model);
    fprintf(f, ": %lld %s%s, %s parameters</p>\n</header>\n", (long long)k->n_units, unit_word(k, k->n_units),
            scores_sublayers(&k->scores[0]) ? " of blocks" : "", number_count(number, k->intact_params));
    summary(f, k);
}

/* ---- scores and what they drop ---- */

static void scores_section(FILE *f, const struct comparison *k)
{
    int64_t middle = k->n_ratios / 2;
    char number[NUMBER_SIZE], name[96];
    fputs("<section aria-labelledby=\"scores\">\n<h2 id=\"scores\">Importance by criterion</h2>\n<ul class=\"legend\">\n", f);
    snprintf(name, sizeof name, "dropped at %s", number_percent(number, k->ratios[middle]));
    legend_block(f, "drop", name);
    legend_block(f, "keep", "kept");
    if (comparison_protects(k))
        legend_block(f, "guard", "kept, protected from dropping");
    fputs("</ul>\n<div class=\"panels\">\n", f);
    for (int64_t c = 0; c < k->n_criteria; c++) {
        fputs("<figure>\n<h3>", f);
        html_text(f, k->which[c]->name);
        fputs("</h3>\n", f);
        plot_scores(f, k, c, middle);
        fputs("</figure>\n", f);
    }
    fputs("</div>\n<p class=\"small after\">Each criterion has a scale of its own; one without stems does not start at zero. The "
          "lowest scores go first. An arrow at the top is a score off the scale.</p>\n</section>\n",
          f);
}

static void drops_section(FILE *f, const struct comparison *k)
{
    char number[NUMBER_SIZE];
    fprintf(f, "<section aria-labelledby=\"drops\">\n<h2 id=\"drops\">Which %s each criterion drops</h2>\n<ul class=\"legend\">\n",
            unit_word(k, 2));
    fprintf(
        f, "<li><svg viewBox=\"0 0 22 14\" aria-hidden=\"true\"><path class=\"gone\" d=\"M5 1h12v12h-12z\"/></svg>dropped%s</li>\n",
        comparison_protects(k) ? ", ends protected" : "");
    if (comparison_protects(k))
        fputs("<li><svg viewBox=\"0 0 22 14\" aria-hidden=\"true\"><path class=\"gone-free\" d=\"M6 2h10v10h-10z\"/></svg>"
              "dropped only where nothing is protected</li>\n",
              f);
    fputs("</ul>\n<div class=\"panels\">\n", f);
    for (int64_t r = 0; r < k->n_ratios; r++) {
        int64_t n = comparison_variant(k, 0, r, true)->count;
        fprintf(f, "<figure>\n<h3>%s <span class=\"note\">– %lld of %lld %s</span></h3>\n", number_percent(number, k->ratios[r]),
                (long long)n, (long long)k->n_units, unit_word(k, k->n_units));
        plot_drops(f, k, r);
        fputs("</figure>\n", f);
    }
    fputs("</div>\n</section>\n", f);
}

/* ---- agreement ---- */

/* A table criteria x criteria of v [n_criteria, n_criteria], shaded by its size; as percentages, or as numbers from -1 to 1. */
static void heat_table(FILE *f, const struct comparison *k, const double *v, bool percent)
{
    int64_t n = k->n_criteria;
    fprintf(
        f,
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"%s\">\n<table class=\"heat%s\">\n<thead><tr><td></td>",
        percent ? "Overlap" : "Rank correlation", n > 5 ? " many" : "");
    for (int64_t c = 0; c < n; c++) {
        fputs("<th scope=\"col\"><span>", f);
        html_text(f, k->which[c]->name);
        fputs("</span></th>", f);
    }
    fputs("</tr></thead>\n<tbody>\n", f);
    for (int64_t a = 0; a < n; a++) {
        fputs("<tr><th scope=\"row\">", f);
        html_text(f, k->which[a]->name);
        fputs("</th>", f);
        for (int64_t b = 0; b < n; b++) {
            double x = v[a * n + b];
            bool minus = x < -0.005; /* rounds to 0.00 from there on */
            if (a == b)
                fputs("<td class=\"self\">–</td>", f);
            else if (percent)
                fprintf(f, "<td style=\"--v: %.2f\">%.0f&nbsp;%%</td>", fabs(x), 100 * x);
            else
                fprintf(f, "<td%s style=\"--v: %.2f\">%s%.2f</td>", minus ? " class=\"minus\"" : "", fabs(x), minus ? "−" : "",
                        fabs(x));
        }
        fputs("</tr>\n", f);
    }
    fputs("</tbody>\n</table>\n</div>\n", f);
}

/* The overlap at the middle ratio, and folded away that at the others. */
static void overlap(FILE *f, const struct comparison *k)
{
    int64_t middle = k->n_ratios / 2, pairs = k->n_criteria * k->n_criteria;
    char number[NUMBER_SIZE];
    fprintf(f, "<div>\n<h3>Drop sets in common at %s</h3>\n", number_percent(number, k->ratios[middle]));
    heat_table(f, k, k->overlap + middle * pairs, true);
    fprintf(f, "<p class=\"small\">Part of the dropped %s that two criteria share%s.</p>\n", unit_word(k, 2),
            comparison_protects(k) ? ", ends protected" : "");
    if (k->n_ratios > 1)
        fputs("<details><summary>At the other ratios</summary>\n", f);
    for (int64_t r = 0; r < k->n_ratios; r++)
        if (r != middle) {
            fprintf(f, "<h3>At %s</h3>\n", number_percent(number, k->ratios[r]));
            heat_table(f, k, k->overlap + r * pairs, true);
        }
    fputs(k->n_ratios > 1 ? "</details>\n</div>\n" : "</div>\n", f);
}

static void agreement_section(FILE *f, const struct comparison *k)
{
    if (k->n_criteria < 2)
        return;
    fprintf(f, "<section aria-labelledby=\"agreement\">\n<h2 id=\"agreement\">Agreement</h2>\n<div class=\"pairs%s\">\n",
            k->n_criteria > 5 ? " wide-pairs" : "");
    overlap(f, k);
    fputs("<div>\n<h3>Rank correlation</h3>\n", f);
    heat_table(f, k, k->correlation, false);
    fprintf(f,
            "<p class=\"small\">Spearman’s, of the orders of all %s: 1 is the same order, 0 none in common, −1 the reverse.</p>\n"
            "</div>\n</div>\n</section>\n",
            unit_word(k, 2));
}

static void page(FILE *f, const void *what)
{
    const struct comparison_sheet *s = what;
    page_head(f, s);
    ppl_sections(f, s->k);
    zeroshot_sections(f, s->k);
    scores_section(f, s->k);
    drops_section(f, s->k);
    agreement_section(f, s->k);
    html_foot(f, s->n_facts, s->facts);
}

int comparison_write_html(const char *path, const struct comparison_sheet *s, struct err *err)
{
    return text_write(path, page, s, err);
}
