#include "eval/speculate.h"

#include <stdlib.h>

#include "core/base/progress.h"

int speculator_open(struct speculator *s, const struct model *m, const struct lora_set *lora, const struct model *draft,
                    const struct lora_set *draft_lora, int64_t n_draft, const struct compute *c, int64_t max_positions,
                    struct err *err)
{
    *s = (struct speculator){.n_draft = n_draft};
    int64_t positions = max_positions + n_draft + 1; /* what is proposed past the end is looked at, too */
    if (n_draft < 1 || n_draft > MAX_DRAFT)
        return err_usage(err, "1 to %d draft tokens were expected", MAX_DRAFT);
    if (draft->cfg.vocab_size != m->cfg.vocab_size)
        return err_set(err, "the draft has %lld tokens, the model %lld", (long long)draft->cfg.vocab_size,
                       (long long)m->cfg.vocab_size);
    s->logits = arena_alloc(&s->arena, (size_t)n_draft + 1, (size_t)m->cfg.vocab_size * sizeof *s->logits, err);
    if (!s->logits || generator_open(&s->full, m, c, lora, positions, err) != 0 ||
        generator_open(&s->draft, draft, c, draft_lora, positions, err) != 0) {
        speculator_close(s);
        return -1;
    }
    return 0;
}

void speculator_close(struct speculator *s)
{
    generator_close(&s->full);
    generator_close(&s->draft);
    arena_free(&s->arena);
    *s = (struct speculator){0};
}

static int32_t best(const struct speculator *s, const float *logits)
{
    static const struct sampling greedy = {0};
    return sample_token(&s->full.sampler, s->full.lm.c->rows, logits, &greedy, NULL);
}

/* Proposes ids[1..n_draft] after the text [n_text] whose end is ids[0]; the draft's cache may lag behind by what was accepted. */
static int propose(struct speculator *s, int32_t *ids, const struct ids *text, struct err *err)
{
    struct generator *d = &s->draft;
    int64_t behind = (int64_t)text->n - d->kv.len;
    if (generator_feed(d, text->ids + d->kv.len, behind, err) != 0)
        return -1;
    for (int64_t k = 1; k <= s->n_draft; k++) {
        ids[k] = best(s, d->logits);
        if (k < s->n_draft && generator_feed(d, &ids[k], 1, err) != 0)
            return -1;
    }
    return 0;
}

/* Takes new tokens into `out` and the text; true when it goes on. */
static bool take(struct ids *out, struct ids *text, int32_t id, int64_t max_tokens, const struct tokenizer_ends *ends,
                 bool (*on_token)(void *, int32_t), void *arg, struct err *err)
{
    if (tokenizer_is_end(ends, id) || ids_push(out, id, err) != 0 || ids_push(text, id, err) != 0)
        return false;
    return !(on_token && !on_token(arg, id)) && (int64_t)out->n < max_tokens;
}

static int loop(struct ids *out, struct ids *text, struct speculator *s, int64_t max_tokens, const struct tokenizer_ends *ends,
                bool (*on_token)(void *, int32_t), void *arg, struct err *err)
{
    int32_t ids[MAX_DRAFT + 1];
    int64_t vocab = s->full.lm.m->cfg.vocab_size;
    bool on = take(out, text, best(s, s->full.logits), max_tokens, ends, on_token, arg, err);
    while (on) {
        int64_t kept = 0;
        ids[0] = text->ids[text->n - 1];
        if (propose(s, ids, text, err) != 0 || generator_steps(&s->full, s->logits, ids, s->n_draft + 1, err) != 0)
            return -1;
        s->passes++;
        s->proposed += s->n_draft;
        for (bool same = true; on && same && kept <= s->n_draft; kept++) {
            int32_t id = best(s, s->logits + kept * vocab);
            same = kept < s->n_draft && id == ids[kept + 1];
            s->accepted += same;
            on = take(out, text, id, max_tokens, ends, on_token, arg, err);
        }
        /* what was looked at and not kept leaves the caches; the last token has not been run */
        int64_t len = s->full.kv.len - (s->n_draft + 1) + kept;
        s->full.kv.len = len;
        if (s->draft.kv.len > len)
            s->draft.kv.len = len;
    }
    return err->code ? -1 : 0;
}

int speculate(struct ids *out, struct speculator *s, const int32_t *prompt, int64_t n_prompt, int64_t max_tokens,
              const struct tokenizer_ends *ends, bool (*on_token)(void *arg, int32_t id), void *arg, struct err *err)
{
    struct ids text = {0};
    int rc = 0;
    generator_reset(&s->full);
    generator_reset(&s->draft);
    for (int64_t i = 0; rc == 0 && i < n_prompt; i++)
        rc = ids_push(&text, prompt[i], err);
    if (rc == 0)
        rc = generator_feed(&s->full, prompt, n_prompt, err);
    if (rc == 0)
        rc = generator_feed(&s->draft, prompt, n_prompt, err);
    double start = clock_seconds();
    if (rc == 0)
        rc = loop(out, &text, s, max_tokens, ends, on_token, arg, err);
    s->seconds = clock_seconds() - start;
    free(text.ids);
    return rc;
}

int speculator_plain_seconds(double *seconds, struct speculator *s, struct err *err)
{
    enum { STEPS = 8 };
    int64_t len = s->full.kv.len;
    int32_t id = best(s, s->full.logits);
    double start = clock_seconds();
    for (int i = 0; i < STEPS; i++) {
        s->full.kv.len = len - 1;
        if (generator_feed(&s->full, &id, 1, err) != 0)
            return -1;
        best(s, s->full.logits);
    }
    *seconds = (clock_seconds() - start) / STEPS;
    s->full.kv.len = len;
    return 0;
}
