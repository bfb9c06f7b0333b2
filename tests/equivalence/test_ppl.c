/* A protocol's perplexity is that of its windows, laid out here one by one and scored as continuations by eval/likelihood.c. */
#include "tests/fixtures/fixture.h"

#include "eval/likelihood.h"
#include "eval/ppl.h"

/* Sums of up to 1,300 losses of some 5 nats, the same float32 sums in another order. Seen: 5e-9. */
static const double TOL = 1e-6;

enum { BOS = 2, MAX_ROW = 513, MAX_WINDOWS = 40 };

/* What a protocol's definition says of one window. */
struct shape {
    const char *name;
    int64_t seq_len, n;     /* 0: the protocol's own window; tokens of the text */
    bool stream_bos;        /* the stream begins with BOS */
    bool own_bos, over_bos; /* BOS before the window; in place of its first token */
    int64_t first;          /* of the row laid out: the first token that is scored */
    int64_t windows, scored;
};

static const struct shape shapes[] = {
    {"shortened-128", 0, 511, true, false, false, 1, 4, 4 * 127},
    {"shortened-128", 32, 1000, true, false, false, 1, 31, 31 * 31},
    {"shortened-128-bos", 0, 511, false, true, false, 1, 3, 3 * 128},
    {"shortened-128-bos", 33, 1319, false, true, false, 1, 39, 39 * 33},
    {"gptq-2048", 64, 700, false, false, false, 1, 10, 10 * 63},
    {"llamacpp-512", 0, 1023, true, false, true, 257, 2, 2 * 255},
    {"llamacpp-512", 0, 2700, true, false, true, 257, 5, 5 * 255}, /* more than one batch of 2,048 rows */
    {"llamacpp-512", 31, 310, true, false, true, 16, 10, 10 * 15},
    {"llamacpp-512", 3, 5, true, false, true, 2, 2, 2},
};

/* The same by hand: nats of all that is scored. */
static double by_hand(const struct fixture *f, const struct shape *s, const int32_t *text, int64_t window)
{
    static int32_t rows[MAX_WINDOWS][MAX_ROW];
    struct request q[MAX_WINDOWS];
    struct likelihood l[MAX_WINDOWS];
    int32_t *stream = calloc((size_t)s->n + 1, sizeof *stream);
    double nats = 0;
    assert_non_null(stream);
    stream[0] = BOS;
    memcpy(stream + s->stream_bos, text, (size_t)s->n * sizeof *text);
    for (int64_t w = 0; w < s->windows; w++) {
        rows[w][0] = BOS;
        memcpy(rows[w] + s->own_bos, stream + w * window, (size_t)window * sizeof *stream);
        if (s->over_bos)
            rows[w][0] = BOS;
        q[w] = (struct request){rows[w], window + s->own_bos, s->first};
    }
    OK(likelihood_run(l, &f->m, &f->c, NULL, &(struct variants){.n = 1}, q, s->windows, NULL, 1, &err));
    for (int64_t w = 0; w < s->windows; w++)
        nats -= l[w].ll;
    free(stream);
    return nats;
}

static void windows_by_hand(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i];
        struct ppl_protocol p;
        struct ppl_result r;
        int32_t *text = random_ids(s->n, f->m.cfg.vocab_size, 40 + i);
        OK(ppl_protocol(&p, s->name, s->seq_len, &err));
        OK(ppl_evaluate(&r, &f->m, &f->c, NULL, &p, text, s->n, BOS, NULL, &err));
        assert_int_equal(r.windows, s->windows);
        assert_int_equal(r.tokens_scored, s->scored);
        assert_near(r.nll, by_hand(f, s, text, p.window), TOL, p.name);
        assert_near(r.ppl, exp(r.nll / (double)s->scored), 1e-12, p.name);
        free(text);
    }
}

/* Without BOS the stream is one shorter, and the windows are the text's own. */
static void llamacpp_without_bos(void **state)
{
    struct fixture *f = *state;
    struct shape s = {.n = 330, .first = 17, .windows = 10};
    struct ppl_protocol p;
    struct ppl_result r;
    int32_t *text = random_ids(s.n, f->m.cfg.vocab_size, 60);
    OK(ppl_protocol(&p, "llamacpp-512", 33, &err));
    assert_string_equal(p.name, "llamacpp-33");
    p.bos = PPL_BOS_NONE;
    OK(ppl_evaluate(&r, &f->m, &f->c, NULL, &p, text, s.n, -1, NULL, &err));
    assert_int_equal(r.tokens_scored, 10 * 16);
    assert_near(r.nll, by_hand(f, &s, text, 33), TOL, p.name);
    free(text);
}

static void expect_refusal(const struct fixture *f, const char *name, int64_t seq_len, int64_t n, int32_t bos, enum err_code code,
                           const char *part)
{
    struct err why = {0};
    struct ppl_protocol p;
    struct ppl_result r;
    int32_t *text = random_ids(n, f->m.cfg.vocab_size, 61);
    OK(ppl_protocol(&p, name, seq_len, &err));
    assert_int_equal(ppl_evaluate(&r, &f->m, &f->c, NULL, &p, text, n, bos, NULL, &why), -1);
    assert_int_equal(why.code, code);
    if (!strstr(why.msg, part))
        fail_msg("\"%s\" should contain \"%s\"", why.msg, part);
    free(text);
}

static void what_cannot_be_scored(void **state)
{
    struct fixture *f = *state;
    expect_refusal(f, "shortened-128", 0, 126, BOS, ERR_FAILED, "127 tokens");
    expect_refusal(f, "gptq-2048", 0, 2047, BOS, ERR_FAILED, "needs 2048 (one window)");
    expect_refusal(f, "llamacpp-512", 0, 1022, BOS, ERR_FAILED, "needs 1024 (two windows)");
    expect_refusal(f, "llamacpp-512", 0, 1023, -1, ERR_FAILED, "BOS");
    expect_refusal(f, "llamacpp-512", 2, 100, BOS, ERR_USAGE, "at least 3");
    expect_refusal(f, "shortened-128", 1, 100, BOS, ERR_USAGE, "at least 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {ON_BOTH(windows_by_hand), ON_BOTH(llamacpp_without_bos), ON_BOTH(what_cannot_be_scored)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
