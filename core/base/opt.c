#include "core/base/opt.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/base/nearest.h"

static const struct opt *find(const struct opt *const tables[], int n_tables, const char *name, size_t n)
{
    for (int t = 0; t < n_tables; t++)
        for (const struct opt *o = tables[t]; o->kind != OPT_END; o++)
            if (strlen(o->name) == n && !memcmp(o->name, name, n))
                return o;
    return NULL;
}

static int set(const struct opt *o, const char *value, struct err *err)
{
    char *end;
    errno = 0;
    switch (o->kind) {
    case OPT_FLAG: *(bool *)o->target = true; return 0;
    case OPT_NO: *(bool *)o->target = false; return 0;
    case OPT_STRING: *(const char **)o->target = value; return 0;
    case OPT_LIST: {
        struct opt_list *list = o->target;
        if (list->n == OPT_MAX_VALUES)
            return err_usage(err, "--%s: at most %d of them were expected", o->name, OPT_MAX_VALUES);
        list->value[list->n++] = value;
        return 0;
    }
    case OPT_INT: {
        long long v = strtoll(value, &end, 10);
        if (end == value || *end || errno)
            return err_usage(err, "--%s %s: a whole number was expected", o->name, value);
        *(int64_t *)o->target = v;
        return 0;
    }
    case OPT_REAL: {
        double v = strtod(value, &end);
        if (end == value || *end || errno || !isfinite(v))
            return err_usage(err, "--%s %s: a number was expected", o->name, value);
        *(double *)o->target = v;
        return 0;
    }
    case OPT_END: break;
    }
    return 0;
}

static int unknown(const struct opt *const tables[], int n_tables, const char *name, size_t n, struct err *err)
{
    enum { MAX_NAMES = 128, MAX_LENGTH = 64 };
    const char *names[MAX_NAMES], *meant;
    char wanted[MAX_LENGTH];
    size_t known = 0;
    for (int t = 0; t < n_tables; t++)
        for (const struct opt *o = tables[t]; o->kind != OPT_END && known < MAX_NAMES; o++)
            names[known++] = o->name;
    snprintf(wanted, sizeof wanted, "%.*s", (int)n, name);
    if ((meant = nearest_name(wanted, names, known)))
        return err_usage(err, "unknown option --%s; is --%s meant?", wanted, meant);
    return err_usage(err, "unknown option --%s", wanted);
}

/* Notes that an option was there. */
static int note(struct opt_words *words, const struct opt *o, struct err *err)
{
    if (opt_given(words, o->name))
        return 0;
    if (words->n_given == OPT_MAX_GIVEN)
        return err_usage(err, "at most %d options were expected", OPT_MAX_GIVEN);
    words->given[words->n_given++] = o->name;
    return 0;
}

bool opt_given(const struct opt_words *words, const char *name)
{
    for (int i = 0; i < words->n_given; i++)
        if (!strcmp(words->given[i], name))
            return true;
    return false;
}

int opt_exclusive(const struct opt_words *words, const char *const pairs[][2], struct err *err)
{
    for (int i = 0; pairs[i][0]; i++)
        if (opt_given(words, pairs[i][0]) && opt_given(words, pairs[i][1]))
            return err_usage(err, "--%s and --%s contradict each other: one of them was expected", pairs[i][0], pairs[i][1]);
    return 0;
}

int opt_parse(struct opt_words *words, const struct opt *const tables[], int n_tables, int argc, char **argv, struct err *err)
{
    bool only_words = false;
    *words = (struct opt_words){0};
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (!only_words && !strcmp(a, "--")) {
            only_words = true;
            continue;
        }
        if (only_words || a[0] != '-' || a[1] != '-') {
            if (!only_words && a[0] == '-' && a[1] && strcmp(a, "-"))
                return err_usage(err, "unknown option %s (options begin with two dashes)", a);
            if (words->n == OPT_MAX_WORDS)
                return err_usage(err, "too many words: %s", a);
            words->word[words->n++] = a;
            continue;
        }
        const char *equals = strchr(a, '=');
        size_t n = equals ? (size_t)(equals - a - 2) : strlen(a + 2);
        const struct opt *o = find(tables, n_tables, a + 2, n);
        if (!o)
            return unknown(tables, n_tables, a + 2, n, err);
        bool takes_value = o->kind != OPT_FLAG && o->kind != OPT_NO;
        if (equals && !takes_value)
            return err_usage(err, "--%s takes no value", o->name);
        const char *value = equals ? equals + 1 : takes_value && i + 1 < argc ? argv[++i] : NULL;
        if (takes_value && !value)
            return err_usage(err, "--%s needs a value (%s)", o->name, o->value);
        if (set(o, value, err) != 0 || note(words, o, err) != 0)
            return -1;
    }
    return 0;
}

static json_t *value_of(const struct opt *o)
{
    switch (o->kind) {
    case OPT_FLAG: return json_boolean(*(bool *)o->target);
    case OPT_NO: return json_boolean(!*(bool *)o->target); /* "no-shuffle": true where it was said */
    case OPT_INT: return json_integer(*(int64_t *)o->target);
    case OPT_REAL: return json_real(*(double *)o->target);
    case OPT_STRING: {
        const char *s = *(const char **)o->target;
        return s ? json_text(s) : json_null();
    }
    case OPT_LIST: {
        const struct opt_list *list = o->target;
        json_t *all = json_array();
        for (int i = 0; i < list->n; i++)
            if (json_array_append_new(all, json_text(list->value[i])) != 0) {
                json_decref(all);
                return NULL;
            }
        return all;
    }
    case OPT_END: break;
    }
    return NULL;
}

int opt_describe(json_t *to, const struct opt *table, const char *const skip[])
{
    for (const struct opt *o = table; o->kind != OPT_END; o++) {
        bool skipped = false;
        for (int i = 0; skip[i]; i++)
            skipped |= !strcmp(skip[i], o->name);
        if (!skipped && json_object_set_new(to, o->name, value_of(o)) != 0)
            return -1;
    }
    return 0;
}

static void print_default(FILE *out, const struct opt *o)
{
    if (o->kind == OPT_INT && *(int64_t *)o->target != 0)
        fprintf(out, " [%lld]", (long long)*(int64_t *)o->target);
    else if (o->kind == OPT_REAL && *(double *)o->target != 0)
        fprintf(out, " [%g]", *(double *)o->target);
    else if (o->kind == OPT_STRING && *(const char **)o->target)
        fprintf(out, " [%s]", *(const char **)o->target);
}

void opt_help(FILE *out, const struct opt *const tables[], const char *const headings[], int n_tables)
{
    for (int t = 0; t < n_tables; t++) {
        if (tables[t]->kind == OPT_END)
            continue;
        fprintf(out, "\n%s:\n", headings[t]);
        for (const struct opt *o = tables[t]; o->kind != OPT_END; o++) {
            char left[64];
            if (find(tables, n_tables, o->name, strlen(o->name)) != o)
                continue;
            snprintf(left, sizeof left, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
            fprintf(out, "  %-26s %s", left, o->help);
            print_default(out, o);
            fputc('\n', out);
        }
    }
}
