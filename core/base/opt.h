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

enum { OPT_MAX_WORDS = 8, OPT_MAX_VALUES = 64 };

struct opt_list {
    const char *value[OPT_MAX_VALUES];
    int n;
};

/* What is left of the command line when the options are taken out. */
struct opt_words {
    const char *word[OPT_MAX_WORDS];
    int n;
};

/* Parses argv[argc] against tables of options, each closed by OPT_END; an option that two tables have is the first one's.
 * `--name value` and `--name=value` both count; `--` ends the options. Values are checked in full ("12x" is no number). */
int opt_parse(struct opt_words *words, const struct opt *const tables[], int n_tables, int argc, char **argv, struct err *err);

/* Prints the tables as help, each under its heading; an option that two tables have under the first. */
void opt_help(FILE *out, const struct opt *const tables[], const char *const headings[], int n_tables);

#endif
