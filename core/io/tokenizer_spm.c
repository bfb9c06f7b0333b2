/* Reads a tokenizer.model: SentencePiece's ModelProto in the protobuf wire format. Messages and field numbers: the sentencepiece
 * library's sentencepiece_model.proto. */
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
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

static int read_pieces(const struct spm *spm, struct tokenizer *t, struct err *err)
{
    struct message m = {spm->map.data, spm->map.data + spm->map.size};
    struct field f;
    if (vocab_reserve(t, spm->n_pieces, err) != 0)
        return -1;
    for (int64_t id = 0; next_field(&f, &m) > 0;)
        if (is_field(&f, 1, WIRE_BYTES) && read_piece(t, id++, f.bytes, err) != 0)
            return -1;
    return 0;
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
    if (added_reserve(t, sizeof ids / sizeof *ids, err) != 0)
        return -1;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        struct added a = {.id = ids[i], .special = true};
        if (ids[i] >= 0 && !t->tokens[ids[i]].added && added_add(t, &a, err) != 0)
            return -1;
    }
    return added_finish(t, err);
}

static int read_model(struct spm *spm, struct tokenizer *t, struct err *err)
{
    if (read_specs(spm, t, err) != 0 || read_pieces(spm, t, err) != 0 || tokenizer_read_config(t, err) != 0)
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
