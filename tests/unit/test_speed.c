/* Speed: what is timed is generation. Sequences that are decoded together get what each gets alone; every run computes its
 * prompts. */
#include "tests/tiny_model.h"

#include <math.h>

#include "eval/generate.h"
#include "eval/speed.h"

enum { VOCAB = 256, MOST_IN = 150, MOST_OUT = 20 };

struct fixture {
    struct model m;
    struct compute c;
    struct lora_set lora;
};

static int open_fixture(void **state)
{
    static struct fixture f;
    static const bool targets[PROJ_COUNT] = {true, true, true, true, true, true, true};
    struct err err = {0};
    uint64_t seed = 5;
    if (scratch_open(NULL) != 0)
        return -1;
    tiny_folder(in_scratch("m"), &tiny_default);
    if (model_open(&f.m, in_scratch("m"), &err) != 0 || compute_open(&f.c, 2, PRECISION_F32, &err) != 0 ||
        lora_create(&f.lora, &f.m, 2, 4, 0, targets, false, &err) != 0) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    for (int64_t i = 0; i < f.lora.n_params; i++)
        f.lora.params[i] = 0.3f * tiny_random(&seed);
    *state = &f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    lora_free(&f->lora);
    compute_close(&f->c);
    model_close(&f->m);
    return scratch_close(NULL);
}

/* Prompts of their own, [batch, n]. */
static void make_prompts(int32_t *ids, int64_t batch, int64_t n)
{
    for (int64_t i = 0; i < batch * n; i++)
        ids[i] = (int32_t)((i * 29 + i / n * i * 13 + 7) % VOCAB);
}

static void check_alone(struct fixture *f, const struct lora_set *lora, const int32_t *prompts, const struct speed_protocol *p,
                        const int32_t *got)
{
    const struct sampling greedy = {0};
    for (int64_t i = 0; i < p->batch; i++) {
        struct generator g;
        struct ids alone = {0};
        OK(generator_open(&g, &f->m, &f->c, lora, p->n_prompt + p->out_len, &err));
        OK(generate(&alone, &g, prompts + i * p->n_prompt, p->n_prompt, p->out_len, NULL, &greedy, NULL, NULL, &err));
        assert_int_equal(alone.n, p->out_len);
        assert_memory_equal(alone.ids, got + i * p->out_len, alone.n * sizeof *alone.ids);
        free(alone.ids);
        generator_close(&g);
    }
}

static void together_is_alone(void **state)
{
    static const struct speed_protocol protocols[] = {
        {1, 12, 20, 1, 2}, {16, 12, 20, 0, 2}, {5, 150, 3, 1, 1}, {16, 100, 2, 0, 1}, {3, 1, 2, 0, 1}};
    struct fixture *f = *state;
    int32_t prompts[SPEED_MAX_BATCH * MOST_IN], ids[SPEED_MAX_BATCH * MOST_OUT];
    for (size_t k = 0; k < sizeof protocols / sizeof *protocols; k++)
        for (int adapted = 0; adapted < 2; adapted++) {
            const struct speed_protocol *p = &protocols[k];
            const struct lora_set *lora = adapted ? &f->lora : NULL;
            struct speed_result r;
            make_prompts(prompts, p->batch, p->n_prompt);
            OK(speed_measure(&r, ids, &f->m, &f->c, lora, prompts, p, NULL, &err));
            check_alone(f, lora, prompts, p, ids);
            assert_int_equal(r.prompt_rows, p->batch * p->n_prompt);
            assert_true(r.prefill_tok_s > 0 && r.decode_tok_s > 0 && r.latency_s > 0 && isfinite(r.latency_std));
            double tokens = (double)(p->batch * p->out_len); /* the parts make up the whole */
            assert_true(fabs(r.throughput_tok_s * r.latency_s / tokens - 1) < 1e-9);
            assert_int_equal(r.bytes_per_token, speed_bytes_per_step(&f->m, p->batch) / p->batch);
        }
}

/* Models that take turns are each timed as often as one alone, and compared turn by turn. */
static void in_turns(void **state)
{
    static const struct speed_protocol p = {2, 12, 6, 1, 3};
    struct fixture *f = *state;
    int32_t prompts[SPEED_MAX_BATCH * MOST_IN];
    struct model view;
    struct speed_result r[3];
    OK(model_view(&view, &f->m, &err));
    OK(model_drop_list(&view, "0", &err));
    const struct model *const models[] = {&f->m, &view, &f->m};
    make_prompts(prompts, p.batch, p.n_prompt);
    OK(speed_measure_turns(r, models, 3, &f->c, prompts, &p, NULL, &err));
    assert_true(r[0].ratio == 1 && r[0].ratio_std == 0);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(r[k].prompt_rows, p.batch * p.n_prompt);
        assert_true(r[k].decode_tok_s > 0 && r[k].decode_std > 0 && r[k].ratio > 0 && isfinite(r[k].ratio_std));
    }
    assert_true(r[1].bytes_per_token < r[0].bytes_per_token && r[2].bytes_per_token == r[0].bytes_per_token);
    model_view_free(&view);
}

static void bytes_of_a_step(void **state)
{
    struct fixture *f = *state;
    const struct config *c = &f->m.cfg;
    int64_t row = (int64_t)f->m.embed.row_bytes, width = row / c->dim,
            rest = model_running_params(&f->m) - 2 * c->n_blocks * c->dim;
    for (int64_t batch = 1; batch <= 16; batch *= 4) /* no weight is read twice */
        assert_int_equal(speed_bytes_per_step(&f->m, batch), width * (rest + c->vocab_size * c->dim) + batch * row);
}

static void what_is_refused(void **state)
{
    static const struct speed_protocol protocols[] = {{0, 12, 8, 0, 1},  {SPEED_MAX_BATCH + 1, 12, 8, 0, 1},
                                                      {1, 0, 8, 0, 1},   {1, 12, 1, 0, 1},
                                                      {1, 12, 8, -1, 1}, {1, 12, 8, 0, 0}};
    struct fixture *f = *state;
    int32_t prompts[(SPEED_MAX_BATCH + 1) * 12] = {0};
    for (size_t k = 0; k < sizeof protocols / sizeof *protocols; k++) {
        struct err err = {0};
        struct speed_result r;
        assert_int_equal(speed_measure(&r, NULL, &f->m, &f->c, NULL, prompts, &protocols[k], NULL, &err), -1);
        assert_int_equal(err.code, ERR_USAGE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(together_is_alone),
        cmocka_unit_test(bytes_of_a_step),
        cmocka_unit_test(in_turns),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
