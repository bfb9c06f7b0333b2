/* Errors, memory, JSON look-ups, and files that are written whole or not at all. */
#include "core/base/dir.h"
#include "tests/there.h"
#include "tests/tiny_model.h"

#include <dirent.h>
#include <errno.h>
#include <zlib.h>

#include "core/base/json.h"
#include "core/base/mem.h"

static int entries(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

static void holds(const char *path, const char *text)
{
    struct buf b = read_bytes(path);
    assert_string_equal(b.p, text);
    buf_free(&b);
}

/* ---- errors ---- */

static void first_error_wins(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_set(&err, "cause %d", 1), -1);
    assert_int_equal(err_usage(&err, "later"), -1);
    errno = ENOENT;
    assert_int_equal(err_errno(&err, "latest"), -1);
    assert_int_equal(err.code, ERR_FAILED);
    assert_string_equal(err.msg, "cause 1");
    struct err usage = {0};
    err_usage(&usage, "wrong");
    err_set(&usage, "later");
    assert_int_equal(usage.code, ERR_USAGE);
}

static void errors_stay_one_line(void **state)
{
    (void)state;
    struct err err = {0};
    err_set(&err, "a\nb\r\nc\n");
    assert_string_equal(err.msg, "a b  c ");
    char long_name[2000];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;
    struct err big = {0};
    errno = ENOENT;
    err_errno(&big, "%s", long_name);
    assert_int_equal(strlen(big.msg), sizeof big.msg - 1);
    struct err os = {0};
    errno = ENOENT;
    err_errno(&os, "file");
    assert_string_equal(os.msg, "file: No such file or directory");
}

/* ---- memory ---- */

static void overflow_is_an_error(void **state)
{
    (void)state;
    static const size_t sizes[][2] = {{SIZE_MAX, 2}, {SIZE_MAX / 2 + 1, 2}, {SIZE_MAX, 1}, {(size_t)1 << 33, (size_t)1 << 33}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct err err = {0};
        struct arena a = {0};
        assert_null(mem_alloc(sizes[i][0], sizes[i][1], &err));
        assert_int_equal(err.code, ERR_FAILED);
        assert_null(arena_alloc(&a, sizes[i][0], sizes[i][1], &err));
        arena_free(&a);
    }
}

static void memory_is_zeroed_and_aligned(void **state)
{
    (void)state;
    struct err err = {0};
    struct arena a = {0};
    for (size_t n = 0; n < 100; n++) {
        unsigned char *p = arena_alloc(&a, n, 3, &err);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < 3 * n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, 3 * n);
    }
    assert_int_equal(a.bytes, 3 * 99 * 100 / 2);
    assert_string_equal(arena_strdup(&a, "text", &err), "text");
    arena_free(&a);
    arena_free(&a);
    assert_true(mem_available() > 0);
    assert_true(mem_peak_rss() > 1 << 16);
}

/* ---- reading ---- */

static void gzip_file(const char *path, const char *text, size_t n)
{
    gzFile f = gzopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(gzwrite(f, text, (unsigned)n), n);
    gzclose(f);
}

static void files_are_read_plain_and_gzipped(void **state)
{
    (void)state;
    struct err err = {0};
    size_t n = 300000, got;
    char *text = malloc(n), *back;
    for (size_t i = 0; i < n; i++)
        text[i] = (char)(i * i >> 7);
    write_bytes(in_scratch("plain"), text, n);
    gzip_file(in_scratch("zipped"), text, n);
    static const char *const names[] = {"plain", "zipped"};
    for (int i = 0; i < 2; i++) {
        OK(file_read(&back, &got, in_scratch(names[i]), &err));
        assert_int_equal(got, n);
        assert_memory_equal(back, text, n);
        assert_int_equal(back[n], 0);
        free(back);
    }
    write_bytes(in_scratch("empty"), "", 0);
    OK(file_read(&back, &got, in_scratch("empty"), &err));
    assert_int_equal(got, 0);
    assert_int_equal(back[0], 0);
    free(back);
    free(text);
    expect_error(file_read(&back, &got, in_scratch("absent"), &err), &err, "absent");
    struct err folder = {0};
    expect_error(file_read(&back, &got, scratch_root, &folder), &folder, scratch_root);
}

static void truncated_gzip_is_an_error_at_every_length(void **state)
{
    (void)state;
    const char *text = "some text that a gzip file holds, long enough to have a body: 0123456789 abcdefghij";
    char *back;
    size_t got;
    gzip_file(in_scratch("whole.gz"), text, strlen(text));
    struct buf b = read_bytes(in_scratch("whole.gz"));
    for (size_t n = 2; n < b.n; n++) { /* up to one byte it is a plain file of one byte */
        struct err err = {0};
        write_bytes(in_scratch("cut.gz"), b.p, n);
        expect_error(file_read(&back, &got, in_scratch("cut.gz"), &err), &err, "cut.gz");
    }
    b.p[b.n - 6] ^= 1; /* the checksum */
    write_bytes(in_scratch("bad.gz"), b.p, b.n);
    struct err err = {0};
    expect_error(file_read(&back, &got, in_scratch("bad.gz"), &err), &err, "bad.gz");
    buf_free(&b);
}

static void mapping(void **state)
{
    (void)state;
    struct err err = {0};
    struct file_map m;
    write_text(in_scratch("map"), "12345");
    OK(file_map(&m, in_scratch("map"), &err));
    assert_int_equal(m.size, 5);
    assert_memory_equal(m.data, "12345", 5);
    file_unmap(&m);
    file_unmap(&m);
    write_text(in_scratch("map"), "");
    OK(file_map(&m, in_scratch("map"), &err));
    assert_int_equal(m.size, 0);
    file_unmap(&m);
    expect_error(file_map(&m, "/dev/null", &err), &err, "/dev/null");
    struct err folder = {0};
    expect_error(file_map(&m, scratch_root, &folder), &folder, scratch_root);
}

static void sha256_known_answers(void **state)
{
    (void)state;
    /* FIPS 180-2, appendix B */
    char hex[65], million[1000000];
    OK(bytes_sha256(hex, "abc", 3, &err));
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    OK(bytes_sha256(hex, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, &err));
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    memset(million, 'a', sizeof million);
    write_bytes(in_scratch("million"), million, sizeof million);
    OK(file_sha256(hex, in_scratch("million"), &err));
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    write_bytes(in_scratch("nothing"), "", 0);
    OK(file_sha256(hex, in_scratch("nothing"), &err));
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/* ---- writing ---- */

static void file_writer_leaves_all_or_nothing(void **state)
{
    (void)state;
    struct file_writer w;
    char *dir = scratch_dir("writer"), path[600];
    snprintf(path, sizeof path, "%s/out", dir);
    OK(file_writer_open(&w, path, &err));
    OK(file_writer_put(&w, "abc", 3, &err));
    assert_false(path_exists(path));
    OK(file_writer_commit(&w, &err));
    file_writer_abort(&w);
    holds(path, "abc");
    assert_int_equal(entries(dir), 1);
    OK(file_writer_open(&w, path, &err));
    OK(file_writer_put(&w, "other", 5, &err));
    file_writer_abort(&w);
    holds(path, "abc");
    assert_int_equal(entries(dir), 1);
    OK(file_write(path, "new", 3, &err));
    holds(path, "new");
    assert_int_equal(entries(dir), 1);
}

static void file_writer_failures(void **state)
{
    (void)state;
    struct err err = {0}, full = {0}, taken = {0};
    struct file_writer w;
    char big[1 << 16] = {0};
    expect_error(file_write(in_scratch("no/such/folder"), "", 0, &err), &err, "no/such/folder");
    scratch_dir("is_a_folder");
    expect_error(file_write(in_scratch("is_a_folder"), "x", 1, &taken), &taken, "is_a_folder");
    int rc = 0; /* a full disk: the writer's stream goes to /dev/full */
    OK(file_writer_open(&w, in_scratch("full"), &err));
    fclose(w.f);
    w.f = fopen("/dev/full", "wb");
    assert_non_null(w.f);
    for (int i = 0; i < 4 && rc == 0; i++)
        rc = file_writer_put(&w, big, sizeof big, &full);
    expect_error(rc, &full, "full");
    file_writer_abort(&w);
    struct err late = {0};
    OK(file_writer_open(&w, in_scratch("full"), &err));
    fclose(w.f);
    w.f = fopen("/dev/full", "wb");
    assert_non_null(w.f);
    rc = file_writer_put(&w, "x", 1, &late);
    expect_error(rc == 0 ? file_writer_commit(&w, &late) : rc, &late, "full"); /* seen only when the stream is flushed */
    assert_false(path_exists(in_scratch("full")));
}

static void put_inside(const struct dir_writer *w, const char *name, const char *text)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", w->tmp, name);
    write_text(path, text);
}

static void dir_writer_new_empty_and_taken(void **state)
{
    (void)state;
    struct err err = {0};
    struct dir_writer w;
    char *root = scratch_dir("dirs"), path[600], file[700];
    snprintf(path, sizeof path, "%s/out", root);
    snprintf(file, sizeof file, "%s/a", path);
    OK(dir_writer_open(&w, path, false, &err));
    put_inside(&w, "a", "1");
    assert_false(path_exists(path));
    OK(dir_writer_commit(&w, &err));
    dir_writer_abort(&w);
    holds(file, "1");
    assert_int_equal(entries(root), 1);
    expect_error(dir_writer_open(&w, path, false, &err), &err, path);
    dir_writer_abort(&w);
    assert_int_equal(entries(root), 1);
    holds(file, "1");
    unlink(file);
    OK(dir_writer_open(&w, path, false, &err)); /* an empty folder is as good as none */
    put_inside(&w, "a", "2");
    OK(dir_writer_commit(&w, &err));
    holds(file, "2");
    assert_int_equal(entries(root), 1);
}

static void dir_writer_replace_and_abort(void **state)
{
    (void)state;
    struct err file_err = {0};
    struct dir_writer w;
    char *root = scratch_dir("dirs2"), path[600], a[700], b[700];
    snprintf(path, sizeof path, "%s/out/", root); /* a slash at the end changes nothing */
    snprintf(a, sizeof a, "%s/a", path);
    snprintf(b, sizeof b, "%s/deep/b", path);
    OK(dir_make(path, &err));
    write_text(a, "old");
    OK(dir_writer_open(&w, path, true, &err));
    put_inside(&w, "b", "half");
    dir_writer_abort(&w);
    holds(a, "old");
    assert_int_equal(entries(root), 1);
    OK(dir_writer_open(&w, path, true, &err));
    put_inside(&w, "c", "new");
    holds(a, "old");
    OK(dir_writer_commit(&w, &err));
    assert_false(path_exists(a));
    assert_int_equal(entries(path), 1);
    assert_int_equal(entries(root), 1);
    write_text(in_scratch("plain_file"), "x");
    expect_error(dir_writer_open(&w, in_scratch("plain_file"), true, &file_err), &file_err, "plain_file");
    dir_writer_abort(&w);
    OK(dir_make(b, &err));
    dir_remove(path);
    assert_false(path_exists(path));
}

static void removal_does_not_follow_links(void **state)
{
    (void)state;
    char *outside = scratch_dir("outside"), *inside = scratch_dir("inside"), kept[600], link[600];
    snprintf(kept, sizeof kept, "%s/kept", outside);
    snprintf(link, sizeof link, "%s/link", inside);
    write_text(kept, "x");
    assert_int_equal(symlink(outside, link), 0);
    dir_remove(inside);
    assert_false(path_exists(inside));
    holds(kept, "x");
}

static void making_folders(void **state)
{
    (void)state;
    struct err err = {0};
    OK(dir_make(in_scratch("x/y/z"), &err));
    OK(dir_make(in_scratch("x/y/z/"), &err));
    assert_true(path_is_dir(in_scratch("x/y/z")));
    write_text(in_scratch("x/file"), "");
    expect_error(dir_make(in_scratch("x/file"), &err), &err, "x/file");
    struct err below = {0};
    expect_error(dir_make(in_scratch("x/file/more"), &below), &below, "x/file/more");
}

static void paths(void **state)
{
    (void)state;
    struct err err = {0};
    static const char *const cases[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"a/b", "c/d", "a/b/c/d"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *p = path_join(cases[i][0], cases[i][1], &err);
        assert_string_equal(p, cases[i][2]);
        free(p);
    }
    assert_string_equal(path_base("a/b/c.txt"), "c.txt");
    assert_string_equal(path_base("c.txt"), "c.txt");
    assert_string_equal(path_base("a/"), "");
    assert_true(path_has_suffix("x.jsonl.gz", ".jsonl.gz"));
    assert_true(path_has_suffix(".gz", ".gz"));
    assert_false(path_has_suffix("gz", ".gz"));
    assert_false(path_has_suffix("x.gz.txt", ".gz"));
    assert_false(path_exists(in_scratch("none")));
    assert_false(path_is_dir("/dev/null"));
}

/* ---- JSON ---- */

static void json_members(void **state)
{
    (void)state;
    json_t *o = json_pack("{si sf sb ss sn}", "i", 7, "r", 0.5, "b", 1, "s", "text", "n");
    int64_t i = 1;
    double r = 2;
    bool b = false;
    const char *s = "default";
    OK(json_get_int(&i, o, "i", "f", &err));
    OK(json_get_real(&r, o, "r", "f", &err));
    OK(json_get_bool(&b, o, "b", "f", &err));
    OK(json_get_string(&s, o, "s", "f", &err));
    assert_true(i == 7 && r == 0.5 && b);
    assert_string_equal(s, "text");
    OK(json_get_int(&i, o, "absent", "f", &err));
    OK(json_get_string(&s, o, "n", "f", &err)); /* null is as good as absent */
    OK(json_get_real(&r, o, "i", "f", &err));
    assert_true(i == 7 && r == 7);
    assert_string_equal(s, "text");
    struct err e[4] = {{0}};
    expect_error(json_get_int(&i, o, "r", "file.json", &e[0]), &e[0], "file.json");
    expect_error(json_get_real(&r, o, "s", "file.json", &e[1]), &e[1], "\"s\"");
    expect_error(json_get_bool(&b, o, "i", "file.json", &e[2]), &e[2], "\"i\"");
    expect_error(json_get_string(&s, o, "b", "file.json", &e[3]), &e[3], "\"b\"");
    json_decref(o);
}

static void json_files(void **state)
{
    (void)state;
    struct err err = {0}, bad = {0};
    json_t *v = json_pack("{s[i]}", "a", 1), *back;
    OK(json_write(in_scratch("v.json"), v, &err));
    back = json_read(in_scratch("v.json"), &err);
    assert_true(json_equal(v, back));
    json_decref(v);
    json_decref(back);
    write_text(in_scratch("bad.json"), "{\"a\":\n1,}");
    assert_null(json_read(in_scratch("bad.json"), &bad));
    assert_non_null(strstr(bad.msg, "bad.json"));
    assert_non_null(strstr(bad.msg, "line 2"));
}

/* The peak of one piece of work is not that of an earlier one. */
static void peak_begins_again(void **state)
{
    enum { BYTES = 96 << 20 };
    (void)state;
    volatile char *p = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i += 4096)
        p[i] = 1;
    size_t high = mem_peak_rss();
    assert_true(high > BYTES);
    free((void *)p);
    mem_peak_reset();
    if (access("/proc/self/clear_refs", W_OK) == 0)
        assert_true(mem_peak_rss() < high - BYTES / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peak_begins_again),
        cmocka_unit_test(first_error_wins),
        cmocka_unit_test(errors_stay_one_line),
        cmocka_unit_test(overflow_is_an_error),
        cmocka_unit_test(memory_is_zeroed_and_aligned),
        cmocka_unit_test(files_are_read_plain_and_gzipped),
        cmocka_unit_test(truncated_gzip_is_an_error_at_every_length),
        cmocka_unit_test(mapping),
        cmocka_unit_test(sha256_known_answers),
        cmocka_unit_test(file_writer_leaves_all_or_nothing),
        cmocka_unit_test(file_writer_failures),
        cmocka_unit_test(dir_writer_new_empty_and_taken),
        cmocka_unit_test(dir_writer_replace_and_abort),
        cmocka_unit_test(removal_does_not_follow_links),
        cmocka_unit_test(making_folders),
        cmocka_unit_test(paths),
        cmocka_unit_test(json_members),
        cmocka_unit_test(json_files),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
