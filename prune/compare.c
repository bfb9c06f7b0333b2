#include "prune/compare.h"

#include <stdlib.h>
#include <string.h>

static int bind_zeroshot(struct zeroshot_scores *z, struct comparison *k, struct err *err)
{
    if (k->n_tasks == 0)
        return 0;
    z->acc = arena_alloc(&k->arena, (size_t)k->n_tasks, sizeof *z->acc, err);
    z->std_error = arena_alloc(&k->arena, (size_t)k->n_tasks, sizeof *z->std_error, err);
    return z->acc && z->std_error ? 0 : -1;
}

static int bind(struct comparison *k, struct err *err)
{
    size_t pairs = (size_t)(k->n_criteria * k->n_criteria), texts = (size_t)k->n_texts;
    k->n_units = k->scores[0].n;
    k->n_variants = k->n_criteria * k->n_ratios * 2;
    k->variants = arena_alloc(&k->arena, (size_t)k->n_variants, sizeof *k->variants, err);
    k->correlation = arena_alloc(&k->arena, pairs, sizeof *k->correlation, err);
    k->overlap = arena_alloc(&k->arena, pairs * (size_t)k->n_ratios, sizeof *k->overlap, err);
    k->intact_ppl = arena_alloc(&k->arena, texts, sizeof *k->intact_ppl, err);
    return k->variants && k->correlation && k->overlap && k->intact_ppl ? bind_zeroshot(&k->intact_zeroshot, k, err) : -1;
}

bool variant_drops(const struct variant *v, struct unit u)
{
    for (int64_t i = 0; i < v->count; i++)
        if (v->dropped[i].block == u.block && v->dropped[i].parts == u.parts)
            return true;
    return false;
}

static int64_t shared(const struct variant *a, const struct variant *b)
{
    int64_t n = 0;
    for (int64_t i = 0; i < a->count; i++)
        n += variant_drops(b, a->dropped[i]);
    return n;
}

static int plan_variant(struct comparison *k, int64_t at, struct model *m, struct err *err)
{
    struct variant *v = &k->variants[at];
    const struct scores *s = &k->scores[v->criterion];
    int64_t first = v->protected_ ? k->keep_first : 0, last = v->protected_ ? k->keep_last : 0;
    if (plan_count(&v->count, k->ratios[v->ratio], s->n, err) != 0)
        return -1;
    v->dropped = arena_alloc(&k->arena, (size_t)(v->count > 0 ? v->count : 1), sizeof *v->dropped, err);
    v->ppl = arena_alloc(&k->arena, (size_t)k->n_texts, sizeof *v->ppl, err);
    if (!v->dropped || !v->ppl || bind_zeroshot(&v->zeroshot, k, err) != 0 ||
        plan_choose(v->dropped, s, v->count, first, last, err) != 0)
        return -1;
    v->cut_swap = plan_cut_swap(s, v->count, first, last);
    v->params = model_params(m);
    for (int64_t i = 0; i < v->count; i++)
        v->params -= model_block_params(m, v->dropped[i].parts & m->blocks[v->dropped[i].block].parts);
    v->same_as = at;
    for (int64_t i = 0; i < at && v->same_as == at; i++)
        if (k->variants[i].count == v->count && shared(v, &k->variants[i]) == v->count)
            v->same_as = i;
    return 0;
}

/* Spearman's rho of two orders without ties: 1 - 6 sum d^2 / (n (n^2 - 1)). */
static double rank_correlation(const int64_t *a, const int64_t *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            if (a[i] == b[j])
                sum += (double)((i - j) * (i - j));
    return n > 1 ? 1 - 6 * sum / ((double)n * ((double)n * (double)n - 1)) : 1;
}

static int relate(struct comparison *k, struct err *err)
{
    int64_t n = k->n_criteria, units = k->n_units, *order = mem_alloc((size_t)(n * units), sizeof *order, err);
    if (!order)
        return -1;
    for (int64_t i = 0; i < n; i++)
        scores_order(order + i * units, &k->scores[i]);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            k->correlation[i * n + j] = rank_correlation(order + i * units, order + j * units, units);
            for (int64_t r = 0; r < k->n_ratios; r++) {
                const struct variant *a = &k->variants[(i * k->n_ratios + r) * 2], *b = &k->variants[(j * k->n_ratios + r) * 2];
                k->overlap[(r * n + i) * n + j] = (double)shared(a, b) / (double)a->count;
            }
        }
    free(order);
    return 0;
}

int compare_plan(struct comparison *k, struct model *m, struct err *err)
{
    if (bind(k, err) != 0)
        return -1;
    k->intact_params = model_params(m);
    for (int64_t at = 0; at < k->n_variants; at++) {
        k->variants[at].criterion = at / (2 * k->n_ratios);
        k->variants[at].ratio = at / 2 % k->n_ratios;
        k->variants[at].protected_ = at % 2 == 0;
        if (plan_variant(k, at, m, err) != 0)
            return -1;
    }
    return relate(k, err);
}

void compare_free(struct comparison *k)
{
    arena_free(&k->arena);
    *k = (struct comparison){0};
}
