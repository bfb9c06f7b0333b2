/* `espalier eval speed`: how fast a model generates, for one sequence and for several that are decoded together. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/rng.h"
#include "eval/speed.h"

struct speed_words {
    const char *prompt, *batch;
    struct speed_protocol p; /* but for the batch */
    int64_t batches[SPEED_MAX_BATCH];
    int n_batches;
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

static int check(struct speed_words *w, struct err *err)
{
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

static void print_row(FILE *out, int64_t batch, const struct speed_result *r)
{
    fprintf(out, "%5lld %9.1f tok/s %9.1f tok/s %10.3f s +- %5.3f s %9.1f tok/s %8.1f MiB\n", (long long)batch, r->prefill_tok_s,
            r->decode_tok_s, r->latency_s, r->latency_std, r->throughput_tok_s, (double)mem_peak_rss() / (1 << 20));
    fflush(out);
}

static json_t *row_json(int64_t batch, const struct speed_result *r)
{
    return json_pack("{sI sf sf sf sf sf sI sI}", "batch", (json_int_t)batch, "prefill_tok_s", r->prefill_tok_s, "decode_tok_s",
                     r->decode_tok_s, "latency_s", r->latency_s, "latency_std", r->latency_std, "throughput_tok_s",
                     r->throughput_tok_s, "bytes_per_token", (json_int_t)r->bytes_per_token, "peak_rss_bytes",
                     (json_int_t)mem_peak_rss());
}

/* The result: the first batch's figures, and in "batches" those of each; a batch's peak memory includes the ones before it. */
static int measure(json_t *result, struct speed_words *w, struct session *s, struct cli *cli, uint64_t seed, struct err *err)
{
    int32_t *prompts = mem_alloc((size_t)w->p.n_prompt, SPEED_MAX_BATCH * sizeof *prompts, err);
    int rc = prompts ? make_prompts(prompts, w, s, seed, err) : -1;
    json_t *rows = json_array();
    FILE *table = cli->json ? NULL : cli->out;
    if (rc == 0 && table)
        print_heading(table, w, s);
    for (int i = 0; rc == 0 && i < w->n_batches; i++) {
        struct speed_result r;
        w->p.batch = w->batches[i];
        rc = speed_measure(&r, NULL, &s->m, &s->c, s->adapter, prompts, &w->p, &cli->progress, err);
        if (rc != 0)
            break;
        if (table)
            print_row(table, w->p.batch, &r);
        json_t *row = row_json(w->p.batch, &r);
        if (i == 0) {
            json_object_update(result, row);
            json_object_set_new(result, "first_token_s", json_real(r.first_token_at - s->started));
        }
        json_array_append_new(rows, row);
    }
    json_object_update_new(result, json_pack("{so sI sI sI sI}", "batches", rows, "in_len", (json_int_t)w->p.n_prompt, "out_len",
                                             (json_int_t)w->p.out_len, "runs", (json_int_t)w->p.runs, "model_bytes",
                                             (json_int_t)source_bytes(&s->m.src)));
    free(prompts);
    return rc;
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
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (check(&w, err) != 0)
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
    if (rc == 0)
        rc = measure(result, &w, &s, cli, (uint64_t)o.seed, err);
    if (rc == 0 && (cli->result = session_facts(&s, cli, &o)))
        json_object_update(cli->result, result);
    json_decref(result);
    session_close(&s);
    return rc;
}
