#include <math.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "core/base/rng.h"
#include "eval/bench.h"
#include "eval/speed.h"
#include "prune/score_ppl.h"
#include "train/trainer.h"

/* One line of the table: a rate, the limit it is a share of, and what was aimed at. */
struct figure {
    const char *what, *unit;
    double rate, limit, aim;
    double tokens_per_s;
};

static void show(struct cli *cli, json_t *list, const struct figure *f)
{
    json_array_append_new(list, json_pack("{ss sf sf sf sf}", "what", f->what, "rate", f->rate, "limit", f->limit, "share",
                                          f->rate / f->limit, "tokens_per_s", f->tokens_per_s));
    if (cli->out && !cli->json) {
        fprintf(cli->out, "%-28s %8.1f %-8s %5.1f %%  (aim %.0f %%)  %10.1f tokens/s\n", f->what, 1e-9 * f->rate, f->unit,
                100 * f->rate / f->limit, 100 * f->aim, f->tokens_per_s);
        fflush(cli->out);
    }
}

static void random_ids(int32_t *ids, int64_t n, int64_t vocab)
{
    struct rng rng;
    rng_seed(&rng, 1);
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)rng_below(&rng, vocab);
}

static int bench_scoring(struct cli *cli, json_t *list, const struct session *s, double peak, struct err *err)
{
    enum { SAMPLES = 10, LEN = 128 };
    int32_t ids[SAMPLES * LEN];
    int64_t zeros[SAMPLES] = {0};
    struct calibration cal = {.n = SAMPLES, .len = LEN, .ids = ids, .documents = zeros, .offsets = zeros};
    struct scores scores = {0};
    random_ids(ids, SAMPLES * LEN, s->m.cfg.vocab_size);
    double start = clock_seconds();
    if (score_ppl(&scores, &s->m, &s->c, NULL, &cal, &cli->progress, err) != 0)
        return -1;
    double seconds = clock_seconds() - start;
    struct figure f = {"scoring, 10 x 128 tokens", "GFLOPS", score_ppl_flops(&s->m, SAMPLES * LEN, LEN) / seconds, peak, 0.65,
                       (double)(s->m.n_order * SAMPLES * LEN) / seconds};
    show(cli, list, &f);
    scores_free(&scores);
    return 0;
}

static int bench_training(struct cli *cli, json_t *list, const struct session *s, double peak, struct err *err)
{
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
    struct figure f = {"LoRA training, 16 rows a step", "GFLOPS", r.flops / r.seconds, peak, 0.50, (double)r.tokens / r.seconds};
    show(cli, list, &f);
    return 0;
}

static int bench_prefill(struct cli *cli, json_t *list, const struct session *s, double peak, struct err *err)
{
    enum { LEN = 512, TRIES = 5 };
    int32_t ids[LEN];
    struct generator g;
    random_ids(ids, LEN, s->m.cfg.vocab_size);
    if (generator_open(&g, &s->m, &s->c, NULL, LEN, err) != 0)
        return -1;
    double best = INFINITY;
    int rc = 0;
    for (int i = 0; i < TRIES && rc == 0; i++) {
        double start = clock_seconds();
        generator_reset(&g);
        rc = generator_feed(&g, ids, LEN, err);
        best = fmin(best, clock_seconds() - start);
    }
    generator_close(&g);
    const struct config *c = &s->m.cfg;
    double attention = 2.0 * (double)(c->n_heads * c->head_dim) * (LEN + 1) * LEN;
    double flops = (double)s->m.n_order * (2.0 * (double)model_block_params(&s->m) * LEN + attention) +
                   2.0 * (double)(c->vocab_size * c->dim);
    struct figure f = {"prefill of 512 tokens", "GFLOPS", flops / best, peak, 0.65, LEN / best};
    if (rc == 0)
        show(cli, list, &f);
    return rc;
}

static int bench_decode(struct cli *cli, json_t *list, const struct session *s, double bandwidth, struct err *err)
{
    int32_t prompt[12];
    struct speed_result r;
    random_ids(prompt, 12, s->m.cfg.vocab_size);
    if (speed_measure(&r, &s->m, &s->c, NULL, prompt, 12, 128, 1, 3, &cli->progress, err) != 0)
        return -1;
    struct figure f = {"decode, batch 1", "GB/s", r.decode_tok_s * (double)r.bytes_per_token, bandwidth, 0.70, r.decode_tok_s};
    show(cli, list, &f);
    return 0;
}

int cmd_bench(struct cli *cli, struct err *err)
{
    struct opt own[] = {{.kind = OPT_END}};
    struct opt_words words;
    struct common o;
    struct session s;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (session_open(&s, &o, words.word[0], 0, err) != 0)
        return -1;
    /* Two bandwidths: of a buffer as large as what a decoding step reads, which may fit the last cache as the weights may, and
     * of main memory. The first is the limit that decoding is held to. */
    double peak = bench_sgemm_peak(&s.c, err), same = bench_read_bandwidth(&s.c, (size_t)speed_bytes_per_token(&s.m), err),
           memory = bench_read_bandwidth(&s.c, (size_t)1 << 30, err);
    rc = -1;
    if (!(peak > 0 && same > 0 && memory > 0))
        goto done;
    json_t *list = json_array();
    cli->result = session_facts(&s, cli, &o);
    json_object_update_new(cli->result, json_pack("{sf sf sf so}", "sgemm_peak_flops", peak, "read_bandwidth_model_size", same,
                                                  "read_bandwidth_memory", memory, "figures", list));
    if (cli->out && !cli->json)
        fprintf(cli->out,
                "%s, %d threads, OpenBLAS %s\n%-28s %8.1f GFLOPS\n%-28s %8.1f GB/s\n%-28s %8.1f GB/s\n\n", s.c.rows->isa,
                pool_threads(s.c.pool), gemm_backend(), "sgemm peak", 1e-9 * peak, "reading as much as decode", 1e-9 * same,
                "reading 1 GiB", 1e-9 * memory);
    if (bench_decode(cli, list, &s, same, err) == 0 && bench_prefill(cli, list, &s, peak, err) == 0 &&
        bench_training(cli, list, &s, peak, err) == 0 && bench_scoring(cli, list, &s, peak, err) == 0)
        rc = 0;
done:
    session_close(&s);
    return rc;
}
