/* The stages of `espalier bench --shape`. */
#include "cli/bench_shape.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/dir.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/record.h"
#include "core/base/process.h"
#include "core/base/rng.h"
#include "eval/bench.h"

const char *const bench_dtypes[BENCH_DTYPES] = {"f16", "q8_0", "q4_0"};

enum {
    MAX_STAGE_WORDS = 24,
    SAMPLES = 10, /* of calibration, LEN random tokens each */
    LEN = 128,
    LARGE = 2000000000, /* parameters from which a run of generation takes minutes: there are fewer of them */
};

/* One shape on the way through its stages. */
struct rig {
    struct cli *cli;
    const char *shape; /* its config.json */
    struct config cfg;
    char program[65], config[65];     /* SHA-256 of this program and of the shape */
    char *dir, *whole, *pruned, *ids; /* paths: of everything; the two models; calibration rows */
    char threads[24];
    struct bench_records r;
    int stages, reused;
};

/* ---- the shape ---- */

static double shape_params(const struct config *cfg, int64_t n_blocks)
{
    double n = 0;
    for (int p = 0; p < PROJ_COUNT; p++) {
        int64_t rows, cols;
        model_proj_shape(&rows, &cols, cfg, (enum proj)p);
        n += (double)rows * (double)cols;
    }
    return n * (double)n_blocks + (cfg->tied_embeddings ? 1 : 2) * (double)cfg->vocab_size * (double)cfg->dim;
}

/* A fifth of the blocks goes, from where few would miss them: before the last six. */
static int64_t dropped_blocks(const struct config *cfg)
{
    return cfg->n_blocks < 3 ? 1 : (2 * cfg->n_blocks + 5) / 10;
}

static void drop_list(char *text, size_t size, const struct config *cfg)
{
    int64_t n = dropped_blocks(cfg), last = cfg->n_blocks - 7, first = last - n + 1 > 0 ? last - n + 1 : 0;
    size_t at = 0;
    text[0] = 0;
    for (int64_t i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%lld", i ? "," : "", (long long)(first + i));
}

/* Bytes of the models in f16. */
static double whole_bytes(const struct rig *g)
{
    return 2 * shape_params(&g->cfg, g->cfg.n_blocks);
}

static double pruned_bytes(const struct rig *g)
{
    return 2 * shape_params(&g->cfg, g->cfg.n_blocks - dropped_blocks(&g->cfg));
}

/* Bytes of the file that is copied to see how fast the disk is. */
static double copied_bytes(const struct rig *g)
{
    double bytes = pruned_bytes(g) / 8;
    return bytes < 1 << 24 ? 1 << 24 : bytes > 1 << 30 ? 1 << 30 : bytes;
}

/* The disk holds the model, and beside it its pruned or quantised one for a while, and two of the copied files. */
static int check_room(const struct rig *g, struct err *err)
{
    double mean = 1.02 * (pruned_bytes(g) + (path_is_dir(g->whole) ? 0 : whole_bytes(g))) + 2 * copied_bytes(g) + (1 << 29);
    return disk_check(g->dir, (int64_t)mean, err);
}

/* ---- one stage ---- */

/* What it depends on: the shape and its words, and the program that is measured (not for those whose files alone count). */
static int stage_key(char key[65], const struct rig *g, const char *const words[], bool measured, struct err *err)
{
    json_t *list = json_array();
    for (int i = 0; words[i]; i++)
        json_array_append_new(list, json_text(words[i]));
    json_t *work = json_pack("{ss ss ss so}", "program", measured ? g->program : "", "config", g->config, "threads", g->threads,
                             "words", list);
    int rc = work ? record_key(key, work, err) : err_set(err, "out of memory");
    json_decref(work);
    return rc;
}

static char *record_path(const struct rig *g, const char *name, struct err *err)
{
    char file[64];
    snprintf(file, sizeof file, "stages/%s.json", name);
    return path_join(g->dir, file, err);
}

/* The record of that stage with these words, or NULL; one that cannot be read is made anew, which is said. */
static json_t *on_record(const struct rig *g, const char *name, const char *const words[], bool measured)
{
    struct err why = {0};
    char key[65], *path = record_path(g, name, &why);
    int there = path ? path_status(path, &why) : -1;
    json_t *record = there > 0 ? json_read(path, &why) : NULL;
    const char *was = json_string_value(json_object_get(record, "key"));
    bool same = was && stage_key(key, g, words, measured, &why) == 0 && !strcmp(was, key);
    if (why.code)
        progress_say(&g->cli->progress, "%s; %s is measured again", why.msg, name);
    free(path);
    if (same)
        return record;
    json_decref(record);
    return NULL;
}

static int put_on_record(const struct rig *g, const char *name, const json_t *record, struct err *err)
{
    char *path = record_path(g, name, err);
    int rc = path ? json_write(path, record, err) : -1;
    free(path);
    return rc;
}

/* Runs the command. A new record, not yet kept; or NULL and an error. */
static json_t *run(const struct rig *g, const char *name, const char *const words[], bool measured, struct err *err)
{
    const char *argv[MAX_STAGE_WORDS] = {"/proc/self/exe"};
    int n = 1;
    char key[65];
    struct process p;
    json_t *record = NULL, *result;
    for (int i = 0; words[i]; i++)
        argv[n++] = words[i];
    argv[n++] = "--json";
    argv[n++] = "--threads";
    argv[n++] = g->threads;
    if (g->cli->quiet)
        argv[n++] = "--quiet";
    else
        fprintf(stderr, "== %s\n", name);
    if (process_run(&p, (char *const *)argv, err) != 0)
        return NULL;
    if (stage_key(key, g, words, measured, err) != 0) {
        process_free(&p);
        return NULL;
    }
    if (p.status != 0)
        err_set(err, "stage %s of the benchmark ended with status %d; what it said is above", name, p.status);
    else if ((result = json_parse(p.out, p.n, name, err)))
        record = json_pack("{ss sf sI so}", "key", key, "seconds", p.seconds, "peak_rss_bytes", (json_int_t)p.peak_rss, "result",
                           result);
    process_free(&p);
    return record;
}

/* *record: what is on record, or else what running it now leaves there. */
static int stage(json_t **record, struct rig *g, const char *name, const char *const words[], struct err *err)
{
    g->stages++;
    if ((*record = on_record(g, name, words, true))) {
        g->reused++;
        return 0;
    }
    *record = run(g, name, words, true, err);
    return *record ? put_on_record(g, name, *record, err) : -1;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Whether decoding a model of so many bytes stays in memory; if not, *missing is what that takes. */
static bool fits(double *missing, double bytes)
{
    double room = (double)mem_available(), need = 1.02 * bytes + 1.5 * (1 << 30);
    *missing = room > 0 && room < need ? need : 0;
    return *missing == 0;
}

/* ---- the stages ---- */

static int make_whole(struct rig *g, struct err *err)
{
    const char *const *words = WORDS("synth", g->shape, "--out", g->whole, "--dtype", "f16", "--seed", "1", "--force");
    g->stages++;
    if (path_is_dir(g->whole) && (g->r.synth = on_record(g, "synth", words, false))) {
        g->reused++;
        return 0;
    }
    g->r.synth = run(g, "synth", words, false, err);
    return g->r.synth ? put_on_record(g, "synth", g->r.synth, err) : -1;
}

struct speed_stage {
    char name[32];
    const char *words[16];
};

/* The single sequence is the figure that counts: it is warmed up and run again. Several of a large model take minutes a run. */
static struct speed_stage speed_stage(const struct rig *g, int which, int k)
{
    static const char *const batches[BENCH_BATCHES] = {"1", "4", "16"};
    bool large = shape_params(&g->cfg, g->cfg.n_blocks) > LARGE, single = k == 0;
    struct speed_stage s = {.words = {"eval", "speed", which == BENCH_WHOLE ? g->whole : g->pruned, "--batch", batches[k],
                                      "--warmup", large && !single ? "0" : "1", "--runs",
                                      !large   ? "3"
                                      : single ? "2"
                                               : "1"}};
    snprintf(s.name, sizeof s.name, "speed-%s-%s", which == BENCH_WHOLE ? "whole" : "pruned", batches[k]);
    return s;
}

static int measure_speed(struct rig *g, int which, int k, struct err *err)
{
    struct speed_stage s = speed_stage(g, which, k);
    return stage(&g->r.speed[which][k], g, s.name, s.words, err);
}

static bool speed_is_known(const struct rig *g, int which, int k)
{
    struct speed_stage s = speed_stage(g, which, k);
    json_t *record = on_record(g, s.name, s.words, true);
    json_decref(record);
    return record != NULL;
}

/* Writes the pruned model, and notes how fast the disk copies beside what that took. */
static int prune(struct rig *g, const char *const words[], struct err *err)
{
    size_t bytes = (size_t)copied_bytes(g);
    double before = bench_copy_rate(g->dir, bytes, err), after = 0;
    if (before > 0)
        file_forget(g->whole); /* read from the disk, too */
    json_t *record = before > 0 ? run(g, "prune", words, true, err) : NULL;
    if (record && (after = bench_copy_rate(g->dir, bytes, err)) > 0)
        json_object_set_new(record, "disk_rate", json_real((before + after) / 2));
    json_decref(g->r.prune);
    g->r.prune = record;
    return record && after > 0 ? put_on_record(g, "prune", record, err) : -1;
}

static int pruned_stages(struct rig *g, struct err *err)
{
    char list[256];
    double missing;
    bool known = true, room = fits(&missing, pruned_bytes(g));
    drop_list(list, sizeof list, &g->cfg);
    const char *const *words = WORDS("prune", g->whole, "--drop", list, "--out", g->pruned, "--force");
    for (int k = 0; k < BENCH_BATCHES; k++)
        known = known && speed_is_known(g, BENCH_PRUNED, k);
    g->stages++;
    g->r.prune = on_record(g, "prune", words, true);
    if (g->r.prune && (known || !room || path_is_dir(g->pruned)))
        g->reused++;
    else if (prune(g, words, err) != 0)
        return -1;
    for (int k = 0; k < BENCH_BATCHES && (known || room); k++)
        if (measure_speed(g, BENCH_PRUNED, k, err) != 0)
            return -1;
    dir_remove(g->pruned);
    return 0;
}

/* How much faster decoding is without some blocks: in turns, from the same weights in memory, since other tenants of a machine change
 * its speed between two long stages by as much as a fifth of the blocks does. */
static int measure_turns(struct rig *g, struct err *err)
{
    char list[256], name[32];
    drop_list(list, sizeof list, &g->cfg);
    for (int turn = 0; turn < BENCH_TURNS; turn++)
        for (int which = 0; which < BENCH_MODELS; which++) {
            snprintf(name, sizeof name, "turn-%s-%d", which == BENCH_WHOLE ? "whole" : "dropped", turn + 1);
            const char *const *words = WORDS("eval", "speed", g->whole, "--warmup", "0", "--runs", "1", "--out-len", "32",
                                             which == BENCH_WHOLE ? NULL : "--drop", list);
            if (stage(&g->r.turns[which][turn], g, name, words, err) != 0)
                return -1;
        }
    return 0;
}

/* The time to the first token comes last: then the file's pages are in memory. */
static int whole_stages(struct rig *g, struct err *err)
{
    if (!fits(&g->r.needed[0], whole_bytes(g)) && !speed_is_known(g, BENCH_WHOLE, BENCH_BATCHES - 1))
        return 0;
    for (int k = 0; k < BENCH_BATCHES; k++)
        if (measure_speed(g, BENCH_WHOLE, k, err) != 0)
            return -1;
    if (stage(&g->r.decode[0], g, "decode-f16", WORDS("bench", g->whole, "--only", "decode"), err) != 0 ||
        measure_turns(g, err) != 0)
        return -1;
    return stage(&g->r.first_token, g, "first-token",
                 WORDS("eval", "speed", g->whole, "--warmup", "0", "--runs", "1", "--out-len", "2"), err);
}

/* Ten rows of random tokens: what a model of random weights can be asked about. */
static int write_ids(const struct rig *g, struct err *err)
{
    struct rng rng;
    json_t *rows = json_array();
    rng_seed(&rng, 1);
    for (int i = 0; i < SAMPLES; i++) {
        json_t *row = json_array();
        for (int k = 0; k < LEN; k++)
            json_array_append_new(row, json_integer(rng_below(&rng, g->cfg.vocab_size)));
        json_array_append_new(rows, row);
    }
    int rc = json_write(g->ids, rows, err);
    json_decref(rows);
    return rc;
}

static int scoring_stages(struct rig *g, struct err *err)
{
    char *scores = path_join(g->dir, "taylor.json", err);
    int rc = -1;
    if (!scores || write_ids(g, err) != 0 ||
        stage(&g->r.score, g, "scoring", WORDS("bench", g->whole, "--only", "scoring"), err) != 0)
        goto done;
    if (compute_has_bf16() &&
        stage(&g->r.score_bf16, g, "scoring-bf16", WORDS("bench", g->whole, "--only", "scoring", "--compute", "bf16"), err) != 0)
        goto done;
    rc = stage(&g->r.taylor, g, "taylor", WORDS("score", g->whole, "--criterion", "taylor", "--calib", g->ids, "--out", scores),
               err);
done:
    free(scores);
    return rc;
}

/* Decoding in fewer bits; the file is there only as long. */
static int quantised_stage(struct rig *g, int k, struct err *err)
{
    static const double bytes_per_weight[BENCH_DTYPES] = {2, 34.0 / 32, 18.0 / 32};
    char file[32], name[32];
    int rc = -1;
    snprintf(file, sizeof file, "%s.gguf", bench_dtypes[k]);
    snprintf(name, sizeof name, "decode-%s", bench_dtypes[k]);
    char *path = path_join(g->dir, file, err);
    const char *const *words = WORDS("bench", path, "--only", "decode");
    if (!path)
        return -1;
    json_t *known = on_record(g, name, words, true), *made = NULL;
    if (!known && !fits(&g->r.needed[k], whole_bytes(g) / 2 * bytes_per_weight[k]))
        rc = 0;
    else if (known || (made = run(g, file, WORDS("convert", g->whole, path, "--dtype", bench_dtypes[k], "--force"), false, err)))
        rc = stage(&g->r.decode[k], g, name, words, err);
    unlink(path);
    free(path);
    json_decref(known);
    json_decref(made);
    return rc;
}

/* ---- all of it ---- */

/* What an interruption left of our models under temporary names, and of copied files: gigabytes each. */
static void remove_leftovers(const struct rig *g)
{
    static const char *const begins[] = {"f16.part-", "f16-pruned.part-", "q8_0.gguf.part-", "q4_0.gguf.part-", "copy-rate-"};
    DIR *d = opendir(g->dir);
    for (struct dirent *e; d && (e = readdir(d));)
        for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
            struct err none = {0};
            char *path = strncmp(e->d_name, begins[i], strlen(begins[i])) ? NULL : path_join(g->dir, e->d_name, &none);
            if (path && path_is_dir(path))
                dir_remove(path);
            else if (path)
                unlink(path);
            free(path);
        }
    if (d)
        closedir(d);
}

static int rig_open(struct rig *g, const char *out, struct err *err)
{
    char name[128], *stages = NULL;
    json_t *root = json_read(g->shape, err);
    int rc = root ? config_from_json(&g->cfg, root, g->shape, err) : -1;
    json_decref(root);
    if (rc != 0 || file_sha256(g->config, g->shape, err) != 0 || file_sha256(g->program, "/proc/self/exe", err) != 0)
        return -1;
    snprintf(name, sizeof name, "%s", path_base(g->shape));
    if (path_has_suffix(name, ".json"))
        name[strlen(name) - 5] = 0;
    if (!(g->dir = path_join(out, name, err)) || !(stages = path_join(g->dir, "stages", err)))
        return -1;
    rc = dir_make(stages, err);
    free(stages);
    g->whole = path_join(g->dir, "f16", err);
    g->pruned = path_join(g->dir, "f16-pruned", err);
    g->ids = path_join(g->dir, "ids.json", err);
    return rc == 0 && g->whole && g->pruned && g->ids ? 0 : -1;
}

static void rig_close(struct rig *g)
{
    struct bench_records *r = &g->r;
    json_t *records[] = {r->synth, r->prune, r->score, r->score_bf16, r->taylor, r->first_token};
    for (size_t i = 0; i < sizeof records / sizeof *records; i++)
        json_decref(records[i]);
    for (int k = 0; k < BENCH_DTYPES; k++)
        json_decref(r->decode[k]);
    for (int which = 0; which < BENCH_MODELS; which++) {
        for (int k = 0; k < BENCH_BATCHES; k++)
            json_decref(r->speed[which][k]);
        for (int k = 0; k < BENCH_TURNS; k++)
            json_decref(r->turns[which][k]);
    }
    free(g->dir);
    free(g->whole);
    free(g->pruned);
    free(g->ids);
}

/* The first shape of the list that there is room for; what is said of the others is a remark. */
static int choose_shape(struct rig *g, char *list, const char *out, struct cli *cli, const struct common *o, struct err *err)
{
    char *rest = NULL, *shape = strtok_r(list, ",", &rest);
    while (shape) {
        char *next = strtok_r(NULL, ",", &rest);
        struct err full = {0};
        *g = (struct rig){.cli = cli, .shape = shape};
        snprintf(g->threads, sizeof g->threads, "%lld", (long long)o->threads);
        if (rig_open(g, out, err) != 0)
            return -1;
        remove_leftovers(g);
        if (check_room(g, &full) == 0)
            return 0;
        if (!next)
            return err_set(err, "%s", full.msg);
        progress_say(&cli->progress, "%s; the next shape is tried", full.msg);
        rig_close(g);
        shape = next;
    }
    return err_usage(err, "--shape: one config.json or several were expected, with commas between them");
}

static int finish(struct rig *g, struct err *err)
{
    char *path = path_join(g->dir, "bench.json", err);
    struct cli *cli = g->cli;
    char name[128];
    snprintf(name, sizeof name, "%s", path_base(g->dir));
    cli->result = bench_table(cli->json ? NULL : cli->out, name, &g->r);
    json_object_set_new(cli->result, "stages", json_integer(g->stages));
    json_object_set_new(cli->result, "reused_stages", json_integer(g->reused));
    int rc = path ? json_write(path, cli->result, err) : -1;
    if (rc == 0 && cli->out && !cli->json)
        fprintf(cli->out, "\n%d stages, %d of them on record before; %s\n", g->stages, g->reused, path);
    free(path);
    return rc;
}

int bench_shapes(struct cli *cli, const struct common *o, const char *shapes, const char *dir, struct err *err)
{
    struct rig g = {0};
    char *list = strdup(shapes);
    int rc = -1;
    if (!list)
        return err_set(err, "out of memory");
    if (choose_shape(&g, list, dir, cli, o, err) == 0 && make_whole(&g, err) == 0 && pruned_stages(&g, err) == 0 &&
        whole_stages(&g, err) == 0 && quantised_stage(&g, 1, err) == 0 && quantised_stage(&g, 2, err) == 0 &&
        scoring_stages(&g, err) == 0)
        rc = finish(&g, err);
    rig_close(&g);
    free(list);
    return rc;
}
