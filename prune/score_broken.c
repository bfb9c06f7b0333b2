/* Removals that break the model, in bf16. */
#include "prune/score_walk_impl.h"

/* Where a removal breaks the model, what comes after it amplifies the rounding of bf16: SmolLM2 without its first or second block
 * was off float32's perplexity by up to 2 % in seven draws of calibration rows, without any other by 0.7 % but for two of 196 near
 * 1 %. From this many times the intact model's perplexity on it is taken once more, in float32. */
static const double BROKEN = 10;

static bool is_broken(const struct walk *w, int64_t unit)
{
    return w->table[unit] > BROKEN * w->base_ppl; /* not where it is NaN, which was not tried */
}

/* States 1 and on become the model without each broken unit, in float32 and in the units' order. */
static int walk_broken(struct walk *w, int64_t n_broken, struct err *err)
{
    int64_t left = n_broken, out = 0;
    if (sweep_embed(&w->s, err) != 0)
        return -1;
    for (int64_t i = 0; i < w->units->n; i++) {
        bool broken = is_broken(w, i);
        unsigned parts = w->units->unit[i].parts;
        if (left > 0)
            walk_step_base(w, i, out + 1, false);
        if (out > 0)
            sweep_advance(&w->s, w->slot[i], parts, 1, out);
        out += broken;
        left -= broken;
    }
    return 0;
}

static int finish_broken(struct walk *w, struct err *err)
{
    for (int64_t i = 0, state = 1; i < w->units->n; i++)
        if (is_broken(w, i) && walk_finish(w, i, state++, err) != 0)
            return -1;
    return 0;
}

int walk_mend_broken(struct walk *w, struct err *err)
{
    const struct compute *c = w->s.lm.c;
    struct compute exact = compute_in_f32(c);
    int64_t n = 0, passes = 0, last = 0;
    for (int64_t i = 0; i < w->units->n; i++)
        if (is_broken(w, i)) {
            passes += w->units->n - 1 - i;
            last = i;
            n++;
        }
    if (n == 0 || compute_is_f32(c))
        return 0;
    w->s.done = 0;
    progress_begin(w->s.progress, "broken ones in float32", (passes + last + 1) * w->s.cal->n + n * sweep_head_cost(&w->s),
                   "sequences");
    w->s.lm.c = &exact;
    int rc = walk_broken(w, n, err) == 0 ? finish_broken(w, err) : -1;
    w->s.lm.c = c;
    progress_end(w->s.progress);
    return rc;
}
