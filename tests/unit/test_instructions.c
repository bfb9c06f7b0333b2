/* Training rows: the prompt masked, EOS where there is room, the cutoff, and files that hold something else. One token is a
 * byte. */
#include "tests/tiny_model.h"

#include "core/base/json.h"
#include "data/instructions.h"

static struct tokenizer *tok;
enum { EOS = 257 };

static int set_up(void **state)
{
    struct err err = {0};
    if (scratch_open(state) != 0)
        return -1;
    mkdir(in_scratch("tok"), 0777);
    tiny_tokenizer(in_scratch("tok/tokenizer.json"), false);
    write_text(in_scratch("tok/tokenizer_config.json"), "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}");
    return tokenizer_open(&tok, in_scratch("tok"), &err);
}

static int tear_down(void **state)
{
    tokenizer_free(tok);
    return scratch_close(state);
}

/* The template of tloen/alpaca-lora, written out once more. */
static const char with_input[] =
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that "
    "appropriately completes the request.\n\n### Instruction:\nADD\n\n### Input:\n1 2\n\n### Response:\n";
static const char without_input[] =
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\nHI\n\n### Response:\n";

static const char file[] = "[{\"instruction\":\"ADD\",\"input\":\"1 2\",\"output\":\"three\"},"
                           "{\"instruction\":\"HI\",\"input\":\"\",\"output\":\"ho\"}, {\"instruction\":\"HI\",\"output\":\"ho\"}]";

static void expect_row(const struct instruction_row *r, const char *prompt, const char *answer, bool eos, bool masked)
{
    size_t n = strlen(prompt), m = strlen(answer);
    assert_int_equal(r->n, n + m + eos);
    for (size_t i = 0; i < n + m + eos; i++) {
        int32_t id = i < n ? prompt[i] : i < n + m ? answer[i - n] : EOS;
        assert_int_equal(r->ids[i], id);
        assert_int_equal(r->labels[i], i < n && masked ? LABEL_NONE : id);
    }
}

static void prompts_are_masked(void **state)
{
    (void)state;
    struct instructions d;
    write_text(in_scratch("d.json"), file);
    OK(instructions_read(&d, in_scratch("d.json"), tok, 512, false, &err));
    assert_int_equal(d.n, 3);
    assert_int_equal(d.skipped, 0);
    expect_row(&d.rows[0], with_input, "three", true, true);
    expect_row(&d.rows[1], without_input, "ho", true, true);
    expect_row(&d.rows[2], without_input, "ho", true, true);
    instructions_free(&d);
    OK(instructions_read(&d, in_scratch("d.json"), tok, 512, true, &err));
    expect_row(&d.rows[0], with_input, "three", true, false);
    instructions_free(&d);
    instructions_free(&d);
}

static void json_lines_are_the_same(void **state)
{
    (void)state;
    struct instructions d;
    write_text(in_scratch("d.jsonl"), "{\"instruction\":\"ADD\",\"input\":\"1 2\",\"output\":\"three\"}\n\n"
                                      "{\"instruction\":\"HI\",\"output\":\"ho\"}");
    OK(instructions_read(&d, in_scratch("d.jsonl"), tok, 512, false, &err));
    assert_int_equal(d.n, 2);
    expect_row(&d.rows[0], with_input, "three", true, true);
    expect_row(&d.rows[1], without_input, "ho", true, true);
    instructions_free(&d);
}

/* Around the length L of prompt + "ho": EOS fits from L + 1 on; the answer loses tokens below L, and is gone at L - 2. */
static void the_cutoff(void **state)
{
    (void)state;
    int64_t prompt = (int64_t)strlen(without_input), whole = prompt + 2;
    struct instructions d;
    write_text(in_scratch("one.json"), "[{\"instruction\":\"HI\",\"input\":\"\",\"output\":\"ho\"}]");
    OK(instructions_read(&d, in_scratch("one.json"), tok, whole + 1, false, &err));
    expect_row(&d.rows[0], without_input, "ho", true, true);
    instructions_free(&d);
    OK(instructions_read(&d, in_scratch("one.json"), tok, whole, false, &err));
    expect_row(&d.rows[0], without_input, "ho", false, true);
    instructions_free(&d);
    OK(instructions_read(&d, in_scratch("one.json"), tok, whole - 1, false, &err));
    expect_row(&d.rows[0], without_input, "h", false, true);
    instructions_free(&d);
    struct err err = {0};
    expect_error(instructions_read(&d, in_scratch("one.json"), tok, prompt, false, &err), &err, "one.json");
    OK(instructions_read(&d, in_scratch("one.json"), tok, prompt, true, &err)); /* prompts count here */
    assert_int_equal(d.rows[0].n, prompt);
    instructions_free(&d);
}

static void rows_without_an_answer_are_skipped(void **state)
{
    (void)state;
    struct instructions d;
    int64_t cutoff = (int64_t)strlen(without_input) + 1;
    write_text(in_scratch("d.json"), file);
    OK(instructions_read(&d, in_scratch("d.json"), tok, cutoff, false, &err));
    assert_int_equal(d.n, 2); /* the longer prompt fills the cutoff */
    assert_int_equal(d.skipped, 1);
    expect_row(&d.rows[0], without_input, "h", false, true);
    instructions_free(&d);
}

static void an_empty_answer_still_teaches_to_stop(void **state)
{
    (void)state;
    struct instructions d;
    write_text(in_scratch("stop.json"), "[{\"instruction\":\"HI\",\"output\":\"\"}]");
    OK(instructions_read(&d, in_scratch("stop.json"), tok, 512, false, &err));
    expect_row(&d.rows[0], without_input, "", true, true);
    instructions_free(&d);
}

static void damaged_files(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "[1]",
        "[{\"instruction\":\"a\"}]",
        "[{\"output\":\"a\"}]",
        "[{\"instruction\":1,\"output\":\"a\"}]",
        "[{\"instruction\":\"a\",\"output\":[]}]",
        "[{\"instruction\":\"a\",\"input\":3,\"output\":\"b\"}]",
        "[null]",
        "[{\"instruction\":\"a\",\"output\":\"b\"}, {\"instruction\":\"a\"}]",
        "[{\"instruction\":\"a\",\"output\":\"\xff\"}]",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct instructions d;
        struct err err = {0};
        write_text(in_scratch("bad.json"), bad[i]);
        int rc = instructions_read(&d, in_scratch("bad.json"), tok, 512, false, &err);
        if (rc == 0)
            fail_msg("accepted: %s", bad[i]);
        expect_error(rc, &err, "bad.json");
    }
    struct instructions d;
    struct err err = {0};
    write_text(in_scratch("bad.jsonl"), "{\"instruction\":\"a\",\"output\":\"b\"}\n{oops\n");
    expect_error(instructions_read(&d, in_scratch("bad.jsonl"), tok, 512, false, &err), &err, "bad.jsonl: line 2");
}

static void ready_rows(void **state)
{
    (void)state;
    struct instructions d;
    write_text(in_scratch("rows.json"), "[{\"ids\":[5,6,7],\"labels\":[-100,6,7]},{\"ids\":[1,2],\"labels\":[1,-100]},"
                                        "{\"ids\":[9],\"labels\":[9]},{\"ids\":[1,2,3,4],\"labels\":[-100,-100,3,4]}]");
    OK(instructions_read_rows(&d, in_scratch("rows.json"), 3, &err));
    assert_int_equal(d.n, 2); /* a label on the first position alone cannot be predicted from anything */
    assert_int_equal(d.skipped, 2);
    assert_int_equal(d.rows[0].n, 3);
    assert_int_equal(d.rows[0].labels[0], LABEL_NONE);
    assert_int_equal(d.rows[0].ids[2], 7);
    assert_int_equal(d.rows[1].n, 3);
    assert_int_equal(d.rows[1].labels[2], 3);
    instructions_free(&d);
}

static void damaged_ready_rows(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "[{\"ids\":[1,2],\"labels\":[1]}]",
        "[{\"ids\":[],\"labels\":[]}]",
        "[{\"ids\":[1,2]}]",
        "[[1,2]]",
        "[]",
        "{\"ids\":[1,2]}",
        "[{\"ids\":[1,-2],\"labels\":[1,2]}]",
        "[{\"ids\":[1,2],\"labels\":[1,-99]}]",
        "[{\"ids\":[1,2.5],\"labels\":[1,2]}]",
        "[{\"ids\":[1,2147483648],\"labels\":[1,2]}]",
        "[{\"ids\":[1,2],\"labels\":[1,2147483648]}]",
        "[{\"ids\":[1,\"2\"],\"labels\":[1,2]}]",
        "[{\"ids\":[1,2],\"labels\":[1,null]}]",
        "[{\"ids\":\"ab\",\"labels\":\"ab\"}]",
        "[{\"ids\":[1,2],\"labels\":[-100,2]},{\"ids\":[1,2],\"labels\":[-100,-101]}]",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct instructions d;
        struct err err = {0};
        write_text(in_scratch("bad.json"), bad[i]);
        int rc = instructions_read_rows(&d, in_scratch("bad.json"), 10, &err);
        if (rc == 0)
            fail_msg("accepted: %s", bad[i]);
        expect_error(rc, &err, "bad.json");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_masked),
        cmocka_unit_test(json_lines_are_the_same),
        cmocka_unit_test(the_cutoff),
        cmocka_unit_test(rows_without_an_answer_are_skipped),
        cmocka_unit_test(an_empty_answer_still_teaches_to_stop),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(ready_rows),
        cmocka_unit_test(damaged_ready_rows),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
