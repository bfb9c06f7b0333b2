/* What the files of the tokenizer share. Nothing outside core/io/tokenizer*.c and chat.c includes this. */
#ifndef ESPALIER_IO_TOKENIZER_IMPL_H
#define ESPALIER_IO_TOKENIZER_IMPL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/mem.h"
#include "core/io/source.h"
#include "core/io/tokenizer.h"

enum {
    TOKENIZER_MAX_IDS = 1 << 21, /* far above every published vocabulary; bounds what a hostile id can make us allocate */
    TOKENIZER_MAX_STEPS = 16,    /* pre-tokenizer steps; also the depth of recursion in encoding */
    TOKENIZER_MAX_FORMS = 8,
};

/* How a word becomes ids. */
enum tokenizer_kind {
    BYTE_LEVEL, /* BPE by a list of merges, over bytes that are spelled in an alphabet of 256 characters */
    CHARACTERS, /* BPE by a list of merges, over characters; an unknown one becomes a token per byte (byte_fallback) */
    PIECES,     /* SentencePiece: BPE by the scores of its pieces, over characters */
};

/* Numbered as in SentencePiece's ModelProto and in GGUF's token_type. */
enum token_type { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

/* A run of bytes that someone else owns. */
struct span {
    const char *s;
    size_t n;
};

struct token {
    struct span text;  /* as the vocabulary spells it, in the byte-level alphabet; text.s is NULL for an id without a token */
    struct span bytes; /* what it decodes to, but for a byte token */
    bool spells_bytes; /* every character of text stands for one byte */
    bool in_model;     /* part of the BPE vocabulary, not only an added token */
    bool added;
    int16_t byte; /* that a byte token ("<0x41>") stands for; -1: none */
    /* of PIECES */
    enum token_type type;
    float score;
    uint32_t rank; /* by falling score; equal scores share a rank */
};

/* Open addressing; a slot holds id + 1, 0 is free. */
struct id_table {
    int32_t *slots;
    size_t mask;
};

struct merge {
    int32_t left, right;
    int32_t result; /* -1: a free slot */
    uint32_t rank;
};

/* A token looked for in the text before it is split. */
struct added {
    int32_t id;
    struct span match; /* the bytes to look for: the content, normalised when `normalized` is set */
    bool special, lstrip, rstrip, single_word, normalized;
};

/* Added tokens sorted by `match`, so that narrowing a range byte by byte finds the longest one. */
struct added_set {
    struct added *items;
    uint32_t n;
    uint32_t first[257]; /* items whose first byte is c are first[c] .. first[c + 1] - 1 */
};

enum split_rule { SPLIT_ISOLATED, SPLIT_REMOVED, SPLIT_WITH_PREVIOUS, SPLIT_WITH_NEXT, SPLIT_CONTIGUOUS };

enum step_kind {
    STEP_SPLIT,     /* at the matches of a pattern */
    STEP_PREFIX,    /* puts a space before a piece that does not start with one */
    STEP_METASPACE, /* writes blanks as `blank`, may put one in front, and may split before each */
};
enum prepend { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

/* One pre-tokenizer step, applied to each piece that the step before it made. */
struct step {
    enum step_kind kind;
    pcre2_code *re;
    enum split_rule rule;
    bool invert;
    struct span blank;
    enum prepend prepend; /* FIRST: only where the text begins */
    bool splits;
};

/* One normalizer. */
struct form {
    enum { FORM_UNICODE, FORM_PREPEND, FORM_REPLACE } kind;
    int options; /* utf8proc's */
    struct span from, to;
};

/* What makes text of the tokens' spellings, in this order. */
struct decoder {
    struct span from, to; /* replaced in every token; from.n is 0: nothing is */
    bool bytes;           /* byte tokens become their bytes */
    bool whole_runs;      /* a run of byte tokens is text as a whole or not at all; else it is looked at by the character */
    char strip;           /* cut from the text's ends, at most so many times */
    int64_t strip_start, strip_stop;
};

struct tokenizer {
    bool absent; /* opening failed because there is none, not because it cannot be read */
    struct tokenizer_ends ends;
    int64_t limit; /* ids from here on have no row in the model's embedding; 0: not known */
    enum tokenizer_kind kind;
    struct arena arena;
    char *pool; /* what is left of the arena's last block for strings */
    size_t pool_left;

    struct token *tokens; /* [n_tokens], by id */
    int32_t n_tokens;
    struct id_table spelled; /* text -> id */
    struct id_table words;   /* bytes -> id, for the tokens that a whole word of those bytes becomes */
    int32_t byte_ids[256];   /* the token of one byte, or -1; but for BYTE_LEVEL a byte token */

    struct merge *merges; /* hash table over (left, right) */
    size_t merge_mask;
    struct merge *merge_list; /* [n_merges], by rank, for saving */
    uint32_t n_merges;
    bool ignore_merges, fuse_unk;
    int32_t model_unk; /* what an unknown byte becomes, -1: nothing */

    struct added *added; /* [n_added], in file order */
    uint32_t n_added;
    struct added_set raw, normalized;
    struct added_set beside; /* of a SentencePiece model: tokens that the files beside it add, looked for in any text */

    struct form forms[TOKENIZER_MAX_FORMS]; /* the normalizers, in order */
    int n_forms;
    struct step steps[TOKENIZER_MAX_STEPS];
    int n_steps;
    pcre2_match_context *limits;

    struct decoder decoder;

    /* of PIECES; what the names say is SentencePiece's */
    bool byte_fallback, add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    bool plain;              /* special tokens in a text are spelled like any text */
    bool has_unused, apart;  /* apart: no piece reaches over the start of a run of blanks, so the runs part a text */
    size_t longest;          /* bytes of the longest piece */
    struct added_set frozen; /* user-defined pieces: found in the text first, and never merged on */
    const char *unk_surface; /* what the unknown token decodes to */

    int32_t bos, eos, pad, unk;
    bool adds_bos;
    char *chat_template;    /* NULL: none */
    int64_t context_length; /* 0: not said */

    const char *file;         /* the file it came from, for messages */
    const char *dir;          /* the folder its Hugging Face files lie in; NULL when it came from one file */
    struct inner_file *files; /* [n_files]: the Hugging Face files, when they came from inside of an HDF5 file */
    int64_t n_files;
    json_t *pre_tokenizer; /* in tokenizer.json's form; set when it came from a GGUF */
};

/* ---- tokenizer_vocab.c: building ---- */

/* A copy of text[n] with a NUL after it, owned by the tokenizer. */
char *tokenizer_keep(struct tokenizer *t, const char *text, size_t n, struct err *err);

int vocab_reserve(struct tokenizer *t, int64_t n_ids, struct err *err);
/* Gives `id` its spelling. in_model false: an added token that the model's vocabulary lacks. */
int vocab_set(struct tokenizer *t, int64_t id, const char *text, size_t n, bool in_model, struct err *err);
/* The id of a spelling, or -1. */
int32_t vocab_find(const struct tokenizer *t, const char *text, size_t n);

int merges_reserve(struct tokenizer *t, size_t n, struct err *err);
/* The next merge in rank order. */
int merges_add(struct tokenizer *t, struct span left, struct span right, struct err *err);
const struct merge *merges_find(const struct tokenizer *t, int32_t left, int32_t right);

int added_reserve(struct tokenizer *t, size_t n, struct err *err);
int added_add(struct tokenizer *t, const struct added *a, struct err *err);
/* Sorts the items of a set by what they match, and indexes them. */
void added_set_finish(struct added_set *set);
/* The longest token of the set that s[n] starts with, or NULL; special ones count only where `special` is set. */
const struct added *added_match(const struct added_set *set, const char *s, size_t n, bool special);

/* Builds the sets to look for, once added tokens and normalizers are in place. */
int added_finish(struct tokenizer *t, struct err *err);
/* The same, and what encoding by merges looks up, once vocabulary and merges are there as well. */
int vocab_finish(struct tokenizer *t, struct err *err);
int32_t words_find(const struct tokenizer *t, const char *s, size_t n);

/* The byte that a byte token's spelling ("<0x41>") names, or -1. */
int byte_of_spelling(const char *text, size_t n);

/* The character of the byte-level alphabet (GPT-2's) that stands for a byte, and back (-1: not in the alphabet). */
int32_t alphabet_char(uint8_t byte);
int alphabet_byte(int32_t codepoint);

/* ---- tokenizer_split.c: from text to words ---- */

/* One call of tokenizer_encode. */
struct encoder {
    const struct tokenizer *t;
    struct ids *out;
    struct err *err;
    pcre2_match_data *match;
    void *work; /* for words that do not fit on the stack */
    size_t work_bytes;
    bool plain;         /* added tokens are not looked for */
    bool literal;       /* special ones among them are not */
    bool at_start;      /* nothing of the text has been encoded yet */
    bool after_unknown; /* of PIECES: the token before is the unknown one */
    uint32_t *left_of;  /* [n_tokens], of PIECES with unused ones: bytes of the left part that an unused piece was made of last */
};

/* Finds added tokens, normalises, splits, and hands each word to encode_word, or each text to pieces_encode. */
int split_text(struct encoder *e, const char *s, size_t n);

int split_add_step(struct tokenizer *t, const struct step *step, struct err *err);
/* Adds a step that splits at a pattern in the syntax of tokenizer.json, which is Oniguruma's. */
int split_add_pattern(struct tokenizer *t, const char *pattern, size_t n, enum split_rule rule, bool invert, struct err *err);
void split_free(struct tokenizer *t);

/* ---- tokenizer_forms.c ---- */

/* text[n] with each `from`, which is not empty, replaced by `to`: malloc'ed, with room for `more` bytes in front, which *n_out
 * counts too. NULL and an error when there is no memory. */
char *text_replace(size_t *n_out, const char *text, size_t n, const struct span *from, const struct span *to, size_t more,
                   struct err *err);

/* s[n], valid UTF-8, in the tokenizer's normal form: *out is malloc'ed, or NULL when s is so already. */
int split_normalize(char **out, size_t *n_out, const struct tokenizer *t, const char *s, size_t n, struct err *err);

/* ---- tokenizer_merge.c: from words to ids ---- */

/* The symbols of a long word, or of a text of PIECES, as a list. */
struct link {
    int32_t id;          /* MERGED_AWAY: part of the symbol before it */
    uint32_t at, n;      /* of PIECES: where its text lies */
    uint32_t prev, next; /* NO_LINK at the ends */
    bool frozen;         /* never merged */
};
enum { UNKNOWN_SYMBOL = -1, MERGED_AWAY = -2 };
#define NO_LINK UINT32_MAX

/* Room for n symbols, and for merging them, in the encoder's scratch memory; NULL and an error. */
struct link *links_reserve(struct encoder *e, size_t n);
/* Merges the n > 0 symbols that lie there, linked in order: always the pair of lowest rank, the leftmost of equals. s: the text
 * that they lie in, for PIECES. Those that are left hang together from the first on. */
void links_merge(struct encoder *e, const char *s, size_t n);

int encode_word(struct encoder *e, const char *s, size_t n);
/* The ids of one word by merging alone: at most n of them go to ids. The number of ids, or -1 and an error. */
int64_t encode_merge(struct encoder *e, int32_t *ids, const char *s, size_t n);

/* ---- tokenizer_pieces.c: SentencePiece ---- */

int pieces_encode(struct encoder *e, const char *s, size_t n);
/* The piece of that spelling which merging may make, or -1. */
int32_t pieces_find(const struct tokenizer *t, const char *s, size_t n);
/* Checks the pieces, and builds what encoding looks up. */
int pieces_finish(struct tokenizer *t, struct err *err);

/* ---- tokenizer_pairs.c ---- */

/* The pieces' scores as tokenizer.json's list of merges, an array of pairs. Refused where no such list does the same. */
int pieces_merges(json_t **out, const struct tokenizer *t, struct err *err);

/* ---- tokenizer_decode.c ---- */

/* Sets what each token decodes to, once all are in place; not for BYTE_LEVEL. */
int decode_prepare(struct tokenizer *t, struct err *err);

/* ---- readers ---- */

extern const char tokenizer_gpt2_pattern[];

/* What the names of "tokenizer.ggml.pre" stand for: patterns, applied in turn, and more. The first name is the one to write. */
struct pre_kind {
    const char *names[8];
    const char *patterns[5];
    bool ignore_merges, adds_bos, nfc;
};
extern const struct pre_kind tokenizer_pre_kinds[]; /* closed by one without a name */

int tokenizer_from_json(struct tokenizer *t, const char *path, struct err *err);
int tokenizer_from_gguf(struct tokenizer *t, const char *path, struct err *err);
int tokenizer_from_spm(struct tokenizer *t, const char *path, struct err *err);

/* Whether a Hugging Face tokenizer may have a file of that name. */
bool tokenizer_has_file(const char *name);

/* The Hugging Face file of that name, from the folder or the HDF5 file; *data is malloc'ed, or NULL where there is none. */
int tokenizer_read_file(char **data, size_t *n, const struct tokenizer *t, const char *name, struct err *err);

/* Parts of tokenizer.json, for t->kind. Pre-tokenizer and normalizer become steps and forms. */
const char *type_member(const json_t *obj); /* the string "type", for what has one */
int pre_tokenizer_from_json(struct tokenizer *t, const json_t *pre, struct err *err);
int normalizer_from_json(struct tokenizer *t, const json_t *normalizer, struct err *err);
int decoder_from_json(struct tokenizer *t, const json_t *decoder, struct err *err);

/* Sets t->file and t->dir for a tokenizer's file in a Hugging Face folder. */
int tokenizer_set_paths(struct tokenizer *t, const char *path, struct err *err);
/* Special tokens, add_bos_token and chat template from the files beside it that are there. */
int tokenizer_read_config(struct tokenizer *t, struct err *err);

/* EOS and the ends that config.json and generation_config.json name. */
int tokenizer_read_ends(struct tokenizer *t, struct err *err);

/* Notes one more token that ends an answer. It need not be one that the tokenizer knows: a model may have more. */
int tokenizer_add_end(struct tokenizer *t, int64_t id, struct err *err);

#endif
