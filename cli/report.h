/* The report of an experiment: one HTML file that needs nothing else, no network and no script. */
#ifndef ESPALIER_CLI_REPORT_H
#define ESPALIER_CLI_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/model/unit.h"

struct report_model {
    const char *name;
    int64_t params;      /* 0: not known */
    int64_t n_blocks;    /* 0: not known */
    const double *ppl;   /* [n_texts]; NaN: not measured */
    double decode_tok_s; /* tokens per second; 0: not measured */
    double decode_std;   /* standard deviation over the runs, which took turns with the other models'; 0: not known */
};

/* What is reported. Everything is borrowed; a part whose count is 0 is left out, and so is a NULL string. Text is UTF-8; what
 * is not valid is shown as U+FFFD. */
struct report {
    const char *title;
    const char *subtitle;

    /* ---- block importance ---- */
    const char *criterion;  /* "ppl" */
    const char *score_name; /* what its scores are: "1 - cos(in, out)" */
    int64_t n_blocks;
    const struct unit *unit; /* [n_blocks]: what was scored; NULL: whole blocks from 0 */
    const double *score;     /* [n_blocks]; with base_ppl > 0: perplexity of the model without that block */
    double base_ppl;         /* of the intact model on the same rows; 0: the scores are no perplexities */
    bool even;               /* scores that are places in a list or draws: on a linear scale whatever they span */
    const bool *dropped;     /* [n_blocks], or NULL for none */
    const bool *protected_;  /* [n_blocks], or NULL for none; never up for dropping */
    double cut_swap;         /* probability that the last block dropped and the first one kept would change places; 0: not known */

    /* ---- training; x is the optimizer step, from 1 ---- */
    int64_t n_steps;
    const double *loss; /* [n_steps], nats per target token */
    const double *lr;   /* [n_steps], or NULL */
    int64_t n_evals;
    const int64_t *eval_step; /* [n_evals], 0: before training */
    const double *eval_loss;  /* [n_evals], nats per target token */

    /* ---- evaluation; the first model is what the others are compared with ---- */
    int64_t n_models;
    const struct report_model *models; /* [n_models] */
    int64_t n_texts;
    const char *const *text_names; /* [n_texts] */

    /* ---- samples ---- */
    int64_t n_prompts;
    const char *const *prompts;       /* [n_prompts] */
    const char *const *continuations; /* [n_prompts, n_models]; an entry may be NULL */

    /* ---- how this was made ---- */
    int64_t n_recipe;
    const char *const (*recipe)[2]; /* [n_recipe], name and value */

    /* ---- provenance ---- */
    int64_t n_facts;
    const char *const (*facts)[2]; /* [n_facts], name and value */
};

/* Writes the report to `path`, whole or not at all. */
int report_write(const struct report *r, const char *path, struct err *err);

#endif
