#include "prune/score.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/rng.h"

const struct criterion criteria[] = {
    {.name = "ppl", .score = "perplexity without", .perplexity = true},
    {.name = "taylor", .score = "sum |w dL/dw|", .backward = true, .weights = true},
    {.name = "magnitude", .score = "sum |w|", .weights = true},
    {.name = "bi", .score = "1 - cos(in, out)"},
    {.name = "angular", .score = "angle / pi", .distance = true},
    {.name = "relative-magnitude", .score = "|out - in| / |out|"},
    {.name = "cka", .score = "1 - CKA(in, out)"},
    {.name = "greedy", .score = "step", .greedy = true},
    {.name = "random", .score = "drawn", .random = true},
    {.name = NULL},
};

const struct criterion *criterion_find(const char *name, struct err *err)
{
    char list[160] = "";
    for (const struct criterion *k = criteria; k->name; k++) {
        if (!strcmp(k->name, name))
            return k;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", k->name);
    }
    err_usage(err, "\"%s\" is none of %s", name, list);
    return NULL;
}

/* A fifth of the units, as the published models; at least one. */
static int64_t count_of(const struct score_options *o, int64_t units)
{
    int64_t fifth = (units + 2) / 5;
    return o->count > 0 ? o->count : fifth > 0 ? fifth : 1;
}

static void score_random(struct scores *s, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (int64_t i = 0; i < s->n; i++)
        s->score[i] = rng_double(&rng);
}

/* The criteria without gradients: one walk for all of them. */
static int run_walk(struct scores *out, const struct criterion *const *which, int64_t n, const struct score_options *o,
                    const struct model *m, const struct compute *c, const struct lora_set *lora, const struct calibration *cal,
                    struct partial *partial, struct progress *progress, struct err *err)
{
    struct watcher watchers[n];
    struct scores *others[n];
    struct similarity_options similarity = {count_of(o, out->n), o->all_tokens};
    struct walk_request r = {.watchers = watchers,
                             .others = others,
                             .steps = count_of(o, out->n),
                             .keep_first = o->keep_first,
                             .keep_last = o->keep_last,
                             .partial = partial};
    int rc = 0;
    for (int64_t i = 0; i < n && rc == 0; i++) {
        if (which[i]->greedy)
            r.greedy = &out[i];
        else if (which[i]->perplexity)
            r.ppl = &out[i];
        else if (which[i]->weights || which[i]->random)
            others[r.n_others++] = &out[i];
        else
            rc = similarity_watch(&watchers[r.n_watchers++], &out[i], m, cal, &similarity, err);
    }
    if (rc == 0)
        rc = score_walk(&r, m, c, lora, cal, progress, err);
    for (int64_t i = 0; i < r.n_watchers; i++)
        watchers[i].release(&watchers[i]);
    for (int64_t i = 0; i < n && rc == 0; i++) {
        if (which[i]->random)
            score_random(&out[i], o->seed);
        else if (which[i]->weights)
            rc = score_magnitude(&out[i], m, c, &o->weights, progress, err);
        if (rc == 0 && o->bootstrap && &out[i] == r.ppl)
            rc = scores_bootstrap(&out[i], o->bootstrap, o->seed, err);
    }
    return rc;
}

int score_run(struct scores *out, const struct criterion *const *which, int64_t n, const struct score_options *o,
              const struct model *m, const struct compute *c, const struct lora_set *lora, const struct calibration *cal,
              struct partial *partial, struct progress *progress, struct err *err)
{
    int64_t made = 0;
    int rc = 0;
    if (o->bootstrap && cal->n < 2) /* said now, not when all is scored */
        rc = err_usage(err, "--bootstrap resamples the calibration rows: it needs at least two");
    for (int64_t i = 0; i < n && rc == 0; i++)
        if (which[i]->weights && lora)
            rc = err_set(err, "%s looks at the weights as they are: merge the adapter into the model first", which[i]->name);
    while (made < n && rc == 0) {
        rc = scores_alloc(&out[made], which[made]->name, m, o->sublayers, err);
        made += rc == 0;
    }
    if (rc == 0)
        rc = which[0]->backward ? score_taylor(&out[0], m, c, cal, &o->weights, partial, progress, err)
                                : run_walk(out, which, n, o, m, c, lora, cal, partial, progress, err);
    for (int64_t i = 0; rc != 0 && i < made; i++)
        scores_free(&out[i]);
    return rc;
}
