/* A task's scores are those of its texts put together by hand, one choice at a time: with and without BOS, with blocks dropped,
 * with white space at the end of a context, with no context, and with more text than the model's context holds. A token is a
 * byte. */
#include "tests/tiny_model.h"

#include <math.h>

#include "eval/zeroshot.h"

enum { BOS = 256, EOS = 257, CONTEXT = 512 };
static const double TOL = 2e-5; /* float32 sums in another order; seen: 2e-6 */

static struct compute c;
static struct model m;
static struct tokenizer *tok;
static struct lm lm;

static int set_up(void **state)
{
    struct err err = {0};
    if (scratch_open(state) != 0)
        return -1;
    tiny_folder(in_scratch("model"), &tiny_default);
    return compute_open(&c, 2, PRECISION_F32, &err) == 0 && model_open(&m, in_scratch("model"), &err) == 0 &&
                   tokenizer_open(&tok, in_scratch("model"), &err) == 0 &&
                   lm_open(&lm, &m, &c, NULL, CONTEXT + 1, 1, CONTEXT + 1, &err) == 0
               ? 0
               : -1;
}

static int tear_down(void **state)
{
    lm_close(&lm);
    tokenizer_free(tok);
    model_close(&m);
    compute_close(&c);
    return scratch_close(state);
}

/* lead (-1: none), the context's bytes, the continuation's; the last CONTEXT + 1 of them; -ln p of the last n_continuation. */
static double by_hand(int32_t lead, const char *context, const char *continuation)
{
    int32_t all[4096];
    float nll[CONTEXT + 1];
    int64_t n = 0, scored = (int64_t)strlen(continuation);
    double ll = 0;
    if (lead >= 0)
        all[n++] = lead;
    for (const char *p = context; *p; p++)
        all[n++] = (unsigned char)*p;
    for (const char *p = continuation; *p; p++)
        all[n++] = (unsigned char)*p;
    int64_t cut = n > CONTEXT + 1 ? n - CONTEXT - 1 : 0;
    n -= cut;
    OK(lm_window_nll(&lm, nll, all + cut, 1, n, &err));
    for (int64_t p = n - scored; p < n; p++)
        ll -= (double)nll[p - 1];
    return ll;
}

static const struct variants as_it_is = {.n = 1};

static void run(struct zeroshot_result *r, struct task_set *s, const char *task, const char *file, bool bos)
{
    OK(task_read(s, task_find(task), file, 0, 0, &err));
    OK(zeroshot_run(r, s, &m, &c, NULL, tok, &as_it_is, bos, NULL, &err));
}

static void expect_ll(const struct zeroshot_result *r, int64_t i, int k, double want)
{
    if (!(fabs(r->docs[i].ll[k] - want) <= TOL * (1 + fabs(want))))
        fail_msg("document %lld, choice %d: %.9g, by hand %.9g", (long long)i, k, r->docs[i].ll[k], want);
}

static int first_best(const double *v, const int64_t *chars, int n)
{
    int best = 0;
    for (int k = 1; k < n; k++)
        if (v[k] / (double)(chars ? chars[k] : 1) > v[best] / (double)(chars ? chars[best] : 1))
            best = k;
    return best;
}

/* Every task of our own samples. */
static void samples_are_by_hand(bool bos)
{
    for (const struct task *t = task_table; t->name; t++) {
        struct zeroshot_result r;
        struct task_set s;
        int64_t acc = 0, norm = 0;
        double ll = 0;
        run(&r, &s, t->name, "tests/fixtures/tasks", bos);
        assert_int_equal(r.n, s.n);
        for (int64_t i = 0; i < s.n; i++) {
            const struct task_document *d = &s.docs[i];
            int64_t chars[TASK_MAX_CHOICES];
            for (int k = 0; k < d->n_choices; k++) {
                expect_ll(&r, i, k, by_hand(bos ? BOS : -1, d->choice[k].context, d->choice[k].continuation));
                chars[k] = d->choice[k].chars;
            }
            if (!t->greedy)
                assert_int_equal(r.docs[i].acc, first_best(r.docs[i].ll, NULL, d->n_choices) == d->gold);
            if (t->has_norm)
                assert_int_equal(r.docs[i].acc_norm, first_best(r.docs[i].ll, chars, d->n_choices) == d->gold);
            acc += r.docs[i].acc;
            norm += r.docs[i].acc_norm;
            ll += r.docs[i].ll[0];
        }
        assert_true(fabs(r.acc - (double)acc / (double)r.n) < 1e-12);
        assert_true(fabs(r.acc_norm - (double)norm / (double)r.n) < 1e-12);
        assert_true(fabs(r.perplexity - exp(-ll / (double)r.n)) <= 1e-9 * r.perplexity);
        double p = r.acc, n = (double)r.n; /* the sample variance of ones and zeros, over n */
        assert_true(fabs(r.acc_stderr - sqrt((p * n * (1 - p) * (1 - p) + (1 - p) * n * p * p) / (n - 1) / n)) < 1e-12);
        zeroshot_free(&r);
        task_free(&s);
    }
}

static void without_bos(void **state)
{
    (void)state;
    samples_are_by_hand(false);
}

static void with_bos(void **state)
{
    (void)state;
    samples_are_by_hand(true);
}

static void with_dropped_blocks(void **state)
{
    (void)state;
    OK(model_drop_list(&m, "1,4.attn,6", &err));
    samples_are_by_hand(true);
    model_restore(&m);
}

/* "<s>" is BOS where a text begins with it. */
static void bos_is_not_put_twice(void **state)
{
    (void)state;
    struct zeroshot_result r;
    struct task_set s;
    write_text(in_scratch("o.jsonl"),
               "{\"question_stem\":\"<s>a wall\",\"choices\":{\"text\":[\"red\",\"blue\"],\"label\":[\"A\",\"B\"]},"
               "\"answerKey\":\"A\"}");
    for (int bos = 0; bos < 2; bos++) {
        run(&r, &s, "openbookqa", in_scratch("o.jsonl"), bos);
        expect_ll(&r, 0, 0, by_hand(BOS, "a wall", " red"));
        expect_ll(&r, 0, 1, by_hand(BOS, "a wall", " blue"));
        zeroshot_free(&r);
        task_free(&s);
    }
}

/* Of equal choices the first is taken. */
static void ties(void **state)
{
    (void)state;
    struct zeroshot_result r;
    struct task_set s;
    write_text(in_scratch("p.jsonl"), "{\"goal\":\"g\",\"sol1\":\"saw\",\"sol2\":\"saw\",\"label\":0}\n"
                                      "{\"goal\":\"g\",\"sol1\":\"saw\",\"sol2\":\"saw\",\"label\":1}\n");
    run(&r, &s, "piqa", in_scratch("p.jsonl"), false);
    assert_true(r.docs[0].acc && r.docs[0].acc_norm && !r.docs[1].acc && !r.docs[1].acc_norm);
    zeroshot_free(&r);
    task_free(&s);
}

/* White space at the end of a context, of whatever kind, is scored with the continuation; a context of nothing else is none. */
static void ends_and_empty_contexts(void **state)
{
    (void)state;
    struct zeroshot_result r;
    struct task_set s;
    write_text(in_scratch("h.jsonl"), "{\"query\":\"a wall \\n\u00a0\",\"choices\":[\"red\",\"blue\"],\"gold\":0}\n"
                                      "{\"query\":\"\",\"choices\":[\"red\",\"blue\"],\"gold\":0}\n"
                                      "{\"query\":\"  \",\"choices\":[\"red\",\"blue\"],\"gold\":0}\n");
    for (int bos = 0; bos < 2; bos++) {
        int32_t lead = bos ? BOS : -1, empty = bos ? BOS : EOS;
        run(&r, &s, "hellaswag", in_scratch("h.jsonl"), bos);
        expect_ll(&r, 0, 0, by_hand(lead, "a wall", " \n\u00a0 red"));
        expect_ll(&r, 0, 1, by_hand(lead, "a wall", " \n\u00a0 blue"));
        expect_ll(&r, 1, 0, by_hand(empty, "", " red"));
        expect_ll(&r, 2, 1, by_hand(empty, "", "   blue"));
        zeroshot_free(&r);
        task_free(&s);
    }
}

/* Where a merge crosses the end of the context, the context's own tokens stand, and the continuation is what the tokens of both
 * together have behind as many: "t" + "he" is the tokens "t", then nothing of "the", which is one. */
static void merges_across_the_end(void **state)
{
    (void)state;
    struct tokenizer *merging;
    struct zeroshot_result r;
    struct task_set s;
    struct err err = {0};
    tiny_tokenizer(in_scratch("merging.json"), true);
    OK(tokenizer_open(&merging, in_scratch("merging.json"), &err));
    struct task_choice choice[] = {{"at", "he wall", 7}, {"at", "he", 2}};
    struct task_document d = {.n_choices = 2, .choice = {choice[0], choice[0]}};
    s = (struct task_set){.task = task_find("piqa"), .file = (char *)"made up", .n = 1, .docs = &d};
    OK(zeroshot_run(&r, &s, &m, &c, NULL, merging, &as_it_is, false, NULL, &err));
    expect_ll(&r, 0, 0, by_hand(-1, "at", " wall"));
    zeroshot_free(&r);
    d.choice[1] = choice[1];
    expect_error(zeroshot_run(&r, &s, &m, &c, NULL, merging, &as_it_is, false, NULL, &err), &err,
                 "made up: document 0: choice 1 adds no token");
    struct err early = {0};
    char key[65];
    expect_error(zeroshot_check(key, &s, &m, merging, false, &early), &early, "made up: document 0: choice 1 adds no token");
    tokenizer_free(merging);
}

/* The first choice fits, the second pushes tokens out at the left, the third fills the context alone. */
static void long_texts_lose_their_start(void **state)
{
    (void)state;
    struct zeroshot_result r;
    struct task_set s;
    struct err err = {0};
    char context[501], longer[101], whole[CONTEXT + 1];
    for (int i = 0; i < 500; i++)
        context[i] = (char)('a' + i * i % 23);
    context[500] = 0;
    for (int i = 0; i < 100; i++)
        longer[i] = (char)('a' + i * i % 19);
    longer[100] = 0;
    for (int i = 0; i < CONTEXT; i++)
        whole[i] = (char)('a' + i * i % 17);
    whole[CONTEXT] = 0;
    struct task_document d = {.n_choices = 3, .choice = {{context, "short", 5}, {context, longer, 100}, {context, whole, CONTEXT}}};
    s = (struct task_set){.task = task_find("piqa"), .file = (char *)"made up", .n = 1, .docs = &d};
    for (int bos = 0; bos < 2; bos++) {
        OK(zeroshot_run(&r, &s, &m, &c, NULL, tok, &as_it_is, bos, NULL, &err));
        for (int k = 0; k < 3; k++)
            expect_ll(&r, 0, k, by_hand(bos ? BOS : -1, context, d.choice[k].continuation));
        zeroshot_free(&r);
    }
    char more[CONTEXT + 2];
    snprintf(more, sizeof more, "%sx", whole);
    d.choice[1].continuation = more;
    expect_error(zeroshot_run(&r, &s, &m, &c, NULL, tok, &as_it_is, false, NULL, &err), &err, "choice 1 has 513 tokens");
}

/* The key of a task: the same for the same, another with BOS, for another text, and where only what is scored, what is right or how
 * long a choice is differs. */
static void keys_of_tasks(void **state)
{
    (void)state;
    enum { KEYS = 7 };
    struct task_document d = {.n_choices = 2, .choice = {{"a wall", " red", 3}, {"a wall", " blue", 4}}};
    struct task_set s = {.task = task_find("piqa"), .file = (char *)"made up", .n = 1, .docs = &d};
    char key[KEYS][65];
    OK(zeroshot_check(key[0], &s, &m, tok, false, &err));
    OK(zeroshot_check(key[1], &s, &m, tok, false, &err));
    OK(zeroshot_check(key[2], &s, &m, tok, true, &err));
    d.choice[1].continuation = " bluf";
    OK(zeroshot_check(key[3], &s, &m, tok, false, &err));
    d.choice[1] = (struct task_choice){"a", " wall blue", 4};
    OK(zeroshot_check(key[4], &s, &m, tok, false, &err));
    d.gold = 1;
    OK(zeroshot_check(key[5], &s, &m, tok, false, &err));
    d.choice[1].chars = 5;
    OK(zeroshot_check(key[6], &s, &m, tok, false, &err));
    assert_string_equal(key[0], key[1]);
    for (int i = 1; i < KEYS; i++)
        for (int j = i + 1; j < KEYS; j++)
            assert_string_not_equal(key[i], key[j]);
}

/* Two variants of three tasks: the metric that is published for each, and the errors of independent samples. */
static void averages(void **state)
{
    (void)state;
    const struct task *piqa = task_find("piqa"), *hellaswag = task_find("hellaswag"), *lambada = task_find("lambada");
    const struct zeroshot_result r[6] = {
        {.task = piqa, .acc = 0.5, .acc_stderr = 0.03, .acc_norm = 0.9, .acc_norm_stderr = 9},
        {.task = piqa, .acc = 0.25},
        {.task = lambada, .acc = 0.1, .acc_stderr = 9},
        {.task = lambada, .acc = 0.9},
        {.task = hellaswag, .acc = 0.9, .acc_stderr = 9, .acc_norm = 0.75, .acc_norm_stderr = 0.04},
        {.task = hellaswag, .acc_norm = 0.5},
    };
    const bool averaged[3] = {true, false, true};
    double error;
    assert_true(fabs(zeroshot_average(&error, r, averaged, 3, 2) - 0.625) < 1e-12);
    assert_true(fabs(error - 0.025) < 1e-12); /* sqrt(0.03^2 + 0.04^2) / 2 */
    assert_true(fabs(zeroshot_average(NULL, r + 1, averaged, 3, 2) - 0.375) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_bos),
        cmocka_unit_test(with_bos),
        cmocka_unit_test(with_dropped_blocks),
        cmocka_unit_test(bos_is_not_put_twice),
        cmocka_unit_test(ties),
        cmocka_unit_test(ends_and_empty_contexts),
        cmocka_unit_test(merges_across_the_end),
        cmocka_unit_test(long_texts_lose_their_start),
        cmocka_unit_test(keys_of_tasks),
        cmocka_unit_test(averages),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
