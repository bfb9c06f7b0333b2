/* A mutation fuzzer for every reader of files from outside: valid files are damaged at random and read; whatever is in them, the
 * reader returns 0, or -1 and one line. The seed is fixed, so a run can be repeated; the time is limited (FUZZ_SECONDS, 5).
 *
 * It says most in a build that checks every access (alone it needs ASAN_OPTIONS=allocator_may_return_null=1):
 *   make BUILD=build-asan CFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined' test
 * libhdf5 itself crashes on some damaged files: those are survived in a child process, which a sanitizer still reports on stderr.
 * Longer, on other paths: FUZZ_SECONDS=600 FUZZ_SEED=7 build-asan/tests/fuzz/test_fuzz. A crash leaves its folder in /tmp; the
 * file in it named "now" says which reader was at work on what. */
#include "tests/pytorch_file.h"
#include "tests/tiny_llama.h"

#include <signal.h>
#include <time.h>

#include "core/base/json.h"
#include "core/base/rng.h"
#include "core/io/h5.h"
#include "core/io/source.h"
#include "core/model/lm.h"
#include "core/model/save.h"
#include "data/calibration.h"
#include "data/instructions.h"
#include "data/tasks.h"
#include "data/text.h"
#include "prune/scores.h"
#include "train/journal.h"

/* libhdf5 loses memory of its own where it gives up on a damaged file. (Handles that we lose show in tests/unit.) */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

static struct rng rng;
static struct compute compute;
static struct model intact;
static struct tokenizer *tok;
static const struct tiny small = {2, 8, 2, 1, 4, 8, 260, 3};

/* ---- mutations ---- */

static const char *const words[] = {
    "0",
    "-1",
    "1e999",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "4294967296",
    "0.5",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "[[",
    "\"\\u0000\"",
    "\\ud800",
    "\xff",
    "[0,0]",
    "{\"a\":",
    "16777216",
    "\"F16\"",
    "\"..\"",
    ",",
    ":",
    "\n",
    "1e-400",
    "NaN",
};
static const uint64_t numbers[] = {
    0, 1, 2, 7, 8, 31, 255, 256, 65535, 65536, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_MAX - 31, (uint64_t)1 << 62};

static size_t at_most(size_t n)
{
    return n ? (size_t)rng_below(&rng, (int64_t)n) : 0;
}

static void splice(struct buf *b, size_t at, size_t cut, const void *in, size_t n)
{
    struct buf out = {0};
    cut = cut > b->n - at ? b->n - at : cut;
    buf_put(&out, b->p, at);
    buf_put(&out, in, n);
    buf_put(&out, b->p + at + cut, b->n - at - cut);
    buf_free(b);
    *b = out;
}

/* A digit run of the text at or after `at`, replaced by a word: JSON that stays well-formed reaches further into a reader. */
static void replace_number(struct buf *b, size_t at)
{
    while (at < b->n && !(b->p[at] >= '0' && b->p[at] <= '9'))
        at++;
    size_t n = strspn(b->p + at, "0123456789.");
    const char *w = words[at_most(sizeof words / sizeof *words)];
    splice(b, at, n, w, strlen(w));
}

static void mutate_once(struct buf *b)
{
    /* most of what matters is at the front */
    size_t at = rng_below(&rng, 3) ? at_most(b->n < 600 ? b->n : 600) : at_most(b->n);
    uint64_t v = numbers[at_most(sizeof numbers / sizeof *numbers)];
    const char *w = words[at_most(sizeof words / sizeof *words)];
    switch (rng_below(&rng, 9)) {
    case 0:
        if (b->n)
            b->p[at] ^= (char)(1 << rng_below(&rng, 8));
        break;
    case 1:
        if (b->n)
            b->p[at] = (char)rng_u32(&rng);
        break;
    case 2: splice(b, at, 8, &v, 8); break;
    case 3: splice(b, at, 4, &v, 4); break;
    case 4: splice(b, at, at_most(9), w, strlen(w)); break;
    case 5: splice(b, at, b->n, "", 0); break;                              /* cut off */
    case 6: splice(b, at, at_most(64), b->p, b->n < 40 ? b->n : 40); break; /* a part twice */
    default: replace_number(b, at); break;
    }
}

/* ---- targets: a valid file, and what reads it ---- */

static void check(int rc, struct err *err)
{
    if (rc != 0 && (rc != -1 || err->code == ERR_NONE || !err->msg[0] || strchr(err->msg, '\n')))
        fail_msg("a failure without one line of message: rc %d: %s", rc, err->msg);
}

/* A tensor's bytes lie inside one of the files; what an HDF5 file stores in pieces lies elsewhere in memory, and can be read. */
static void check_view(const struct source *s, const struct tensor *t)
{
    static volatile uint8_t last;
    if (s->config && t->bytes) {
        last = t->data[0] ^ t->data[t->bytes - 1];
        (void)last;
        return;
    }
    for (int i = 0; i < s->n_maps; i++)
        if (t->data >= s->maps[i].data && t->data <= s->maps[i].data + s->maps[i].size &&
            t->bytes <= (size_t)(s->maps[i].data + s->maps[i].size - t->data))
            return;
    fail_msg("tensor %s: its view lies outside its file", t->name);
}

static void read_source(const char *path)
{
    struct source s;
    struct err err = {0};
    int rc = source_open(&s, path, &err);
    check(rc, &err);
    for (int64_t i = 0; rc == 0 && i < s.n_tensors; i++)
        check_view(&s, &s.tensors[i]);
    if (rc == 0)
        source_close(&s);
}

/* Opens a model, and runs it where it opens and is small. */
static void read_model(const char *path)
{
    struct model m;
    struct lm lm;
    struct err err = {0};
    static const int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    float nll[8];
    int rc = model_open(&m, path, &err);
    check(rc, &err);
    if (rc != 0)
        return;
    for (int64_t i = 0; i < m.src.n_tensors; i++)
        check_view(&m.src, &m.src.tensors[i]);
    if (m.cfg.vocab_size > 8 && lm_open(&lm, &m, &compute, NULL, 8, 1, 8, &err) == 0) {
        check(lm_window_nll(&lm, nll, ids, 1, 8, &err), &err);
        lm_close(&lm);
    }
    model_close(&m);
}

static void read_hf(const char *path)
{
    (void)path;
    read_model(in_scratch("hf"));
}

static void read_f8(const char *path)
{
    (void)path;
    read_model(in_scratch("f8"));
}

static void read_index(const char *path)
{
    (void)path;
    read_source(in_scratch("sharded"));
}

/* Without a checksum, and in an archive that is in order, so that the damage reaches the reader of pickles. */
static void read_pickle(const char *path)
{
    struct buf pkl = read_bytes(path), b = checkpoint(&pkl, (struct zip_style){.no_crc = true});
    unlink(in_scratch("around.bin"));
    write_bytes(in_scratch("around.bin"), b.p, b.n);
    read_source(in_scratch("around.bin"));
    buf_free(&b);
    buf_free(&pkl);
}

static void read_tokenizer(const char *path)
{
    struct tokenizer *t;
    struct err err = {0};
    struct ids ids = {0};
    char *text;
    size_t n;
    static const char sample[] = "the then <s>thth</s> 12 \xff\xc3\xa9 \n\n  end";
    int rc = tokenizer_open(&t, path, &err);
    check(rc, &err);
    if (rc != 0)
        return;
    rc = tokenizer_encode(&ids, t, sample, sizeof sample - 1, &err);
    check(rc, &err);
    for (size_t i = 0; i < ids.n; i++)
        if (ids.ids[i] < 0 || ids.ids[i] >= tokenizer_vocab_size(t))
            fail_msg("id %d of %lld tokens", ids.ids[i], (long long)tokenizer_vocab_size(t));
    if (rc == 0 && (rc = tokenizer_decode(&text, &n, t, ids.ids, ids.n, &err)) == 0)
        free(text);
    check(rc, &err);
    json_t *messages = json_pack("[{ss ss}]", "role", "user", "content", "hi");
    if (tokenizer_chat(&text, t, messages, true, &err) == 0)
        free(text);
    json_decref(messages);
    free(ids.ids);
    tokenizer_free(t);
}

static void read_pieces(const char *path)
{
    struct tokenizer *t;
    struct err err = {0};
    read_tokenizer(path);
    check(tokenizer_open_legacy(&t, path, &err), &err);
    tokenizer_free(t);
}

static void read_tokenizer_folder(const char *path)
{
    (void)path;
    read_tokenizer(in_scratch("hf"));
}

static void read_scores(const char *path)
{
    struct scores s;
    struct err err = {0};
    int rc = scores_read(&s, path, &err);
    check(rc, &err);
    if (rc != 0)
        return;
    int64_t *order = calloc((size_t)s.n, sizeof *order);
    scores_protected_order(order, &s, 4, 2);
    free(order);
    scores_free(&s);
}

static void read_rows(const char *path)
{
    struct instructions d;
    struct calibration c;
    struct err err = {0}, other = {0};
    int rc = instructions_read_rows(&d, path, 20, &err);
    check(rc, &err);
    if (rc == 0)
        instructions_free(&d);
    rc = calibration_read(&c, path, tok, 2, 4, 1, false, &other);
    check(rc, &other);
    if (rc == 0)
        calibration_free(&c);
}

static void read_instructions(const char *path)
{
    struct instructions d;
    struct err err = {0};
    int rc = instructions_read(&d, path, tok, 300, false, &err);
    check(rc, &err);
    if (rc == 0)
        instructions_free(&d);
}

static void read_documents(const char *path)
{
    struct calibration c;
    struct err err = {0};
    int rc = calibration_read(&c, path, tok, 2, 4, 1, false, &err);
    check(rc, &err);
    if (rc == 0)
        calibration_free(&c);
}

/* The file as each task's rows in turn: most tasks find nothing in it. */
static void read_tasks(const char *path)
{
    for (const struct task *t = task_table; t->name; t++) {
        struct task_set s;
        struct err err = {0};
        int rc = task_read(&s, t, path, 0, 0, &err);
        check(rc, &err);
        if (rc == 0)
            task_free(&s);
    }
}

static void read_adapter(const char *path)
{
    (void)path;
    struct lora_set l;
    struct err err = {0};
    int rc = lora_load(&l, &intact, in_scratch("adapter"), false, &err);
    check(rc, &err);
    if (rc == 0)
        lora_free(&l);
}

static void read_state(const char *path)
{
    (void)path;
    static const bool target[PROJ_COUNT] = {true};
    struct lora_set l;
    struct err err = {0};
    double best;
    OK(lora_create(&l, &intact, 2, 4, 0, target, false, &err));
    struct adamw o = {0.9, 0.999, 1e-8, calloc((size_t)l.n_params, 4), calloc((size_t)l.n_params, 4), l.n_params, 0};
    int rc = state_load(in_scratch("state"), &l, &o, &best, NULL, &err);
    check(rc, &err);
    if (rc == 0 && o.t < 0)
        fail_msg("a checkpoint after %lld steps", (long long)o.t);
    free(o.m);
    free(o.v);
    lora_free(&l);
}

static void read_journal(const char *path)
{
    (void)path;
    FILE *f;
    struct err err = {0}, other = {0};
    json_t *facts = json_object();
    check(journal_to_h5(in_scratch("journal"), facts, &err), &err);
    int rc = journal_open(&f, in_scratch("journal"), 2, &other);
    check(rc, &other);
    if (rc == 0)
        fclose(f);
    json_decref(facts);
}

static struct target {
    const char *name;
    void (*read)(const char *path);
    struct buf valid;
    int runs;
} targets[] = {
    {.name = "m.safetensors", .read = read_source},
    {.name = "hf/model.safetensors", .read = read_hf},
    {.name = "hf/config.json", .read = read_hf},
    {.name = "f8/model.safetensors", .read = read_f8},
    {.name = "m.gguf", .read = read_model},
    {.name = "m.h5", .read = read_model},
    {.name = "t.h5", .read = read_tokenizer},
    {.name = "m.bin", .read = read_source},
    {.name = "m.zip64.bin", .read = read_source},
    {.name = "m.pkl", .read = read_pickle},
    {.name = "t.gguf", .read = read_tokenizer},
    {.name = "sharded/model.safetensors.index.json", .read = read_index},
    {.name = "tokenizer.json", .read = read_tokenizer},
    {.name = "tokenizer.model", .read = read_pieces},
    {.name = "llama.json", .read = read_tokenizer},
    {.name = "llama.gguf", .read = read_pieces},
    {.name = "hf/tokenizer_config.json", .read = read_tokenizer_folder},
    {.name = "scores.json", .read = read_scores},
    {.name = "scores.h5", .read = read_scores},
    {.name = "rows.json", .read = read_rows},
    {.name = "calibration.json", .read = read_rows},
    {.name = "alpaca.json", .read = read_instructions},
    {.name = "docs.jsonl", .read = read_documents},
    {.name = "hellaswag.jsonl", .read = read_tasks},
    {.name = "arc.json", .read = read_tasks},
    {.name = "openbookqa.jsonl", .read = read_tasks},
    {.name = "winogrande.jsonl", .read = read_tasks},
    {.name = "adapter/adapter_config.json", .read = read_adapter},
    {.name = "adapter/adapter_model.safetensors", .read = read_adapter},
    {.name = "adapter/espalier.json", .read = read_adapter},
    {.name = "state/checkpoint.safetensors", .read = read_state},
    {.name = "journal/train.jsonl", .read = read_journal},
};
enum { N_TARGETS = sizeof targets / sizeof *targets };

static void make_scores(void)
{
    struct h5_writer w;
    static const double v[] = {1, 2, 3};
    static const int64_t block[] = {0, 1, 2}, parts[] = {3, 3, 3}, n = 3;
    write_text(in_scratch("scores.json"),
               "{\"criterion\":\"ppl\",\"model_hash\":\"ab\",\"model_blocks\":3,\"blocks\":[{\"index\":0,\"score\":1.5},"
               "{\"index\":1,\"score\":2},{\"index\":2,\"score\":0.5}],\"row_nll\":[[1,2],[3,4],[5,6]],\"windows\":{\"length\":2,"
               "\"distance\":{\"1\":[1,2,3],\"2\":[4,5],\"3\":[6]}}}");
    OK(h5_writer_open(&w, in_scratch("scores.h5"), &err));
    OK(h5_put_f64(&w, "score", v, &n, 1, &err));
    OK(h5_put_i64(&w, "block", block, &n, 1, &err));
    OK(h5_put_i64(&w, "parts", parts, &n, 1, &err));
    OK(h5_put_f64(&w, "row_nll", v, (int64_t[]){3, 1}, 2, &err));
    OK(h5_attr_f64(&w, "/", "base_ppl", 1.5, &err));
    OK(h5_attr_string(&w, "/", "criterion", "ppl", &err));
    OK(h5_attr_string(&w, "/", "model_hash", "ab", &err));
    OK(h5_attr_i64(&w, "/", "model_blocks", 3, &err));
    OK(h5_writer_commit(&w, &err));
}

/* The intact model by the program's own writers: with scales of rows, and in HDF5. */
static void make_formats(void)
{
    struct save_options o = {.dtype = DTYPE_F8_E4M3, .tokenizer = tok};
    scratch_dir("f8");
    OK(model_save(&intact, &compute, in_scratch("f8"), &o, NULL, &err));
    o.format = FORMAT_H5;
    OK(model_save(&intact, &compute, in_scratch("m.h5"), &o, NULL, &err));
    OK(model_save(&intact, &compute, in_scratch("t.h5"), &o, NULL, &err));
}

static void make_adapter(void)
{
    static const bool target[PROJ_COUNT] = {true};
    struct lora_set l;
    OK(lora_create(&l, &intact, 2, 4, 0, target, false, &err));
    OK(lora_save(&l, &intact, in_scratch("adapter"), &err));
    struct adamw o = {0.9, 0.999, 1e-8, l.params, l.params, l.n_params, 5};
    OK(state_save(in_scratch("state"), &l, &o, 1.5, NULL, &err));
    lora_free(&l);
}

static void make_checkpoints(void)
{
    struct buf pkl = good_pickle(), plain = checkpoint(&pkl, (struct zip_style){.no_crc = true});
    struct buf zip64 = checkpoint(&pkl, (struct zip_style){.no_crc = true, .zip64 = true, .plain = true});
    write_bytes(in_scratch("m.pkl"), pkl.p, pkl.n);
    write_bytes(in_scratch("m.bin"), plain.p, plain.n);
    write_bytes(in_scratch("m.zip64.bin"), zip64.p, zip64.n);
    buf_free(&zip64);
    buf_free(&plain);
    buf_free(&pkl);
}

static int set_up(void **state)
{
    static const char *const folders[] = {"sharded", "adapter", "state", "journal"};
    struct st st = {{0}, {0}};
    static const float v[6] = {1, 2, 3, 4, 5, 6};
    if (scratch_open(state) != 0)
        return -1;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        scratch_dir(folders[i]);
    st_add(&st, "a", "F32", (int64_t[]){2, 2}, 2, v, 16);
    st_add(&st, "b", "F16", (int64_t[]){4}, 1, v, 8);
    st_write(&st, in_scratch("m.safetensors"));
    st_add(&st, "a", "F32", (int64_t[]){6}, 1, v, 24);
    st_write(&st, in_scratch("sharded/one"));
    write_text(in_scratch("sharded/model.safetensors.index.json"), "{\"metadata\":{},\"weight_map\":{\"a\":\"one\"}}");
    tiny_folder(in_scratch("hf"), &small);
    tiny_tokenizer(in_scratch("hf/tokenizer.json"), true);
    write_text(in_scratch("hf/tokenizer_config.json"),
               "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"},\"add_bos_token\":true,"
               "\"chat_template\":\"{{<|im_start|>}}\"}");
    tiny_tokenizer(in_scratch("tokenizer.json"), true);
    write_spm(in_scratch("tokenizer.model"), &(struct spm){0});
    write_llama_json(in_scratch("llama.json"), &(struct llama_json){.normalizer = PREPEND, .pre = METASPACE("first", "true")});
    write_llama_gguf(in_scratch("llama.gguf"), true);
    tiny_gguf(in_scratch("m.gguf"), &small);
    tiny_gguf(in_scratch("t.gguf"), &small);
    write_text(in_scratch("rows.json"), "[{\"ids\":[5,6,7],\"labels\":[-100,6,7]},{\"ids\":[1,2],\"labels\":[-100,2]}]");
    write_text(in_scratch("calibration.json"), "[[1,2,3],[4,5,6]]");
    write_text(in_scratch("alpaca.json"), "[{\"instruction\":\"a\",\"input\":\"b\",\"output\":\"c\"}]");
    write_text(in_scratch("docs.jsonl"), "{\"text\":\"one document\"}\n{\"text\":\"and another\"}\n");
    write_text(in_scratch("hellaswag.jsonl"), "{\"activity_label\":\"x\",\"ctx_a\":\"How to [title] Cut "
                                              "[step]\",\"ctx_b\":\"\u00e9\u03a3\",\"endings\":[\" a  [b] c\",\"d\"],"
                                              "\"label\":1}\n{\"query\":\"q\",\"choices\":[\"a\",\"b\"],\"gold\":\"1\"}\n");
    write_text(in_scratch("arc.json"), "[{\"question\":{\"stem\":\"q\",\"choices\":[{\"text\":\"a\",\"label\":\"1\"},"
                                       "{\"text\":\"b\",\"label\":\"2\"}]},\"answerKey\":\"2\"}]");
    write_text(in_scratch("openbookqa.jsonl"),
               "{\"question_stem\":\"q\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]},\"answerKey\":\"B\"}\n");
    write_text(in_scratch("winogrande.jsonl"), "{\"sentence\":\"a _ c\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"1\"}\n");
    write_text(in_scratch("journal/train.jsonl"),
               "{\"step\":1,\"loss\":2.5,\"micro_losses\":[1,2],\"grad_norm\":1,\"lr\":0,\"tokens_per_s\":9}\n"
               "{\"step\":1,\"eval_loss\":3}\n{\"step\":2,\"loss\":2,\"micro_losses\":[1],\"grad_norm\":1}\n");
    make_scores();
    make_checkpoints();
    OK(compute_open(&compute, 1, PRECISION_F32, &err));
    OK(tokenizer_open(&tok, in_scratch("hf"), &err));
    OK(model_open(&intact, in_scratch("hf"), &err));
    make_formats();
    make_adapter();
    for (int i = 0; i < N_TARGETS; i++)
        targets[i].valid = read_bytes(in_scratch(targets[i].name));
    return 0;
}

static int tear_down(void **state)
{
    for (int i = 0; i < N_TARGETS; i++)
        buf_free(&targets[i].valid);
    model_close(&intact);
    tokenizer_free(tok);
    compute_close(&compute);
    return scratch_close(state);
}

/* A new file each time: the intact model is mapped from one of them, and shall keep what it has. */
static void put(const struct target *t, const struct buf *b)
{
    unlink(in_scratch(t->name));
    write_bytes(in_scratch(t->name), b->p, b->n);
}

static void run_damaged(struct target *t)
{
    struct buf b = {0};
    buf_put(&b, t->valid.p, t->valid.n);
    for (int64_t n = 1 + rng_below(&rng, 3); n > 0; n--)
        mutate_once(&b);
    put(t, &b);
    t->read(in_scratch(t->name));
    t->runs++;
    buf_free(&b);
}

/* cmocka would turn a crash into a failed test and clean up; here the crash is the finding, and the sanitizer has the word. */
static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
enum { N_CRASHES = sizeof crashes / sizeof *crashes };
static struct sigaction handlers[N_CRASHES];

static void let_it_crash(void)
{
    for (int i = 0; i < N_CRASHES; i++)
        sigaction(crashes[i], &handlers[i], NULL);
}

static void valid_files_are_read(void **state)
{
    (void)state;
    let_it_crash();
    for (int i = 0; i < N_TARGETS; i++)
        targets[i].read(in_scratch(targets[i].name));
}

static void damaged_files_are_survived(void **state)
{
    (void)state;
    const char *seconds = getenv("FUZZ_SECONDS"), *seed = getenv("FUZZ_SEED");
    struct timespec start, now;
    let_it_crash();
    rng_seed(&rng, seed ? strtoull(seed, NULL, 10) : 20240229);
    clock_gettime(CLOCK_MONOTONIC, &start);
    int round = 0;
    do {
        round++;
        for (int i = 0; i < N_TARGETS; i++) {
            write_text(in_scratch("now"), targets[i].name);
            /* an HDF5 file takes processes of its own, which may crash: fewer of those */
            int times = !path_has_suffix(targets[i].name, ".h5") ? 4 : round % 4 == 0;
            for (int k = 0; k < times; k++)
                run_damaged(&targets[i]);
            put(&targets[i], &targets[i].valid);
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - start.tv_sec < (seconds ? atoi(seconds) : 5) || targets[0].runs < 100); /* on a busy machine too */
    printf("%d damaged files for each of %d readers\n", targets[0].runs, N_TARGETS);
}

int main(void)
{
    for (int i = 0; i < N_CRASHES; i++)
        sigaction(crashes[i], NULL, &handlers[i]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(valid_files_are_read), cmocka_unit_test(damaged_files_are_survived)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
