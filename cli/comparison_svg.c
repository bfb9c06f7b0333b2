/* The figures of a comparison. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/comparison_impl.h"
#include "core/base/mem.h"

/* ---- what the figures ask of a comparison ---- */

const struct variant *comparison_variant(const struct comparison *k, int64_t criterion, int64_t ratio, bool protected_)
{
    return &k->variants[(criterion * k->n_ratios + ratio) * 2 + !protected_];
}

bool comparison_protects(const struct comparison *k)
{
    return k->keep_first + k->keep_last > 0;
}

bool scores_are_perplexities(const struct comparison *k, int64_t criterion)
{
    return k->scores[criterion].base_ppl > 0 && k->which[criterion]->perplexity;
}

const char *unit_word(const struct comparison *k, int64_t n)
{
    return scores_sublayers(&k->scores[0]) ? n == 1 ? "half" : "halves" : n == 1 ? "block" : "blocks";
}

const char *number_percent(char out[NUMBER_SIZE], double part)
{
    snprintf(out, NUMBER_SIZE, "%.4g\u00A0%%", 100 * part);
    return out;
}

/* ---- the marks of the criteria ---- */

/* A polygon around x, y; with inner < 1 a star, whose dents are that far out. */
static void polygon(FILE *f, double x, double y, double radius, int corners, double turn, double inner)
{
    int n = inner < 1 ? 2 * corners : corners;
    fputs("<path class=\"mark\" d=\"", f);
    for (int i = 0; i < n; i++) {
        double r = inner < 1 && i % 2 ? radius * inner : radius, angle = M_PI * (turn / 180 + 2.0 * i / n);
        fprintf(f, "%c%.1f %.1f", i ? 'L' : 'M', x + r * sin(angle), y - r * cos(angle));
    }
    fputs("z\"/>", f);
}

void series_mark(FILE *f, int64_t criterion, double x, double y)
{
    static const struct {
        double radius, turn, inner;
        int corners;
    } shapes[SERIES] = {{4.2, 0, 1, 0},  {5.2, 45, 1, 4}, {5.4, 0, 1, 4},    {5.6, 0, 1, 3}, {5.6, 180, 1, 3},
                        {6, 0, 0.45, 5}, {5, 0, 1, 6},    {6.2, 45, 0.4, 4}, {5.6, 90, 1, 3}};
    int k = (int)(criterion % SERIES);
    if (shapes[k].corners == 0)
        fprintf(f, "<circle class=\"mark\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>", x, y, shapes[k].radius);
    else
        polygon(f, x, y, shapes[k].radius, shapes[k].corners, shapes[k].turn, shapes[k].inner);
}

/* ---- perplexity, or accuracy, against the ratio ---- */

/* Grows [*lo, *hi] by every value of the measure. */
static void measure_range(double *lo, double *hi, const struct comparison *k, struct measure m)
{
    double v = measure_of(m, k, NULL);
    range_extend(lo, hi, &v, 1);
    for (int64_t i = 0; i < k->n_variants; i++) {
        v = measure_of(m, k, &k->variants[i]);
        range_extend(lo, hi, &v, 1);
    }
}

/* Only perplexities are ever far apart. */
static bool measure_wants_log(const struct comparison *k, struct measure m)
{
    double lo = INFINITY, hi = -INFINITY;
    measure_range(&lo, &hi, k, m);
    return m.kind == MEASURE_PPL && range_wants_log(lo, hi);
}

double ratios_ceiling(const struct comparison *k, struct measure m)
{
    double lo = INFINITY, hi = -INFINITY, ceiling = INFINITY;
    struct err none = {0};
    double *v = mem_alloc((size_t)k->n_variants, sizeof *v, &none); /* without memory all is drawn at its place */
    measure_range(&lo, &hi, k, m);
    for (int64_t i = 0; v && i < k->n_variants; i++)
        v[i] = measure_of(m, k, &k->variants[i]);
    if (v && measure_wants_log(k, m))
        ceiling = range_ceiling(v, k->n_variants, lo, k->n_variants / 4);
    free(v);
    return ceiling;
}

/* The ratio that has `rank` ratios before it when they are sorted. */
static int64_t ranked_ratio(const struct comparison *k, int64_t rank)
{
    for (int64_t i = 0; i < k->n_ratios; i++) {
        int64_t before = 0;
        for (int64_t j = 0; j < k->n_ratios; j++)
            before += k->ratios[j] < k->ratios[i] || (k->ratios[j] == k->ratios[i] && j < i);
        if (before == rank)
            return i;
    }
    return 0;
}

/* One plot of a measure against the ratio. */
struct ratios {
    const struct comparison *k;
    struct measure m;
    double ceiling;
    struct axes p;
};

static double ratios_value(const struct ratios *r, int64_t criterion, int64_t ratio, bool protected_)
{
    return measure_of(r->m, r->k, comparison_variant(r->k, criterion, ratio, protected_));
}

static void ratios_range(struct ratios *r)
{
    double lo = INFINITY, hi = -INFINITY, x_lo = INFINITY, x_hi = -INFINITY;
    measure_range(&lo, &hi, r->k, r->m);
    r->p.log = measure_wants_log(r->k, r->m);
    r->ceiling = ratios_ceiling(r->k, r->m);
    hi = fmin(hi, r->ceiling);
    if (r->p.log)
        lo = log10(lo), hi = log10(hi);
    range_pad(&lo, &hi, isfinite(r->ceiling) ? 0.12 : 0.06);         /* more air where arrows point past the top */
    r->p.y0 = r->m.kind == MEASURE_PPL ? lo - 0.06 * (hi - lo) : lo; /* the intact model's name stands under its line */
    r->p.y1 = hi;
    range_extend(&x_lo, &x_hi, r->k->ratios, r->k->n_ratios);
    range_pad(&x_lo, &x_hi, 0.05);
    r->p.x0 = x_lo;
    r->p.x1 = x_hi;
}

static bool off_scale(const struct ratios *r, double value)
{
    return value > r->ceiling || isinf(value);
}

/* The place of a value: far above the picture, which cuts lines off, where it is off the scale. */
static double ratios_y(const struct ratios *r, double value)
{
    double beyond = r->p.top - 3 * r->p.height;
    return isinf(value) ? beyond : fmax(axes_y(&r->p, value), beyond);
}

static void ratios_line(FILE *f, const struct ratios *r, int64_t criterion, bool protected_)
{
    bool drawing = false;
    fputs("<path class=\"series\" d=\"", f);
    for (int64_t i = 0; i < r->k->n_ratios; i++) {
        int64_t at = ranked_ratio(r->k, i);
        double value = ratios_value(r, criterion, at, protected_);
        if (!isnan(value))
            fprintf(f, "%c%.1f %.1f", drawing ? 'L' : 'M', axes_x(&r->p, r->k->ratios[at]), ratios_y(r, value));
        drawing = !isnan(value);
    }
    fputs("\"/>\n", f);
}

/* How far beside its ratio the arrow of a variant stands, so that none hides another. */
static double arrow_shift(const struct ratios *r, int64_t criterion, int64_t ratio, bool protected_)
{
    double before = 0, n = 0;
    for (int64_t c = 0; c < r->k->n_criteria; c++)
        for (int pass = comparison_protects(r->k) ? 0 : 1; pass < 2; pass++) {
            bool arrow = off_scale(r, ratios_value(r, c, ratio, pass));
            n += arrow;
            before += arrow && (c < criterion || (c == criterion && pass < protected_));
        }
    return 11 * (before - 0.5 * (n - 1));
}

/* Marks at the values, and arrows at the top for those off the scale; arrows of one ratio stand side by side. */
static void ratios_marks(FILE *f, const struct ratios *r, int64_t criterion, bool protected_)
{
    char number[NUMBER_SIZE], part[NUMBER_SIZE];
    for (int64_t i = 0; i < r->k->n_ratios; i++) {
        double value = ratios_value(r, criterion, i, protected_), x = axes_x(&r->p, r->k->ratios[i]);
        if (isnan(value))
            continue;
        fputs("<g><title>", f);
        html_text(f, r->k->which[criterion]->name);
        fprintf(f, " at %s%s: %s</title>", number_percent(part, r->k->ratios[i]), protected_ ? "" : ", nothing protected",
                measure_number(number, r->m, value));
        if (off_scale(r, value))
            fprintf(f, "<path class=\"mark\" d=\"M%.1f %.1fl5 9h-10z\"/>", x + arrow_shift(r, criterion, i, protected_), r->p.top);
        else
            series_mark(f, criterion, x, axes_y(&r->p, value));
        fputs("</g>\n", f);
    }
}

/* Unprotected variants lie under the protected ones, which they equal often. */
static void ratios_series(FILE *f, const struct ratios *r, const char *clip)
{
    for (int pass = comparison_protects(r->k) ? 0 : 1; pass < 2; pass++)
        for (int64_t c = 0; c < r->k->n_criteria; c++) {
            fprintf(f, "<g class=\"s%d%s\"><g clip-path=\"url(#%s)\">", (int)(c % SERIES), pass ? "" : " free", clip);
            ratios_line(f, r, c, pass);
            fputs("</g>", f);
            ratios_marks(f, r, c, pass);
            fputs("</g>\n", f);
        }
}

/* Where a criterion's line ends, or NAN. */
static double line_end(const struct ratios *r, int64_t criterion)
{
    double value = ratios_value(r, criterion, ranked_ratio(r->k, r->k->n_ratios - 1), true);
    return isnan(value) ? NAN : off_scale(r, value) ? r->p.top + 5 : axes_y(&r->p, value);
}

/* Names beside the ends of their lines, from the top down, moved apart where they would overlap, with a lead where moved. */
static void ratios_names(FILE *f, const struct ratios *r)
{
    enum { GAP = 16 };
    const struct axes *p = &r->p;
    double x = axes_x(p, r->k->ratios[ranked_ratio(r->k, r->k->n_ratios - 1)]), floor_ = -INFINITY;
    for (int64_t rank = 0; rank < r->k->n_criteria; rank++)
        for (int64_t c = 0; c < r->k->n_criteria; c++) {
            double end = line_end(r, c);
            int64_t above = 0, below = 0;
            for (int64_t q = 0; q < r->k->n_criteria; q++) {
                double other = line_end(r, q);
                above += other < end || (other == end && q < c);
                below += other > end || (other == end && q > c);
            }
            if (isnan(end) || above != rank)
                continue;
            double last = p->top + p->height + 4 - GAP * (double)below; /* room for those below */
            double y = fmax(fmin(end, last), floor_);
            floor_ = y + GAP;
            fprintf(f,
                    "<g class=\"s%d\"><path class=\"lead\" d=\"M%.1f %.1fL%.1f %.1f\"/><text class=\"series-name\" x=\"%.1f\" "
                    "y=\"%.1f\">",
                    (int)(c % SERIES), x + 8, end, x + 24, y, x + 28, y + 4);
            html_text(f, r->k->which[c]->name);
            fputs("</text></g>\n", f);
        }
}

static void ratios_ticks(FILE *f, const struct ratios *r)
{
    char number[NUMBER_SIZE];
    double y = r->p.top + r->p.height, free_from = -INFINITY;
    for (int64_t i = 0; i < r->k->n_ratios; i++) {
        double v = r->k->ratios[ranked_ratio(r->k, i)], x = axes_x(&r->p, v);
        fprintf(f, "<path class=\"axis\" d=\"M%.1f %.1fv4\"/>", x, y);
        if (x < free_from)
            continue;
        fprintf(f, "<text class=\"tick\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", x, y + 18,
                number_percent(number, v));
        free_from = x + 44;
    }
}

static void describe_ratios(FILE *f, const struct ratios *r)
{
    char number[NUMBER_SIZE], part[NUMBER_SIZE];
    fprintf(f, "Intact model: %s.", measure_number(number, r->m, measure_of(r->m, r->k, NULL)));
    for (int64_t c = 0; c < r->k->n_criteria; c++) {
        fputs(" ", f);
        html_text(f, r->k->which[c]->name);
        for (int64_t i = 0; i < r->k->n_ratios; i++)
            fprintf(f, "%s %s at %s", i ? "," : ":", measure_number(number, r->m, ratios_value(r, c, i, true)),
                    number_percent(part, r->k->ratios[i]));
        fputs(".", f);
    }
}

/* The intact model: a line; its name only under a perplexity, where no curves are. Those of accuracies are anywhere. */
static void ratios_intact(FILE *f, const struct ratios *r)
{
    const struct axes *p = &r->p;
    double value = measure_of(r->m, r->k, NULL);
    char number[NUMBER_SIZE];
    bool ppl = r->m.kind == MEASURE_PPL;
    if (!isfinite(value) || (ppl && value <= 0))
        return;
    double y = axes_y(p, value);
    fprintf(f, "<path class=\"base\" d=\"M%.1f %.1fh%.1f\"/>", p->left, y, p->width);
    if (ppl)
        fprintf(f, "<text class=\"base-name\" x=\"%.1f\" y=\"%.1f\">intact %s</text>", p->left + 4, y + 13,
                measure_number(number, r->m, value));
    fputc('\n', f);
}

void plot_ratios(FILE *f, const struct comparison *k, struct measure m, bool narrow)
{
    double width = narrow ? 360 : 820, height = narrow ? 320 : 380;
    struct ratios r = {.k = k, .m = m, .p = {.left = narrow ? 44 : 54, .top = 34}};
    bool ppl = m.kind == MEASURE_PPL;
    char id[32], clip[48];
    const struct axes *p = &r.p;
    r.p.width = width - p->left - (narrow ? 10 : 120);
    r.p.height = height - p->top - 46;
    ratios_range(&r);
    ppl ? snprintf(id, sizeof id, "ratios-%lld", (long long)m.at) : snprintf(id, sizeof id, "ratios-average");
    snprintf(clip, sizeof clip, "%s-%s-clip", id, narrow ? "narrow" : "wide");
    svg_open(f, id, narrow ? "narrow" : "wide", width, height,
             ppl ? "Perplexity against the part that is dropped" : "Zero-shot accuracy against the part that is dropped");
    describe_ratios(f, &r);
    fprintf(f, "</desc>\n<clipPath id=\"%s\"><path d=\"M0 %.1fh%.0fV0h-%.0fz\" transform=\"translate(0 %.1f)\"/></clipPath>\n",
            clip, height, width, width, p->top);
    axis_y_ticks(f, p);
    axis_y_title(f, p, !ppl ? "Zero-shot accuracy (%)" : p->log ? "Perplexity (log scale)" : "Perplexity");
    ratios_intact(f, &r);
    axis_x(f, p);
    ratios_ticks(f, &r);
    axis_x_title(f, p,
                 scores_sublayers(&k->scores[0]) ? "Part of the halves of blocks that is dropped"
                                                 : "Part of the blocks that is dropped");
    ratios_series(f, &r, clip);
    if (!narrow)
        ratios_names(f, &r);
    fputs("</svg>\n", f);
}

/* ---- importance ---- */

void plot_scores(FILE *f, const struct comparison *k, int64_t criterion, int64_t ratio)
{
    const struct scores *s = &k->scores[criterion];
    const struct variant *v = comparison_variant(k, criterion, ratio, true);
    bool *marked = NULL;
    struct err none = {0};
    struct report r = {.n_blocks = s->n,
                       .unit = s->unit,
                       .score = s->score,
                       .even = criterion_is_even(k->which[criterion]),
                       .base_ppl = scores_are_perplexities(k, criterion) ? s->base_ppl : 0};
    char id[32], title[96], y_name[96];
    if ((marked = mem_alloc((size_t)s->n, 2 * sizeof *marked, &none))) { /* without memory nothing stands out */
        for (int64_t i = 0; i < s->n; i++) {
            marked[i] = variant_drops(v, s->unit[i]);
            marked[s->n + i] = !scores_may_go(s, i, k->keep_first, k->keep_last);
        }
        r.dropped = marked;
        r.protected_ = marked + s->n;
    }
    snprintf(id, sizeof id, "scores-%lld", (long long)criterion);
    snprintf(title, sizeof title, "Scores by %s", k->which[criterion]->name);
    snprintf(y_name, sizeof y_name, "%s%s%s", k->which[criterion]->score, r.base_ppl > 0 ? " it" : "",
             blocks_log_scale(&r) ? " (log scale)" : "");
    struct blocks_look look = {
        .id = id, .form = "panel", .title = title, .y_name = y_name, .width = 400, .height = 250, .left = 60, .right = 50};
    plot_block_scores(f, &r, &look);
    free(marked);
}

/* ---- which units go ---- */

/* A criterion's row: filled where its protected variant drops the unit, an outline where only the other one does. */
static void drops_row(FILE *f, const struct comparison *k, const struct axes *p, int64_t criterion, int64_t ratio, double y)
{
    const struct variant *kept = comparison_variant(k, criterion, ratio, true),
                         *all = comparison_variant(k, criterion, ratio, false);
    double column = p->width / (double)k->n_units, gap = fmin(2, 0.2 * column), side = column - gap, tall = 13;
    fprintf(f, "<text class=\"name\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">", p->left - 8, y + 10.5);
    html_text(f, k->which[criterion]->name);
    fprintf(f, "</text><path class=\"strip\" d=\"M%.1f %.1fh%.1fv%.1fh-%.1fz\"/>", p->left, y, p->width, tall, p->width);
    for (int64_t i = 0; i < k->n_units; i++) {
        struct unit u = k->scores[0].unit[i];
        bool here = variant_drops(kept, u), there = variant_drops(all, u);
        char name[UNIT_NAME];
        if (!here && !there)
            continue;
        double inset = here ? 0 : fmin(0.75, 0.2 * side);
        fprintf(f, "<path class=\"%s\" d=\"M%.1f %.1fh%.1fv%.1fh-%.1fz\"><title>%s%s</title></path>\n", here ? "gone" : "gone-free",
                axes_x(p, (double)i) - side / 2 + inset, y + inset, side - 2 * inset, tall - 2 * inset, side - 2 * inset,
                unit_name(name, u), here ? "" : ", where nothing is protected");
    }
}

static void describe_drops(FILE *f, const struct comparison *k, int64_t ratio)
{
    char name[UNIT_NAME];
    for (int64_t c = 0; c < k->n_criteria; c++) {
        const struct variant *v = comparison_variant(k, c, ratio, true);
        html_text(f, k->which[c]->name);
        for (int64_t i = 0; i < v->count; i++)
            fprintf(f, "%s%s", i ? ", " : ": ", unit_name(name, v->dropped[i]));
        fputs(". ", f);
    }
}

void plot_drops(FILE *f, const struct comparison *k, int64_t ratio)
{
    enum { ROW = 17, WIDTH = 420 };
    size_t longest = 0;
    char id[32], title[96], number[NUMBER_SIZE];
    for (int64_t c = 0; c < k->n_criteria; c++) {
        size_t n = strlen(k->which[c]->name);
        longest = n > longest ? n : longest;
    }
    struct axes p = {.left = 12 + 6.6 * fmin((double)longest, 20), .height = ROW * (double)k->n_criteria};
    p.width = WIDTH - p.left - 2;
    p.x0 = -0.5;
    p.x1 = (double)k->n_units - 0.5;
    snprintf(id, sizeof id, "drops-%lld", (long long)ratio);
    snprintf(title, sizeof title, "What is dropped at %s", number_percent(number, k->ratios[ratio]));
    svg_open(f, id, "panel", WIDTH, p.height + 24, title);
    describe_drops(f, k, ratio);
    fputs("</desc>\n", f);
    for (int64_t c = 0; c < k->n_criteria; c++)
        drops_row(f, k, &p, c, ratio, ROW * (double)c);
    axis_units(f, &p, k->scores[0].unit, k->n_units, NULL);
    fputs("</svg>\n", f);
}
