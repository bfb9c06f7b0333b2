/* What the formats' writers share. Nothing outside core/model/save*.c and synth.c includes this. */
#ifndef ESPALIER_MODEL_SAVE_IMPL_H
#define ESPALIER_MODEL_SAVE_IMPL_H

#include <jansson.h>

#include "core/model/manifest.h"
#include "core/model/save.h"

/* One model on its way to the disk. */
struct saving {
    const struct model *m;
    const struct save_options *o;
    const struct manifest *manifest;
    json_t *config; /* for formats that have a config.json */
    const char *path;
    void *writer;             /* the format's own */
    struct file_writer *file; /* the one file that the format writes; NULL where that is a folder */
};

/* A format's writer. open writes everything but the tensors' data, which put then gets in the manifest's order; flush makes it
 * readable under the path that it returns, commit gives it its name. close releases the writer, and removes what has no name
 * yet. */
struct format_writer {
    int (*open)(struct saving *s, struct err *err);
    sink_fn *put; /* arg: the struct saving */
    int (*flush)(struct saving *s, const char **readable, struct err *err);
    int (*commit)(struct saving *s, struct err *err);
    void (*close)(struct saving *s);
};
extern const struct format_writer hf_format, gguf_format, h5_format;

/* Writes what s describes and, where `check` is set, reads it back and compares. */
int saving_write(struct saving *s, const struct compute *c, bool check, struct progress *progress, struct err *err);

/* The config.json of what is saved: the model's own, or a GGUF's description in its terms, with the blocks that stay and the dtypes
 * that are written. A new reference, or NULL and an error. */
json_t *saved_config(const struct model *m, const struct manifest_options *o, struct err *err);

/* Sets the dtypes in a config.json: those of weights, which may be quantised, and of the rest. */
void config_set_dtypes(json_t *root, enum dtype weights, enum dtype rest);

#endif
