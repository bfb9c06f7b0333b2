/* What the stages of `espalier bench --shape` tell, as tables and as JSON. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench_shape.h"
#include "core/base/file.h"
#include "core/base/json.h"

enum { MAX_LINES = 16 };

/* A line of the first table. */
struct line {
    const char *name, *what, *aim;
    double value; /* in the aim's unit; NaN: not measured */
    char reached[160];
};

struct lines {
    struct line line[MAX_LINES];
    int n;
};

static const double GIB = 1 << 30;

/* ---- reading records ---- */

static double number(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const json_t *result(const json_t *record)
{
    return json_object_get(record, "result");
}

/* The one figure of a `bench --only` stage. */
static const json_t *figure(const json_t *record)
{
    return json_array_get(json_object_get(result(record), "figures"), 0);
}

/* ---- the lines ---- */

__attribute__((format(printf, 6, 7))) static void add(struct lines *l, const char *name, const char *what, const char *aim,
                                                      double value, const char *fmt, ...)
{
    struct line *to = &l->line[l->n++];
    *to = (struct line){.name = name, .what = what, .aim = aim, .value = value};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(to->reached, sizeof to->reached, fmt, ap);
    va_end(ap);
}

static void add_memory(struct lines *l, const char *name, const char *what, const char *aim, const json_t *record)
{
    double gib = number(record, "peak_rss_bytes") / GIB;
    add(l, name, what, aim, gib, "%.2f GiB, %.0f s in all", gib, number(record, "seconds"));
}

/* A rate against the limit that was tried all along, in units of 10^9: the median of its tries, and the best one. */
static void add_share(struct lines *l, const char *name, const char *what, const char *aim, const json_t *record, const char *unit)
{
    const json_t *f = figure(record);
    double rate = number(f, "rate"), limit = number(f, "limit");
    add(l, name, what, aim, 100 * rate / limit, "%.0f %% (%.1f of %.1f %s, at best %.1f; %.1f tokens/s)", 100 * rate / limit,
        1e-9 * rate, 1e-9 * limit, unit, 1e-9 * number(f, "best_limit"), number(f, "tokens_per_s"));
}

static void add_scoring(struct lines *l, const struct bench_records *r)
{
    add_memory(l, "ppl_memory", "perplexity scores of all blocks, 10 x 128 tokens: memory", "<= 3 GiB", r->score);
    add_memory(l, "taylor_memory", "Taylor scores: memory", "<= 4 GiB", r->taylor);
    add_share(l, "ppl_sgemm", "perplexity scores: of sgemm", ">= 80 %", r->score, "GFLOPS");
    double times = number(figure(r->score_bf16), "rate") / number(figure(r->score), "rate");
    if (r->score_bf16)
        add(l, "ppl_bf16", "the same with --compute bf16", ">= 3 times as fast", times, "%.2f times as fast", times);
    else
        add(l, "ppl_bf16", "the same with --compute bf16", ">= 3 times as fast", NAN, "no AMX on this machine");
}

/* Seconds a token that all turns took together. */
static double turns(const struct bench_records *r, int which)
{
    double seconds = 0;
    for (int k = 0; k < BENCH_TURNS; k++)
        seconds += 1 / number(result(r->turns[which][k]), "decode_tok_s");
    return seconds;
}

static void add_decoding(struct lines *l, const struct bench_records *r)
{
    static const char *const names[BENCH_DTYPES] = {"decode_f16", "decode_q8_0", "decode_q4_0"};
    static const char *const whats[BENCH_DTYPES] = {"decoding f16: of the read bandwidth", "decoding q8_0: the same",
                                                    "decoding q4_0: the same"};
    static const char *const aims[BENCH_DTYPES] = {">= 90 %", ">= 85 %", ">= 80 %"};
    for (int k = 0; k < BENCH_DTYPES; k++)
        if (r->decode[k])
            add_share(l, names[k], whats[k], aims[k], r->decode[k], "GB/s");
        else
            add(l, names[k], whats[k], aims[k], NAN, "needs %.1f GiB of free memory", r->needed[k] / GIB);
    double times = turns(r, BENCH_WHOLE) / turns(r, BENCH_PRUNED);
    double first = number(result(r->first_token), "first_token_s");
    if (isfinite(times))
        add(l, "decode_pruned", "decoding without a fifth of the blocks, against all, in turns", ">= 1.2 times", times,
            "%.3f times", times);
    if (isfinite(first))
        add(l, "first_token", "from the start to the first token, 12 tokens in, from the page cache", "<= 2 s", first, "%.2f s",
            first);
}

static void add_prune(struct lines *l, const struct bench_records *r)
{
    const json_t *p = result(r->prune);
    double bytes = number(p, "written_bytes"), write = bytes / number(p, "write_s"), disk = number(r->prune, "disk_rate");
    add_memory(l, "prune_memory", "prune to disk: memory", "<= 1 GiB", r->prune);
    add(l, "prune_speed", "prune to disk: of the disk's copying", "the disk's", 100 * write / disk,
        "%.0f %% (%.0f of %.0f MB/s; then %.0f s to read it back)", 100 * write / disk, 1e-6 * write, 1e-6 * disk,
        number(p, "check_s"));
}

static json_t *lines_json(const struct lines *l)
{
    json_t *list = json_array();
    for (int i = 0; i < l->n; i++) {
        const struct line *k = &l->line[i];
        json_array_append_new(list, json_pack("{ss ss so ss ss}", "name", k->name, "what", k->what, "value",
                                              isfinite(k->value) ? json_real(k->value) : json_null(), "reached", k->reached, "aim",
                                              k->aim));
    }
    return list;
}

/* ---- the machine ---- */

/* The processor's name as the system tells it. */
static void processor(char *name, size_t size)
{
    char *text, *at;
    size_t n;
    struct err none = {0};
    snprintf(name, size, "unknown processor");
    if (file_read(&text, &n, "/proc/cpuinfo", &none) != 0)
        return;
    if ((at = strstr(text, "model name")) && (at = strchr(at, ':'))) {
        at += strspn(at, ": \t");
        snprintf(name, size, "%.*s", (int)strcspn(at, "\n"), at);
    }
    free(text);
}

static json_t *machine(const struct bench_records *r)
{
    char name[128];
    const json_t *facts = result(r->score);
    processor(name, sizeof name);
    return json_pack("{so sO sO sO}", "processor", json_text(name), "isa", json_object_get(facts, "isa"), "blas",
                     json_object_get(facts, "blas"), "threads", json_object_get(facts, "threads"));
}

/* ---- speed ---- */

static void model_name(char name[32], const struct bench_records *r, int which)
{
    double params = which == BENCH_WHOLE ? number(result(r->synth), "n_params") : number(result(r->prune), "params_after");
    snprintf(name, 32, params >= 1e9 ? "%.2fB" : "%.2fM", params >= 1e9 ? 1e-9 * params : 1e-6 * params);
}

static json_t *speed_json(const struct bench_records *r)
{
    static const char *const keys[] = {"model_bytes",      "prefill_tok_s",  "decode_tok_s",    "latency_s",
                                       "throughput_tok_s", "peak_rss_bytes", "bytes_per_token", "runs"};
    json_t *list = json_array();
    for (int which = 0; which < BENCH_MODELS; which++)
        for (int k = 0; k < BENCH_BATCHES; k++) {
            const json_t *from = result(r->speed[which][k]);
            char name[32];
            if (!from)
                continue;
            model_name(name, r, which);
            json_t *row = json_pack("{ss sO}", "model", name, "batch", json_object_get(from, "batch"));
            for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
                json_object_set(row, keys[i], json_object_get(from, keys[i]));
            json_array_append_new(list, row);
        }
    return list;
}

static void print_tables(FILE *out, const char *shape, const json_t *root, const struct lines *l)
{
    const json_t *m = json_object_get(root, "machine"), *row;
    size_t i;
    fprintf(out, "| %s, random weights in f16; %s, %lld threads, %s | reached | aim |\n|---|---|---|\n", shape,
            json_string_value(json_object_get(m, "processor")), (long long)json_integer_value(json_object_get(m, "threads")),
            json_string_value(json_object_get(m, "isa")));
    for (int k = 0; k < l->n; k++)
        fprintf(out, "| %s | %s | %s |\n", l->line[k].what, l->line[k].reached, l->line[k].aim);
    fprintf(out,
            "\n| 12 tokens in, 128 out | file | batch | prefill, tokens/s | decode, tokens/s | latency | tokens/s in all | memory "
            "|\n|---|---|---|---|---|---|---|---|\n");
    json_array_foreach(json_object_get(root, "speed"), i, row)
        fprintf(out, "| %s | %.2f GB | %lld | %.1f | %.2f | %.1f s | %.2f | %.2f GiB |\n",
                json_string_value(json_object_get(row, "model")), 1e-9 * number(row, "model_bytes"),
                (long long)json_integer_value(json_object_get(row, "batch")), number(row, "prefill_tok_s"),
                number(row, "decode_tok_s"), number(row, "latency_s"), number(row, "throughput_tok_s"),
                number(row, "peak_rss_bytes") / GIB);
}

json_t *bench_table(FILE *out, const char *shape, const struct bench_records *r)
{
    struct lines l = {.n = 0};
    add_scoring(&l, r);
    add_decoding(&l, r);
    add_prune(&l, r);
    json_t *root =
        json_pack("{ss so so so}", "shape", shape, "machine", machine(r), "figures", lines_json(&l), "speed", speed_json(r));
    if (out)
        print_tables(out, shape, root, &l);
    return root;
}
