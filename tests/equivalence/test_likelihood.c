/* A batch that is a tree is its requests one by one: log-likelihoods of requests that share their starts in every way there is
 * against each request alone, and variants at once against each pruned model alone. */
#include "tests/fixtures/fixture.h"

#include "eval/likelihood.h"

/* Sums of up to 300 losses of some 5 nats, the same float32 sums in another order. Seen: 3e-6. */
static const double TOL = 2e-5;

enum { MAX_REQUESTS = 600, MAX_LEN = 320 };

struct forest {
    struct request q[MAX_REQUESTS];
    int32_t ids[MAX_REQUESTS][MAX_LEN];
    int64_t n;
};

/* A request that has `shared` tokens of request `of` (or none: -1) in front of `fresh` random ones. */
static void grow(struct forest *t, int64_t of, int64_t shared, int64_t fresh, int64_t first, int64_t vocab, struct rng *rng)
{
    int32_t *ids = t->ids[t->n];
    assert_true(t->n < MAX_REQUESTS && shared + fresh <= MAX_LEN && first >= 1 && first < shared + fresh);
    if (of >= 0)
        memcpy(ids, t->ids[of], (size_t)shared * sizeof *ids);
    for (int64_t i = shared; i < shared + fresh; i++)
        ids[i] = (int32_t)rng_below(rng, vocab);
    t->q[t->n++] = (struct request){ids, shared + fresh, first};
}

/* Every shape by hand, then documents of a context and four choices: several batches of 2,048 rows, cut anywhere. */
static struct forest *forest_open(int64_t vocab)
{
    struct forest *t = calloc(1, sizeof *t);
    struct rng rng;
    assert_non_null(t);
    rng_seed(&rng, 31);
    grow(t, -1, 0, 300, 290, vocab, &rng); /* 0: more than one tile of queries and of keys */
    grow(t, 0, 280, 9, 280, vocab, &rng);  /* a branch from deep inside */
    grow(t, 0, 280, 20, 1, vocab, &rng);   /* what is context above is scored here */
    grow(t, 1, 285, 30, 281, vocab, &rng); /* a branch of a branch */
    grow(t, 3, 300, 5, 299, vocab, &rng);
    grow(t, 3, 283, 6, 100, vocab, &rng);  /* from the branch of the branch, so near its start that it is not shared */
    grow(t, 0, 300, 0, 290, vocab, &rng);  /* the same as 0 */
    grow(t, 0, 300, 0, 200, vocab, &rng);  /* the same tokens, more of them scored */
    grow(t, 0, 250, 0, 249, vocab, &rng);  /* the start of another */
    grow(t, 0, 300, 20, 310, vocab, &rng); /* another is its start */
    grow(t, 0, 2, 8, 3, vocab, &rng);
    grow(t, -1, 0, 2, 1, vocab, &rng);
    while (t->n + 4 < MAX_REQUESTS) {
        int64_t document = t->n, context = 1 + rng_below(&rng, 40);
        for (int64_t k = 0; k < 4; k++)
            grow(t, k ? document : -1, k ? context : 0, (k ? 0 : context) + 1 + rng_below(&rng, 12), context, vocab, &rng);
    }
    return t;
}

/* Alone, without sharing, cache or tree: lm_window_nll of one window. */
static struct likelihood alone(struct lm *lm, const struct request *q)
{
    float nll[MAX_LEN];
    struct likelihood l = {0, true};
    OK(lm_window_nll(lm, nll, q->ids, 1, q->n, &err));
    for (int64_t p = q->first; p < q->n; p++) {
        l.ll -= (double)nll[p - 1];
        l.greedy &= lm->head.target[p - 1] >= lm->head.best[p - 1];
    }
    return l;
}

static void expect_alone(const struct likelihood *got, const struct model *m, const struct compute *c, const struct lora_set *lora,
                         const struct forest *t)
{
    struct lm lm;
    OK(lm_open(&lm, m, c, lora, MAX_LEN, 1, MAX_LEN, &err));
    for (int64_t i = 0; i < t->n; i++) {
        struct likelihood want = alone(&lm, &t->q[i]);
        char what[64];
        snprintf(what, sizeof what, "request %lld", (long long)i);
        assert_near(got[i].ll, want.ll, TOL, what);
        assert_int_equal(got[i].greedy, want.greedy);
    }
    lm_close(&lm);
}

static const struct variants as_it_is = {.n = 1};

static void tree_is_alone(void **state)
{
    struct fixture *f = *state;
    struct forest *t = forest_open(f->m.cfg.vocab_size);
    struct likelihood *got = calloc((size_t)t->n, sizeof *got);
    OK(likelihood_run(got, &f->m, &f->c, NULL, &as_it_is, t->q, t->n, NULL, 1, &err));
    expect_alone(got, &f->m, &f->c, NULL, t);
    free(got);
    free(t);
}

static void tree_with_adapter_and_dropped_blocks(void **state)
{
    struct fixture *f = *state;
    struct forest *t = forest_open(f->m.cfg.vocab_size);
    struct likelihood *got = calloc((size_t)t->n, sizeof *got);
    struct lora_set l;
    t->n = 100;
    OK(model_drop_list(&f->m, "1,2.ffn", &err));
    random_lora(&l, &f->m, 3, 0.2f, false);
    OK(likelihood_run(got, &f->m, &f->c, &l, &as_it_is, t->q, t->n, NULL, 1, &err));
    expect_alone(got, &f->m, &f->c, &l, t);
    lora_free(&l);
    free(got);
    free(t);
}

/* The lists part at different blocks, one of them twice, and two are the same. */
static void variants_are_alone(void **state)
{
    struct fixture *f = *state;
    static const char *const lists[] = {"", "1", "2", "1,2.attn", "0", "1", "1.ffn", "0,1"};
    enum { N = sizeof lists / sizeof *lists };
    struct forest *t = forest_open(f->m.cfg.vocab_size);
    uint8_t parts[N * 8] = {0};
    int64_t n = f->m.n_order;
    t->n = 100;
    struct likelihood *got = calloc((size_t)(N * t->n), sizeof *got);
    for (int v = 0; v < N; v++) {
        OK(model_drop_list(&f->m, lists[v], &err));
        for (int64_t k = 0; k < f->m.n_order; k++)
            parts[v * n + f->m.order[k]] = (uint8_t)f->m.blocks[f->m.order[k]].parts;
        model_restore(&f->m);
    }
    OK(likelihood_run(got, &f->m, &f->c, NULL, &(struct variants){N, parts}, t->q, t->n, NULL, 1, &err));
    for (int v = 0; v < N; v++) {
        OK(model_drop_list(&f->m, lists[v], &err));
        expect_alone(got + v * t->n, &f->m, &f->c, NULL, t);
        model_restore(&f->m);
    }
    assert_true(fabs(got[0].ll - got[t->n].ll) > 0.1); /* nats: dropping does something */
    free(got);
    free(t);
}

/* Requests that need no row, but of whose scored tokens a batch has room for only so many. */
static void many_alike(void **state)
{
    struct fixture *f = *state;
    enum { LEN = 20 };
    struct forest *t = calloc(1, sizeof *t);
    struct rng rng;
    assert_non_null(t);
    struct likelihood *got = calloc(MAX_REQUESTS, sizeof *got);
    rng_seed(&rng, 32);
    for (int i = 0; i < MAX_REQUESTS; i++)
        grow(t, 0, i ? LEN : 0, i ? 0 : LEN, 1, f->m.cfg.vocab_size, &rng);
    OK(likelihood_run(got, &f->m, &f->c, NULL, &as_it_is, t->q, t->n, NULL, 1, &err));
    expect_alone(got, &f->m, &f->c, NULL, t);
    free(got);
    free(t);
}

static void threads_change_no_bit(void **state)
{
    struct fixture *f = *state;
    struct forest *t = forest_open(f->m.cfg.vocab_size);
    struct likelihood *got = calloc((size_t)(3 * t->n), sizeof *got);
    for (int i = 0; i < 3; i++) {
        struct compute c;
        OK(compute_open(&c, i + 1, PRECISION_F32, &err));
        OK(likelihood_run(got + i * t->n, &f->m, &c, NULL, &as_it_is, t->q, t->n, NULL, 1, &err));
        compute_close(&c);
    }
    for (int64_t i = 0; i < t->n; i++)
        assert_true(got[i].ll == got[t->n + i].ll && got[i].ll == got[2 * t->n + i].ll);
    free(got);
    free(t);
}

/* The greedy flag against the logits themselves: a request that is made of the largest ones is greedy, and is not with the last
 * token changed. */
static void greedy_is_the_largest_logit(void **state)
{
    struct fixture *f = *state;
    enum { GIVEN = 5, LEN = 9 };
    int64_t vocab = f->m.cfg.vocab_size;
    int32_t *ids = random_ids(LEN, vocab, 33), other[LEN];
    for (int64_t p = GIVEN; p < LEN; p++) {
        float *logits = logits_of(&f->m, &f->c, NULL, ids, 1, p), *last = logits + (p - 1) * vocab;
        ids[p] = 0;
        for (int64_t v = 1; v < vocab; v++)
            ids[p] = last[v] > last[ids[p]] ? (int32_t)v : ids[p];
        free(logits);
    }
    memcpy(other, ids, sizeof other);
    other[LEN - 1] = (int32_t)((other[LEN - 1] + 1) % vocab);
    struct likelihood got[2];
    OK(likelihood_run(got, &f->m, &f->c, NULL, &as_it_is, (struct request[]){{ids, LEN, GIVEN}, {other, LEN, GIVEN}}, 2, NULL, 1,
                      &err));
    assert_true(got[0].greedy && !got[1].greedy);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(tree_is_alone),         ON_BOTH(tree_with_adapter_and_dropped_blocks),
        ON_BOTH(variants_are_alone),    ON_BOTH(many_alike),
        ON_BOTH(threads_change_no_bit), ON_BOTH(greedy_is_the_largest_logit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
