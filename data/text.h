/* Plain text in, documents or one stream out. */
#ifndef ESPALIER_DATA_TEXT_H
#define ESPALIER_DATA_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"

/* Documents of a text file: views into `text`, which is owned. */
struct documents {
    char *text;
    char **docs; /* NUL-terminated for convenience; lengths count, since a document may hold NUL */
    size_t *lens;
    size_t n;
};

/* .json and .jsonl: the string field `text` of each row, whether they are lines or one array. Else a document per line, whose breaks
 * are those of Python's text mode (a last line without line break counts; an empty file has none). Either gzipped. */
int documents_read(struct documents *d, const char *path, struct err *err);
void documents_free(struct documents *d);

/* Line breaks as Python's text mode reads them: "\r\n" and "\r" become "\n", in place, with a NUL behind. Returns how many of the n
 * bytes are left. */
size_t text_newlines(char *text, size_t n);

/* Whether the file's name says that it holds JSON. */
bool documents_are_json(const char *path);

/* How the published scripts make one text of a data set's rows (FIELD: Shortened LLaMA, dataset.py). */
enum row_rule {
    ROWS_RAW,      /* the file as Python's text mode reads it: line breaks of any kind become "\n" */
    ROWS_LINES,    /* lines, joined by two line breaks */
    ROWS_WIKITEXT, /* Hugging Face rows of wikitext-2-raw: a line of white space only is "", any other keeps its line break; joined by
                      two */
    ROWS_PTB,      /* ptb_text_only: each line stripped; joined by two line breaks */
    ROWS_BYTES,    /* the file as it is, as llama.cpp reads it */
};

/* The whole text of a file under a rule, malloc'ed. */
int text_read(char **text, size_t *n, const char *path, enum row_rule rule, struct err *err);

#endif
