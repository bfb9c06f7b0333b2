#include "eval/ppl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_ROWS = 2048 };

static const struct ppl_protocol protocols[] = {
    {"shortened-128", 128, true, false},
    {"shortened-128-bos", 128, false, true},
    {"gptq-2048", 2048, false, false},
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
            snprintf(p->name, sizeof p->name, "%.*s-%lld%s", stem, name, (long long)seq_len, p->bos_window ? "-bos" : "");
        }
        return 0;
    }
    return err_usage(err, "protocol \"%s\" is unknown; there are shortened-128, shortened-128-bos and gptq-2048", name);
}

/* Lays out windows [first, first + count) of the stream as rows of `len` ids. */
static void lay_out(int32_t *rows, const struct ppl_protocol *p, const int32_t *ids, int32_t bos, int64_t first, int64_t count)
{
    int64_t lead = p->bos_window ? 1 : 0, len = p->window + lead, shift = p->bos_stream ? 1 : 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t *row = rows + i * len;
        int64_t at = (first + i) * p->window - shift; /* -1 is the stream's own BOS */
        if (lead)
            row[0] = bos;
        for (int64_t k = 0; k < p->window; k++)
            row[lead + k] = at + k < 0 ? bos : ids[at + k];
    }
}

int ppl_evaluate(struct ppl_result *r, const struct model *m, const struct compute *c, const struct lora_set *lora,
                 const struct ppl_protocol *p, const int32_t *ids, int64_t n, int32_t bos, struct progress *progress,
                 struct err *err)
{
    int64_t len = p->window + (p->bos_window ? 1 : 0), stream = n + (p->bos_stream ? 1 : 0);
    int64_t per_batch = BATCH_ROWS / len > 0 ? BATCH_ROWS / len : 1;
    *r = (struct ppl_result){.windows = p->window > 1 ? stream / p->window : 0};
    if (p->window < 2)
        return err_usage(err, "--seq-len %lld: at least 2 was expected", (long long)p->window);
    if ((p->bos_stream || p->bos_window) && bos < 0)
        return err_set(err, "protocol %s begins with BOS, and the tokenizer has none", p->name);
    if (r->windows < 1)
        return err_set(err, "the text has %lld tokens, one window of %s needs %lld", (long long)stream, p->name,
                       (long long)p->window);

    struct lm lm = {0};
    struct arena arena = {0};
    int rc = -1;
    int32_t *rows = arena_alloc(&arena, (size_t)(per_batch * len), sizeof *rows, err);
    float *nll = arena_alloc(&arena, (size_t)(per_batch * len), sizeof *nll, err);
    if (!rows || !nll || lm_open(&lm, m, c, lora, per_batch * len, per_batch, len, err) != 0)
        goto done;
    progress_begin(progress, "perplexity", r->windows * p->window, "tokens");
    for (int64_t w = 0; w < r->windows; w += per_batch) {
        int64_t k = r->windows - w < per_batch ? r->windows - w : per_batch, scored = k * (len - 1);
        lay_out(rows, p, ids, bos, w, k);
        if (lm_window_nll(&lm, nll, rows, k, len, err) != 0)
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
