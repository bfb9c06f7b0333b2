/* Instruction data: Alpaca rows to token rows with the prompt masked, as the published retraining script makes them. */
#ifndef ESPALIER_DATA_INSTRUCTIONS_H
#define ESPALIER_DATA_INSTRUCTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/io/tokenizer.h"

enum { LABEL_NONE = -100 };

/* One training row. label[i] is ids[i] where position i is to be learnt (predicted from position i - 1), else LABEL_NONE. */
struct instruction_row {
    int32_t *ids, *labels;
    int64_t n;
};

struct instructions {
    struct instruction_row *rows;
    int64_t n;
    int64_t skipped; /* rows left out because nothing in them could be learnt */
};

/* Reads a JSON array of {"instruction", "input", "output"} (or .jsonl of the same). The prompt is tokenised with the answer and
 * cut to `cutoff` tokens, EOS is appended where there is room; labels are masked over as many tokens as the prompt alone has,
 * unless train_on_inputs. (tloen/alpaca-lora's template and rules, as used by Shortened LLaMA's lora_retrain.py.) */
int instructions_read(struct instructions *d, const char *path, const struct tokenizer *t, int64_t cutoff, bool train_on_inputs,
                      struct err *err);

/* Reads ready rows: a JSON array of {"ids": [...], "labels": [...]}. Rows longer than cutoff are cut. */
int instructions_read_rows(struct instructions *d, const char *path, int64_t cutoff, struct err *err);

void instructions_free(struct instructions *d);

#endif
