/* The merges that do what the scores of SentencePiece's pieces do. */
#include <stdlib.h>

#include "core/io/tokenizer_impl.h"

/* Two pieces whose texts together are a third. */
struct pair {
    uint32_t rank; /* of the third */
    int32_t left, right, whole;
    uint32_t n_left, n_right; /* characters */
};

struct pair_list {
    struct pair *items;
    size_t n, cap;
};

static int push(struct pair_list *list, const struct pair *p, struct err *err)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 4096;
        struct pair *items = cap <= SIZE_MAX / sizeof *items ? realloc(list->items, cap * sizeof *items) : NULL;
        if (!items)
            return err_set(err, "out of memory: %zu merges", cap);
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = *p;
    return 0;
}

static uint32_t count_chars(const char *s, size_t n)
{
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((uint8_t)s[i] & 0xC0) != 0x80;
    return count;
}

/* All ways to make piece `id` of two. */
static int add_pairs(struct pair_list *list, const struct tokenizer *t, int32_t id, struct err *err)
{
    const struct token *tok = &t->tokens[id];
    for (size_t i = 1; i < tok->text.n; i++) {
        if (((uint8_t)tok->text.s[i] & 0xC0) == 0x80)
            continue;
        struct pair p = {.rank = tok->rank, .whole = id};
        p.left = pieces_find(t, tok->text.s, i);
        p.right = pieces_find(t, tok->text.s + i, tok->text.n - i);
        if (p.left < 0 || p.right < 0)
            continue;
        if (tok->type == TYPE_UNUSED)
            return err_set(err, "%s: the unused piece \"%s\" takes part in merging, which a tokenizer.json cannot say", t->file,
                           tok->text.s);
        p.n_left = count_chars(tok->text.s, i);
        p.n_right = count_chars(tok->text.s + i, tok->text.n - i);
        if (push(list, &p, err) != 0)
            return -1;
    }
    return 0;
}

/* Among equal scores the longer left part goes first: then a run of equals grows from the left, as it does when the leftmost of
 * equal scores is merged first. */
static int by_rank(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->n_left != y->n_left)
        return x->n_left > y->n_left ? -1 : 1;
    if (x->n_right != y->n_right)
        return x->n_right > y->n_right ? -1 : 1;
    return (x->whole > y->whole) - (x->whole < y->whole);
}

int pieces_merges(json_t **out, const struct tokenizer *t, struct err *err)
{
    struct pair_list list = {0};
    int rc = -1;
    *out = NULL;
    for (int32_t id = 0; id < t->n_tokens; id++) {
        enum token_type type = t->tokens[id].type;
        bool made = type == TYPE_NORMAL || type == TYPE_USER_DEFINED || type == TYPE_UNUSED;
        if (made && add_pairs(&list, t, id, err) != 0)
            goto done;
    }
    if (list.n > 0)
        qsort(list.items, list.n, sizeof *list.items, by_rank);
    *out = json_array();
    for (size_t i = 0; i < list.n; i++) {
        const struct span *left = &t->tokens[list.items[i].left].text, *right = &t->tokens[list.items[i].right].text;
        json_array_append_new(*out, json_pack("[s%, s%]", left->s, left->n, right->s, right->n));
    }
    rc = *out ? 0 : err_set(err, "out of memory: %zu merges", list.n);
done:
    free(list.items);
    return rc;
}
