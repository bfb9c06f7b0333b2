#include "prune/scores_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/base/rng.h"

int scores_alloc(struct scores *s, const char *criterion, const struct model *m, bool sublayers, struct err *err)
{
    *s = (struct scores){.model_blocks = m->cfg.n_blocks};
    snprintf(s->criterion, sizeof s->criterion, "%s", criterion);
    memcpy(s->model_hash, m->hash, sizeof s->model_hash);
    memcpy(s->fingerprint, m->fingerprint, sizeof s->fingerprint);
    s->score = mem_alloc((size_t)m->n_order, 2 * sizeof *s->score, err);
    s->unit = mem_alloc((size_t)m->n_order, 2 * sizeof *s->unit, err);
    if (!s->score || !s->unit) {
        scores_free(s);
        return -1;
    }
    for (int64_t k = 0; k < m->n_order; k++) {
        unsigned parts = m->blocks[m->order[k]].parts;
        if (!sublayers)
            s->unit[s->n++] = (struct unit){m->order[k], PARTS_ALL};
        for (unsigned p = PART_ATTN; sublayers && p <= PART_FFN; p <<= 1)
            if (parts & p)
                s->unit[s->n++] = (struct unit){m->order[k], p};
    }
    return 0;
}

void scores_free(struct scores *s)
{
    free(s->unit);
    free(s->score);
    free(s->base_nll);
    free(s->removed_nll);
    free(s->row_nll);
    free(s->weight_name);
    free(s->weight);
    free(s->trace);
    free(s->candidates);
    free(s->distance);
    free(s->swap);
    *s = (struct scores){0};
}

bool scores_sublayers(const struct scores *s)
{
    return s->n > 0 && s->unit[0].parts != PARTS_ALL;
}

void scores_order(int64_t *order, const struct scores *s)
{
    for (int64_t i = 0; i < s->n; i++) { /* insertion keeps ties in their order; there are a few dozen units */
        int64_t at = i;
        while (at > 0 && s->score[order[at - 1]] > s->score[i]) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
}

bool scores_may_go(const struct scores *s, int64_t i, int64_t keep_first, int64_t keep_last)
{
    return s->unit[i].block >= keep_first && s->unit[i].block < s->model_blocks - keep_last;
}

int64_t scores_protected_order(int64_t *out, const struct scores *s, int64_t keep_first, int64_t keep_last)
{
    int64_t n = 0;
    scores_order(out, s);
    for (int64_t i = 0; i < s->n; i++)
        if (scores_may_go(s, out[i], keep_first, keep_last))
            out[n++] = out[i];
    return n;
}

double scores_swap_probability(const struct scores *s, int64_t a, int64_t b, int64_t resamples, uint64_t seed)
{
    if (!s->row_nll || s->samples < 2 || resamples < 1)
        return NAN;
    const double *x = s->row_nll + a * s->samples, *y = s->row_nll + b * s->samples;
    double swapped = 0;
    struct rng rng;
    rng_seed(&rng, seed); /* every pair sees the same draws */
    for (int64_t r = 0; r < resamples; r++) {
        double difference = 0;
        for (int64_t i = 0; i < s->samples; i++) {
            int64_t row = rng_below(&rng, s->samples);
            difference += x[row] - y[row];
        }
        swapped += difference > 0 ? 1 : difference == 0 ? 0.5 : 0;
    }
    return swapped / (double)resamples;
}

int scores_bootstrap(struct scores *s, int64_t resamples, uint64_t seed, struct err *err)
{
    if (!s->row_nll || s->samples < 2)
        return err_set(err, "--bootstrap needs the losses of at least two calibration rows: %s",
                       s->row_nll ? "there is one" : "this criterion has none");
    int64_t *order = mem_alloc((size_t)s->n, sizeof *order, err);
    s->swap = order ? mem_alloc((size_t)s->n, sizeof *s->swap, err) : NULL;
    if (s->swap) {
        s->resamples = resamples;
        scores_order(order, s);
        for (int64_t k = 0; k + 1 < s->n; k++)
            s->swap[k] = scores_swap_probability(s, order[k], order[k + 1], resamples, seed);
    }
    free(order);
    return s->swap ? 0 : -1;
}

/* ---- files ---- */

enum { KEEP_FIRST = 4, KEEP_LAST = 2 }; /* for the protected order that is written beside the plain one */

int scores_room(struct scores *s, int64_t n, struct err *err)
{
    s->n = n;
    s->score = mem_alloc((size_t)n, sizeof *s->score, err);
    s->unit = mem_alloc((size_t)n, sizeof *s->unit, err);
    return s->score && s->unit ? 0 : -1;
}

/* Scores that are no numbers rank nothing, and JSON cannot hold them. */
static int check_finite(const struct scores *s, const char *path, struct err *err)
{
    char name[UNIT_NAME];
    if (!isfinite(s->base_ppl))
        return err_set(err, "%s: the perplexity of the model as it is (%g) is not finite", path, s->base_ppl);
    for (int64_t i = 0; i < s->n; i++)
        if (!isfinite(s->score[i]))
            return err_set(err, "%s: the score of block %s (%g) is not finite", path, unit_name(name, s->unit[i]), s->score[i]);
    return 0;
}

int scores_write(const char *path, const struct scores *s, const struct calibration *cal, const json_t *facts, struct err *err)
{
    struct file_writer w;
    return scores_write_part(&w, path, s, cal, facts, err) == 0 ? file_writer_commit(&w, err) : -1;
}

int scores_write_part(struct file_writer *w, const char *path, const struct scores *s, const struct calibration *cal,
                      const json_t *facts, struct err *err)
{
    if (check_finite(s, path, err) != 0)
        return -1;
    int64_t *order = mem_alloc((size_t)s->n, 2 * sizeof *order, err);
    if (!order)
        return -1;
    struct ranking r = {.order = order, .protected = order + s->n};
    scores_order(r.order, s);
    r.n_protected = scores_protected_order(r.protected, s, KEEP_FIRST, KEEP_LAST);
    int rc = (path_has_suffix(path, ".h5") ? scores_write_h5 : scores_write_json)(w, path, s, &r, cal, facts, err);
    free(order);
    return rc;
}

/* Whether the units read are the model's: blocks in ascending order, once each, or halves of blocks in the order they run. */
static int check_units(const struct scores *s, const char *path, struct err *err)
{
    if (s->model_blocks < 1 || s->n > 2 * s->model_blocks)
        return err_set(err, "%s: scores of %lld blocks of a model that has %lld", path, (long long)s->n,
                       (long long)s->model_blocks);
    for (int64_t i = 0; i < s->n; i++) {
        struct unit u = s->unit[i], before = i > 0 ? s->unit[i - 1] : (struct unit){-1, u.parts};
        bool alike = (u.parts == PARTS_ALL) == (before.parts == PARTS_ALL), follows = u.block > before.block;
        follows |= u.block == before.block && before.parts == PART_ATTN && u.parts == PART_FFN;
        if (u.block < 0 || u.block >= s->model_blocks || !follows || !alike)
            return err_set(err, "%s: block indices from 0 to %lld, ascending and once each, were expected; %lld found", path,
                           (long long)s->model_blocks - 1, (long long)u.block);
    }
    return 0;
}

int scores_read(struct scores *s, const char *path, struct err *err)
{
    *s = (struct scores){0};
    int rc = (path_has_suffix(path, ".h5") ? scores_read_h5 : scores_read_json)(s, path, err);
    if (rc == 0)
        rc = check_units(s, path, err);
    if (rc == 0)
        rc = check_finite(s, path, err);
    if (rc != 0)
        scores_free(s);
    return rc;
}
