/* safetensors files that lie: every one is refused with a message that names the file, and nothing is read past its end. */
#include "core/base/dir.h"
#include "tests/there.h"
#include "tests/tiny_model.h"

#include "core/io/safetensors.h"
#include "core/io/source.h"

static const float values[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static int open_text(const char *header, size_t n, size_t data_bytes, struct err *err)
{
    struct source s;
    st_file(in_scratch("m.safetensors"), header, n, values, data_bytes);
    int rc = source_open(&s, in_scratch("m.safetensors"), err);
    if (rc == 0)
        source_close(&s);
    return rc;
}

/* Fails unless a file with this header and 48 bytes of data is refused with its name. */
static void refused(const char *header, size_t n)
{
    struct err err = {0};
    int rc = open_text(header, n, sizeof values, &err);
    if (rc == 0)
        fail_msg("accepted: %.*s", (int)n, header);
    expect_error(rc, &err, "m.safetensors");
}

static void a_good_file(void **state)
{
    (void)state;
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
        "\"a\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[24,30]},"
        "\"n\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[32,40]},"
        "\"e\":{\"dtype\":\"BF16\",\"shape\":[0,7],\"data_offsets\":[48,48]}}";
    struct source s;
    st_file(in_scratch("m.safetensors"), header, strlen(header), values, sizeof values);
    OK(source_open(&s, in_scratch("m.safetensors"), &err));
    assert_int_equal(s.n_tensors, 3); /* whole numbers are no weights */
    const struct tensor *b = source_find(&s, "b"), *e = source_find(&s, "e");
    assert_non_null(b);
    assert_true(b->dtype == DTYPE_F32 && b->n_dims == 2 && b->shape[0] == 2 && b->shape[1] == 3 && b->bytes == 24);
    assert_memory_equal(b->data, values, 24);
    assert_true(e && e->bytes == 0 && tensor_elements(e) == 0);
    assert_null(source_find(&s, "n"));
    assert_null(source_find(&s, ""));
    source_close(&s);
    source_close(&s);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    const struct tensor_entry entries[] = {{"x", DTYPE_F32, 2, {3, 4}}, {"a longer name", DTYPE_BF16, 1, {5}}};
    struct safetensors_writer w;
    struct source s;
    OK(safetensors_writer_open(&w, in_scratch("w.safetensors"), entries, 2, NULL, &err));
    OK(safetensors_writer_put(&w, values, 20, &err));
    OK(safetensors_writer_put(&w, values + 5, 28, &err));
    OK(safetensors_writer_put(&w, values, 10, &err));
    OK(safetensors_writer_commit(&w, &err));
    OK(source_open(&s, in_scratch("w.safetensors"), &err));
    assert_int_equal(s.n_tensors, 2);
    assert_memory_equal(source_find(&s, "x")->data, values, 48);
    assert_int_equal((source_find(&s, "x")->data - s.maps[0].data) % 8, 0);
    assert_memory_equal(source_find(&s, "a longer name")->data, values, 10);
    source_close(&s);
}

/* Shards of at most so many bytes; what is larger has one of its own. */
static void shards_are_cut_and_read(void **state)
{
    (void)state;
    const struct tensor_entry entries[] = {{"a", DTYPE_F32, 1, {4}},
                                           {"b", DTYPE_F32, 1, {5}},
                                           {"c", DTYPE_F32, 2, {3, 4}},
                                           {"d", DTYPE_F32, 1, {1}},
                                           {"e", DTYPE_F32, 1, {1}}};
    static const struct {
        int64_t limit, shards;
    } cases[] = {{1000, 1}, {92, 1}, {91, 2}, {36, 3}, {35, 4}, {1, 5}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct safetensors_folder f;
        struct source s;
        char last[64];
        dir_remove(in_scratch("cut"));
        scratch_dir("cut");
        OK(safetensors_folder_open(&f, in_scratch("cut"), entries, 5, cases[k].limit, &err));
        assert_int_equal(f.n_shards, cases[k].shards);
        for (int i = 0; i < 5; i++) {
            if (i == 2)
                OK(safetensors_folder_put(&f, values, 16, &err));
            OK(safetensors_folder_put(&f, i == 2 ? values + 4 : values, entry_bytes(&entries[i]) - (i == 2 ? 16 : 0), &err));
        }
        OK(safetensors_folder_commit(&f, &err));
        snprintf(last, sizeof last, "cut/model-%05d-of-%05d.safetensors", (int)cases[k].shards, (int)cases[k].shards);
        assert_true(path_exists(in_scratch(last)) == (cases[k].shards > 1));
        OK(source_open(&s, in_scratch("cut"), &err));
        assert_true(s.n_tensors == 5 && s.n_maps == cases[k].shards);
        for (int i = 0; i < 5; i++)
            assert_memory_equal(source_find(&s, entries[i].name)->data, values, entry_bytes(&entries[i]));
        source_close(&s);
    }
}

static void truncated_at_every_length(void **state)
{
    (void)state;
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[0,48]}}";
    struct source s;
    st_file(in_scratch("whole"), header, strlen(header), values, sizeof values);
    struct buf b = read_bytes(in_scratch("whole"));
    for (size_t n = 0; n < b.n; n++) {
        struct err err = {0};
        write_bytes(in_scratch("cut.safetensors"), b.p, n);
        int rc = source_open(&s, in_scratch("cut.safetensors"), &err);
        if (rc == 0)
            fail_msg("accepted with %zu of %zu bytes", n, b.n);
        expect_error(rc, &err, "cut.safetensors");
    }
    buf_free(&b);
}

static void headers_that_lie(void **state)
{
    (void)state;
    static const char *const entries[] = {
        /* offsets */
        "\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[4,52]",
        "\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[0,52]",
        "\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[48,0]",
        "\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[-48,0]",
        "\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[0,9223372036854775807]",
        "\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[49,49]",
        "\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[48,56]",
        "\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[0]",
        "\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[0,48,48]",
        "\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[0.0,48.0]",
        "\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":{\"a\":0}",
        "\"dtype\":\"F32\",\"shape\":[2,6],\"data_offsets\":[\"0\",\"48\"]",
        "\"dtype\":\"F32\",\"shape\":[2,6]",
        /* shapes */
        "\"dtype\":\"F32\",\"shape\":[2,7],\"data_offsets\":[0,48]",
        "\"dtype\":\"F32\",\"shape\":[2,5],\"data_offsets\":[0,48]",
        "\"dtype\":\"F32\",\"shape\":[-2,-6],\"data_offsets\":[0,48]",
        "\"dtype\":\"F32\",\"shape\":[1,1,1,2,6],\"data_offsets\":[0,48]",
        "\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]", /* 2^64 elements, and as bytes 0 */
        "\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]",   /* 2^62: 2^64 bytes */
        "\"dtype\":\"F32\",\"shape\":[4611686018427387916],\"data_offsets\":[0,48]",
        "\"dtype\":\"F32\",\"shape\":[9223372036854775807,9223372036854775807],\"data_offsets\":[0,4]",
        "\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,0]",
        "\"dtype\":\"F32\",\"shape\":12,\"data_offsets\":[0,48]",
        "\"dtype\":\"F32\",\"shape\":[2.0,6.0],\"data_offsets\":[0,48]",
        "\"dtype\":\"F32\",\"shape\":[\"2\",6],\"data_offsets\":[0,48]",
        "\"dtype\":\"F32\",\"shape\":null,\"data_offsets\":[0,4]",
        "\"dtype\":\"F32\",\"data_offsets\":[0,4]",
        /* dtypes */
        "\"dtype\":4,\"shape\":[12],\"data_offsets\":[0,48]",
        "\"shape\":[12],\"data_offsets\":[0,48]",
        "",
    };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        char header[400];
        int n = snprintf(header, sizeof header, "{\"a\":{%s}}", entries[i]);
        refused(header, (size_t)n);
    }
}

static void headers_that_are_none(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "[]",
        "3 ",
        "null",
        "\"text\"",
        "{\"a\":",
        "{\"a\":1}",
        "{\"a\":null}",
        "{\"a\":[]}",
        "{} x",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":["
        "4,8]}}",
        "{\"\xff\xfe\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"\xed\xa0\x80\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", /* a lone surrogate */
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        refused(headers[i], strlen(headers[i]));
    struct buf deep = {0};
    for (int i = 0; i < 100000; i++)
        buf_put(&deep, "{\"a\":", 5);
    refused(deep.p, deep.n);
    buf_free(&deep);
}

static void header_lengths_that_lie(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {0, 1, 11, 12, 1000, (uint64_t)1 << 32, INT64_MAX, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct buf b = {0};
        struct source s;
        struct err err = {0};
        buf_uint(&b, lengths[i], 8);
        buf_put(&b, "{\"a\":  {}}", 10);
        write_bytes(in_scratch("len.safetensors"), b.p, b.n);
        expect_error(source_open(&s, in_scratch("len.safetensors"), &err), &err, "len.safetensors");
        buf_free(&b);
    }
}

/* Tensors may share bytes: they are read-only views. What counts is that each lies inside. */
static void overlaps_are_no_danger(void **state)
{
    (void)state;
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[12],\"data_offsets\":[0,48]},"
                                 "\"b\":{\"dtype\":\"F32\",\"shape\":[11],\"data_offsets\":[4,48]}}";
    struct source s;
    st_file(in_scratch("m.safetensors"), header, strlen(header), values, sizeof values);
    struct err err = {0};
    if (source_open(&s, in_scratch("m.safetensors"), &err) != 0) {
        expect_error(-1, &err, "m.safetensors");
        return;
    }
    assert_memory_equal(source_find(&s, "b")->data, values + 1, 44);
    source_close(&s);
}

/* ---- folders and indices ---- */

static void put_shard(const char *name, const char *tensor)
{
    struct st st = {{0}, {0}};
    char path[200];
    snprintf(path, sizeof path, "shards/%s", name);
    st_add(&st, tensor, "F32", (int64_t[]){4}, 1, values, 16);
    st_write(&st, in_scratch(path));
}

static int open_index(const char *index, struct err *err)
{
    struct source s;
    write_text(in_scratch("shards/model.safetensors.index.json"), index);
    int rc = source_open(&s, in_scratch("shards"), err);
    if (rc == 0) {
        assert_true(source_find(&s, "a") && source_find(&s, "b") && s.n_tensors == 2);
        source_close(&s);
    }
    return rc;
}

static void shards(void **state)
{
    (void)state;
    scratch_dir("shards");
    put_shard("one", "a");
    put_shard("two", "b");
    write_text(in_scratch("secret"), "x");
    OK(open_index("{\"metadata\":{},\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}", &err));
    OK(open_index("{\"weight_map\":{\"a\":\"one\",\"b\":\"two\",\"c\":\"one\"}}", &err)); /* c: held nowhere, needed by nobody */
    struct source s; /* no such shard: noted for whoever needs what is said to be in it */
    write_text(in_scratch("shards/model.safetensors.index.json"),
               "{\"weight_map\":{\"a\":\"one\",\"b\":\"two\",\"d\":\"three\",\"e\":\"three\"}}");
    OK(source_open(&s, in_scratch("shards"), &err));
    assert_true(s.n_tensors == 2 && s.n_passed == 2);
    assert_null(source_passed_over(&s, "e")->type);
    assert_string_equal(path_base(source_passed_over(&s, "e")->file), "three");
    source_close(&s);
    static const char *const bad[][2] = {
        {"{\"weight_map\":{\"a\":\"two\",\"b\":\"one\"}}", "index.json"}, /* in the other shard */
        {"{\"weight_map\":{\"a\":\"one\",\"b\":\"../secret\"}}", "index.json"},
        {"{\"weight_map\":{\"a\":\"one\",\"b\":\"..\"}}", "shards"},
        {"{\"weight_map\":{\"a\":\"one\",\"b\":\".\"}}", "shards"},
        {"{\"weight_map\":{\"a\":\"one\",\"b\":\"/etc/passwd\"}}", "index.json"},
        {"{\"weight_map\":{\"a\":\"one\",\"b\":\"\"}}", "index.json"},
        {"{\"weight_map\":{\"a\":\"one\",\"b\":2}}", "index.json"},
        {"{\"weight_map\":{\"a\":\"one\",\"b\":null}}", "index.json"},
        {"{\"weight_map\":{}}", "index.json"},
        {"{\"weight_map\":[]}", "index.json"},
        {"{}", "index.json"},
        {"[]", "index.json"},
        {"", "index.json"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        int rc = open_index(bad[i][0], &err);
        if (rc == 0)
            fail_msg("accepted: %s", bad[i][0]);
        expect_error(rc, &err, bad[i][1]);
    }
    struct err err = {0};
    put_shard("two", "a"); /* the same tensor in both */
    expect_error(open_index("{\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}", &err), &err, "twice");
}

static void folders_without_weights(void **state)
{
    (void)state;
    struct source s;
    struct err e[3] = {{0}};
    scratch_dir("hollow");
    expect_error(source_open(&s, in_scratch("hollow"), &e[0]), &e[0], "hollow");
    expect_error(source_open(&s, in_scratch("absent"), &e[1]), &e[1], "absent");
    scratch_dir("hollow/model.safetensors");
    expect_error(source_open(&s, in_scratch("hollow"), &e[2]), &e[2], "hollow/model.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(shards_are_cut_and_read),
        cmocka_unit_test(truncated_at_every_length),
        cmocka_unit_test(headers_that_lie),
        cmocka_unit_test(headers_that_are_none),
        cmocka_unit_test(header_lengths_that_lie),
        cmocka_unit_test(overlaps_are_no_danger),
        cmocka_unit_test(shards),
        cmocka_unit_test(folders_without_weights),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
