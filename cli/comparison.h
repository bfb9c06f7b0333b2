/* What `espalier compare` leaves behind, from a comparison whose perplexities and zero-shot scores are filled: a table, the arrays
 * behind the figures, and a page. Each is written whole or not at all. */
#ifndef ESPALIER_CLI_COMPARISON_H
#define ESPALIER_CLI_COMPARISON_H

#include <jansson.h>

#include "prune/compare.h"

/* What a text is that perplexity was measured on, and how much of it counted: of `in_text` tokens the first `used`, and of these,
 * under the protocol, `scored`. */
struct comparison_text {
    const char *sha256, *protocol, *rows;
    int64_t scored, used, in_text;
};

/* Everything is borrowed. Text is UTF-8. A perplexity of NaN was not measured. */
struct comparison_sheet {
    const struct comparison *k;
    const char *title, *model;
    int64_t n_facts;
    const char *const (*facts)[2];         /* [n_facts], name and value: for readers */
    const struct comparison_text *sources; /* [k->n_texts]; NULL: not known, and left out */
    const json_t *record;                  /* for programs: what the root of the HDF5 file says beside the facts; NULL: nothing */
};

/* A row for the intact model, then one a variant; a header, fields quoted as RFC 4180 wants it, lines that end in LF. Accuracies
 * are shares of 1. The protocol and the sources come last, the same in every row. */
int comparison_write_csv(const char *path, const struct comparison_sheet *s, struct err *err);

/* Units are positions in "unit", criteria, ratios, texts and tasks positions in the lists of those names. "tasks" and all
 * "zeroshot..." are there only where tasks were asked for. "text_..." are in
 * the order of "texts". */
int comparison_write_h5(const char *path, const struct comparison_sheet *s, struct err *err);

int comparison_write_html(const char *path, const struct comparison_sheet *s, struct err *err);

#endif
