#include "prune/plan.h"

#include <math.h>
#include <stdlib.h>

#include "core/base/json.h"

int plan_count(int64_t *count, double ratio, int64_t n_blocks, struct err *err)
{
    if (!(ratio > 0 && ratio < 1))
        return err_usage(err, "--ratio %g: a number between 0 and 1 was expected", ratio);
    *count = (int64_t)floor(ratio * (double)n_blocks + 0.5);
    return 0;
}

int plan_choose(int64_t *dropped, const struct scores *s, int64_t count, int64_t keep_first, int64_t keep_last, struct err *err)
{
    int64_t *order = mem_alloc((size_t)s->n_blocks, sizeof *order, err);
    if (!order)
        return -1;
    int rc = 0;
    int64_t n = scores_protected_order(order, s, keep_first, keep_last);
    if (count < 1 || count > n || count >= s->n_blocks)
        rc = err_set(err, "%lld blocks to drop: 1 to %lld of %lld may go when the first %lld and the last %lld stay",
                     (long long)count, (long long)(n < s->n_blocks ? n : s->n_blocks - 1), (long long)s->n_blocks,
                     (long long)keep_first, (long long)keep_last);
    for (int64_t i = 0; rc == 0 && i < count; i++)
        dropped[i] = order[i];
    free(order);
    return rc;
}

int plan_write(const char *path, const struct model *m, const int64_t *dropped, int64_t n, const char *criterion,
               const char *scores_sha256, const json_t *facts, struct err *err)
{
    json_t *kept = json_array(), *gone = json_array(), *map = json_object();
    int64_t after = model_params(m), before = after + n * model_block_params(m);
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(gone, json_integer(dropped[i]));
    for (int64_t k = 0; k < m->n_order; k++) {
        char old[24];
        snprintf(old, sizeof old, "%lld", (long long)m->order[k]);
        json_array_append_new(kept, json_integer(m->order[k]));
        json_object_set_new(map, old, json_integer(k));
    }
    json_t *root =
        json_pack("{so so so ss* ss* sI sI ss}", "kept", kept, "dropped", gone, "map", map, "criterion", criterion, "scores_sha256",
                  scores_sha256, "params_before", (json_int_t)before, "params_after", (json_int_t)after, "model_hash", m->hash);
    json_object_update_missing(root, (json_t *)facts);
    int rc = json_write(path, root, err);
    json_decref(root);
    return rc;
}
