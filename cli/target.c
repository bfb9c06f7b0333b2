/* Writing a session's model where and how the command line says. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "core/base/dir.h"
#include "core/base/file.h"
#include "core/base/place.h"

int parse_bytes(int64_t *bytes, const char *option, const char *text, struct err *err)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1},        {"KB", 1e3},    {"MB", 1e6},      {"GB", 1e9},      {"K", 1 << 10},
                 {"M", 1 << 20}, {"G", 1 << 30}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
    char *end;
    double n = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (end > text && !strcmp(end, units[i].unit) && n * units[i].bytes >= 1 && n * units[i].bytes < 1e18) {
            *bytes = (int64_t)(n * units[i].bytes);
            return 0;
        }
    return err_usage(err, "--%s %s: a size such as 500MB or 3G was expected", option, text);
}

/* A target, read. */
struct plan {
    enum model_format format;
    int dtype; /* -1: each weight's own */
    int64_t shard_bytes;
    bool file; /* out is a file */
};

static int read_target(struct plan *p, const struct target *t, struct err *err)
{
    *p = (struct plan){.format = FORMAT_HF, .dtype = -1};
    for (int f = 0; !t->format && f < FORMAT_COUNT; f++)
        if (format_table[f].suffix && path_has_suffix(t->out, format_table[f].suffix))
            p->format = (enum model_format)f;
    if (t->format) {
        int f = format_from_name(t->format);
        if (f < 0)
            return err_usage(err, "--format %s: hf, gguf or h5 was expected", t->format);
        p->format = (enum model_format)f;
    }
    const struct format_traits *format = &format_table[p->format];
    p->file = format->suffix && path_has_suffix(t->out, format->suffix);
    if (t->dtype) {
        p->dtype = dtype_from_name(t->dtype);
        if (p->dtype < 0 || !(format->dtypes >> p->dtype & 1))
            return err_usage(err, "--dtype %s: the format %s has f32, f16, bf16%s", t->dtype, format->name,
                             p->format == FORMAT_GGUF ? ", q8_0, q4_0 and q4_1" : " and f8_e4m3");
    }
    if (t->shard_size && p->format != FORMAT_HF)
        return err_usage(err, "--shard-size %s: a model in the format %s is one file", t->shard_size, format->name);
    return t->shard_size ? parse_bytes(&p->shard_bytes, "shard-size", t->shard_size, err) : 0;
}

/* A name that ends like a file of another format says something else than --format. */
static int check_ending(const struct plan *p, const struct target *t, struct err *err)
{
    for (int f = 0; f < FORMAT_COUNT; f++)
        if (f != (int)p->format && format_table[f].suffix && path_has_suffix(t->out, format_table[f].suffix))
            return err_usage(err, "--format %s and the ending of %s contradict each other", t->format, t->out);
    return 0;
}

static int check_file(const struct target *t, struct err *err)
{
    struct stat st;
    int there = path_status(t->out, err);
    if (there <= 0)
        return there;
    if (!t->force)
        return err_set(err, "%s: exists already (--force replaces it)", t->out);
    if (stat(t->out, &st) != 0)
        return err_errno(err, "%s", t->out);
    return S_ISREG(st.st_mode) ? 0 : err_set(err, "%s: a regular file was expected, which a model can be read back from", t->out);
}

int target_check(const struct target *t, struct err *err)
{
    struct plan p;
    if (read_target(&p, t, err) != 0 || check_ending(&p, t, err) != 0)
        return -1;
    if (!p.file)
        return dir_writer_check(t->out, t->force, err) == 0 ? place_check_dir(t->out, err) : -1;
    return check_file(t, err) == 0 ? place_check_file(t->out, err) : -1;
}

/* out is a folder: everything goes to a temporary one first. */
static int save_folder(struct session *s, struct cli *cli, const struct target *t, const struct save_options *o, const char *name,
                       also_write_fn *also_write, void *arg, struct err *err)
{
    struct dir_writer dir;
    struct file_writer file;
    int rc = -1;
    if (dir_writer_open(&dir, t->out, t->force, err) != 0)
        return -1;
    const struct format_traits *format = &format_table[o->format];
    char inner[32], *model = NULL, *also = also_write ? path_join(dir.tmp, name, err) : NULL;
    snprintf(inner, sizeof inner, "model%s", format->suffix ? format->suffix : "");
    model = format->suffix ? path_join(dir.tmp, inner, err) : strdup(dir.tmp);
    if (model && model_save(&s->m, &s->c, model, o, &cli->progress, err) == 0)
        rc = !also_write ? 0 : also && also_write(&file, arg, also, err) == 0 ? file_writer_commit(&file, err) : -1;
    free(model);
    free(also);
    if (rc == 0)
        return dir_writer_commit(&dir, err);
    dir_writer_abort(&dir);
    return -1;
}

/* out is a file: what goes beside it is written first, and gets its name when the model does. */
static int save_file(struct session *s, struct cli *cli, const struct target *t, const struct save_options *o, const char *name,
                     also_write_fn *also_write, void *arg, struct err *err)
{
    struct file_writer beside = {0};
    struct save_options with = *o;
    char *path = NULL;
    if (check_file(t, err) != 0)
        return -1;
    if (!also_write)
        return model_save(&s->m, &s->c, t->out, o, &cli->progress, err);
    if (asprintf(&path, "%.*s.%s", (int)(strlen(t->out) - strlen(format_table[o->format].suffix)), t->out, name) < 0)
        return err_set(err, "out of memory");
    with.beside = &beside;
    int rc = also_write(&beside, arg, path, err);
    if (rc == 0)
        rc = model_save(&s->m, &s->c, t->out, &with, &cli->progress, err);
    file_writer_abort(&beside); /* nothing to do where it was committed */
    free(path);
    return rc;
}

int session_save(struct session *s, struct cli *cli, const struct target *t, const char *name, also_write_fn *also_write, void *arg,
                 struct err *err)
{
    struct plan p;
    if (read_target(&p, t, err) != 0)
        return -1;
    struct save_options o = {.format = p.format,
                             .dtype = p.dtype >= 0 ? (enum dtype)p.dtype : model_save_dtype(&s->m, p.format),
                             .keep = p.dtype < 0,
                             .shard_bytes = p.shard_bytes,
                             .lora = s->adapter,
                             .tokenizer = s->t,
                             .told = &s->saved};
    return (p.file ? save_file : save_folder)(s, cli, t, &o, name, also_write, arg, err);
}
