/* SentencePiece's BPE, from a tokenizer.model or a GGUF: normalising, encoding, and what both need to know of the pieces. Works as
 * the sentencepiece library does (github.com/google/sentencepiece), id for id. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/io/tokenizer_impl.h"

static const char blank[] = "\xE2\x96\x81";       /* U+2581, which stands for a space */
static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD, for bytes that are not UTF-8 */
enum { N_BLANK = sizeof blank - 1, N_REPLACEMENT = sizeof replacement - 1 };

enum { LONGEST_PIECE = 7999 }; /* the library's limit; also bounds the recursion into unused pieces */

int32_t pieces_find(const struct tokenizer *t, const char *s, size_t n)
{
    int32_t id = n <= t->longest ? vocab_find(t, s, n) : -1;
    if (id < 0)
        return -1;
    enum token_type type = t->tokens[id].type;
    return type == TYPE_NORMAL || type == TYPE_USER_DEFINED || type == TYPE_UNUSED ? id : -1;
}

/* ---- normalising ---- */

static bool is_blank(const char *s, size_t n)
{
    return n >= N_BLANK && !memcmp(s, blank, N_BLANK);
}

/* Bytes of what s[n] starts with and nothing divides: a user-defined piece, else a character, else (0) no UTF-8. */
static size_t unit_of(const struct tokenizer *t, const char *s, size_t n, bool *frozen)
{
    const struct added *piece = t->frozen.n > 0 ? added_match(&t->frozen, s, n, true) : NULL;
    *frozen = piece != NULL;
    if (piece)
        return piece->match.n;
    if ((uint8_t)s[0] < 0x80)
        return 1;
    utf8proc_int32_t c;
    utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &c);
    return k > 0 ? (size_t)k : 0;
}

static char *put_blank(char *out, const struct tokenizer *t)
{
    if (!t->escape_whitespaces) {
        *out = ' ';
        return out + 1;
    }
    memcpy(out, blank, N_BLANK);
    return out + N_BLANK;
}

/* Removes the blanks at the end of text[n]; the bytes that are left. */
static size_t without_last_blanks(const struct tokenizer *t, const char *text, size_t n)
{
    if (t->escape_whitespaces)
        while (n >= N_BLANK && is_blank(text + n - N_BLANK, N_BLANK))
            n -= N_BLANK;
    else
        while (n > 0 && text[n - 1] == ' ')
            n--;
    return n;
}

/* The text that pieces are cut from: out has room for 3 (n + 1) bytes. Returns its length. */
static size_t normalize(char *out, const struct tokenizer *t, const char *s, size_t n)
{
    bool remove = t->remove_extra_whitespaces, after_blank = remove, frozen;
    char *p = out;
    size_t i = 0;
    while (remove && i < n && s[i] == ' ' && unit_of(t, s + i, n - i, &frozen) == 1)
        i++;
    if (i == n)
        return 0;
    if (t->add_dummy_prefix)
        p = put_blank(p, t);
    while (i < n) {
        size_t len = unit_of(t, s + i, n - i, &frozen), left = len ? len : N_REPLACEMENT;
        const char *unit = len ? s + i : replacement;
        for (; after_blank && left > 0 && *unit == ' '; left--)
            unit++;
        if (left > 0)
            after_blank = remove && unit[left - 1] == ' ';
        for (; left > 0; left--, unit++) {
            if (*unit == ' ')
                p = put_blank(p, t);
            else
                *p++ = *unit;
        }
        i += len ? len : 1;
    }
    return remove ? without_last_blanks(t, out, (size_t)(p - out)) : (size_t)(p - out);
}

/* ---- encoding ---- */

/* What no piece spells: a token per byte, or one unknown token for all in a row. */
static int put_unknown(struct encoder *e, const char *s, size_t n)
{
    int rc = 0;
    if (e->t->byte_fallback)
        for (size_t i = 0; i < n && rc == 0; i++)
            rc = ids_push(e->out, e->t->byte_ids[(uint8_t)s[i]], e->err);
    else if (!e->after_unknown)
        rc = ids_push(e->out, e->t->model_unk, e->err);
    e->after_unknown = true;
    return rc;
}

/* A merged symbol. An unused piece goes back to the two parts that pieces of its spelling were made of last; a character that is
 * one is unknown. */
static int put_symbol(struct encoder *e, const char *s, size_t n)
{
    int32_t id = pieces_find(e->t, s, n);
    if (id >= 0 && e->t->tokens[id].type == TYPE_UNUSED) {
        size_t left = e->left_of[id];
        if (left > 0)
            return put_symbol(e, s, left) != 0 ? -1 : put_symbol(e, s + left, n - left);
        id = -1;
    }
    if (id < 0)
        return put_unknown(e, s, n);
    e->after_unknown = false;
    return ids_push(e->out, id, e->err);
}

/* One stretch of normalised text. */
static int encode_stretch(struct encoder *e, const char *s, size_t n)
{
    if (n > UINT32_MAX / 64)
        return err_set(e->err, "%zu bytes of text without a place to split: at most %u expected", n, UINT32_MAX / 64);
    struct link *links = links_reserve(e, n);
    if (!links)
        return -1;
    size_t n_links = 0;
    for (size_t i = 0; i < n; i += links[n_links++].n) {
        struct link *l = &links[n_links];
        *l = (struct link){.id = UNKNOWN_SYMBOL, .at = (uint32_t)i};
        l->n = (uint32_t)unit_of(e->t, s + i, n - i, &l->frozen);
    }
    links_merge(e, s, n_links);
    for (uint32_t i = 0; i != NO_LINK; i = links[i].next)
        if (put_symbol(e, s + links[i].at, links[i].n) != 0)
            return -1;
    return 0;
}

static int encode_normalized(struct encoder *e, const char *s, size_t n)
{
    size_t start = 0;
    for (size_t i = 1; i < n && e->t->apart; i++) {
        if (s[i] != *blank || !is_blank(s + i, n - i) || (i >= N_BLANK && is_blank(s + i - N_BLANK, N_BLANK)))
            continue;
        if (encode_stretch(e, s + start, i - start) != 0)
            return -1;
        start = i;
    }
    return n > start ? encode_stretch(e, s + start, n - start) : 0;
}

int pieces_encode(struct encoder *e, const char *s, size_t n)
{
    int rc = -1;
    e->after_unknown = false;
    if (n >= SIZE_MAX / 3)
        return err_set(e->err, "out of memory: %zu bytes of text", n);
    char *text = malloc(3 * (n + 1));
    if (!text)
        return err_set(e->err, "out of memory: %zu bytes of text", n);
    if (e->t->has_unused && !e->left_of) {
        e->left_of = mem_alloc((size_t)e->t->n_tokens, sizeof *e->left_of, e->err);
        if (!e->left_of)
            goto done;
    }
    rc = encode_normalized(e, text, normalize(text, e->t, s, n));
done:
    free(text);
    return rc;
}

/* ---- the pieces ---- */

static int check_byte(struct tokenizer *t, int32_t id, struct err *err)
{
    struct token *tok = &t->tokens[id];
    int byte = byte_of_spelling(tok->text.s, tok->text.n);
    if (byte < 0)
        return err_set(err, "%s: piece %d \"%.60s\" is a byte piece but not spelled as one", t->file, id, tok->text.s);
    if (!t->byte_fallback)
        return err_set(err, "%s: piece %d is a byte piece although byte_fallback is off", t->file, id);
    t->byte_ids[byte] = id;
    return 0;
}

static int check_piece(struct tokenizer *t, int32_t id, struct err *err)
{
    const struct token *tok = &t->tokens[id];
    if (tok->text.n == 0 || tok->text.n > LONGEST_PIECE || memchr(tok->text.s, 0, tok->text.n))
        return err_set(err, "%s: piece %d: 1 to %d bytes without a NUL expected, found %zu", t->file, id, LONGEST_PIECE,
                       tok->text.n);
    if (isnan(tok->score))
        return err_set(err, "%s: piece %d \"%.60s\": its score is not a number", t->file, id, tok->text.s);
    switch (tok->type) {
    case TYPE_UNKNOWN:
        if (t->model_unk >= 0)
            return err_set(err, "%s: pieces %d and %d are both the unknown one", t->file, t->model_unk, id);
        t->model_unk = id;
        return 0;
    case TYPE_BYTE: return check_byte(t, id, err);
    case TYPE_UNUSED: t->has_unused = true; /* fall through */
    case TYPE_NORMAL:
    case TYPE_USER_DEFINED:
        if (tok->text.n > t->longest)
            t->longest = tok->text.n;
        return 0;
    case TYPE_CONTROL: return 0;
    }
    return err_set(err, "%s: piece %d \"%.60s\": unknown type %d", t->file, id, tok->text.s, (int)tok->type);
}

static int check_pieces(struct tokenizer *t, struct err *err)
{
    for (int b = 0; b < 256; b++)
        t->byte_ids[b] = -1;
    for (int32_t id = 0; id < t->n_tokens; id++)
        if (check_piece(t, id, err) != 0)
            return -1;
    if (t->model_unk < 0)
        t->model_unk = t->unk;
    if (t->unk < 0)
        t->unk = t->model_unk;
    for (int b = 0; b < 256 && t->byte_fallback; b++)
        if (t->byte_ids[b] < 0)
            return err_set(err, "%s: byte_fallback is on but there is no piece <0x%02X>", t->file, (unsigned)b);
    if (t->unk < 0)
        return err_set(err, "%s: no piece is the unknown one", t->file);
    return 0;
}

static int by_falling_score(const void *a, const void *b)
{
    const struct token *const *x = a, *const *y = b;
    return ((*x)->score < (*y)->score) - ((*x)->score > (*y)->score);
}

static int set_ranks(struct tokenizer *t, struct err *err)
{
    struct token **sorted = mem_alloc((size_t)t->n_tokens, sizeof(struct token *), err);
    if (!sorted)
        return -1;
    for (int32_t id = 0; id < t->n_tokens; id++)
        sorted[id] = &t->tokens[id];
    qsort(sorted, (size_t)t->n_tokens, sizeof(struct token *), by_falling_score);
    for (int32_t k = 1; k < t->n_tokens; k++)
        sorted[k]->rank = sorted[k - 1]->rank + (sorted[k]->score < sorted[k - 1]->score);
    free(sorted);
    return 0;
}

/* Whether a blank follows another character somewhere in the piece. */
static bool reaches_over_blank(const struct span *text)
{
    for (size_t i = 1; i < text->n; i++)
        if (is_blank(text->s + i, text->n - i) && !(i >= N_BLANK && is_blank(text->s + i - N_BLANK, N_BLANK)))
            return true;
    return false;
}

int pieces_finish(struct tokenizer *t, struct err *err)
{
    if (check_pieces(t, err) != 0 || set_ranks(t, err) != 0)
        return -1;
    t->frozen.items = arena_alloc(&t->arena, (size_t)t->n_tokens, sizeof *t->frozen.items, err);
    if (!t->frozen.items)
        return -1;
    t->apart = !t->has_unused; /* which parts an unused piece goes back to depends on the whole text */
    for (int32_t id = 0; id < t->n_tokens; id++) {
        const struct token *tok = &t->tokens[id];
        bool in_text = tok->type == TYPE_NORMAL || tok->type == TYPE_USER_DEFINED;
        if (in_text && reaches_over_blank(&tok->text))
            t->apart = false;
        if (tok->type == TYPE_USER_DEFINED && (!tok->added || t->plain))
            t->frozen.items[t->frozen.n++] = (struct added){.id = id, .match = tok->text};
    }
    added_set_finish(&t->frozen);
    t->decoder = (struct decoder){.from = {blank, N_BLANK}, .to = {" ", 1}, .bytes = true};
    return decode_prepare(t, err);
}
