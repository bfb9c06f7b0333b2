/* Training: the same bytes on any number of threads, with activations kept or computed again, and when it is resumed. */
#include "core/io/h5.h"
#include "tests/fixtures/fixture.h"

#include "core/base/dir.h"
#include "core/base/file.h"
#include "train/trainer.h"

enum { ROWS = 21, EVAL_ROWS = 4, CUTOFF = 48, STEPS = 7, SAVE_AT = 4 };

/* Rows of 5 to CUTOFF random tokens whose first part is not learnt. */
static struct instructions random_rows(int64_t n, int64_t vocab, uint64_t seed)
{
    struct rng rng;
    struct instructions d = {.rows = calloc((size_t)n, sizeof *d.rows), .n = n};
    assert_non_null(d.rows);
    rng_seed(&rng, seed);
    for (int64_t i = 0; i < n; i++) {
        int64_t len = 5 + rng_below(&rng, CUTOFF - 4), prompt = 1 + rng_below(&rng, len - 2);
        d.rows[i] = (struct instruction_row){random_ids(len, vocab, seed + 10 + (uint64_t)i), NULL, len};
        d.rows[i].labels = calloc((size_t)len, sizeof(int32_t));
        assert_non_null(d.rows[i].labels);
        for (int64_t k = 0; k < len; k++)
            d.rows[i].labels[k] = k < prompt ? LABEL_NONE : d.rows[i].ids[k];
    }
    return d;
}

/* What every run here starts from: three steps an epoch (21 rows, 6 a step, the last of them left over), so that seven steps
 * see three shuffles; a checkpoint after step 4, in the middle of the second epoch. */
static const struct train_options usual = {
    .lr = 3e-3,
    .clip = 1,
    .epochs = 1,
    .steps = STEPS,
    .batch = 6,
    .micro_batch = 2,
    .cutoff = CUTOFF,
    .warmup = 2,
    .eval_every = 2,
    .save_every = SAVE_AT,
    .keep = 1,
    .shuffle = true,
    .seed = 5,
    .memory = BACKPROP_KEEP,
};

/* Time and memory in train.h5 are those of the training, added to what there was before. */
static void check_curves(const char *dir, double seconds)
{
    char path[256];
    double wall, peak;
    snprintf(path, sizeof path, "%s/train.h5", dir);
    OK(h5_read_attr_f64(&wall, path, "/", "wall_seconds", &err));
    OK(h5_read_attr_f64(&peak, path, "/", "peak_rss_bytes", &err));
    assert_true(wall >= 5 + seconds && wall < 5 + 60 + 2 * seconds);
    assert_true(peak > 1e6);
}

static void train(const struct fixture *f, int threads, const struct train_options *o, const char *dir)
{
    static const bool some[PROJ_COUNT] = {[PROJ_Q] = true, [PROJ_V] = true, [PROJ_GATE] = true, [PROJ_DOWN] = true};
    struct instructions rows = random_rows(ROWS, f->m.cfg.vocab_size, 100);
    struct instructions eval = random_rows(EVAL_ROWS, f->m.cfg.vocab_size, 200);
    struct train_result r;
    struct lora_set l;
    struct compute c;
    struct rng rng;
    json_t *facts = json_pack("{ss sf sI}", "version", "test", "wall_seconds", 5.0, "peak_rss_bytes", (json_int_t)1);
    rng_seed(&rng, o->resume ? 8 : 9); /* where a resumed adapter starts must not matter */
    OK(compute_open(&c, threads, PRECISION_F32, &err));
    OK(lora_create(&l, &f->m, 16, 32, 0.05, some, true, &err)); /* parameters for several chunks of the optimizer */
    lora_init(&l, &f->m, &rng);
    OK(train_lora(&r, &l, &f->m, &c, &rows, &eval, o, dir, facts, NULL, &err));
    assert_true(isfinite(r.last_loss) && isfinite(r.eval_loss));
    check_curves(dir, r.seconds);
    lora_free(&l);
    compute_close(&c);
    instructions_free(&rows);
    instructions_free(&eval);
    json_decref(facts);
}

static void read_at(char **data, size_t *n, const char *dir, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    OK(file_read(data, n, path, &err));
}

static void assert_same_file(const char *a_dir, const char *b_dir, const char *name)
{
    char *a, *b;
    size_t na, nb;
    read_at(&a, &na, a_dir, name);
    read_at(&b, &nb, b_dir, name);
    assert_int_equal(na, nb);
    assert_same_bits(a, b, na, name);
    free(a);
    free(b);
}

/* The lines of train.jsonl as an array, without the one thing that depends on the time of day. */
static json_t *journal(const char *dir)
{
    char *text;
    size_t n;
    json_t *lines = json_array();
    read_at(&text, &n, dir, "train.jsonl");
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *v = json_loads(line, 0, NULL);
        assert_non_null(v);
        json_object_del(v, "tokens_per_s");
        json_array_append_new(lines, v);
    }
    free(text);
    return lines;
}

static void assert_same_training(const char *a_dir, const char *b_dir)
{
    json_t *a = journal(a_dir), *b = journal(b_dir);
    assert_int_equal(json_array_size(a), STEPS + STEPS / 2 + 1); /* a line a step, evaluations every other step and at the end */
    assert_true(json_equal(a, b));                               /* numbers are written with 17 digits: equal text is equal bits */
    json_decref(a);
    json_decref(b);
    assert_same_file(a_dir, b_dir, "adapter_model.safetensors");
    assert_same_file(a_dir, b_dir, "best/adapter_model.safetensors");
}

/* ---- the tests ---- */

static void threads(void **state)
{
    struct fixture *f = *state;
    static const int counts[] = {2, 3, 5};
    char one[128], many[128];
    scratch_dir(one, f, "1");
    train(f, 1, &usual, one);
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", counts[i]);
        scratch_dir(many, f, name);
        train(f, counts[i], &usual, many);
        assert_same_training(one, many);
        assert_same_file(one, many, "checkpoint.safetensors");
    }
}

static void kept_or_recomputed(void **state)
{
    struct fixture *f = *state;
    struct train_options o = usual;
    char keep[128], recompute[128];
    scratch_dir(keep, f, "keep");
    scratch_dir(recompute, f, "recompute");
    train(f, 1, &o, keep);
    o.memory = BACKPROP_RECOMPUTE;
    train(f, 1, &o, recompute);
    assert_same_training(keep, recompute);
}

/* What a run killed in step 6 leaves behind: the state after step 4, lines of later steps, and a line cut in the middle. */
static void leave_as_if_killed(const char *full, const char *dir)
{
    static const char *const files[] = {"checkpoint.safetensors", "best/adapter_model.safetensors", "best/adapter_config.json"};
    char path[256], *data;
    size_t n;
    snprintf(path, sizeof path, "%s/best", dir);
    OK(dir_make(path, &err));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        read_at(&data, &n, full, files[i]);
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        OK(file_write(path, data, n, &err));
        free(data);
    }
    read_at(&data, &n, full, "train.jsonl");
    char *sixth = strstr(data, "{\"step\":6");
    assert_non_null(sixth);
    snprintf(path, sizeof path, "%s/train.jsonl", dir);
    OK(file_write(path, data, (size_t)(sixth - data) + 20, &err));
    free(data);
}

static void resumed_is_uninterrupted(void **state)
{
    struct fixture *f = *state;
    struct train_options o = usual;
    char full[128], resumed[128];
    scratch_dir(full, f, "full");
    scratch_dir(resumed, f, "resumed");
    train(f, 1, &o, full);
    leave_as_if_killed(full, resumed);
    o.resume = true;
    train(f, 3, &o, resumed);
    assert_same_training(full, resumed);
}

/* Training does something: the loss of the rows it sees falls, and another seed gives another adapter. */
static void training_learns(void **state)
{
    struct fixture *f = *state;
    struct train_options o = usual;
    char a_dir[128], b_dir[128], *a, *b;
    size_t na, nb;
    o.steps = 60;
    o.eval_every = o.save_every = 0;
    scratch_dir(a_dir, f, "a");
    scratch_dir(b_dir, f, "b");
    train(f, 1, &o, a_dir);
    o.seed++;
    train(f, 1, &o, b_dir);
    read_at(&a, &na, a_dir, "adapter_model.safetensors");
    read_at(&b, &nb, b_dir, "adapter_model.safetensors");
    assert_int_equal(na, nb);
    assert_true(memcmp(a, b, na) != 0);
    json_t *lines = journal(a_dir);
    double first = 0, last = 0;
    for (size_t i = 0; i < 6; i++) {
        first += json_number_value(json_object_get(json_array_get(lines, i), "loss")) / 6;
        last += json_number_value(json_object_get(json_array_get(lines, 54 + i), "loss")) / 6;
    }
    assert_true(last < first - 0.3); /* seen: from 5.1 to 3.0 and from 4.8 to 3.1 nats, learnt by heart */
    json_decref(lines);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(threads),
        ON_BOTH(kept_or_recomputed),
        ON_BOTH(resumed_is_uninterrupted),
        ON_BOTH(training_learns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
