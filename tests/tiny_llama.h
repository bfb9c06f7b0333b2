/* Small tokenizers of the LLaMA kind, for tests: a SentencePiece model, a tokenizer.json and a GGUF, put together here and not by
 * the program's own writers. */
#ifndef ESPALIER_TESTS_TINY_LLAMA_H
#define ESPALIER_TESTS_TINY_LLAMA_H

#include "tests/tiny_model.h"

/* ---- a SentencePiece model ---- */

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

struct piece {
    const char *text;
    float score;
    int type;
};

#define BLANK "\xE2\x96\x81"

/* Piece 0 is <unk>, 1 <s>, 2 </s>, 3 to 258 are the bytes, these follow. */
static const struct piece pieces[] = {
    {BLANK, -20, NORMAL},            /* 259 */
    {"a", -21, NORMAL},              /* 260 */
    {"b", -22, NORMAL},              /* 261 */
    {"c", -23, NORMAL},              /* 262 */
    {"\xC3\xA9", -24, NORMAL},       /* 263 */
    {"ab", -1, NORMAL},              /* 264: as good as bc, so the leftmost of the two is merged first */
    {"bc", -1, NORMAL},              /* 265 */
    {"abc", -2, NORMAL},             /* 266 */
    {BLANK "a", -3, NORMAL},         /* 267 */
    {BLANK "ab", -4, NORMAL},        /* 268 */
    {BLANK BLANK, -5, NORMAL},       /* 269 */
    {BLANK BLANK BLANK, -5, NORMAL}, /* 270 */
    {"ca", -0.5f, UNUSED},           /* 271: merged, then taken apart */
    {"cac", -0.6f, NORMAL},          /* 272: made of it */
    {"<u>", 0, USER_DEFINED},        /* 273 */
    {"<ub", 0, USER_DEFINED},        /* 274 */
    {"d", -25, UNUSED},              /* 275: a character without a merge is unknown */
    {"<u>c", -0.2f, NORMAL},         /* 276: never made, as 273 is not merged */
};
enum { N_PIECES = sizeof pieces / sizeof *pieces };

struct spm {
    int type; /* 0: BPE */
    bool no_bytes, no_prefix, remove_blanks;
    bool all_used; /* unused pieces are normal ones */
    const char *charsmap;
    struct piece more; /* a piece at the end */
};

static inline void put_varint(struct buf *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buf_uint(b, (v & 0x7F) | 0x80, 1);
    buf_uint(b, v, 1);
}

static inline void put_number(struct buf *b, uint64_t field, uint64_t v)
{
    put_varint(b, field << 3);
    put_varint(b, v);
}

static inline void put_string(struct buf *b, uint64_t field, const char *s, size_t n)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    buf_put(b, s, n);
}

static inline void put_message(struct buf *b, uint64_t field, struct buf *m)
{
    put_string(b, field, m->p ? m->p : "", m->n);
    buf_free(m);
}

static inline void put_piece(struct buf *b, const struct piece *p)
{
    struct buf m = {0};
    put_string(&m, 1, p->text, strlen(p->text));
    put_varint(&m, 2 << 3 | 5);
    buf_put(&m, &p->score, 4);
    if (p->type != NORMAL)
        put_number(&m, 3, (uint64_t)p->type);
    put_message(b, 1, &m);
}

static inline void put_specs(struct buf *b, const struct spm *k)
{
    struct buf trainer = {0}, normalizer = {0};
    put_number(&trainer, 3, k->type ? (uint64_t)k->type : 2);
    put_number(&trainer, 35, !k->no_bytes);
    put_string(&normalizer, 1, "identity", 8);
    if (k->charsmap)
        put_string(&normalizer, 2, k->charsmap, strlen(k->charsmap));
    put_number(&normalizer, 3, !k->no_prefix);
    put_number(&normalizer, 4, k->remove_blanks);
    put_message(b, 2, &trainer);
    put_message(b, 3, &normalizer);
}

/* The specs come first here, which the format allows, so that a file cut short has them. */
static inline void put_spm(struct buf *b, const struct spm *k)
{
    char text[8];
    put_specs(b, k);
    put_piece(b, &(struct piece){"<unk>", 0, UNKNOWN});
    put_piece(b, &(struct piece){"<s>", 0, CONTROL});
    put_piece(b, &(struct piece){"</s>", 0, CONTROL});
    for (unsigned i = 0; i < 256; i++) {
        snprintf(text, sizeof text, k->no_bytes ? "byte%u" : "<0x%02X>", i);
        put_piece(b, &(struct piece){text, 0, k->no_bytes ? NORMAL : BYTE});
    }
    for (int i = 0; i < N_PIECES; i++) {
        struct piece p = pieces[i];
        p.type = p.type == UNUSED && k->all_used ? NORMAL : p.type;
        put_piece(b, &p);
    }
    if (k->more.text)
        put_piece(b, &k->more);
}

static inline void write_spm(const char *path, const struct spm *k)
{
    struct buf b = {0};
    put_spm(&b, k);
    write_bytes(path, b.p, b.n);
    buf_free(&b);
}

/* ---- a tokenizer.json ---- */

#define PREPEND                                                                                                                    \
    "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" BLANK "\"},"                                    \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" BLANK "\"}]}"
#define METASPACE(scheme, split)                                                                                                   \
    "{\"type\":\"Metaspace\",\"replacement\":\"" BLANK "\",\"prepend_scheme\":\"" scheme "\",\"split\":" split "}"
#define DECODER                                                                                                                    \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"" BLANK "\"},\"content\":\" \"},"        \
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"
/* Bytes for the euro sign only. */
#define VOCAB                                                                                                                      \
    "{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"<0xE2>\":3,\"<0x82>\":4,\"<0xAC>\":5,\"" BLANK "\":6,\"a\":7,\"b\":8,\"c\":9,"            \
    "\"ab\":10,\"bc\":11,\"" BLANK "ab\":12,\"" BLANK BLANK "\":13}"
#define MERGES "[[\"b\",\"c\"],[\"a\",\"b\"],[\"" BLANK "\",\"ab\"],[\"" BLANK "\",\"" BLANK "\"]]"
#define ADD(id, content, normalized)                                                                                               \
    "{\"id\":" id ",\"content\":\"" content "\",\"special\":true,\"normalized\":" normalized                                       \
    ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false}"
#define ADDED(normalized) "[" ADD("0", "<unk>", normalized) "," ADD("1", "<s>", normalized) "," ADD("2", "</s>", "false") "]"

struct llama_json {
    const char *normalizer, *pre, *decoder, *added, *merges, *more;
};

static inline void write_llama_json(const char *path, const struct llama_json *j)
{
    struct buf b = {0};
    buf_text(&b,
             "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,"
             "\"post_processor\":null,\"decoder\":%s,\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"<unk>\","
             "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"byte_fallback\":true,%s\"vocab\":%s,\"merges\":%s}}",
             j->added ? j->added : ADDED("true"), j->normalizer ? j->normalizer : "null", j->pre ? j->pre : "null",
             j->decoder ? j->decoder : DECODER, j->more ? j->more : "\"fuse_unk\":true,\"ignore_merges\":false,", VOCAB,
             j->merges ? j->merges : MERGES);
    write_bytes(path, b.p, b.n);
    buf_free(&b);
}

/* ---- a GGUF of the same pieces ---- */

/* unused: piece 271 is, as in the model; else it is a normal one, since a tokenizer.json cannot be written for the other. */
static inline void write_llama_gguf(const char *path, bool unused)
{
    struct buf b = {0};
    char text[8];
    buf_put(&b, "GGUF", 4);
    buf_uint(&b, 3, 4);
    buf_uint(&b, 0, 8);
    buf_uint(&b, 7, 8);
    gg_text(&b, "tokenizer.ggml.model", "llama");
    gg_array(&b, "tokenizer.ggml.tokens", TYPE_STRING, 259 + N_PIECES);
    gg_string(&b, "<unk>");
    gg_string(&b, "<s>");
    gg_string(&b, "</s>");
    for (unsigned i = 0; i < 256; i++) {
        snprintf(text, sizeof text, "<0x%02X>", i);
        gg_string(&b, text);
    }
    for (int i = 0; i < N_PIECES; i++)
        gg_string(&b, pieces[i].text);
    gg_array(&b, "tokenizer.ggml.scores", TYPE_F32, 259 + N_PIECES);
    for (int i = 0; i < 259 + N_PIECES; i++)
        buf_put(&b, i < 259 ? &(float){0} : &pieces[i - 259].score, 4);
    gg_array(&b, "tokenizer.ggml.token_type", TYPE_I32, 259 + N_PIECES);
    for (int i = 0; i < 259 + N_PIECES; i++) {
        int type = i == 0 ? UNKNOWN : i < 3 ? CONTROL : i < 259 ? BYTE : pieces[i - 259].type;
        buf_uint(&b, (uint64_t)(i == 271 && !unused ? NORMAL : type), 4);
    }
    gg_u32(&b, "tokenizer.ggml.bos_token_id", 1);
    gg_u32(&b, "tokenizer.ggml.eos_token_id", 2);
    gg_u32(&b, "tokenizer.ggml.unknown_token_id", 0);
    write_bytes(path, b.p, b.n);
    buf_free(&b);
}

#endif
