/* What the page and its plots share: text, numbers and the two figures. Everything goes to a memory stream, whose only failure
 * is lack of memory; report_write looks at that once, at the end. */
#ifndef ESPALIER_CLI_REPORT_IMPL_H
#define ESPALIER_CLI_REPORT_IMPL_H

#include <stdio.h>

#include "cli/report.h"

/* UTF-8 text with HTML's special characters escaped, so that it may stand in an element or an attribute. NULL is nothing. */
void html_text(FILE *f, const char *s);

/* Space for any formatted number, with its unit. */
enum { NUMBER_SIZE = 48 };

const char *number_plain(char out[NUMBER_SIZE], double v);               /* 20.35, 12,345, 1.2 x 10^7 in typographic form */
const char *number_count(char out[NUMBER_SIZE], int64_t n);              /* 134.5 M */
const char *number_change(char out[NUMBER_SIZE], double v, double from); /* "+3.2 %", or "x12" beyond tenfold */
const char *number_tick(char out[NUMBER_SIZE], double v);                /* as short as is exact: 0.5, 2,000, 10^6 */

/* An <svg> of the blocks' scores, or of the training. Each is drawn twice, for screens of either width: text in an SVG scales
 * with the picture, and would be too small on a phone. */
void plot_blocks(FILE *f, const struct report *r, bool narrow);
void plot_training(FILE *f, const struct report *r, bool narrow);

/* Steps in the mean that the smoothed loss curve shows; 1 where the run is too short to smooth. */
int64_t smoothing_window(int64_t n_steps);

/* Whether the scores are drawn on a logarithmic scale. */
bool blocks_log_scale(const struct report *r);

/* The largest score that is drawn at its place. Where a few blocks (the first one, often) would squash the rest into a third
 * of the axis, they are drawn as arrows at the top instead, and named in the caption. INFINITY where all have room. */
double blocks_ceiling(const struct report *r);

#endif
