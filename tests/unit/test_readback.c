/* What a disk or a memory does to a file on its way: adapters and states are read back before they get their names, and the parts of
 * a result get theirs together. The C library's fwrite and rename are replaced here by ones that go wrong when told to. */
#include "tests/tiny_model.h"

#include <errno.h>
#include <fcntl.h>

#include "core/base/dir.h"
#include "core/model/lora.h"
#include "train/journal.h"

static const struct tiny shape = {2, 16, 2, 1, 8, 24, 260, 1};
static int64_t flip_at = -1;  /* of the large pieces that are written, the one that changes by a bit */
static int fail_at, crash_at; /* of the renames, counted from 1: the one that fails, or after which nothing more works */
static int renames;

size_t fwrite(const void *data, size_t size, size_t n, FILE *f)
{
    if (size * n < 64 || flip_at < 0 || flip_at-- > 0)
        return fwrite_unlocked(data, size, n, f);
    char *other = malloc(size * n);
    memcpy(other, data, size * n);
    other[size * n / 2] ^= 4;
    n = fwrite_unlocked(other, size, n, f);
    free(other);
    return n;
}

int rename(const char *from, const char *to)
{
    renames++;
    if (renames == fail_at || (crash_at && renames > crash_at)) {
        errno = EIO;
        return -1;
    }
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

static void open_both(struct model *m, struct lora_set *l, float b)
{
    static const bool q_only[PROJ_COUNT] = {true};
    OK(model_open(m, in_scratch("model"), &err));
    OK(lora_create(l, m, 2, 4, 0, q_only, false, &err));
    for (int64_t i = 0; i < l->n_params; i++)
        l->params[i] = b;
}

/* The number that all weights of the adapter in the scratch folder have; 0 where it is refused. */
static float loaded(const struct model *m)
{
    struct err why = {0};
    struct lora_set l;
    if (lora_load(&l, m, in_scratch("adapter"), false, &why) != 0)
        return 0;
    float first = l.params[0];
    for (int64_t i = 0; i < l.n_params; i++)
        assert_true(l.params[i] == first);
    lora_free(&l);
    return first;
}

static void adapters_are_read_back(void **state)
{
    (void)state;
    struct model m;
    struct lora_set l;
    open_both(&m, &l, 0.5f);
    for (int64_t piece = 0; piece < 5; piece++) { /* the header, then the tensors */
        struct err why = {0};
        dir_remove(in_scratch("adapter"));
        scratch_dir("adapter");
        flip_at = piece;
        assert_int_equal(lora_save(&l, &m, in_scratch("adapter"), &why), -1);
        flip_at = -1;
        assert_non_null(strstr(why.msg, "adapter_model.safetensors"));
        assert_true(access(in_scratch("adapter/adapter_model.safetensors"), F_OK) != 0);
        assert_true(access(in_scratch("adapter/adapter_config.json"), F_OK) != 0);
    }
    lora_free(&l);
    model_close(&m);
}

static void states_are_read_back(void **state)
{
    (void)state;
    struct model m;
    struct lora_set l;
    open_both(&m, &l, 0.5f);
    float *moments = calloc((size_t)l.n_params, sizeof *moments);
    struct adamw o = {.m = moments, .v = moments, .t = 3};
    scratch_dir("state");
    OK(state_save(in_scratch("state"), &l, &o, 1.5, NULL, &err));
    struct buf before = read_bytes(in_scratch("state/checkpoint.safetensors"));
    l.params[0] = 1;
    for (int64_t piece = 0; piece < 4; piece++) {
        struct err why = {0};
        flip_at = piece;
        assert_int_equal(state_save(in_scratch("state"), &l, &o, 1.5, NULL, &why), -1);
        flip_at = -1;
        assert_non_null(strstr(why.msg, "checkpoint.safetensors"));
        struct buf after = read_bytes(in_scratch("state/checkpoint.safetensors"));
        assert_true(after.n == before.n && !memcmp(after.p, before.p, before.n));
        buf_free(&after);
    }
    buf_free(&before);
    free(moments);
    lora_free(&l);
    model_close(&m);
}

/* Whatever rename fails, the adapter is the old one or the new one; after a crash, that or none. */
static void parts_appear_together(void **state)
{
    (void)state;
    struct model m;
    struct lora_set old, new;
    open_both(&m, &old, 0.5f);
    model_close(&m);
    open_both(&m, &new, 0.25f);
    for (int there = 0; there < 2; there++)
        for (int n = 1, done = 0; !done; n++)
            for (int crash = 0; crash < 2; crash++) {
                struct err why = {0};
                dir_remove(in_scratch("adapter"));
                scratch_dir("adapter");
                if (there)
                    OK(lora_save(&old, &m, in_scratch("adapter"), &err));
                renames = 0;
                *(crash ? &crash_at : &fail_at) = n;
                int rc = lora_save(&new, &m, in_scratch("adapter"), &why);
                crash_at = fail_at = 0;
                float now = loaded(&m);
                done = rc == 0 && renames <= n;
                assert_true(rc != 0 || now == 0.25f);
                assert_true(rc == 0 || now == 0 || (there && now == 0.5f));
                assert_true(rc == 0 || crash || now == (there ? 0.5f : 0));
            }
    lora_free(&old);
    lora_free(&new);
    model_close(&m);
}

static int open_all(void **state)
{
    scratch_open(state);
    tiny_folder(scratch_dir("model"), &shape);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_are_read_back),
        cmocka_unit_test(states_are_read_back),
        cmocka_unit_test(parts_appear_together),
    };
    return cmocka_run_group_tests(tests, open_all, scratch_close);
}
