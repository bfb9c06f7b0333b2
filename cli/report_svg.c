#include <math.h>

#include "cli/report_impl.h"

enum { LOG_RATIO = 8 }; /* a linear scale would hide the small values from this max/min on */

/* A panel of a picture: where it is, in SVG units, and what part of the data it shows. */
struct panel {
    double left, top, width, height;
    double x0, x1; /* data at the left and the right edge */
    double y0, y1; /* data at the bottom and the top edge; log10 of it on a logarithmic scale */
    bool log;
};

static double at_x(const struct panel *p, double x)
{
    return p->left + p->width * (x - p->x0) / (p->x1 - p->x0);
}

static double at_y(const struct panel *p, double y)
{
    return p->top + p->height * (p->y1 - (p->log ? log10(y) : y)) / (p->y1 - p->y0);
}

/* The smallest of 1, 2, 5 x 10^k that cuts `range` in at most n parts. */
static double nice_step(double range, double n)
{
    double least = range / n, unit = pow(10, floor(log10(least))), m = least / unit;
    return unit * (m <= 1.0000001 ? 1 : m <= 2 ? 2 : m <= 5 ? 5 : 10);
}

/* Grows [*lo, *hi] by finite values. Start from {INFINITY, -INFINITY}. */
static void extend(double *lo, double *hi, const double *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (isfinite(v[i])) {
            *lo = fmin(*lo, v[i]);
            *hi = fmax(*hi, v[i]);
        }
}

/* Air above and below, and a range where there is only one value, or none. */
static void pad(double *lo, double *hi, double share)
{
    if (*lo > *hi)
        *lo = 0, *hi = 1;
    double air = *hi > *lo ? share * (*hi - *lo) : *hi != 0 ? 0.1 * fabs(*hi) : 1;
    *lo -= air;
    *hi += air;
}

/* ---- axes ---- */

static void y_tick_named(FILE *f, const struct panel *p, double v, const char *name)
{
    double y = at_y(p, v);
    fprintf(f, "<path class=\"grid\" d=\"M%.1f %.1fh%.1f\"/>", p->left, y, p->width);
    fprintf(f, "<text class=\"tick\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->left - 8, y + 4, name);
}

static void y_tick(FILE *f, const struct panel *p, double v)
{
    char number[NUMBER_SIZE];
    y_tick_named(f, p, v, number_tick(number, v));
}

/* Decades, thinned out where there are many; 1, 2, 5 of each where there are few. */
static void y_ticks_log(FILE *f, const struct panel *p)
{
    static const double mantissas[] = {1, 2, 5};
    double span = p->y1 - p->y0;
    int n = span < 2.2 ? 3 : 1, every = (int)ceil(span / 7);
    for (int e = (int)floor(p->y0); e <= p->y1; e++)
        for (int m = 0; m < n; m++) {
            double v = mantissas[m] * pow(10, e), at = log10(v);
            if (at >= p->y0 && at <= p->y1 && e % every == 0)
                y_tick(f, p, v);
        }
}

static void y_ticks(FILE *f, const struct panel *p)
{
    if (p->log && p->y1 - p->y0 >= 1) {
        y_ticks_log(f, p);
        return;
    }
    /* Less than a decade of a logarithmic scale holds too few powers of ten; even steps serve it, too. */
    double lo = p->log ? pow(10, p->y0) : p->y0, hi = p->log ? pow(10, p->y1) : p->y1;
    double step = nice_step(hi - lo, p->height / 40);
    for (double k = ceil(lo / step - 1e-9); k * step <= hi + 1e-9 * step; k++)
        y_tick(f, p, k == 0 ? 0 : k * step);
}

static void x_ticks(FILE *f, const struct panel *p)
{
    char number[NUMBER_SIZE];
    double step = fmax(1, nice_step(p->x1 - p->x0, p->width / 60)), y = p->top + p->height;
    for (double v = step * ceil(p->x0 / step); v <= p->x1; v += step)
        fprintf(f,
                "<path class=\"axis\" d=\"M%.1f %.1fv4\"/><text class=\"tick\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%s"
                "</text>\n",
                at_x(p, v), y, at_x(p, v), y + 18, number_tick(number, v));
}

static void x_axis(FILE *f, const struct panel *p)
{
    fprintf(f, "<path class=\"axis\" d=\"M%.1f %.1fh%.1f\"/>\n", p->left, p->top + p->height, p->width);
}

static void x_title(FILE *f, const struct panel *p, const char *text)
{
    fprintf(f, "<text class=\"name\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->left + p->width / 2,
            p->top + p->height + 38, text);
}

/* The name of the y axis stands above it, where it reads without turning one's head. */
static void y_title(FILE *f, const struct panel *p, const char *text)
{
    fprintf(f, "<text class=\"name\" x=\"0\" y=\"%.1f\">%s</text>\n", p->top - 16, text);
}

static void svg_open(FILE *f, const char *id, bool narrow, double width, double height, const char *title)
{
    const char *form = narrow ? "narrow" : "wide";
    fprintf(f,
            "<svg class=\"plot %s\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-labelledby=\"%s-%s-title %s-%s-desc\">\n"
            "<title id=\"%s-%s-title\">%s</title>\n<desc id=\"%s-%s-desc\">",
            form, width, height, id, form, id, form, id, form, title, id, form);
}

/* ---- block importance ---- */

bool blocks_log_scale(const struct report *r)
{
    double lo = INFINITY, hi = -INFINITY;
    extend(&lo, &hi, r->score, r->n_blocks);
    if (r->base_ppl > 0)
        extend(&lo, &hi, &r->base_ppl, 1);
    return lo > 0 && hi / lo > LOG_RATIO;
}

static bool is_dropped(const struct report *r, int64_t i)
{
    return r->dropped && r->dropped[i];
}

static bool is_protected(const struct report *r, int64_t i)
{
    return r->protected_ && r->protected_[i] && !is_dropped(r, i);
}

static void describe_blocks(FILE *f, const struct report *r)
{
    int64_t low = -1, high = -1, n_dropped = 0;
    char number[NUMBER_SIZE];
    for (int64_t i = 0; i < r->n_blocks; i++) {
        if (!isfinite(r->score[i]))
            continue;
        if (low < 0 || r->score[i] < r->score[low])
            low = i;
        if (high < 0 || r->score[i] > r->score[high])
            high = i;
    }
    fprintf(f, "One mark for each of %lld blocks.", (long long)r->n_blocks);
    if (low >= 0) {
        fprintf(f, " Highest: %s, block %lld.", number_plain(number, r->score[high]), (long long)high);
        fprintf(f, " Lowest: %s, block %lld.", number_plain(number, r->score[low]), (long long)low);
    }
    if (r->base_ppl > 0)
        fprintf(f, " Intact model: %s.", number_plain(number, r->base_ppl));
    for (int64_t i = 0; i < r->n_blocks; i++)
        if (is_dropped(r, i))
            fprintf(f, "%s%lld", n_dropped++ ? ", " : " Dropped blocks: ", (long long)i);
    fputs(n_dropped ? "." : "", f);
}

/* How many scores are above v, those that are no numbers included. */
static int64_t count_above(const struct report *r, double v)
{
    int64_t n = 0;
    for (int64_t i = 0; i < r->n_blocks; i++)
        n += !(r->score[i] <= v);
    return n;
}

double blocks_ceiling(const struct report *r)
{
    double lo = r->base_ppl, hi = -INFINITY, rest = INFINITY;
    if (!blocks_log_scale(r) || !(lo > 0))
        return INFINITY;
    extend(&lo, &hi, r->score, r->n_blocks);
    for (int64_t i = 0; i < r->n_blocks; i++) /* rest: the largest score but for an eighth of the blocks */
        if (isfinite(r->score[i]) && count_above(r, r->score[i]) <= r->n_blocks / 8)
            rest = fmin(rest, r->score[i]);
    rest = fmax(rest, lo);
    return log(hi / lo) > 3 * log(rest / lo) && rest > 1.05 * lo ? rest : INFINITY;
}

/* The panel's data range: every score that is drawn, and the base; zero too on a linear scale without a base, where stems need
 * a foot. */
static void blocks_range(struct panel *p, const struct report *r)
{
    double lo = INFINITY, hi = -INFINITY;
    bool base = r->base_ppl > 0;
    p->log = blocks_log_scale(r);
    extend(&lo, &hi, r->score, r->n_blocks);
    if (base)
        extend(&lo, &hi, &r->base_ppl, 1);
    else if (!p->log)
        extend(&lo, &hi, &(double){0}, 1);
    hi = fmin(hi, blocks_ceiling(r));
    bool from_zero = !p->log && !base && lo == 0;
    if (p->log)
        lo = log10(lo), hi = log10(hi);
    pad(&lo, &hi, isfinite(blocks_ceiling(r)) ? 0.12 : 0.06); /* more air where arrows point past the top */
    p->y0 = from_zero ? 0 : lo;
    p->y1 = hi;
    p->x0 = -0.5;
    p->x1 = (double)r->n_blocks - 0.5;
}

static void block_title(FILE *f, const struct report *r, int64_t i)
{
    char number[NUMBER_SIZE];
    fprintf(f, "<title>Block %lld: %s", (long long)i, number_plain(number, r->score[i]));
    if (r->base_ppl > 0 && *number_change(number, r->score[i], r->base_ppl))
        fprintf(f, " (%s)", number);
    fprintf(f, "%s</title>", is_dropped(r, i) ? ", dropped" : is_protected(r, i) ? ", protected" : "");
}

/* A stem from the foot to the value with a head on it: a diamond for a dropped block, a ring for a protected one, a disc for
 * the rest, so that colour is not needed to tell them apart. A score off the scale gets an arrow at the top. */
static void draw_block(FILE *f, const struct panel *p, const struct report *r, int64_t i, double foot)
{
    double column = p->width / (double)r->n_blocks, x = at_x(p, (double)i), size = fmin(4.5, fmax(1.5, 0.36 * column));
    bool outside = !(r->score[i] <= blocks_ceiling(r)) || !isfinite(r->score[i]);
    double y = outside ? p->top + 2 * size : at_y(p, r->score[i]), half = 1.3 * size;
    fprintf(f, "<g class=\"block %s\">", is_dropped(r, i) ? "drop" : is_protected(r, i) ? "guard" : "keep");
    block_title(f, r, i);
    fprintf(f, "<path class=\"hit\" d=\"M%.1f %.1fh%.1fv%.1fh-%.1fz\"/>", x - column / 2, p->top, column, p->height, column);
    fprintf(f, "<path class=\"stem\" d=\"M%.1f %.1fV%.1f\"/>", x, foot, y);
    if (outside)
        fprintf(f, "<path class=\"head\" d=\"M%.1f %.1fl%.1f %.1fh-%.1fz\"/>", x, p->top, half, 2 * size, 2 * half);
    else if (is_dropped(r, i))
        fprintf(f, "<path class=\"head\" d=\"M%.1f %.1fl%.1f %.1fl-%.1f %.1fl-%.1f -%.1fz\"/>", x, y - half, half, half, half, half,
                half, half);
    else
        fprintf(f, "<circle class=\"head\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>", x, y, size);
    fputs("</g>\n", f);
}

static void block_ticks(FILE *f, const struct panel *p, const struct report *r)
{
    double column = p->width / (double)r->n_blocks;
    int64_t every = column >= 17 ? 1 : (int64_t)nice_step((double)r->n_blocks, p->width / 28);
    every = every < 1 ? 1 : every;
    for (int64_t i = 0; i < r->n_blocks; i += every)
        fprintf(f, "<text class=\"tick%s\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%lld</text>\n",
                is_dropped(r, i) ? " drop" : "", at_x(p, (double)i), p->top + p->height + 18, (long long)i);
}

void plot_blocks(FILE *f, const struct report *r, bool narrow)
{
    double width = narrow ? 360 : 820, height = narrow ? 310 : 350;
    bool base = r->base_ppl > 0;
    struct panel p = {.left = narrow ? 44 : 54, .top = 34};
    char number[NUMBER_SIZE];
    p.width = width - p.left - (base ? narrow ? 50 : 62 : 8);
    p.height = height - p.top - 46;
    blocks_range(&p, r);
    svg_open(f, "blocks", narrow, width, height, base ? "Perplexity without each block" : "Score of each block");
    describe_blocks(f, r);
    fputs("</desc>\n", f);
    y_ticks(f, &p);
    y_title(f, &p,
            base    ? p.log ? "Perplexity without the block (log scale)" : "Perplexity without the block"
            : p.log ? "Score (log scale)"
                    : "Score");
    double foot = base ? at_y(&p, r->base_ppl) : p.log ? p.top + p.height : at_y(&p, 0);
    if (base)
        fprintf(f,
                "<path class=\"base\" d=\"M%.1f %.1fh%.1f\"/><text class=\"base-name\" x=\"%.1f\" y=\"%.1f\">intact"
                "<tspan x=\"%.1f\" dy=\"14\">%s</tspan></text>\n",
                p.left, foot, p.width + 4, p.left + p.width + 8, foot - 3, p.left + p.width + 8, number_plain(number, r->base_ppl));
    x_axis(f, &p);
    for (int64_t i = 0; i < r->n_blocks; i++)
        draw_block(f, &p, r, i, foot);
    block_ticks(f, &p, r);
    x_title(f, &p, "Block index");
    fputs("</svg>\n", f);
}

/* ---- training ---- */

int64_t smoothing_window(int64_t n_steps)
{
    return n_steps < 20 ? 1 : (n_steps / 40) * 2 + 3; /* odd, so that it has a middle; about a twentieth of the run */
}

/* Mean of the finite values in a window around k, as far as it lies in the run. */
static double windowed_mean(const double *v, int64_t n, int64_t k, int64_t window)
{
    int64_t half = window / 2, m = 0;
    double sum = 0;
    for (int64_t i = k > half ? k - half : 0; i <= k + half && i < n; i++)
        if (isfinite(v[i])) {
            sum += v[i];
            m++;
        }
    return m ? sum / (double)m : NAN;
}

static void line_point(FILE *f, const struct panel *p, double x, double y, bool *drawing)
{
    if (isfinite(y))
        fprintf(f, *drawing ? "L%.1f %.1f" : "M%.1f %.1fh0", at_x(p, x), at_y(p, y)); /* h0: a lone point shows as a dot */
    *drawing = isfinite(y);
}

/* A line through v[n] at x = 1 .. n; windowed means with window > 1. Of more steps than the panel has room for, the extremes
 * of each column are drawn, so that no spike is lost. A value that is no number leaves a gap. */
static void draw_line(FILE *f, const struct panel *p, const char *class, const double *v, int64_t n, int64_t window)
{
    int64_t stride = 1 + (int64_t)((double)n / p->width);
    bool drawing = false;
    fprintf(f, "<path class=\"%s\" d=\"", class);
    for (int64_t i = 0; i < n; i += stride) {
        int64_t end = i + stride < n ? i + stride : n, low = i, high = i;
        for (int64_t k = i; k < end && window == 1; k++) {
            if (!(v[low] <= v[k]))
                low = k;
            if (!(v[high] >= v[k]))
                high = k;
        }
        int64_t first = low < high ? low : high, second = low < high ? high : low;
        line_point(f, p, (double)first + 1, windowed_mean(v, n, first, window), &drawing);
        if (second != first)
            line_point(f, p, (double)second + 1, windowed_mean(v, n, second, window), &drawing);
    }
    fputs("\"/>\n", f);
}

static void draw_evals(FILE *f, const struct panel *p, const struct report *r)
{
    char number[NUMBER_SIZE];
    bool drawing = false;
    fputs("<path class=\"eval-line\" d=\"", f);
    for (int64_t i = 0; i < r->n_evals; i++)
        line_point(f, p, (double)r->eval_step[i], r->eval_loss[i], &drawing);
    fputs("\"/>\n", f);
    for (int64_t i = 0; i < r->n_evals; i++)
        if (isfinite(r->eval_loss[i]))
            fprintf(f,
                    "<circle class=\"eval\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>Step %lld: held-out loss %s</title></circle>\n",
                    at_x(p, (double)r->eval_step[i]), at_y(p, r->eval_loss[i]), (long long)r->eval_step[i],
                    number_plain(number, r->eval_loss[i]));
}

static void describe_training(FILE *f, const struct report *r)
{
    char number[NUMBER_SIZE];
    int64_t n = r->n_steps, window = smoothing_window(n);
    if (n > 0) {
        fprintf(f, "%lld steps. Loss at the start: %s", (long long)n, number_plain(number, windowed_mean(r->loss, n, 0, window)));
        fprintf(f, ", at the end: %s.", number_plain(number, windowed_mean(r->loss, n, n - 1, window)));
    }
    if (r->n_evals > 0) {
        fprintf(f, " Held-out loss: first %s", number_plain(number, r->eval_loss[0]));
        fprintf(f, ", last %s.", number_plain(number, r->eval_loss[r->n_evals - 1]));
    }
}

/* The steps that are shown: all that were taken, and those of the evaluations before and after. */
static void steps_range(struct panel *p, const struct report *r)
{
    p->x0 = 1;
    p->x1 = (double)(r->n_steps > 0 ? r->n_steps : 1);
    for (int64_t i = 0; i < r->n_evals; i++) {
        p->x0 = fmin(p->x0, (double)r->eval_step[i]);
        p->x1 = fmax(p->x1, (double)r->eval_step[i]);
    }
    if (p->x1 <= p->x0)
        p->x0 -= 0.5, p->x1 += 0.5;
}

/* Learning rates are small: the power of ten goes to the axis' name, so that the peak is a short number. */
static void draw_lr(FILE *f, const struct panel *p, const struct report *r)
{
    double unit = pow(10, floor(log10(p->y1) + 1e-9));
    char number[NUMBER_SIZE], name[NUMBER_SIZE + 32];
    snprintf(number, sizeof number, "%.3g", p->y1 / unit);
    y_tick_named(f, p, 0, "0");
    y_tick_named(f, p, p->y1, number);
    snprintf(name, sizeof name, "Learning rate (%s)", number_tick(number, unit));
    y_title(f, p, name);
    draw_line(f, p, "lr", r->lr, r->n_steps, 1);
}

void plot_training(FILE *f, const struct report *r, bool narrow)
{
    double width = narrow ? 360 : 820, loss_height = narrow ? 190 : 230, lr_height = 56, top = 34, lo = INFINITY, hi = -INFINITY;
    struct panel loss = {.left = narrow ? 44 : 54, .top = top, .height = loss_height};
    loss.width = width - loss.left - 18;
    steps_range(&loss, r);
    extend(&lo, &hi, r->loss, r->n_steps);
    extend(&lo, &hi, r->eval_loss, r->n_evals);
    pad(&lo, &hi, 0.06);
    loss.y0 = lo;
    loss.y1 = hi;

    struct panel lr = loss, *last = &loss;
    double lr_lo = 0, lr_hi = 0;
    if (r->lr)
        extend(&lr_lo, &lr_hi, r->lr, r->n_steps);
    if (lr_hi > 0) {
        lr.top = loss.top + loss.height + 44;
        lr.height = lr_height;
        lr.y0 = 0;
        lr.y1 = lr_hi;
        last = &lr;
    }
    svg_open(f, "training", narrow, width, last->top + last->height + 46, "Loss during training");
    describe_training(f, r);
    fputs("</desc>\n", f);
    y_ticks(f, &loss);
    y_title(f, &loss, "Loss (nats per token)");
    x_axis(f, &loss);
    int64_t window = smoothing_window(r->n_steps);
    draw_line(f, &loss, window > 1 ? "raw" : "smooth", r->loss, r->n_steps, 1);
    if (window > 1)
        draw_line(f, &loss, "smooth", r->loss, r->n_steps, window);
    draw_evals(f, &loss, r);
    if (last == &lr) {
        draw_lr(f, &lr, r);
        x_axis(f, &lr);
    }
    x_ticks(f, last);
    x_title(f, last, "Optimizer step");
    fputs("</svg>\n", f);
}
