/* `espalier run`: the stages of a configuration file, each the command a user would type, called in this process. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/experiment.h"
#include "core/base/dir.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/place.h"
#include "core/base/record.h"

const char *const model_names[N_MODELS] = {"intact", "pruned", "retrained"};

/* ---- the words of a stage's command line ---- */

struct words {
    char *v[MAX_WORDS];
    int n;
    json_t *inputs; /* files that they name: {path: its identity} */
};

static int word(struct words *w, const char *s, struct err *err)
{
    if (w->n == MAX_WORDS)
        return err_set(err, "too many options for one stage");
    if (!(w->v[w->n] = strdup(s)))
        return err_set(err, "out of memory");
    w->n++;
    return 0;
}

static int option(struct words *w, const char *name, const char *value, struct err *err)
{
    char flag[80];
    snprintf(flag, sizeof flag, "--%s", name);
    return word(w, flag, err) == 0 && (!value || word(w, value, err) == 0) ? 0 : -1;
}

static void words_free(struct words *w)
{
    while (w->n > 0)
        free(w->v[--w->n]);
    json_decref(w->inputs);
    w->inputs = NULL;
}

/* Options that name files; a configuration gives them relative to itself. */
static bool is_path(const char *name)
{
    static const char *const names[] = {"calib", "data", "text", "rows", "tokenizer", "init-adapter"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return strcmp(name, "rows") != 0; /* eval ppl's --rows is a rule, and an experiment trains from --data */
    return false;
}

/* `path` as it is seen from here, when it is given relative to the configuration file. A leading "../" takes the folder before
 * it away, so that results name build/model and not configs/../build/model. */
static char *beside_config(const struct experiment *e, const char *path, struct err *err)
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

static bool is_one_of(const char *name, const char *const names[])
{
    for (int i = 0; names && names[i]; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
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
static int add_input(struct words *w, const struct experiment *e, const char *name, const char *path, struct err *err)
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

/* The members of a configuration object, which messages call `where`, as options; members named in `skip` are not. */
static int options_of(struct words *w, struct experiment *e, const char *where, const json_t *obj, const char *const skip[],
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
        if (text && is_path(name) && !(path = beside_config(e, text, err)))
            return -1;
        int rc = path ? add_input(w, e, name, path, err) : 0;
        if (rc == 0)
            rc = option(w, name, json_is_true(v) ? NULL : path ? path : text ? text : number, err);
        free(path);
        if (rc != 0)
            return -1;
    }
    return 0;
}

/* ---- running a stage, or finding it done ---- */

/* The key of a stage: what came before, the command, its words, and what the files that they name hold. */
static int chain_key(char key[65], const char *before, const char *command, const struct words *w, struct err *err)
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

static char *in_out(const struct experiment *e, const char *name, struct err *err)
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
static int check_stage(const struct experiment *e, const char *command, struct words *w, const char *again, struct err *err)
{
    struct err why = {0};
    if (again && !strcmp(again, "force") && option(w, again, NULL, err) != 0)
        return -1;
    if (command_check(command, w->n, w->v, &why) == 0)
        return 0;
    return err_set(err, "%s: %s: %s", e->config_path, e->where, why.msg);
}

/* Runs a command unless its result under the same key is on record. output: what the stage leaves for later ones, which are
 * then keyed by it; a record without it does not count. again: a flag for running over an earlier run's traces, outside the key. */
static int stage(json_t **result, struct experiment *e, const char *name, const char *command, struct words *w, const char *output,
                 const char *again, struct err *err)
{
    char key[65] = "", file[96];
    char *path = NULL;
    bool stale;
    int rc = -1;
    if (e->checking) {
        rc = check_stage(e, command, w, again, err);
        words_free(w);
        return rc;
    }
    snprintf(file, sizeof file, "stages/%s.json", name);
    if (chain_key(key, e->key, command, w, err) != 0 || !(path = in_out(e, file, err)) ||
        recorded(result, &stale, path, key, output, err) != 0)
        goto done;
    if (*result) {
        e->reused++;
    } else {
        if (!e->cli->quiet)
            fprintf(stderr, "== %s%s\n", name, stale ? " (anew: what it depends on has changed)" : "");
        if ((again && option(w, again, NULL, err) != 0) || command_call(result, e->cli, command, w->n, w->v, err) != 0)
            goto done;
        if (put_on_record(path, key, command, output, *result, err) != 0)
            goto done;
    }
    if (output)
        memcpy(e->key, key, sizeof e->key);
    rc = 0;
done:
    free(path);
    words_free(w);
    return rc;
}

/* ---- the stages ---- */

/* Notes that a stage begins with these words. *resume: it was begun with the same ones before, and left `state` to go on from. */
static int mark_begun(bool *resume, const struct experiment *e, const char *command, const struct words *w, const char *state,
                      struct err *err)
{
    char key[65] = "", file[96];
    *resume = false;
    if (e->checking)
        return 0;
    snprintf(file, sizeof file, "stages/%s.started.json", command);
    char *path = in_out(e, file, err);
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

/* The model to start from is there, and every stage depends on what it holds. */
static int begin_with_model(struct experiment *e, const char *model, struct err *err)
{
    snprintf(e->where, sizeof e->where, "the configuration");
    if (!e->checking)
        return record_content(e->key, model, err);
    return access(model, R_OK) == 0 ? 0 : err_set(err, "%s: \"model\": %s: %s", e->config_path, model, strerror(errno));
}

static int run_score(struct experiment *e, const char *model, struct err *err)
{
    const char *criterion = json_string_value(json_object_get(experiment_section(e, "score"), "criterion"));
    struct words w = {0};
    bool resume;
    char *out = in_out(e, "scores.json", err), *copy = in_out(e, "scores.h5", err), *state = in_out(e, "scores.json.partial", err);
    int rc = -1;
    if (criterion && strchr(criterion, ',')) {
        err_set(err, "%s: \"score\": one criterion was expected, \"%s\" found", e->config_path, criterion);
        goto done;
    }
    if (out && copy && state && word(&w, model, err) == 0 &&
        options_of(&w, e, "score", experiment_section(e, "score"), NULL, err) == 0 && option(&w, "out", out, err) == 0 &&
        option(&w, "copy", copy, err) == 0 && mark_begun(&resume, e, "score", &w, state, err) == 0)
        rc = stage(&e->score, e, "score", "score", &w, out, resume ? "resume" : NULL, err);
done:
    words_free(&w);
    free(out);
    free(copy);
    free(state);
    return rc;
}

static int run_prune(struct experiment *e, const char *model, const char *pruned, struct err *err)
{
    struct words w = {0};
    char *scores = in_out(e, "scores.json", err);
    int rc = scores && word(&w, model, err) == 0 && options_of(&w, e, "prune", experiment_section(e, "prune"), NULL, err) == 0 &&
                     option(&w, "scores", scores, err) == 0 && option(&w, "out", pruned, err) == 0
                 ? stage(&e->prune, e, "prune", "prune", &w, pruned, "force", err)
                 : -1;
    words_free(&w);
    free(scores);
    return rc;
}

static int run_train(struct experiment *e, const char *pruned, const char *adapter, struct err *err)
{
    struct words w = {0};
    bool resume;
    char *state = path_join(adapter, "checkpoint.safetensors", err);
    int rc = state && word(&w, pruned, err) == 0 && options_of(&w, e, "train", experiment_section(e, "train"), NULL, err) == 0 &&
                     option(&w, "out", adapter, err) == 0 && mark_begun(&resume, e, "train", &w, state, err) == 0
                 ? stage(&e->train, e, "train", "train", &w, adapter, resume ? "resume" : "force", err)
                 : -1;
    words_free(&w);
    free(state);
    return rc;
}

static int run_merge(struct experiment *e, const char *pruned, const char *adapter, const char *merged, struct err *err)
{
    struct words w = {0};
    json_t *result = NULL;
    int rc = word(&w, pruned, err) == 0 && option(&w, "adapter", adapter, err) == 0 &&
                     options_of(&w, e, "merge", experiment_section(e, "merge"), NULL, err) == 0 &&
                     option(&w, "out", merged, err) == 0
                 ? stage(&result, e, "merge", "merge", &w, merged, "force", err)
                 : -1;
    words_free(&w);
    json_decref(result);
    return rc;
}

/* Perplexities and samples of one model. */
static int run_evaluation(struct experiment *e, enum which_model which, const char *model, struct err *err)
{
    const json_t *texts = json_object_get(experiment_section(e, "eval"), "texts");
    const json_t *generate = experiment_section(e, "generate"), *prompts = json_object_get(generate, "prompts");
    struct words w = {0};
    char name[64];
    snprintf(name, sizeof name, "inspect-%s", model_names[which]);
    if (word(&w, model, err) != 0 || stage(&e->inspect[which], e, name, "inspect", &w, NULL, NULL, err) != 0)
        goto fail;
    for (int64_t i = 0; i < e->n_texts; i++) {
        char where[32];
        snprintf(name, sizeof name, "ppl-%s-%lld", model_names[which], (long long)i);
        snprintf(where, sizeof where, "eval.texts[%lld]", (long long)i);
        if (word(&w, model, err) != 0 ||
            options_of(&w, e, where, json_array_get(texts, (size_t)i), (const char *const[]){"name", NULL}, err) != 0 ||
            stage(&e->ppl[which][i], e, name, "eval ppl", &w, NULL, NULL, err) != 0)
            goto fail;
    }
    for (int64_t i = 0; i < e->n_prompts; i++) {
        snprintf(name, sizeof name, "generate-%s-%lld", model_names[which], (long long)i);
        if (word(&w, model, err) != 0 || option(&w, "prompt", json_string_value(json_array_get(prompts, (size_t)i)), err) != 0 ||
            options_of(&w, e, "generate", generate, (const char *const[]){"prompts", NULL}, err) != 0 ||
            stage(&e->sample[which][i], e, name, "generate", &w, NULL, NULL, err) != 0)
            goto fail;
    }
    return 0;
fail:
    words_free(&w);
    return -1;
}

/* The figures of each model, with what the stage says of all. */
static int take_speeds(struct experiment *e, const json_t *result, struct err *err)
{
    for (size_t m = INTACT; m <= PRUNED; m++) {
        json_t *own = json_array_get(json_object_get(result, "variants"), m);
        e->speed[m] = json_copy((json_t *)result);
        if (!own || !e->speed[m] || json_object_del(e->speed[m], "variants") != 0 || json_object_update(e->speed[m], own) != 0)
            return err_set(err, "%s: the speeds are not on record as they should be", e->out);
    }
    return 0;
}

/* Speeds are compared in turns and within one file format: the pruned model is the original file without those blocks. */
static int run_speed(struct experiment *e, const char *model, const char *dropped, struct err *err)
{
    const json_t *speed = json_object_get(experiment_section(e, "eval"), "speed");
    struct words w = {0};
    json_t *result = NULL;
    if (!speed)
        return 0;
    int rc = word(&w, model, err) == 0 && option(&w, "drop", "", err) == 0 && option(&w, "drop", dropped, err) == 0 &&
                     options_of(&w, e, "eval.speed", speed, NULL, err) == 0
                 ? stage(&result, e, "speed", "eval speed", &w, NULL, NULL, err)
                 : -1;
    if (rc == 0 && !e->checking)
        rc = take_speeds(e, result, err);
    words_free(&w);
    json_decref(result);
    return rc;
}

/* "5,13.attn,14": what the prune stage dropped. */
static void drop_list(char *text, size_t n, const json_t *dropped)
{
    size_t i, at = 0;
    json_t *v;
    text[0] = 0;
    json_array_foreach(dropped, i, v) {
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
        at += (size_t)snprintf(text + at, at < n ? n - at : 0, "%s%s", i ? "," : "",
                               json_is_string(v) ? json_string_value(v) : number);
    }
}

static int run_stages(struct experiment *e, struct err *err)
{
    const char *given = NULL;
    char *model = NULL, *pruned = in_out(e, "pruned", err), *adapter = in_out(e, "retrain", err),
         *merged = in_out(e, "merged", err);
    char dropped[4096];
    int rc = -1;
    if (!pruned || !adapter || !merged || json_get_string(&given, e->config, "model", e->config_path, err) != 0)
        goto done;
    if (!given) {
        err_set(err, "%s: \"model\" was expected", e->config_path);
        goto done;
    }
    if (!(model = beside_config(e, given, err)) || begin_with_model(e, model, err) != 0 || run_score(e, model, err) != 0 ||
        run_prune(e, model, pruned, err) != 0 || run_train(e, pruned, adapter, err) != 0 ||
        run_merge(e, pruned, adapter, merged, err) != 0)
        goto done;
    drop_list(dropped, sizeof dropped, json_object_get(e->prune, "dropped"));
    if (run_evaluation(e, INTACT, model, err) != 0 || run_evaluation(e, PRUNED, pruned, err) != 0 ||
        run_evaluation(e, RETRAINED, merged, err) != 0 || run_speed(e, model, dropped, err) != 0)
        goto done;
    if (e->checking) {
        rc = 0;
        goto done;
    }
    rc = experiment_write_evaluation(e, err) == 0 ? experiment_write_report(e, err) : -1;
done:
    free(model);
    free(pruned);
    free(adapter);
    free(merged);
    return rc;
}

/* The whole configuration, before anything runs: its sections and keys, then the options by the commands that they are for. */
static int check_config(struct experiment *e, struct err *err)
{
    if (experiment_check_config(e, err) != 0)
        return -1;
    e->checking = true;
    int rc = run_stages(e, err);
    e->checking = false;
    return rc;
}

static void release(struct experiment *e)
{
    json_decref(e->score);
    json_decref(e->prune);
    json_decref(e->train);
    for (int m = 0; m < N_MODELS; m++) {
        json_decref(e->inspect[m]);
        json_decref(e->speed[m]);
        for (int i = 0; i < MAX_TEXTS; i++)
            json_decref(e->ppl[m][i]);
        for (int i = 0; i < MAX_PROMPTS; i++)
            json_decref(e->sample[m][i]);
    }
    json_decref(e->config);
}

/* Parameters and perplexities of the three models. */
static void print_table(FILE *out, const struct experiment *e)
{
    int width[MAX_TEXTS];
    fprintf(out, "%-10s %14s", "", "parameters");
    for (int64_t i = 0; i < e->n_texts; i++)
        width[i] = fprintf(out, "  perplexity, %s", experiment_text_name(e, i));
    for (int m = 0; m < N_MODELS; m++) {
        fprintf(out, "\n%-10s %12.2f M", model_names[m],
                1e-6 * (double)json_integer_value(json_object_get(e->inspect[m], "n_params")));
        for (int64_t i = 0; i < e->n_texts; i++)
            fprintf(out, "%*.2f", width[i], json_real_value(json_object_get(e->ppl[m][i], "ppl")));
    }
    fputc('\n', out);
}

int cmd_run(struct cli *cli, struct err *err)
{
    const char *out = NULL;
    bool resume = false;
    struct opt own[] = {
        {OPT_STRING, "out", &out, "DIR", "folder for everything the experiment makes"},
        {OPT_FLAG, "resume", &resume, NULL, "go on after an interruption (which a plain run does too)"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "CONFIG --out DIR", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (!out)
        return err_usage(err, "run needs --out");
    if (place_check_dir(out, err) != 0)
        return -1;
    struct experiment e = {.cli = cli, .config_path = words.word[0], .out = out, .config = json_read(words.word[0], err)};
    char *stages = path_join(out, "stages", err), *report = path_join(out, "report.html", err);
    rc = e.config && stages && report && check_config(&e, err) == 0 && dir_make(stages, err) == 0 ? run_stages(&e, err) : -1;
    if (rc == 0) {
        cli->result = json_pack("{so sI}", "report", json_text(report), "stages_reused", (json_int_t)e.reused);
        if (cli->out && !cli->json)
            print_table(cli->out, &e);
    }
    free(stages);
    free(report);
    release(&e);
    return rc;
}
