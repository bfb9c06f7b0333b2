/* From ids to text. */
#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"
#include "core/io/tokenizer_impl.h"

static const char blank[] = "\xE2\x96\x81";       /* U+2581, which stands for a space */
static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */
enum { N_BLANK = sizeof blank - 1, N_REPLACEMENT = sizeof replacement - 1 };

/* ---- what each token decodes to ---- */

int byte_of_spelling(const char *text, size_t n)
{
    int byte = 0;
    if (n != 6 || memcmp(text, "<0x", 3) || text[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        const char *digits = "0123456789ABCDEFabcdef", *at = text[i] ? strchr(digits, text[i]) : NULL;
        if (!at)
            return -1;
        byte = 16 * byte + (int)(at - digits) - (at - digits > 15 ? 6 : 0);
    }
    return byte;
}

/* text with every d->from replaced by d->to, owned by the tokenizer. */
static int replaced(struct span *out, struct tokenizer *t, const struct decoder *d, const struct span *text, struct err *err)
{
    size_t n;
    *out = *text;
    if (d->from.n == 0 || !memmem(text->s, text->n, d->from.s, d->from.n))
        return 0;
    char *copy = text_replace(&n, text->s, text->n, &d->from, &d->to, 0, err);
    if (!copy)
        return -1;
    *out = (struct span){tokenizer_keep(t, copy, n, err), n};
    free(copy);
    return out->s ? 0 : -1;
}

int decode_prepare(struct tokenizer *t, struct err *err)
{
    for (int32_t id = 0; id < t->n_tokens; id++) {
        struct token *tok = &t->tokens[id];
        if (!tok->text.s)
            continue;
        if (t->kind == PIECES && tok->type == TYPE_CONTROL)
            tok->bytes = (struct span){"", 0};
        else if (t->kind == PIECES && tok->type == TYPE_UNKNOWN)
            tok->bytes = (struct span){t->unk_surface, strlen(t->unk_surface)};
        else if (replaced(&tok->bytes, t, &t->decoder, &tok->text, err) != 0)
            return -1;
        if (t->decoder.bytes && (t->kind != PIECES || tok->type == TYPE_BYTE))
            tok->byte = (int16_t)byte_of_spelling(tok->text.s, tok->text.n);
    }
    /* the reference spells an added token as it looks for it */
    for (uint32_t i = 0; i < t->normalized.n; i++) {
        const struct added *a = &t->normalized.items[i];
        if (replaced(&t->tokens[a->id].bytes, t, &t->decoder, &a->match, err) != 0)
            return -1;
    }
    return 0;
}

/* ---- decoding ---- */

/* A text that grows; `run` of its bytes at the end come from byte tokens that have not been looked at yet. */
struct decoding {
    char *text;
    size_t n, run;
};

/* What the run holds that is not UTF-8 becomes U+FFFD, one for each byte. spare[run] is scratch. */
static void finish_run(struct decoding *d, const struct decoder *how, char *spare)
{
    size_t run = d->run, at = d->n - run;
    d->run = 0;
    if (run == 0 || utf8_valid(d->text + at, run))
        return;
    memcpy(spare, d->text + at, run);
    for (size_t i = 0, k; i < run; i += k ? k : 1) {
        k = how->whole_runs ? 0 : utf8_char(spare + i, run - i);
        memcpy(d->text + at, k ? spare + i : replacement, k ? k : N_REPLACEMENT);
        at += k ? k : N_REPLACEMENT;
    }
    d->n = at;
}

static void append(struct decoding *d, const char *s, size_t n)
{
    memcpy(d->text + d->n, s, n);
    d->n += n;
}

/* SentencePiece takes the dummy prefix back: the blank of the first piece that brings text. Where it removed extra blanks in
 * encoding, it goes on as long as there is no text. */
static void decode_pieces(struct decoding *d, const struct tokenizer *t, const int32_t *ids, size_t n, char *spare)
{
    bool at_start = t->add_dummy_prefix || t->remove_extra_whitespaces, taken = false;
    for (size_t i = 0; i < n; i++) {
        const struct token *tok = &t->tokens[ids[i]];
        if (tok->byte >= 0) {
            d->text[d->n++] = (char)tok->byte;
            d->run++;
            continue;
        }
        finish_run(d, &t->decoder, spare);
        at_start = at_start && !taken && d->n == 0;
        bool is_blank = tok->text.n >= N_BLANK && !memcmp(tok->text.s, blank, N_BLANK);
        bool take = at_start && is_blank && tok->type != TYPE_CONTROL && tok->type != TYPE_UNKNOWN;
        taken = take && !t->remove_extra_whitespaces;
        append(d, tok->bytes.s + take, tok->bytes.n - take);
    }
    finish_run(d, &t->decoder, spare);
}

static void decode_tokens(struct decoding *d, const struct tokenizer *t, const int32_t *ids, size_t n, char *spare)
{
    for (size_t i = 0; i < n; i++) {
        const struct token *tok = &t->tokens[ids[i]];
        if (tok->byte >= 0) {
            d->text[d->n++] = (char)tok->byte;
            d->run++;
            continue;
        }
        finish_run(d, &t->decoder, spare);
        append(d, tok->bytes.s, tok->bytes.n);
    }
    finish_run(d, &t->decoder, spare);
    size_t start = 0;
    for (int64_t i = 0; i < t->decoder.strip_start && start < d->n && d->text[start] == t->decoder.strip; i++)
        start++;
    for (int64_t i = 0; i < t->decoder.strip_stop && d->n > start && d->text[d->n - 1] == t->decoder.strip; i++)
        d->n--;
    d->n -= start;
    memmove(d->text, d->text + start, d->n);
}

size_t tokenizer_token_bytes(const char **bytes, char spare[1], const struct tokenizer *t, int32_t id)
{
    const struct token *tok = id >= 0 && id < t->n_tokens ? &t->tokens[id] : NULL;
    *bytes = spare;
    if (!tok || !tok->text.s)
        return 0; /* a model's vocabulary may be larger than its tokenizer's */
    if (tok->byte >= 0) {
        *spare = (char)tok->byte;
        return 1;
    }
    *bytes = tok->bytes.s;
    return tok->bytes.n;
}

int tokenizer_decode(char **text, size_t *n_text, const struct tokenizer *t, const int32_t *ids, size_t n, struct err *err)
{
    size_t total = 0, n_bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->n_tokens || !t->tokens[ids[i]].text.s)
            return err_set(err, "%s: no token has the id %d (number %zu of %zu)", t->file, ids[i], i, n);
        total += t->tokens[ids[i]].bytes.n;
        n_bytes += t->tokens[ids[i]].byte >= 0;
    }
    total += n_bytes * N_REPLACEMENT;
    struct decoding d = {.text = malloc(total + 1)};
    char *spare = malloc(n_bytes + 1);
    int rc = -1;
    if (!d.text || !spare) {
        err_set(err, "out of memory: %zu bytes of text", total);
        goto done;
    }
    (t->kind == PIECES ? decode_pieces : decode_tokens)(&d, t, ids, n, spare);
    d.text[d.n] = 0;
    *text = d.text;
    *n_text = d.n;
    d.text = NULL;
    rc = 0;
done:
    free(spare);
    free(d.text);
    return rc;
}
