/* Texts to measure perplexity on: how they are read, cut and scored. For `eval ppl`, `compare` and `prune --repair`. */
#ifndef ESPALIER_CLI_TEXTS_H
#define ESPALIER_CLI_TEXTS_H

#include "cli/cli.h"
#include "eval/ppl.h"

enum { TEXT_OPTS = 5 };

/* The options that say how. */
struct text_words {
    const char *protocol, *format, *rows;
    int64_t seq_len, max_tokens;
};

struct eval_text {
    const char *path;
    char sha256[65];
    struct ppl_protocol protocol;
    struct ids ids;         /* of the text as far as it is used, without BOS */
    int64_t tokens_in_text; /* of all of it */
    const char *rows;       /* the rule it was read by: raw, lines, wikitext or ptb */
};

extern const struct text_words text_defaults;

/* Those of the options that contradict each other, for opt_exclusive. */
extern const char *const text_either[][2];

/* Fills TEXT_OPTS entries (none of them OPT_END) and the defaults. The last one is --seq-len, for commands where that may only mean
 * the window. */
void text_options(struct opt *table, struct text_words *w);

/* Checks the words; reads and tokenizes. NULL for `path` checks only. */
int eval_text_open(struct eval_text *t, const struct session *s, const char *path, const struct text_words *w, struct err *err);
void eval_text_free(struct eval_text *t);

/* Perplexity of the session's model, with its adapter, as it stands. */
int eval_text_ppl(struct ppl_result *r, const struct eval_text *t, const struct session *s, struct progress *progress,
                  struct err *err);

/* Adds the text and its sum, "tokens_in_text", "tokens_used" of them, "rows" and "protocol" to a result. */
void eval_text_facts(json_t *facts, const struct eval_text *t);

#endif
