/* LoRA retraining on token rows: the recipe of Shortened LLaMA (lora_retrain.py), without padding. */
#ifndef ESPALIER_TRAIN_TRAINER_H
#define ESPALIER_TRAIN_TRAINER_H

#include <jansson.h>

#include "core/base/progress.h"
#include "core/model/backprop.h"
#include "data/instructions.h"

struct train_options {
    double lr, clip;
    int64_t epochs, steps; /* steps > 0 overrides epochs */
    int64_t batch, micro_batch, cutoff, warmup;
    int64_t eval_every, save_every, keep; /* steps; 0 = never; keep: how many checkpoint folders stay */
    bool shuffle;
    bool token_average; /* loss = mean over the tokens of a step; else mean of the micro-batches' means, as published */
    uint64_t seed;
    enum backprop_memory memory;
    bool resume;
    const json_t *work; /* what the training is of: checkpoints carry it, and only the same training goes on from them */
};

struct train_result {
    int64_t steps, rows, tokens;
    double first_loss, last_loss, eval_loss; /* NaN where there is none */
    json_t *warnings;                        /* array of strings; NULL: none; the caller's, after an error too */
    double seconds, flops;                   /* of the training steps: wall time, and arithmetic done by count */
};

/* Whether the options make sense together; train_lora asks this first. */
int train_check(const struct train_options *o, struct err *err);

/* Trains l (whose gradients must be there) on train, evaluates on eval (may be empty), writes into the folder `dir`:
 * train.jsonl as it goes, checkpoint.safetensors and checkpoint-N/, best/ for the lowest evaluation loss, and at the end the
 * adapter itself and train.h5. With resume, goes on from checkpoint.safetensors and ends with the same bytes. */
int train_lora(struct train_result *r, struct lora_set *l, const struct model *m, const struct compute *c,
               const struct instructions *train, const struct instructions *eval, const struct train_options *o, const char *dir,
               const json_t *facts, struct progress *progress, struct err *err);

#endif
