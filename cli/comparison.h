/* What `espalier compare` leaves behind, from a comparison whose perplexities and zero-shot scores are filled: a table, the arrays
 * behind the figures, and a page. Each is written whole or not at all. */
#ifndef ESPALIER_CLI_COMPARISON_H
#define ESPALIER_CLI_COMPARISON_H

#include "prune/compare.h"

/* Everything is borrowed. Text is UTF-8. A perplexity of NaN was not measured. */
struct comparison_sheet {
    const struct comparison *k;
    const char *title, *model;
    int64_t n_facts;
    const char *const (*facts)[2]; /* [n_facts], name and value */
};

/* A row for the intact model, then one a variant; a header, fields quoted as RFC 4180 wants it, lines that end in LF. Accuracies
 * are shares of 1. */
int comparison_write_csv(const char *path, const struct comparison *k, struct err *err);

/* Units are positions in "unit", criteria, ratios, texts and tasks positions in the lists of those names. "tasks" and all
 * "zeroshot..." are there only where tasks were asked for. */
int comparison_write_h5(const char *path, const struct comparison_sheet *s, struct err *err);

int comparison_write_html(const char *path, const struct comparison_sheet *s, struct err *err);

#endif
