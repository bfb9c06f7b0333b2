/* `espalier run`: the stages of a configuration file, each the command a user would type, called in this process. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/experiment_stage.h"
#include "core/base/dir.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/place.h"
#include "core/base/record.h"

const char *const model_names[N_MODELS] = {"intact", "pruned", "retrained"};

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
    struct stage_words w = {0};
    bool resume;
    char *out = experiment_output(e, "scores.json", err), *copy = experiment_output(e, "scores.h5", err),
         *state = experiment_output(e, "scores.json.partial", err);
    int rc = -1;
    if (criterion && strchr(criterion, ',')) {
        err_set(err, "%s: \"score\": one criterion was expected, \"%s\" found", e->config_path, criterion);
        goto done;
    }
    if (out && copy && state && stage_word(&w, model, err) == 0 &&
        stage_options(&w, e, "score", experiment_section(e, "score"), NULL, err) == 0 && stage_option(&w, "out", out, err) == 0 &&
        stage_option(&w, "copy", copy, err) == 0 && stage_begin(&resume, e, "score", &w, state, err) == 0)
        rc = stage_run(&e->score, e, "score", "score", &w, out, resume ? "resume" : NULL, err);
done:
    stage_words_free(&w);
    free(out);
    free(copy);
    free(state);
    return rc;
}

static int run_prune(struct experiment *e, const char *model, const char *pruned, struct err *err)
{
    struct stage_words w = {0};
    char *scores = experiment_output(e, "scores.json", err);
    int rc = scores && stage_word(&w, model, err) == 0 &&
                     stage_options(&w, e, "prune", experiment_section(e, "prune"), NULL, err) == 0 &&
                     stage_option(&w, "scores", scores, err) == 0 && stage_option(&w, "out", pruned, err) == 0
                 ? stage_run(&e->prune, e, "prune", "prune", &w, pruned, "force", err)
                 : -1;
    stage_words_free(&w);
    free(scores);
    return rc;
}

static int run_train(struct experiment *e, const char *pruned, const char *adapter, struct err *err)
{
    struct stage_words w = {0};
    bool resume;
    char *state = path_join(adapter, "checkpoint.safetensors", err);
    int rc = state && stage_word(&w, pruned, err) == 0 &&
                     stage_options(&w, e, "train", experiment_section(e, "train"), NULL, err) == 0 &&
                     stage_option(&w, "out", adapter, err) == 0 && stage_begin(&resume, e, "train", &w, state, err) == 0
                 ? stage_run(&e->train, e, "train", "train", &w, adapter, resume ? "resume" : "force", err)
                 : -1;
    stage_words_free(&w);
    free(state);
    return rc;
}

static int run_merge(struct experiment *e, const char *pruned, const char *adapter, const char *merged, struct err *err)
{
    struct stage_words w = {0};
    json_t *result = NULL;
    int rc = stage_word(&w, pruned, err) == 0 && stage_option(&w, "adapter", adapter, err) == 0 &&
                     stage_options(&w, e, "merge", experiment_section(e, "merge"), NULL, err) == 0 &&
                     stage_option(&w, "out", merged, err) == 0
                 ? stage_run(&result, e, "merge", "merge", &w, merged, "force", err)
                 : -1;
    stage_words_free(&w);
    json_decref(result);
    return rc;
}

/* Perplexities and samples of one model. */
static int run_evaluation(struct experiment *e, enum which_model which, const char *model, struct err *err)
{
    const json_t *texts = json_object_get(experiment_section(e, "eval"), "texts");
    const json_t *generate = experiment_section(e, "generate"), *prompts = json_object_get(generate, "prompts");
    struct stage_words w = {0};
    char name[64];
    snprintf(name, sizeof name, "inspect-%s", model_names[which]);
    if (stage_word(&w, model, err) != 0 || stage_run(&e->inspect[which], e, name, "inspect", &w, NULL, NULL, err) != 0)
        goto fail;
    for (int64_t i = 0; i < e->n_texts; i++) {
        char where[32];
        snprintf(name, sizeof name, "ppl-%s-%lld", model_names[which], (long long)i);
        snprintf(where, sizeof where, "eval.texts[%lld]", (long long)i);
        if (stage_word(&w, model, err) != 0 ||
            stage_options(&w, e, where, json_array_get(texts, (size_t)i), (const char *const[]){"name", NULL}, err) != 0 ||
            stage_run(&e->ppl[which][i], e, name, "eval ppl", &w, NULL, NULL, err) != 0)
            goto fail;
    }
    for (int64_t i = 0; i < e->n_prompts; i++) {
        snprintf(name, sizeof name, "generate-%s-%lld", model_names[which], (long long)i);
        if (stage_word(&w, model, err) != 0 ||
            stage_option(&w, "prompt", json_string_value(json_array_get(prompts, (size_t)i)), err) != 0 ||
            stage_options(&w, e, "generate", generate, (const char *const[]){"prompts", NULL}, err) != 0 ||
            stage_run(&e->sample[which][i], e, name, "generate", &w, NULL, NULL, err) != 0)
            goto fail;
    }
    return 0;
fail:
    stage_words_free(&w);
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

/* "5,13.attn,14": what the prune stage dropped, malloc'ed. */
static char *drop_list(const json_t *dropped, struct err *err)
{
    size_t i, n;
    json_t *v;
    char *text = NULL;
    FILE *f = open_memstream(&text, &n);
    json_array_foreach(dropped, i, v) {
        if (f && i)
            fputc(',', f);
        if (f && json_is_string(v))
            fputs(json_string_value(v), f);
        else if (f)
            fprintf(f, "%lld", (long long)json_integer_value(v));
    }
    if (f && !ferror(f) && fclose(f) == 0)
        return text;
    free(text);
    err_set(err, "out of memory");
    return NULL;
}

/* Speeds are compared in turns and within one file format: the pruned model is the original file without those blocks. */
static int run_speed(struct experiment *e, const char *model, struct err *err)
{
    const json_t *speed = json_object_get(experiment_section(e, "eval"), "speed");
    struct stage_words w = {0};
    json_t *result = NULL;
    if (!speed)
        return 0;
    char *dropped = drop_list(json_object_get(e->prune, "dropped"), err);
    int rc = dropped && stage_word(&w, model, err) == 0 && stage_option(&w, "drop", "", err) == 0 &&
                     stage_option(&w, "drop", dropped, err) == 0 && stage_options(&w, e, "eval.speed", speed, NULL, err) == 0
                 ? stage_run(&result, e, "speed", "eval speed", &w, NULL, NULL, err)
                 : -1;
    if (rc == 0 && !e->checking)
        rc = take_speeds(e, result, err);
    stage_words_free(&w);
    free(dropped);
    json_decref(result);
    return rc;
}

static int run_stages(struct experiment *e, struct err *err)
{
    const char *given = NULL;
    char *model = NULL, *pruned = experiment_output(e, "pruned", err), *adapter = experiment_output(e, "retrain", err),
         *merged = experiment_output(e, "merged", err);
    int rc = -1;
    if (!pruned || !adapter || !merged || json_get_string(&given, e->config, "model", e->config_path, err) != 0)
        goto done;
    if (!given) {
        err_set(err, "%s: \"model\" was expected", e->config_path);
        goto done;
    }
    if (!(model = experiment_input(e, given, err)) || begin_with_model(e, model, err) != 0 || run_score(e, model, err) != 0 ||
        run_prune(e, model, pruned, err) != 0 || run_train(e, pruned, adapter, err) != 0 ||
        run_merge(e, pruned, adapter, merged, err) != 0)
        goto done;
    if (run_evaluation(e, INTACT, model, err) != 0 || run_evaluation(e, PRUNED, pruned, err) != 0 ||
        run_evaluation(e, RETRAINED, merged, err) != 0 || run_speed(e, model, err) != 0)
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
