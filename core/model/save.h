/* Writing a model as a Hugging Face folder that any loader takes: contiguous block numbers, a fitting config.json. */
#ifndef ESPALIER_MODEL_SAVE_H
#define ESPALIER_MODEL_SAVE_H

#include "core/base/progress.h"
#include "core/io/tokenizer.h"
#include "core/model/lora.h"
#include "core/model/model.h"

struct save_options {
    enum dtype dtype;                  /* f32, f16 or bf16 */
    const struct lora_set *lora;       /* merged in as W + scale B A; or NULL */
    const struct tokenizer *tokenizer; /* its files are written too; or NULL */
};

/* Writes the blocks of m's order, and everything around them, into `dir`, which must exist. Then opens the result and compares
 * it, byte for byte, with what was meant. A weight that is not finite is an error. */
int model_save(const struct model *m, const struct compute *c, const char *dir, const struct save_options *o,
               struct progress *progress, struct err *err);

/* The dtype to save in when none is asked for: the model's own if it is a float format, else f16. */
enum dtype model_save_dtype(const struct model *m);

#endif
