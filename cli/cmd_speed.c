/* `espalier eval speed`: how fast a model generates, for one sequence and for several that are decoded together. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/json.h"
#include "core/base/rng.h"
#include "eval/speed.h"

struct speed_words {
    const char *prompt, *batch;
    struct speed_protocol p; /* but for the batch */
    int64_t batches[SPEED_MAX_BATCH];
    int n_batches;
    struct opt_list drop;
    struct model *views; /* [drop.n]: with several --drop, the model without each */
};

static const char *const leaning_tower = "The Leaning Tower of Pisa is known for";

/* "1,4,16" */
static int parse_batches(struct speed_words *w, struct err *err)
{
    for (const char *p = w->batch;; p++) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || v < 1 || v > SPEED_MAX_BATCH || w->n_batches == SPEED_MAX_BATCH)
            return err_usage(err, "--batch %s: up to %d numbers from 1 to %d, with commas between them, were expected", w->batch,
                             SPEED_MAX_BATCH, SPEED_MAX_BATCH);
        w->batches[w->n_batches++] = v;
        p = end;
        if (!*p)
            return 0;
    }
}

/* One --drop is the common option, several need a whole model. */
static int check(struct speed_words *w, struct common *o, struct err *err)
{
    if (w->drop.n > 1 && o->adapter)
        return err_usage(err, "--adapter goes with one --drop, as it was trained for one of them");
    o->drop = w->drop.n == 1 && *w->drop.value[0] ? w->drop.value[0] : NULL;
    const struct speed_protocol *p = &w->p;
    if (p->n_prompt < 1 || p->out_len < 2 || p->warmup < 0 || p->runs < 1)
        return err_usage(err, "--in-len %lld, --out-len %lld, --warmup %lld, --runs %lld: at least 1, 2, 0 and 1 were expected",
                         (long long)p->n_prompt, (long long)p->out_len, (long long)p->warmup, (long long)p->runs);
    return parse_batches(w, err);
}

/* The tokens of a text, again and again, for every sequence the same ones; random ones where there is no tokenizer to ask. */
static int make_prompts(int32_t *prompts, const struct speed_words *w, const struct session *s, uint64_t seed, struct err *err)
{
    const char *text = w->prompt ? w->prompt : leaning_tower;
    int64_t n = w->p.n_prompt;
    struct ids ids = {0};
    struct rng rng;
    rng_seed(&rng, seed);
    if (w->prompt && !s->t)
        return err_set(err, "%s: --prompt needs a tokenizer, and there is none beside the model", s->m.path);
    if (s->t && tokenizer_encode(&ids, s->t, text, strlen(text), err) != 0)
        return -1;
    if (s->t && ids.n == 0)
        return err_set(err, "--prompt holds no tokens");
    for (int64_t i = 0; i < n; i++)
        prompts[i] = s->t ? ids.ids[i % (int64_t)ids.n] : (int32_t)rng_below(&rng, s->m.cfg.vocab_size);
    for (int64_t k = 1; k < SPEED_MAX_BATCH; k++)
        memcpy(prompts + k * n, prompts, (size_t)n * sizeof *prompts);
    free(ids.ids);
    return 0;
}

static void print_heading(FILE *out, const struct speed_words *w, const struct session *s)
{
    fprintf(out, "%lld tokens in%s, %lld out, %lld runs after %lld; %.1f MB of files, %.1f MB of weights a step\n",
            (long long)w->p.n_prompt, s->t ? "" : " (random ones: there is no tokenizer)", (long long)w->p.out_len,
            (long long)w->p.runs, (long long)w->p.warmup, 1e-6 * (double)source_bytes(&s->m.src),
            1e-6 * (double)speed_bytes_per_step(&s->m, 1));
    fprintf(out, "%5s %15s %15s %22s %15s %12s\n", "batch", "prefill", "decode", "latency", "throughput", "peak memory");
}

/* One model's figures; with several, which it is and how it compares with the first. */
static void print_row(FILE *out, const struct speed_words *w, int k, const struct speed_result *r)
{
    fprintf(out, "%5lld %9.1f tok/s %9.1f tok/s %10.3f s +- %5.3f s %9.1f tok/s %8.1f MiB", (long long)w->p.batch, r->prefill_tok_s,
            r->decode_tok_s, r->latency_s, r->latency_std, r->throughput_tok_s, (double)mem_peak_rss() / (1 << 20));
    if (w->drop.n > 1)
        fprintf(out, "  without blocks %s: decode +- %.1f tok/s, %.3f +- %.3f of the first's",
                *w->drop.value[k] ? w->drop.value[k] : "(none)", r->decode_std, r->ratio, r->ratio_std);
    fputc('\n', out);
    fflush(out);
}

static json_t *row_json(const struct speed_words *w, const struct speed_result *r)
{
    json_t *row = json_pack("{sI sf sf sf sf sf sf sI sI}", "batch", (json_int_t)w->p.batch, "prefill_tok_s", r->prefill_tok_s,
                            "decode_tok_s", r->decode_tok_s, "decode_std", r->decode_std, "latency_s", r->latency_s, "latency_std",
                            r->latency_std, "throughput_tok_s", r->throughput_tok_s, "bytes_per_token",
                            (json_int_t)r->bytes_per_token, "peak_rss_bytes", (json_int_t)mem_peak_rss());
    if (w->drop.n > 1)
        json_object_update_new(row, json_pack("{sf sf}", "decode_ratio", r->ratio, "decode_ratio_std", r->ratio_std));
    return row;
}

/* Adds a batch's figures to a model's object: the first batch's to the object itself, each one's to "batches". */
static void add_row(json_t *model, const struct speed_words *w, const struct speed_result *r)
{
    json_t *row = row_json(w, r), *rows = json_object_get(model, "batches");
    if (!rows) {
        json_object_update(model, row);
        json_object_set_new(model, "batches", rows = json_array());
    }
    json_array_append_new(rows, row);
}

static int measure_batch(struct speed_result *r, const struct speed_words *w, const struct session *s, const int32_t *prompts,
                         struct cli *cli, struct err *err)
{
    const struct model *models[OPT_MAX_VALUES];
    if (w->drop.n < 2)
        return speed_measure(r, NULL, &s->m, &s->c, s->adapter, prompts, &w->p, &cli->progress, err);
    for (int k = 0; k < w->drop.n; k++)
        models[k] = &w->views[k];
    return speed_measure_turns(r, models, w->drop.n, &s->c, prompts, &w->p, &cli->progress, err);
}

/* The result: a model's figures, or with several --drop a list "variants" of such; a batch's peak memory includes the
 * ones before. */
static int measure(json_t *result, struct speed_words *w, struct session *s, struct cli *cli, uint64_t seed, struct err *err)
{
    struct speed_result r[OPT_MAX_VALUES];
    int32_t *prompts = mem_alloc((size_t)w->p.n_prompt, SPEED_MAX_BATCH * sizeof *prompts, err);
    int rc = prompts ? make_prompts(prompts, w, s, seed, err) : -1;
    bool several = w->drop.n > 1;
    json_t *variants = json_array();
    FILE *table = cli->json ? NULL : cli->out;
    for (int k = 0; several && k < w->drop.n; k++)
        json_array_append_new(variants, json_pack("{so}", "drop", json_text(w->drop.value[k])));
    if (rc == 0 && table)
        print_heading(table, w, s);
    for (int i = 0; rc == 0 && i < w->n_batches; i++) {
        w->p.batch = w->batches[i];
        if ((rc = measure_batch(r, w, s, prompts, cli, err)) != 0)
            break;
        for (int k = 0; k < (several ? w->drop.n : 1); k++) {
            if (table)
                print_row(table, w, k, &r[k]);
            add_row(several ? json_array_get(variants, (size_t)k) : result, w, &r[k]);
        }
        if (i == 0)
            json_object_set_new(result, "first_token_s", json_real(r[0].first_token_at - s->started));
    }
    if (several)
        json_object_set(result, "variants", variants);
    json_decref(variants);
    json_object_update_new(result,
                           json_pack("{sI sI sI sI}", "in_len", (json_int_t)w->p.n_prompt, "out_len", (json_int_t)w->p.out_len,
                                     "runs", (json_int_t)w->p.runs, "model_bytes", (json_int_t)source_bytes(&s->m.src)));
    free(prompts);
    return rc;
}

/* Several --drop: a view of the model for each. */
static int open_views(struct speed_words *w, const struct session *s, struct err *err)
{
    if (w->drop.n < 2)
        return 0;
    w->views = calloc((size_t)w->drop.n, sizeof *w->views);
    if (!w->views)
        return err_set(err, "out of memory");
    for (int k = 0; k < w->drop.n; k++)
        if (model_view(&w->views[k], &s->m, err) != 0 ||
            (*w->drop.value[k] && model_drop_list(&w->views[k], w->drop.value[k], err) != 0))
            return -1;
    return 0;
}

static void close_views(struct speed_words *w)
{
    for (int k = 0; w->views && k < w->drop.n; k++)
        model_view_free(&w->views[k]);
    free(w->views);
}

int cmd_eval_speed(struct cli *cli, struct err *err)
{
    struct speed_words w = {.batch = "1", .p = {.n_prompt = 12, .out_len = 128, .warmup = 2, .runs = 5}};
    struct opt own[] = {
        {OPT_STRING, "batch", &w.batch, "1,4,16", "sequences that are decoded together; each number is measured"},
        {OPT_INT, "in-len", &w.p.n_prompt, "N", "prompt tokens of a sequence"},
        {OPT_INT, "out-len", &w.p.out_len, "N", "new tokens of a sequence"},
        {OPT_STRING, "prompt", &w.prompt, "TEXT", "what the prompt's tokens are taken from, again and again"},
        {OPT_INT, "warmup", &w.p.warmup, "N", "runs before the clock starts"},
        {OPT_INT, "runs", &w.p.runs, "N", "timed runs"},
        {OPT_LIST, "drop", &w.drop, "10,11", "run without these blocks; again and again for several models, timed in turns"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (check(&w, &o, err) != 0)
        return -1;
    if (cli->checking)
        return 0;
    if (session_open(&s, &o, words.word[0], 0, err) != 0)
        return -1;
    json_t *result = json_object();
    int64_t most = s.m.cfg.context_length;
    if (w.p.n_prompt > most || w.p.out_len > most - w.p.n_prompt)
        rc = err_usage(err, "--in-len %lld and --out-len %lld: %s has %lld positions", (long long)w.p.n_prompt,
                       (long long)w.p.out_len, s.m.path, (long long)most);
    if (rc == 0 && (rc = open_views(&w, &s, err)) == 0)
        rc = measure(result, &w, &s, cli, (uint64_t)o.seed, err);
    if (rc == 0 && (cli->result = session_facts(&s, cli, &o)))
        json_object_update(cli->result, result);
    json_decref(result);
    close_views(&w);
    session_close(&s);
    return rc;
}
