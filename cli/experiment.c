/* What an experiment leaves when its stages are done: evaluation.json, evaluation.h5 and report.html. */
#include "cli/experiment.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/experiment_recipe.h"
#include "cli/report.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/h5.h"
#include "prune/score.h"

const char *experiment_text_name(const struct experiment *e, int64_t i)
{
    const json_t *text = json_array_get(json_object_get(json_object_get(e->config, "eval"), "texts"), (size_t)i);
    const char *name = json_string_value(json_object_get(text, "name"));
    return name ? name : path_base(json_string_value(json_object_get(e->ppl[INTACT][i], "text")));
}

static double number(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static int write_json(const struct experiment *e, const char *path, struct err *err)
{
    json_t *root = json_object();
    for (int m = 0; m < N_MODELS; m++) {
        json_t *texts = json_object(), *samples = json_array();
        for (int64_t i = 0; i < e->n_texts; i++)
            json_object_set(texts, experiment_text_name(e, i), e->ppl[m][i]);
        for (int64_t i = 0; i < e->n_prompts; i++)
            json_array_append(samples, json_object_get(e->sample[m][i], "text"));
        json_t *one = json_pack("{sO so so}", "model", e->inspect[m], "texts", texts, "samples", samples);
        if (e->speed[m])
            json_object_set(one, "speed", e->speed[m]);
        json_object_set_new(root, model_names[m], one);
    }
    int rc = json_write(path, root, err);
    json_decref(root);
    return rc;
}

/* Sets what of `from` is there of the members named in `names` (closed by NULL). */
static int take(json_t *to, const json_t *from, const char *const names[])
{
    for (int i = 0; names[i]; i++) {
        json_t *v = json_object_get(from, names[i]);
        if (v && json_object_set(to, names[i], v) != 0)
            return -1;
    }
    return 0;
}

/* "intact/texts/0": the perplexity of one model on one text, with what the stage that measured it says of it. */
static int put_text(struct h5_writer *w, const struct experiment *e, int m, int64_t i, struct err *err)
{
    static const char *const names[] = {"protocol",       "bos",          "text",    "text_sha256", "tokens_scored",
                                        "windows",        "wall_seconds", "model",   "model_hash",  "model_fingerprint",
                                        "peak_rss_bytes", "compute",      "options", NULL};
    const char *called = experiment_text_name(e, i);
    double ppl = number(e->ppl[m][i], "ppl");
    char name[64];
    json_t *about = json_object();
    snprintf(name, sizeof name, "%s/texts/%lld", model_names[m], (long long)i);
    bool whole = about && json_object_set_new(about, "name", json_text(called)) == 0 && take(about, e->ppl[m][i], names) == 0;
    int rc = whole ? h5_put_f64(w, name, &ppl, NULL, 0, err) : err_set(err, "out of memory");
    if (rc == 0)
        rc = h5_attr_json_at(w, name, about, err);
    json_decref(about);
    return rc;
}

static int put_model(struct h5_writer *w, const struct experiment *e, int m, struct err *err)
{
    static const char *const names[] = {"model", "model_hash", "model_fingerprint", "n_blocks", NULL};
    double ppl[MAX_TEXTS], nll[MAX_TEXTS], speed = number(e->speed[m], "decode_tok_s"),
                                           speed_std = number(e->speed[m], "decode_std");
    int64_t scored[MAX_TEXTS], params = json_integer_value(json_object_get(e->inspect[m], "n_params"));
    char name[64];
    for (int64_t i = 0; i < e->n_texts; i++) {
        ppl[i] = number(e->ppl[m][i], "ppl");
        nll[i] = number(e->ppl[m][i], "nll");
        scored[i] = json_integer_value(json_object_get(e->ppl[m][i], "tokens_scored"));
        if (put_text(w, e, m, i, err) != 0)
            return -1;
    }
    struct {
        const char *name;
        const double *f;
        const int64_t *i;
        int n_dims;
    } sets[] = {
        {"ppl", ppl, NULL, 1},
        {"nll", nll, NULL, 1},
        {"tokens_scored", NULL, scored, 1},
        {"params", NULL, &params, 0},
        {"decode_tok_s", &speed, NULL, 0},
        {"decode_std", &speed_std, NULL, 0},
    };
    for (size_t k = 0; k < sizeof sets / sizeof *sets; k++) {
        snprintf(name, sizeof name, "%s/%s", model_names[m], sets[k].name);
        if ((sets[k].f ? h5_put_f64(w, name, sets[k].f, &e->n_texts, sets[k].n_dims, err)
                       : h5_put_i64(w, name, sets[k].i, &e->n_texts, sets[k].n_dims, err)) != 0)
            return -1;
    }
    json_t *about = json_object();
    int rc = about && take(about, e->inspect[m], names) == 0 ? h5_attr_json_at(w, model_names[m], about, err)
                                                             : err_set(err, "out of memory");
    json_decref(about);
    return rc;
}

/* What the whole file is of: the run, not one of its stages. A new object; NULL and an error. */
static json_t *describe_run(const struct experiment *e, struct err *err)
{
    static const char *const of_model[] = {"model", "model_hash", "model_fingerprint", NULL};
    static const char *const of_pruning[] = {"dropped", NULL}, *const of_config[] = {"title", NULL};
    char sha256[65];
    if (file_sha256(sha256, e->config_path, err) != 0)
        return NULL;
    json_t *o =
        json_pack("{ss ss ss so ss}", "program_version", ESPALIER_VERSION, "commit", e->cli->commit ? e->cli->commit : "unknown",
                  "command", "run", "config", json_text(e->config_path), "config_sha256", sha256);
    if (o && take(o, e->score, of_model) == 0 && take(o, e->prune, of_pruning) == 0 && take(o, e->config, of_config) == 0)
        return o;
    json_decref(o);
    err_set(err, "out of memory");
    return NULL;
}

static int write_h5(const struct experiment *e, const char *path, struct err *err)
{
    struct h5_writer w;
    const char *texts[MAX_TEXTS];
    json_t *about = describe_run(e, err);
    for (int64_t i = 0; i < e->n_texts; i++)
        texts[i] = experiment_text_name(e, i);
    if (!about || h5_writer_open(&w, path, err) != 0) {
        json_decref(about);
        return -1;
    }
    int rc = h5_put_strings(&w, "texts", texts, e->n_texts, err) == 0 &&
                     h5_put_strings(&w, "models", model_names, N_MODELS, err) == 0 && h5_attr_json(&w, about, err) == 0
                 ? 0
                 : -1;
    json_decref(about);
    for (int m = 0; m < N_MODELS && rc == 0; m++)
        rc = put_model(&w, e, m, err);
    if (rc == 0)
        return h5_writer_commit(&w, err);
    h5_writer_abort(&w);
    return -1;
}

int experiment_write_evaluation(const struct experiment *e, struct err *err)
{
    char *json = path_join(e->out, "evaluation.json", err), *h5 = path_join(e->out, "evaluation.h5", err);
    int rc = json && h5 && write_json(e, json, err) == 0 ? write_h5(e, h5, err) : -1;
    free(json);
    free(h5);
    return rc;
}

/* ---- the report ---- */

/* Everything the report borrows, so that it can be released together. */
struct sheet {
    struct report r;
    struct scores scores;
    bool *dropped, *protected_;
    double *loss, *lr, *eval_loss;
    int64_t *eval_step;
    struct report_model models[N_MODELS];
    double ppl[N_MODELS][MAX_TEXTS];
    const char *texts[MAX_TEXTS], *prompts[MAX_PROMPTS], *continuations[MAX_PROMPTS * N_MODELS];
    const char *facts[12][2];
    struct recipe recipe;
    char numbers[4][64];
};

/* Blocks are listed as numbers, halves by name. */
static void mark_dropped(struct sheet *s, const json_t *dropped)
{
    char name[UNIT_NAME];
    size_t i;
    json_t *v;
    json_array_foreach(dropped, i, v)
        for (int64_t k = 0; k < s->scores.n; k++)
            s->dropped[k] |= json_is_integer(v) ? json_integer_value(v) == s->scores.unit[k].block
                                                : !strcmp(json_string_value(v), unit_name(name, s->scores.unit[k]));
}

static int sheet_scores(struct sheet *s, const struct experiment *e, struct err *err)
{
    char *path = path_join(e->out, "scores.json", err);
    int rc = path ? scores_read(&s->scores, path, err) : -1;
    free(path);
    if (rc != 0)
        return -1;
    int64_t n = s->scores.n;
    s->dropped = calloc((size_t)n, sizeof *s->dropped);
    s->protected_ = calloc((size_t)n, sizeof *s->protected_);
    if (!s->dropped || !s->protected_)
        return err_set(err, "out of memory");
    mark_dropped(s, json_object_get(e->prune, "dropped"));
    int64_t first = (int64_t)number(e->prune, "keep_first"), last = (int64_t)number(e->prune, "keep_last");
    for (int64_t k = 0; k < n; k++)
        s->protected_[k] = !scores_may_go(&s->scores, k, first, last);
    struct err none = {0};
    const struct criterion *criterion = criterion_find(s->scores.criterion, &none);
    s->r.criterion = s->scores.criterion;
    s->r.score_name = criterion ? criterion->score : NULL;
    s->r.n_blocks = n;
    s->r.even = criterion && criterion_is_even(criterion);
    s->r.score = s->scores.score;
    s->r.unit = s->scores.unit;
    s->r.base_ppl = criterion && criterion->perplexity ? number(e->score, "base_ppl") : 0;
    s->r.cut_swap = json_number_value(json_object_get(e->prune, "cut_swap"));
    s->r.dropped = s->dropped;
    s->r.protected_ = s->protected_;
    return 0;
}

static int sheet_curves(struct sheet *s, const struct experiment *e, struct err *err)
{
    int64_t dims[4];
    int n_dims;
    char *path = path_join(e->out, "retrain/train.h5", err);
    int rc = path && h5_read_f64(&s->loss, dims, &n_dims, path, "loss", err) == 0 &&
                     h5_read_f64(&s->lr, dims, &n_dims, path, "lr", err) == 0
                 ? 0
                 : -1;
    s->r.n_steps = rc == 0 ? dims[0] : 0;
    if (rc == 0)
        rc = h5_read_f64(&s->eval_loss, dims, &n_dims, path, "eval/loss", err) == 0 &&
                     h5_read_i64(&s->eval_step, dims, &n_dims, path, "eval/step", err) == 0
                 ? 0
                 : -1;
    s->r.n_evals = rc == 0 ? dims[0] : 0;
    s->r.loss = s->loss;
    s->r.lr = s->lr;
    s->r.eval_loss = s->eval_loss;
    s->r.eval_step = s->eval_step;
    free(path);
    return rc;
}

static void sheet_models(struct sheet *s, const struct experiment *e)
{
    for (int m = 0; m < N_MODELS; m++) {
        double speed = number(e->speed[m], "decode_tok_s"), spread = number(e->speed[m], "decode_std");
        for (int64_t i = 0; i < e->n_texts; i++)
            s->ppl[m][i] = number(e->ppl[m][i], "ppl");
        s->models[m] = (struct report_model){model_names[m],
                                             json_integer_value(json_object_get(e->inspect[m], "n_params")),
                                             json_integer_value(json_object_get(e->inspect[m], "n_blocks")),
                                             s->ppl[m],
                                             isnan(speed) ? 0 : speed,
                                             isnan(spread) ? 0 : spread};
        for (int64_t i = 0; i < e->n_prompts; i++)
            s->continuations[i * N_MODELS + m] = json_string_value(json_object_get(e->sample[m][i], "text"));
    }
    for (int64_t i = 0; i < e->n_texts; i++)
        s->texts[i] = experiment_text_name(e, i);
    for (int64_t i = 0; i < e->n_prompts; i++)
        s->prompts[i] =
            json_string_value(json_array_get(json_object_get(json_object_get(e->config, "generate"), "prompts"), (size_t)i));
    s->r.n_models = N_MODELS;
    s->r.models = s->models;
    s->r.n_texts = e->n_texts;
    s->r.text_names = s->texts;
    s->r.n_prompts = e->n_prompts;
    s->r.prompts = s->prompts;
    s->r.continuations = s->continuations;
}

static void add_fact(struct sheet *s, const char *name, const char *value)
{
    if (!value)
        return;
    s->facts[s->r.n_facts][0] = name;
    s->facts[s->r.n_facts++][1] = value;
}

static void sheet_facts(struct sheet *s, const struct experiment *e)
{
    static const char *const from_score[][2] = {{"model", "model"},           {"model hash", "model_hash"},
                                                {"weights", "dtype"},         {"instruction set", "isa"},
                                                {"OpenBLAS kernels", "blas"}, {"espalier", "program_version"}};
    for (size_t i = 0; i < sizeof from_score / sizeof *from_score; i++)
        add_fact(s, from_score[i][0], json_string_value(json_object_get(e->score, from_score[i][1])));
    snprintf(s->numbers[0], sizeof s->numbers[0], "%.0f", number(e->score, "threads"));
    add_fact(s, "threads", s->numbers[0]);
    snprintf(s->numbers[1], sizeof s->numbers[1], "%.1f s", number(e->score, "wall_seconds"));
    add_fact(s, "scoring took", s->numbers[1]);
    snprintf(s->numbers[2], sizeof s->numbers[2], "%.1f s, %.0f tokens/s", number(e->train, "wall_seconds"),
             number(e->train, "tokens_per_s"));
    add_fact(s, "retraining took", s->numbers[2]);
    snprintf(s->numbers[3], sizeof s->numbers[3], "%.0f MiB", number(e->train, "peak_rss_bytes") / (1 << 20));
    add_fact(s, "peak memory", s->numbers[3]);
    s->r.facts = s->facts;
}

int experiment_write_report(const struct experiment *e, struct err *err)
{
    struct sheet *s = calloc(1, sizeof *s);
    char *path = path_join(e->out, "report.html", err);
    int rc = -1;
    if (!s || !path) {
        err_set(err, "out of memory");
        goto done;
    }
    s->r.title = json_string_value(json_object_get(e->config, "title"));
    if (!s->r.title)
        s->r.title = "espalier: pruned in depth and retrained";
    const char *model = json_string_value(json_object_get(e->score, "model"));
    s->r.subtitle = model ? path_base(model) : NULL;
    if (sheet_scores(s, e, err) != 0 || sheet_curves(s, e, err) != 0 || recipe_of(&s->recipe, e, err) != 0)
        goto done;
    s->r.n_recipe = s->recipe.n;
    s->r.recipe = s->recipe.lines;
    sheet_models(s, e);
    sheet_facts(s, e);
    rc = report_write(&s->r, path, err);
done:
    if (s) {
        scores_free(&s->scores);
        recipe_free(&s->recipe);
        free(s->dropped);
        free(s->protected_);
        free(s->loss);
        free(s->lr);
        free(s->eval_loss);
        free(s->eval_step);
    }
    free(s);
    free(path);
    return rc;
}
