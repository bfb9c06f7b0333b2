/* Documents of the seven tasks against those of lm-evaluation-harness 0.4.13: gold, lengths, and the texts of the first three of
 * each, from the published files and from Hugging Face rows. The files have terms of their own and are no part of the
 * repository: the test reads ../shared, and is skipped where that is not there. */
#include "tests/tiny_model.h"

#include "core/base/json.h"
#include "data/tasks.h"

#define SHARED "../shared/"

static json_t *golden;

static int set_up(void **state)
{
    (void)state;
    struct err err = {0};
    golden = json_read(SHARED "golden/zeroshot/bos0.json.gz", &err);
    return golden ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(golden);
    return 0;
}

/* BoolQ's and WinoGrande's choice lengths are used by no metric. */
static void expect_documents(const struct task_set *s, const json_t *want)
{
    const json_t *docs = json_object_get(want, "docs"), *v;
    size_t i;
    json_array_foreach(docs, i, v) {
        const struct task_document *d = &s->docs[i];
        const json_t *chars = json_object_get(v, "choice_chars");
        assert_int_equal(d->index, json_integer_value(json_object_get(v, "index")));
        assert_int_equal(d->gold, json_integer_value(json_object_get(v, "gold")));
        assert_int_equal(d->n_choices, json_array_size(chars));
        for (int k = 0; k < d->n_choices; k++)
            assert_int_equal(d->choice[k].chars, json_integer_value(json_array_get(chars, (size_t)k)));
    }
}

static void expect_texts(const struct task_set *s, const json_t *want)
{
    const json_t *examples = json_object_get(want, "examples"), *requests, *v;
    size_t i, k;
    assert_int_equal(json_array_size(examples), 3);
    json_array_foreach(examples, i, requests)
        json_array_foreach(requests, k, v) {
            const struct task_choice *c = &s->docs[i].choice[k];
            assert_string_equal(c->context, json_string_value(json_object_get(v, "context")));
            assert_string_equal(c->continuation, json_string_value(json_object_get(v, "continuation")));
        }
}

static void from_folder(const char *folder, int64_t limit)
{
    const json_t *tasks = json_object_get(golden, "tasks");
    for (const struct task *t = task_table; t->name; t++) {
        const json_t *want = json_object_get(tasks, t->name);
        struct task_set s;
        if (!want)
            continue;
        OK(task_read(&s, t, folder, 0, limit, &err));
        assert_true(s.n >= 100);
        expect_documents(&s, want);
        expect_texts(&s, want);
        task_free(&s);
    }
}

static void published_files(void **state)
{
    (void)state;
    from_folder(SHARED "data", 0);
}

static void hugging_face_rows(void **state)
{
    (void)state;
    from_folder(SHARED "golden/zeroshot/docs", 100);
}

int main(void)
{
    if (access(SHARED "golden/zeroshot/bos0.json.gz", R_OK) != 0) {
        printf(SHARED "golden/zeroshot is not there\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_files), cmocka_unit_test(hugging_face_rows)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
