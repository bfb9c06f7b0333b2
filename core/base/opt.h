/* Command-line options: one table per command says the names, the targets and the help. */
#ifndef ESPALIER_BASE_OPT_H
#define ESPALIER_BASE_OPT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/err.h"

enum opt_kind {
    OPT_FLAG,   /* bool */
    OPT_NO,     /* bool, set to false */
    OPT_INT,    /* int64_t */
    OPT_REAL,   /* double */
    OPT_STRING, /* const char * */
    OPT_LIST,   /* struct opt_list: every value of an option that may be given again and again */
    OPT_END,
};

struct opt {
    enum opt_kind kind;
    const char *name;  /* without the dashes */
    void *target;      /* holds the default before parsing */
    const char *value; /* what the help calls the value */
    const char *help;
};

enum { OPT_MAX_WORDS = 8, OPT_MAX_VALUES = 64, OPT_MAX_GIVEN = 64 };

struct opt_list {
    const char *value[OPT_MAX_VALUES];
    int n;
};

/* What is left of the command line when the options are taken out. */
struct opt_words {
    const char *word[OPT_MAX_WORDS];
    int n;
    const char *given[OPT_MAX_GIVEN]; /* the names of the options that were there, as the tables spell them */
    int n_given;
};

/* Parses argv[argc] against tables of options, each closed by OPT_END; an option that two tables have is the first one's.
 * `--name value` and `--name=value` both count; `--` ends the options. Values are checked in full ("12x" is no number). */
int opt_parse(struct opt_words *words, const struct opt *const tables[], int n_tables, int argc, char **argv, struct err *err);

/* Whether the option was there, if only to say its default. */
bool opt_given(const struct opt_words *words, const char *name);

/* Options that contradict each other: an error where both of a pair were given. The last pair is {NULL}. */
int opt_exclusive(const struct opt_words *words, const char *const pairs[][2], struct err *err);

/* Adds the names and values of a table's options, as they stand, to an object; those in skip (closed by NULL) are left out. -1: out
 * of memory. What identifies a piece of work, or records it, is made from this, so that no option can be forgotten. */
struct json_t;
int opt_describe(struct json_t *to, const struct opt *table, const char *const skip[]);

/* Prints the tables as help, each under its heading; an option that two tables have under the first. */
void opt_help(FILE *out, const struct opt *const tables[], const char *const headings[], int n_tables);

#endif
