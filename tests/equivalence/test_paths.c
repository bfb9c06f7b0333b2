/* Fast paths are proved by slow ones: the sweep by naive removal, the KV cache by whole prefills, batches by single sequences,
 * many threads by one, panels by whole matrices. (Training: test_training.c; instruction sets: test_isa.c.) */
#include "tests/fixtures/fixture.h"

#include "core/model/save.h"
#include "eval/generate.h"
#include "core/model/stream.h"
#include "tests/fixtures/scoring.h"

/* The same float32 sums in another order, as row counts change the tiles of sgemm. Seen: 2e-6. */
static const double TOL = 2e-5;

static double mean_of(const float *v, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)v[i];
    return s / (double)n;
}

/* ---- sweep and naive removal ---- */

/* 33 rows of 40: the states of all variants take several chunks of 1,280 rows, and the chunks do not divide them evenly. */
static struct calibration random_calibration(const struct fixture *f)
{
    struct calibration cal = {.n = 33, .len = 40};
    cal.ids = random_ids(cal.n * cal.len, f->m.cfg.vocab_size, 21);
    return cal;
}

static void sweep_is_removal(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = random_calibration(f);
    struct scores s;
    int64_t n = cal.n * (cal.len - 1);
    float *nll = floats(n);
    score_by(&s, "ppl", &default_scoring, &f->m, &f->c, NULL, &cal);
    for (int64_t k = -1; k < s.n; k++) { /* -1: the model as it is */
        struct model m;
        struct lm lm;
        OK(model_open(&m, f->dir, &err));
        if (k >= 0)
            OK(model_drop(&m, &(struct unit){k, PARTS_ALL}, 1, &err));
        OK(lm_open(&lm, &m, &f->c, NULL, cal.n * cal.len, cal.n, cal.len, &err));
        OK(lm_window_nll(&lm, nll, cal.ids, cal.n, cal.len, &err));
        assert_close(k < 0 ? s.base_nll : s.removed_nll + k * n, nll, n, TOL, "losses of the sweep");
        assert_near(k < 0 ? s.base_ppl : s.score[k], exp(mean_of(nll, n)), TOL, "perplexity of the sweep");
        lm_close(&lm);
        model_close(&m);
    }
    scores_free(&s);
    free(nll);
    free(cal.ids);
}

/* Read block by block, with pages given back behind each, the weights are the same ones. */
static void streamed_is_resident(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"greedy", "taylor", "magnitude"};
    struct calibration cal = random_calibration(f);
    struct model m;
    OK(model_open(&m, f->dir, &err));
    OK(model_stream(&m, &err));
    assert_true(model_bytes(&m) >= (size_t)model_params(&m));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct scores a, b;
        score_by(&a, names[i], &default_scoring, &f->m, &f->c, NULL, &cal);
        score_by(&b, names[i], &default_scoring, &m, &f->c, NULL, &cal);
        assert_same_bits(a.score, b.score, (size_t)a.n * sizeof *a.score, names[i]);
        assert_true(a.base_ppl == b.base_ppl);
        scores_free(&a);
        scores_free(&b);
    }
    model_close(&m);
    free(cal.ids);
}

/* A sweep over a model that was cut already is the sweep over the cut model saved and opened again, bit for bit. */
static void sweep_of_dropped_is_sweep_of_saved(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = random_calibration(f);
    struct scores a, b;
    struct model m;
    struct save_options o = {.dtype = DTYPE_F32};
    char dir[128];
    scratch_dir(dir, f, "cut");
    OK(model_drop_list(&f->m, "1", &err));
    score_by(&a, "ppl", &default_scoring, &f->m, &f->c, NULL, &cal);
    OK(model_save(&f->m, &f->c, dir, &o, NULL, &err));
    OK(model_open(&m, dir, &err));
    score_by(&b, "ppl", &default_scoring, &m, &f->c, NULL, &cal);
    assert_int_equal(a.n, f->m.cfg.n_blocks - 1);
    assert_int_equal(b.n, a.n);
    assert_same_bits(a.score, b.score, (size_t)a.n * sizeof *a.score, "scores");
    scores_free(&a);
    scores_free(&b);
    model_close(&m);
    free(cal.ids);
}

/* The sweep with an adapter is the sweep over the model that the adapter was merged into. */
static void sweep_with_adapter_is_sweep_of_merged(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = random_calibration(f);
    struct scores a, b, bare;
    struct lora_set l;
    struct model m;
    char dir[128];
    random_lora(&l, &f->m, 3, 0.2f, false);
    struct save_options o = {.dtype = DTYPE_F32, .lora = &l};
    scratch_dir(dir, f, "merged");
    OK(model_save(&f->m, &f->c, dir, &o, NULL, &err));
    OK(model_open(&m, dir, &err));
    score_by(&a, "ppl", &default_scoring, &f->m, &f->c, &l, &cal);
    score_by(&b, "ppl", &default_scoring, &m, &f->c, NULL, &cal);
    score_by(&bare, "ppl", &default_scoring, &f->m, &f->c, NULL, &cal);
    int64_t n = a.n * a.samples * a.targets;
    double apart = 0;
    assert_close(a.removed_nll, b.removed_nll, n, TOL, "losses of the sweep, adapter applied and merged");
    for (int64_t i = 0; i < n; i++)
        apart = fmax(apart, fabs((double)(a.removed_nll[i] - bare.removed_nll[i])));
    assert_true(apart > 0.5); /* nats: the adapter does something */
    struct scores *all[] = {&a, &b, &bare};
    for (int i = 0; i < 3; i++)
        scores_free(all[i]);
    model_close(&m);
    lora_free(&l);
    free(cal.ids);
}

/* ---- decode, prefill, chunks ---- */

enum { LONG = 530 }; /* several tiles of 64 queries and 256 keys, and more than generator_feed runs at once (512) */

/* Feeds LONG ids in pieces of the lengths in `cut` (the last one repeats) and compares the logits after each piece. */
static void feed_in_pieces(const struct fixture *f, const int32_t *ids, const float *want, const int64_t *cut, int64_t n_cut)
{
    struct generator g;
    int64_t vocab = f->m.cfg.vocab_size;
    OK(generator_open(&g, &f->m, &f->c, NULL, LONG, &err));
    for (int round = 0; round < 2; round++) { /* the second finds a used cache */
        generator_reset(&g);
        for (int64_t at = 0, i = 0; at < LONG; i++) {
            int64_t n = cut[i < n_cut ? i : n_cut - 1];
            n = n < LONG - at ? n : LONG - at;
            OK(generator_feed(&g, ids + at, n, &err));
            at += n;
            assert_int_equal(g.kv.len, at);
            assert_close(g.logits, want + (at - 1) * vocab, vocab, 1e-4, "logits after a piece");
        }
    }
    generator_close(&g);
}

static void decode_is_prefill(void **state)
{
    struct fixture *f = *state;
    int32_t *ids = random_ids(LONG, f->m.cfg.vocab_size, 22);
    float *want = logits_of(&f->m, &f->c, NULL, ids, 1, LONG); /* no cache at all */
    static const int64_t whole[] = {LONG}, odd[] = {1, 7, 64, 3, 129, 257, 2, 5}, one[] = {1};
    feed_in_pieces(f, ids, want, whole, 1);
    feed_in_pieces(f, ids, want, odd, 8);
    feed_in_pieces(f, ids, want, one, 1);
    free(want);
    free(ids);
}

/* Sequences at different points of their caches, and one without, go through the model in one batch. */
static void mixed_batch_is_alone(void **state)
{
    struct fixture *f = *state;
    enum { SEQS = 3, LEN = 20 };
    static const int64_t past[SEQS] = {13, 0, 5};
    int64_t vocab = f->m.cfg.vocab_size;
    int32_t *ids = random_ids(SEQS * LEN, vocab, 23), *rest = calloc(SEQS * LEN, sizeof *rest);
    struct arena arena = {0};
    struct kv_cache kv[SEQS];
    struct lm lm;
    float *logits = floats(SEQS * LEN * vocab);
    OK(lm_open(&lm, &f->m, &f->c, NULL, SEQS * LEN, SEQS, LEN, &err));
    for (int64_t i = 0; i < SEQS; i++) {
        OK(lm_cache(&kv[i], &f->m, LEN, &arena, &err));
        batch_clear(&lm.batch);
        batch_add(&lm.batch, past[i], 0, &kv[i]);
        if (past[i])
            OK(lm_forward(&lm, ids + i * LEN, &err));
    }
    batch_clear(&lm.batch);
    for (int64_t i = 0; i < SEQS; i++) {
        memcpy(rest + lm.batch.rows, ids + i * LEN + past[i], (size_t)(LEN - past[i]) * sizeof *rest);
        batch_add(&lm.batch, LEN - past[i], past[i], past[i] ? &kv[i] : NULL);
    }
    OK(lm_forward(&lm, rest, &err));
    head_logits(&f->c, logits, &f->m.head, &lm.head, lm.x, lm.batch.rows, false);
    for (int64_t i = 0; i < SEQS; i++) {
        float *want = logits_of(&f->m, &f->c, NULL, ids + i * LEN, 1, LEN);
        assert_close(logits + lm.batch.seqs[i].row * vocab, want + past[i] * vocab, (LEN - past[i]) * vocab, TOL, "mixed batch");
        free(want);
    }
    lm_close(&lm);
    arena_free(&arena);
    free(logits);
    free(rest);
    free(ids);
}

static void windows_are_alone(void **state)
{
    struct fixture *f = *state;
    enum { N = 9, LEN = 33 };
    int32_t *ids = random_ids(N * LEN, f->m.cfg.vocab_size, 24);
    float together[N * (LEN - 1)], alone[LEN - 1];
    struct lm lm;
    OK(lm_open(&lm, &f->m, &f->c, NULL, N * LEN, N, LEN, &err));
    OK(lm_window_nll(&lm, together, ids, N, LEN, &err));
    for (int64_t i = 0; i < N; i++) {
        OK(lm_window_nll(&lm, alone, ids + i * LEN, 1, LEN, &err));
        assert_close(alone, together + i * (LEN - 1), LEN - 1, TOL, "a window alone and among others");
    }
    lm_close(&lm);
    free(ids);
}

/* Windows in which nothing is predicted have no losses, and that is no failure. */
static void windows_of_one_token(void **state)
{
    struct fixture *f = *state;
    struct lm lm;
    float none = 3;
    OK(lm_open(&lm, &f->m, &f->c, NULL, 4, 4, 1, &err));
    OK(lm_window_nll(&lm, &none, f->ids, 4, 1, &err));
    assert_true(none == 3);
    lm_close(&lm);
}

/* ---- numbers of threads, bit for bit; in bf16 where the fixture is ---- */

static const int thread_counts[] = {2, 3, 5};

static void open_threads(struct compute *c, const struct fixture *f, int i)
{
    OK(compute_open(c, i < 0 ? 1 : thread_counts[i], f->c.gemm == f->c.rows->f32 ? PRECISION_F32 : PRECISION_BF16, &err));
    assert_ptr_equal(c->gemm, f->c.gemm);
}

static void threads_windows(void **state)
{
    struct fixture *f = *state;
    enum { N = 3, LEN = 300 };
    int32_t *ids = random_ids(N * LEN, f->m.cfg.vocab_size, 25);
    float *first = floats(N * (LEN - 1)), *nll = floats(N * (LEN - 1));
    for (int i = -1; i < 3; i++) {
        struct compute c;
        struct lm lm;
        open_threads(&c, f, i);
        OK(lm_open(&lm, &f->m, &c, NULL, N * LEN, N, LEN, &err));
        OK(lm_window_nll(&lm, i < 0 ? first : nll, ids, N, LEN, &err));
        if (i >= 0)
            assert_same_bits(nll, first, N * (LEN - 1) * sizeof *nll, "losses on several threads");
        lm_close(&lm);
        compute_close(&c);
    }
    free(first);
    free(nll);
    free(ids);
}

static void threads_scores(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = random_calibration(f);
    struct scores first = {0}, s;
    for (int i = -1; i < 3; i++) {
        struct compute c;
        open_threads(&c, f, i);
        score_by(i < 0 ? &first : &s, "ppl", &default_scoring, &f->m, &c, NULL, &cal);
        compute_close(&c);
        if (i < 0)
            continue;
        size_t nll = (size_t)(s.n * s.samples * s.targets) * sizeof *s.removed_nll;
        assert_same_bits(s.score, first.score, (size_t)s.n * sizeof *s.score, "scores on several threads");
        assert_same_bits(s.removed_nll, first.removed_nll, nll, "losses of the sweep on several threads");
        assert_true(s.base_ppl == first.base_ppl);
        scores_free(&s);
    }
    scores_free(&first);
    free(cal.ids);
}

/* ---- bf16 ---- */

/* Its losses are near those of float32, and are not those. 8 bits of a product's operands, through a few blocks, are some 1e-2. */
static void bf16_is_near(void **state)
{
    struct fixture *f = *state;
    struct compute plain;
    struct calibration cal = random_calibration(f);
    struct scores rounded, exact;
    OK(compute_open(&plain, 1, PRECISION_F32, &err));
    score_by(&exact, "ppl", &default_scoring, &f->m, &plain, NULL, &cal);
    score_by(&rounded, "ppl", &default_scoring, &f->m, &f->c, NULL, &cal);
    for (int64_t k = 0; k < exact.n; k++) {
        assert_near(rounded.score[k], exact.score[k], 1e-2, "perplexity in bf16");
        assert_true(fabs(rounded.score[k] - exact.score[k]) > 1e-7 * exact.score[k]);
    }
    scores_free(&rounded);
    scores_free(&exact);
    compute_close(&plain);
    free(cal.ids);
}

/* What the model says itself after random beginnings, so that it is good at it and worse without a block. */
static struct calibration own_words(const struct fixture *f)
{
    struct calibration cal = {.n = 16, .len = 24};
    const struct sampling greedy = {.temperature = 0};
    struct generator g;
    cal.ids = random_ids(cal.n * cal.len, f->m.cfg.vocab_size, 27);
    OK(generator_open(&g, &f->m, &f->c, NULL, cal.len, &err));
    for (int64_t i = 0; i < cal.n; i++) {
        int32_t *row = cal.ids + i * cal.len;
        generator_reset(&g);
        for (int64_t k = 0; k + 1 < cal.len; k++) {
            OK(generator_feed(&g, row + k, 1, &err));
            row[k + 1] = generator_pick(&g, &greedy, NULL);
        }
    }
    generator_close(&g);
    return cal;
}

/* Where a removal makes the perplexity more than ten times as large, it is float32's; elsewhere it is not. */
static void broken_ones_in_float32(void **state)
{
    struct fixture *f = *state;
    struct compute plain;
    struct scores rounded, exact;
    struct score_options o = default_scoring;
    int64_t broken = 0;
    float *norm = (float *)f->m.head.norm; /* the arena's; larger logits make it sure of what it says */
    o.sublayers = true;
    for (int64_t i = 0; i < f->m.cfg.dim; i++)
        norm[i] *= 5;
    struct calibration cal = own_words(f);
    OK(compute_open(&plain, 1, PRECISION_F32, &err));
    score_by(&exact, "ppl", &o, &f->m, &plain, NULL, &cal);
    score_by(&rounded, "ppl", &o, &f->m, &f->c, NULL, &cal);
    for (int64_t k = 0; k < exact.n; k++) {
        double times = exact.score[k] / exact.base_ppl, off = fabs(rounded.score[k] / exact.score[k] - 1);
        broken += times > 11;
        assert_true(times > 11 ? off < 1e-6 : times < 9 ? off > 1e-5 : true);
    }
    assert_true(broken > 0 && broken < exact.n);
    scores_free(&rounded);
    scores_free(&exact);
    compute_close(&plain);
    free(cal.ids);
}

#define ON_BOTH_IN_BF16(fn)                                                                                                        \
    {#fn " (mha, bf16)", fn, fixture_open_bf16, fixture_close, (void *)"mha"},                                                     \
    {                                                                                                                              \
#fn " (gqa, bf16)", fn, fixture_open_bf16, fixture_close, (void *)"gqa"                                                    \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(sweep_is_removal),
        ON_BOTH(streamed_is_resident),
        ON_BOTH(sweep_of_dropped_is_sweep_of_saved),
        ON_BOTH(sweep_with_adapter_is_sweep_of_merged),
        ON_BOTH(decode_is_prefill),
        ON_BOTH(windows_of_one_token),
        ON_BOTH(mixed_batch_is_alone),
        ON_BOTH(windows_are_alone),
        ON_BOTH(threads_windows),
        ON_BOTH(threads_scores),
        ON_BOTH_IN_BF16(sweep_is_removal),
        ON_BOTH_IN_BF16(threads_windows),
        ON_BOTH_IN_BF16(threads_scores),
        ON_BOTH_IN_BF16(bf16_is_near),
        ON_BOTH_IN_BF16(broken_ones_in_float32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
