/* The tables of a tokenizer: vocabulary, merges, added tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/base/utf8.h"
#include "core/io/tokenizer_impl.h"

enum { POOL_BLOCK = 1 << 18 };

char *tokenizer_keep(struct tokenizer *t, const char *text, size_t n, struct err *err)
{
    if (n >= t->pool_left) {
        size_t block = n < POOL_BLOCK / 4 ? POOL_BLOCK : n + 1;
        char *pool = arena_alloc(&t->arena, block, 1, err);
        if (!pool)
            return NULL;
        t->pool = pool;
        t->pool_left = block;
    }
    char *copy = t->pool;
    memcpy(copy, text, n);
    copy[n] = 0;
    t->pool += n + 1;
    t->pool_left -= n + 1;
    return copy;
}

/* GPT-2's alphabet: a printable Latin-1 byte is its own character, the other 68 take the code points from 256 on. */
int32_t alphabet_char(uint8_t b)
{
    if (b <= 32)
        return 256 + b;
    if (b >= 127 && b <= 160)
        return 256 + 33 + (b - 127);
    return b == 173 ? 256 + 67 : b;
}

int alphabet_byte(int32_t c)
{
    if (c >= 256 && c < 256 + 33)
        return c - 256;
    if (c >= 256 + 33 && c < 256 + 67)
        return c - (256 + 33) + 127;
    if (c == 256 + 67)
        return 173;
    return c >= 0 && c < 256 && alphabet_char((uint8_t)c) == c ? (int)c : -1;
}

/* ---- hashing ---- */

/* Multiply and fold, eight bytes at a time. */
static uint64_t mix(uint64_t h, uint64_t v)
{
    __uint128_t p = (__uint128_t)(h ^ v) * UINT64_C(0x9E3779B97F4A7C15);
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = UINT64_C(0xD6E8FEB86659FD93) ^ n, v;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&v, s, 8);
        h = mix(h, v);
    }
    v = 0;
    memcpy(&v, s, n);
    return mix(h, v);
}

static int id_table_reserve(struct tokenizer *t, struct id_table *table, size_t n, struct err *err)
{
    size_t slots = 16;
    while (slots < 2 * n)
        slots *= 2;
    table->slots = arena_alloc(&t->arena, slots, sizeof *table->slots, err);
    table->mask = slots - 1;
    return table->slots ? 0 : -1;
}

/* The slot of a key in the table over token texts, or over token bytes: one that holds the key, or a free one. */
static int32_t *id_table_slot(const struct tokenizer *t, const struct id_table *table, bool by_bytes, const char *s, size_t n)
{
    for (size_t k = hash_bytes(s, n) & table->mask;; k = (k + 1) & table->mask) {
        int32_t *slot = &table->slots[k];
        if (!*slot)
            return slot;
        const struct token *tok = &t->tokens[*slot - 1];
        const struct span *key = by_bytes ? &tok->bytes : &tok->text;
        if (key->n == n && !memcmp(key->s, s, n))
            return slot;
    }
}

/* ---- vocabulary ---- */

int vocab_reserve(struct tokenizer *t, int64_t n_ids, struct err *err)
{
    if (n_ids < 1 || n_ids > TOKENIZER_MAX_IDS)
        return err_set(err, "%s: a vocabulary of %lld ids: 1 to %d expected", t->file, (long long)n_ids, TOKENIZER_MAX_IDS);
    t->tokens = arena_alloc(&t->arena, (size_t)n_ids, sizeof *t->tokens, err);
    if (!t->tokens)
        return -1;
    t->n_tokens = (int32_t)n_ids;
    return id_table_reserve(t, &t->spelled, (size_t)n_ids, err);
}

/* Turns a spelling into bytes. false where a character lies outside the byte-level alphabet. */
static bool spelling_to_bytes(char *bytes, size_t *n_bytes, const char *text, size_t n)
{
    size_t out = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &c);
        int b = alphabet_byte(c);
        if (b < 0)
            return false;
        bytes[out++] = (char)b;
    }
    *n_bytes = out;
    return true;
}

int vocab_set(struct tokenizer *t, int64_t id, const char *text, size_t n, bool in_model, struct err *err)
{
    if (id < 0 || id >= t->n_tokens)
        return err_set(err, "%s: token id %lld: 0 to %d expected", t->file, (long long)id, t->n_tokens - 1);
    struct token *tok = &t->tokens[id];
    if (tok->text.s)
        return err_set(err, "%s: token id %lld is given twice, to \"%s\" and \"%.*s\"", t->file, (long long)id, tok->text.s, (int)n,
                       text);
    if (!utf8_valid(text, n))
        return err_set(err, "%s: token %lld is not valid UTF-8", t->file, (long long)id);
    int32_t *slot = id_table_slot(t, &t->spelled, false, text, n);
    if (*slot)
        return err_set(err, "%s: token \"%.*s\" is given twice, as ids %d and %lld", t->file, (int)n, text, *slot - 1,
                       (long long)id);
    char *copy = tokenizer_keep(t, text, n, err);
    if (!copy)
        return -1;
    tok->text = tok->bytes = (struct span){copy, n};
    tok->in_model = in_model;
    tok->byte = -1;
    *slot = (int32_t)id + 1;
    if (t->kind != BYTE_LEVEL)
        return 0;
    char *bytes = tokenizer_keep(t, text, n, err);
    size_t n_bytes;
    if (bytes && spelling_to_bytes(bytes, &n_bytes, copy, n)) {
        tok->spells_bytes = true;
        tok->bytes = (struct span){bytes, n_bytes};
    }
    return bytes ? 0 : -1;
}

int32_t vocab_find(const struct tokenizer *t, const char *text, size_t n)
{
    return *id_table_slot(t, &t->spelled, false, text, n) - 1;
}

int32_t words_find(const struct tokenizer *t, const char *s, size_t n)
{
    if (t->kind == CHARACTERS) {
        int32_t id = t->ignore_merges ? vocab_find(t, s, n) : -1;
        return id >= 0 && t->tokens[id].in_model ? id : -1;
    }
    return *id_table_slot(t, &t->words, true, s, n) - 1;
}

/* ---- merges ---- */

static struct merge *merge_slot(const struct tokenizer *t, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (size_t k = mix(UINT64_C(0xA0761D6478BD642F), key) & t->merge_mask;; k = (k + 1) & t->merge_mask) {
        struct merge *m = &t->merges[k];
        if (m->result < 0 || (m->left == left && m->right == right))
            return m;
    }
}

const struct merge *merges_find(const struct tokenizer *t, int32_t left, int32_t right)
{
    const struct merge *m = merge_slot(t, left, right);
    return m->result < 0 ? NULL : m;
}

int merges_reserve(struct tokenizer *t, size_t n, struct err *err)
{
    if (n > INT32_MAX / 4)
        return err_set(err, "%s: %zu merges, at most %d expected", t->file, n, INT32_MAX / 4);
    size_t slots = 16;
    while (slots < 2 * n)
        slots *= 2;
    t->merges = arena_alloc(&t->arena, slots, sizeof *t->merges, err);
    t->merge_list = arena_alloc(&t->arena, n, sizeof *t->merge_list, err);
    if (!t->merges || !t->merge_list)
        return -1;
    t->merge_mask = slots - 1;
    for (size_t k = 0; k < slots; k++)
        t->merges[k].result = -1;
    return 0;
}

int merges_add(struct tokenizer *t, struct span left, struct span right, struct err *err)
{
    int32_t a = vocab_find(t, left.s, left.n), b = vocab_find(t, right.s, right.n);
    if (a < 0 || b < 0) {
        const struct span *bad = a < 0 ? &left : &right;
        return err_set(err, "%s: merge %u names \"%.*s\", which the vocabulary lacks", t->file, t->n_merges, (int)bad->n, bad->s);
    }
    char small[256], *joined = left.n + right.n <= sizeof small ? small : malloc(left.n + right.n);
    if (!joined)
        return err_set(err, "out of memory");
    memcpy(joined, left.s, left.n);
    memcpy(joined + left.n, right.s, right.n);
    int32_t result = vocab_find(t, joined, left.n + right.n);
    if (joined != small)
        free(joined);
    if (result < 0)
        return err_set(err, "%s: merge %u makes \"%.*s%.*s\", which the vocabulary lacks", t->file, t->n_merges, (int)left.n,
                       left.s, (int)right.n, right.s);
    struct merge m = {a, b, result, t->n_merges};
    *merge_slot(t, a, b) = m; /* of two merges of one pair the later holds, as in Hugging Face's map */
    t->merge_list[t->n_merges++] = m;
    return 0;
}

/* ---- added tokens ---- */

int added_reserve(struct tokenizer *t, size_t n, struct err *err)
{
    if (n > TOKENIZER_MAX_IDS)
        return err_set(err, "%s: %zu added tokens, at most %d expected", t->file, n, TOKENIZER_MAX_IDS);
    t->added = arena_alloc(&t->arena, n, sizeof *t->added, err);
    return t->added ? 0 : -1;
}

int added_add(struct tokenizer *t, const struct added *a, struct err *err)
{
    struct token *tok = &t->tokens[a->id];
    if (tok->added)
        return err_set(err, "%s: added token \"%s\" is given twice", t->file, tok->text.s);
    if (tok->text.n == 0)
        return err_set(err, "%s: added token %d is empty", t->file, a->id);
    tok->added = true;
    if (t->kind == BYTE_LEVEL)
        tok->bytes = tok->text; /* added tokens stand for themselves, whatever alphabet they are written in */
    t->added[t->n_added] = *a;
    t->added[t->n_added++].match = tok->text;
    return 0;
}

static int compare_added(const void *a, const void *b)
{
    const struct span *x = &((const struct added *)a)->match, *y = &((const struct added *)b)->match;
    int c = memcmp(x->s, y->s, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

void added_set_finish(struct added_set *set)
{
    if (set->n > 0)
        qsort(set->items, set->n, sizeof *set->items, compare_added);
    for (uint32_t i = 0; i < set->n; i++)
        set->first[(uint8_t)set->items[i].match.s[0] + 1]++;
    for (int c = 0; c < 256; c++)
        set->first[c + 1] += set->first[c];
}

static int build_set(struct added_set *set, struct tokenizer *t, bool normalized, struct err *err)
{
    set->items = arena_alloc(&t->arena, t->n_added, sizeof *set->items, err);
    if (!set->items)
        return -1;
    for (uint32_t i = 0; i < t->n_added; i++) {
        struct added a = t->added[i];
        if (a.normalized != normalized)
            continue;
        char *form = NULL;
        size_t n;
        if (normalized && split_normalize(&form, &n, t, a.match.s, a.match.n, err) != 0)
            return -1;
        if (form) {
            a.match = (struct span){tokenizer_keep(t, form, n, err), n};
            free(form);
            if (!a.match.s)
                return -1;
        }
        if (a.match.n > 0)
            set->items[set->n++] = a;
    }
    added_set_finish(set);
    return 0;
}

int added_finish(struct tokenizer *t, struct err *err)
{
    return build_set(&t->raw, t, false, err) != 0 ? -1 : build_set(&t->normalized, t, true, err);
}

/* The first of items lo .. hi - 1, which share `depth` bytes, whose next byte is at least c. */
static uint32_t lower_bound(const struct added *items, uint32_t lo, uint32_t hi, size_t depth, int c)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((uint8_t)items[mid].match.s[depth] < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct added *added_match(const struct added_set *set, const char *s, size_t n, bool special)
{
    const struct added *best = NULL;
    uint32_t lo = set->first[(uint8_t)s[0]], hi = set->first[(uint8_t)s[0] + 1];
    for (size_t depth = 1; lo < hi; depth++) {
        /* items lo .. hi - 1 share s[0 .. depth); those that end here sort first */
        for (; lo < hi && set->items[lo].match.n == depth; lo++)
            if (special || !set->items[lo].special)
                best = &set->items[lo];
        if (depth == n)
            break;
        uint8_t c = (uint8_t)s[depth];
        lo = lower_bound(set->items, lo, hi, depth, c);
        hi = lower_bound(set->items, lo, hi, depth, c + 1);
    }
    return best;
}

/* ---- finishing ---- */

/* Whether a word of the token's bytes becomes that token: always where merges are ignored for such words, else if merging
 * leads there. Returns 1, 0, or -1 and an error. */
static int is_word(struct encoder *e, const struct token *tok, int32_t id)
{
    enum { LONGEST = 64 }; /* longer words are rare enough to be merged each time */
    if (!tok->text.s || !tok->in_model || !tok->spells_bytes || tok->added || tok->bytes.n == 0)
        return 0;
    if (e->t->ignore_merges)
        return 1;
    int32_t ids[LONGEST];
    if (tok->bytes.n > LONGEST)
        return 0;
    int64_t n = encode_merge(e, ids, tok->bytes.s, tok->bytes.n);
    return n < 0 ? -1 : n == 1 && ids[0] == id;
}

static void find_byte_tokens(struct tokenizer *t)
{
    for (int b = 0; b < 256; b++) {
        char text[8];
        int n = t->kind == CHARACTERS ? snprintf(text, sizeof text, "<0x%02X>", (unsigned)b)
                                      : (int)utf8proc_encode_char(alphabet_char((uint8_t)b), (utf8proc_uint8_t *)text);
        int32_t id = vocab_find(t, text, (size_t)n);
        t->byte_ids[b] = id >= 0 && t->tokens[id].in_model ? id : -1;
    }
}

int vocab_finish(struct tokenizer *t, struct err *err)
{
    find_byte_tokens(t);
    if (added_finish(t, err) != 0)
        return -1;
    if (t->kind == CHARACTERS)
        return decode_prepare(t, err);
    if (id_table_reserve(t, &t->words, (size_t)t->n_tokens, err) != 0)
        return -1;
    struct encoder e = {.t = t, .err = err};
    int rc = 0;
    for (int32_t id = 0; id < t->n_tokens && rc == 0; id++) {
        const struct token *tok = &t->tokens[id];
        int word = is_word(&e, tok, id);
        if (word > 0)
            *id_table_slot(t, &t->words, true, tok->bytes.s, tok->bytes.n) = id + 1;
        else if (word < 0)
            rc = -1;
    }
    free(e.work);
    return rc;
}
