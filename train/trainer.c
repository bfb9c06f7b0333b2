#include "train/trainer.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/dir.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "train/journal.h"
#include "train/watch.h"

enum { PASS_ROWS = 1024 }; /* token rows that go through the model together; several micro-batches where they fit */

struct trainer {
    const struct train_options *o;
    const struct model *m;
    struct lora_set *l;
    const struct instructions *train, *eval;
    const char *dir;
    struct lm lm;
    struct backprop bp;
    struct adamw adam;
    int64_t *order;        /* [train->n]: this epoch's rows */
    int64_t epoch;         /* that `order` belongs to; -1 at first */
    int64_t total;         /* steps in all */
    int32_t *ids, *labels; /* [max_rows] */
    float *nll, *weight;   /* [max_rows] */
    double *partial;       /* for the gradient norm */
    double *micro_losses;  /* [micro-batches of a step] */
    double best;           /* lowest evaluation loss so far */
    struct train_result *r;
    struct watch watch;
    struct arena arena;
};

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Steps in an epoch, as transformers counts them: whole steps of micro-batches, at least one. */
static int64_t steps_per_epoch(const struct train_options *o, int64_t n)
{
    int64_t micro = (n + o->micro_batch - 1) / o->micro_batch, steps = micro / (o->batch / o->micro_batch);
    return steps > 0 ? steps : 1;
}

/* How many of a row's tokens need to run: what comes after the last token that predicts a label changes nothing. */
static int64_t useful_length(const struct instruction_row *r)
{
    int64_t last = r->n - 1;
    while (last > 0 && r->labels[last] == LABEL_NONE)
        last--;
    return last;
}

static int64_t targets_of(const struct instruction_row *r)
{
    int64_t n = 0;
    for (int64_t i = 1; i < r->n; i++)
        n += r->labels[i] != LABEL_NONE;
    return n;
}

/* The rows of an epoch, reshuffled for each from the seed and the epoch's number alone, so that resuming finds them again. */
static void prepare_epoch(struct trainer *t, int64_t epoch)
{
    if (epoch == t->epoch)
        return;
    struct rng rng;
    for (int64_t i = 0; i < t->train->n; i++)
        t->order[i] = i;
    if (t->o->shuffle) {
        rng_seed(&rng, t->o->seed + (uint64_t)epoch);
        rng_shuffle(&rng, t->order, t->train->n);
    }
    t->epoch = epoch;
}

/* Appends a row to the batch under way. */
static void append(struct trainer *t, const struct instruction_row *row)
{
    int64_t n = useful_length(row), at = t->lm.batch.rows;
    batch_add(&t->lm.batch, n, 0, NULL);
    memcpy(t->ids + at, row->ids, (size_t)n * sizeof *t->ids);
    for (int64_t i = 0; i < n; i++)
        t->labels[at + i] = row->labels[i + 1]; /* shifted: each position predicts the next */
}

/* Floating-point operations of one pass by arithmetic count: every frozen matrix forward and back to its input (twice forward
 * when recomputing), attention, the head forward and back on the labelled rows only, the LoRA products. */
static double pass_flops(const struct trainer *t)
{
    const struct config *c = &t->m->cfg;
    double attention = 0, q = (double)(c->n_heads * c->head_dim), rows = (double)t->lm.batch.rows;
    for (int64_t i = 0; i < t->lm.batch.n_seqs; i++) {
        double n = (double)t->lm.batch.seqs[i].len;
        attention += 2 * q * n * (n + 1); /* q k^T and p v over the causal half */
    }
    double blocks = 2 * (double)model_running_params(t->m) * rows;
    double lora = 2 * (double)t->l->n_params * rows;
    double head = 2 * (double)(c->vocab_size * c->dim) * (double)t->bp.n_labelled;
    return 2 * blocks + 3 * lora + 3 * (double)t->m->n_order * attention + 2 * head;
}

/* Runs the `count` rows listed in `rows`, which hold whole micro-batches, forward and back. weight_of_token[k] belongs to the
 * k-th micro-batch. */
static int run_pass(struct trainer *t, const int64_t *rows, int64_t count, const double *weight_of_token, double *micro_losses,
                    struct err *err)
{
    int64_t n, at = 0, micro = t->o->micro_batch;
    batch_clear(&t->lm.batch);
    for (int64_t i = 0; i < count; i++)
        append(t, &t->train->rows[rows[i]]);
    if (backprop_forward(&t->bp, t->nll, &n, t->ids, t->labels, err) != 0)
        return -1;
    for (int64_t k = 0; k * micro < count; k++) {
        int64_t tokens = 0;
        double sum = 0;
        for (int64_t i = k * micro; i < min_i64((k + 1) * micro, count); i++)
            tokens += targets_of(&t->train->rows[rows[i]]);
        for (int64_t i = at; i < at + tokens; i++) {
            sum += (double)t->nll[i];
            t->weight[i] = (float)weight_of_token[k];
        }
        micro_losses[k] = sum / (double)tokens;
        at += tokens;
    }
    backprop_backward(&t->bp, t->ids, t->weight, NULL);
    t->r->flops += pass_flops(t);
    return 0;
}

/* Tokens to predict in rows [begin, end) of the epoch's order. */
static int64_t count_targets(const struct trainer *t, const int64_t *rows, int64_t begin, int64_t end)
{
    int64_t n = 0;
    for (int64_t i = begin; i < end; i++)
        n += targets_of(&t->train->rows[rows[i]]);
    return n;
}

/* All micro-batches of step s: gradients, and each one's loss. Returns how many micro-batches there were, or -1. */
static int64_t accumulate(struct trainer *t, int64_t s, struct err *err)
{
    const struct train_options *o = t->o;
    int64_t per_epoch = steps_per_epoch(o, t->train->n), micro = o->micro_batch;
    prepare_epoch(t, s / per_epoch);
    int64_t begin = s % per_epoch * o->batch, n = min_i64(o->batch, t->train->n - begin), n_micro = (n + micro - 1) / micro;
    const int64_t *rows = t->order + begin;
    double all = (double)count_targets(t, rows, 0, n), weight[PASS_ROWS];
    memset(t->l->grads, 0, (size_t)t->l->n_params * sizeof *t->l->grads);
    for (int64_t k = 0; k < n_micro;) {
        int64_t first = k, tokens = 0;
        for (; k < n_micro && k - first < PASS_ROWS; k++) { /* as many micro-batches as fit one pass */
            int64_t more = 0, targets = count_targets(t, rows, k * micro, min_i64((k + 1) * micro, n));
            for (int64_t i = k * micro; i < min_i64((k + 1) * micro, n); i++)
                more += useful_length(&t->train->rows[rows[i]]);
            if (k > first && tokens + more > t->lm.max_rows)
                break;
            tokens += more;
            weight[k - first] = o->token_average ? 1 / all : 1 / ((double)targets * (double)n_micro);
        }
        t->bp.dropout.key = (o->seed << 32) ^ ((uint64_t)(s + 1) * 0x9fb21c651e98df25u + (uint64_t)first);
        if (run_pass(t, rows + first * micro, min_i64(k * micro, n) - first * micro, weight, t->micro_losses + first, err) != 0)
            return -1;
        t->r->tokens += tokens;
    }
    t->r->rows += n;
    return n_micro;
}

/* Mean loss per token over the evaluation rows, without dropout. */
static int evaluate(struct trainer *t, double *loss, struct err *err)
{
    double sum = 0;
    int64_t tokens = 0, n;
    struct dropout saved = t->bp.dropout;
    t->bp.dropout = (struct dropout){0};
    for (int64_t i = 0; i < t->eval->n;) {
        batch_clear(&t->lm.batch);
        for (; i < t->eval->n && t->lm.batch.n_seqs < t->lm.batch.max_seqs &&
               (t->lm.batch.rows == 0 || t->lm.batch.rows + useful_length(&t->eval->rows[i]) <= t->lm.max_rows);
             i++)
            append(t, &t->eval->rows[i]);
        if (backprop_forward(&t->bp, t->nll, &n, t->ids, t->labels, err) != 0)
            return -1;
        for (int64_t k = 0; k < n; k++)
            sum += (double)t->nll[k];
        tokens += n;
    }
    t->bp.dropout = saved;
    *loss = sum / (double)tokens;
    return 0;
}

static int save_adapter(struct trainer *t, const char *name, struct err *err)
{
    char *dir = path_join(t->dir, name, err);
    int rc = dir && dir_check_no_link(dir, err) == 0 && dir_make(dir, err) == 0 ? lora_save(t->l, t->m, dir, err) : -1;
    free(dir);
    return rc;
}

static void remove_checkpoint(const struct trainer *t, int64_t step)
{
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors", "espalier.json"};
    char name[48];
    snprintf(name, sizeof name, "checkpoint-%lld", (long long)step);
    dir_remove_files(t->dir, name, files, sizeof files / sizeof *files);
}

static int after_step(struct trainer *t, int64_t step, FILE *journal, struct progress *progress, struct err *err)
{
    const struct train_options *o = t->o;
    bool last = step == t->total;
    if (t->eval->n > 0 && ((o->eval_every > 0 && step % o->eval_every == 0) || last)) {
        if (evaluate(t, &t->r->eval_loss, err) != 0)
            return -1;
        if (!isfinite(t->r->eval_loss)) /* before anything of this step is saved: the last checkpoint is a good one */
            return err_set(err, "step %lld: the evaluation loss is not finite; a lower --lr may help", (long long)step);
        if (journal_put(journal, t->dir, json_pack("{sI sf}", "step", (json_int_t)step, "eval_loss", t->r->eval_loss), err) != 0)
            return -1;
        progress_say(progress, "step %lld: evaluation loss %.4f", (long long)step, t->r->eval_loss);
        float loss = (float)t->r->eval_loss; /* as the checkpoint keeps it, so that a resumed training decides alike */
        if (!(loss >= (float)t->best)) {
            t->best = (double)loss;
            if (save_adapter(t, "best", err) != 0)
                return -1;
        }
    }
    if (o->save_every > 0 && step % o->save_every == 0) {
        char name[48];
        snprintf(name, sizeof name, "checkpoint-%lld", (long long)step);
        if (save_adapter(t, name, err) != 0 || state_save(t->dir, t->l, &t->adam, t->best, t->o->work, err) != 0)
            return -1;
        if (o->keep > 0 && step > o->keep * o->save_every)
            remove_checkpoint(t, step - o->keep * o->save_every);
    }
    return 0;
}

static int one_step(struct trainer *t, int64_t s, FILE *journal, struct progress *progress, struct err *err)
{
    double start = clock_seconds(), loss = 0, lr = linear_schedule(t->o->lr, s, t->o->warmup, t->total);
    int64_t tokens = t->r->tokens, n_micro = accumulate(t, s, err);
    if (n_micro < 0)
        return -1;
    double norm = gradient_norm(t->lm.c->pool, t->partial, t->l->grads, t->l->n_params);
    if (!isfinite(norm))
        return err_set(err, "step %lld: the gradient's norm is not finite; a lower --lr may help", (long long)s + 1);
    double clip = t->o->clip > 0 ? fmin(1, t->o->clip / (norm + 1e-6)) : 1;
    adamw_step(&t->adam, t->lm.c->pool, t->l->params, t->l->grads, lr, clip);
    json_t *micro = json_array();
    for (int64_t k = 0; k < n_micro; k++) {
        loss += t->micro_losses[k] / (double)n_micro;
        json_array_append_new(micro, json_real(t->micro_losses[k]));
    }
    double seconds = clock_seconds() - start;
    t->r->seconds += seconds;
    t->r->last_loss = loss;
    if (isnan(t->r->first_loss))
        t->r->first_loss = loss;
    watch_step(&t->watch, s + 1, loss, norm, s + 1 == t->total, progress);
    return journal_put(journal, t->dir,
                       json_pack("{sI sf so sf sf sf}", "step", (json_int_t)s + 1, "loss", loss, "micro_losses", micro, "grad_norm",
                                 norm, "lr", lr, "tokens_per_s", (double)(t->r->tokens - tokens) / seconds),
                       err);
}

int train_check(const struct train_options *o, struct err *err)
{
    if (o->batch < 1 || o->micro_batch < 1 || o->batch % o->micro_batch)
        return err_usage(err, "--batch %lld must be a positive multiple of --micro-batch %lld", (long long)o->batch,
                         (long long)o->micro_batch);
    if (o->batch / o->micro_batch > PASS_ROWS)
        return err_usage(err, "--batch %lld: at most %d micro-batches in a step", (long long)o->batch, PASS_ROWS);
    if (!(o->lr >= 0) || o->clip < 0 || o->warmup < 0 || o->cutoff < 2 || (o->steps < 1 && o->epochs < 1))
        return err_usage(err, "--lr, --clip and --warmup must not be negative, --cutoff at least 2, --steps or --epochs positive");
    if (o->eval_every < 0 || o->save_every < 0 || o->keep < 0)
        return err_usage(err, "--eval-every, --save-every and --keep must not be negative");
    return 0;
}

static int bind(struct trainer *t, const struct compute *c, struct err *err)
{
    const struct train_options *o = t->o;
    int64_t rows = o->micro_batch * o->cutoff > PASS_ROWS ? o->micro_batch * o->cutoff : PASS_ROWS;
    int64_t seqs = rows; /* a row has at least one token */
    size_t n = (size_t)t->l->n_params;
    t->order = arena_alloc(&t->arena, (size_t)t->train->n, sizeof *t->order, err);
    t->ids = arena_alloc(&t->arena, (size_t)rows, sizeof *t->ids, err);
    t->labels = arena_alloc(&t->arena, (size_t)rows, sizeof *t->labels, err);
    t->nll = arena_alloc(&t->arena, (size_t)rows, sizeof *t->nll, err);
    t->weight = arena_alloc(&t->arena, (size_t)rows, sizeof *t->weight, err);
    t->partial = arena_alloc(&t->arena, n / 4096 + 1, sizeof *t->partial, err);
    t->micro_losses = arena_alloc(&t->arena, (size_t)(o->batch / o->micro_batch), sizeof *t->micro_losses, err);
    t->adam = (struct adamw){0.9,
                             0.999,
                             1e-8,
                             arena_alloc(&t->arena, n, sizeof(float), err),
                             arena_alloc(&t->arena, n, sizeof(float), err),
                             t->l->n_params,
                             0};
    if (!t->order || !t->ids || !t->labels || !t->nll || !t->weight || !t->partial || !t->micro_losses || !t->adam.m || !t->adam.v)
        return -1;
    if (lm_open(&t->lm, t->m, c, t->l, rows, seqs, o->cutoff, err) != 0 || backprop_open(&t->bp, &t->lm, o->memory, err) != 0)
        return -1;
    double p = t->l->dropout;
    if (p > 0)
        t->bp.dropout = (struct dropout){.threshold = (uint32_t)(p * 4294967296.0), .scale = (float)(1 / (1 - p))};
    return 0;
}

/* train.h5, whose time and memory are those of the training: the facts were made before it. */
static int write_curves(const char *dir, const json_t *facts, double seconds, struct err *err)
{
    double before = json_number_value(json_object_get(facts, "wall_seconds"));
    json_t *now = json_pack("{sf sI}", "wall_seconds", before + seconds, "peak_rss_bytes", (json_int_t)mem_peak_rss());
    int rc = now && (!facts || json_object_update_missing(now, (json_t *)facts) == 0) ? journal_to_h5(dir, now, err)
                                                                                      : err_set(err, "out of memory");
    json_decref(now);
    return rc;
}

int train_lora(struct train_result *r, struct lora_set *l, const struct model *m, const struct compute *c,
               const struct instructions *train, const struct instructions *eval, const struct train_options *o, const char *dir,
               const json_t *facts, struct progress *progress, struct err *err)
{
    struct trainer t = {.o = o, .m = m, .l = l, .train = train, .eval = eval, .dir = dir, .epoch = -1, .best = NAN, .r = r};
    FILE *journal = NULL;
    double began = clock_seconds();
    int rc = -1;
    *r = (struct train_result){.first_loss = NAN, .last_loss = NAN, .eval_loss = NAN};
    if (train_check(o, err) != 0 || bind(&t, c, err) != 0)
        goto done;
    t.total = o->steps > 0 ? o->steps : o->epochs * steps_per_epoch(o, train->n);
    if (o->resume && state_load(dir, l, &t.adam, &t.best, o->work, err) != 0)
        goto done;
    int64_t first = t.adam.t;
    if (journal_open(&journal, dir, first, err) != 0)
        goto done;
    progress_begin(progress, "training", t.total, "steps");
    for (int64_t s = first; s < t.total; s++) {
        if (one_step(&t, s, journal, progress, err) != 0)
            goto done;
        progress_update(progress, s + 1);
        if (after_step(&t, s + 1, journal, progress, err) != 0)
            goto done;
    }
    progress_end(progress);
    r->steps = t.total;
    rc = lora_save(l, m, dir, err) == 0 ? write_curves(dir, facts, clock_seconds() - began, err) : -1;
done:
    r->warnings = json_incref(t.watch.warnings);
    watch_free(&t.watch);
    if (journal)
        fclose(journal);
    backprop_close(&t.bp);
    lm_close(&t.lm);
    arena_free(&t.arena);
    return rc;
}
