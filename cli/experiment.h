/* An experiment: the stages of one configuration file, what they produced, and where it lies. */
#ifndef ESPALIER_CLI_EXPERIMENT_H
#define ESPALIER_CLI_EXPERIMENT_H

#include "cli/cli.h"

enum { MAX_WORDS = 96, MAX_TEXTS = 8, MAX_PROMPTS = 16, N_MODELS = 3 };

/* The three models of an experiment, in the order they come about. */
enum which_model { INTACT, PRUNED, RETRAINED };

struct experiment {
    const struct cli *cli;
    const char *config_path;
    const char *out;
    json_t *config;
    char key[65];   /* chain of hashes over the stages so far: a stage is reused only if all before it were the same */
    int64_t reused; /* stages that were done already */
    bool checking;  /* the stages' words are judged, nothing is run */
    char where[80]; /* the part of the configuration that the words of a stage come from, for messages: "train" */

    json_t *score, *prune, *train; /* results of the stages */
    json_t *inspect[N_MODELS];
    int64_t n_texts, n_prompts;
    json_t *ppl[N_MODELS][MAX_TEXTS];
    json_t *speed[N_MODELS]; /* NULL where not measured; in turns */
    json_t *sample[N_MODELS][MAX_PROMPTS];
};

/* A section of the configuration, or NULL. */
const json_t *experiment_section(const struct experiment *e, const char *name);

/* Sections and keys that nobody reads are errors; counts texts and prompts. The options in them are not looked at. */
int experiment_check_config(struct experiment *e, struct err *err);

/* What text i is called. */
const char *experiment_text_name(const struct experiment *e, int64_t i);

/* evaluation.json and evaluation.h5 in the experiment's folder. */
int experiment_write_evaluation(const struct experiment *e, struct err *err);

/* report.html in the experiment's folder, from the results and the curves on disk. */
int experiment_write_report(const struct experiment *e, struct err *err);

extern const char *const model_names[N_MODELS]; /* "intact", "pruned", "retrained" */

#endif
