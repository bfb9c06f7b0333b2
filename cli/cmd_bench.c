#include <stdlib.h>
#include <string.h>

#include "core/base/dir.h"
#include "cli/bench_shape.h"
#include "core/base/rng.h"
#include "core/model/stream.h"
#include "eval/bench.h"
#include "eval/generate.h"
#include "eval/speed.h"
#include "prune/score.h"
#include "train/trainer.h"

/* One line of the table: a rate, the limit it is a share of, and what was aimed at. */
struct figure {
    const char *what, *unit;
    double rate, limit, aim;
    double tokens_per_s;
};

/* What is measured asks for tries of its limit where it has a pause: through cli->progress, or itself between its runs. */
typedef int bench_fn(struct cli *cli, struct figure *f, const struct session *s, struct limit *beside, struct err *err);

static int bench_one(struct cli *cli, json_t *list, const struct session *s, bench_fn *fn, enum limit_kind which, struct err *err)
{
    struct figure figure, *f = &figure;
    struct limit *limit = limit_open(which, &s->c, err);
    if (!limit)
        return -1;
    limit_try(limit);
    cli->progress.pause = limit_try_beside;
    cli->progress.pause_arg = limit;
    int rc = fn(cli, f, s, limit, err);
    cli->progress.pause = NULL;
    limit_try(limit);
    f->limit = limit_median(limit);
    double best = limit_best(limit);
    limit_close(limit);
    if (rc != 0)
        return -1;
    json_array_append_new(list, json_pack("{ss sf sf sf sf sf}", "what", f->what, "rate", f->rate, "limit", f->limit, "best_limit",
                                          best, "share", f->rate / f->limit, "tokens_per_s", f->tokens_per_s));
    if (cli->out && !cli->json) {
        fprintf(cli->out, "%-30s %8.1f %8.1f %8.1f %-7s %5.1f %%  %5.0f %%  %9.1f\n", f->what, 1e-9 * f->rate, 1e-9 * f->limit,
                1e-9 * best, f->unit, 100 * f->rate / f->limit, 100 * f->aim, f->tokens_per_s);
        fflush(cli->out);
    }
    return 0;
}

static void random_ids(int32_t *ids, int64_t n, int64_t vocab)
{
    struct rng rng;
    rng_seed(&rng, 1);
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)rng_below(&rng, vocab);
}

static int bench_scoring(struct cli *cli, struct figure *f, const struct session *s, struct limit *beside, struct err *err)
{
    (void)beside;
    enum { SAMPLES = 10, LEN = 128 };
    int32_t ids[SAMPLES * LEN];
    int64_t zeros[SAMPLES] = {0};
    struct calibration cal = {.n = SAMPLES, .len = LEN, .ids = ids, .documents = zeros, .offsets = zeros};
    struct scores scores = {0};
    random_ids(ids, SAMPLES * LEN, s->m.cfg.vocab_size);
    double start = progress_clock(&cli->progress);
    const struct criterion *ppl = criterion_find("ppl", err);
    struct score_options o = {0};
    if (score_run(&scores, &ppl, 1, &o, &s->m, &s->c, NULL, &cal, NULL, &cli->progress, err) != 0)
        return -1;
    double seconds = progress_clock(&cli->progress) - start;
    *f = (struct figure){"scoring, 10 x 128 tokens",
                         "GFLOPS",
                         score_walk_ppl_flops(&s->m, SAMPLES * LEN, LEN) / seconds,
                         0,
                         0.65,
                         (double)(s->m.n_order * SAMPLES * LEN) / seconds};
    scores_free(&scores);
    return 0;
}

static int bench_training(struct cli *cli, struct figure *f, const struct session *s, struct limit *beside, struct err *err)
{
    (void)beside;
    enum { ROWS = 32, LEN = 200, PROMPT = 60, STEPS = 3 };
    struct instruction_row rows[ROWS];
    int32_t ids[ROWS * LEN], labels[ROWS * LEN];
    struct instructions train = {.rows = rows, .n = ROWS}, none = {0};
    struct train_options o = {.lr = 1e-4, .clip = 1, .steps = STEPS, .batch = 16, .micro_batch = 4, .cutoff = 256, .shuffle = true};
    struct lora_set l = {0};
    struct train_result r;
    struct rng rng;
    bool all[PROJ_COUNT] = {true, true, true, true, true, true, true};
    char dir[] = "/tmp/espalier-bench-XXXXXX";
    random_ids(ids, ROWS * LEN, s->m.cfg.vocab_size);
    for (int64_t i = 0; i < ROWS * LEN; i++)
        labels[i] = i % LEN < PROMPT ? LABEL_NONE : ids[i];
    for (int64_t i = 0; i < ROWS; i++)
        rows[i] = (struct instruction_row){ids + i * LEN, labels + i * LEN, LEN};
    rng_seed(&rng, 1);
    if (!mkdtemp(dir))
        return err_errno(err, "%s", dir);
    int rc = -1;
    json_t *facts = json_object();
    if (lora_create(&l, &s->m, 8, 16, 0.05, all, true, err) == 0) {
        lora_init(&l, &s->m, &rng);
        rc = train_lora(&r, &l, &s->m, &s->c, &train, &none, &o, dir, facts, &cli->progress, err);
    }
    json_decref(facts);
    lora_free(&l);
    dir_remove(dir);
    if (rc != 0)
        return -1;
    *f = (struct figure){"LoRA training, 16 rows a step", "GFLOPS", r.flops / r.seconds, 0, 0.50, (double)r.tokens / r.seconds};
    return 0;
}

static int bench_prefill(struct cli *cli, struct figure *f, const struct session *s, struct limit *beside, struct err *err)
{
    (void)cli;
    enum { LEN = 512, TRIES = 5 };
    int32_t ids[LEN];
    struct generator g;
    random_ids(ids, LEN, s->m.cfg.vocab_size);
    if (generator_open(&g, &s->m, &s->c, NULL, LEN, err) != 0)
        return -1;
    double seconds = 0;
    int rc = 0;
    for (int i = 0; i < TRIES && rc == 0; i++) {
        double start = clock_seconds();
        generator_reset(&g);
        rc = generator_feed(&g, ids, LEN, err);
        seconds += (clock_seconds() - start) / TRIES;
        limit_try(beside);
    }
    generator_close(&g);
    const struct config *c = &s->m.cfg;
    double attention = 2.0 * (double)(c->n_heads * c->head_dim) * (LEN + 1) * LEN;
    double flops =
        2.0 * (double)model_running_params(&s->m) * LEN + (double)s->m.n_order * attention + 2.0 * (double)(c->vocab_size * c->dim);
    *f = (struct figure){"prefill of 512 tokens", "GFLOPS", flops / seconds, 0, 0.65, LEN / seconds};
    return rc;
}

static int bench_decode(struct cli *cli, struct figure *f, const struct session *s, struct limit *beside, struct err *err)
{
    (void)beside;
    int32_t prompt[12];
    struct speed_result r;
    random_ids(prompt, 12, s->m.cfg.vocab_size);
    bool large = model_bytes(&s->m) > (size_t)1 << 30; /* tells its speed in fewer tokens */
    const struct speed_protocol p = {.batch = 1, .n_prompt = 12, .out_len = large ? 32 : 128, .warmup = 1, .runs = large ? 2 : 3};
    if (speed_measure(&r, NULL, &s->m, &s->c, NULL, prompt, &p, &cli->progress, err) != 0)
        return -1;
    *f = (struct figure){"decode, batch 1", "GB/s", r.decode_tok_s * (double)r.bytes_per_token, 0, 0.70, r.decode_tok_s};
    return 0;
}

/* In the order they are run. */
static const struct bench {
    const char *name;
    bench_fn *fn;
    enum limit_kind limit;
} benches[] = {
    {"decode", bench_decode, LIMIT_READING},
    {"prefill", bench_prefill, LIMIT_SGEMM},
    {"training", bench_training, LIMIT_SGEMM},
    {"scoring", bench_scoring, LIMIT_SGEMM},
};
enum { N_BENCHES = sizeof benches / sizeof *benches };

/* "decode,scoring" to chosen[]; NULL: all of them. */
static int choose(bool chosen[N_BENCHES], const char *list, struct err *err)
{
    for (int i = 0; i < N_BENCHES; i++)
        chosen[i] = !list;
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        size_t n = strcspn(p, ",");
        int i = 0;
        while (i < N_BENCHES && (strlen(benches[i].name) != n || strncmp(benches[i].name, p, n)))
            i++;
        if (i == N_BENCHES)
            return err_usage(err, "--only %s: some of decode, prefill, training, scoring were expected, with commas between them",
                             list);
        chosen[i] = true;
    }
    return 0;
}

static int bench_model(struct cli *cli, const struct common *o, const char *model, const char *only, struct err *err)
{
    bool chosen[N_BENCHES];
    struct session s;
    int rc = 0;
    if (choose(chosen, only, err) != 0)
        return -1;
    if (session_open(&s, o, model, only && !strcmp(only, "scoring") ? BLOCKWISE : 0, err) != 0)
        return -1;
    json_t *list = json_array();
    if (cli->out && !cli->json)
        fprintf(cli->out, "%s, OpenBLAS %s, %d threads\n%-30s %8s %8s %8s %-7s %7s  %7s  %9s\n", s.c.rows->isa, gemm_backend(),
                pool_threads(s.c.pool), "", "reached", "limit", "its best", "", "share", "aim", "tokens/s");
    for (int i = 0; i < N_BENCHES && rc == 0; i++)
        if (chosen[i])
            rc = bench_one(cli, list, &s, benches[i].fn, benches[i].limit, err);
    cli->result = session_facts(&s, cli, o);
    json_object_set_new(cli->result, "figures", list);
    session_close(&s);
    return rc;
}

int cmd_bench(struct cli *cli, struct err *err)
{
    const char *only = NULL, *shapes = NULL, *out = NULL;
    struct opt own[] = {
        {OPT_STRING, "only", &only, "WHAT", "some of decode,prefill,training,scoring"},
        {OPT_STRING, "shape", &shapes, "CONFIG,...",
         "instead of a MODEL: all stages on random weights of this shape, or the next "
         "where the disk has no room for it"},
        {OPT_STRING, "out", &out, "DIR",
         "with --shape: folder for the checkpoint and the results; finished stages are not run again"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    int rc = command_parse(cli, &words, own, &o, 0, 0, 1, "MODEL [--only WHAT] | --shape CONFIG --out DIR", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (shapes ? words.n || only || !out : words.n != 1 || out)
        return err_usage(err, "bench needs either a MODEL or --shape and --out");
    return shapes ? bench_shapes(cli, &o, shapes, out, err) : bench_model(cli, &o, words.word[0], only, err);
}
