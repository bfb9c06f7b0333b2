#include <math.h>
#include <string.h>

#include "cli/report_impl.h"

enum { LOG_RATIO = 8 }; /* a linear scale would hide the small values from this max/min on */

double axes_x(const struct axes *p, double x)
{
    return p->left + p->width * (x - p->x0) / (p->x1 - p->x0);
}

double axes_y(const struct axes *p, double y)
{
    return p->top + p->height * (p->y1 - (p->log ? log10(y) : y)) / (p->y1 - p->y0);
}

/* The smallest of 1, 2, 5 x 10^k that cuts `range` in at most n parts. */
static double nice_step(double range, double n)
{
    double least = range / n, unit = pow(10, floor(log10(least))), m = least / unit;
    return unit * (m <= 1.0000001 ? 1 : m <= 2 ? 2 : m <= 5 ? 5 : 10);
}

void range_extend(double *lo, double *hi, const double *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (isfinite(v[i])) {
            *lo = fmin(*lo, v[i]);
            *hi = fmax(*hi, v[i]);
        }
}

void range_pad(double *lo, double *hi, double share)
{
    if (*lo > *hi)
        *lo = 0, *hi = 1;
    double air = *hi > *lo ? share * (*hi - *lo) : *hi != 0 ? 0.1 * fabs(*hi) : 1;
    *lo -= air;
    *hi += air;
}

bool range_wants_log(double lo, double hi)
{
    return lo > 0 && hi / lo > LOG_RATIO;
}

/* How many values are above `limit`, those that are no numbers included. */
static int64_t count_above(const double *v, int64_t n, double limit)
{
    int64_t k = 0;
    for (int64_t i = 0; i < n; i++)
        k += !(v[i] <= limit);
    return k;
}

/* The next value above `limit`, or INFINITY. */
static double next_above(const double *v, int64_t n, double limit)
{
    double next = INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (v[i] > limit)
            next = fmin(next, v[i]);
    return next;
}

double range_ceiling(const double *v, int64_t n, double lo, int64_t spare)
{
    double hi = -INFINITY, ceiling = INFINITY;
    range_extend(&lo, &hi, v, n);
    for (int64_t i = 0; i < n; i++) {
        double own = log(v[i] / lo);
        bool squashed = v[i] > 1.05 * lo && 3 * own<log(hi / lo), gap = 4 * log(next_above(v, n, v[i]) / v[i])> own;
        if (squashed && gap && count_above(v, n, v[i]) <= spare)
            ceiling = fmin(ceiling, v[i]);
    }
    return ceiling;
}

/* ---- axes ---- */

void axis_y_tick_named(FILE *f, const struct axes *p, double v, const char *name)
{
    double y = axes_y(p, v);
    fprintf(f, "<path class=\"grid\" d=\"M%.1f %.1fh%.1f\"/>", p->left, y, p->width);
    fprintf(f, "<text class=\"tick\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->left - 8, y + 4, name);
}

static void axis_y_tick(FILE *f, const struct axes *p, double v)
{
    char number[NUMBER_SIZE];
    axis_y_tick_named(f, p, v, number_tick(number, v));
}

/* Decades, thinned out where there are many; 1, 2, 5 of each where there are few. */
static void axis_y_ticks_log(FILE *f, const struct axes *p)
{
    static const double mantissas[] = {1, 2, 5};
    double span = p->y1 - p->y0;
    int n = span < 2.2 ? 3 : 1, every = (int)ceil(span / 7);
    for (int e = (int)floor(p->y0); e <= p->y1; e++)
        for (int m = 0; m < n; m++) {
            double v = mantissas[m] * pow(10, e), at = log10(v);
            if (at >= p->y0 && at <= p->y1 && e % every == 0)
                axis_y_tick(f, p, v);
        }
}

void axis_y_ticks(FILE *f, const struct axes *p)
{
    if (p->log && p->y1 - p->y0 >= 1) {
        axis_y_ticks_log(f, p);
        return;
    }
    /* Less than a decade of a logarithmic scale holds too few powers of ten; even steps serve it, too. */
    double lo = p->log ? pow(10, p->y0) : p->y0, hi = p->log ? pow(10, p->y1) : p->y1;
    double step = nice_step(hi - lo, p->height / 40);
    for (double k = ceil(lo / step - 1e-9); k * step <= hi + 1e-9 * step; k++)
        axis_y_tick(f, p, k == 0 ? 0 : k * step);
}

void axis_x_ticks(FILE *f, const struct axes *p)
{
    char number[NUMBER_SIZE];
    double step = fmax(1, nice_step(p->x1 - p->x0, p->width / 60)), y = p->top + p->height;
    for (double v = step * ceil(p->x0 / step); v <= p->x1; v += step)
        fprintf(f,
                "<path class=\"axis\" d=\"M%.1f %.1fv4\"/><text class=\"tick\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%s"
                "</text>\n",
                axes_x(p, v), y, axes_x(p, v), y + 18, number_tick(number, v));
}

void axis_x(FILE *f, const struct axes *p)
{
    fprintf(f, "<path class=\"axis\" d=\"M%.1f %.1fh%.1f\"/>\n", p->left, p->top + p->height, p->width);
}

void axis_x_title(FILE *f, const struct axes *p, const char *text)
{
    fprintf(f, "<text class=\"name\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->left + p->width / 2,
            p->top + p->height + 38, text);
}

void axis_y_title(FILE *f, const struct axes *p, const char *text)
{
    fprintf(f, "<text class=\"name\" x=\"0\" y=\"%.1f\">", p->top - 16);
    html_text(f, text);
    fputs("</text>\n", f);
}

void svg_open(FILE *f, const char *id, const char *form, double width, double height, const char *title)
{
    fprintf(f,
            "<svg class=\"plot %s\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-labelledby=\"%s-%s-title %s-%s-desc\">\n"
            "<title id=\"%s-%s-title\">",
            form, width, height, id, form, id, form, id, form);
    html_text(f, title);
    fprintf(f, "</title>\n<desc id=\"%s-%s-desc\">", id, form);
}

int64_t unit_block(const struct unit *unit, int64_t i)
{
    return unit ? unit[i].block : i;
}

void axis_units(FILE *f, const struct axes *p, const struct unit *unit, int64_t n, const bool *dropped)
{
    int64_t blocks = n > 0 ? unit_block(unit, n - 1) - unit_block(unit, 0) + 1 : 1;
    double column = p->width / (double)blocks;
    int64_t every = column >= 17 ? 1 : (int64_t)nice_step((double)blocks, p->width / 28);
    every = every < 1 ? 1 : every;
    for (int64_t i = 0; i < n; i++) {
        int64_t block = unit_block(unit, i);
        if (block % every == 0 && (i == 0 || unit_block(unit, i - 1) != block))
            fprintf(f, "<text class=\"tick%s\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%lld</text>\n",
                    dropped && dropped[i] ? " drop" : "", axes_x(p, (double)i), p->top + p->height + 18, (long long)block);
    }
}

/* ---- legends ---- */

void legend_line(FILE *f, const char *class, const char *name)
{
    fprintf(f, "<li><svg viewBox=\"0 0 22 14\" aria-hidden=\"true\"><path class=\"%s\" d=\"M1 7h20\"/></svg>%s</li>\n", class,
            name);
}

void legend_block(FILE *f, const char *class, const char *name)
{
    fprintf(f, "<li><svg class=\"%s\" viewBox=\"0 0 22 14\" aria-hidden=\"true\">%s</svg>%s</li>\n", class,
            !strcmp(class, "drop")    ? "<path class=\"head\" d=\"M11 1l6 6l-6 6l-6 -6z\"/>"
            : !strcmp(class, "guard") ? "<circle class=\"head\" cx=\"11\" cy=\"7\" r=\"4.5\"/>"
                                      : "<circle class=\"head\" cx=\"11\" cy=\"7\" r=\"5\"/>",
            name);
}
