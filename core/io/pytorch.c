/* PyTorch's checkpoints: a zip of <prefix>/data.pkl, which describes the tensors, and <prefix>/data/<key>, the bytes of each
 * storage, stored as they are. Source: torch/serialization.py and torch/_utils.py of PyTorch 2. */
#include <string.h>
#include <utf8proc.h>
#include <zlib.h>

#include "core/io/pickle.h"
#include "core/io/source.h"
#include "core/io/zip.h"

/* Everything that a state dict's pickle may name. */
enum name {
    NAME_ORDERED_DICT,
    NAME_TENSOR,
    NAME_PARAMETER,
    NAME_SIZE,
    NAME_STORAGES, /* the first of the kinds of storage; their rows go on in storages[] */
};

static const struct pickle_name names[] = {
    {"collections", "OrderedDict", PICKLE_MAKES_DICT},
    {"torch._utils", "_rebuild_tensor_v2", PICKLE_CALLABLE},
    {"torch._utils", "_rebuild_parameter", PICKLE_CALLABLE},
    {"torch", "Size", PICKLE_CALLABLE},
    {"torch", "FloatStorage", PICKLE_MENTION},
    {"torch", "HalfStorage", PICKLE_MENTION},
    {"torch", "BFloat16Storage", PICKLE_MENTION},
    {"torch", "DoubleStorage", PICKLE_MENTION},
    {"torch", "LongStorage", PICKLE_MENTION},
    {"torch", "IntStorage", PICKLE_MENTION},
    {"torch", "ShortStorage", PICKLE_MENTION},
    {"torch", "CharStorage", PICKLE_MENTION},
    {"torch", "ByteStorage", PICKLE_MENTION},
    {"torch", "BoolStorage", PICKLE_MENTION},
    {"torch", "ComplexFloatStorage", PICKLE_MENTION},
    {"torch", "ComplexDoubleStorage", PICKLE_MENTION},
};
enum { N_NAMES = sizeof names / sizeof *names };

static const struct {
    int dtype; /* -1: a type that no weight of a LLaMA has; such tensors are passed over */
    int bytes; /* of one element */
} storages[N_NAMES - NAME_STORAGES] = {
    {DTYPE_F32, 4}, {DTYPE_F16, 2}, {DTYPE_BF16, 2}, {-1, 8}, {-1, 8}, {-1, 4},
    {-1, 2},        {-1, 1},        {-1, 1},         {-1, 1}, {-1, 8}, {-1, 16},
};

struct reader {
    struct source *s;
    const char *file;
    struct zip zip;
    struct pickle pickle;
    char *path; /* "<prefix>/data/" and room for a key */
    size_t prefix_len;
};

enum { MAX_KEY = 64 }; /* keys of storages are small numbers */

/* What a tensor is a part of. */
struct storage {
    const char *type;
    int kind; /* row of storages[] */
    int64_t n;
    const uint8_t *data;
};

/* ("storage", type, key, device, number of elements): the device does not matter to a reader. */
static int read_storage(struct storage *st, struct reader *r, const struct pickle_value *v, const char *tensor, struct err *err)
{
    const struct pickle *p = &r->pickle;
    const struct pickle_value *id = v->kind == PICKLE_PERSISTENT ? &p->values[v->of] : NULL, *e[5];
    if (!id || id->kind != PICKLE_TUPLE || id->n != 5)
        return err_set(err, "%s: tensor %s: a storage was expected, %s found", r->file, tensor, pickle_describe(v));
    for (uint32_t k = 0; k < 5; k++)
        e[k] = pickle_element(p, id, k);
    if (!pickle_is_text(e[0], "storage") || e[1]->kind != PICKLE_NAME || e[1]->n < NAME_STORAGES || e[2]->kind != PICKLE_TEXT ||
        e[2]->n > MAX_KEY || memchr(e[2]->text, 0, e[2]->n) || e[4]->kind != PICKLE_INT || e[4]->i < 0)
        return err_set(err, "%s: tensor %s: type, key and length of a storage were expected", r->file, tensor);
    st->type = names[e[1]->n].name;
    st->kind = (int)e[1]->n - NAME_STORAGES;
    st->n = e[4]->i;
    char *key = r->path + r->prefix_len;
    memcpy(key, e[2]->text, e[2]->n);
    key[e[2]->n] = 0;
    const struct zip_entry *entry = zip_find(&r->zip, r->path);
    if (!entry)
        return err_set(err, "%s: tensor %s: entry %s is missing", r->file, tensor, r->path);
    if ((uint64_t)st->n > entry->size / (size_t)storages[st->kind].bytes)
        return err_set(err, "%s: tensor %s: a %s of %lld elements was expected in entry %s, which has %zu bytes", r->file, tensor,
                       st->type, (long long)st->n, r->path, entry->size);
    st->data = entry->data;
    return 0;
}

/* A tuple of whole numbers, perhaps inside a torch.Size; NULL if it is none of n. */
static const struct pickle_value *numbers(const struct pickle *p, const struct pickle_value *v)
{
    if (v->kind == PICKLE_CALL && v->n == NAME_SIZE && p->values[v->of].n == 1)
        v = pickle_element(p, &p->values[v->of], 0);
    if (v->kind != PICKLE_TUPLE || v->n > TENSOR_MAX_DIMS)
        return NULL;
    for (uint32_t k = 0; k < v->n; k++)
        if (pickle_element(p, v, k)->kind != PICKLE_INT)
            return NULL;
    return v;
}

/* The number of elements of shape and strides that lie row after row, or -1. */
static int64_t read_shape(struct tensor *t, const struct reader *r, const struct pickle_value *size,
                          const struct pickle_value *stride, struct err *err)
{
    const struct pickle *p = &r->pickle;
    const struct pickle_value *shape = numbers(p, size), *strides = numbers(p, stride);
    if (!shape || !strides || shape->n != strides->n)
        return err_set(err, "%s: tensor %s: a shape of at most %d dimensions and a stride for each were expected", r->file, t->name,
                       TENSOR_MAX_DIMS);
    int64_t n = 1;
    bool rows = true;
    t->n_dims = (int)shape->n;
    for (int d = t->n_dims - 1; d >= 0; d--) {
        t->shape[d] = pickle_element(p, shape, (uint32_t)d)->i;
        if (t->shape[d] != 1 && pickle_element(p, strides, (uint32_t)d)->i != n)
            rows = false;
        if (t->shape[d] < 0 || __builtin_mul_overflow(n, t->shape[d], &n) || n > INT64_MAX / 16)
            return err_set(err, "%s: tensor %s: impossible shape", r->file, t->name);
    }
    if (!rows && n > 0)
        return err_set(err, "%s: tensor %s is a transposed or strided view; call .contiguous() on it before saving", r->file,
                       t->name);
    return n;
}

/* Fills t from what rebuilds it. *type: what it is made of, when no weight is; then t is to be passed over. */
static int read_tensor(struct tensor *t, const char **type, struct reader *r, const struct pickle_value *v, struct err *err)
{
    const struct pickle *p = &r->pickle;
    struct storage st = {0};
    if (v->kind == PICKLE_CALL && v->n == NAME_PARAMETER && p->values[v->of].n > 0)
        v = pickle_element(p, &p->values[v->of], 0);
    if (v->kind != PICKLE_CALL || v->n != NAME_TENSOR)
        return err_set(err, "%s: \"%s\" in the state dict: a tensor was expected, %s found", r->file, t->name, pickle_describe(v));
    const struct pickle_value *args = &p->values[v->of]; /* storage, offset, size, stride, requires_grad, hooks */
    if (args->n != 6)
        return err_set(err, "%s: tensor %s: 6 arguments were expected, %u found", r->file, t->name, args->n);
    const struct pickle_value *offset = pickle_element(p, args, 1);
    if (read_storage(&st, r, pickle_element(p, args, 0), t->name, err) != 0)
        return -1;
    int64_t n = read_shape(t, r, pickle_element(p, args, 2), pickle_element(p, args, 3), err);
    if (n < 0)
        return -1;
    if (offset->kind != PICKLE_INT || offset->i < 0 || offset->i > st.n || n > st.n - offset->i)
        return err_set(err, "%s: tensor %s: %lld elements from %lld on go past the %lld of its storage", r->file, t->name,
                       (long long)n, offset->kind == PICKLE_INT ? (long long)offset->i : -1, (long long)st.n);
    *type = storages[st.kind].dtype < 0 ? st.type : NULL;
    if (*type)
        return 0;
    t->dtype = (enum dtype)storages[st.kind].dtype;
    t->data = st.data + (size_t)offset->i * (size_t)storages[st.kind].bytes;
    t->bytes = dtype_bytes(t->dtype, n);
    return 0;
}

/* A key as a name: UTF-8 without control characters, since it goes into messages and results. */
static const char *read_name(struct reader *r, const struct pickle_value *key, struct err *err)
{
    utf8proc_int32_t c;
    size_t at = 0;
    while (key->kind == PICKLE_TEXT && at < key->n) {
        utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)key->text + at, (utf8proc_ssize_t)(key->n - at), &c);
        if (k < 1 || c < 0x20 || c == 0x7f)
            break;
        at += (size_t)k;
    }
    if (key->kind != PICKLE_TEXT || at < key->n) {
        err_set(err, "%s: a key of the state dict is no name of a tensor but %s", r->file,
                key->kind == PICKLE_TEXT ? "damaged text" : pickle_describe(key));
        return NULL;
    }
    char *name = arena_alloc(&r->s->arena, key->n + 1, 1, err);
    if (name)
        memcpy(name, key->text, key->n);
    return name;
}

/* The state dict: the whole, or the only entry of the whole under the name "state_dict". */
static const struct pickle_value *find_state_dict(struct reader *r, struct err *err)
{
    static const char want[] = "a state dict (or a dict that holds one as \"state_dict\" and nothing else) was expected";
    const struct pickle *p = &r->pickle;
    const struct pickle_value *root = &p->values[p->root];
    if (root->kind != PICKLE_DICT) {
        err_set(err, "%s: %s, %s found", r->file, want, pickle_describe(root));
        return NULL;
    }
    const struct pickle_value *name = NULL; /* of the first entry that is a dict */
    const struct pickle_value *inner = NULL;
    uint32_t c = root->head;
    for (uint32_t k = 0; k < root->n && !inner; k++, c = p->cells[c].next)
        if (p->values[p->cells[c].value].kind == PICKLE_DICT) {
            name = &p->values[p->cells[c].key];
            inner = &p->values[p->cells[c].value];
        }
    if (!inner)
        return root;
    if (root->n == 1 && pickle_is_text(name, "state_dict"))
        return inner;
    const char *text = read_name(r, name, err);
    if (text)
        err_set(err, "%s: %s, a dict of %u entries found, one of them the dict \"%s\"", r->file, want, root->n, text);
    return NULL;
}

static int add_tensors(struct reader *r, int64_t *cap, struct err *err)
{
    const struct pickle *p = &r->pickle;
    const struct pickle_value *dict = find_state_dict(r, err);
    if (!dict)
        return -1;
    uint32_t c = dict->head;
    for (uint32_t k = 0; k < dict->n; k++, c = p->cells[c].next) {
        const char *type = NULL;
        struct tensor t = {.file = r->file, .name = read_name(r, &p->values[p->cells[c].key], err)};
        if (!t.name || read_tensor(&t, &type, r, &p->values[p->cells[c].value], err) != 0)
            return -1;
        if ((type ? source_pass_over(r->s, &t, type, err) : source_add(r->s, &t, cap, err)) != 0)
            return -1;
    }
    return 0;
}

/* The description of the tensors: the one entry "<prefix>/data.pkl"; sets r->path. */
static const struct zip_entry *find_description(struct reader *r, struct err *err)
{
    static const char tail[] = "/data.pkl";
    const struct zip_entry *found = NULL;
    for (size_t i = 0; i < r->zip.n; i++) {
        const struct zip_entry *e = &r->zip.entries[i];
        const char *slash = strchr(e->name, '/');
        if (!slash || strcmp(slash, tail))
            continue;
        if (found) {
            err_set(err, "%s: entries %s and %s: one data.pkl was expected", r->file, found->name, e->name);
            return NULL;
        }
        found = e;
    }
    if (!found) {
        err_set(err, "%s: a zip archive, but no PyTorch checkpoint: no entry <name>/data.pkl among its %zu", r->file, r->zip.n);
        return NULL;
    }
    /* A damaged key would exchange two storages unseen. 0: torch.save was told not to compute checksums. */
    if (found->crc && crc32_z(0, found->data, found->size) != found->crc) {
        err_set(err, "%s: entry %s is damaged: its checksum differs", r->file, found->name);
        return NULL;
    }
    r->prefix_len = strlen(found->name) - strlen("data.pkl");
    r->path = arena_alloc(&r->s->arena, r->prefix_len + strlen("byteorder") + MAX_KEY + 1, 1, err);
    if (!r->path)
        return NULL;
    memcpy(r->path, found->name, r->prefix_len);
    strcpy(r->path + r->prefix_len, "byteorder");
    const struct zip_entry *order = zip_find(&r->zip, r->path);
    if (order && (order->size != 6 || memcmp(order->data, "little", 6))) {
        err_set(err, "%s: entry %s: the bytes of numbers stand the wrong way round, \"little\" was expected", r->file, order->name);
        return NULL;
    }
    strcpy(r->path + r->prefix_len, "data/");
    r->prefix_len += strlen("data/");
    return found;
}

int pytorch_add(struct source *s, const struct file_map *map, const char *file, int64_t *cap, struct err *err)
{
    struct reader r = {.s = s, .file = file};
    int rc = -1;
    if (map->size >= 2 && map->data[0] == 0x80 && map->data[1] >= 2 && map->data[1] <= 5)
        return err_set(err,
                       "%s: a bare pickle, the format of PyTorch before 1.6; load it in a current PyTorch and save it again (with "
                       "torch.save, or better as safetensors)",
                       file);
    if (map->size < 4 || memcmp(map->data, "PK\3\4", 4))
        return err_set(err, "%s: not a PyTorch checkpoint, or truncated: a zip archive was expected in its %zu bytes", file,
                       map->size);
    const struct zip_entry *e;
    char *label = NULL;
    if (zip_read(&r.zip, map, file, &s->arena, err) != 0 || !(e = find_description(&r, err)))
        goto done;
    label = arena_alloc(&s->arena, strlen(file) + strlen(e->name) + 3, 1, err);
    if (!label)
        goto done;
    sprintf(label, "%s: %s", file, e->name);
    if (pickle_read(&r.pickle, e->data, e->size, names, N_NAMES, label, err) == 0)
        rc = add_tensors(&r, cap, err);
done:
    pickle_free(&r.pickle);
    return rc;
}
