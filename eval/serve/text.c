#include "eval/serve/text.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"

size_t text_characters(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xc0) != 0x80;
    return count;
}

int text_open(struct text_out *o, const struct tokenizer *t, const int32_t *before, size_t n, struct err *err)
{
    char *text;
    *o = (struct text_out){.t = t};
    for (size_t i = 0; i < n; i++)
        if (ids_push(&o->ids, before[i], err) != 0)
            return -1;
    if (tokenizer_decode(&text, &o->n_before, t, o->ids.ids, o->ids.n, err) != 0)
        return -1;
    free(text);
    return 0;
}

void text_close(struct text_out *o)
{
    free(o->ids.ids);
    free(o->text);
    *o = (struct text_out){0};
}

/* Looks for a stop string that ends in what is new; the first one to begin counts. */
static void look_for_stop(struct text_out *o, size_t old)
{
    size_t best = o->n;
    for (int i = 0; i < o->n_stops; i++) {
        size_t len = o->stop_lengths[i], from = old > len ? old - len : 0;
        const char *at = o->n > from ? memmem(o->text + from, o->n - from, o->stops[i], len) : NULL;
        if (at && (size_t)(at - o->text) < best) {
            best = (size_t)(at - o->text);
            o->stopped = true;
        }
    }
    o->n = best;
}

int text_add(struct text_out *o, int32_t id, struct err *err)
{
    char *text, spare[1];
    const char *bytes;
    size_t n, old = o->n;
    if (o->stopped)
        return 0;
    if (tokenizer_token_bytes(&bytes, spare, o->t, id) == 0)
        return 0; /* control tokens, and padding of the model's vocabulary, which cannot be decoded */
    if (ids_push(&o->ids, id, err) != 0 || tokenizer_decode(&text, &n, o->t, o->ids.ids, o->ids.n, err) != 0)
        return -1;
    size_t before = o->n_before < n ? o->n_before : n;
    memmove(text, text + before, n - before);
    free(o->text);
    o->text = text;
    o->n = n - before;
    look_for_stop(o, old < o->n ? old : o->n);
    return 0;
}

/* Bytes at the end of s[n] that a stop string may begin with. */
static size_t may_stop(const struct text_out *o)
{
    size_t most = 0;
    for (int i = 0; i < o->n_stops; i++)
        for (size_t k = o->stop_lengths[i] - 1; k > most; k--)
            if (k <= o->n && !memcmp(o->text + o->n - k, o->stops[i], k))
                most = k;
    return most;
}

/* Bytes of a character at the end that is not finished; also up to three U+FFFD, which a decoder puts for one and may take back. */
static size_t unfinished(const char *s, size_t n)
{
    size_t marks = 0;
    while (marks < 9 && n >= marks + 3 && !memcmp(s + n - marks - 3, "\xEF\xBF\xBD", 3))
        marks += 3;
    if (marks == 0)
        return n - utf8_whole(s, n);
    return marks;
}

const char *text_take(struct text_out *o, size_t *n, bool end)
{
    size_t ready = o->n, from = o->shown;
    if (!end && !o->stopped) {
        size_t held = may_stop(o), partial = unfinished(o->text, o->n);
        ready -= held > partial ? held : partial;
        while (ready > 0 && ready < o->n && ((unsigned char)o->text[ready] & 0xc0) == 0x80)
            ready--; /* no cut inside a character */
    }
    *n = ready > from ? ready - from : 0;
    o->shown = from + *n;
    return *n ? o->text + from : "";
}
