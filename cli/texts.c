#include "cli/texts.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "data/text.h"

const struct text_words text_defaults = {"shortened-128", "raw", NULL, 0, 0};
const char *const text_either[][2] = {{"rows", "format"}, {NULL}};

void text_options(struct opt *table, struct text_words *w)
{
    *w = text_defaults;
    struct opt opts[TEXT_OPTS] = {
        {OPT_STRING, "protocol", &w->protocol, "P", "shortened-128, shortened-128-bos, gptq-2048 or llamacpp-512"},
        {OPT_STRING, "format", &w->format, "F", "raw: the file as it is; lines: its lines, joined by two line breaks"},
        {OPT_STRING, "rows", &w->rows, "R", "wikitext or ptb: the rows of those data sets, joined as the published scripts do"},
        {OPT_INT, "max-tokens", &w->max_tokens, "N", "use only the first N tokens of the text"},
        {OPT_INT, "seq-len", &w->seq_len, "T", "another window length than the protocol's"},
    };
    memcpy(table, opts, sizeof opts);
}

/* The stream of text[n] under t->protocol, from which BOS goes where the protocol leaves that to the tokenizer and it adds none. */
static int make_stream(struct eval_text *t, const struct tokenizer *tokenizer, const char *text, size_t n, struct err *err)
{
    struct ppl_protocol *p = &t->protocol;
    if (p->bos == PPL_BOS_FIRST && !tokenizer_adds_bos(tokenizer))
        p->bos = PPL_BOS_NONE;
    if (!p->literal)
        return tokenizer_encode(&t->ids, tokenizer, text, n, err);
    return tokenizer_encode_literal(&t->ids, tokenizer, text, n > 0 && text[n - 1] == '\n' ? n - 1 : n, err);
}

/* The row rule that --rows and --format ask for. */
static int row_rule(enum row_rule *rule, const char *rows, const char *format, struct err *err)
{
    if (rows && !strcmp(rows, "wikitext"))
        *rule = ROWS_WIKITEXT;
    else if (rows && !strcmp(rows, "ptb"))
        *rule = ROWS_PTB;
    else if (rows)
        return err_usage(err, "--rows %s: wikitext or ptb was expected", rows);
    else if (!strcmp(format, "raw"))
        *rule = ROWS_RAW;
    else if (!strcmp(format, "lines"))
        *rule = ROWS_LINES;
    else
        return err_usage(err, "--format %s: raw or lines was expected", format);
    return 0;
}

int eval_text_open(struct eval_text *t, const struct session *s, const char *path, const struct text_words *w, struct err *err)
{
    enum row_rule rule = ROWS_RAW;
    char *data = NULL;
    size_t size;
    *t = (struct eval_text){.path = path, .rows = w->rows ? w->rows : w->format};
    if (w->seq_len < 0 || w->max_tokens < 0)
        return err_usage(err, "--seq-len and --max-tokens must not be negative");
    if (row_rule(&rule, w->rows, w->format, err) != 0 || ppl_protocol(&t->protocol, w->protocol, w->seq_len, err) != 0)
        return -1;
    if (!path)
        return 0;
    if (t->protocol.literal && rule == ROWS_RAW)
        rule = ROWS_BYTES;
    if (!s->t)
        return err_set(err, "%s: it has no tokenizer to read %s with", s->m.path, path);
    int rc = file_sha256(t->sha256, path, err) == 0 && text_read(&data, &size, path, rule, err) == 0
                 ? make_stream(t, s->t, data, size, err)
                 : -1;
    t->tokens_in_text = (int64_t)t->ids.n;
    if (w->max_tokens > 0 && (size_t)w->max_tokens < t->ids.n)
        t->ids.n = (size_t)w->max_tokens;
    free(data);
    return rc;
}

void eval_text_free(struct eval_text *t)
{
    free(t->ids.ids);
    *t = (struct eval_text){0};
}

int eval_text_ppl(struct ppl_result *r, const struct eval_text *t, const struct session *s, struct progress *progress,
                  struct err *err)
{
    struct err why = {0};
    if (ppl_evaluate(r, &s->m, &s->c, s->adapter, &t->protocol, t->ids.ids, (int64_t)t->ids.n, tokenizer_bos(s->t), progress,
                     &why) == 0)
        return 0;
    return why.code == ERR_USAGE ? err_usage(err, "%s", why.msg) : err_set(err, "%s: %s", t->path, why.msg);
}

void eval_text_facts(json_t *facts, const struct eval_text *t)
{
    facts_file(facts, "text", t->path, t->sha256);
    json_object_update_new(facts, json_pack("{sI sI ss ss}", "tokens_in_text", (json_int_t)t->tokens_in_text, "tokens_used",
                                            (json_int_t)t->ids.n, "rows", t->rows, "protocol", t->protocol.name));
}
