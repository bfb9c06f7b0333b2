/* The part of a comparison's page that shows what was measured: perplexities and zero-shot accuracies as tables and curves. */
#include <math.h>
#include <string.h>

#include "cli/comparison_impl.h"

/* ---- measures ---- */

double measure_of(struct measure m, const struct comparison *k, const struct variant *v)
{
    const struct zeroshot_scores *z = v ? &v->zeroshot : &k->intact_zeroshot;
    switch (m.kind) {
    case MEASURE_PPL: return v ? v->ppl[m.at] : k->intact_ppl[m.at];
    case MEASURE_TASK: return 100 * z->acc[m.at];
    case MEASURE_AVERAGE: return 100 * z->average;
    }
    return NAN;
}

double measure_best(struct measure m, const struct comparison *k, int64_t ratio, bool protected_)
{
    double best = NAN;
    for (int64_t c = 0; c < k->n_criteria; c++) {
        double v = measure_of(m, k, comparison_variant(k, c, ratio, protected_));
        best = m.kind == MEASURE_PPL ? fmin(best, v) : fmax(best, v);
    }
    return best;
}

const char *measure_number(char out[NUMBER_SIZE], struct measure m, double v)
{
    if (m.kind == MEASURE_PPL || !isfinite(v))
        return number_plain(out, v);
    snprintf(out, NUMBER_SIZE, "%.1f\u00A0%%", v);
    return out;
}

/* How many tasks the average is over; the last one of them. */
static int64_t count_averaged(const struct task **last, const struct comparison *k)
{
    int64_t n = 0;
    for (int64_t i = 0; i < k->n_tasks; i++)
        if (k->averaged[i]) {
            *last = k->tasks[i];
            n++;
        }
    return n;
}

static void print_measure(FILE *f, const struct comparison *k, struct measure m)
{
    const struct task *task = m.kind == MEASURE_TASK ? k->tasks[m.at] : NULL;
    int64_t n = m.kind == MEASURE_AVERAGE ? count_averaged(&task, k) : 1;
    if (n > 1)
        fprintf(f, "Average of %lld tasks", (long long)n);
    else
        html_text(f, m.kind == MEASURE_PPL ? k->texts[m.at] : task->name);
}

/* "wiki.test.raw - intact model: 20.35" */
static void print_heading(FILE *f, const struct comparison *k, struct measure m)
{
    char number[NUMBER_SIZE];
    fputs("<h3>", f);
    print_measure(f, k, m);
    fputs(" <span class=\"note\">– ", f);
    if (m.kind == MEASURE_TASK)
        fprintf(f, "%s, ", task_metric(k->tasks[m.at]));
    fprintf(f, "intact model: %s</span></h3>\n", measure_number(number, m, measure_of(m, k, NULL)));
}

/* ---- cuts that are not settled ---- */

static bool is_unsettled(const struct variant *v)
{
    return v->cut_swap > PLAN_UNSETTLED;
}

int64_t count_unsettled(const struct comparison *k)
{
    int64_t n = 0;
    for (int64_t i = 0; i < k->n_variants; i++)
        n += is_unsettled(&k->variants[i]) && (comparison_protects(k) || k->variants[i].protected_);
    return n;
}

/* ---- tables ---- */

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

static void measure_cell(FILE *f, const struct comparison *k, struct measure m, int64_t criterion, int64_t ratio, bool protected_)
{
    const struct variant *v = comparison_variant(k, criterion, ratio, protected_);
    double value = measure_of(m, k, v);
    char number[NUMBER_SIZE];
    bool best = k->n_criteria > 1 && value == measure_best(m, k, ratio, protected_);
    fprintf(f, "<td%s><span class=\"value\">%s", best ? " class=\"best\"" : "", measure_number(number, m, value));
    if (best)
        fprintf(f, "<span class=\"hidden\"> (%s)</span>", m.kind == MEASURE_PPL ? "lowest" : "highest");
    fputs(is_unsettled(v) ? "<sup><a href=\"#unsettled\" aria-label=\"cut not settled\">†</a></sup>" : "", f);
    fputs("</span></td>", f);
}

static void measure_group(FILE *f, const struct comparison *k, struct measure m, bool protected_)
{
    fprintf(f, "<tbody>\n<tr class=\"group\"><th scope=\"rowgroup\" colspan=\"%lld\">", (long long)k->n_ratios + 1);
    print_group(f, k, protected_);
    fputs("</th></tr>\n", f);
    for (int64_t c = 0; c < k->n_criteria; c++) {
        fputs("<tr><th scope=\"row\">", f);
        html_text(f, k->which[c]->name);
        fputs("</th>", f);
        for (int64_t r = 0; r < k->n_ratios; r++)
            measure_cell(f, k, m, c, r, protected_);
        fputs("</tr>\n", f);
    }
    fputs("</tbody>\n", f);
}

static void measure_table(FILE *f, const struct comparison *k, struct measure m)
{
    char number[NUMBER_SIZE];
    print_heading(f, k, m);
    fprintf(f, "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"%s",
            m.kind == MEASURE_PPL ? "Perplexity on " : "Accuracy: ");
    print_measure(f, k, m);
    fputs("\">\n<table class=\"grid-table\">\n<thead><tr><th scope=\"col\">Criterion</th>", f);
    for (int64_t r = 0; r < k->n_ratios; r++) {
        int64_t n = comparison_variant(k, 0, r, true)->count;
        fprintf(f, "<th scope=\"col\">%s <span class=\"note\">%lld %s</span></th>", number_percent(number, k->ratios[r]),
                (long long)n, unit_word(k, n));
    }
    fputs("</tr></thead>\n", f);
    measure_group(f, k, m, true);
    if (comparison_protects(k))
        measure_group(f, k, m, false);
    fputs("</table>\n</div>\n", f);
}

/* A row of the list; its labels show where it is laid out as a card. */
static void variant_row(FILE *f, const struct comparison *k, const struct variant *v)
{
    struct measure zeroshot = {MEASURE_AVERAGE, 0};
    char number[NUMBER_SIZE], name[UNIT_NAME];
    fputs("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">", f);
    html_text(f, k->which[v->criterion]->name);
    fprintf(f, "</th><td role=\"cell\" data-label=\"Ratio\">%s</td><td role=\"cell\" class=\"left\" data-label=\"Dropped\">",
            number_percent(number, k->ratios[v->ratio]));
    for (int64_t i = 0; i < v->count; i++)
        fprintf(f, "%s%s", i ? ", " : "", unit_name(name, v->dropped[i]));
    fprintf(f, "</td><td role=\"cell\" data-label=\"Parameters left\">%s</td>", number_count(number, v->params));
    if (k->n_tasks > 0)
        fprintf(f, "<td role=\"cell\" data-label=\"Zero-shot\">%s</td>",
                measure_number(number, zeroshot, measure_of(zeroshot, k, v)));
    fputs("<td role=\"cell\" data-label=\"Swap at the cut\">", f);
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
          "<th role=\"columnheader\" scope=\"col\">Parameters left</th>",
          f);
    fputs(k->n_tasks > 0 ? "<th role=\"columnheader\" scope=\"col\">Zero-shot</th>" : "", f);
    fputs("<th role=\"columnheader\" scope=\"col\">Swap at the cut</th></tr></thead>\n", f);
    for (int group = 0; group < (comparison_protects(k) ? 2 : 1); group++) {
        fprintf(f,
                "<tbody role=\"rowgroup\">\n<tr role=\"row\" class=\"group\"><th role=\"rowheader\" scope=\"rowgroup\" "
                "colspan=\"%d\">",
                k->n_tasks > 0 ? 6 : 5);
        print_group(f, k, group == 0);
        fputs("</th></tr>\n", f);
        for (int64_t i = group; i < k->n_variants; i += 2)
            variant_row(f, k, &k->variants[i]);
        fputs("</tbody>\n", f);
    }
    fputs("</table>\n</details>\n", f);
}

static void ppl_tables(FILE *f, const struct comparison *k)
{
    fputs("<section aria-labelledby=\"ppl\">\n<h2 id=\"ppl\">Perplexity by criterion and ratio</h2>\n", f);
    for (int64_t t = 0; t < k->n_texts; t++)
        measure_table(f, k, (struct measure){MEASURE_PPL, t});
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

/* What the average is, and how sure. */
static void zeroshot_note(FILE *f, const struct comparison *k)
{
    double error = 100 * k->intact_zeroshot.average_std_error;
    fprintf(f, "<p class=\"small\">Higher is better.%s Right answers to ",
            k->n_criteria > 1 ? " The highest of each column, in each group, is bold and underlined." : "");
    for (int64_t i = 0, said = 0; i < k->n_tasks; i++)
        if (k->averaged[i])
            fprintf(f, "%s%s (%s)", said++ ? ", " : "", k->tasks[i]->name, task_metric(k->tasks[i]));
    if (isfinite(error))
        fprintf(f, ". The intact model’s average has a standard error of %.1f points; smaller differences say little", error);
    fputs(".</p>\n", f);
}

static void zeroshot_tables(FILE *f, const struct comparison *k)
{
    fputs("<section aria-labelledby=\"zeroshot\">\n<h2 id=\"zeroshot\">Zero-shot accuracy by criterion and ratio</h2>\n", f);
    measure_table(f, k, (struct measure){MEASURE_AVERAGE, 0});
    zeroshot_note(f, k);
    if (k->n_tasks > 1) {
        fputs("<details><summary>Each task</summary>\n", f);
        for (int64_t t = 0; t < k->n_tasks; t++)
            measure_table(f, k, (struct measure){MEASURE_TASK, t});
        fputs("</details>\n", f);
    }
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
static void ratios_off_scale(FILE *f, const struct comparison *k, struct measure m)
{
    enum { ROOM = 8 };
    char number[NUMBER_SIZE], part[NUMBER_SIZE];
    double ceiling = ratios_ceiling(k, m);
    int64_t n = 0, said = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < k->n_variants; i += comparison_protects(k) ? 1 : 2) {
            const struct variant *v = &k->variants[i];
            double value = measure_of(m, k, v);
            if (!(value > ceiling) && !isinf(value))
                continue;
            if (pass == 0) {
                n++;
            } else if (n <= ROOM) {
                fputs(said++ ? ", " : " Off the scale (arrows): ", f);
                html_text(f, k->which[v->criterion]->name);
                fprintf(f, " at %s%s (%s)", number_percent(part, k->ratios[v->ratio]),
                        v->protected_ ? "" : " with nothing protected", measure_number(number, m, value));
            }
        }
    if (n > ROOM)
        fprintf(f, " Arrows are %lld variants off the scale; the table above has their values", (long long)n);
    fputs(n ? "." : "", f);
}

static void ratios_figure(FILE *f, const struct comparison *k, struct measure m)
{
    fputs("<figure>\n", f);
    if (m.kind == MEASURE_PPL) { /* the plot names the intact model's value itself */
        fputs("<h3>", f);
        print_measure(f, k, m);
        fputs("</h3>\n", f);
    } else {
        print_heading(f, k, m);
    }
    plot_ratios(f, k, m, false);
    plot_ratios(f, k, m, true);
    fprintf(f, "<figcaption>%s of the pruned model, before any retraining.",
            m.kind == MEASURE_PPL ? "Perplexity" : "Zero-shot accuracy");
    ratios_off_scale(f, k, m);
    fputs("</figcaption>\n</figure>\n", f);
}

static void ppl_ratios(FILE *f, const struct comparison *k)
{
    if (k->n_texts < 1)
        return;
    fputs("<section aria-labelledby=\"ratios\">\n<h2 id=\"ratios\">Perplexity against the ratio</h2>\n", f);
    ratios_legend(f, k);
    for (int64_t t = 0; t < k->n_texts; t++)
        ratios_figure(f, k, (struct measure){MEASURE_PPL, t});
    fputs("</section>\n", f);
}

static void zeroshot_ratios(FILE *f, const struct comparison *k)
{
    fputs("<section aria-labelledby=\"zeroshot-ratios\">\n<h2 id=\"zeroshot-ratios\">Zero-shot accuracy against the ratio</h2>\n",
          f);
    ratios_legend(f, k);
    ratios_figure(f, k, (struct measure){MEASURE_AVERAGE, 0});
    fputs("</section>\n", f);
}

void ppl_sections(FILE *f, const struct comparison *k)
{
    ppl_tables(f, k);
    ppl_ratios(f, k);
}

void zeroshot_sections(FILE *f, const struct comparison *k)
{
    if (k->n_tasks < 1)
        return;
    zeroshot_tables(f, k);
    zeroshot_ratios(f, k);
}
