/* The page of a comparison. */
#include <math.h>
#include <string.h>

#include "cli/comparison_impl.h"

static const char style[] =
#include "cli/comparison_css.inc"
    ;

/* ---- numbers and words ---- */

static double ppl_of(const struct comparison *k, int64_t criterion, int64_t ratio, bool protected_, int64_t text)
{
    return comparison_variant(k, criterion, ratio, protected_)->ppl[text];
}

/* The lowest perplexity of any criterion; NaN where none was measured. Infinity counts: a model may be that bad. */
static double lowest(const struct comparison *k, int64_t ratio, bool protected_, int64_t text)
{
    double least = NAN;
    for (int64_t c = 0; c < k->n_criteria; c++)
        least = fmin(least, ppl_of(k, c, ratio, protected_, text));
    return least;
}

static bool is_unsettled(const struct variant *v)
{
    return v->cut_swap > PLAN_UNSETTLED;
}

static int64_t count_unsettled(const struct comparison *k)
{
    int64_t n = 0;
    for (int64_t i = 0; i < k->n_variants; i++)
        n += is_unsettled(&k->variants[i]) && (comparison_protects(k) || k->variants[i].protected_);
    return n;
}

/* "the first 4 and the last 2 blocks" */
static void print_ends(FILE *f, const struct comparison *k)
{
    long long first = (long long)k->keep_first, last = (long long)k->keep_last;
    if (first == 1 && last == 1)
        fputs("the first and the last block", f);
    else if (first > 0 && last > 0)
        fprintf(f, "the first %lld and the last %lld blocks", first, last);
    else
        fprintf(f, "the %s %lld block%s", first > 0 ? "first" : "last", first + last, first + last == 1 ? "" : "s");
}

/* What the variants of a group have in common. */
static void print_group(FILE *f, const struct comparison *k, bool protected_)
{
    if (!comparison_protects(k) || !protected_) {
        fprintf(f, "Nothing protected: any %s may go", unit_word(k, 1));
        return;
    }
    fputs("With ", f);
    print_ends(f, k);
    fputs(" protected", f);
}

static void print_strong(FILE *f, const char *before, const char *text)
{
    fprintf(f, "%s<strong>", before);
    html_text(f, text);
    fputs("</strong>", f);
}

/* ---- summary ---- */

static bool wins(const struct comparison *k, int64_t criterion, int64_t ratio)
{
    return ppl_of(k, criterion, ratio, true, 0) == lowest(k, ratio, true, 0);
}

/* Whether the same criteria win at both ratios. */
static bool same_winners(const struct comparison *k, int64_t a, int64_t b)
{
    for (int64_t c = 0; c < k->n_criteria; c++)
        if (wins(k, c, a) != wins(k, c, b))
            return false;
    return true;
}

/* "ppl", "ppl and greedy", "ppl, taylor and greedy" */
static void print_winners(FILE *f, const struct comparison *k, int64_t ratio)
{
    int64_t n = 0, said = 0;
    for (int64_t c = 0; c < k->n_criteria; c++)
        n += wins(k, c, ratio);
    if (n == 0)
        fputs("none", f);
    for (int64_t c = 0; c < k->n_criteria; c++)
        if (wins(k, c, ratio)) {
            print_strong(f, said == 0 ? "" : said + 1 == n ? " and " : ", ", k->which[c]->name);
            said++;
        }
}

/* "ppl at 10 % (56.21) and 20 % (82.33), and bi at 30 % (154)": neighbouring ratios with the same winners together. */
static void print_outcome(FILE *f, const struct comparison *k)
{
    char number[NUMBER_SIZE], part[NUMBER_SIZE];
    fputs(", the lowest perplexity comes from ", f);
    for (int64_t r = 0; r < k->n_ratios; r++) {
        bool first = r == 0 || !same_winners(k, r - 1, r), last = r + 1 == k->n_ratios;
        if (first) {
            fputs(r > 0 ? last ? ", and " : ", " : "", f);
            print_winners(f, k, r);
            fputs(" at ", f);
        } else {
            fputs(last || !same_winners(k, r, r + 1) ? " and " : ", ", f);
        }
        fprintf(f, "%s (%s)", number_percent(part, k->ratios[r]), number_plain(number, lowest(k, r, true, 0)));
    }
}

/* The same where there is nothing to choose from: "dropping by ppl gives 56.21 at 10 %, 82.33 at 20 % and 154 at 30 %". */
static void print_only(FILE *f, const struct comparison *k)
{
    char number[NUMBER_SIZE], part[NUMBER_SIZE];
    print_strong(f, ", dropping by ", k->which[0]->name);
    fputs(" gives a perplexity of ", f);
    for (int64_t r = 0; r < k->n_ratios; r++)
        fprintf(f, "%s%s at %s",
                r == 0                 ? ""
                : r + 1 == k->n_ratios ? " and "
                                       : ", ",
                number_plain(number, ppl_of(k, 0, r, true, 0)), number_percent(part, k->ratios[r]));
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
    k->n_criteria > 1 ? print_outcome(f, k) : print_only(f, k);
    fprintf(f, "; the intact model has %s.", number_plain(number, k->intact_ppl[0]));
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

/* ---- perplexities ---- */

static void ppl_cell(FILE *f, const struct comparison *k, int64_t criterion, int64_t ratio, bool protected_, int64_t text)
{
    const struct variant *v = comparison_variant(k, criterion, ratio, protected_);
    char number[NUMBER_SIZE];
    bool best = k->n_criteria > 1 && v->ppl[text] == lowest(k, ratio, protected_, text);
    fprintf(f, "<td%s><span class=\"value\">%s", best ? " class=\"best\"" : "", number_plain(number, v->ppl[text]));
    fputs(best ? "<span class=\"hidden\"> (lowest)</span>" : "", f);
    fputs(is_unsettled(v) ? "<sup><a href=\"#unsettled\" aria-label=\"cut not settled\">†</a></sup>" : "", f);
    fputs("</span></td>", f);
}

static void ppl_group(FILE *f, const struct comparison *k, bool protected_, int64_t text)
{
    fprintf(f, "<tbody>\n<tr class=\"group\"><th scope=\"rowgroup\" colspan=\"%lld\">", (long long)k->n_ratios + 1);
    print_group(f, k, protected_);
    fputs("</th></tr>\n", f);
    for (int64_t c = 0; c < k->n_criteria; c++) {
        fputs("<tr><th scope=\"row\">", f);
        html_text(f, k->which[c]->name);
        fputs("</th>", f);
        for (int64_t r = 0; r < k->n_ratios; r++)
            ppl_cell(f, k, c, r, protected_, text);
        fputs("</tr>\n", f);
    }
    fputs("</tbody>\n", f);
}

static void ppl_table(FILE *f, const struct comparison *k, int64_t text)
{
    char number[NUMBER_SIZE];
    fputs("<h3>", f);
    html_text(f, k->texts[text]);
    fprintf(f, " <span class=\"note\">– intact model: %s</span></h3>\n", number_plain(number, k->intact_ppl[text]));
    fputs("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Perplexity on ", f);
    html_text(f, k->texts[text]);
    fputs("\">\n<table class=\"grid-table\">\n<thead><tr><th scope=\"col\">Criterion</th>", f);
    for (int64_t r = 0; r < k->n_ratios; r++) {
        int64_t n = comparison_variant(k, 0, r, true)->count;
        fprintf(f, "<th scope=\"col\">%s <span class=\"note\">%lld %s</span></th>", number_percent(number, k->ratios[r]),
                (long long)n, unit_word(k, n));
    }
    fputs("</tr></thead>\n", f);
    ppl_group(f, k, true, text);
    if (comparison_protects(k))
        ppl_group(f, k, false, text);
    fputs("</table>\n</div>\n", f);
}

/* A row of the list; its labels show where it is laid out as a card. */
static void variant_row(FILE *f, const struct comparison *k, const struct variant *v)
{
    char number[NUMBER_SIZE], name[UNIT_NAME];
    fputs("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">", f);
    html_text(f, k->which[v->criterion]->name);
    fprintf(f, "</th><td role=\"cell\" data-label=\"Ratio\">%s</td><td role=\"cell\" class=\"left\" data-label=\"Dropped\">",
            number_percent(number, k->ratios[v->ratio]));
    for (int64_t i = 0; i < v->count; i++)
        fprintf(f, "%s%s", i ? ", " : "", unit_name(name, v->dropped[i]));
    fprintf(f, "</td><td role=\"cell\" data-label=\"Parameters left\">%s</td><td role=\"cell\" data-label=\"Swap at the cut\">",
            number_count(number, v->params));
    if (isnan(v->cut_swap))
        fputs("<span class=\"note\">–</span>", f);
    else
        fprintf(f, "%.2f%s", v->cut_swap, is_unsettled(v) ? " †" : "");
    fputs("</td></tr>\n", f);
}

static void variant_list(FILE *f, const struct comparison *k)
{
    fputs("<details><summary>What each variant drops, in order of removal</summary>\n<table class=\"cards list\" role=\"table\">\n"
          "<thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\" scope=\"col\">Criterion</th>"
          "<th role=\"columnheader\" scope=\"col\">Ratio</th><th role=\"columnheader\" scope=\"col\" class=\"left\">Dropped</th>"
          "<th role=\"columnheader\" scope=\"col\">Parameters left</th>"
          "<th role=\"columnheader\" scope=\"col\">Swap at the cut</th></tr></thead>\n",
          f);
    for (int group = 0; group < (comparison_protects(k) ? 2 : 1); group++) {
        fputs(
            "<tbody role=\"rowgroup\">\n<tr role=\"row\" class=\"group\"><th role=\"rowheader\" scope=\"rowgroup\" colspan=\"5\">",
            f);
        print_group(f, k, group == 0);
        fputs("</th></tr>\n", f);
        for (int64_t i = group; i < k->n_variants; i += 2)
            variant_row(f, k, &k->variants[i]);
        fputs("</tbody>\n", f);
    }
    fputs("</table>\n</details>\n", f);
}

static void ppl_section(FILE *f, const struct comparison *k)
{
    fputs("<section aria-labelledby=\"ppl\">\n<h2 id=\"ppl\">Perplexity by criterion and ratio</h2>\n", f);
    for (int64_t t = 0; t < k->n_texts; t++)
        ppl_table(f, k, t);
    if (k->n_criteria > 1)
        fputs("<p class=\"small\">Lower is better. The lowest of each column, in each group, is bold and underlined.</p>\n", f);
    if (count_unsettled(k) > 0)
        fprintf(f,
                "<p class=\"small\" id=\"unsettled\">† The cut is not settled: on other calibration rows of the kind, the last to "
                "go and the first to stay would change places with a probability above %g&nbsp;%% (bootstrap of the calibration "
                "rows). Known only for criteria that have a loss for each row.</p>\n",
                100 * PLAN_UNSETTLED);
    variant_list(f, k);
    fputs("</section>\n", f);
}

/* ---- curves ---- */

static void ratios_legend(FILE *f, const struct comparison *k)
{
    fputs("<ul class=\"legend\">\n", f);
    for (int64_t c = 0; c < k->n_criteria; c++) {
        fprintf(f, "<li><svg class=\"s%d\" viewBox=\"0 0 22 14\" aria-hidden=\"true\"><path class=\"series\" d=\"M1 7h20\"/>",
                (int)(c % SERIES));
        series_mark(f, c, 11, 7);
        fputs("</svg>", f);
        html_text(f, k->which[c]->name);
        fputs("</li>\n", f);
    }
    if (comparison_protects(k))
        for (int pass = 1; pass >= 0; pass--)
            fprintf(f,
                    "<li><svg class=\"any%s\" viewBox=\"0 0 22 14\" aria-hidden=\"true\"><path class=\"series\" d=\"M1 7h20\"/>"
                    "<circle class=\"mark\" cx=\"11\" cy=\"7\" r=\"4\"/></svg>%s</li>\n",
                    pass ? "" : " free", pass ? "ends protected" : "nothing protected");
    legend_line(f, "base", "intact model");
    fputs("</ul>\n", f);
}

/* Names the variants that the figure shows as arrows, if a caption has room for them. */
static void ratios_off_scale(FILE *f, const struct comparison *k, int64_t text)
{
    enum { ROOM = 8 };
    char number[NUMBER_SIZE], part[NUMBER_SIZE];
    double ceiling = ratios_ceiling(k, text);
    int64_t n = 0, said = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < k->n_variants; i += comparison_protects(k) ? 1 : 2) {
            const struct variant *v = &k->variants[i];
            if (!(v->ppl[text] > ceiling) && !isinf(v->ppl[text]))
                continue;
            if (pass == 0) {
                n++;
            } else if (n <= ROOM) {
                fputs(said++ ? ", " : " Off the scale (arrows): ", f);
                html_text(f, k->which[v->criterion]->name);
                fprintf(f, " at %s%s (%s)", number_percent(part, k->ratios[v->ratio]),
                        v->protected_ ? "" : " with nothing protected", number_plain(number, v->ppl[text]));
            }
        }
    if (n > ROOM)
        fprintf(f, " Arrows are %lld variants off the scale; the table above has their values", (long long)n);
    fputs(n ? "." : "", f);
}

static void ratios_section(FILE *f, const struct comparison *k)
{
    if (k->n_texts < 1)
        return;
    fputs("<section aria-labelledby=\"ratios\">\n<h2 id=\"ratios\">Perplexity against the ratio</h2>\n", f);
    ratios_legend(f, k);
    for (int64_t t = 0; t < k->n_texts; t++) {
        fputs("<figure>\n<h3>", f);
        html_text(f, k->texts[t]);
        fputs("</h3>\n", f);
        plot_ratios(f, k, t, false);
        plot_ratios(f, k, t, true);
        fputs("<figcaption>Perplexity of the pruned model, before any retraining.", f);
        ratios_off_scale(f, k, t);
        fputs("</figcaption>\n</figure>\n", f);
    }
    fputs("</section>\n", f);
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
    ppl_section(f, s->k);
    ratios_section(f, s->k);
    scores_section(f, s->k);
    drops_section(f, s->k);
    agreement_section(f, s->k);
    html_foot(f, s->n_facts, s->facts);
}

int comparison_write_html(const char *path, const struct comparison_sheet *s, struct err *err)
{
    return text_write(path, page, s, err);
}
