/* Which model an adapter was trained on, and which of its blocks ran: espalier.json, beside PEFT's two files, which know neither. */
#ifndef ESPALIER_MODEL_LORA_BASE_H
#define ESPALIER_MODEL_LORA_BASE_H

#include "core/base/file.h"
#include "core/model/model.h"

/* Writes dir/espalier.json for what of m runs, up to the commit of *w. On failure there is nothing to abort. */
int lora_base_save(struct file_writer *w, const struct model *m, const char *dir, struct err *err);

/* Refuses an adapter that was trained while other blocks ran. A folder without the file, as other programs write it, passes.
 * *other: the weights are others than it was trained on. */
int lora_base_check(bool *other, const struct model *m, const char *dir, struct err *err);

#endif
