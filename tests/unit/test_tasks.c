/* Zero-shot documents: the prompt of every task in both layouts, files that are found and files that are damaged. */
#include "tests/tiny_model.h"

#include "data/tasks.h"

static const char *write_rows(const char *name, const char *text)
{
    write_text(in_scratch(name), text);
    return in_scratch(name);
}

static void read_set(struct task_set *s, const char *task, const char *file)
{
    OK(task_read(s, task_find(task), file, 0, 0, &err));
}

static void expect_choice(const struct task_set *s, int64_t i, int k, const char *context, const char *continuation, int64_t chars)
{
    const struct task_choice *c = &s->docs[i].choice[k];
    assert_true(i < s->n && k < s->docs[i].n_choices);
    assert_string_equal(c->context, context);
    assert_string_equal(c->continuation, continuation);
    assert_int_equal(c->chars, chars);
}

static void expect_document(const struct task_set *s, int64_t i, int n_choices, int gold)
{
    assert_int_equal(s->docs[i].index, i);
    assert_int_equal(s->docs[i].n_choices, n_choices);
    assert_int_equal(s->docs[i].gold, gold);
}

/* ---- prompts ---- */

static void boolq(void **state)
{
    (void)state;
    static const char context[] = "Wall -- Red.\nQuestion: is it red?\nAnswer:";
    struct task_set s;
    read_set(&s, "boolq",
             write_rows("b.jsonl", "{\"question\":\"is it red\",\"passage\":\"Wall -- Red.\",\"label\":true}\n"
                                   "{\"question\":\"is it red\",\"passage\":\"Wall -- Red.\",\"label\":\"false\"}\n\r\n"
                                   "{\"question\":\"is it red\",\"passage\":\"Wall -- Red.\",\"idx\":2,\"label\":1}\r\n"
                                   "{\"question\":\"is it red\",\"title\":\"Wall\",\"passage\":\"Red.\",\"answer\":false}"));
    static const int gold[] = {1, 0, 1, 0};
    assert_int_equal(s.n, 4);
    assert_int_equal(s.n_rows, 4);
    for (int i = 0; i < 4; i++) {
        expect_document(&s, i, 2, gold[i]);
        expect_choice(&s, i, 0, context, " no", 2);
        expect_choice(&s, i, 1, context, " yes", 3);
    }
    task_free(&s);
    task_free(&s);
}

static void piqa(void **state)
{
    (void)state;
    struct task_set s;
    static const char rows[] =
        "{\"goal\":\"prune\",\"sol1\":\"with a saw \",\"sol2\":\"\u00e9\"}\n{\"goal\":\"\",\"sol1\":\"a\",\"sol2\":\"b\"}\n";
    write_text(in_scratch("v-labels.lst"), "1\n0");
    read_set(&s, "piqa", write_rows("v.jsonl", rows));
    expect_document(&s, 0, 2, 1);
    expect_choice(&s, 0, 0, "Question: prune\nAnswer:", " with a saw ", 11);
    expect_choice(&s, 0, 1, "Question: prune\nAnswer:", " \u00e9", 1);
    expect_document(&s, 1, 2, 0);
    task_free(&s);
    read_set(&s, "piqa", write_rows("p.json", "[{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":1}]"));
    expect_document(&s, 0, 2, 1);
    task_free(&s);
}

static void hellaswag(void **state)
{
    (void)state;
    struct task_set s;
    read_set(&s, "hellaswag",
             write_rows("h.jsonl",
                        "{\"activity_label\":\"Home\",\"ctx_a\":\"How to [title] Cut  it. [step] Now\",\"ctx_b\":\"\",\"endings\":"
                        "[\" [substeps] cut. \",\"a   b\",\"x[1]y\",\"\"],\"label\":\"3\"}\n"
                        "{\"activity_label\":\"[header] Saw\",\"ctx_a\":\"A man.\",\"ctx_b\":\"\u00e9MILE Saws [x\",\"endings\":"
                        "[\"a\",\"b\",\"c\",\"d\"],\"label\":0}\n"
                        "{\"query\":\" As it  is [title]\",\"choices\":[\"a \",\"b\"],\"gold\":1}\n"
                        "{\"query\":\"q\",\"choices\":[\"a\",\"b\"],\"label\":\"1\"}\n"));
    expect_document(&s, 0, 4, 3);
    /* two blanks become one in one pass, before which " [title]" and "[step]" have left theirs */
    expect_choice(&s, 0, 0, "Home: How to. Cut it. Now", "  cut.", 5);
    expect_choice(&s, 0, 1, "Home: How to. Cut it. Now", " a  b", 4);
    expect_choice(&s, 0, 2, "Home: How to. Cut it. Now", " xy", 2);
    expect_choice(&s, 0, 3, "Home: How to. Cut it. Now", " ", 0);
    expect_document(&s, 1, 4, 0);
    expect_choice(&s, 1, 0, " Saw: A man. \u00c9mile saws [x", " a", 1);
    expect_document(&s, 2, 2, 1);
    expect_choice(&s, 2, 0, " As it  is [title]", " a ", 2);
    expect_document(&s, 3, 2, 1);
    task_free(&s);
}

static void winogrande(void **state)
{
    (void)state;
    struct task_set s;
    read_set(
        &s, "winogrande",
        write_rows(
            "w.jsonl",
            "{\"sentence\":\"Ada saw In\u00e9s, so _  left_ .\",\"option1\":\"Ada\",\"option2\":\"In\u00e9s\",\"answer\":\"2\"}\n"
            "{\"sentence\":\"_\",\"option1\":\"a\",\"option2\":\"b\",\"answer\":1}"));
    expect_document(&s, 0, 2, 1);
    expect_choice(&s, 0, 0, "Ada saw In\u00e9s, so Ada", " left_ .", 3);
    expect_choice(&s, 0, 1, "Ada saw In\u00e9s, so In\u00e9s", " left_ .", 4);
    expect_document(&s, 1, 2, 0);
    expect_choice(&s, 1, 0, "a", " ", 1);
    task_free(&s);
}

static void arc(void **state)
{
    (void)state;
    struct task_set s;
    read_set(
        &s, "arc_challenge",
        write_rows(
            "a.jsonl",
            "{\"question\":{\"stem\":\"Why?\",\"choices\":[{\"text\":\"one\",\"label\":\"1\"},{\"text\":\"two\",\"label\":\"2\"},"
            "{\"text\":\"three\",\"label\":\"3\"},{\"text\":\"four\",\"label\":\"4\"}]},\"answerKey\":\"4\"}\n"
            "{\"question\":{\"stem\":\"Why?\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},{\"text\":\"b\",\"label\":\"B\"},"
            "{\"text\":\"c\",\"label\":\"C\"}]},\"answerKey\":\"C\"}\n"
            "{\"question\":\"Why?\",\"choices\":{\"text\":[\"a\",\"b\",\"c\",\"d\",\"e\"],\"label\":[\"A\",\"B\",\"C\",\"D\",\"E\"]"
            "},"
            "\"answerKey\":\"E\"}\n"
            "{\"question\":\"Why?\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]},\"answerKey\":\"2\"}\n"));
    static const int n[] = {4, 3, 5, 2}, gold[] = {3, 2, 4, 1};
    for (int i = 0; i < 4; i++)
        expect_document(&s, i, n[i], gold[i]);
    expect_choice(&s, 0, 2, "Question: Why?\nAnswer:", " three", 5);
    expect_choice(&s, 1, 2, "Question: Why?\nAnswer:", " c", 1);
    expect_choice(&s, 2, 4, "Question: Why?\nAnswer:", " e", 1);
    task_free(&s);
}

static void openbookqa_and_lambada(void **state)
{
    (void)state;
    struct task_set s;
    read_set(
        &s, "openbookqa",
        write_rows(
            "o.jsonl",
            "{\"question_stem\":\"A tree\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]},\"answerKey\":\"B \"}\n"
            "{\"question\":{\"stem\":\"A tree\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},{\"text\":\"b\",\"label\":\"B\"}]},"
            "\"answerKey\":\"A\"}"));
    expect_document(&s, 0, 2, 1);
    expect_choice(&s, 0, 1, "A tree", " b", 1);
    expect_document(&s, 1, 2, 0);
    expect_choice(&s, 1, 0, "A tree", " a", 1);
    task_free(&s);
    read_set(&s, "lambada", write_rows("l.jsonl", "{\"text\":\"she took  the saw\"}"));
    expect_document(&s, 0, 1, 0);
    expect_choice(&s, 0, 0, "she took  the", " saw", 3);
    task_free(&s);
    read_set(&s, "lambada", write_rows("l.txt", "she took the saw\nand \"left\"\n"));
    assert_int_equal(s.n, 2);
    expect_choice(&s, 1, 0, "and", " \"left\"", 6);
    task_free(&s);
}

/* ---- files ---- */

/* The published average is over seven tasks. LAMBADA, which is none of them, counts only where none of them is there. */
static void tasks_of_an_average(void **state)
{
    (void)state;
    const struct task *some[3] = {task_find("piqa"), task_find("lambada"), task_find("arc_easy")}, *all[8];
    bool in[8];
    int64_t n = 0;
    assert_false(tasks_average(in, some, 3));
    assert_true(in[0] && !in[1] && in[2]);
    assert_false(tasks_average(in, some + 1, 1));
    assert_true(in[0]);
    for (const struct task *t = task_table; t->name; t++)
        all[n++] = t;
    assert_true(tasks_average(in, all, n));
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(in[i], strcmp(all[i]->name, "lambada") != 0);
    assert_string_equal(task_metric(task_find("piqa")), "acc");
    assert_string_equal(task_metric(task_find("hellaswag")), "acc_norm");
}

static void part_of_a_set(void **state)
{
    (void)state;
    struct task_set s;
    struct err err = {0};
    const char *file = write_rows("l.txt", "a 0\na 1\na 2\na 3\n");
    OK(task_read(&s, task_find("lambada"), file, 1, 2, &err));
    assert_int_equal(s.n, 2);
    assert_int_equal(s.n_rows, 4);
    assert_int_equal(s.docs[1].index, 2);
    assert_string_equal(s.docs[1].choice[0].continuation, " 2");
    task_free(&s);
    OK(task_read(&s, task_find("lambada"), file, 3, 9, &err));
    assert_int_equal(s.n, 1);
    task_free(&s);
    expect_error(task_read(&s, task_find("lambada"), file, 4, 0, &err), &err, "l.txt: it has 4 documents");
}

static void found_below_a_folder(void **state)
{
    (void)state;
    struct task_set s;
    struct err err = {0};
    static const char row[] = "{\"text\":\"a b\"}\n", array[] = "[{\"text\":\"a b\"},{\"text\":\"c d\"}]";
    char *dir = scratch_dir("found");
    expect_error(task_read(&s, task_find("lambada"), dir, 0, 0, &err), &err, "lambada/lambada_test.jsonl");
    assert_non_null(strstr(err.msg, "LAMBADA"));
    write_text(in_scratch("found/lambada.json"), array);
    read_set(&s, "lambada", dir);
    assert_int_equal(s.n, 2);
    assert_string_equal(s.file, in_scratch("found/lambada.json"));
    assert_int_equal(strlen(s.sha256), 64);
    task_free(&s);
    scratch_dir("found/lambada"); /* a folder of the task goes first, and is no file */
    write_text(in_scratch("found/lambada/test.jsonl"), row);
    read_set(&s, "lambada", dir);
    assert_int_equal(s.n, 1);
    task_free(&s);
    for (const struct task *t = task_table; t->name; t++) { /* our own samples: every task's first name */
        read_set(&s, t->name, "tests/fixtures/tasks");
        assert_true(s.n >= 2);
        task_free(&s);
    }
}

/* A row that something is wrong with, behind a good one: the message names file, line and field. */
static void expect_bad(const char *task, const char *good, const char *bad, const char *field)
{
    struct err err = {0};
    struct task_set s;
    char text[2048], where[64];
    snprintf(text, sizeof text, "%s\n\n%s\n", good, bad);
    write_text(in_scratch("bad.jsonl"), text);
    if (task_read(&s, task_find(task), in_scratch("bad.jsonl"), 0, 0, &err) == 0)
        fail_msg("%s was taken", bad);
    snprintf(where, sizeof where, "bad.jsonl: line 3: \"%s\"", field);
    expect_error(-1, &err, where);
}

static void damaged_rows(void **state)
{
    (void)state;
    static const char b[] = "{\"question\":\"q\",\"passage\":\"p\",\"label\":true}";
    expect_bad("boolq", b, "{\"question\":\"q\",\"label\":true}", "passage");
    expect_bad("boolq", b, "{\"question\":7,\"passage\":\"p\",\"label\":true}", "question");
    expect_bad("boolq", b, "{\"question\":\"q\",\"passage\":\"p\"}", "label");
    expect_bad("boolq", b, "{\"question\":\"q\",\"passage\":\"p\",\"label\":2}", "label");
    expect_bad("boolq", b, "{\"question\":\"q\",\"passage\":\"p\",\"label\":\"maybe\"}", "label");
    expect_bad("boolq", b, "{\"question\":\"q\",\"passage\":\"p\",\"answer\":true}", "label"); /* without a title: other passages */
    static const char p[] = "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":0}";
    expect_bad("piqa", p, "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":-1}", "label");
    expect_bad("piqa", p, "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":null,\"label\":1}", "sol2");
    static const char h[] = "{\"activity_label\":\"x\",\"ctx_a\":\"a\",\"ctx_b\":\"b\",\"endings\":[\"1\",\"2\"],\"label\":1}";
    expect_bad("hellaswag", h, "{\"activity_label\":\"x\",\"ctx_a\":\"a\",\"endings\":[\"1\",\"2\"],\"label\":1}", "ctx_b");
    expect_bad("hellaswag", h,
               "{\"activity_label\":\"x\",\"ctx_a\":\"a\",\"ctx_b\":\"b\",\"endings\":[\"1\",\"2\\u0000x\"],\"label\":1}",
               "endings");
    expect_bad("hellaswag", h, "{\"activity_label\":\"x\",\"ctx_a\":\"a\",\"ctx_b\":\"b\",\"endings\":[\"1\",2],\"label\":1}",
               "endings");
    expect_bad("hellaswag", h,
               "{\"activity_label\":\"x\",\"ctx_a\":\"a\",\"ctx_b\":\"b\",\"endings\":[\"1\",\"2\"],\"label\":\"2\"}", "label");
    expect_bad("hellaswag", h,
               "{\"activity_label\":\"x\",\"ctx_a\":\"a\",\"ctx_b\":\"b\",\"endings\":[\"1\",\"2\"],\"label\":\"\"}", "label");
    expect_bad("hellaswag", h, "{\"query\":\"x\",\"choices\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"],\"label\":1}",
               "choices");
    static const char w[] = "{\"sentence\":\"a _ c\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"1\"}";
    expect_bad("winogrande", w, "{\"sentence\":\"a c\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"1\"}", "sentence");
    expect_bad("winogrande", w, "{\"sentence\":\"a _ c\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"0\"}", "answer");
    expect_bad("winogrande", w, "{\"sentence\":\"a _ c\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"\"}", "answer");
    static const char a[] = "{\"question\":\"q\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]},\"answerKey\":\"A\"}";
    expect_bad("arc_easy", a,
               "{\"question\":\"q\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]},\"answerKey\":\"C\"}",
               "answerKey");
    expect_bad("arc_easy", a,
               "{\"question\":\"q\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]},\"answerKey\":\"\"}", "answerKey");
    expect_bad("arc_easy", a, "{\"question\":\"q\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\"]},\"answerKey\":\"A\"}",
               "label");
    expect_bad("arc_easy", a, "{\"question\":\"q\",\"choices\":{\"text\":[\"a\"],\"label\":[\"A\"]},\"answerKey\":\"A\"}", "text");
    expect_bad("arc_easy", a, "{\"question\":\"q\",\"answerKey\":\"A\"}", "choices");
    expect_bad("arc_easy", a,
               "{\"question\":{\"stem\":\"q\",\"choices\":[{\"label\":\"A\"},{\"label\":\"B\"}]},\"answerKey\":\"A\"}", "text");
    static const char o[] =
        "{\"question_stem\":\"q\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]},\"answerKey\":\"A\"}";
    expect_bad("openbookqa", o, "{\"question\":\"q\"}", "question_stem");
    expect_bad("lambada", "{\"text\":\"a b\"}", "{\"text\":\"word\"}", "text");
}

static void damaged_files(void **state)
{
    (void)state;
    struct err err = {0};
    struct task_set s;
    const struct task *t = task_find("lambada");
#define EXPECT(file, text, part)                                                                                                   \
    write_text(in_scratch(file), text);                                                                                            \
    err = (struct err){0};                                                                                                         \
    expect_error(task_read(&s, t, in_scratch(file), 0, 0, &err), &err, part)
    EXPECT("x.jsonl", "{\"text\":\"a b\"}\n{\"text\":", "x.jsonl: line 2");
    EXPECT("x.jsonl", "[1]", "x.jsonl: row 0: an object");
    EXPECT("x.jsonl", "{\"text\":\"a b\"}\n7\n", "x.jsonl: line 2");
    EXPECT("x.jsonl", "", "x.jsonl: it has 0 documents");
    EXPECT("x.jsonl", "[]", "x.jsonl: it has 0 documents");
    EXPECT("x.json", "[{\"text\":\"a b\"},", "x.json");
    EXPECT("x.json", "[{\"text\":\"a b\"},{\"text\":1}]", "x.json: row 1: \"text\": a string was expected, found a number");
    EXPECT("x.txt", "a \xff", "x.txt: line 1 is not valid UTF-8");
    t = task_find("piqa");
    static const char two[] = "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\"}\n{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\"}\n";
    EXPECT("q.jsonl", two, "q-labels.lst");
    static const char *const labels[][2] = {
        {"1\n", "line 2"}, {"1\n2\n", "line 2"}, {"1\n1\n0\n", "more labels"}, {"10\n1", "line 1"}};
    for (int i = 0; i < 4; i++) {
        write_text(in_scratch("q-labels.lst"), labels[i][0]);
        EXPECT("q.jsonl", two, labels[i][1]);
    }
    err = (struct err){0};
    expect_error(task_read(&s, t, in_scratch("nowhere.jsonl"), 0, 0, &err), &err, "nowhere.jsonl");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boolq),
        cmocka_unit_test(piqa),
        cmocka_unit_test(hellaswag),
        cmocka_unit_test(winogrande),
        cmocka_unit_test(arc),
        cmocka_unit_test(openbookqa_and_lambada),
        cmocka_unit_test(part_of_a_set),
        cmocka_unit_test(found_below_a_folder),
        cmocka_unit_test(damaged_rows),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(tasks_of_an_average),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
