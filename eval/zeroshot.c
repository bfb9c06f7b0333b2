#include "eval/zeroshot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "data/pytext.h"

/* ---- texts to tokens ---- */

/* The tokens of a task's choices. */
struct encoder {
    const struct task_set *set;
    const struct tokenizer *t;
    int32_t first; /* BOS where it goes first, else -1 */
    int32_t empty; /* what an empty context is; -1: nothing */
    int64_t context_length;
    struct ids context, whole;
    struct ids all; /* every request's tokens, one after another */
    int64_t n;
    struct request *requests; /* [n]: a choice each, document by document */
    size_t *at;               /* [n]: where in `all` its tokens begin, which moves until they have all been added */
    struct arena arena;
};

/* out = the tokens of text[n], behind BOS where that goes first. */
static int encode(struct ids *out, const struct encoder *e, const char *text, size_t n, struct err *err)
{
    out->n = 0;
    if (tokenizer_encode(out, e->t, text, n, err) != 0)
        return -1;
    if (e->first < 0 || (out->n > 0 && out->ids[0] == e->first))
        return 0;
    if (ids_push(out, e->first, err) != 0)
        return -1;
    memmove(out->ids + 1, out->ids, (out->n - 1) * sizeof *out->ids);
    out->ids[0] = e->first;
    return 0;
}

/* The tokens of one choice: leaves both together in e->whole, and returns how many are the context's, or -1. */
static int64_t encode_pair(struct encoder *e, const struct task_choice *choice, struct err *err)
{
    size_t n = pytext_rstrip(choice->context, strlen(choice->context));
    char *text;
    int n_text = asprintf(&text, "%s%s", choice->context, choice->continuation);
    if (n_text < 0)
        return err_set(err, "out of memory");
    int64_t given = -1;
    if (encode(&e->context, e, text, n, err) != 0 || encode(&e->whole, e, text, (size_t)n_text, err) != 0)
        goto done;
    if (e->context.n == 0) {
        if (e->empty < 0) {
            err_set(err, "%s: a context is empty, and the tokenizer has neither EOS nor BOS to stand for it", e->set->file);
            goto done;
        }
        if (ids_push(&e->whole, 0, err) != 0)
            goto done;
        memmove(e->whole.ids + 1, e->whole.ids, (e->whole.n - 1) * sizeof *e->whole.ids);
        e->whole.ids[0] = e->empty;
        given = 1;
        goto done;
    }
    /* The context's own tokens stand even where the two together would be cut otherwise. */
    given = (int64_t)e->context.n;
    memcpy(e->whole.ids, e->context.ids, (e->whole.n < e->context.n ? e->whole.n : e->context.n) * sizeof *e->whole.ids);
done:
    free(text);
    return given;
}

/* Adds the request of document i's choice k. */
static int add_request(struct encoder *e, int64_t i, int k, struct err *err)
{
    const struct task_document *d = &e->set->docs[i];
    int64_t given = encode_pair(e, &d->choice[k], err), n = (int64_t)e->whole.n;
    if (given < 0)
        return -1;
    if (n <= given)
        return err_set(err, "%s: document %lld: choice %d adds no token to its context", e->set->file, (long long)d->index, k);
    if (n - given > e->context_length)
        return err_set(err, "%s: document %lld: choice %d has %lld tokens, the model's context %lld", e->set->file,
                       (long long)d->index, k, (long long)(n - given), (long long)e->context_length);
    int64_t cut = n > e->context_length + 1 ? n - e->context_length - 1 : 0; /* the last token is only predicted */
    e->at[e->n] = e->all.n;
    e->requests[e->n++] = (struct request){.n = n - cut, .first = given - cut};
    for (int64_t p = cut; p < n; p++)
        if (ids_push(&e->all, e->whole.ids[p], err) != 0)
            return -1;
    return 0;
}

static int encoder_open(struct encoder *e, const struct task_set *set, const struct tokenizer *t, int64_t context_length, bool bos,
                        struct err *err)
{
    int32_t bos_id = tokenizer_bos(t), eos_id = tokenizer_eos(t);
    int64_t n = 0;
    *e = (struct encoder){.set = set, .t = t, .first = bos ? bos_id : -1, .context_length = context_length};
    if (bos && bos_id < 0)
        return err_set(err, "--bos: the tokenizer has no BOS token");
    e->empty = eos_id >= 0 && !bos ? eos_id : bos_id;
    for (int64_t i = 0; i < set->n; i++)
        n += set->docs[i].n_choices;
    e->requests = arena_alloc(&e->arena, (size_t)n, sizeof *e->requests, err);
    e->at = arena_alloc(&e->arena, (size_t)n, sizeof *e->at, err);
    return e->requests && e->at ? 0 : -1;
}

/* All requests of the task. */
static int encode_all(struct encoder *e, struct err *err)
{
    for (int64_t i = 0; i < e->set->n; i++)
        for (int choice = 0; choice < e->set->docs[i].n_choices; choice++)
            if (add_request(e, i, choice, err) != 0)
                return -1;
    for (int64_t k = 0; k < e->n; k++)
        e->requests[k].ids = e->all.ids + e->at[k];
    return 0;
}

static void encoder_free(struct encoder *e)
{
    free(e->context.ids);
    free(e->whole.ids);
    free(e->all.ids);
    arena_free(&e->arena);
}

int zeroshot_check(char sha256[65], const struct task_set *set, const struct model *m, const struct tokenizer *t, bool bos,
                   struct err *err)
{
    struct encoder e;
    int rc = encoder_open(&e, set, t, m->cfg.context_length, bos, err) == 0 ? encode_all(&e, err) : -1;
    for (int64_t i = 0, k = 0; rc == 0 && i < set->n; i++) {
        const struct task_document *d = &set->docs[i];
        rc = ids_push(&e.all, d->gold, err);
        for (int choice = 0; choice < d->n_choices && rc == 0; choice++, k++)
            rc = ids_push(&e.all, (int32_t)e.requests[k].n, err) == 0 && ids_push(&e.all, (int32_t)e.requests[k].first, err) == 0
                     ? ids_push(&e.all, (int32_t)d->choice[choice].chars, err)
                     : -1;
    }
    if (rc == 0)
        rc = bytes_sha256(sha256, e.all.ids, e.all.n * sizeof *e.all.ids, err);
    encoder_free(&e);
    return rc;
}

/* ---- likelihoods to metrics ---- */

static int best_of(const double *v, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (v[i] > v[best])
            best = i;
    return best;
}

static void judge(struct zeroshot_document *out, const struct task *t, const struct task_document *d, const struct likelihood *l)
{
    double norm[TASK_MAX_CHOICES];
    for (int k = 0; k < d->n_choices; k++) {
        out->ll[k] = l[k].ll;
        norm[k] = l[k].ll / (double)d->choice[k].chars;
    }
    out->acc = t->greedy ? l[0].greedy : best_of(out->ll, d->n_choices) == d->gold;
    out->acc_norm = t->has_norm && best_of(norm, d->n_choices) == d->gold;
}

/* Standard error of the mean of n outcomes of which a share `mean` is 1 and the rest 0. */
static double share_stderr(double mean, int64_t n)
{
    return sqrt(mean * (1 - mean) / (double)(n - 1));
}

static void sum_up(struct zeroshot_result *r)
{
    double ll = 0;
    int64_t acc = 0, norm = 0;
    for (int64_t i = 0; i < r->n; i++) {
        acc += r->docs[i].acc;
        norm += r->docs[i].acc_norm;
        ll += r->docs[i].ll[0];
    }
    r->acc = (double)acc / (double)r->n;
    r->acc_norm = (double)norm / (double)r->n;
    r->acc_stderr = share_stderr(r->acc, r->n);
    r->acc_norm_stderr = share_stderr(r->acc_norm, r->n);
    r->perplexity = exp(-ll / (double)r->n);
}

static int make_results(struct zeroshot_result *results, const struct task_set *set, const struct likelihood *out, int64_t variants,
                        int64_t n, struct err *err)
{
    for (int64_t v = 0; v < variants; v++) {
        struct zeroshot_result *r = &results[v];
        const struct likelihood *l = out + v * n;
        r->task = set->task;
        r->n = set->n;
        if (!(r->docs = mem_alloc((size_t)set->n, sizeof *r->docs, err)))
            return -1;
        for (int64_t i = 0; i < set->n; l += set->docs[i++].n_choices)
            judge(&r->docs[i], set->task, &set->docs[i], l);
        sum_up(r);
    }
    return 0;
}

int zeroshot_run(struct zeroshot_result *results, const struct task_set *set, const struct model *m, const struct compute *c,
                 const struct lora_set *lora, const struct tokenizer *t, const struct variants *v, bool bos,
                 struct progress *progress, struct err *err)
{
    struct encoder e;
    struct likelihood *out;
    int rc = -1;
    memset(results, 0, (size_t)v->n * sizeof *results);
    if (encoder_open(&e, set, t, m->cfg.context_length, bos, err) != 0)
        goto done;
    progress_begin(progress, set->task->name, set->n, "documents");
    if (encode_all(&e, err) != 0 || !(out = arena_alloc(&e.arena, (size_t)(e.n * v->n), sizeof *out, err)) ||
        likelihood_run(out, m, c, lora, v, e.requests, e.n, progress, set->n, err) != 0)
        goto done;
    progress_end(progress);
    rc = make_results(results, set, out, v->n, e.n, err);
done:
    encoder_free(&e);
    for (int64_t i = 0; rc != 0 && i < v->n; i++)
        zeroshot_free(&results[i]);
    return rc;
}

void zeroshot_free(struct zeroshot_result *r)
{
    free(r->docs);
    *r = (struct zeroshot_result){0};
}

double zeroshot_reported(const struct zeroshot_result *r)
{
    return r->task->reports_norm ? r->acc_norm : r->acc;
}

double zeroshot_reported_stderr(const struct zeroshot_result *r)
{
    return r->task->reports_norm ? r->acc_norm_stderr : r->acc_stderr;
}

double zeroshot_average(double *std_error, const struct zeroshot_result *r, const bool *averaged, int64_t n, int64_t stride)
{
    double sum = 0, variance = 0, count = 0;
    for (int64_t i = 0; i < n; i++) {
        double error = zeroshot_reported_stderr(&r[i * stride]);
        sum += averaged[i] ? zeroshot_reported(&r[i * stride]) : 0;
        variance += averaged[i] ? error * error : 0;
        count += averaged[i];
    }
    if (std_error)
        *std_error = sqrt(variance) / count;
    return sum / count;
}
