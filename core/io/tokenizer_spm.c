/* Reads a tokenizer.model: SentencePiece's ModelProto in the protobuf wire format. Messages and field numbers: the sentencepiece
 * library's sentencepiece_model.proto. */
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/tokenizer_impl.h"

/* ---- the wire format ---- */

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* The fields of a message that are still to come. */
struct message {
    const uint8_t *p, *end;
};

/* One field: a number in `value`, or the bytes of a string or message. */
struct field {
    uint64_t number;
    enum wire_type type;
    uint64_t value;
    struct message bytes;
};

static bool read_varint(uint64_t *out, struct message *m)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 70 && m->p < m->end; shift += 7) {
        uint8_t byte = *m->p++;
        v |= shift < 64 ? (uint64_t)(byte & 0x7F) << shift : 0;
        if (byte < 0x80) {
            *out = v;
            return true;
        }
    }
    return false;
}

static bool read_fixed(uint64_t *out, struct message *m, size_t bytes)
{
    if ((size_t)(m->end - m->p) < bytes)
        return false;
    *out = 0;
    for (size_t i = 0; i < bytes; i++)
        *out |= (uint64_t)m->p[i] << 8 * i;
    m->p += bytes;
    return true;
}

/* The next field of the message: 1, 0 at its end, or -1 where it is damaged. */
static int next_field(struct field *f, struct message *m)
{
    uint64_t tag;
    *f = (struct field){0};
    if (m->p == m->end)
        return 0;
    if (!read_varint(&tag, m) || tag >> 3 == 0)
        return -1;
    f->number = tag >> 3;
    f->type = (enum wire_type)(tag & 7);
    switch (f->type) {
    case WIRE_VARINT: return read_varint(&f->value, m) ? 1 : -1;
    case WIRE_FIXED64: return read_fixed(&f->value, m, 8) ? 1 : -1;
    case WIRE_FIXED32: return read_fixed(&f->value, m, 4) ? 1 : -1;
    case WIRE_BYTES:
        if (!read_varint(&f->value, m) || f->value > (size_t)(m->end - m->p))
            return -1;
        f->bytes = (struct message){m->p, m->p + f->value};
        m->p += f->value;
        return 1;
    }
    return -1; /* groups, which the format has no use for */
}

/* ---- the messages ---- */

/* What counts of a ModelProto besides its pieces, with the defaults of the format. */
struct spm {
    struct file_map map;
    int64_t n_pieces;
    uint64_t model_type;
    struct span bos, eos, pad, unk_surface;
    bool suffix, charsmap;
};

static bool is_field(const struct field *f, uint64_t number, enum wire_type type)
{
    return f->number == number && f->type == type;
}

static struct span text_of(const struct field *f)
{
    return (struct span){(const char *)f->bytes.p, (size_t)(f->bytes.end - f->bytes.p)};
}

static int read_trainer(struct spm *spm, struct tokenizer *t, struct message m)
{
    struct field f;
    int rc;
    while ((rc = next_field(&f, &m)) > 0) {
        if (is_field(&f, 3, WIRE_VARINT))
            spm->model_type = f.value;
        else if (is_field(&f, 24, WIRE_VARINT))
            spm->suffix = f.value != 0;
        else if (is_field(&f, 35, WIRE_VARINT))
            t->byte_fallback = f.value != 0;
        else if (is_field(&f, 44, WIRE_BYTES))
            spm->unk_surface = text_of(&f);
        else if (is_field(&f, 46, WIRE_BYTES))
            spm->bos = text_of(&f);
        else if (is_field(&f, 47, WIRE_BYTES))
            spm->eos = text_of(&f);
        else if (is_field(&f, 48, WIRE_BYTES))
            spm->pad = text_of(&f);
    }
    return rc;
}

/* t: NULL for the denormalizer, of which only the map of characters counts. */
static int read_normalizer(struct spm *spm, struct tokenizer *t, struct message m)
{
    struct field f;
    int rc;
    while ((rc = next_field(&f, &m)) > 0) {
        if (is_field(&f, 2, WIRE_BYTES))
            spm->charsmap |= f.bytes.end > f.bytes.p;
        else if (t && is_field(&f, 3, WIRE_VARINT))
            t->add_dummy_prefix = f.value != 0;
        else if (t && is_field(&f, 4, WIRE_VARINT))
            t->remove_extra_whitespaces = f.value != 0;
        else if (t && is_field(&f, 5, WIRE_VARINT))
            t->escape_whitespaces = f.value != 0;
    }
    return rc;
}

static int read_piece(struct tokenizer *t, int64_t id, struct message m, struct err *err)
{
    struct field f;
    struct span text = {"", 0};
    uint64_t type = TYPE_NORMAL;
    uint32_t score_bits = 0;
    int rc;
    while ((rc = next_field(&f, &m)) > 0) {
        if (is_field(&f, 1, WIRE_BYTES))
            text = text_of(&f);
        else if (is_field(&f, 2, WIRE_FIXED32))
            score_bits = (uint32_t)f.value;
        else if (is_field(&f, 3, WIRE_VARINT))
            type = f.value;
    }
    if (rc < 0)
        return err_set(err, "%s: piece %lld is damaged", t->file, (long long)id);
    if (vocab_set(t, id, text.s, text.n, true, err) != 0)
        return -1;
    t->tokens[id].type = (enum token_type)(type <= TYPE_BYTE ? type : 0);
    memcpy(&t->tokens[id].score, &score_bits, sizeof score_bits);
    return 0;
}

static int read_specs(struct spm *spm, struct tokenizer *t, struct err *err)
{
    static const char *const types[] = {"of type 0", "a unigram model", "BPE", "a word model", "a character model"};
    struct message m = {spm->map.data, spm->map.data + spm->map.size};
    struct field f;
    int rc;
    while ((rc = next_field(&f, &m)) > 0) {
        spm->n_pieces += is_field(&f, 1, WIRE_BYTES);
        if ((is_field(&f, 2, WIRE_BYTES) && read_trainer(spm, t, f.bytes) < 0) ||
            (is_field(&f, 3, WIRE_BYTES) && read_normalizer(spm, t, f.bytes) < 0) ||
            (is_field(&f, 5, WIRE_BYTES) && read_normalizer(spm, NULL, f.bytes) < 0))
            break;
    }
    if (rc != 0)
        return err_set(err, "%s: not a SentencePiece model, or damaged: byte %zu of %zu", t->file, (size_t)(m.p - spm->map.data),
                       spm->map.size);
    if (spm->n_pieces == 0)
        return err_set(err, "%s: not a SentencePiece model: it has no pieces", t->file);
    if (spm->model_type != 2)
        return err_set(err, "%s: the SentencePiece model is %s: only BPE is supported", t->file,
                       spm->model_type < 5 ? types[spm->model_type] : "of an unknown type");
    if (spm->charsmap)
        return err_set(err, "%s: a SentencePiece model that maps characters (precompiled_charsmap) is not supported", t->file);
    if (spm->suffix)
        return err_set(err, "%s: a SentencePiece model with treat_whitespace_as_suffix is not supported", t->file);
    return 0;
}

/* Puts {content: id} of the tokens that the file adds into list, with what it says of each. */
static int list_added(json_t *list, const char *content, json_int_t id, const json_t *how)
{
    json_t *item = json_pack("{sI}", "id", id);
    if (item && json_is_object(how))
        json_object_update_missing(item, (json_t *)how);
    return json_object_set_new(list, content, item);
}

/* Tokens that transformers adds to the model's: "added_tokens_decoder" of tokenizer_config.json, and added_tokens.json, which older
 * versions write. A new reference; NULL and an error. */
static json_t *read_added(const struct tokenizer *t, struct err *err)
{
    char *text[2] = {NULL};
    size_t n[2];
    const char *name;
    json_t *list = json_object(), *root[2] = {NULL}, *v;
    static const char *const files[] = {"tokenizer_config.json", "added_tokens.json"};
    bool fine = list;
    for (int i = 0; i < 2 && fine; i++) {
        fine = tokenizer_read_file(&text[i], &n[i], t, files[i], err) == 0;
        if (fine && text[i])
            fine = (root[i] = json_parse(text[i], n[i], files[i], err));
    }
    if (fine) {
        json_object_foreach(root[1], name, v)
            fine = fine && json_is_integer(v) && list_added(list, name, json_integer_value(v), NULL) == 0;
        json_object_foreach(json_object_get(root[0], "added_tokens_decoder"), name, v) {
            const char *content = json_string_value(json_object_get(v, "content"));
            char *end;
            long id = strtol(name, &end, 10);
            fine = fine && content && !*end && list_added(list, content, id, v) == 0;
        }
        if (!fine)
            err_set(err, "%s: the added tokens in the files beside it: ids and contents were expected", t->file);
    }
    for (int i = 0; i < 2; i++) {
        free(text[i]);
        json_decref(root[i]);
    }
    if (fine)
        return list;
    json_decref(list);
    return NULL;
}

/* Those of the list that the model has no piece for become tokens of their own. */
static int add_beside(struct tokenizer *t, const json_t *list, struct err *err)
{
    const char *content;
    json_t *item;
    t->beside.items = arena_alloc(&t->arena, json_object_size(list) + 1, sizeof *t->beside.items, err);
    if (!t->beside.items || added_reserve(t, json_object_size(list) + 4, err) != 0) /* and 4 for add_specials */
        return -1;
    json_object_foreach((json_t *)list, content, item) {
        size_t n = strlen(content);
        int64_t id = json_integer_value(json_object_get(item, "id"));
        int32_t known = vocab_find(t, content, n);
        struct added a = {.id = (int32_t)id, .special = json_is_true(json_object_get(item, "special"))};
        a.lstrip = json_is_true(json_object_get(item, "lstrip"));
        a.rstrip = json_is_true(json_object_get(item, "rstrip"));
        a.single_word = json_is_true(json_object_get(item, "single_word"));
        if (known >= 0 && known != id)
            return err_set(err, "%s: added token \"%s\" has the id %lld but is number %d of the vocabulary", t->file, content,
                           (long long)id, known);
        if (known >= 0 || n == 0)
            continue;
        if (vocab_set(t, id, content, n, false, err) != 0)
            return -1;
        t->tokens[id].type = TYPE_USER_DEFINED;
        if (added_add(t, &a, err) != 0)
            return -1;
        t->beside.items[t->beside.n++] = t->added[t->n_added - 1];
    }
    added_set_finish(&t->beside);
    return 0;
}

/* Ids that the pieces and the added tokens take. */
static int64_t count_ids(const struct spm *spm, const json_t *added)
{
    const char *content;
    json_t *item;
    int64_t n = spm->n_pieces;
    json_object_foreach((json_t *)added, content, item) {
        int64_t id = json_integer_value(json_object_get(item, "id"));
        n = id >= n && id < TOKENIZER_MAX_IDS ? id + 1 : n;
    }
    return n;
}

static int read_pieces(const struct spm *spm, struct tokenizer *t, const json_t *added, struct err *err)
{
    struct message m = {spm->map.data, spm->map.data + spm->map.size};
    struct field f;
    if (vocab_reserve(t, count_ids(spm, added), err) != 0)
        return -1;
    for (int64_t id = 0; next_field(&f, &m) > 0;)
        if (is_field(&f, 1, WIRE_BYTES) && read_piece(t, id++, f.bytes, err) != 0)
            return -1;
    return add_beside(t, added, err);
}

/* The special token of a role: what the files beside say, else the control piece that the model names for it. */
static void set_special(int32_t *id, const struct tokenizer *t, const struct span *piece)
{
    int32_t found = *id < 0 && piece->n > 0 ? vocab_find(t, piece->s, piece->n) : -1;
    if (found >= 0 && t->tokens[found].type == TYPE_CONTROL)
        *id = found;
}

/* The tokens that the HF tokenizer splits a text at: the unknown one, BOS, EOS and PAD. */
static int add_specials(struct tokenizer *t, struct err *err)
{
    const int32_t ids[] = {t->unk, t->bos, t->eos, t->pad};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        struct added a = {.id = ids[i], .special = true};
        if (ids[i] >= 0 && !t->tokens[ids[i]].added && added_add(t, &a, err) != 0)
            return -1;
    }
    return added_finish(t, err);
}

static int read_model(struct spm *spm, struct tokenizer *t, struct err *err)
{
    json_t *added = read_specs(spm, t, err) == 0 ? read_added(t, err) : NULL;
    int rc = added ? read_pieces(spm, t, added, err) : -1;
    json_decref(added);
    if (rc != 0 || tokenizer_read_config(t, err) != 0)
        return -1;
    set_special(&t->bos, t, &spm->bos);
    set_special(&t->eos, t, &spm->eos);
    set_special(&t->pad, t, &spm->pad);
    t->unk_surface = tokenizer_keep(t, spm->unk_surface.s, spm->unk_surface.n, err);
    if (!t->unk_surface || pieces_finish(t, err) != 0)
        return -1;
    return add_specials(t, err);
}

int tokenizer_from_spm(struct tokenizer *t, const char *path, struct err *err)
{
    struct spm spm = {
        .model_type = 1, .bos = {"<s>", 3}, .eos = {"</s>", 4}, .pad = {"<pad>", 5}, .unk_surface = {" \xE2\x81\x87 ", 5}};
    t->kind = PIECES;
    t->plain = true;
    t->add_dummy_prefix = t->remove_extra_whitespaces = t->escape_whitespaces = true;
    t->adds_bos = true; /* LLaMA's convention, where no file beside it says otherwise */
    char *inside = NULL;
    if (tokenizer_set_paths(t, path, err) != 0)
        return -1;
    int rc = t->n_files ? tokenizer_read_file(&inside, &spm.map.size, t, path_base(path), err) : file_map(&spm.map, t->file, err);
    if (inside)
        spm.map.data = (const uint8_t *)inside;
    if (rc == 0)
        rc = read_model(&spm, t, err);
    if (!t->n_files)
        file_unmap(&spm.map);
    free(inside);
    return rc;
}
