#include "eval/ppl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_ROWS = 2048 };

static const struct ppl_protocol protocols[] = {
    {.name = "shortened-128", .window = 128, .bos = PPL_BOS_STREAM},
    {.name = "shortened-128-bos", .window = 128, .bos = PPL_BOS_WINDOW},
    {.name = "gptq-2048", .window = 2048},
    {.name = "llamacpp-512", .window = 512, .bos = PPL_BOS_FIRST, .half = true, .literal = true},
};

int ppl_protocol(struct ppl_protocol *p, const char *name, int64_t seq_len, struct err *err)
{
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++) {
        if (strcmp(name, protocols[i].name))
            continue;
        *p = protocols[i];
        if (seq_len > 0 && seq_len != p->window) {
            int stem = (int)(strchr(name, '-') - name);
            p->window = seq_len;
            snprintf(p->name, sizeof p->name, "%.*s-%lld%s", stem, name, (long long)seq_len,
                     p->bos == PPL_BOS_WINDOW ? "-bos" : "");
        }
        return 0;
    }
    return err_usage(err, "protocol \"%s\" is unknown; there are shortened-128, shortened-128-bos, gptq-2048 and llamacpp-512",
                     name);
}

/* Laid out, a window has `len` ids; the targets are ids from + 1 .. len - 1. */
struct layout {
    int64_t lead, shift, len, from, stream, least;
};

static struct layout layout_of(const struct ppl_protocol *p, int64_t n)
{
    struct layout l = {.lead = p->bos == PPL_BOS_WINDOW, .shift = p->bos == PPL_BOS_STREAM || p->bos == PPL_BOS_FIRST};
    l.len = p->window + l.lead;
    l.from = p->half ? p->window / 2 : 0;
    l.stream = n + l.shift;
    l.least = p->half ? 2 : 1;
    return l;
}

/* Lays out windows [first, first + count) of the stream as rows of `len` ids. */
static void lay_out(int32_t *rows, const struct ppl_protocol *p, const struct layout *l, const int32_t *ids, int32_t bos,
                    int64_t first, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int32_t *row = rows + i * l->len;
        int64_t at = (first + i) * p->window - l->shift; /* -1 is the stream's own BOS */
        for (int64_t k = 0; k < p->window; k++)
            row[l->lead + k] = at + k < 0 ? bos : ids[at + k];
        if (p->bos == PPL_BOS_WINDOW || p->bos == PPL_BOS_FIRST)
            row[0] = bos;
    }
}

static int check(const struct ppl_protocol *p, const struct layout *l, int32_t bos, struct err *err)
{
    int64_t shortest = p->half ? 3 : 2; /* of which one is a target */
    if (p->window < shortest)
        return err_usage(err, "--seq-len %lld: at least %lld was expected", (long long)p->window, (long long)shortest);
    if (p->bos != PPL_BOS_NONE && bos < 0)
        return err_set(err, "protocol %s begins with BOS, and the tokenizer has none", p->name);
    if (l->stream / p->window < l->least)
        return err_set(err, "the text has %lld tokens, %s needs %lld (%s)", (long long)l->stream, p->name,
                       (long long)(l->least * p->window), l->least > 1 ? "two windows" : "one window");
    return 0;
}

int ppl_evaluate(struct ppl_result *r, const struct model *m, const struct compute *c, const struct lora_set *lora,
                 const struct ppl_protocol *p, const int32_t *ids, int64_t n, int32_t bos, struct progress *progress,
                 struct err *err)
{
    struct layout l = layout_of(p, n);
    *r = (struct ppl_result){0};
    if (check(p, &l, bos, err) != 0)
        return -1;

    struct lm lm = {0};
    struct arena arena = {0};
    int rc = -1;
    int64_t per_batch = BATCH_ROWS / l.len > 0 ? BATCH_ROWS / l.len : 1;
    int32_t *rows = arena_alloc(&arena, (size_t)(per_batch * l.len), sizeof *rows, err);
    float *nll = arena_alloc(&arena, (size_t)(per_batch * l.len), sizeof *nll, err);
    if (!rows || !nll || lm_open(&lm, m, c, lora, per_batch * l.len, per_batch, l.len, err) != 0)
        goto done;
    r->windows = l.stream / p->window;
    progress_begin(progress, "perplexity", r->windows * p->window, "tokens");
    for (int64_t w = 0; w < r->windows; w += per_batch) {
        int64_t k = r->windows - w < per_batch ? r->windows - w : per_batch, scored = k * (l.len - 1 - l.from);
        lay_out(rows, p, &l, ids, bos, w, k);
        if (lm_tail_nll(&lm, nll, rows, k, l.len, l.from, err) != 0)
            goto done;
        for (int64_t i = 0; i < scored; i++)
            r->nll += (double)nll[i];
        r->tokens_scored += scored;
        progress_update(progress, (w + k) * p->window);
    }
    progress_end(progress);
    r->ppl = exp(r->nll / (double)r->tokens_scored);
    if (!isfinite(r->ppl)) {
        err_set(err, "the perplexity is not finite: %g nats per token", r->nll / (double)r->tokens_scored);
        goto done;
    }
    rc = 0;
done:
    lm_close(&lm);
    arena_free(&arena);
    return rc;
}
