#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/file.h"
#include "prune/plan.h"

/* What to drop, from scores and a count, as a list the caller frees. */
static int choose(int64_t **dropped, int64_t *n, struct scores *scores, const char *path, const struct model *m, double ratio,
                  int64_t count, int64_t keep_first, int64_t keep_last, struct err *err)
{
    if (scores_read(scores, path, err) != 0)
        return -1;
    if (scores->n_blocks != m->cfg.n_blocks || strcmp(scores->model_hash, m->hash))
        return err_set(err, "%s: scores of another model: hash %.16s was expected, %.16s found", path, m->hash, scores->model_hash);
    *n = count;
    if (!count && plan_count(n, ratio, m->cfg.n_blocks, err) != 0)
        return -1;
    *dropped = mem_alloc((size_t)(*n > 0 ? *n : 1), sizeof **dropped, err);
    return *dropped ? plan_choose(*dropped, scores, *n, keep_first, keep_last, err) : -1;
}

/* The blocks of --drop, as listed; for plan.json. */
static int64_t *listed(int64_t *n, const char *list, struct err *err)
{
    int64_t *v = mem_alloc(strlen(list) + 1, sizeof *v, err);
    *n = 0;
    for (const char *p = list; v && p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        v[(*n)++] = strtoll(p, NULL, 10);
    return v;
}

int cmd_prune(struct cli *cli, struct err *err)
{
    const char *scores_path = NULL, *out = NULL, *format = "hf", *dtype = NULL;
    double ratio = 0;
    int64_t count = 0, keep_first = 4, keep_last = 2;
    bool no_protect = false, force = false;
    struct opt own[] = {
        {OPT_STRING, "scores", &scores_path, "S", "scores made by `espalier score` for this model"},
        {OPT_REAL, "ratio", &ratio, "R", "part of the blocks to drop, rounded to the nearest whole block"},
        {OPT_INT, "count", &count, "N", "number of blocks to drop"},
        {OPT_INT, "keep-first", &keep_first, "N", "blocks at the start that stay whatever their score"},
        {OPT_INT, "keep-last", &keep_last, "N", "blocks at the end that stay whatever their score"},
        {OPT_FLAG, "no-protect", &no_protect, NULL, "the same as --keep-first 0 --keep-last 0"},
        {OPT_STRING, "out", &out, "DIR", "folder for the pruned model"},
        {OPT_STRING, "format", &format, "F", "hf"},
        {OPT_STRING, "dtype", &dtype, "D", "f32, f16 or bf16; default the model's own, f16 for quantised ones"},
        {OPT_FLAG, "force", &force, NULL, "replace DIR if it exists"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    struct scores scores = {0};
    struct dir_writer dir = {0};
    int64_t *dropped = NULL, n = 0;
    char *plan = NULL, sha[65] = "";
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL (--scores S (--ratio R | --count N) | --drop LIST) --out DIR", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (!out || !scores_path == !o.drop || (scores_path && (ratio != 0) == (count != 0)))
        return err_usage(err, "prune needs --out, and either --drop or --scores with one of --ratio and --count");
    if (strcmp(format, "hf"))
        return err_usage(err, "--format %s: hf was expected", format);
    if (no_protect)
        keep_first = keep_last = 0;
    if (keep_first < 0 || keep_last < 0 || count < 0)
        return err_usage(err, "--keep-first, --keep-last and --count must not be negative");
    if (session_open(&s, &o, words.word[0], 0, err) != 0)
        return -1;
    rc = -1;
    if (scores_path) {
        if (choose(&dropped, &n, &scores, scores_path, &s.m, ratio, count, keep_first, keep_last, err) != 0 ||
            model_drop(&s.m, dropped, n, err) != 0 || file_sha256(sha, scores_path, err) != 0)
            goto done;
    } else if (!(dropped = listed(&n, o.drop, err))) {
        goto done;
    }
    struct save_options save = {.lora = s.adapter, .tokenizer = s.t};
    if (save_dtype(&save.dtype, dtype, &s.m, err) != 0 || dir_writer_open(&dir, out, force, err) != 0 || model_save(&s.m, &s.c, dir.tmp, &save, &cli->progress, err) != 0 ||
        !(plan = path_join(dir.tmp, "plan.json", err)))
        goto done;
    cli->result = session_facts(&s, cli, &o);
    if (plan_write(plan, &s.m, dropped, n, scores_path ? scores.criterion : NULL, scores_path ? sha : NULL, cli->result, err) != 0 ||
        dir_writer_commit(&dir, err) != 0)
        goto done;
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(dropped[i]));
    json_object_set_new(cli->result, "dropped", list);
    json_object_set_new(cli->result, "keep_first", json_integer(keep_first));
    json_object_set_new(cli->result, "keep_last", json_integer(keep_last));
    json_object_set_new(cli->result, "out", json_string(out));
    json_object_set_new(cli->result, "params_after", json_integer(model_params(&s.m)));
    if (cli->out && !cli->json) {
        fprintf(cli->out, "dropped");
        for (int64_t i = 0; i < n; i++)
            fprintf(cli->out, "%s%lld", i ? ", " : " ", (long long)dropped[i]);
        fprintf(cli->out, "; %lld blocks and %.2f M parameters left in %s\n", (long long)s.m.n_order, 1e-6 * (double)model_params(&s.m), out);
    }
    rc = 0;
done:
    if (rc != 0)
        dir_writer_abort(&dir);
    free(plan);
    free(dropped);
    scores_free(&scores);
    session_close(&s);
    return rc;
}
