/* Models in HDF5: what the program writes itself is in test_save.c; here are files that others might write, with the library's own
 * calls, good and bad. */
#include "tests/there.h"
#include "tests/tiny_model.h"

#include <hdf5.h>

#include "core/io/h5_model.h"
#include "core/io/source.h"

enum { ROWS = 6, COLS = 5 };
static float values[ROWS * COLS];

static void text_attribute(hid_t at, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text) + 1);
    hid_t a = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(a, type, text) >= 0);
    H5Aclose(a);
    H5Sclose(space);
    H5Tclose(type);
}

/* How a file differs from a good one. */
struct kind {
    hid_t type;         /* of the tensor "t"; 0: 32-bit little-endian floats */
    const char *dtype;  /* its attribute; NULL: none */
    const char *format; /* the file's attribute */
    bool no_config, no_tensors, chunked, never_written, external, zero_rank;
    hsize_t userblock;
    hsize_t rows; /* 0: ROWS */
};

static hid_t describe_storage(const struct kind *k)
{
    hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    if (k->chunked) {
        H5Pset_chunk(p, 2, (hsize_t[]){2, 3});
        H5Pset_shuffle(p);
        H5Pset_deflate(p, 4);
    }
    if (k->external)
        H5Pset_external(p, "/etc/hostname", 0, H5F_UNLIMITED);
    return p;
}

static void write_h5(const char *path, const struct kind *k)
{
    hid_t creation = H5Pcreate(H5P_FILE_CREATE), store = describe_storage(k), type = k->type ? k->type : H5T_IEEE_F32LE;
    H5Pset_userblock(creation, k->userblock);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, creation, H5P_DEFAULT);
    text_attribute(file, "format", k->format ? k->format : "espalier model");
    if (!k->no_config)
        text_attribute(file, "config", "{\"hidden_size\": 5}");
    if (!k->no_tensors) {
        hid_t group = H5Gcreate2(file, "tensors", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        hid_t space = k->zero_rank ? H5Screate(H5S_SCALAR) : H5Screate_simple(2, (hsize_t[]){k->rows ? k->rows : ROWS, COLS}, NULL);
        hid_t set = H5Dcreate2(group, "t", type, space, H5P_DEFAULT, store, H5P_DEFAULT);
        assert_true(set >= 0);
        if (!k->never_written && !k->external)
            H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
        if (k->dtype)
            text_attribute(set, "dtype", k->dtype);
        H5Dclose(set);
        H5Sclose(space);
        H5Gclose(group);
    }
    H5Fclose(file);
    H5Pclose(store);
    H5Pclose(creation);
}

static bool is_mapped(const struct source *s, const struct tensor *t)
{
    return t->data >= s->maps[0].data && t->data + t->bytes <= s->maps[0].data + s->maps[0].size;
}

static void good(const struct kind *k, bool mapped)
{
    struct source s;
    write_h5(in_scratch("m.h5"), k);
    OK(source_open(&s, in_scratch("m.h5"), &err));
    const struct tensor *t = source_find(&s, "t");
    assert_true(t && t->dtype == DTYPE_F32 && t->n_dims == 2 && t->shape[0] == ROWS && t->shape[1] == COLS);
    assert_true(t->bytes == sizeof values);
    assert_memory_equal(t->data, values, sizeof values);
    assert_true(is_mapped(&s, t) == mapped);
    assert_string_equal(s.config, "{\"hidden_size\": 5}");
    assert_int_equal(s.n_files, 0);
    source_close(&s);
}

static void files_of_others(void **state)
{
    (void)state;
    good(&(struct kind){0}, true);
    good(&(struct kind){.dtype = "f32"}, true);
    good(&(struct kind){.chunked = true}, false);
}

static void refused(const struct kind *k, const char *part)
{
    struct source s;
    struct err err = {0};
    write_h5(in_scratch("m.h5"), k);
    int rc = source_open(&s, in_scratch("m.h5"), &err);
    if (rc == 0)
        fail_msg("accepted; %s was expected to be refused", part);
    expect_error(rc, &err, "m.h5");
    expect_error(rc, &err, part);
}

static void files_that_lie(void **state)
{
    (void)state;
    refused(&(struct kind){.format = "another"}, "no model of this program's");
    refused(&(struct kind){.no_config = true}, "config");
    refused(&(struct kind){.userblock = 512}, "not an HDF5 file"); /* one with something else in front is none of ours */
    refused(&(struct kind){.no_tensors = true}, "tensors");
    refused(&(struct kind){.type = H5T_IEEE_F64LE}, "tensor t");
    refused(&(struct kind){.type = H5T_IEEE_F32BE}, "tensor t");
    refused(&(struct kind){.type = H5T_STD_U16LE}, "tensor t"); /* a bf16 must say that it is one */
    refused(&(struct kind){.type = H5T_STD_U16LE, .dtype = "f16"}, "tensor t");
    refused(&(struct kind){.type = H5T_STD_I16LE, .dtype = "bf16"}, "tensor t");
    refused(&(struct kind){.dtype = "q8_0"}, "tensor t");
    refused(&(struct kind){.external = true}, "other files");
    refused(&(struct kind){.chunked = true, .never_written = true}, "no data");
    refused(&(struct kind){.zero_rank = true}, "dims");
    refused(&(struct kind){.chunked = true, .never_written = true, .rows = (hsize_t)1 << 60}, "dims");
}

/* What is behind the end, or cut. */
static void truncated(void **state)
{
    (void)state;
    write_h5(in_scratch("whole.h5"), &(struct kind){0});
    struct buf b = read_bytes(in_scratch("whole.h5"));
    for (size_t n = 0; n < b.n; n += n < 200 ? 1 : 97) {
        struct source s;
        struct err err = {0};
        write_bytes(in_scratch("cut.h5"), b.p, n);
        int rc = source_open(&s, in_scratch("cut.h5"), &err);
        if (rc == 0)
            fail_msg("accepted with %zu of %zu bytes", n, b.n);
        expect_error(rc, &err, "cut.h5");
    }
    buf_free(&b);
}

/* The writer: pieces, alignment, files inside; nothing is left of what is given up. */
static void written(void **state)
{
    (void)state;
    static const struct tensor_entry entries[] = {{"a", DTYPE_F32, 2, {3, 4}},
                                                  {"b.long name", DTYPE_BF16, 1, {5}},
                                                  {"c", DTYPE_F8_E4M3, 2, {3, 1}},
                                                  {"d", DTYPE_F16, 1, {6}}};
    struct h5_model_writer w;
    struct source s;
    OK(h5_model_writer_open(&w, in_scratch("w.h5"), "{}", &err));
    OK(h5_model_put_file(&w, "tokenizer.json", "some text", 9, &err));
    OK(h5_model_put_file(&w, "empty", NULL, 0, &err));
    OK(h5_model_tensors(&w, entries, 4, &err));
    OK(h5_model_put(&w, values, 20, &err));
    OK(h5_model_put(&w, values + 5, 28, &err));
    OK(h5_model_put(&w, values, 10, &err));
    OK(h5_model_put(&w, values, 3, &err));
    OK(h5_model_put(&w, values, 12, &err));
    assert_false(path_exists(in_scratch("w.h5")));
    OK(h5_model_flush(&w, &err));
    OK(source_open(&s, w.h5.out.tmp, &err));
    source_close(&s);
    OK(h5_model_commit(&w, &err));
    OK(source_open(&s, in_scratch("w.h5"), &err));
    assert_int_equal(s.n_tensors, 4);
    for (int64_t i = 0; i < 4; i++) {
        const struct tensor *t = source_find(&s, entries[i].name);
        assert_true(t && t->dtype == entries[i].dtype && t->n_dims == entries[i].n_dims && t->bytes == entry_bytes(&entries[i]));
        assert_memory_equal(t->data, values, t->bytes);
        assert_true(is_mapped(&s, t) && (t->data - s.maps[0].data) % 4 == 0);
    }
    assert_int_equal(s.n_files, 1);
    assert_true(!strcmp(s.files[0].name, "tokenizer.json") && s.files[0].n == 9 && !strcmp(s.files[0].data, "some text"));
    source_close(&s);
    OK(h5_model_writer_open(&w, in_scratch("given up.h5"), "{}", &err));
    OK(h5_model_tensors(&w, entries, 4, &err));
    char tmp[512];
    snprintf(tmp, sizeof tmp, "%s", w.h5.out.tmp);
    assert_true(path_exists(tmp));
    h5_model_abort(&w);
    assert_false(path_exists(tmp) || path_exists(in_scratch("given up.h5")));
}

static int set_up(void **state)
{
    for (int i = 0; i < ROWS * COLS; i++)
        values[i] = 0.25f * (float)(i - 7);
    return scratch_open(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(files_of_others), cmocka_unit_test(files_that_lie),
                                       cmocka_unit_test(truncated), cmocka_unit_test(written)};
    return cmocka_run_group_tests(tests, set_up, scratch_close);
}
