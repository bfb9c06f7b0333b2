/* A Hugging Face folder: config.json, the tokenizer's files, safetensors in one file or shards. */
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/safetensors.h"
#include "core/model/save_impl.h"

struct hf {
    struct safetensors_folder files;
};

static int open_hf(struct saving *s, struct err *err)
{
    const struct manifest *p = s->manifest;
    int64_t limit = s->o->shard_bytes ? s->o->shard_bytes : DEFAULT_SHARD * (int64_t)1000000000;
    struct hf *w = s->writer = mem_alloc(1, sizeof *w, err);
    if (!w)
        return -1;
    char *path = path_join(s->path, "config.json", err);
    int rc = path ? json_write(path, s->config, err) : -1;
    if (rc == 0 && s->o->tokenizer)
        rc = tokenizer_save(s->o->tokenizer, s->path, err);
    if (rc == 0)
        rc = safetensors_folder_open(&w->files, s->path, p->entries, p->n, limit, err);
    free(path);
    return rc;
}

static int put_hf(void *arg, int64_t tensor, const void *data, size_t bytes, struct err *err)
{
    (void)tensor;
    struct hf *w = ((struct saving *)arg)->writer;
    return safetensors_folder_put(&w->files, data, bytes, err);
}

/* The folder has a temporary name of its own: its files have theirs before they are compared. */
static int flush_hf(struct saving *s, const char **readable, struct err *err)
{
    struct hf *w = s->writer;
    *readable = s->path;
    return safetensors_folder_commit(&w->files, err);
}

static int commit_hf(struct saving *s, struct err *err)
{
    (void)s, (void)err;
    return 0;
}

static void close_hf(struct saving *s)
{
    struct hf *w = s->writer;
    if (!w)
        return;
    safetensors_folder_abort(&w->files);
    free(w);
}

const struct format_writer hf_format = {open_hf, put_hf, flush_hf, commit_hf, close_hf};
