/* PyTorch checkpoints: what torch.save writes is read in place, and files that lie are refused with a message that says which file
 * and what. The archive and the pickle have tests of their own: test_zip.c, test_pickle.c. */
#include "tests/there.h"
#include "tests/pytorch_file.h"

#include "core/model/model.h"
#include "core/model/save.h"

/* ---- what is read ---- */

static void a_good_file_in_every_style(void **state)
{
    (void)state;
    static const struct zip_style styles[] = {{0}, {.plain = true}, {.zip64 = true}, {.no_crc = true}};
    struct buf pkl = good_pickle();
    for (size_t i = 0; i < sizeof styles / sizeof *styles; i++) {
        struct source s;
        struct buf b = checkpoint(&pkl, styles[i]);
        OK(open_bytes(&s, b.p, b.n, &err));
        assert_true(is_good(&s));
        const struct tensor *t = source_find(&s, "a"); /* in place, not copied */
        assert_true(t->data > s.maps[0].data && t->data < s.maps[0].data + s.maps[0].size);
        source_close(&s);
        buf_free(&b);
    }
    buf_free(&pkl);
}

/* Written by PyTorch itself, see tests/fixtures/README.md. */
static void files_of_pytorch(void **state)
{
    (void)state;
    static const char *const files[] = {"tests/fixtures/torch/protocol2.bin", "tests/fixtures/torch/protocol5.bin"};
    for (size_t i = 0; i < 2; i++) {
        struct source s;
        OK(source_open(&s, files[i], &err));
        assert_int_equal(s.n_tensors, 8);
        static const float w[] = {0, 1, 2, 3, 4, 5, 6}, half[] = {0.5f, 1.5f, 2.5f}, seven = 7;
        static const uint16_t h[] = {0, 0x3c00, 0x4000, 0x4200}, b[] = {0, 0x3f80, 0x4000, 0x4040};
        const struct tensor *t = source_find(&s, "w");
        assert_true(t->dtype == DTYPE_F32 && t->n_dims == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->bytes == 24);
        assert_memory_equal(t->data, w, 24);
        assert_ptr_equal(source_find(&s, "tied")->data, t->data);
        t = source_find(&s, "h");
        assert_true(t->dtype == DTYPE_F16 && t->n_dims == 1 && t->shape[0] == 4 && t->bytes == 8 && !memcmp(t->data, h, 8));
        t = source_find(&s, "b");
        assert_true(t->dtype == DTYPE_BF16 && t->n_dims == 2 && t->bytes == 8 && !memcmp(t->data, b, 8));
        t = source_find(&s, "slice");
        assert_true(t->n_dims == 1 && t->shape[0] == 4 && !memcmp(t->data, w + 3, 16));
        t = source_find(&s, "parameter");
        assert_true(t->n_dims == 1 && t->shape[0] == 3 && !memcmp(t->data, half, 12));
        t = source_find(&s, "scalar");
        assert_true(t->n_dims == 0 && t->bytes == 4 && !memcmp(t->data, &seven, 4));
        t = source_find(&s, "empty");
        assert_true(t->n_dims == 2 && t->shape[0] == 0 && t->shape[1] == 7 && t->bytes == 0);
        assert_null(source_find(&s, "ids"));
        assert_string_equal(source_passed_over(&s, "ids")->type, "LongStorage");
        assert_null(source_passed_over(&s, "w"));
        source_close(&s);
    }
    struct source s;
    struct err err = {0};
    expect_error(source_open(&s, "tests/fixtures/torch/before-1.6.bin", &err), &err,
                 "before-1.6.bin: a bare pickle, the format of PyTorch before 1.6; load it in a current PyTorch and save it again");
}

/* The same tensor said in other ways. */
static void other_ways_to_say_it(void **state)
{
    (void)state;
    struct pt_tensor t = {.type = "FloatStorage", .key = "0", .storage = 12};
    pt_rows(&t, (int64_t[]){2, 6}, 2);
    for (int way = 0; way < 6; way++) {
        struct source s;
        struct buf b = {0}, good = good_pickle();
        if (way == 0) { /* a plain dict, SETITEM */
            buf_text(&b, "\x80\x02}");
            pk_text(&b, "a");
            pk_tensor(&b, &t);
            buf_text(&b, "s.");
        } else if (way == 1) { /* under "state_dict" */
            buf_text(&b, "\x80\x02}");
            pk_text(&b, "state_dict");
            buf_put(&b, good.p + 2, good.n - 3);
            buf_text(&b, "s.");
        } else if (way == 2) { /* a Parameter; hooks and all */
            buf_text(&b, "\x80\x02}");
            pk_text(&b, "a");
            buf_text(&b, "ctorch._utils\n_rebuild_parameter\n(");
            pk_tensor(&b, &t);
            buf_text(&b, "\x88"
                         "ccollections\nOrderedDict\n)RtRs.");
        } else if (way == 3) { /* protocol 4: a frame, short texts, names from the stack, a memo that counts itself */
            buf_text(&b, "\x80\x04\x95");
            buf_uint(&b, 3, 8);
            buf_text(&b, "}\x94(\x8c\x01"
                         "a\x94\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v2\x94\x93\x94(");
            pk_storage(&b, &t);
            PK(&b, "K\0K\2K\6\x86K\6K\1\x86\x89NtRu.");
        } else if (way == 4) { /* torch.Size, and strides of one that do not matter */
            buf_text(&b, "\x80\x02}(");
            pk_text(&b, "a");
            buf_text(&b, "ctorch._utils\n_rebuild_tensor_v2\n(");
            pk_storage(&b, &t);
            PK(&b, "K\0ctorch\nSize\nK\2K\6\x86\x85RK\6K\1\x86\x89NtRu.");
        } else { /* remembered under a number far ahead, and fetched */
            buf_text(&b, "\x80\x02}(");
            pk_text(&b, "a");
            PK(&b, "r\x20\0\0\0");
            pk_tensor(&b, &t);
            PK(&b, "q\5u.");
        }
        struct err err = {0};
        if (open_pickle(&s, &b, &err) != 0)
            fail_msg("way %d: %s", way, err.msg);
        if (!is_good(&s))
            fail_msg("way %d: not the tensor that was written", way);
        source_close(&s);
        buf_free(&b);
        buf_free(&good);
    }
}

/* ---- tensors that lie ---- */

/* Left out: a FloatStorage of twelve elements under the key 0. */
#define ROWS .n_dims = 2, .shape = {2, 6}, .stride = {6, 1}

static void tensors_that_lie(void **state)
{
    (void)state;
    static const struct {
        struct pt_tensor t;
        const char *part;
    } bad[] = {
        /* where it lies */
        {{ROWS, .offset = 1}, "tensor a: 12 elements from 1 on go past the 12 of its storage"},
        {{ROWS, .offset = 13}, "tensor a: 12 elements from 13 on go past the 12 of its storage"},
        {{ROWS, .offset = -1}, "tensor a: 12 elements from -1 on go past"},
        {{ROWS, .offset = INT64_MAX}, "tensor a: 12 elements from 9223372036854775807 on go past"},
        {{ROWS, .offset = INT64_MIN}, "tensor a: 12 elements from -9223372036854775808 on go past"},
        {{.n_dims = 2, .shape = {0, 6}, .stride = {6, 1}, .offset = 13}, "tensor a: 0 elements from 13 on go past"},
        {{ROWS, .storage = 11}, "tensor a: 12 elements from 0 on go past the 11 of its storage"},
        {{ROWS, .storage = 13}, "tensor a: a FloatStorage of 13 elements was expected in entry m/data/0, which has 48 bytes"},
        {{ROWS, .storage = INT64_MAX}, "tensor a: a FloatStorage of 9223372036854775807 elements was expected"},
        {{ROWS, .storage = (int64_t)1 << 62},
         "tensor a: a FloatStorage of 4611686018427387904 elements was expected"}, /* x 4 = 0 */
        {{ROWS, .storage = -1}, "tensor a: type, key and length of a storage"},
        {{ROWS, .type = "LongStorage"}, "tensor a: a LongStorage of 12 elements was expected in entry m/data/0, which has 48"},
        {{ROWS, .key = "1"}, "tensor a: entry m/data/1 is missing"},
        {{ROWS, .key = ""}, "tensor a: entry m/data/ is missing"},
        {{ROWS, .key = "../byteorder"}, "tensor a: entry m/data/../byteorder is missing"},
        {{ROWS, .key = "00000000000000000000000000000000000000000000000000000000000000000"}, "tensor a: type, key and length"},
        {{ROWS, .type = "Size"}, "tensor a: type, key and length of a storage"},
        {{ROWS, .type = "QInt8Storage"}, "torch.QInt8Storage is not something this reader calls"},
        /* its shape */
        {{.n_dims = 2, .shape = {2, 7}, .stride = {7, 1}}, "tensor a: 14 elements from 0 on go past the 12"},
        {{.n_dims = 2, .shape = {-2, -6}, .stride = {-6, 1}}, "tensor a: impossible shape"},
        {{.n_dims = 2, .shape = {(int64_t)1 << 32, (int64_t)1 << 32}, .stride = {(int64_t)1 << 32, 1}},
         "tensor a: impossible shape"},
        {{.n_dims = 1, .shape = {(int64_t)1 << 62}, .stride = {1}}, "tensor a: impossible shape"},
        {{.n_dims = 5, .shape = {1, 1, 1, 2, 6}, .stride = {12, 12, 12, 6, 1}}, "tensor a: a shape of at most 4 dimensions"},
        /* its strides */
        {{.n_dims = 2, .shape = {2, 6}, .stride = {1, 2}}, "tensor a is a transposed or strided view; call .contiguous()"},
        {{.n_dims = 2, .shape = {2, 3}, .stride = {6, 1}}, "tensor a is a transposed or strided view; call .contiguous()"},
        {{.n_dims = 2, .shape = {2, 6}, .stride = {0, 1}}, "tensor a is a transposed or strided view; call .contiguous()"},
        {{.n_dims = 1, .shape = {4}, .stride = {-1}}, "tensor a is a transposed or strided view; call .contiguous()"},
        {{.n_dims = 1, .shape = {2}, .stride = {INT64_MIN}}, "tensor a is a transposed or strided view; call .contiguous()"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct buf b = {0};
        struct pt_tensor t = bad[i].t;
        t.type = t.type ? t.type : "FloatStorage";
        t.key = t.key ? t.key : "0";
        t.storage = t.storage ? t.storage : 12;
        pk_begin(&b);
        pk_text(&b, "a");
        pk_tensor(&b, &t);
        pk_end(&b);
        refused_pickle(&b, bad[i].part);
        buf_free(&b);
    }
    struct buf b = {0};
    struct pt_tensor t = {.type = "FloatStorage", .key = "0", .storage = 12, ROWS};
    pk_begin(&b);
    for (int i = 0; i < 2; i++) {
        pk_text(&b, "a");
        pk_tensor(&b, &t);
    }
    pk_end(&b);
    refused_pickle(&b, "tensor a is there twice");
    buf_free(&b);
}

/* PyTorch leaves any stride where there is but one element to step over, and where there is none at all. */
static void strides_that_do_not_matter(void **state)
{
    (void)state;
    static const struct pt_tensor good[] = {
        {.n_dims = 2, .shape = {1, 12}, .stride = {99, 1}},
        {.n_dims = 3, .shape = {2, 1, 6}, .stride = {6, INT64_MIN, 1}},
        {.n_dims = 2, .shape = {0, 6}, .stride = {1, 3}},
        {.n_dims = 0},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct source s;
        struct buf b = {0};
        struct pt_tensor t = good[i];
        t.type = "FloatStorage";
        t.key = "0";
        t.storage = 12;
        pk_begin(&b);
        pk_text(&b, "a");
        pk_tensor(&b, &t);
        pk_end(&b);
        OK(open_pickle(&s, &b, &err));
        const struct tensor *a = source_find(&s, "a");
        assert_true(a->n_dims == t.n_dims && !memcmp(a->data, checkpoint_values, a->bytes));
        source_close(&s);
        buf_free(&b);
    }
}

/* ---- archives that hold no checkpoint ---- */

static void refused_entries(const char *const (*entries)[2], int n, const char *part)
{
    struct source s;
    struct err err = {0};
    struct zw z = {0};
    for (int i = 0; i < n; i++)
        zw_add(&z, entries[i][0], entries[i][1], strlen(entries[i][1]));
    zw_close(&z);
    expect_error(open_bytes(&s, z.b.p, z.b.n, &err), &err, part);
    expect_error(-1, &err, checkpoint_name);
    buf_free(&z.b);
}

static void other_archives(void **state)
{
    (void)state;
    refused_entries((const char *const[][2]){{"a/b.txt", "x"}}, 1, "no entry <name>/data.pkl among its 1");
    refused_entries((const char *const[][2]){{"data.pkl", "}."}}, 1, "no entry <name>/data.pkl among its 1");
    refused_entries((const char *const[][2]){{"a/b/data.pkl", "}."}}, 1, "no entry <name>/data.pkl among its 1");
    refused_entries((const char *const[][2]){{"a/data.pkl", "}."}, {"b/data.pkl", "}."}}, 2, "one data.pkl was expected");
    refused_entries((const char *const[][2]){{"a/data.pkl", "}."}, {"a/byteorder", "big"}}, 2, "\"little\" was expected");
    refused_entries((const char *const[][2]){{"a/data.pkl", "}."}, {"a/byteorder", "little?"}}, 2, "\"little\" was expected");
    refused_entries((const char *const[][2]){{"a/data.pkl", ""}}, 1, "ends too early");
    struct source s;
    struct buf pkl = good_pickle(), b = checkpoint(&pkl, (struct zip_style){0});
    b.p[30 + 10 + 6 + pkl.n - 30] ^= 1; /* inside the pickle */
    struct err err = {0};
    expect_error(open_bytes(&s, b.p, b.n, &err), &err, "m/data.pkl is damaged: its checksum differs");
    buf_free(&b);
    buf_free(&pkl);
    static const struct {
        const char *bytes;
        size_t n;
        const char *part;
    } other[] = {
        {"", 0, "not a PyTorch checkpoint, or truncated: a zip archive was expected in its 0 bytes"},
        {"PK\3", 3, "or truncated"},
        {"PK\3\4", 4, "truncated, or no zip archive"},
        {"\x80\2\x8a\x0al\xfc\x9c"
         "F\xf9 j\xa8P\x19.",
         15, "the format of PyTorch before 1.6; load it in a current PyTorch and save it again"},
        {"<html>not found</html>", 22, "not a PyTorch checkpoint"},
    };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        struct err why = {0};
        expect_error(open_bytes(&s, other[i].bytes, other[i].n, &why), &why, other[i].part);
        expect_error(-1, &why, checkpoint_name);
    }
}

/* Cut anywhere, or with any one bit turned: an error, or the right tensor. Bits of the tensor itself are its own. */
static void damaged_anywhere(void **state)
{
    (void)state;
    struct source s;
    struct buf pkl = good_pickle(), b = checkpoint(&pkl, (struct zip_style){0});
    for (size_t n = 0; n < b.n; n++) {
        struct err err = {0};
        int rc = open_bytes(&s, b.p, n, &err);
        if (rc == 0)
            fail_msg("accepted with %zu of %zu bytes", n, b.n);
        expect_error(rc, &err, checkpoint_name);
    }
    size_t first = 0;
    while (memcmp(b.p + first, checkpoint_values, sizeof checkpoint_values))
        first++;
    int accepted = 0;
    for (size_t bit = 0; bit < 8 * b.n; bit++) {
        struct err err = {0};
        b.p[bit / 8] ^= (char)(1 << bit % 8);
        int rc = open_bytes(&s, b.p, b.n, &err);
        if (rc != 0)
            expect_error(rc, &err, checkpoint_name);
        else if (!is_good(&s) && (bit / 8 < first || bit / 8 >= first + sizeof checkpoint_values))
            fail_msg("bit %zu: another tensor", bit);
        if (rc == 0)
            source_close(&s);
        accepted += rc == 0;
        b.p[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_true(accepted >= 8 * (int)sizeof checkpoint_values);
    buf_free(&b);
    buf_free(&pkl);
}

/* ---- folders and models ---- */

static void put_shard(const char *path, const char *tensor, const char *more, const char *type)
{
    struct pt p = {0};
    pt_add(&p, tensor, "FloatStorage", (int64_t[]){4}, 1, checkpoint_values, 16, 4);
    if (more)
        pt_add(&p, more, type, (int64_t[]){2}, 1, checkpoint_values, 16, 2);
    pt_write(&p, in_scratch(path));
}

static int open_index(const char *index, struct err *err)
{
    struct source s;
    write_text(in_scratch("shards/pytorch_model.bin.index.json"), index);
    int rc = source_open(&s, in_scratch("shards"), err);
    if (rc == 0) {
        assert_true(source_find(&s, "a") && source_find(&s, "b") && s.n_tensors == 2 && s.n_passed == 1);
        source_close(&s);
    }
    return rc;
}

static void shards(void **state)
{
    (void)state;
    scratch_dir("shards");
    put_shard("shards/one.bin", "a", NULL, NULL);
    put_shard("shards/two.bin", "b", "ids", "LongStorage");
    OK(open_index("{\"weight_map\":{\"a\":\"one.bin\",\"b\":\"two.bin\"}}", &err));
    OK(open_index("{\"weight_map\":{\"a\":\"one.bin\",\"b\":\"two.bin\",\"ids\":\"two.bin\"}}", &err));
    /* what no weight needs decides nothing: a tensor that no shard holds, one of an unread type in the other shard */
    OK(open_index("{\"weight_map\":{\"a\":\"one.bin\",\"b\":\"two.bin\",\"c\":\"one.bin\"}}", &err));
    OK(open_index("{\"weight_map\":{\"a\":\"one.bin\",\"b\":\"two.bin\",\"ids\":\"one.bin\"}}", &err));
    static const char *const bad[][2] = {
        {"{\"weight_map\":{\"a\":\"two.bin\",\"b\":\"one.bin\"}}", "names tensor a in two.bin, but "},
        {"{\"weight_map\":{\"a\":\"one.bin\",\"b\":\"../two.bin\"}}", "index.json: tensor b: the name of a file in the same"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        expect_error(open_index(bad[i][0], &err), &err, bad[i][1]);
    }
    struct err err[3] = {{0}};
    put_shard("shards/two.bin", "b", "a", "LongStorage"); /* a tensor here, passed over there */
    expect_error(open_index("{\"weight_map\":{\"a\":\"one.bin\",\"b\":\"two.bin\"}}", &err[0]), &err[0], "tensor a is there twice");
    put_shard("shards/two.bin", "a", NULL, NULL);
    expect_error(open_index("{\"weight_map\":{\"a\":\"one.bin\",\"b\":\"two.bin\"}}", &err[1]), &err[1], "tensor a is there twice");
    write_text(in_scratch("shards/two.bin"), "");
    expect_error(open_index("{\"weight_map\":{\"a\":\"one.bin\",\"b\":\"two.bin\"}}", &err[2]), &err[2], "two.bin: not a PyTorch");
}

static const struct tiny small = {2, 8, 2, 1, 4, 8, 260, 3};

/* A model's folder with a checkpoint instead of the safetensors, and perhaps one tensor more. */
static void put_model(const char *dir, const char *more, const char *type, bool keep)
{
    char path[64];
    struct pt p = {0};
    tiny_folder(in_scratch(dir), &small);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (!keep)
        unlink(in_scratch(path));
    tiny_each(&small, tiny_pt_add, &p);
    if (more)
        pt_add(&p, more, type, (int64_t[]){8}, 1, (double[8]){0}, 64, 8);
    snprintf(path, sizeof path, "%s/pytorch_model.bin", dir);
    pt_write(&p, in_scratch(path));
}

static void same_tensors(const struct source *a, const struct source *b)
{
    for (int64_t i = 0; i < a->n_tensors; i++) {
        const struct tensor *x = &a->tensors[i], *y = source_find(b, x->name);
        if (!y || x->bytes != y->bytes || x->dtype != y->dtype || memcmp(x->data, y->data, x->bytes))
            fail_msg("tensor %s differs", x->name);
    }
}

static void a_model_and_what_is_saved_of_it(void **state)
{
    (void)state;
    struct model safe, bin, saved;
    struct compute c;
    struct save_options o = {.dtype = DTYPE_F32};
    tiny_folder(in_scratch("safe"), &small);
    put_model("bin", NULL, NULL, false);
    OK(model_open(&safe, in_scratch("safe"), &err));
    OK(model_open(&bin, in_scratch("bin"), &err));
    assert_int_equal(safe.src.n_tensors, bin.src.n_tensors);
    assert_string_equal(safe.hash, bin.hash); /* scores of the one are good for the other */
    same_tensors(&safe.src, &bin.src);
    OK(compute_open(&c, 1, PRECISION_F32, &err));
    scratch_dir("saved");
    OK(model_save(&bin, &c, in_scratch("saved"), &o, NULL, &err));
    assert_true(path_exists(in_scratch("saved/model.safetensors")));
    OK(model_open(&saved, in_scratch("saved"), &err));
    same_tensors(&safe.src, &saved.src);
    compute_close(&c);
    model_close(&saved);
    model_close(&bin);
    model_close(&safe);
}

static void what_a_model_needs(void **state)
{
    (void)state;
    struct model m;
    put_model("rotary", "model.layers.0.self_attn.rotary_emb.inv_freq", "FloatStorage", false);
    OK(model_open(&m, in_scratch("rotary"), &err)); /* no weight, and nobody asks for it */
    model_close(&m);
    put_model("long", "model.layers.0.self_attn.rotary_emb.position_ids", "LongStorage", false);
    OK(model_open(&m, in_scratch("long"), &err));
    model_close(&m);
    struct err err[2] = {{0}};
    put_model("bias", "model.layers.0.self_attn.q_proj.bias", "DoubleStorage", false);
    expect_error(
        model_open(&m, in_scratch("bias"), &err[0]), &err[0],
        "bias/pytorch_model.bin: tensor model.layers.0.self_attn.q_proj.bias is of type DoubleStorage; f32, f16 or bf16 was");
    put_model("both", NULL, NULL, true); /* safetensors go first */
    write_text(in_scratch("both/pytorch_model.bin"), "");
    OK(model_open(&m, in_scratch("both"), &err));
    model_close(&m);
    unlink(in_scratch("both/model.safetensors"));
    expect_error(model_open(&m, in_scratch("both"), &err[1]), &err[1], "both/pytorch_model.bin: not a PyTorch checkpoint");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_in_every_style),
        cmocka_unit_test(files_of_pytorch),
        cmocka_unit_test(other_ways_to_say_it),
        cmocka_unit_test(tensors_that_lie),
        cmocka_unit_test(strides_that_do_not_matter),
        cmocka_unit_test(other_archives),
        cmocka_unit_test(damaged_anywhere),
        cmocka_unit_test(shards),
        cmocka_unit_test(a_model_and_what_is_saved_of_it),
        cmocka_unit_test(what_a_model_needs),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
