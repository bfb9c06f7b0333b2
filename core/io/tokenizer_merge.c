/* From words to ids: the first symbols, and the merging of pairs that all kinds of BPE share. */
#include <stdlib.h>
#include <string.h>

#include "core/io/tokenizer_impl.h"

/* Words up to this many bytes are merged by looking at every pair; longer ones keep the pairs in a heap. */
enum { SHORT_WORD = 48 };

static const uint32_t NO_RANK = UINT32_MAX;

/* ---- first symbols ---- */

/* A token per byte; unknown bytes vanish, or become the model's unknown token. */
static size_t byte_symbols(int32_t *ids, const struct tokenizer *t, const char *s, size_t n)
{
    size_t out = 0;
    bool after_unk = false;
    for (size_t i = 0; i < n; i++) {
        int32_t id = t->byte_ids[(uint8_t)s[i]];
        bool unk = id < 0;
        if (unk)
            id = t->model_unk;
        if (id >= 0 && !(unk && after_unk && t->fuse_unk))
            ids[out++] = id;
        after_unk = unk;
    }
    return out;
}

/* Puts a token per byte of one character to ids, if the vocabulary has all of them. */
static size_t fall_back(int32_t *ids, const struct tokenizer *t, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ids[i] = t->byte_ids[(uint8_t)s[i]];
        if (ids[i] < 0)
            return 0;
    }
    return n;
}

/* A token per character, else one per byte of it, else the unknown token. As in the reference, an unknown token waits for the
 * next known character, so byte tokens overtake it. s[n] is valid UTF-8. */
static size_t character_symbols(int32_t *ids, const struct tokenizer *t, const char *s, size_t n)
{
    size_t out = 0, len;
    bool waiting = false;
    for (size_t i = 0; i < n; i += len) {
        len = 1;
        while (i + len < n && ((uint8_t)s[i + len] & 0xC0) == 0x80)
            len++;
        int32_t id = vocab_find(t, s + i, len);
        if (id >= 0 && t->tokens[id].in_model) {
            if (waiting)
                ids[out++] = t->model_unk;
            waiting = false;
            ids[out++] = id;
            continue;
        }
        size_t bytes = fall_back(ids + out, t, s + i, len);
        out += bytes;
        if (bytes > 0 || t->model_unk < 0)
            continue;
        if (waiting && !t->fuse_unk)
            ids[out++] = t->model_unk;
        waiting = true;
    }
    if (waiting)
        ids[out++] = t->model_unk;
    return out;
}

/* ---- merging ---- */

/* Merges ids[n] in place: always the pair of lowest rank, the leftmost of equals. Returns how many are left. */
static size_t merge_short(int32_t *ids, size_t n, const struct tokenizer *t)
{
    uint32_t ranks[SHORT_WORD]; /* of the pair (i, i + 1) */
    int32_t results[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++) {
        const struct merge *m = merges_find(t, ids[i], ids[i + 1]);
        ranks[i] = m ? m->rank : NO_RANK;
        results[i] = m ? m->result : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == NO_RANK)
            break;
        ids[best] = results[best];
        n--;
        size_t moved = n - best - 1;
        memmove(ids + best + 1, ids + best + 2, moved * sizeof *ids);
        memmove(ranks + best, ranks + best + 1, moved * sizeof *ranks);
        memmove(results + best, results + best + 1, moved * sizeof *results);
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const struct merge *m = merges_find(t, ids[i], ids[i + 1]);
            ranks[i] = m ? m->rank : NO_RANK;
            results[i] = m ? m->result : -1;
        }
    }
    return n;
}

/* The possible merges of a list of symbols as a heap ordered by rank, then position. An entry whose pair has changed since is
 * dropped when it comes up, or, if the new pair happens to have the same rank, stands for that. */
struct candidate {
    uint32_t rank, at;
};

struct agenda {
    struct encoder *e;
    const char *s; /* the text, for PIECES */
    struct link *links;
    struct candidate *heap;
    size_t n_heap;
};

/* What the symbol `at` and the next one merge to, or -1. */
static int32_t merge_of(uint32_t *rank, const struct agenda *a, uint32_t at)
{
    const struct tokenizer *t = a->e->t;
    const struct link *left = &a->links[at];
    if (left->id == MERGED_AWAY || left->next == NO_LINK)
        return -1;
    const struct link *right = &a->links[left->next];
    if (t->kind != PIECES) {
        const struct merge *m = merges_find(t, left->id, right->id);
        *rank = m ? m->rank : NO_RANK;
        return m ? m->result : -1;
    }
    if (left->frozen || right->frozen)
        return -1;
    int32_t id = pieces_find(t, a->s + left->at, (size_t)left->n + right->n);
    if (id >= 0)
        *rank = t->tokens[id].rank;
    return id;
}

static bool candidate_less(struct candidate a, struct candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_push(struct agenda *a, uint32_t at)
{
    struct candidate c = {0, at};
    int32_t id = at == NO_LINK ? -1 : merge_of(&c.rank, a, at);
    if (id < 0)
        return;
    if (a->e->left_of)
        a->e->left_of[id] = a->links[at].n;
    size_t k = a->n_heap++;
    for (; k > 0 && candidate_less(c, a->heap[(k - 1) / 2]); k = (k - 1) / 2)
        a->heap[k] = a->heap[(k - 1) / 2];
    a->heap[k] = c;
}

static struct candidate heap_pop(struct agenda *a)
{
    struct candidate top = a->heap[0], last = a->heap[--a->n_heap];
    size_t k = 0;
    for (;;) {
        size_t child = 2 * k + 1;
        if (child >= a->n_heap)
            break;
        if (child + 1 < a->n_heap && candidate_less(a->heap[child + 1], a->heap[child]))
            child++;
        if (!candidate_less(a->heap[child], last))
            break;
        a->heap[k] = a->heap[child];
        k = child;
    }
    a->heap[k] = last;
    return top;
}

struct link *links_reserve(struct encoder *e, size_t n)
{
    /* a merge takes one entry off the heap and adds at most two, and there are fewer than n merges */
    size_t bytes = n * (sizeof(struct link) + 2 * sizeof(struct candidate));
    if (bytes > e->work_bytes) {
        free(e->work);
        e->work_bytes = 0;
        e->work = mem_alloc(bytes, 1, e->err);
        if (e->work)
            e->work_bytes = bytes;
    }
    return e->work;
}

void links_merge(struct encoder *e, const char *s, size_t n)
{
    struct link *links = e->work;
    struct agenda a = {.e = e, .s = s, .links = links, .heap = (struct candidate *)(void *)(links + n)};
    for (size_t i = 0; i < n; i++) {
        links[i].prev = i ? (uint32_t)i - 1 : NO_LINK;
        links[i].next = i + 1 < n ? (uint32_t)i + 1 : NO_LINK;
    }
    for (size_t i = 0; i + 1 < n; i++)
        heap_push(&a, (uint32_t)i);
    while (a.n_heap > 0) {
        struct candidate c = heap_pop(&a);
        uint32_t rank;
        int32_t id = merge_of(&rank, &a, c.at);
        if (id < 0 || rank != c.rank)
            continue;
        struct link *left = &links[c.at], *right = &links[left->next];
        left->id = id;
        left->n += right->n;
        left->next = right->next;
        right->id = MERGED_AWAY;
        if (left->next != NO_LINK)
            links[left->next].prev = c.at;
        heap_push(&a, left->prev);
        heap_push(&a, c.at);
    }
}

/* ---- words ---- */

static int64_t merge_long(struct encoder *e, int32_t *ids, size_t n)
{
    struct link *links = links_reserve(e, n);
    if (!links)
        return -1;
    for (size_t i = 0; i < n; i++)
        links[i] = (struct link){.id = ids[i]};
    links_merge(e, NULL, n);
    int64_t out = 0;
    for (uint32_t i = 0; i != NO_LINK; i = links[i].next)
        ids[out++] = links[i].id;
    return out;
}

int64_t encode_merge(struct encoder *e, int32_t *ids, const char *s, size_t n)
{
    n = (e->t->kind == BYTE_LEVEL ? byte_symbols : character_symbols)(ids, e->t, s, n);
    return n <= SHORT_WORD ? (int64_t)merge_short(ids, n, e->t) : merge_long(e, ids, n);
}

int encode_word(struct encoder *e, const char *s, size_t n)
{
    int32_t id = words_find(e->t, s, n);
    if (id >= 0)
        return ids_push(e->out, id, e->err);
    int32_t small[SHORT_WORD], *ids = small;
    if (n > SHORT_WORD) {
        if (n > UINT32_MAX / 64)
            return err_set(e->err, "a word of %zu bytes without a place to split: at most %u expected", n, UINT32_MAX / 64);
        ids = mem_alloc(n, sizeof *ids, e->err);
    }
    int64_t n_ids = ids ? encode_merge(e, ids, s, n) : -1;
    int rc = n_ids < 0 ? -1 : 0;
    for (int64_t i = 0; i < n_ids && rc == 0; i++)
        rc = ids_push(e->out, ids[i], e->err);
    if (ids != small)
        free(ids);
    return rc;
}
