#include <math.h>

#include "cli/report_impl.h"

/* ---- block importance ---- */

bool blocks_log_scale(const struct report *r)
{
    double lo = INFINITY, hi = -INFINITY;
    range_extend(&lo, &hi, r->score, r->n_blocks);
    if (r->base_ppl > 0)
        range_extend(&lo, &hi, &r->base_ppl, 1);
    return !r->even && range_wants_log(lo, hi);
}

static bool is_dropped(const struct report *r, int64_t i)
{
    return r->dropped && r->dropped[i];
}

static bool is_protected(const struct report *r, int64_t i)
{
    return r->protected_ && r->protected_[i] && !is_dropped(r, i);
}

const char *name_at(char out[UNIT_NAME], const struct unit *unit, int64_t i)
{
    return unit_name(out, unit ? unit[i] : (struct unit){i, PARTS_ALL});
}

static void describe_blocks(FILE *f, const struct report *r)
{
    int64_t low = -1, high = -1, n_dropped = 0;
    char number[NUMBER_SIZE], name[UNIT_NAME];
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
        fprintf(f, " Highest: %s, block %s.", number_plain(number, r->score[high]), name_at(name, r->unit, high));
        fprintf(f, " Lowest: %s, block %s.", number_plain(number, r->score[low]), name_at(name, r->unit, low));
    }
    if (r->base_ppl > 0)
        fprintf(f, " Intact model: %s.", number_plain(number, r->base_ppl));
    for (int64_t i = 0; i < r->n_blocks; i++)
        if (is_dropped(r, i))
            fprintf(f, "%s%s", n_dropped++ ? ", " : " Dropped blocks: ", name_at(name, r->unit, i));
    fputs(n_dropped ? "." : "", f);
}

double blocks_ceiling(const struct report *r)
{
    return blocks_log_scale(r) && r->base_ppl > 0 ? range_ceiling(r->score, r->n_blocks, r->base_ppl, r->n_blocks / 8) : INFINITY;
}

/* Whether stems start at zero: on a linear scale without a base, unless that would hide how the scores differ. */
static bool from_zero(const struct axes *p, const struct report *r, double lo, double hi)
{
    return !p->log && !(r->base_ppl > 0) && (lo <= 0 || hi - lo > hi / 4);
}

/* The panel's data range: every score that is drawn, and the base, or the zero that stems start from. Returns where stems start
 * in the picture, or NAN for none. */
static double blocks_range(struct axes *p, const struct report *r)
{
    double lo = INFINITY, hi = -INFINITY;
    bool base = r->base_ppl > 0;
    p->log = blocks_log_scale(r);
    range_extend(&lo, &hi, r->score, r->n_blocks);
    bool zero = from_zero(p, r, lo, hi);
    if (base || zero)
        range_extend(&lo, &hi, base ? &r->base_ppl : &(double){0}, 1);
    hi = fmin(hi, blocks_ceiling(r));
    bool at_bottom = zero && lo == 0;
    if (p->log)
        lo = log10(lo), hi = log10(hi);
    range_pad(&lo, &hi, isfinite(blocks_ceiling(r)) ? 0.12 : 0.06); /* more air where arrows point past the top */
    p->y0 = at_bottom ? 0 : lo;
    p->y1 = hi;
    p->x0 = -0.5;
    p->x1 = (double)r->n_blocks - 0.5;
    return base ? axes_y(p, r->base_ppl) : p->log ? p->top + p->height : zero ? axes_y(p, 0) : NAN;
}

static void block_title(FILE *f, const struct report *r, const struct unit *unit, int64_t i)
{
    char number[NUMBER_SIZE], name[UNIT_NAME];
    fprintf(f, "<title>Block %s: %s", name_at(name, unit, i), number_plain(number, r->score[i]));
    if (r->base_ppl > 0 && *number_change(number, r->score[i], r->base_ppl))
        fprintf(f, " (%s)", number);
    fprintf(f, "%s</title>", is_dropped(r, i) ? ", dropped" : is_protected(r, i) ? ", protected" : "");
}

/* A stem from the foot to the value with a head on it: a diamond for a dropped block, a ring for a protected one, a disc for
 * the rest, so that colour is not needed to tell them apart. A score off the scale gets an arrow at the top. */
static void draw_block(FILE *f, const struct axes *p, const struct report *r, const struct unit *unit, int64_t i, double foot)
{
    double column = p->width / (double)r->n_blocks, x = axes_x(p, (double)i),
           size = fmin(4.5, fmax(isfinite(foot) ? 2 : 2.8, 0.36 * column));
    bool outside = !(r->score[i] <= blocks_ceiling(r)) || !isfinite(r->score[i]);
    double y = outside ? p->top + 2 * size : axes_y(p, r->score[i]), half = 1.3 * size;
    fprintf(f, "<g class=\"block %s\">", is_dropped(r, i) ? "drop" : is_protected(r, i) ? "guard" : "keep");
    block_title(f, r, unit, i);
    fprintf(f, "<path class=\"hit\" d=\"M%.1f %.1fh%.1fv%.1fh-%.1fz\"/>", x - column / 2, p->top, column, p->height, column);
    if (isfinite(foot))
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

void plot_block_scores(FILE *f, const struct report *r, const struct blocks_look *look)
{
    bool base = r->base_ppl > 0;
    struct axes p = {.left = look->left, .top = 34};
    char number[NUMBER_SIZE];
    p.width = look->width - p.left - (base ? look->right : 8);
    p.height = look->height - p.top - 46;
    double foot = blocks_range(&p, r);
    svg_open(f, look->id, look->form, look->width, look->height, look->title);
    describe_blocks(f, r);
    fputs("</desc>\n", f);
    axis_y_ticks(f, &p);
    axis_y_title(f, &p, look->y_name);
    if (base)
        fprintf(f,
                "<path class=\"base\" d=\"M%.1f %.1fh%.1f\"/><text class=\"base-name\" x=\"%.1f\" y=\"%.1f\">intact"
                "<tspan x=\"%.1f\" dy=\"14\">%s</tspan></text>\n",
                p.left, foot, p.width + 4, p.left + p.width + 8, foot - 3, p.left + p.width + 8, number_plain(number, r->base_ppl));
    axis_x(f, &p);
    for (int64_t i = 0; i < r->n_blocks; i++)
        draw_block(f, &p, r, r->unit, i, foot);
    axis_units(f, &p, r->unit, r->n_blocks, r->dropped);
    axis_x_title(f, &p, "Block index");
    fputs("</svg>\n", f);
}

void plot_blocks(FILE *f, const struct report *r, bool narrow)
{
    bool base = r->base_ppl > 0, log_scale = blocks_log_scale(r);
    char score[64];
    snprintf(score, sizeof score, "%s%s", r->score_name ? r->score_name : "Score", log_scale ? " (log scale)" : "");
    struct blocks_look look = {
        .id = "blocks",
        .form = narrow ? "narrow" : "wide",
        .title = base ? "Perplexity without each block" : "Score of each block",
        .y_name = base ? log_scale ? "Perplexity without the block (log scale)" : "Perplexity without the block" : score,
        .width = narrow ? 360 : 820,
        .height = narrow ? 310 : 350,
        .left = narrow ? 44 : 54,
        .right = narrow ? 50 : 62};
    plot_block_scores(f, r, &look);
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

static void line_point(FILE *f, const struct axes *p, double x, double y, bool *drawing)
{
    if (isfinite(y))
        fprintf(f, *drawing ? "L%.1f %.1f" : "M%.1f %.1fh0", axes_x(p, x), axes_y(p, y)); /* h0: a lone point shows as a dot */
    *drawing = isfinite(y);
}

/* A line through v[n] at x = 1 .. n; windowed means with window > 1. Of more steps than the panel has room for, the extremes
 * of each column are drawn, so that no spike is lost. A value that is no number leaves a gap. */
static void draw_line(FILE *f, const struct axes *p, const char *class, const double *v, int64_t n, int64_t window)
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

static void draw_evals(FILE *f, const struct axes *p, const struct report *r)
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
                    axes_x(p, (double)r->eval_step[i]), axes_y(p, r->eval_loss[i]), (long long)r->eval_step[i],
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
static void steps_range(struct axes *p, const struct report *r)
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
static void draw_lr(FILE *f, const struct axes *p, const struct report *r)
{
    double unit = pow(10, floor(log10(p->y1) + 1e-9));
    char number[NUMBER_SIZE], name[NUMBER_SIZE + 32];
    snprintf(number, sizeof number, "%.3g", p->y1 / unit);
    axis_y_tick_named(f, p, 0, "0");
    axis_y_tick_named(f, p, p->y1, number);
    snprintf(name, sizeof name, "Learning rate (%s)", number_tick(number, unit));
    axis_y_title(f, p, name);
    draw_line(f, p, "lr", r->lr, r->n_steps, 1);
}

void plot_training(FILE *f, const struct report *r, bool narrow)
{
    double width = narrow ? 360 : 820, loss_height = narrow ? 190 : 230, lr_height = 56, top = 34, lo = INFINITY, hi = -INFINITY;
    struct axes loss = {.left = narrow ? 44 : 54, .top = top, .height = loss_height};
    loss.width = width - loss.left - 18;
    steps_range(&loss, r);
    range_extend(&lo, &hi, r->loss, r->n_steps);
    range_extend(&lo, &hi, r->eval_loss, r->n_evals);
    range_pad(&lo, &hi, 0.06);
    loss.y0 = lo;
    loss.y1 = hi;

    struct axes lr = loss, *last = &loss;
    double lr_lo = 0, lr_hi = 0;
    if (r->lr)
        range_extend(&lr_lo, &lr_hi, r->lr, r->n_steps);
    if (lr_hi > 0) {
        lr.top = loss.top + loss.height + 44;
        lr.height = lr_height;
        lr.y0 = 0;
        lr.y1 = lr_hi;
        last = &lr;
    }
    svg_open(f, "training", narrow ? "narrow" : "wide", width, last->top + last->height + 46, "Loss during training");
    describe_training(f, r);
    fputs("</desc>\n", f);
    axis_y_ticks(f, &loss);
    axis_y_title(f, &loss, "Loss (nats per token)");
    axis_x(f, &loss);
    int64_t window = smoothing_window(r->n_steps);
    draw_line(f, &loss, window > 1 ? "raw" : "smooth", r->loss, r->n_steps, 1);
    if (window > 1)
        draw_line(f, &loss, "smooth", r->loss, r->n_steps, window);
    draw_evals(f, &loss, r);
    if (last == &lr) {
        draw_lr(f, &lr, r);
        axis_x(f, &lr);
    }
    axis_x_ticks(f, last);
    axis_x_title(f, last, "Optimizer step");
    fputs("</svg>\n", f);
}
