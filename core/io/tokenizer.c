/* Byte-level BPE: encoding words by merges, decoding, and the life of a tokenizer. */
#include "core/io/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/io/tokenizer_impl.h"

/* Words up to this many bytes are merged by looking at every pair; longer ones keep the pairs in a heap. */
enum { SHORT_WORD = 48 };

static const uint32_t NO_RANK = UINT32_MAX;

int ids_push(struct ids *list, int32_t id, struct err *err)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 64;
        int32_t *ids = cap <= SIZE_MAX / sizeof *ids ? realloc(list->ids, cap * sizeof *ids) : NULL;
        if (!ids)
            return err_set(err, "out of memory: a list of %zu ids", cap);
        list->ids = ids;
        list->cap = cap;
    }
    list->ids[list->n++] = id;
    return 0;
}

/* ---- merging ---- */

/* The first symbols of a word: a token per byte; unknown bytes vanish, or become the model's unknown token. */
static size_t first_symbols(int32_t *ids, const struct tokenizer *t, const char *s, size_t n)
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

/* The symbols of a long word as a list, and its possible merges as a heap ordered by rank, then position. A heap entry whose
 * pair has changed since is dropped when it comes up. */
struct link {
    int32_t id; /* -1: merged into the symbol before it */
    uint32_t prev, next;
};

struct candidate {
    uint32_t rank, at;
};

struct long_word {
    const struct tokenizer *t;
    struct link *links;
    struct candidate *heap;
    size_t n_heap;
};

static const uint32_t NO_LINK = UINT32_MAX;

static bool candidate_less(struct candidate a, struct candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_push(struct long_word *w, uint32_t at)
{
    if (at == NO_LINK || w->links[at].next == NO_LINK)
        return;
    const struct merge *m = merges_find(w->t, w->links[at].id, w->links[w->links[at].next].id);
    if (!m)
        return;
    struct candidate c = {m->rank, at};
    size_t k = w->n_heap++;
    for (; k > 0 && candidate_less(c, w->heap[(k - 1) / 2]); k = (k - 1) / 2)
        w->heap[k] = w->heap[(k - 1) / 2];
    w->heap[k] = c;
}

static struct candidate heap_pop(struct long_word *w)
{
    struct candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t k = 0;
    for (;;) {
        size_t child = 2 * k + 1;
        if (child >= w->n_heap)
            break;
        if (child + 1 < w->n_heap && candidate_less(w->heap[child + 1], w->heap[child]))
            child++;
        if (!candidate_less(w->heap[child], last))
            break;
        w->heap[k] = w->heap[child];
        k = child;
    }
    w->heap[k] = last;
    return top;
}

static size_t merge_long(int32_t *ids, size_t n, struct long_word *w)
{
    struct link *links = w->links;
    for (size_t i = 0; i < n; i++)
        links[i] = (struct link){ids[i], i ? (uint32_t)i - 1 : NO_LINK, i + 1 < n ? (uint32_t)i + 1 : NO_LINK};
    for (size_t i = 0; i + 1 < n; i++)
        heap_push(w, (uint32_t)i);
    while (w->n_heap > 0) {
        struct candidate c = heap_pop(w);
        struct link *left = &links[c.at];
        if (left->id < 0 || left->next == NO_LINK)
            continue;
        struct link *right = &links[left->next];
        const struct merge *m = merges_find(w->t, left->id, right->id);
        if (!m || m->rank != c.rank)
            continue;
        left->id = m->result;
        left->next = right->next;
        right->id = -1;
        if (left->next != NO_LINK)
            links[left->next].prev = c.at;
        heap_push(w, left->prev);
        heap_push(w, c.at);
    }
    size_t out = 0;
    for (uint32_t i = n ? 0 : NO_LINK; i != NO_LINK; i = links[i].next)
        ids[out++] = links[i].id;
    return out;
}

static void *work_of(struct encoder *e, size_t bytes)
{
    if (bytes > e->work_bytes) {
        free(e->work);
        e->work_bytes = 0;
        e->work = mem_alloc(bytes, 1, e->err);
        if (e->work)
            e->work_bytes = bytes;
    }
    return e->work;
}

int64_t encode_merge(struct encoder *e, int32_t *ids, const char *s, size_t n)
{
    n = first_symbols(ids, e->t, s, n);
    if (n <= SHORT_WORD)
        return (int64_t)merge_short(ids, n, e->t);
    struct long_word w = {.t = e->t};
    /* a merge takes one entry off the heap and adds at most two, and there are fewer than n merges */
    w.links = work_of(e, n * (sizeof *w.links + 2 * sizeof *w.heap));
    if (!w.links)
        return -1;
    w.heap = (struct candidate *)(void *)(w.links + n);
    return (int64_t)merge_long(ids, n, &w);
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

int tokenizer_encode(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err)
{
    struct encoder e = {.t = t, .out = out, .err = err};
    e.match = pcre2_match_data_create(1, NULL);
    int rc = e.match ? split_text(&e, text, n) : err_set(err, "out of memory");
    pcre2_match_data_free(e.match);
    free(e.work);
    return rc;
}

int tokenizer_decode(char **text, size_t *n_text, const struct tokenizer *t, const int32_t *ids, size_t n, struct err *err)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->n_tokens || !t->tokens[ids[i]].text.s)
            return err_set(err, "%s: no token has the id %d (number %zu of %zu)", t->file, ids[i], i, n);
        total += t->tokens[ids[i]].bytes.n;
    }
    char *out = malloc(total + 1), *p = out;
    if (!out)
        return err_set(err, "out of memory: %zu bytes of text", total);
    for (size_t i = 0; i < n; i++) {
        const struct span *b = &t->tokens[ids[i]].bytes;
        memcpy(p, b->s, b->n);
        p += b->n;
    }
    *p = 0;
    *text = out;
    *n_text = total;
    return 0;
}

/* ---- opening ---- */

int tokenizer_open(struct tokenizer **out, const char *path, struct err *err)
{
    *out = NULL;
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(err, "out of memory");
    t->bos = t->eos = t->pad = t->unk = t->model_unk = -1;
    int rc;
    if (!path_exists(path))
        rc = err_set(err, "%s: no such tokenizer: a folder with tokenizer.json, a tokenizer.json or a .gguf file was expected",
                     path);
    else if (path_is_dir(path) || path_has_suffix(path, ".json"))
        rc = tokenizer_from_json(t, path, err);
    else if (path_has_suffix(path, ".gguf"))
        rc = tokenizer_from_gguf(t, path, err);
    else
        rc = err_set(err, "%s: not a tokenizer that can be read: tokenizer.json or .gguf was expected", path);
    if (rc != 0) {
        tokenizer_free(t);
        return -1;
    }
    *out = t;
    return 0;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    split_free(t);
    json_decref(t->pre_tokenizer);
    arena_free(&t->arena);
    free(t);
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_pad(const struct tokenizer *t)
{
    return t->pad;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->adds_bos && t->bos >= 0;
}

int64_t tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->n_tokens;
}

const char *tokenizer_kind(const struct tokenizer *t)
{
    (void)t;
    return "bpe";
}
