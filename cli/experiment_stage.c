#include "cli/experiment_stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/record.h"

/* ---- the words of a stage's command line ---- */

int stage_word(struct stage_words *w, const char *s, struct err *err)
{
    if (w->n == MAX_WORDS)
        return err_set(err, "too many options for one stage");
    if (!(w->v[w->n] = strdup(s)))
        return err_set(err, "out of memory");
    w->n++;
    return 0;
}

int stage_option(struct stage_words *w, const char *name, const char *value, struct err *err)
{
    char flag[80];
    snprintf(flag, sizeof flag, "--%s", name);
    return stage_word(w, flag, err) == 0 && (!value || stage_word(w, value, err) == 0) ? 0 : -1;
}

void stage_words_free(struct stage_words *w)
{
    while (w->n > 0)
        free(w->v[--w->n]);
    json_decref(w->inputs);
    w->inputs = NULL;
}

static bool is_one_of(const char *name, const char *const names[])
{
    for (int i = 0; names && names[i]; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

/* Options that name files; a configuration gives them relative to itself. */
static bool is_path(const char *name)
{
    static const char *const names[] = {"calib", "data", "text", "tokenizer", "init-adapter", NULL};
    return is_one_of(name, names); /* not --rows: eval ppl's is a rule, and an experiment trains from --data */
}

/* A leading "../" takes the folder before it away, so that results name build/model and not configs/../build/model. */
char *experiment_input(const struct experiment *e, const char *path, struct err *err)
{
    const char *file = path_base(e->config_path);
    int keep = *path == '/' ? 0 : (int)(file - e->config_path); /* bytes of the folder's name, with its slash */
    char *joined;
    while (keep > 0 && !strncmp(path, "../", 3)) {
        int up = keep - 1;
        while (up > 0 && e->config_path[up - 1] != '/')
            up--;
        if (e->config_path[up] == '.' || e->config_path[up] == '/')
            break;
        keep = up;
        path += 3;
    }
    if (asprintf(&joined, "%.*s%s", keep, e->config_path, path) < 0) {
        err_set(err, "out of memory");
        return NULL;
    }
    return joined;
}

/* What run itself says to every stage, or what is no stage's business. */
static int check_key(const struct experiment *e, const char *name, struct err *err)
{
    static const char *const reserved[] = {"out", "copy", "scores", "prompt", "resume", "force", "json", "quiet", "help", NULL};
    if (is_one_of(name, reserved))
        return err_set(err, "%s: %s: \"%s\" is not for a configuration: run says it itself", e->config_path, e->where, name);
    return 0;
}

/* A file that an option names is there, and a stage depends on what it holds. */
static int add_input(struct stage_words *w, const struct experiment *e, const char *name, const char *path, struct err *err)
{
    char content[65];
    if (!e->checking) {
        /* all of a data file counts; a sample of a folder's large ones must do */
        if ((path_is_dir(path) ? record_content : file_sha256)(content, path, err) != 0)
            return -1;
        if (!w->inputs)
            w->inputs = json_object();
        json_t *key = json_text(path);
        int rc = key ? json_object_set_new(w->inputs, json_string_value(key), json_string(content)) : -1;
        json_decref(key);
        return rc == 0 ? 0 : err_set(err, "out of memory");
    }
    if (access(path, R_OK) == 0)
        return 0;
    return err_set(err, "%s: %s: \"%s\": %s: %s", e->config_path, e->where, name, path, strerror(errno));
}

int stage_options(struct stage_words *w, struct experiment *e, const char *where, const json_t *obj, const char *const skip[],
                  struct err *err)
{
    const char *name;
    json_t *v;
    snprintf(e->where, sizeof e->where, "%s", where);
    json_object_foreach((json_t *)obj, name, v) {
        if (is_one_of(name, skip))
            continue;
        if (check_key(e, name, err) != 0)
            return -1;
        char number[40] = "", *path = NULL;
        const char *text = json_string_value(v);
        if (json_is_integer(v))
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
        else if (json_is_real(v))
            snprintf(number, sizeof number, "%.17g", json_real_value(v));
        else if (!text && !json_is_boolean(v))
            return err_set(err, "%s: %s: \"%s\": a string, a number, true or false was expected", e->config_path, e->where, name);
        if (json_is_false(v))
            continue;
        if (text && is_path(name) && !(path = experiment_input(e, text, err)))
            return -1;
        int rc = path ? add_input(w, e, name, path, err) : 0;
        if (rc == 0)
            rc = stage_option(w, name, json_is_true(v) ? NULL : path ? path : text ? text : number, err);
        free(path);
        if (rc != 0)
            return -1;
    }
    return 0;
}

/* ---- running a stage, or finding it done ---- */

/* The key of a stage: what came before, the command, its words, and what the files that they name hold. */
static int chain_key(char key[65], const char *before, const char *command, const struct stage_words *w, struct err *err)
{
    json_t *list = json_array();
    for (int i = 0; i < w->n; i++)
        json_array_append_new(list, json_text(w->v[i]));
    json_t *work = json_pack("{ss ss ss so sO*}", "version", ESPALIER_VERSION, "before", before, "command", command, "words", list,
                             "inputs", w->inputs);
    int rc = work && json_array_size(list) == (size_t)w->n ? record_key(key, work, err) : err_set(err, "out of memory");
    json_decref(work);
    return rc;
}

char *experiment_output(const struct experiment *e, const char *name, struct err *err)
{
    return path_join(e->out, name, err);
}

/* The recorded result of a stage with this key whose output, if it has one, is still what it left; NULL where there is none. A
 * record that cannot be read is an error. *stale: there is one, but of other work. */
static int recorded(json_t **result, bool *stale, const char *path, const char *key, const char *output, struct err *err)
{
    char content[65] = "";
    int there = path_status(path, err), has_output = output && there > 0 ? path_status(output, err) : 0;
    *result = NULL;
    *stale = false;
    if (there <= 0 || has_output < 0)
        return has_output < 0 ? -1 : there;
    if (has_output && record_content(content, output, err) != 0)
        return -1;
    json_t *root = json_read(path, err);
    const char *was = json_string_value(json_object_get(root, "key")), *left = json_string_value(json_object_get(root, "output"));
    *stale = !was || strcmp(was, key) || strcmp(left ? left : "", content);
    if (!*stale)
        *result = json_incref(json_object_get(root, "result"));
    json_decref(root);
    return root ? 0 : -1;
}

/* Puts a finished stage on record. */
static int put_on_record(const char *path, const char *key, const char *command, const char *output, json_t *result,
                         struct err *err)
{
    char content[65] = "";
    if (output && record_content(content, output, err) != 0)
        return -1;
    json_t *record = json_pack("{ss ss ss sO}", "key", key, "command", command, "output", content, "result", result);
    int rc = record ? json_write(path, record, err) : err_set(err, "out of memory");
    json_decref(record);
    return rc;
}

/* Judges the words of a stage as its command does, and says which part of the configuration they come from. */
static int check_stage(const struct experiment *e, const char *command, struct stage_words *w, const char *again, struct err *err)
{
    struct err why = {0};
    if (again && !strcmp(again, "force") && stage_option(w, again, NULL, err) != 0)
        return -1;
    if (command_check(command, w->n, w->v, &why) == 0)
        return 0;
    return err_set(err, "%s: %s: %s", e->config_path, e->where, why.msg);
}

int stage_run(json_t **result, struct experiment *e, const char *name, const char *command, struct stage_words *w,
              const char *output, const char *again, struct err *err)
{
    char key[65] = "", file[96];
    char *path = NULL;
    bool stale;
    int rc = -1;
    if (e->checking) {
        rc = check_stage(e, command, w, again, err);
        stage_words_free(w);
        return rc;
    }
    snprintf(file, sizeof file, "stages/%s.json", name);
    if (chain_key(key, e->key, command, w, err) != 0 || !(path = experiment_output(e, file, err)) ||
        recorded(result, &stale, path, key, output, err) != 0)
        goto done;
    if (*result) {
        e->reused++;
    } else {
        if (!e->cli->quiet)
            fprintf(stderr, "== %s%s\n", name, stale ? " (anew: what it depends on has changed)" : "");
        if ((again && stage_option(w, again, NULL, err) != 0) || command_call(result, e->cli, command, w->n, w->v, err) != 0)
            goto done;
        if (put_on_record(path, key, command, output, *result, err) != 0)
            goto done;
    }
    if (output)
        memcpy(e->key, key, sizeof e->key);
    rc = 0;
done:
    free(path);
    stage_words_free(w);
    return rc;
}

int stage_begin(bool *resume, const struct experiment *e, const char *command, const struct stage_words *w, const char *state,
                struct err *err)
{
    char key[65] = "", file[96];
    *resume = false;
    if (e->checking)
        return 0;
    snprintf(file, sizeof file, "stages/%s.started.json", command);
    char *path = experiment_output(e, file, err);
    if (!path)
        return -1;
    json_t *same = NULL, *mark = NULL;
    bool stale;
    int rc = -1, there = path_status(state, err);
    if (there >= 0 && chain_key(key, e->key, command, w, err) == 0 && recorded(&same, &stale, path, key, NULL, err) == 0 &&
        (mark = json_pack("{ss ss sb}", "key", key, "output", "", "result", 1)))
        rc = json_write(path, mark, err);
    *resume = same && there;
    json_decref(same);
    json_decref(mark);
    free(path);
    return rc;
}
