#include "prune/plan.h"

#include <math.h>
#include <stdlib.h>

#include "core/base/json.h"

int plan_count(int64_t *count, double ratio, int64_t n, struct err *err)
{
    if (!(ratio > 0 && ratio < 1))
        return err_usage(err, "--ratio %g: a number between 0 and 1 was expected", ratio);
    *count = (int64_t)floor(ratio * (double)n + 0.5);
    return 0;
}

/* The first unit of the closest window of `count` units that may all go, or -1. */
static int64_t closest_window(const struct scores *s, int64_t count, int64_t keep_first, int64_t keep_last)
{
    const double *distance = s->distance + count * s->n;
    int64_t best = -1;
    for (int64_t i = 0; i + count <= s->n; i++)
        if (scores_may_go(s, i, keep_first, keep_last) && scores_may_go(s, i + count - 1, keep_first, keep_last) &&
            (best < 0 || distance[i] < distance[best]))
            best = i;
    return best;
}

int plan_choose(struct unit *dropped, const struct scores *s, int64_t count, int64_t keep_first, int64_t keep_last, struct err *err)
{
    int64_t *order = mem_alloc((size_t)s->n, sizeof *order, err);
    if (!order)
        return -1;
    int rc = 0;
    int64_t n = scores_protected_order(order, s, keep_first, keep_last);
    if (count < 1 || count > n || count >= s->n)
        rc = err_set(err, "%lld %s to drop: 1 to %lld of %lld may go when the first %lld and the last %lld blocks stay",
                     (long long)count, scores_sublayers(s) ? "halves of blocks" : "blocks", (long long)(n < s->n ? n : s->n - 1),
                     (long long)s->n, (long long)keep_first, (long long)keep_last);
    int64_t first = rc == 0 && s->distance ? closest_window(s, count, keep_first, keep_last) : -1;
    for (int64_t i = 0; rc == 0 && i < count; i++)
        dropped[i] = s->unit[first >= 0 ? first + i : order[i]];
    free(order);
    return rc;
}

double plan_cut_swap(const struct scores *s, int64_t count, int64_t keep_first, int64_t keep_last)
{
    enum { RESAMPLES = 1000, SEED = 1234 };
    struct err none = {0};
    int64_t *order = mem_alloc((size_t)s->n, sizeof *order, &none);
    double p = NAN;
    if (order && count > 0 && count < scores_protected_order(order, s, keep_first, keep_last))
        p = scores_swap_probability(s, order[count - 1], order[count], RESAMPLES, SEED);
    free(order);
    return p;
}

json_t *plan_units(const struct unit *units, int64_t n)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(list, unit_json(units[i]));
    return list;
}

/* Tensors that a Hugging Face folder holds as zeros because only half of a block was dropped; numbered as there. */
static json_t *zeroed_tensors(const struct model *m)
{
    json_t *list = json_array();
    for (int64_t k = 0; k < m->n_order; k++)
        for (unsigned part = PART_ATTN; part <= PART_FFN; part <<= 1)
            if (!(m->blocks[m->order[k]].parts & part))
                json_array_append_new(list, json_sprintf("model.layers.%lld.%s.weight", (long long)k,
                                                         proj_names[part == PART_ATTN ? PROJ_O : PROJ_DOWN]));
    return list;
}

int plan_write(struct file_writer *w, const char *path, const struct model *m, const struct unit *dropped, int64_t n,
               const char *criterion, const char *scores_sha256, const json_t *repair, const json_t *facts, struct err *err)
{
    json_t *kept = json_array(), *map = json_object();
    int64_t after = model_params(m), before = after;
    for (int64_t i = 0; i < n; i++)
        before += model_block_params(m, dropped[i].parts);
    for (int64_t k = 0; k < m->n_order; k++) {
        char old[24];
        snprintf(old, sizeof old, "%lld", (long long)m->order[k]);
        json_array_append_new(kept, json_integer(m->order[k]));
        json_object_set_new(map, old, json_integer(k));
    }
    json_t *root = json_pack("{so so so so ss* ss* sO* sI sI ss}", "kept", kept, "dropped", plan_units(dropped, n), "map", map,
                             "zeroed", zeroed_tensors(m), "criterion", criterion, "scores_sha256", scores_sha256, "repair", repair,
                             "params_before", (json_int_t)before, "params_after", (json_int_t)after, "model_hash", m->hash);
    json_object_update_missing(root, (json_t *)facts);
    int rc = root ? json_write_part(w, path, root, err) : err_set(err, "%s: out of memory", path);
    json_decref(root);
    return rc;
}
