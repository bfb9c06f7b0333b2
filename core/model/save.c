#include "core/model/save.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/file.h"
#include "core/model/save_impl.h"

#define BIT(t) (1u << DTYPE_##t)

const struct format_traits format_table[FORMAT_COUNT] = {
    [FORMAT_HF] = {"hf", NULL, BIT(F32) | BIT(F16) | BIT(BF16) | BIT(F8_E4M3)},
    [FORMAT_GGUF] = {"gguf", ".gguf", BIT(F32) | BIT(F16) | BIT(BF16) | BIT(Q8_0) | BIT(Q4_0) | BIT(Q4_1)},
    [FORMAT_H5] = {"h5", ".h5", BIT(F32) | BIT(F16) | BIT(BF16) | BIT(F8_E4M3)},
};
static const struct format_writer *const writers[FORMAT_COUNT] = {&hf_format, &gguf_format, &h5_format};

int format_from_name(const char *name)
{
    for (int f = 0; f < FORMAT_COUNT; f++)
        if (!strcmp(name, format_table[f].name))
            return f;
    return -1;
}

enum dtype model_save_dtype(const struct model *m, enum model_format format)
{
    enum dtype t = m->blocks[0].proj[PROJ_GATE].dtype;
    return format_table[format].dtypes >> t & 1 ? t : DTYPE_F16;
}

/* How the model's tensors are written in the format and dtype asked for. */
static struct manifest_options how_to_write(const struct model *m, const struct save_options *o)
{
    bool gguf = o->format == FORMAT_GGUF;
    struct manifest_options how = {.dtype = o->dtype, .keep = o->keep, .kept = format_table[o->format].dtypes, .pairs = gguf};
    how.names = gguf ? &gguf_names : &hf_names;
    how.lora = o->lora;
    how.rest = o->dtype;
    if (gguf)
        how.rest = DTYPE_F32; /* llama.cpp multiplies by norms in f32 only */
    else if (o->dtype == DTYPE_F8_E4M3)
        how.rest = m->embed.dtype < DTYPE_F8_E4M3 ? m->embed.dtype : DTYPE_F16;
    return how;
}

/* ---- reading back ---- */

struct check {
    const struct manifest *manifest;
    const struct source *src;
    int64_t tensor;
    size_t at;
};

static int check_sink(void *arg, int64_t tensor, const void *data, size_t bytes, struct err *err)
{
    struct check *k = arg;
    const char *name = k->manifest->items[tensor].name;
    const struct tensor *t = source_find(k->src, name);
    if (tensor != k->tensor) {
        k->tensor = tensor;
        k->at = 0;
    }
    if (!t || k->at + bytes > t->bytes || memcmp(t->data + k->at, data, bytes))
        return err_set(err, "reading back what was written: tensor %s differs", name);
    source_advise(k->src, t->data + k->at, bytes, MADV_DONTNEED);
    k->at += bytes;
    return 0;
}

static bool same_ends(const struct tokenizer_ends *a, const struct tokenizer_ends *b)
{
    bool same = a->n == b->n;
    for (int i = 0; i < a->n && same; i++)
        same = tokenizer_is_end(b, a->id[i]);
    return same;
}

/* The tokenizer that was written gives the same ids. */
static int check_tokenizer(const struct tokenizer *t, const char *path, struct err *err)
{
    static const char text[] = "The quick brown fox; 1234 + 56.7 = x?\n\tif (a) { return  b; }\n\n  na\xC3\xAFve "
                               "\xE6\xBC\xA2\xE5\xAD\x97 \xF0\x9F\x99\x82";
    enum { LONGEST_RUN = 48 };
    char runs[LONGEST_RUN * (LONGEST_RUN + 3) / 2]; /* of blanks */
    size_t n = 0;
    struct tokenizer *back;
    struct ids want = {0}, got = {0};
    int rc = -1;
    for (int i = 1; i <= LONGEST_RUN; i++) {
        memset(runs + n, ' ', (size_t)i);
        runs[n + (size_t)i] = 'a';
        n += (size_t)i + 1;
    }
    if (tokenizer_open(&back, path, err) != 0)
        return -1;
    if (tokenizer_encode(&want, t, text, sizeof text - 1, err) != 0 || tokenizer_encode(&want, t, runs, n, err) != 0 ||
        tokenizer_encode(&got, back, text, sizeof text - 1, err) != 0 || tokenizer_encode(&got, back, runs, n, err) != 0)
        goto done;
    if (got.n != want.n || memcmp(got.ids, want.ids, got.n * sizeof *got.ids) || tokenizer_bos(t) != tokenizer_bos(back) ||
        tokenizer_eos(t) != tokenizer_eos(back) || !same_ends(tokenizer_ends(t), tokenizer_ends(back)))
        err_set(err, "%s: reading back what was written: the tokenizer is another one", path);
    else
        rc = 0;
done:
    free(want.ids);
    free(got.ids);
    tokenizer_free(back);
    return rc;
}

static int check_sizes(const struct model *written, const struct saving *s, struct err *err)
{
    if (written->src.n_tensors == s->manifest->n && written->cfg.n_blocks == s->m->n_order &&
        model_params(written) == model_params(s->m))
        return 0;
    return err_set(err, "%s: reading back what was written: %lld blocks and %lld parameters were expected, %lld and %lld found",
                   s->path, (long long)s->m->n_order, (long long)model_params(s->m), (long long)written->cfg.n_blocks,
                   (long long)model_params(written));
}

static int read_back(const struct saving *s, const struct compute *c, const char *path, struct progress *progress, struct err *err)
{
    struct model written;
    if (model_open(&written, path, err) != 0)
        return -1;
    struct check check = {.manifest = s->manifest, .src = &written.src, .tensor = -1};
    progress_begin(progress, "checking", s->manifest->bytes >> 20, "MiB");
    int rc = check_sizes(&written, s, err);
    if (rc == 0)
        rc = manifest_produce(s->manifest, c, check_sink, &check, progress, err);
    if (rc == 0 && s->o->tokenizer)
        rc = check_tokenizer(s->o->tokenizer, path, err);
    if (rc == 0)
        progress_end(progress);
    model_close(&written);
    return rc;
}

/* ---- */

int saving_write(struct saving *s, const struct compute *c, bool check, struct progress *progress, struct err *err)
{
    enum { PER_TENSOR = 512, AROUND = 1 << 16 }; /* bytes of a tensor's description, and of the model's, at a guess */
    const struct format_writer *f = writers[s->o->format];
    const char *readable;
    int rc = -1;
    if (disk_check(s->path, s->manifest->bytes + s->manifest->n * PER_TENSOR + AROUND, err) != 0 || f->open(s, err) != 0)
        goto done;
    double started = clock_seconds();
    progress_begin(progress, "writing", s->manifest->bytes >> 20, "MiB");
    if (manifest_produce(s->manifest, c, f->put, s, progress, err) != 0 || f->flush(s, &readable, err) != 0)
        goto done;
    progress_end(progress);
    double written = clock_seconds();
    if (check && read_back(s, c, readable, progress, err) != 0)
        goto done;
    double checked = clock_seconds();
    if (s->file)
        s->file->before = s->o->beside;
    if (f->commit(s, err) != 0)
        goto done;
    if (s->o->told)
        *s->o->told = (struct save_told){s->manifest->bytes, clock_seconds() - checked + written - started, checked - written};
    rc = 0;
done:
    f->close(s);
    return rc;
}

int model_save(const struct model *m, const struct compute *c, const char *path, const struct save_options *o,
               struct progress *progress, struct err *err)
{
    struct manifest_options how = how_to_write(m, o);
    struct manifest p = {0};
    struct saving s = {.m = m, .o = o, .manifest = &p, .path = path};
    int rc = -1;
    if (!(format_table[o->format].dtypes >> o->dtype & 1))
        return err_set(err, "%s: the format %s has no %s", path, format_table[o->format].name, dtype_table[o->dtype].name);
    if (manifest_make(&p, m, &how, err) != 0)
        return -1;
    if (p.fallbacks)
        progress_say(progress, "%lld weights are in f16: their rows do not divide into blocks of %u", (long long)p.fallbacks,
                     dtype_table[o->dtype].block);
    if (o->format != FORMAT_GGUF && !(s.config = saved_config(m, &how, err)))
        goto done;
    rc = saving_write(&s, c, true, progress, err);
done:
    json_decref(s.config);
    manifest_free(&p);
    return rc;
}
