/* HDF5: what is written comes back, files made by other programs are read or refused with a reason, and a failure leaves no
 * file. The foreign files are made with libhdf5 itself. Numbers pass through unchanged, so every comparison is exact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <hdf5.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/there.h"
#include "core/base/file.h"
#include "core/io/h5.h"

struct scratch {
    char dir[64];
    char file[96];
};

static int set_up(void **state)
{
    struct scratch *s = calloc(1, sizeof *s);
    strcpy(s->dir, "/tmp/espalier-h5-XXXXXX");
    if (!mkdtemp(s->dir))
        return -1;
    snprintf(s->file, sizeof s->file, "%s/x.h5", s->dir);
    *state = s;
    return 0;
}

/* Counts the files of the scratch folder; removes them when asked. */
static int files_in(const char *dir, bool remove_them)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        n++;
        if (remove_them)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
    return n;
}

static int tear_down(void **state)
{
    struct scratch *s = *state;
    files_in(s->dir, true);
    rmdir(s->dir);
    free(s);
    return 0;
}

static void assert_ok(int rc, const struct err *err)
{
    if (rc != 0)
        fail_msg("%s", err->msg);
}

static void assert_says(const struct err *err, const char *part)
{
    assert_int_equal(err->code, ERR_FAILED);
    if (!strstr(err->msg, part))
        fail_msg("\"%s\" was expected in: %s", part, err->msg);
}

static void test_round_trip(void **state)
{
    struct scratch *s = *state;
    struct err err = {0};
    struct h5_writer w;
    const double d[2][3] = {{1.5, -0.0, INFINITY}, {NAN, 1e-310, 0.1}};
    const int64_t i[4] = {INT64_MIN, INT64_MAX, 0, -7}, none = 0, big = ((int64_t)1 << 53) + 1;
    assert_ok(h5_writer_open(&w, s->file, &err), &err);
    assert_ok(h5_put_f64(&w, "a/b/d", &d[0][0], (int64_t[]){2, 3}, 2, &err), &err);
    assert_ok(h5_put_i64(&w, "a/i", i, (int64_t[]){2, 1, 2, 1}, 4, &err), &err);
    assert_ok(h5_put_i64(&w, "one", &big, NULL, 0, &err), &err);
    assert_ok(h5_put_f64(&w, "none", NULL, &none, 1, &err), &err);
    assert_ok(h5_put_f64(&w, "none2", NULL, (int64_t[]){3, 0}, 2, &err), &err);
    assert_int_equal(path_exists(s->file), false); /* not under its name before commit */
    assert_ok(h5_writer_commit(&w, &err), &err);
    assert_int_equal(files_in(s->dir, false), 1);

    double *f = NULL;
    int64_t *n = NULL, dims[H5_MAX_DIMS];
    int rank;
    assert_ok(h5_read_f64(&f, dims, &rank, s->file, "a/b/d", &err), &err);
    assert_true(rank == 2 && dims[0] == 2 && dims[1] == 3 && dims[2] == 1 && dims[3] == 1);
    assert_memory_equal(f, d, sizeof d);
    free(f);
    assert_ok(h5_read_i64(&n, dims, &rank, s->file, "a/i", &err), &err);
    assert_true(rank == 4 && dims[0] == 2 && dims[1] == 1 && dims[2] == 2 && dims[3] == 1);
    assert_memory_equal(n, i, sizeof i);
    free(n);
    assert_ok(h5_read_i64(&n, dims, &rank, s->file, "one", &err), &err);
    assert_true(rank == 0 && n[0] == big);
    free(n);
    assert_ok(h5_read_f64(&f, dims, &rank, s->file, "none", &err), &err);
    assert_true(rank == 1 && dims[0] == 0 && f);
    free(f);
    assert_ok(h5_read_i64(&n, dims, &rank, s->file, "none2", &err), &err);
    assert_true(rank == 2 && dims[0] == 3 && dims[1] == 0);
    free(n);
}

/* Several chunks in two dims with ragged edges, and compression that does something. */
static void test_many_chunks(void **state)
{
    struct scratch *s = *state;
    struct err err = {0};
    struct h5_writer w;
    enum { ROWS = 37, COLS = 40001 };
    int64_t *v = malloc(sizeof *v * ROWS * COLS), *back, dims[H5_MAX_DIMS];
    int rank;
    for (int64_t k = 0; k < ROWS * COLS; k++)
        v[k] = k % 1000;
    assert_ok(h5_writer_open(&w, s->file, &err), &err);
    assert_ok(h5_put_i64(&w, "v", v, (int64_t[]){ROWS, COLS}, 2, &err), &err);
    assert_ok(h5_writer_commit(&w, &err), &err);
    assert_ok(h5_read_i64(&back, dims, &rank, s->file, "v", &err), &err);
    assert_memory_equal(back, v, sizeof *v * ROWS * COLS);
    struct stat st;
    assert_int_equal(stat(s->file, &st), 0);
    assert_true(st.st_size < (off_t)(sizeof *v * ROWS * COLS / 4));
    free(back);
    free(v);
}

static void check_attr(const char *file, const char *object, const char *name, const char *want)
{
    struct err err = {0};
    char *got;
    assert_ok(h5_read_attr_string(&got, file, object, name, &err), &err);
    assert_string_equal(got, want);
    free(got);
}

/* A number attribute of the root, read with libhdf5. */
static double attr_number(const char *file, const char *name, H5T_class_t class)
{
    hid_t f = H5Fopen(file, H5F_ACC_RDONLY, H5P_DEFAULT), a = H5Aopen(f, name, H5P_DEFAULT), t = H5Aget_type(a);
    double v = NAN;
    int8_t flag = -1;
    assert_int_equal(H5Tget_class(t), class);
    if (class == H5T_ENUM) { /* a boolean */
        assert_true(H5Aread(a, t, &flag) >= 0);
        v = flag;
    } else {
        assert_true(H5Aread(a, H5T_NATIVE_DOUBLE, &v) >= 0);
    }
    H5Tclose(t);
    H5Aclose(a);
    H5Fclose(f);
    return v;
}

static void test_attributes(void **state)
{
    struct scratch *s = *state;
    struct err err = {0};
    struct h5_writer w;
    const char *names[] = {"intact", "prun\xc3\xa9", ""};
    json_t *facts = json_pack("{s:s, s:i, s:f, s:b, s:n, s:[i,i], s:{s:s}}", "model",
                              "m\xc3\xb6"
                              "del",
                              "seed", 1234, "seconds", 1.25, "resumed", 1, "adapter", "dropped", 3, 4, "nested", "k", "v");
    char *huge = malloc(200001); /* above the 64 KiB that HDF5 keeps in an object header */
    memset(huge, 'h', 200000);
    huge[200000] = 0;
    assert_ok(h5_writer_open(&w, s->file, &err), &err);
    assert_ok(h5_put_strings(&w, "t/names", names, 3, &err), &err);
    assert_ok(h5_attr_json(&w, facts, &err), &err);
    assert_ok(h5_attr_string(&w, "t", "where", "a group", &err), &err);
    assert_ok(h5_attr_string(&w, "t/names", "where", "a dataset", &err), &err);
    assert_ok(h5_attr_string(&w, "/", "model", "another", &err), &err); /* replaces */
    assert_ok(h5_attr_string(&w, "/", "huge", huge, &err), &err);
    assert_ok(h5_attr_string(&w, "/", "empty", "", &err), &err);
    assert_ok(h5_attr_i64(&w, "/", "n", -5, &err), &err);
    assert_ok(h5_attr_f64(&w, "/", "x", 0.1, &err), &err);
    assert_ok(h5_writer_commit(&w, &err), &err);
    json_decref(facts);

    check_attr(s->file, "t", "where", "a group");
    check_attr(s->file, "t/names", "where", "a dataset");
    check_attr(s->file, "/", "model", "another");
    check_attr(s->file, "/", "huge", huge);
    check_attr(s->file, "/", "empty", "");
    check_attr(s->file, "/", "dropped", "[3,4]");
    check_attr(s->file, "/", "nested", "{\"k\":\"v\"}");
    free(huge);
    assert_true(attr_number(s->file, "seed", H5T_INTEGER) == 1234 && attr_number(s->file, "n", H5T_INTEGER) == -5);
    assert_true(attr_number(s->file, "seconds", H5T_FLOAT) == 1.25 && attr_number(s->file, "x", H5T_FLOAT) == 0.1);
    assert_true(attr_number(s->file, "resumed", H5T_ENUM) == 1);

    char *got;
    assert_int_equal(h5_read_attr_string(&got, s->file, "/", "adapter", &err), -1); /* null: left out */
    assert_null(got);
    assert_says(&err, "adapter");
    err = (struct err){0};
    assert_int_equal(h5_read_attr_string(&got, s->file, "/", "seed", &err), -1);
    assert_says(&err, "one string was expected");
}

/* Equal results give equal bytes: no clock, no uninitialised memory. */
static void test_reproducible(void **state)
{
    struct scratch *s = *state;
    struct err err = {0};
    char hash[2][65];
    for (int k = 0; k < 2; k++) {
        struct h5_writer w;
        assert_ok(h5_writer_open(&w, s->file, &err), &err);
        assert_ok(h5_put_f64(&w, "g/x", (double[]){1, 2, 3}, (int64_t[]){3}, 1, &err), &err);
        assert_ok(h5_put_strings(&w, "names", (const char *const[]){"a", "bc"}, 2, &err), &err);
        assert_ok(h5_attr_string(&w, "g", "unit", "nats", &err), &err);
        assert_ok(h5_writer_commit(&w, &err), &err);
        assert_ok(file_sha256(hash[k], s->file, &err), &err);
        if (k == 0)
            usleep(1100 * 1000); /* HDF5's object times have a resolution of a second */
    }
    assert_string_equal(hash[0], hash[1]);
}

static void test_writing_failures(void **state)
{
    struct scratch *s = *state;
    struct err err = {0};
    struct h5_writer w;
    assert_int_equal(h5_writer_open(&w, "/nonexistent/folder/x.h5", &err), -1);
    assert_says(&err, "/nonexistent/folder/x.h5");
    h5_writer_abort(&w);

    err = (struct err){0};
    assert_ok(h5_writer_open(&w, s->file, &err), &err);
    assert_ok(h5_put_i64(&w, "x", (int64_t[]){1}, (int64_t[]){1}, 1, &err), &err);
    assert_int_equal(h5_put_i64(&w, "x", (int64_t[]){2}, (int64_t[]){1}, 1, &err), -1);
    assert_says(&err, "\"x\": cannot make the dataset");
    err = (struct err){0};
    assert_int_equal(h5_put_i64(&w, "y", NULL, (int64_t[]){-1}, 1, &err), -1);
    assert_says(&err, "negative");
    err = (struct err){0};
    assert_int_equal(h5_put_i64(&w, "y", NULL, (int64_t[]){INT64_MAX, INT64_MAX}, 2, &err), -1);
    assert_says(&err, "elements");
    err = (struct err){0};
    assert_int_equal(h5_put_i64(&w, "y", NULL, (int64_t[]){1, 1, 1, 1, 1}, 5, &err), -1);
    assert_says(&err, "found 5");
    err = (struct err){0};
    assert_int_equal(h5_attr_i64(&w, "absent", "k", 1, &err), -1);
    assert_says(&err, "absent");
    h5_writer_abort(&w);
    h5_writer_abort(&w);
    assert_int_equal(files_in(s->dir, false), 0);
}

/* A disk that takes no more than 4 KiB: commit fails, an older file of that name stays, nothing else is left. */
static void test_full_disk(void **state)
{
    struct scratch *s = *state;
    struct err err = {0};
    struct h5_writer w;
    struct rlimit old, small;
    double *v = malloc(sizeof *v * 5000);
    for (int k = 0; k < 5000; k++)
        v[k] = sin(k); /* does not compress below the limit */
    assert_ok(file_write(s->file, "older", 5, &err), &err);
    assert_ok(h5_writer_open(&w, s->file, &err), &err);
    assert_ok(h5_put_f64(&w, "v", v, (int64_t[]){5000}, 1, &err), &err);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 4096;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = h5_writer_commit(&w, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    free(v);
    assert_int_equal(rc, -1);
    assert_says(&err, "cannot write");
    assert_int_equal(files_in(s->dir, false), 1);
    char hash[65], want[65];
    struct err none = {0};
    assert_ok(file_sha256(hash, s->file, &none), &none);
    assert_int_equal(bytes_sha256(want, "older", 5, &err), 0);
    assert_string_equal(hash, want);
}

static void foreign(hid_t file, const char *name, hid_t type, hid_t memory_type, const void *data, hsize_t n)
{
    hid_t space = H5Screate_simple(1, &n, NULL);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(set >= 0 && H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

static void test_foreign_types(void **state)
{
    struct scratch *s = *state;
    struct err err = {0};
    const int64_t whole[3] = {1, 2, 200};
    const double real[3] = {1, 2.5, 3}, nan[1] = {NAN}, large[1] = {1e19};
    const uint64_t unsigned64[1] = {UINT64_MAX};
    hid_t f = H5Fcreate(s->file, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    foreign(f, "u8", H5T_STD_U8BE, H5T_NATIVE_INT64, whole, 3);
    foreign(f, "f32be", H5T_IEEE_F32BE, H5T_NATIVE_INT64, whole, 3);
    foreign(f, "real", H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE, real, 3);
    foreign(f, "nan", H5T_IEEE_F32LE, H5T_NATIVE_DOUBLE, nan, 1);
    foreign(f, "large", H5T_IEEE_F32LE, H5T_NATIVE_DOUBLE, large, 1);
    foreign(f, "u64", H5T_STD_U64LE, H5T_NATIVE_UINT64, unsigned64, 1);
    H5Fclose(f);

    int64_t *i, dims[H5_MAX_DIMS];
    double *d;
    int rank;
    const char *both[] = {"u8", "f32be"};
    for (int k = 0; k < 2; k++) {
        assert_ok(h5_read_i64(&i, dims, &rank, s->file, both[k], &err), &err);
        assert_memory_equal(i, whole, sizeof whole);
        assert_ok(h5_read_f64(&d, dims, &rank, s->file, both[k], &err), &err);
        assert_true(rank == 1 && dims[0] == 3 && d[0] == 1 && d[1] == 2 && d[2] == 200);
        free(i);
        free(d);
    }
    assert_ok(h5_read_f64(&d, dims, &rank, s->file, "real", &err), &err);
    assert_memory_equal(d, real, sizeof real);
    free(d);
    const char *lossy[][2] = {{"real", "found 2.5"}, {"nan", "found nan"}, {"large", "found 1e+19"}, {"u64", "a larger one"}};
    for (int k = 0; k < 4; k++) {
        err = (struct err){0};
        assert_int_equal(h5_read_i64(&i, dims, &rank, s->file, lossy[k][0], &err), -1);
        assert_null(i);
        assert_says(&err, lossy[k][1]);
    }
}

/* One dataset that must be refused, with its reason. */
static void refused(const char *file, const char *name, const char *why)
{
    struct err err = {0};
    double *d = (double *)&err;
    int64_t dims[H5_MAX_DIMS];
    int rank;
    assert_int_equal(h5_read_f64(&d, dims, &rank, file, name, &err), -1);
    assert_null(d);
    assert_says(&err, why);
    assert_says(&err, file);
}

static void test_refused(void **state)
{
    struct scratch *s = *state;
    char other[128];
    snprintf(other, sizeof other, "%s/other.h5", s->dir);
    hid_t f = H5Fcreate(other, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    foreign(f, "x", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, (double[]){1}, 1);
    H5Fclose(f);
    refused(s->file, "x", "No such file");
    refused(s->dir, "x", "a regular file was expected");
    refused(other, "y", "a dataset was expected");
    refused(other, "x/y", "a dataset was expected");
    refused(other, "/", "a dataset was expected");

    f = H5Fcreate(s->file, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Lcreate_external(other, "x", f, "link", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    hid_t p = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, (hsize_t[]){1}, NULL);
    H5Pset_external(p, other, 0, 8);
    H5Dclose(H5Dcreate2(f, "outside", H5T_IEEE_F64LE, space, H5P_DEFAULT, p, H5P_DEFAULT));
    H5Pclose(p);
    H5Sclose(space);
    p = H5Pcreate(H5P_DATASET_CREATE);
    space = H5Screate_simple(2, (hsize_t[]){1 << 20, 1 << 20}, NULL); /* claims 8 TiB, occupies nothing */
    H5Pset_chunk(p, 2, (hsize_t[]){1, 1});
    H5Dclose(H5Dcreate2(f, "bomb", H5T_IEEE_F64LE, space, H5P_DEFAULT, p, H5P_DEFAULT));
    H5Pclose(p);
    H5Sclose(space);
    p = H5Pcreate(H5P_DATASET_CREATE);
    space = H5Screate_simple(1, (hsize_t[]){1 << 27}, NULL); /* few enough elements, and more than so small a file can hold */
    H5Pset_chunk(p, 1, (hsize_t[]){1024});
    H5Dclose(H5Dcreate2(f, "roomy", H5T_IEEE_F64LE, space, H5P_DEFAULT, p, H5P_DEFAULT));
    H5Pclose(p);
    H5Sclose(space);
    space = H5Screate_simple(5, (hsize_t[]){1, 1, 1, 1, 1}, NULL);
    H5Dclose(H5Dcreate2(f, "deep", H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
    hid_t text = H5Tcopy(H5T_C_S1);
    foreign(f, "text", text, text, "t", 1);
    space = H5Screate(H5S_SCALAR);
    H5Tset_size(text, 6);
    hid_t a = H5Acreate2(f, "fixed", text, space, H5P_DEFAULT, H5P_DEFAULT); /* six bytes, no NUL */
    H5Awrite(a, text, "abcdef");
    H5Aclose(a);
    H5Sclose(space);
    H5Tclose(text);
    H5Fclose(f);
    refused(s->file, "link", "a dataset was expected");
    refused(s->file, "outside", "other files");
    refused(s->file, "bomb", "elements");
    refused(s->file, "roomy", "are said to be in a file of");
    refused(s->file, "deep", "found 5");
    refused(s->file, "text", "another type");
    check_attr(s->file, "/", "fixed", "abcdef");

    struct err err = {0};
    assert_ok(file_write(s->file, "no such format", 14, &err), &err);
    refused(s->file, "x", "not an HDF5 file");
}

/* Cut at any length, a file is refused or read, but never crashes or hangs the reader. */
static void test_truncated(void **state)
{
    struct scratch *s = *state;
    struct err err = {0};
    struct h5_writer w;
    assert_ok(h5_writer_open(&w, s->file, &err), &err);
    assert_ok(h5_put_f64(&w, "g/x", (double[]){1, 2, 3}, (int64_t[]){3}, 1, &err), &err);
    assert_ok(h5_writer_commit(&w, &err), &err);
    struct stat st;
    assert_int_equal(stat(s->file, &st), 0);
    for (off_t size = st.st_size - 1; size > 0; size -= 97) {
        int64_t dims[H5_MAX_DIMS];
        int rank;
        double *d;
        struct err why = {0};
        assert_int_equal(truncate(s->file, size), 0);
        assert_int_equal(h5_read_f64(&d, dims, &rank, s->file, "g/x", &why), -1);
        assert_null(d);
        assert_true(why.msg[0]);
    }
}

static herr_t count_print(hid_t stack, void *data)
{
    (void)stack;
    ++*(int *)data;
    return 0;
}

/* The caller's error printing is silent while we work, and in place again afterwards. */
static void test_error_printing(void **state)
{
    struct scratch *s = *state;
    int printed = 0;
    H5E_auto2_t before;
    void *data;
    H5Eget_auto2(H5E_DEFAULT, &before, &data);
    H5Eset_auto2(H5E_DEFAULT, count_print, &printed);
    struct err err = {0};
    assert_ok(file_write(s->file, "no such format", 14, &err), &err);
    refused(s->file, "x", "not an HDF5 file");
    assert_int_equal(printed, 0);
    assert_true(H5Fopen(s->file, H5F_ACC_RDONLY, H5P_DEFAULT) < 0);
    assert_int_equal(printed, 1);
    H5Eset_auto2(H5E_DEFAULT, before, data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_chunks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_attributes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reproducible, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writing_failures, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_full_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_foreign_types, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_truncated, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_error_printing, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
