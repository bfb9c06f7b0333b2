/* An HDF5 file of ours: see core/io/h5_model.h. */
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/io/h5_model.h"
#include "core/model/save_impl.h"

struct h5 {
    struct h5_model_writer file;
};

static int put_file(void *arg, const char *name, const void *data, size_t n, struct err *err)
{
    return h5_model_put_file(arg, name, data, n, err);
}

static int open_h5(struct saving *s, struct err *err)
{
    const struct manifest *p = s->manifest;
    struct h5 *w = s->writer = mem_alloc(1, sizeof *w, err);
    if (!w)
        return -1;
    char *config = json_pretty(s->config);
    int rc = config ? h5_model_writer_open(&w->file, s->path, config, err) : err_set(err, "%s: out of memory", s->path);
    free(config);
    s->file = &w->file.h5.out;
    if (rc == 0 && s->o->tokenizer)
        rc = tokenizer_files(s->o->tokenizer, put_file, &w->file, err);
    return rc == 0 ? h5_model_tensors(&w->file, p->entries, p->n, err) : -1;
}

static int put_h5(void *arg, int64_t tensor, const void *data, size_t bytes, struct err *err)
{
    (void)tensor;
    struct h5 *w = ((struct saving *)arg)->writer;
    return h5_model_put(&w->file, data, bytes, err);
}

static int flush_h5(struct saving *s, const char **readable, struct err *err)
{
    struct h5 *w = s->writer;
    *readable = w->file.h5.out.tmp;
    return h5_model_flush(&w->file, err);
}

static int commit_h5(struct saving *s, struct err *err)
{
    struct h5 *w = s->writer;
    return h5_model_commit(&w->file, err);
}

static void close_h5(struct saving *s)
{
    struct h5 *w = s->writer;
    if (!w)
        return;
    h5_model_abort(&w->file);
    free(w);
}

const struct format_writer h5_format = {open_h5, put_h5, flush_h5, commit_h5, close_h5};
