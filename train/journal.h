/* What a training leaves on disk: train.jsonl line by line, the state to resume from, and the curves in HDF5. */
#ifndef ESPALIER_TRAIN_JOURNAL_H
#define ESPALIER_TRAIN_JOURNAL_H

#include <jansson.h>

#include "core/model/lora.h"
#include "train/adamw.h"

/* Cuts train.jsonl behind the last line of step `step` (0: empties it) and opens it for appending. */
int journal_open(FILE **out, const char *dir, int64_t step, struct err *err);

/* Appends one line to the journal of `dir` and hands it to the system at once. Takes the reference. */
int journal_put(FILE *f, const char *dir, json_t *line, struct err *err);

/* train.h5 from train.jsonl: step, loss, grad_norm, lr, tokens_per_s, micro_losses [steps, micro], eval/step, eval/loss. */
int journal_to_h5(const char *dir, const json_t *facts, struct err *err);

/* The whole state after `step` steps, in one file: adapter, moments, step, best evaluation loss. */
int state_save(const char *dir, const struct lora_set *l, const struct adamw *o, double best, const json_t *work, struct err *err);

/* Reads it back. A state that was saved with another `work`, a description of what the training is of, is an error that names what
 * differs; NULL is not compared. */
int state_load(const char *dir, struct lora_set *l, struct adamw *o, double *best, const json_t *work, struct err *err);

#endif
