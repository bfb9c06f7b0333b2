/* "How this was made": what a reader of the report needs in order to make it again. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/experiment_recipe.h"
#include "core/base/file.h"

__attribute__((format(printf, 4, 5))) static int add(struct recipe *r, struct err *err, const char *name, const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        return err_set(err, "out of memory");
    r->lines[r->n][0] = name;
    r->lines[r->n][1] = arena_strdup(&r->arena, text, err);
    free(text);
    return r->lines[r->n++][1] ? 0 : -1;
}

static const char *string(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "?";
}

static long long whole(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static double real(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* A word as a shell takes it. */
static const char *quoted(struct recipe *r, const char *s, struct err *err)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:,@%";
    if (*s && s[strspn(s, plain)] == 0)
        return s;
    char *out = arena_alloc(&r->arena, 4 * strlen(s) + 3, 1, err), *o = out;
    if (!out)
        return NULL;
    *o++ = '\'';
    for (; *s; s++) {
        if (*s == '\'')
            o = stpcpy(o, "'\\''");
        else
            *o++ = *s;
    }
    *o++ = '\'';
    *o = 0;
    return out;
}

static int add_texts(struct recipe *r, const struct experiment *e, struct err *err)
{
    for (int64_t i = 0; i < e->n_texts; i++) {
        const json_t *p = e->ppl[INTACT][i];
        if (add(r, err, experiment_text_name(e, i), "%s, protocol %s (BOS: %s), %lld tokens scored; SHA-256 %s", string(p, "text"),
                string(p, "protocol"), string(p, "bos"), whole(p, "tokens_scored"), string(p, "text_sha256")) != 0)
            return -1;
    }
    return 0;
}

static int add_training(struct recipe *r, const struct experiment *e, struct err *err)
{
    const json_t *t = e->train, *o = json_object_get(t, "options");
    if (add(r, err, "retraining data", "%s: %lld rows used, %lld set aside, %lld left out; SHA-256 %s", string(o, "data"),
            whole(t, "rows_used"), whole(t, "rows_set_aside"), whole(t, "rows_left_out"), string(t, "data_sha256")) != 0)
        return -1;
    return add(r, err, "LoRA",
               "rank %lld, alpha %g, dropout %g on %s; learning rate %g, %lld steps of %lld rows, %lld of warm-up; seed %lld",
               whole(o, "rank"), real(o, "alpha"), real(o, "dropout"), string(o, "targets"), real(o, "lr"), whole(t, "steps"),
               whole(o, "batch"), whole(o, "warmup"), whole(t, "seed"));
}

int recipe_of(struct recipe *r, const struct experiment *e, struct err *err)
{
    char sha256[65], date[40] = "";
    time_t now = time(NULL);
    struct tm utc;
    const char *config = quoted(r, e->config_path, err), *out = quoted(r, e->out, err);
    const char *calibration = json_string_value(json_object_get(e->score, "calibration"));
    if (!config || !out || file_sha256(sha256, e->config_path, err) != 0)
        return -1;
    if (gmtime_r(&now, &utc))
        strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &utc);
    if (add(r, err, "again", "espalier run %s --out %s", config, out) != 0 ||
        add(r, err, "configuration", "%s; SHA-256 %s", e->config_path, sha256) != 0 ||
        (calibration && add(r, err, "calibration", "%s; SHA-256 %s; seed %lld", calibration, string(e->score, "calibration_sha256"),
                            whole(e->score, "seed")) != 0) ||
        add_training(r, e, err) != 0 || add_texts(r, e, err) != 0)
        return -1;
    return add(r, err, "report written", "%s, by espalier %s (commit %s)", date, ESPALIER_VERSION,
               e->cli->commit ? e->cli->commit : "unknown");
}

void recipe_free(struct recipe *r)
{
    arena_free(&r->arena);
}
