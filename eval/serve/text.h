/* The text of tokens that come one by one: whole characters only, up to a stop string. */
#ifndef ESPALIER_EVAL_SERVE_TEXT_H
#define ESPALIER_EVAL_SERVE_TEXT_H

#include "core/io/tokenizer.h"

struct text_out {
    const struct tokenizer *t;
    struct ids ids;           /* some tokens before, for their blanks, then those that were added */
    size_t n_before;          /* bytes of the former */
    char *text;               /* what was added, decoded */
    size_t n, shown;          /* its length; what text_take gave out */
    const char *const *stops; /* [n_stops] and their lengths, the caller's */
    const size_t *stop_lengths;
    int n_stops;
    bool stopped; /* a stop string came: the text ends before it */
};

/* before [n]: the end of what the text goes on from. */
int text_open(struct text_out *o, const struct tokenizer *t, const int32_t *before, size_t n, struct err *err);
void text_close(struct text_out *o);

/* One more token; nothing happens once a stop string came. */
int text_add(struct text_out *o, int32_t id, struct err *err);

/* The next bytes that are certain: no unfinished character, nothing that may become a stop string, unless this is the end. */
const char *text_take(struct text_out *o, size_t *n, bool end);

/* Characters in n bytes of UTF-8. */
size_t text_characters(const char *s, size_t n);

#endif
