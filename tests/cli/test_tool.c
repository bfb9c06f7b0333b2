/* What the scripts beside this file need and a shell has not: tiny models to run on, and eyes for JSON and tensors. Run without
 * words, it tests itself.
 *   test_tool hf DIR | gguf FILE          a tiny model
 *   test_tool set DIR TENSOR AT VALUE     element AT of a float32 tensor in DIR/model.safetensors (AT "all": each one)
 *   test_tool object KEY ...              standard input must be one JSON object in one line, with these keys
 *   test_tool members FILE                the places of all members of a JSON file and their types, one a line
 *   test_tool get FILE KEY ...            prints a member of a member ... of a JSON file
 *   test_tool without FILE KEY ...        prints a JSON file without these members
 *   test_tool reals|ints FILE NAME        prints a dataset of an HDF5 file, flat, or with NAME "/..." one number of its root, as
 *                                         `get` would
 *   test_tool attribute FILE OBJECT NAME  prints an attribute of the root ("/"), a group or a dataset of an HDF5 file */
#include "tests/tiny_model.h"

#include <jansson.h>

#include "core/io/h5.h"

static int set_values(const char *dir, const char *name, const char *at, float value)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    struct buf b = read_bytes(path);
    uint64_t n;
    memcpy(&n, b.p, 8);
    json_t *root = json_loadb(b.p + 8, n, 0, NULL), *range = json_object_get(json_object_get(root, name), "data_offsets");
    size_t begin = (size_t)json_integer_value(json_array_get(range, 0)), end = (size_t)json_integer_value(json_array_get(range, 1));
    bool all = !strcmp(at, "all");
    size_t first = all ? 0 : strtoul(at, NULL, 10), last = all ? (end - begin) / 4 : first + 1;
    bool inside = range && begin + 4 * last <= end;
    for (size_t i = first; inside && i < last; i++)
        memcpy(b.p + 8 + n + begin + 4 * i, &value, 4);
    write_bytes(path, b.p, b.n);
    json_decref(root);
    buf_free(&b);
    return inside ? 0 : 1;
}

static int one_object(FILE *in, char **keys, int n)
{
    char *line = NULL;
    size_t cap = 0;
    int rc = 1;
    json_error_t why;
    ssize_t len = getline(&line, &cap, in);
    json_t *v = len > 0 && line[len - 1] == '\n' && fgetc(in) == EOF ? json_loadb(line, (size_t)len, 0, &why) : NULL;
    if (!json_is_object(v)) {
        fprintf(stderr, "one JSON object in one line was expected\n");
        goto done;
    }
    rc = 0;
    for (int i = 0; i < n; i++)
        if (!json_object_get(v, keys[i])) {
            fprintf(stderr, "the key %s is missing\n", keys[i]);
            rc = 1;
        }
done:
    json_decref(v);
    free(line);
    return rc;
}

static void print_members(const json_t *v, const char *at)
{
    static const char *const types[] = {"object", "array", "string", "integer", "real", "bool", "bool", "null"};
    char inner[512];
    const char *key;
    json_t *one;
    size_t i;
    printf("%s %s\n", at, types[json_typeof(v)]);
    json_object_foreach((json_t *)v, key, one) {
        snprintf(inner, sizeof inner, "%s/%s", at, key);
        print_members(one, inner);
    }
    json_array_foreach(v, i, one) {
        snprintf(inner, sizeof inner, "%s/%zu", at, i);
        print_members(one, inner);
    }
}

static int members(const char *path)
{
    json_t *root = json_load_file(path, 0, NULL);
    if (root)
        print_members(root, "");
    json_decref(root);
    return root ? 0 : 1;
}

static int get(const char *path, char **keys, int n)
{
    json_t *root = json_load_file(path, 0, NULL);
    const json_t *v = root;
    for (int i = 0; i < n; i++)
        v = json_is_array(v) ? json_array_get(v, strtoul(keys[i], NULL, 10)) : json_object_get(v, keys[i]);
    int rc = v ? 0 : 1;
    if (json_is_string(v))
        puts(json_string_value(v));
    else if (v)
        json_dumpf(v, stdout, JSON_ENCODE_ANY | JSON_COMPACT), putchar('\n');
    json_decref(root);
    return rc;
}

static int without(const char *path, char **keys, int n)
{
    json_t *root = json_load_file(path, 0, NULL);
    for (int i = 0; i < n; i++)
        json_object_del(root, keys[i]);
    int rc = root ? json_dumpf(root, stdout, JSON_INDENT(1)) : 1;
    json_decref(root);
    return rc;
}

static int h5_numbers(const char *path, const char *name, bool whole)
{
    struct err none = {0};
    double *reals = NULL;
    int64_t *ints = NULL, dims[H5_MAX_DIMS], n = 1;
    int n_dims;
    json_t *list = json_array();
    if (*name == '/') {
        double v;
        if (h5_read_attr_f64(&v, path, "/", name + 1, &none) == 0)
            json_array_append_new(list, json_real(v));
    } else if (whole ? h5_read_i64(&ints, dims, &n_dims, path, name, &none) == 0
                     : h5_read_f64(&reals, dims, &n_dims, path, name, &none) == 0) {
        for (int i = 0; i < n_dims; i++)
            n *= dims[i];
        for (int64_t i = 0; i < n; i++)
            json_array_append_new(list, whole ? json_integer(ints[i]) : json_real(reals[i]));
    }
    int rc = json_array_size(list) > 0 ? json_dumpf(list, stdout, JSON_COMPACT) : 1;
    putchar('\n');
    json_decref(list);
    free(reals);
    free(ints);
    return rc;
}

/* Prints an attribute of a file's root ("/"), group or dataset: a text or a number. */
static int h5_attribute(const char *path, const char *object, const char *name)
{
    struct err none = {0};
    char *text = NULL;
    double v;
    if (h5_read_attr_string(&text, path, object, name, &none) == 0)
        puts(text);
    else if (h5_read_attr_f64(&v, path, object, name, &none) == 0)
        printf("%.17g\n", v);
    else
        return 1;
    free(text);
    return 0;
}

/* ---- itself ---- */

static int object_of(const char *text, const char *key)
{
    FILE *in = fmemopen((void *)text, strlen(text), "r"), *saved = stderr;
    char *keys[] = {(char *)key};
    stderr = fopen("/dev/null", "w");
    int rc = one_object(in, keys, 1);
    fclose(stderr);
    stderr = saved;
    fclose(in);
    return rc;
}

static void objects(void **state)
{
    (void)state;
    assert_int_equal(object_of("{\"a\":1}\n", "a"), 0);
    assert_int_equal(object_of("{\"a\":1}\n", "b"), 1);
    assert_int_equal(object_of("{\"a\":1}\n{\"a\":1}\n", "a"), 1);
    assert_int_equal(object_of("{\"a\":1}", "a"), 1);
    assert_int_equal(object_of("[1]\n", "a"), 1);
    assert_int_equal(object_of("{\n\"a\":1}\n", "a"), 1);
    assert_int_equal(object_of("x\n", "a"), 1);
}

static void values(void **state)
{
    (void)state;
    tiny_folder(in_scratch("hf"), &tiny_default);
    struct buf a = read_bytes(in_scratch("hf/model.safetensors"));
    assert_int_equal(set_values(in_scratch("hf"), "model.norm.weight", "3", 7), 0);
    struct buf b = read_bytes(in_scratch("hf/model.safetensors"));
    size_t different = 0, at = 0;
    for (size_t i = 0; i < a.n; i++)
        if (a.p[i] != b.p[i] && different++ == 0)
            at = i / 4 * 4;
    float v;
    memcpy(&v, b.p + at, 4);
    assert_true(different > 0 && different <= 4 && v == 7);
    assert_int_equal(set_values(in_scratch("hf"), "no such", "0", 7), 1);
    assert_int_equal(set_values(in_scratch("hf"), "model.norm.weight", "16", 7), 1);
    buf_free(&a);
    buf_free(&b);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "hf"))
        return tiny_folder(argv[2], &tiny_default), 0;
    if (argc == 3 && !strcmp(argv[1], "gguf"))
        return tiny_gguf(argv[2], &tiny_default), 0;
    if (argc == 6 && !strcmp(argv[1], "set"))
        return set_values(argv[2], argv[3], argv[4], strtof(argv[5], NULL));
    if (argc >= 2 && !strcmp(argv[1], "object"))
        return one_object(stdin, argv + 2, argc - 2);
    if (argc == 3 && !strcmp(argv[1], "members"))
        return members(argv[2]);
    if (argc >= 3 && !strcmp(argv[1], "get"))
        return get(argv[2], argv + 3, argc - 3);
    if (argc >= 3 && !strcmp(argv[1], "without"))
        return without(argv[2], argv + 3, argc - 3);
    if (argc == 4 && (!strcmp(argv[1], "reals") || !strcmp(argv[1], "ints")))
        return h5_numbers(argv[2], argv[3], *argv[1] == 'i');
    if (argc == 5 && !strcmp(argv[1], "attribute"))
        return h5_attribute(argv[2], argv[3], argv[4]);
    if (argc > 1)
        return 2;
    const struct CMUnitTest tests[] = {cmocka_unit_test(objects), cmocka_unit_test(values)};
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
