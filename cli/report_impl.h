/* What the pages and their plots share: text, numbers, axes, and the figures of a report. Everything goes to a memory stream,
 * whose only failure is lack of memory; text_write looks at that once, at the end. */
#ifndef ESPALIER_CLI_REPORT_IMPL_H
#define ESPALIER_CLI_REPORT_IMPL_H

#include <stdio.h>

#include "cli/report.h"
#include "core/model/unit.h"

/* Writes what fill(f, what) prints to `path`, whole or not at all. */
int text_write(const char *path, void (*fill)(FILE *f, const void *what), const void *what, struct err *err);

/* ---- parts of a page ---- */

/* All up to and with the title in <header>, which stays open; more_style follows the common style sheet. */
void html_head(FILE *f, const char *title, const char *more_style);

/* A section that is a table of names and values; nothing where n is 0. id and title are plain words. */
void facts_section(FILE *f, const char *id, const char *title, int64_t n, const char *const (*facts)[2]);

/* The last section, and the end of the page. */
void html_foot(FILE *f, int64_t n_facts, const char *const (*facts)[2]);

/* UTF-8 text with HTML's special characters escaped, so that it may stand in an element or an attribute. NULL is nothing. */
void html_text(FILE *f, const char *s);

/* Space for any formatted number, with its unit. */
enum { NUMBER_SIZE = 48 };

const char *number_plain(char out[NUMBER_SIZE], double v);               /* 20.35, 12,345, 1.2 x 10^7 in typographic form */
const char *number_whole(char out[NUMBER_SIZE], int64_t n);              /* 304,896 */
const char *number_count(char out[NUMBER_SIZE], int64_t n);              /* 134.5 M */
const char *number_change(char out[NUMBER_SIZE], double v, double from); /* "+3.2 %", or "x12" beyond tenfold */
const char *number_tick(char out[NUMBER_SIZE], double v);                /* as short as is exact: 0.5, 2,000, 10^6 */

/* ---- parts of a plot ---- */

/* A panel of a picture: where it is, in SVG units, and what part of the data it shows. */
struct axes {
    double left, top, width, height;
    double x0, x1; /* data at the left and the right edge */
    double y0, y1; /* data at the bottom and the top edge; log10 of it on a logarithmic scale */
    bool log;
};

double axes_x(const struct axes *p, double x);
double axes_y(const struct axes *p, double y);

/* Grows [*lo, *hi] by finite values. Start from {INFINITY, -INFINITY}. */
void range_extend(double *lo, double *hi, const double *v, int64_t n);

/* Air above and below, and a range where there is only one value, or none. */
void range_pad(double *lo, double *hi, double share);

/* Whether values from lo to hi are drawn on a logarithmic scale. */
bool range_wants_log(double lo, double hi);

/* The largest of v[n] that is drawn at its place on a logarithmic scale from lo. Where up to `spare` values, far above the rest,
 * would squash it into a third of the axis, they are drawn as arrows at the top instead. INFINITY where all have room. */
double range_ceiling(const double *v, int64_t n, double lo, int64_t spare);

void svg_open(FILE *f, const char *id, const char *form, double width, double height, const char *title); /* up to its <desc> */
void axis_y_tick_named(FILE *f, const struct axes *p, double v, const char *name);
void axis_y_ticks(FILE *f, const struct axes *p);
void axis_x_ticks(FILE *f, const struct axes *p);
void axis_x(FILE *f, const struct axes *p);
void axis_x_title(FILE *f, const struct axes *p, const char *text);

/* The name of the y axis stands above it, where it reads without turning one's head. */
void axis_y_title(FILE *f, const struct axes *p, const char *text);

/* Block indices under unit[n], which stand at x = 0 .. n - 1; NULL: whole blocks from 0. dropped [n] or NULL: those stand out. */
void axis_units(FILE *f, const struct axes *p, const struct unit *unit, int64_t n, const bool *dropped);
int64_t unit_block(const struct unit *unit, int64_t i);
const char *name_at(char out[UNIT_NAME], const struct unit *unit,
                    int64_t i); /* of the block, or of the half of one, at position i */

/* An entry of a legend: a line drawn with the class of the curve that it names, or the mark of a "drop", "keep" or "guard". */
void legend_line(FILE *f, const char *class, const char *name);
void legend_block(FILE *f, const char *class, const char *name);

/* ---- the figures of a report ---- */

/* How the scores of blocks are drawn, besides what a report says of them. */
struct blocks_look {
    const char *id, *form; /* of the <svg>: no two of a page have both in common */
    const char *title, *y_name;
    double width, height, left, right; /* left: room for the ticks; right: for the name of the base */
};

void plot_block_scores(FILE *f, const struct report *r, const struct blocks_look *look);

/* An <svg> of the blocks' scores, or of the training. Each is drawn twice, for screens of either width: text in an SVG scales
 * with the picture, and would be too small on a phone. */
void plot_blocks(FILE *f, const struct report *r, bool narrow);
void plot_training(FILE *f, const struct report *r, bool narrow);

/* Steps in the mean that the smoothed loss curve shows; 1 where the run is too short to smooth. */
int64_t smoothing_window(int64_t n_steps);

/* Whether the scores are drawn on a logarithmic scale. */
bool blocks_log_scale(const struct report *r);

/* The largest score that is drawn at its place; a few blocks (the first one, often) may be arrows, and are named in the caption.
 * See range_ceiling. */
double blocks_ceiling(const struct report *r);

#endif
