#include "prune/score_walk_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool wants_variants(const struct walk *w)
{
    return w->r->ppl || w->r->greedy;
}

static int64_t rounds(const struct walk *w)
{
    return w->r->greedy ? w->r->steps : wants_variants(w) ? 1 : 0;
}

/* Whether the greedy search may take a unit out. */
static bool is_up(const struct walk *w, int64_t unit)
{
    return scores_may_go(w->units, unit, w->r->keep_first, w->r->keep_last);
}

/* Whether a variant without this unit is tried in this round. */
static bool is_tried(const struct walk *w, int64_t unit)
{
    return wants_variants(w) && ((w->at.round == 0 && w->r->ppl) || is_up(w, unit));
}

/* ---- saving and resuming ---- */

enum { HEAD_SEGMENTS = 8 };

/* What a partial file holds before the states; their number is in there. */
static void head_segments(struct walk *w, struct segment head[HEAD_SEGMENTS])
{
    size_t n = (size_t)w->units->n, steps = (size_t)rounds(w), targets = (size_t)(w->units->samples * w->units->targets);
    struct segment segments[HEAD_SEGMENTS] = {
        {&w->at, sizeof w->at},
        {&w->n_live, sizeof w->n_live},
        {w->live, n * sizeof *w->live},
        {w->who, (n + 1) * sizeof *w->who},
        {w->table, steps * n * sizeof *w->table},
        {w->gone, steps * sizeof *w->gone},
        {w->trace, steps * sizeof *w->trace},
        {w->r->ppl ? w->r->ppl->removed_nll : NULL, w->r->ppl ? n * targets * sizeof(float) : 0},
    };
    memcpy(head, segments, sizeof segments);
}

static struct segment states_segment(const struct walk *w)
{
    return (struct segment){sweep_state(&w->s, 1), (size_t)(w->at.n_variants * w->s.state_floats) * sizeof(float)};
}

static int save(struct walk *w, struct err *err)
{
    struct segment segments[HEAD_SEGMENTS + 1];
    head_segments(w, segments);
    segments[HEAD_SEGMENTS] = states_segment(w);
    return partial_save(w->r->partial, segments, HEAD_SEGMENTS + 1, err);
}

static bool makes_sense(const struct walk *w)
{
    const struct cursor *a = &w->at;
    int64_t n = w->units->n;
    bool ok = a->round >= 0 && a->round < rounds(w) && w->n_live == n - a->round && a->position >= 0 && a->position <= w->n_live &&
              a->n_variants >= 0 && a->n_variants <= a->position && a->finished >= 0 && a->finished <= a->n_variants;
    for (int64_t k = 0; ok && k < w->n_live; k++)
        ok = w->live[k] >= 0 && w->live[k] < n;
    for (int64_t k = 0; ok && k < a->round; k++)
        ok = w->gone[k] >= 0 && w->gone[k] < n;
    for (int64_t v = 1; ok && v <= a->n_variants; v++)
        ok = w->who[v] >= 0 && w->who[v] < n;
    return ok;
}

/* *resumed tells whether there was something to take up. State 0 is not kept: it is walked again, for the watchers. */
static int load(struct walk *w, bool *resumed, struct err *err)
{
    FILE *in;
    struct segment head[HEAD_SEGMENTS];
    if (partial_open(&in, w->r->partial, err) != 0)
        return -1;
    *resumed = in != NULL;
    if (!in)
        return 0;
    head_segments(w, head);
    int rc = partial_read(in, w->r->partial, head, HEAD_SEGMENTS, err);
    if (rc == 0 && !makes_sense(w))
        rc = err_set(err, "%s: it is damaged; remove it or leave out --resume to begin anew", w->r->partial->path);
    struct segment states = states_segment(w);
    if (rc == 0)
        rc = partial_read(in, w->r->partial, &states, 1, err);
    fclose(in);
    return rc;
}

static int save_if_due(struct walk *w, struct err *err)
{
    return partial_due(w->r->partial) ? save(w, err) : 0;
}

/* ---- states kept for the next round of a greedy search ----
 * When unit b is removed, everything before it stays as it was: the next round starts from the states before b. They are kept
 * before every p-th live unit, with p such that a third of the free memory holds them. */

static int keep_room(struct walk *w, struct err *err)
{
    int64_t n = w->units->n, stride = 1;
    double state = (double)w->s.state_floats * sizeof(float), budget = (double)mem_available() / 3;
    w->kept = arena_alloc(&w->arena, (size_t)n, sizeof *w->kept, err);
    w->kept_variants = arena_alloc(&w->arena, (size_t)n, sizeof *w->kept_variants, err);
    if (!w->kept || !w->kept_variants)
        return -1;
    for (int64_t p = 0; p < n; p++)
        w->kept_variants[p] = -1;
    if (rounds(w) < 2)
        return 0;
    while (stride < n && state * (double)n * (double)(n + 1) / 2 / (double)stride > budget)
        stride++;
    for (int64_t p = stride; p < n; p += stride)
        if (!(w->kept[p] = arena_alloc(&w->arena, (size_t)(p + 1), (size_t)w->s.state_floats * sizeof(float), err)))
            return -1;
    return 0;
}

static void keep_states(struct walk *w)
{
    int64_t p = w->at.position;
    bool extra = w->at.round == 0 && w->r->ppl && (w->r->keep_first || w->r->keep_last); /* variants that the next round has not */
    if (p >= w->n_live || !w->kept[p] || w->at.round + 1 >= rounds(w) || extra)
        return;
    sweep_copy(&w->s, w->kept[p], w->s.states, w->at.n_variants + 1);
    w->kept_variants[p] = w->at.n_variants;
}

/* Puts back the latest states that the removal of the live unit at `changed` leaves valid; nothing if there are none. */
static int start_round(struct walk *w, int64_t changed, struct err *err)
{
    int64_t p = changed;
    for (int64_t q = changed + 1; q < w->units->n; q++)
        w->kept_variants[q] = -1;
    while (p > 0 && w->kept_variants[p] < 0)
        p--;
    w->at.finished = 0;
    w->at.position = p;
    w->at.n_variants = p > 0 ? w->kept_variants[p] : 0;
    if (p > 0)
        sweep_copy(&w->s, w->s.states, w->kept[p], w->at.n_variants + 1);
    return p > 0 ? 0 : sweep_embed(&w->s, err);
}

/* ---- the walk ---- */

void walk_step_base(struct walk *w, int64_t unit, int64_t spare, bool watched)
{
    sweep_copy(&w->s, sweep_state(&w->s, spare), w->s.states, 1);
    sweep_advance(&w->s, w->slot[unit], w->units->unit[unit].parts, 0, 1);
    for (int64_t k = 0; watched && k < w->r->n_watchers; k++)
        w->r->watchers[k].see(&w->r->watchers[k], w->s.lm.c, unit, sweep_state(&w->s, spare), w->s.states);
}

/* Takes all states past the next live unit; it becomes a variant of its own where asked for. */
static void step(struct walk *w)
{
    int64_t unit = w->live[w->at.position], spare = w->at.n_variants + 1;
    walk_step_base(w, unit, spare, w->at.round == 0);
    if (w->at.n_variants > 0)
        sweep_advance(&w->s, w->slot[unit], w->units->unit[unit].parts, 1, w->at.n_variants);
    w->at.position++;
    if (is_tried(w, unit)) {
        w->who[spare] = unit;
        w->at.n_variants = spare;
    }
    keep_states(w);
}

static int finish_base(struct walk *w, struct err *err)
{
    double mean;
    if (w->have_base)
        return 0;
    if (sweep_finish(&w->s, w->base, &mean, 0, err) != 0)
        return -1;
    w->base_ppl = exp(mean);
    w->have_base = true;
    return 0;
}

/* State 0 of an interrupted walk, and all that the watchers had seen. */
static int walk_again(struct walk *w, struct err *err)
{
    int64_t spare = w->s.max_states - 1, whole = w->at.round > 0 ? w->units->n * w->s.cal->n + sweep_head_cost(&w->s) : 0;
    if (sweep_embed(&w->s, err) != 0)
        return -1;
    w->s.done = 0;
    progress_begin(w->s.progress, "returning to where it was", whole + w->at.position * w->s.cal->n, "sequences");
    if (w->at.round > 0) {
        for (int64_t i = 0; i < w->units->n; i++)
            walk_step_base(w, i, spare, true);
        if (finish_base(w, err) != 0 || sweep_embed(&w->s, err) != 0)
            return -1;
    }
    for (int64_t p = 0; p < w->at.position; p++)
        walk_step_base(w, w->live[p], spare, w->at.round == 0);
    progress_end(w->s.progress);
    return 0;
}

int walk_finish(struct walk *w, int64_t unit, int64_t state, struct err *err)
{
    int64_t n = w->units->n, targets = w->units->samples * w->units->targets;
    float *nll = w->at.round == 0 && w->r->ppl ? w->r->ppl->removed_nll + unit * targets : w->nll;
    double mean;
    if (sweep_finish(&w->s, nll, &mean, state, err) != 0)
        return -1;
    w->table[w->at.round * n + unit] = exp(mean);
    return 0;
}

/* All variants of this round. */
static int finish_variants(struct walk *w, struct err *err)
{
    while (w->at.finished < w->at.n_variants) {
        if (walk_finish(w, w->who[w->at.finished + 1], w->at.finished + 1, err) != 0)
            return -1;
        w->at.finished++;
        if (save_if_due(w, err) != 0)
            return -1;
    }
    return 0;
}

static int run_round(struct walk *w, struct err *err)
{
    while (w->at.position < w->n_live) {
        step(w);
        if (wants_variants(w) && save_if_due(w, err) != 0)
            return -1;
    }
    if (w->at.round == 0 && finish_base(w, err) != 0)
        return -1;
    return finish_variants(w, err);
}

/* The live unit, as a place in w->live, whose removal costs least in this round; the first of equals. */
static int64_t best_live(const struct walk *w)
{
    const double *row = w->table + w->at.round * w->units->n;
    int64_t best = -1;
    for (int64_t k = 0; k < w->n_live; k++)
        if (is_up(w, w->live[k]) && (best < 0 || row[w->live[k]] < row[w->live[best]]))
            best = k;
    return best;
}

static void begin_progress(struct walk *w)
{
    int64_t n = w->s.cal->n, left = w->n_live - w->at.position, passes = left * n, heads = 1;
    if (wants_variants(w)) {
        passes += n * (w->n_live * (w->n_live - 1) - w->at.position * (w->at.position - 1)) / 2;
        heads += w->n_live;
    }
    if (w->r->greedy)
        snprintf(w->what, sizeof w->what, "greedy search, %lld of %lld", (long long)w->at.round + 1, (long long)w->r->steps);
    else
        snprintf(w->what, sizeof w->what, wants_variants(w) ? "scoring" : "walking through the model");
    w->s.done = 0;
    progress_begin(w->s.progress, w->what, passes + heads * sweep_head_cost(&w->s), "sequences");
}

/* Rounds until enough units are out. The first one is the plain ppl sweep. */
static int run_rounds(struct walk *w, struct err *err)
{
    for (;;) {
        begin_progress(w);
        if (run_round(w, err) != 0)
            return -1;
        progress_end(w->s.progress);
        if (w->at.round == 0 && walk_mend_broken(w, err) != 0)
            return -1;
        if (!w->r->greedy)
            return 0;
        int64_t at = best_live(w), unit = w->live[at];
        w->gone[w->at.round] = unit;
        w->trace[w->at.round] = w->table[w->at.round * w->units->n + unit];
        w->n_live--;
        memmove(w->live + at, w->live + at + 1, (size_t)(w->n_live - at) * sizeof *w->live);
        if (++w->at.round == w->r->steps)
            return 0;
        if (start_round(w, at, err) != 0)
            return -1;
    }
}

/* ---- results ---- */

static int give_base(struct scores *s, const struct walk *w, struct err *err)
{
    int64_t targets = w->units->samples * w->units->targets;
    s->base_ppl = w->base_ppl;
    if (s != w->r->ppl)
        return 0;
    for (int64_t i = 0; i < s->n; i++)
        s->score[i] = w->table[i];
    if (!(s->base_nll = mem_alloc((size_t)targets, sizeof *s->base_nll, err)) ||
        !(s->row_nll = mem_alloc((size_t)s->n, (size_t)s->samples * sizeof *s->row_nll, err)))
        return -1;
    memcpy(s->base_nll, w->base, (size_t)targets * sizeof *s->base_nll);
    for (int64_t row = 0; row < s->n * s->samples; row++) {
        double sum = 0;
        for (int64_t k = 0; k < s->targets; k++)
            sum += (double)s->removed_nll[row * s->targets + k];
        s->row_nll[row] = sum / (double)s->targets;
    }
    return 0;
}

/* Steps at which units go. Those that stay follow in the order of the last round's perplexities, and last those never tried. */
static int give_greedy(struct scores *s, struct walk *w, struct err *err)
{
    int64_t n = s->n, steps = w->r->steps;
    const double *last = w->table + (steps - 1) * n;
    s->steps = steps;
    s->trace = mem_alloc((size_t)steps, sizeof *s->trace, err);
    s->candidates = mem_alloc((size_t)(steps * n), sizeof *s->candidates, err);
    if (!s->trace || !s->candidates)
        return -1;
    memcpy(s->trace, w->trace, (size_t)steps * sizeof *s->trace);
    memcpy(s->candidates, w->table, (size_t)(steps * n) * sizeof *s->candidates);
    for (int64_t k = 0; k < steps; k++)
        s->score[w->gone[k]] = (double)(k + 1);
    for (int64_t k = 0; k < w->n_live; k++) {
        int64_t i = w->live[k], rank = 1;
        for (int64_t q = 0; q < w->n_live; q++) {
            double mine = last[i], other = last[w->live[q]];
            rank += isnan(mine) ? !isnan(other) || q < k : other < mine || (other == mine && q < k);
        }
        s->score[i] = (double)(steps + rank);
    }
    return 0;
}

static int bind(struct walk *w, const struct model *m, const struct calibration *cal, struct err *err)
{
    size_t n = (size_t)w->units->n, targets = (size_t)(cal->n * (cal->len - 1)), table = (size_t)(rounds(w) + 1) * n;
    w->slot = arena_alloc(&w->arena, n, sizeof *w->slot, err);
    w->live = arena_alloc(&w->arena, n, sizeof *w->live, err);
    w->who = arena_alloc(&w->arena, n + 2, sizeof *w->who, err);
    w->table = arena_alloc(&w->arena, table, sizeof *w->table, err);
    w->trace = arena_alloc(&w->arena, table, sizeof *w->trace, err);
    w->gone = arena_alloc(&w->arena, table, sizeof *w->gone, err);
    w->base = arena_alloc(&w->arena, targets, sizeof *w->base, err);
    w->nll = arena_alloc(&w->arena, targets, sizeof *w->nll, err);
    if (!w->slot || !w->live || !w->who || !w->table || !w->trace || !w->gone || !w->base || !w->nll)
        return -1;
    for (size_t i = 0; i < table; i++)
        w->table[i] = NAN;
    for (int64_t i = 0, slot = 0; i < w->units->n; i++) {
        while (m->order[slot] != w->units->unit[i].block)
            slot++;
        w->slot[i] = slot;
        w->live[i] = i;
    }
    w->n_live = w->units->n;
    if (w->r->ppl && !(w->r->ppl->removed_nll = mem_alloc(n, targets * sizeof(float), err)))
        return -1;
    return keep_room(w, err);
}

static int check_steps(const struct walk *w, struct err *err)
{
    int64_t up = 0;
    for (int64_t i = 0; i < w->units->n; i++)
        up += is_up(w, i);
    up = up < w->units->n ? up : w->units->n - 1;
    if (w->r->greedy && (w->r->steps < 1 || w->r->steps > up))
        return err_usage(err, "--count %lld: the greedy search can take out 1 to %lld", (long long)w->r->steps, (long long)up);
    return 0;
}

/* Every scores that the request names, one after the other; NULL at the end. */
static struct scores *asked_for(const struct walk_request *r, int64_t k)
{
    struct scores *all[] = {r->ppl, r->greedy};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] && k-- == 0)
            return all[i];
    if (k < r->n_watchers)
        return r->watchers[k].scores;
    k -= r->n_watchers;
    return k < r->n_others ? r->others[k] : NULL;
}

int score_walk(const struct walk_request *r, const struct model *m, const struct compute *c, const struct lora_set *lora,
               const struct calibration *cal, struct progress *progress, struct err *err)
{
    struct walk w = {.r = r, .units = asked_for(r, 0)};
    bool resumed = false;
    int rc = -1;
    for (int64_t k = 0; asked_for(r, k); k++) {
        asked_for(r, k)->samples = cal->n;
        asked_for(r, k)->targets = cal->len - 1;
    }
    if (check_steps(&w, err) != 0 ||
        sweep_open(&w.s, m, c, lora, cal, wants_variants(&w) ? w.units->n + 2 : 2, progress, err) != 0 ||
        bind(&w, m, cal, err) != 0 || load(&w, &resumed, err) != 0)
        goto done;
    if ((resumed ? walk_again(&w, err) : sweep_embed(&w.s, err)) != 0 || run_rounds(&w, err) != 0)
        goto done;
    rc = r->greedy ? give_greedy(r->greedy, &w, err) : 0;
    for (int64_t k = 0; rc == 0 && asked_for(r, k); k++)
        rc = give_base(asked_for(r, k), &w, err);
    for (int64_t k = 0; rc == 0 && k < r->n_watchers; k++)
        r->watchers[k].finish(&r->watchers[k], c);
done:
    sweep_close(&w.s);
    arena_free(&w.arena);
    return rc;
}

double score_walk_ppl_flops(const struct model *m, int64_t rows, int64_t len)
{
    double L = (double)m->n_order, per_block = 2.0 * (double)model_block_params(m, PARTS_ALL);
    /* causal attention: q k^T and p v over half of the T x T square */
    per_block += 2.0 * (double)(m->cfg.n_heads * m->cfg.head_dim) * (double)(len + 1);
    double head = 2.0 * (double)(m->cfg.vocab_size * m->cfg.dim) * (double)(len - 1) / (double)len;
    return (double)rows * (per_block * L * (L + 1) / 2 + head * (L + 1));
}
