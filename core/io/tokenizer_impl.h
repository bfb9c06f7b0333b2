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
#include "core/io/tokenizer.h"

enum {
    TOKENIZER_MAX_IDS = 1 << 21, /* far above every published vocabulary; bounds what a hostile id can make us allocate */
    TOKENIZER_MAX_STEPS = 16,    /* pre-tokenizer steps; also the depth of recursion in encoding */
    TOKENIZER_MAX_FORMS = 4,
};

/* A run of bytes that someone else owns. */
struct span {
    const char *s;
    size_t n;
};

struct token {
    struct span text;  /* as the vocabulary spells it, in the byte-level alphabet; text.s is NULL for an id without a token */
    struct span bytes; /* what it decodes to */
    bool spells_bytes; /* every character of text stands for one byte */
    bool in_model;     /* part of the BPE vocabulary, not only an added token */
    bool added;
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

/* One pre-tokenizer step, applied to each piece that the step before it made. */
struct step {
    pcre2_code *re; /* NULL: the step only puts a space before a piece that does not start with one */
    enum split_rule rule;
    bool invert;
};

struct tokenizer {
    struct arena arena;
    char *pool; /* what is left of the arena's last block for strings */
    size_t pool_left;

    struct token *tokens; /* [n_tokens], by id */
    int32_t n_tokens;
    struct id_table spelled; /* text -> id */
    struct id_table words;   /* bytes -> id, for the tokens that a whole word of those bytes becomes */
    int32_t byte_ids[256];   /* the token of one byte, or -1 */

    struct merge *merges; /* hash table over (left, right) */
    size_t merge_mask;
    struct merge *merge_list; /* [n_merges], by rank, for saving */
    uint32_t n_merges;
    bool ignore_merges, fuse_unk;
    int32_t model_unk; /* what an unknown byte becomes, -1: nothing */

    struct added *added; /* [n_added], in file order */
    uint32_t n_added;
    struct added_set raw, normalized;

    int forms[TOKENIZER_MAX_FORMS]; /* utf8proc options of the normalizers, in order */
    int n_forms;
    struct step steps[TOKENIZER_MAX_STEPS];
    int n_steps;
    pcre2_match_context *limits;

    int32_t bos, eos, pad, unk;
    bool adds_bos;
    char *chat_template;    /* NULL: none */
    int64_t context_length; /* 0: not said */

    const char *file;      /* the file it came from, for messages */
    const char *dir;       /* the folder its Hugging Face files lie in; NULL when it came from a GGUF */
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
/* The longest token of the set that s[n] starts with, or NULL. */
const struct added *added_match(const struct added_set *set, const char *s, size_t n);

/* Builds what encoding looks up, once vocabulary, merges, added tokens and normalizers are in place. */
int vocab_finish(struct tokenizer *t, struct err *err);
int32_t words_find(const struct tokenizer *t, const char *s, size_t n);

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
};

/* Finds added tokens, normalises, splits, and hands each word to encode_word. */
int split_text(struct encoder *e, const char *s, size_t n);

/* Adds a step that splits at a pattern (in the syntax of tokenizer.json, which is Oniguruma's), or, with a NULL pattern, one
 * that puts a space in front. */
int split_add_step(struct tokenizer *t, const char *pattern, size_t n, enum split_rule rule, bool invert, struct err *err);
void split_free(struct tokenizer *t);

/* s[n], valid UTF-8, in the tokenizer's normal form: *out is malloc'ed, or NULL when s is so already. */
int split_normalize(char **out, size_t *n_out, const struct tokenizer *t, const char *s, size_t n, struct err *err);

/* ---- tokenizer.c ---- */

int encode_word(struct encoder *e, const char *s, size_t n);
/* The ids of one word by merging alone: at most n of them go to ids. The number of ids, or -1 and an error. */
int64_t encode_merge(struct encoder *e, int32_t *ids, const char *s, size_t n);

/* ---- readers ---- */

extern const char tokenizer_gpt2_pattern[];

int tokenizer_from_json(struct tokenizer *t, const char *path, struct err *err);
int tokenizer_from_gguf(struct tokenizer *t, const char *path, struct err *err);
/* Reads a "pre_tokenizer" value of tokenizer.json into steps. */
int pre_tokenizer_from_json(struct tokenizer *t, const json_t *pre, struct err *err);

#endif
