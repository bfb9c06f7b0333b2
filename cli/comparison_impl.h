/* What the page of a comparison and its plots share. */
#ifndef ESPALIER_CLI_COMPARISON_IMPL_H
#define ESPALIER_CLI_COMPARISON_IMPL_H

#include "cli/comparison.h"
#include "cli/report_impl.h"

enum { SERIES = 9 }; /* colours and marks that tell criteria apart; more criteria use them again */

/* What the criterion drops at the ratio. */
const struct variant *comparison_variant(const struct comparison *k, int64_t criterion, int64_t ratio, bool protected_);

/* Whether any block is protected; otherwise the variants come in equal pairs. */
bool comparison_protects(const struct comparison *k);

/* Whether the criterion's scores are perplexities without each unit, which compare with that of the intact model. */
bool scores_are_perplexities(const struct comparison *k, int64_t criterion);

/* "block" or "half", with an s unless n is 1. */
const char *unit_word(const struct comparison *k, int64_t n);

const char *number_percent(char out[NUMBER_SIZE], double part); /* "12.5 %" of 0.125, not to be broken */

/* ---- what is measured of every model ---- */

/* Perplexity on a text, accuracy on a zero-shot task, or the average of the latter. */
struct measure {
    enum measure_kind { MEASURE_PPL, MEASURE_TASK, MEASURE_AVERAGE } kind;
    int64_t at; /* which text or task */
};

/* Its value: a perplexity, or per cent. v NULL: of the intact model. */
double measure_of(struct measure m, const struct comparison *k, const struct variant *v);

/* The best value of any criterion; NaN where none was measured. Infinity counts: a perplexity may be that bad. */
double measure_best(struct measure m, const struct comparison *k, int64_t ratio, bool protected_);

const char *measure_number(char out[NUMBER_SIZE], struct measure m, double v);

/* ---- parts of the page ---- */

/* "the first 4 and the last 2 blocks": those that are protected. */
void print_ends(FILE *f, const struct comparison *k);

/* Variants whose cut other calibration rows could move. */
int64_t count_unsettled(const struct comparison *k);

/* Tables and curves; nothing where there are no tasks. */
void ppl_sections(FILE *f, const struct comparison *k);
void zeroshot_sections(FILE *f, const struct comparison *k);

/* The mark of a criterion's line, around x, y; hollow in a group of class "free". */
void series_mark(FILE *f, int64_t criterion, double x, double y);

/* A measure against the ratio. Its ceiling is the largest value that is drawn at its place, see range_ceiling. */
void plot_ratios(FILE *f, const struct comparison *k, struct measure m, bool narrow);
double ratios_ceiling(const struct comparison *k, struct measure m);

/* The scores of a criterion, with what it drops at the ratio. */
void plot_scores(FILE *f, const struct comparison *k, int64_t criterion, int64_t ratio);

/* Criteria x units, filled where dropped at the ratio. */
void plot_drops(FILE *f, const struct comparison *k, int64_t ratio);

#endif
