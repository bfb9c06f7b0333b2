/* The engine: a request gets the same tokens alone and in company, from a cache and without one; it leaves when it should. */
#include "tests/tiny_model.h"

#include <math.h>
#include <time.h>

#include "core/model/save.h"
#include "eval/engine.h"
#include "eval/speculate.h"

enum { VOCAB = 260, CONTEXT = 400, LONG = 200 };

struct fixture {
    struct model m, cut;
    struct compute c;
    struct engine_variant variants[2];
};

static int open_model(struct fixture *f, const char *path)
{
    struct err err = {0};
    if (model_open(&f->m, path, &err) != 0 || model_view(&f->cut, &f->m, &err) != 0 ||
        model_drop_list(&f->cut, "2,5.attn", &err) != 0) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    f->variants[0].m = &f->m;
    f->variants[1].m = &f->cut;
    return 0;
}

static int open_fixture(void **state)
{
    static struct fixture f;
    struct err err = {0};
    if (scratch_open(NULL) != 0 || compute_open(&f.c, 2, PRECISION_F32, &err) != 0)
        return -1;
    tiny_folder(in_scratch("m"), &tiny_default);
    *state = &f;
    return open_model(&f, in_scratch("m"));
}

/* The same in q4_1, with rows that are long enough for whole numbers: its products depend on how many slots there are. */
static int open_quantised(void **state)
{
    static struct fixture f;
    static const struct tiny shape = {8, 64, 2, 1, 32, 1056, 260, 1};
    const struct save_options o = {.format = FORMAT_GGUF, .dtype = DTYPE_Q4_1};
    struct model plain;
    struct err err = {0};
    if (scratch_open(NULL) != 0 || compute_open(&f.c, 2, PRECISION_F32, &err) != 0)
        return -1;
    tiny_folder(in_scratch("m"), &shape);
    if (model_open(&plain, in_scratch("m"), &err) != 0 || model_save(&plain, &f.c, in_scratch("m.gguf"), &o, NULL, &err) != 0) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    model_close(&plain);
    *state = &f;
    return open_model(&f, in_scratch("m.gguf"));
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    compute_close(&f->c);
    model_view_free(&f->cut);
    model_close(&f->m);
    return scratch_close(NULL);
}

static struct engine *start(struct fixture *f, int64_t slots, int64_t queue)
{
    struct engine *e;
    OK(engine_open(&e, f->variants, 2, &f->c, &(struct engine_limits){slots, CONTEXT, queue, 64}, &err));
    return e;
}

/* Prompt number k: of its own length, the long ones with one beginning. */
static struct ask prompt(int32_t ids[LONG], int k)
{
    static const int64_t lengths[] = {5, 150, 200, 7, 64, 65, 129, 1, 70, 193};
    struct ask a = {.variant = k % 2, .prompt = ids, .n_prompt = lengths[k % 10], .max_tokens = 12};
    for (int64_t i = 0; i < LONG; i++)
        ids[i] = (int32_t)((i * 31 + (i > 140 || a.n_prompt < 64 ? k : 0) * 7) % 256);
    if (k % 3 == 1)
        a.sampling = (struct sampling){.temperature = 0.9, .top_k = k % 2 ? 20 : 0, .top_p = 0.95, .seed = (uint64_t)k};
    return a;
}

static void finish(struct job *j, int i)
{
    for (uint64_t seen = 0; job_state(j, i).finish == RUNNING;)
        seen = job_wait(j, seen, 10);
}

static struct job *submit(struct engine *e, const struct ask *a, int n)
{
    struct job *j = NULL;
    struct err err = {0};
    if (engine_submit(&j, e, a, n, &err) != SUBMITTED)
        fail_msg("%s", err.msg);
    return j;
}

/* What `espalier generate` gives for the same, with the kernels of an engine of so many slots. */
static void by_generator(struct fixture *f, const struct ask *a, int64_t slots, struct ids *out)
{
    struct generator g;
    struct compute c = compute_for_rows(&f->c, slots);
    OK(generator_open(&g, f->variants[a->variant].m, &c, NULL, CONTEXT, &err));
    OK(generate(out, &g, a->prompt, a->n_prompt, a->max_tokens, a->ends, &a->sampling, NULL, NULL, &err));
    generator_close(&g);
}

static void company_of(struct fixture *f, int64_t slots)
{
    enum { N = 20 };
    int32_t ids[N][LONG];
    struct ask asks[N];
    struct engine *e = start(f, slots, 64);
    for (int round = 0; round < 2; round++) { /* the second finds prompts in the slots */
        struct job *jobs[N];
        for (int k = 0; k < N; k++) {
            asks[k] = prompt(ids[k], k);
            jobs[k] = submit(e, &asks[k], 1);
        }
        for (int k = N - 1; k >= 0; k--) {
            finish(jobs[k], 0);
            assert_int_equal(job_state(jobs[k], 0).finish, FINISH_LENGTH);
            assert_int_equal(job_state(jobs[k], 0).n, asks[k].max_tokens);
        }
        struct engine_stats stats;
        engine_stats(e, &stats);
        assert_int_equal(stats.running + stats.waiting, 0);
        assert_true(round == 0 || stats.reused_tokens > 0);
        for (int k = 0; k < N; k++) { /* the engine rests: the generator may have its compute */
            struct ids alone = {0};
            by_generator(f, &asks[k], slots, &alone);
            for (int64_t i = 0; i < asks[k].max_tokens; i++)
                if (alone.ids[i] != job_token(jobs[k], 0, i, false).id)
                    fail_msg("round %d, prompt %d: token %lld is not that of generate", round, k, (long long)i);
            free(alone.ids);
            job_release(jobs[k]);
        }
    }
    engine_close(e);
}

static void company_is_alone(void **state)
{
    company_of(*state, 6);
    company_of(*state, 4);
}

/* Log-probabilities are the same to the last bit, too, however prompts are cut and whatever runs beside them. */
static void bits_do_not_change(void **state)
{
    enum { N = 10 };
    struct fixture *f = *state;
    int32_t ids[N][LONG];
    float first[N][12], of_prompt[N][LONG];
    for (int way = 0; way < 3; way++) { /* one after the other; all at once; again, with caches */
        struct engine *e = start(f, way == 0 ? 1 : 7, 64);
        for (int round = 0; round < (way == 2 ? 2 : 1); round++) {
            struct job *jobs[N] = {0};
            for (int k = 0; k < N; k++) {
                struct ask a = prompt(ids[k], k);
                a.logprobs = true;
                a.top = 3;
                a.echo = way < 2;
                jobs[k] = submit(e, &a, 1);
                if (way == 0)
                    finish(jobs[k], 0);
            }
            for (int k = 0; k < N; k++) {
                finish(jobs[k], 0);
                struct ask a = prompt(ids[k], k);
                for (int64_t i = 0; i < a.max_tokens; i++) {
                    struct token t = job_token(jobs[k], 0, i, false);
                    assert_true(t.logprob <= 0 && t.top && t.top[0].logit >= t.top[2].logit);
                    if (way == 0)
                        first[k][i] = t.logprob;
                    assert_true(first[k][i] == t.logprob);
                }
                for (int64_t i = 1; way < 2 && i < a.n_prompt; i++) {
                    struct token t = job_token(jobs[k], 0, i, true);
                    assert_int_equal(t.id, ids[k][i]);
                    if (way == 0)
                        of_prompt[k][i] = t.logprob;
                    assert_true(of_prompt[k][i] == t.logprob);
                }
                job_release(jobs[k]);
            }
        }
        engine_close(e);
    }
}

/* The losses that evaluation gets from whole windows. */
static void echo_is_evaluation(void **state)
{
    struct fixture *f = *state;
    int32_t ids[LONG];
    float nll[LONG];
    struct ask a = prompt(ids, 2);
    struct lm lm;
    a.max_tokens = 0;
    a.echo = a.logprobs = true;
    struct engine *e = start(f, 2, 4);
    struct job *j = submit(e, &a, 1);
    finish(j, 0);
    OK(lm_open(&lm, &f->m, &f->c, NULL, a.n_prompt, 1, a.n_prompt, &err));
    OK(lm_window_nll(&lm, nll, ids, 1, a.n_prompt, &err));
    assert_true(isnan(job_token(j, 0, 0, true).logprob));
    for (int64_t i = 1; i < a.n_prompt; i++) /* the same float32 sums in another order */
        assert_true(fabsf(job_token(j, 0, i, true).logprob + nll[i - 1]) < 1e-4f);
    lm_close(&lm);
    job_release(j);
    engine_close(e);
}

/* Four requests that begin alike read that once, and are what they are alone. The last begins otherwise. */
static void one_beginning_is_read_once(void **state)
{
    enum { N = 5 };
    struct fixture *f = *state;
    int32_t ids[N][LONG];
    struct ask asks[N];
    struct engine *e; /* in one step there is room for all of them */
    OK(engine_open(&e, f->variants, 2, &f->c, &(struct engine_limits){N, CONTEXT, N, N * LONG}, &err));
    for (int k = 0; k < N; k++) {
        asks[k] = prompt(ids[k], 2);
        asks[k].n_prompt = k == 3 ? 150 : LONG;
        asks[k].sampling = (struct sampling){.temperature = 1, .top_p = 1, .seed = (uint64_t)k};
        ids[k][k == 4 ? 0 : LONG - 1] = k;
    }
    struct job *j = submit(e, asks, N);
    struct engine_stats stats;
    for (int k = 0; k < N; k++) {
        finish(j, k);
        assert_int_equal(job_state(j, k).reused, k == 0 || k == 4 ? 0 : k == 3 ? 128 : 192);
    }
    engine_stats(e, &stats);
    assert_int_equal(stats.reused_tokens, 2 * 192 + 128);
    assert_int_equal(stats.prompt_tokens, 4 * LONG + 150 - stats.reused_tokens);
    for (int k = 0; k < N; k++) {
        struct ids alone = {0};
        by_generator(f, &asks[k], N, &alone);
        for (int64_t i = 0; i < asks[k].max_tokens; i++)
            assert_int_equal(alone.ids[i], job_token(j, k, i, false).id);
        free(alone.ids);
    }
    job_release(j);
    /* who waits for a beginning does not wait for ever when the one that reads it is given up, whenever that is */
    for (int round = 0; round < 12; round++) {
        for (int k = 0; k < N; k++)
            for (int64_t i = 0; i < LONG; i++)
                ids[k][i] = (int32_t)((i * 3 + round * 11 + (i > 150 ? k : 0)) % 256);
        j = submit(e, asks, N);
        if (round % 3)
            job_wait(j, 0, 1);
        job_cancel(j, 0);
        for (int k = 1; k < N; k++) {
            finish(j, k);
            assert_int_equal(job_state(j, k).n, asks[k].max_tokens);
        }
        job_release(j);
    }
    engine_close(e);
}

/* The formula of OpenAI's reference: logit - count * frequency - (count > 0) * presence, and the bias; log-probabilities are the
 * model's own. */
static void penalties_and_biases(void **state)
{
    struct fixture *f = *state;
    const struct candidate bias[] = {{1.5f, 40}, {-100, 97}, {-0.75f, 3}};
    int32_t ids[LONG], chosen[40];
    struct generator g;
    struct ask a = prompt(ids, 4);
    a.max_tokens = 40;
    a.logprobs = true;
    a.sampling = (struct sampling){.presence_penalty = 0.25, .frequency_penalty = 0.125, .bias = bias, .n_bias = 3};
    struct engine *e = start(f, 2, 4);
    struct job *j = submit(e, &a, 1);
    finish(j, 0);
    int counts[VOCAB] = {0}, repeated = 0;
    OK(generator_open(&g, f->variants[a.variant].m, &f->c, NULL, CONTEXT, &err));
    OK(generator_feed(&g, ids, a.n_prompt, &err));
    for (int i = 0; i < a.max_tokens; i++) {
        float at[VOCAB];
        int best = 0;
        for (int id = 0; id < VOCAB; id++) {
            at[id] = counts[id] ? g.logits[id] - 0.25f : g.logits[id];
            for (int k = 0; k < counts[id]; k++)
                at[id] -= 0.125f;
            for (int k = 0; k < 3; k++)
                at[id] += bias[k].id == id ? bias[k].logit : 0;
            if (at[id] > at[best])
                best = id;
        }
        struct token t = job_token(j, 0, i, false);
        assert_int_equal(t.id, best);
        double lse = sample_lse(&g.sampler, f->c.rows, g.logits);
        assert_true(t.logprob == (float)((double)g.logits[best] - lse));
        chosen[i] = best;
        repeated += counts[best]++ > 0;
        OK(generator_feed(&g, &chosen[i], 1, &err));
    }
    generator_close(&g);
    job_release(j);
    a.sampling = (struct sampling){0}; /* and without them it is another text */
    j = submit(e, &a, 1);
    finish(j, 0);
    int differ = 0;
    for (int i = 0; i < a.max_tokens; i++)
        differ += job_token(j, 0, i, false).id != chosen[i];
    assert_true(differ > 0 && repeated > 0);
    job_release(j);
    engine_close(e);
}

/* An adapter, too: the same bits one after the other and all at once, and other ones than without it. */
static void adapters_in_company(void **state)
{
    enum { N = 8 };
    struct fixture *f = *state;
    const bool targets[PROJ_COUNT] = {true, true, true, true, true, true, true};
    struct lora_set lora;
    uint64_t seed = 3;
    int32_t ids[N][LONG];
    float first[N][12];
    int differ = 0;
    OK(lora_create(&lora, &f->cut, 4, 8, 0, targets, false, &err));
    for (int64_t i = 0; i < lora.n_params; i++)
        lora.params[i] = 0.3f * tiny_random(&seed);
    struct engine_variant variants[] = {{&f->cut, NULL}, {&f->cut, &lora}};
    for (int way = 0; way < 3; way++) { /* without; alone; together */
        struct engine *e;
        struct job *jobs[N];
        OK(engine_open(&e, variants, 2, &f->c, &(struct engine_limits){way == 2 ? 5 : 1, CONTEXT, 64, 128}, &err));
        for (int k = 0; k < N; k++) {
            struct ask a = prompt(ids[k], k);
            a.variant = way > 0;
            a.sampling.temperature = 0;
            a.logprobs = true;
            jobs[k] = submit(e, &a, 1);
            if (way < 2)
                finish(jobs[k], 0);
        }
        for (int k = 0; k < N; k++) {
            finish(jobs[k], 0);
            for (int64_t i = 0; i < 12; i++) {
                float logprob = job_token(jobs[k], 0, i, false).logprob;
                differ += way == 1 && logprob != first[k][i];
                if (way == 2)
                    assert_true(first[k][i] == logprob);
                first[k][i] = logprob;
            }
            job_release(jobs[k]);
        }
        engine_close(e);
    }
    assert_true(differ > N);
    lora_free(&lora);
}

static void stops_at_eos(void **state)
{
    struct fixture *f = *state;
    int32_t ids[LONG];
    struct ask a = prompt(ids, 4);
    struct engine *e = start(f, 1, 4);
    struct job *j = submit(e, &a, 1);
    finish(j, 0);
    struct tokenizer_ends ends = {{job_token(j, 0, 3, false).id}, 1};
    a.ends = &ends;
    int64_t at = 0;
    while (job_token(j, 0, at, false).id != ends.id[0])
        at++;
    job_release(j);
    j = submit(e, &a, 1);
    finish(j, 0);
    assert_int_equal(job_state(j, 0).finish, FINISH_STOP);
    assert_int_equal(job_state(j, 0).n, at + 1);
    job_release(j);
    engine_close(e);
}

/* One slot: who is cancelled makes room for who waits, in the queue or out of it; more than the queue holds is refused whole. */
static void cancelling_makes_room(void **state)
{
    struct fixture *f = *state;
    int32_t ids[LONG];
    struct err err = {0};
    struct ask a = prompt(ids, 4), many[4];
    struct job *refused, *jobs[3];
    struct engine *e = start(f, 1, 2);
    a.max_tokens = CONTEXT - a.n_prompt;
    for (int i = 0; i < 4; i++)
        many[i] = a;
    assert_int_equal(engine_submit(&refused, e, many, 3, &err), QUEUE_FULL);
    jobs[0] = submit(e, &a, 1);
    while (job_state(jobs[0], 0).n == 0)
        job_wait(jobs[0], 0, 1);
    jobs[1] = submit(e, &a, 1);
    jobs[2] = submit(e, &a, 1);
    struct engine_stats stats;
    engine_stats(e, &stats);
    if (stats.running + stats.waiting == 3) { /* a fast machine may be through with the first */
        assert_int_equal(engine_submit(&refused, e, many, 1, &(struct err){0}), QUEUE_FULL);
        assert_null(refused);
    }
    job_release(jobs[1]); /* from the queue */
    job_cancel(jobs[0], 0);
    finish(jobs[0], 0);
    for (uint64_t seen = 0; job_state(jobs[2], 0).n < 2 && job_state(jobs[2], 0).finish == RUNNING;)
        seen = job_wait(jobs[2], seen, 10);
    assert_true(job_state(jobs[2], 0).n >= 2);
    job_release(jobs[2]);
    job_release(jobs[0]);
    engine_stats(e, &stats);
    assert_int_equal(stats.running + stats.waiting, 0);
    engine_close(e);
}

/* With a draft the tokens are those without, whatever is proposed; a draft that is the model itself is always right. */
static void drafts_change_nothing(void **state)
{
    struct fixture *f = *state;
    for (int k = 0; k < 20; k++) {
        int32_t ids[LONG];
        struct speculator s;
        struct ids plain = {0}, drafted = {0};
        struct ask a = prompt(ids, k);
        const struct model *draft = k % 4 == 3 ? &f->m : &f->cut;
        a.variant = 0;
        a.sampling.temperature = 0;
        a.max_tokens = 1 + 7 * k % 60;
        by_generator(f, &a, 1, &plain);
        struct tokenizer_ends ends = {{k % 5 == 4 ? plain.ids[plain.n / 2] : -1}, k % 5 == 4};
        a.ends = &ends;
        plain.n = 0;
        by_generator(f, &a, 1, &plain);
        OK(speculator_open(&s, &f->m, NULL, draft, NULL, 1 + k % 6, &f->c, CONTEXT, &err));
        OK(speculate(&drafted, &s, a.prompt, a.n_prompt, a.max_tokens, a.ends, NULL, NULL, &err));
        assert_int_equal(drafted.n, plain.n);
        assert_true(drafted.n == 0 || !memcmp(drafted.ids, plain.ids, drafted.n * sizeof *plain.ids));
        assert_true(s.accepted <= s.proposed && (a.max_tokens < 20 || ends.n > 0 || s.passes > 0));
        if (draft == &f->m && ends.n == 0)
            assert_true(s.passes * s.n_draft == s.proposed && s.proposed - s.accepted <= s.n_draft);
        speculator_close(&s);
        free(plain.ids);
        free(drafted.ids);
    }
}

static void steps_are_feeds(void **state)
{
    struct fixture *f = *state;
    struct generator g;
    int32_t ids[LONG];
    float together[12 * VOCAB];
    struct ask a = prompt(ids, 1);
    OK(generator_open(&g, &f->m, &f->c, NULL, CONTEXT, &err));
    OK(generator_feed(&g, ids, a.n_prompt, &err));
    OK(generator_steps(&g, together, ids, 12, &err));
    g.kv.len = a.n_prompt;
    for (int i = 0; i < 12; i++) {
        OK(generator_feed(&g, &ids[i], 1, &err));
        assert_memory_equal(g.logits, together + i * VOCAB, VOCAB * sizeof(float));
    }
    generator_close(&g);
}

static void wrong_asks(void **state)
{
    struct fixture *f = *state;
    int32_t ids[LONG];
    struct engine *e = start(f, 1, 4);
    struct ask good = prompt(ids, 4);
    const struct candidate bias = {1, VOCAB};
    for (int k = 0; k < 9; k++) {
        struct ask a = good;
        struct job *j;
        struct err err = {0};
        int32_t bad[] = {1, k % 2 ? -1 : VOCAB};
        if (k < 2) {
            a.prompt = bad;
            a.n_prompt = 2;
        }
        a.variant = k == 2 ? 2 : k == 3 ? -1 : 0;
        a.n_prompt = k == 4 ? 0 : a.n_prompt;
        a.max_tokens = k == 5 ? INT64_MAX : k == 6 ? 0 : a.max_tokens;
        a.top = k == 7 ? 21 : 0;
        a.sampling.bias = &bias;
        a.sampling.n_bias = k == 8;
        assert_int_equal(engine_submit(&j, e, &a, 1, &err), SUBMIT_FAILED);
        assert_true(err.msg[0] && !j);
    }
    engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(company_is_alone),
        cmocka_unit_test(bits_do_not_change),
        cmocka_unit_test(echo_is_evaluation),
        cmocka_unit_test(adapters_in_company),
        cmocka_unit_test(stops_at_eos),
        cmocka_unit_test(cancelling_makes_room),
        cmocka_unit_test(wrong_asks),
        cmocka_unit_test(drafts_change_nothing),
        cmocka_unit_test(steps_are_feeds),
        cmocka_unit_test(penalties_and_biases),
        cmocka_unit_test(one_beginning_is_read_once),
    };
    const struct CMUnitTest quantised[] = {
        cmocka_unit_test(company_is_alone),
        cmocka_unit_test(drafts_change_nothing),
        cmocka_unit_test(one_beginning_is_read_once),
        cmocka_unit_test(steps_are_feeds),
    };
    int failed = cmocka_run_group_tests(tests, open_fixture, close_fixture);
    return failed + cmocka_run_group_tests(quantised, open_quantised, close_fixture);
}
