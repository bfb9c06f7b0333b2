/* How each data set's rows become prompts. Every row function knows the layout of the original release and that of the Hugging Face
 * rows. */
#include "data/tasks.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/pytext.h"

/* A string owned by the arena. */
__attribute__((format(printf, 3, 4))) static char *text(struct arena *arena, struct err *err, const char *fmt, ...)
{
    va_list ap;
    char *s = NULL;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0) {
        err_set(err, "out of memory");
        return NULL;
    }
    char *kept = arena_strdup(arena, s, err);
    free(s);
    return kept;
}

/* Adds a choice that is put behind the context with a blank between them. */
static int add_choice(struct task_document *d, const char *context, const char *choice, struct arena *arena, struct err *err)
{
    const char *continuation = text(arena, err, " %s", choice);
    if (!context || !continuation)
        return -1;
    d->choice[d->n_choices++] = (struct task_choice){context, continuation, pytext_len(choice)};
    return 0;
}

static int check_count(const struct row *r, const char *key, const json_t *list, struct err *err)
{
    size_t n = json_array_size(list);
    return n >= 2 && n <= TASK_MAX_CHOICES
               ? 0
               : row_error(r, err, "\"%s\": 2 to %d choices were expected, found %zu", key, TASK_MAX_CHOICES, n);
}

/* Adds every string of an array as a choice; `prepare`, if given, edits each in place before. */
static int add_choices(struct task_document *d, const struct row *r, const char *key, const char *context, void (*prepare)(char *s),
                       struct arena *arena, struct err *err)
{
    const json_t *list = row_array(r, key, err), *v;
    size_t i;
    if (!list || check_count(r, key, list, err) != 0)
        return -1;
    json_array_foreach(list, i, v) {
        if (!json_is_string(v))
            return row_error(r, err, "\"%s\": choice %zu: a string was expected, found %s", key, i, json_kind(v));
        if (strlen(json_string_value(v)) != json_string_length(v))
            return row_error(r, err, "\"%s\": choice %zu holds the character U+0000, which no text of a task has", key, i);
        char *s = arena_strdup(arena, json_string_value(v), err);
        if (s && prepare)
            prepare(s);
        if (!s || add_choice(d, context, s, arena, err) != 0)
            return -1;
    }
    return 0;
}

/* ---- BoolQ: is the answer yes? SuperGLUE's rows; those of the first release have the passage's title apart ---- */

/* The label as no (0) or yes (1): true and false, as words too, or a number. */
static int boolq_label(int *gold, const struct row *r, const char *key, struct err *err)
{
    const json_t *v = json_object_get(r->v, key);
    const char *s = json_string_value(v);
    if (json_is_boolean(v) || (s && (!strcasecmp(s, "true") || !strcasecmp(s, "false")))) {
        *gold = s ? !strcasecmp(s, "true") : json_is_true(v);
        return 0;
    }
    return row_index(gold, r, key, 0, 1, err);
}

static int boolq_row(struct task_document *d, const struct row *r, struct arena *arena, struct err *err)
{
    const char *passage = row_text(r, "passage", err), *question = row_text(r, "question", err), *title = "";
    bool first_release = row_has(r, "answer") && row_has(r, "title") && !row_has(r, "label");
    if (!passage || !question || (first_release && !(title = row_text(r, "title", err))))
        return -1;
    if (boolq_label(&d->gold, r, first_release ? "answer" : "label", err) != 0)
        return -1;
    const char *context = text(arena, err, "%s%s%s\nQuestion: %s?\nAnswer:", title, first_release ? " -- " : "", passage, question);
    return add_choice(d, context, "no", arena, err) == 0 ? add_choice(d, context, "yes", arena, err) : -1;
}

/* ---- PIQA: which of two ways reaches the goal? (task_files.c puts the labels of the original release into the rows) ---- */

static int piqa_row(struct task_document *d, const struct row *r, struct arena *arena, struct err *err)
{
    const char *goal = row_text(r, "goal", err), *one = row_text(r, "sol1", err), *two = row_text(r, "sol2", err);
    if (!goal || !one || !two || row_index(&d->gold, r, "label", 0, 1, err) != 0)
        return -1;
    const char *context = text(arena, err, "Question: %s\nAnswer:", goal);
    return add_choice(d, context, one, arena, err) == 0 ? add_choice(d, context, two, arena, err) : -1;
}

/* ---- HellaSwag: which ending follows? ---- */

static void hellaswag_clean(char *s)
{
    pytext_strip(s);
    pytext_replace(s, " [title]", ". ");
    pytext_remove_brackets(s);
    pytext_replace(s, "  ", " ");
}

/* Raw rows, or rows with "query" and "choices" that have been prepared already. */
static int hellaswag_row(struct task_document *d, const struct row *r, struct arena *arena, struct err *err)
{
    bool prepared = row_has(r, "query");
    char *context;
    if (prepared) {
        const char *query = row_text(r, "query", err);
        context = query ? arena_strdup(arena, query, err) : NULL;
    } else {
        const char *label = row_text(r, "activity_label", err), *a = row_text(r, "ctx_a", err), *b = row_text(r, "ctx_b", err);
        if (!label || !a || !b || !(b = pytext_capitalize(b, arena, err)))
            return -1;
        if ((context = text(arena, err, "%s: %s %s", label, a, b)))
            hellaswag_clean(context);
    }
    if (!context ||
        add_choices(d, r, prepared ? "choices" : "endings", context, prepared ? NULL : hellaswag_clean, arena, err) != 0)
        return -1;
    return row_index(&d->gold, r, row_has(r, "gold") ? "gold" : "label", 0, d->n_choices - 1, err);
}

/* ---- WinoGrande, partial evaluation: the rest of the sentence behind each of the two names ---- */

static int winogrande_row(struct task_document *d, const struct row *r, struct arena *arena, struct err *err)
{
    const char *sentence = row_text(r, "sentence", err);
    const char *option[] = {row_text(r, "option1", err), row_text(r, "option2", err)};
    if (!sentence || !option[0] || !option[1] || row_index(&d->gold, r, "answer", 1, 2, err) != 0)
        return -1;
    d->gold--;
    const char *gap = strchr(sentence, '_');
    if (!gap)
        return row_error(r, err, "\"sentence\": it has no gap \"_\"");
    char *rest = arena_strdup(arena, gap + 1, err);
    if (!rest)
        return -1;
    pytext_strip(rest);
    for (int i = 0; i < 2; i++) {
        const char *context = text(arena, err, "%.*s%s", (int)(gap - sentence), sentence, option[i]);
        if (add_choice(d, context, rest, arena, err) != 0)
            return -1;
        d->choice[i].chars = pytext_len(option[i]);
    }
    return 0;
}

/* ---- ARC and OpenBookQA: questions with lettered answers ---- */

/* A to E, which some questions number 1 to 5. */
static char letter(const char *label)
{
    if (!label)
        return 0;
    return label[0] >= '1' && label[0] <= '5' && !label[1] ? (char)('A' + label[0] - '1') : label[0] && !label[1] ? label[0] : 0;
}

/* Hugging Face's {"text": [...], "label": [...]}. labels[n_choices] are left as letters, 0 for what is none. */
static int choices_in_columns(struct task_document *d, char *labels, const struct row *choices, const char *context,
                              struct arena *arena, struct err *err)
{
    const json_t *names = row_array(choices, "label", err), *v;
    size_t i;
    if (!names || add_choices(d, choices, "text", context, NULL, arena, err) != 0)
        return -1;
    if ((int)json_array_size(names) != d->n_choices)
        return row_error(choices, err, "\"label\": %d labels were expected, found %zu", d->n_choices, json_array_size(names));
    json_array_foreach(names, i, v)
        labels[i] = letter(json_string_value(v));
    return 0;
}

/* The original releases' [{"text", "label"}]. */
static int choices_in_objects(struct task_document *d, char *labels, const struct row *r, const char *context, struct arena *arena,
                              struct err *err)
{
    const json_t *list = row_array(r, "choices", err), *v;
    size_t i;
    if (!list || check_count(r, "choices", list, err) != 0)
        return -1;
    json_array_foreach(list, i, v) {
        struct row choice = {r->rows, r->at, v};
        const char *s = row_text(&choice, "text", err);
        if (!s || add_choice(d, context, s, arena, err) != 0)
            return -1;
        labels[i] = letter(json_string_value(json_object_get(v, "label")));
    }
    return 0;
}

/* A question in one of the two layouts, with its gold; `prefix` and `suffix` make the prompt of it. */
static int lettered_row(struct task_document *d, const struct row *r, const char *stem_key, const char *prefix, const char *suffix,
                        struct arena *arena, struct err *err)
{
    char labels[TASK_MAX_CHOICES], key[8] = "";
    struct row original = *r;
    const char *stem, *answer;
    if (json_is_object(json_object_get(r->v, "question"))) {
        if (row_object(&original, r, "question", err) != 0)
            return -1;
        stem_key = "stem";
    }
    if (!(stem = row_text(&original, stem_key, err)) || !(answer = row_text(r, "answerKey", err)))
        return -1;
    const char *context = text(arena, err, "%s%s%s", prefix, stem, suffix);
    struct row choices = {r->rows, r->at, json_object_get(original.v, "choices")};
    if (!context || (json_is_object(choices.v) ? choices_in_columns(d, labels, &choices, context, arena, err)
                                               : choices_in_objects(d, labels, &original, context, arena, err)) != 0)
        return -1;
    snprintf(key, sizeof key, "%s", answer);
    pytext_strip(key);
    for (d->gold = 0; d->gold < d->n_choices; d->gold++)
        if (letter(key) && labels[d->gold] == letter(key))
            return 0;
    return row_error(r, err, "\"answerKey\": it is none of the %d choices' labels", d->n_choices);
}

static int arc_row(struct task_document *d, const struct row *r, struct arena *arena, struct err *err)
{
    return lettered_row(d, r, "question", "Question: ", "\nAnswer:", arena, err);
}

static int openbookqa_row(struct task_document *d, const struct row *r, struct arena *arena, struct err *err)
{
    return lettered_row(d, r, "question_stem", "", "", arena, err);
}

/* ---- LAMBADA: the last word ---- */

static int lambada_row(struct task_document *d, const struct row *r, struct arena *arena, struct err *err)
{
    const char *all = row_text(r, "text", err);
    if (!all)
        return -1;
    const char *blank = strrchr(all, ' ');
    if (!blank)
        return row_error(r, err, "\"text\": more than one word was expected");
    return add_choice(d, text(arena, err, "%.*s", (int)(blank - all), all), blank + 1, arena, err);
}

const struct task task_table[] = {
    {.name = "boolq",
     .averaged = true,
     .read = boolq_row,
     .rows = "SuperGLUE's BoolQ validation rows",
     .names = {"boolq/val", "boolq/superglue_boolq_val", "boolq/validation", "boolq/dev", "BoolQ/val", "boolq"}},
    {.name = "piqa",
     .has_norm = true,
     .averaged = true,
     .read = piqa_row,
     .rows = "PIQA's validation rows",
     .names = {"piqa/valid", "piqa/validation", "piqa/val", "piqa/dev", "piqa"}},
    {.name = "hellaswag",
     .has_norm = true,
     .reports_norm = true,
     .averaged = true,
     .read = hellaswag_row,
     .rows = "HellaSwag's validation rows",
     .names = {"hellaswag/hellaswag_val", "hellaswag/validation", "hellaswag/val", "hellaswag/hellaswag_val_lmeval_approx",
               "hellaswag"}},
    {.name = "winogrande",
     .averaged = true,
     .read = winogrande_row,
     .rows = "WinoGrande's (XL) validation rows",
     .names = {"winogrande/dev", "winogrande/validation", "winogrande/val", "winogrande_1.1/dev", "winogrande"}},
    {.name = "arc_easy",
     .has_norm = true,
     .averaged = true,
     .read = arc_row,
     .rows = "the ARC-Easy test rows",
     .names = {"arc/ARC-Easy-Test", "ARC-Easy/ARC-Easy-Test", "ARC-Easy/test", "arc_easy/test", "ARC-Easy-Test", "arc_easy"}},
    {.name = "arc_challenge",
     .has_norm = true,
     .reports_norm = true,
     .averaged = true,
     .read = arc_row,
     .rows = "the ARC-Challenge test rows",
     .names = {"arc/ARC-Challenge-Test", "ARC-Challenge/ARC-Challenge-Test", "ARC-Challenge/test", "arc_challenge/test",
               "ARC-Challenge-Test", "arc_challenge"}},
    {.name = "openbookqa",
     .has_norm = true,
     .reports_norm = true,
     .averaged = true,
     .read = openbookqa_row,
     .rows = "OpenBookQA's (main) test rows",
     .names = {"openbookqa/test", "openbookqa/main/test", "OpenBookQA-V1-Sep2018/Data/Main/test", "openbookqa"}},
    {.name = "lambada",
     .greedy = true,
     .read = lambada_row,
     .rows = "LAMBADA's test passages",
     .names = {"lambada/lambada_test", "lambada/test", "lambada_openai/test", "lambada/lambada_test_plain_text", "lambada"}},
    {.name = NULL},
};

const struct task *task_find(const char *name)
{
    for (const struct task *t = task_table; t->name; t++)
        if (!strcmp(t->name, name))
            return t;
    return NULL;
}

const char *task_metric(const struct task *t)
{
    return t->reports_norm ? "acc_norm" : "acc";
}

bool tasks_average(bool *averaged, const struct task *const *tasks, int64_t n)
{
    int64_t published = 0, found = 0;
    for (const struct task *t = task_table; t->name; t++)
        published += t->averaged;
    for (int64_t i = 0; i < n; i++)
        found += tasks[i]->averaged;
    for (int64_t i = 0; i < n; i++)
        averaged[i] = tasks[i]->averaged || found == 0;
    return found == published;
}
