/* Scoring by several criteria with the options, files and interruptions that commands share: `score` and `compare`. */
#ifndef ESPALIER_CLI_SCORING_H
#define ESPALIER_CLI_SCORING_H

#include "cli/cli.h"
#include "prune/score.h"

enum { MAX_CRITERIA = 16, SCORING_OPTS = 10 };

/* Options that are words before they are checked. */
struct scoring_words {
    const char *unit, *tokens, *weight_reduction, *block_reduction;
};

struct scoring {
    struct score_options o;
    bool resume;
    double save_every; /* seconds between saves of the work so far */
    json_t *options;   /* what decides the scores, by scoring_describe */

    int64_t n;
    const struct criterion *which[MAX_CRITERIA];
    struct scores scores[MAX_CRITERIA];
    char *files[MAX_CRITERIA];   /* where each is written */
    json_t *facts[MAX_CRITERIA]; /* what is recorded with each; NULL for those that were there already */
};

/* Fills SCORING_OPTS entries, the last of them OPT_END, and the defaults. */
void scoring_options(struct opt *table, struct scoring_words *w, struct scoring *g);

/* Checks the options; names: "ppl,taylor", the words of `option`. */
int scoring_check(struct scoring *g, const struct scoring_words *w, const char *option, const char *names, struct err *err);

/* Notes the values of the command's options, from its own table, for the key of the work. */
int scoring_describe(struct scoring *g, const struct opt *own, struct err *err);

/* Scores by every criterion and writes each result to `out` (and, unless NULL, `copy`); with several criteria "s.json" becomes
 * "s-ppl.json" and so on. With g->resume, finished files of the very same work are read instead of made again, and an
 * unfinished one is taken up where it was saved. */
int scoring_run(struct scoring *g, struct cli *cli, const struct session *s, const struct common *o, const struct calibration *cal,
                const char *out, const char *copy, struct err *err);

/* ---- what --resume goes by: a result records the key of the work that it is of ---- */

/* What every result depends on: version, weights, adapter, blocks that run, instruction set, compute mode. A new object to add to;
 * NULL and an error. */
json_t *work_describe(const struct session *s, const struct common *o, struct err *err);

/* What is recorded with a result: session_facts and the key; the words as they were given, but not whether they were said again
 * after an interruption. */
json_t *work_facts(const struct cli *cli, const struct session *s, const struct common *o, const char *key);

/* {"base_ppl", "out"} for --json: a file, or a list of files. */
json_t *scoring_summary(const struct scoring *g);

void scoring_free(struct scoring *g);

#endif
