/* One stage of an experiment: the words of its command line, made of a section of the configuration, and running that command
 * unless what it gave is on record. */
#ifndef ESPALIER_CLI_EXPERIMENT_STAGE_H
#define ESPALIER_CLI_EXPERIMENT_STAGE_H

#include "cli/experiment.h"

struct stage_words {
    char *v[MAX_WORDS];
    int n;
    json_t *inputs; /* files that they name: {path: its identity} */
};

/* Adds a word, or --name with its value (NULL: a flag). Both are copied. */
int stage_word(struct stage_words *w, const char *s, struct err *err);
int stage_option(struct stage_words *w, const char *name, const char *value, struct err *err);

/* Adds the members of a configuration object, which messages call `where`, as options; members named in `skip` (ended by NULL, or
 * NULL) are not. */
int stage_options(struct stage_words *w, struct experiment *e, const char *where, const json_t *obj, const char *const skip[],
                  struct err *err);
void stage_words_free(struct stage_words *w);

/* Notes that a stage begins with these words. *resume: it was begun with the same ones before, and left `state` to go on from. */
int stage_begin(bool *resume, const struct experiment *e, const char *command, const struct stage_words *w, const char *state,
                struct err *err);

/* Runs a command unless its result under the same key is on record, and frees the words; while e->checking it only judges them.
 * *result: a new reference. output: what the stage leaves for later ones, which are then keyed by it; a record without it does not
 * count. again: a flag for running over an earlier run's traces, outside the key. */
int stage_run(json_t **result, struct experiment *e, const char *name, const char *command, struct stage_words *w,
              const char *output, const char *again, struct err *err);

/* `path` as it is seen from here, when it is given relative to the configuration file; malloc'ed, NULL and an error. */
char *experiment_input(const struct experiment *e, const char *path, struct err *err);

/* The path of `name` in the experiment's folder; malloc'ed, NULL and an error. */
char *experiment_output(const struct experiment *e, const char *name, struct err *err);

#endif
