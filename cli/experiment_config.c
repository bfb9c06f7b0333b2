/* The sections and keys of an experiment's configuration; its options are judged by the commands that they are for. */
#include <string.h>

#include "cli/experiment.h"
#include "core/base/nearest.h"

const json_t *experiment_section(const struct experiment *e, const char *name)
{
    return json_object_get(e->config, name);
}

/* Members of the object `where` (NULL: the whole configuration) that nobody reads are mistakes. */
static int check_members(const struct experiment *e, const char *where, const json_t *obj, const char *const known[], size_t n,
                         struct err *err)
{
    const char *name, *meant;
    json_t *v;
    json_object_foreach((json_t *)obj, name, v) {
        size_t k = 0;
        while (k < n && strcmp(name, known[k]))
            k++;
        if (k < n)
            continue;
        meant = nearest_name(name, known, n);
        return err_set(err, "%s: %s%sunknown %s \"%s\"%s%s%s", e->config_path, where ? where : "", where ? ": " : "",
                       where ? "key" : "section", name, meant ? "; is \"" : "", meant ? meant : "", meant ? "\" meant?" : "");
    }
    return 0;
}

static int check_object(const struct experiment *e, const char *where, const json_t *v, struct err *err)
{
    return !v || json_is_object(v) ? 0 : err_set(err, "%s: \"%s\": an object was expected", e->config_path, where);
}

static int check_texts(struct experiment *e, struct err *err)
{
    const json_t *texts = json_object_get(experiment_section(e, "eval"), "texts");
    size_t i;
    json_t *v;
    e->n_texts = (int64_t)json_array_size(texts);
    if (e->n_texts < 1 || e->n_texts > MAX_TEXTS)
        return err_set(err, "%s: eval: an array \"texts\" of 1 to %d texts to measure perplexity on was expected", e->config_path,
                       MAX_TEXTS);
    json_array_foreach(texts, i, v)
        if (!json_is_object(v) || !json_is_string(json_object_get(v, "text")) ||
            (json_object_get(v, "name") && !json_is_string(json_object_get(v, "name"))))
            return err_set(err, "%s: eval.texts[%zu]: an object with the strings \"text\" (a file) and \"name\" was expected",
                           e->config_path, i);
    return 0;
}

static int check_prompts(struct experiment *e, struct err *err)
{
    const json_t *prompts = json_object_get(experiment_section(e, "generate"), "prompts");
    size_t i;
    json_t *v;
    e->n_prompts = (int64_t)json_array_size(prompts);
    bool wanted = json_object_size(experiment_section(e, "generate")) > 0;
    if ((wanted && e->n_prompts < 1) || e->n_prompts > MAX_PROMPTS)
        return err_set(err, "%s: generate: an array \"prompts\" of 1 to %d strings was expected", e->config_path, MAX_PROMPTS);
    json_array_foreach(prompts, i, v)
        if (!json_is_string(v))
            return err_set(err, "%s: generate: \"prompts\": strings were expected", e->config_path);
    return 0;
}

int experiment_check_config(struct experiment *e, struct err *err)
{
    static const char *const sections[] = {"title", "model", "score", "prune", "train", "merge", "eval", "generate"};
    static const char *const of_eval[] = {"texts", "speed"};
    enum { N_SECTIONS = sizeof sections / sizeof *sections, FIRST_OBJECT = 2 };
    if (!json_is_object(e->config))
        return err_set(err, "%s: a JSON object was expected", e->config_path);
    if (check_members(e, NULL, e->config, sections, N_SECTIONS, err) != 0)
        return -1;
    for (int i = 0; i < N_SECTIONS; i++) {
        const json_t *v = experiment_section(e, sections[i]);
        if (i >= FIRST_OBJECT ? check_object(e, sections[i], v, err) != 0 : v && !json_is_string(v))
            return err_set(err, "%s: \"%s\": a string was expected", e->config_path, sections[i]);
    }
    const json_t *eval = experiment_section(e, "eval");
    if (check_members(e, "eval", eval, of_eval, sizeof of_eval / sizeof *of_eval, err) != 0 ||
        check_object(e, "eval.speed", json_object_get(eval, "speed"), err) != 0 || check_texts(e, err) != 0)
        return -1;
    return check_prompts(e, err);
}
