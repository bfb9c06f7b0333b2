/* A comparison as a table (CSV) and as arrays (HDF5). */
#include "cli/comparison.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/comparison_impl.h"
#include "core/io/h5.h"

/* ---- CSV ---- */

/* A field, after a comma unless it is the first of its line. */
static void field(FILE *f, bool first, const char *text)
{
    bool quoted = text[strcspn(text, ",\"\r\n")] != 0;
    fputs(first ? "" : ",", f);
    fputs(quoted ? "\"" : "", f);
    for (; *text; text++)
        fprintf(f, quoted && *text == '"' ? "\"%c" : "%c", *text);
    fputs(quoted ? "\"" : "", f);
}

/* Empty for NaN: it is not known. */
static void field_number(FILE *f, double v)
{
    char text[32] = "";
    if (!isnan(v))
        snprintf(text, sizeof text, "%.10g", v);
    field(f, false, text);
}

/* What was measured of a model: the average stands before the tasks that it is over. */
static void fields_measured(FILE *f, const struct comparison *k, const double *ppl, const struct zeroshot_scores *z)
{
    for (int64_t t = 0; t < k->n_texts; t++)
        field_number(f, ppl[t]);
    if (k->n_tasks > 0)
        field_number(f, z->average);
    for (int64_t t = 0; t < k->n_tasks; t++)
        field_number(f, z->acc[t]);
}

static void fields_sources(FILE *f, const struct comparison_sheet *s)
{
    for (int64_t t = 0; s->sources && t < s->k->n_texts; t++) {
        const struct comparison_text *text = &s->sources[t];
        if (t == 0)
            field(f, false, text->protocol);
        fprintf(f, ",%lld,%lld,%s,%s", (long long)text->scored, (long long)text->in_text, text->rows, text->sha256);
    }
    fputc('\n', f);
}

static void sources_head(FILE *f, const struct comparison_sheet *s)
{
    static const char *const of[] = {"tokens_scored", "tokens_in_text", "rows", "sha256"};
    char name[512];
    if (!s->sources || s->k->n_texts < 1)
        return;
    fputs(",protocol", f); /* one for all texts */
    for (int64_t t = 0; t < s->k->n_texts; t++)
        for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
            snprintf(name, sizeof name, "%s: %s", of[i], s->k->texts[t]);
            field(f, false, name);
        }
}

static void csv_variant(FILE *f, const struct comparison *k, const struct variant *v)
{
    char name[UNIT_NAME];
    field(f, true, k->which[v->criterion]->name);
    field_number(f, k->ratios[v->ratio]);
    field(f, false, v->protected_ ? "yes" : "no");
    fprintf(f, ",%lld,", (long long)v->count);
    for (int64_t i = 0; i < v->count; i++)
        fprintf(f, "%s%s", i ? " " : "", unit_name(name, v->dropped[i]));
    fprintf(f, ",%lld", (long long)v->params);
    field_number(f, v->cut_swap);
    fields_measured(f, k, v->ppl, &v->zeroshot);
}

static void csv(FILE *f, const void *what)
{
    const struct comparison_sheet *s = what;
    const struct comparison *k = s->k;
    char name[512];
    fputs("criterion,ratio,protected,count,dropped,parameters,cut_swap_probability", f);
    for (int64_t t = 0; t < k->n_texts; t++) {
        snprintf(name, sizeof name, "ppl: %s", k->texts[t]);
        field(f, false, name);
    }
    fputs(k->n_tasks > 0 ? ",zeroshot_average" : "", f);
    for (int64_t t = 0; t < k->n_tasks; t++)
        fprintf(f, ",%s: %s", task_metric(k->tasks[t]), k->tasks[t]->name);
    sources_head(f, s);
    fprintf(f, "\nintact,0,,0,,%lld,", (long long)k->intact_params);
    fields_measured(f, k, k->intact_ppl, &k->intact_zeroshot);
    fields_sources(f, s);
    for (int64_t i = 0; i < k->n_variants; i++) {
        csv_variant(f, k, &k->variants[i]);
        fields_sources(f, s);
    }
}

int comparison_write_csv(const char *path, const struct comparison_sheet *s, struct err *err)
{
    return text_write(path, csv, s, err);
}

/* ---- HDF5 ---- */

/* Where u stands in the list that was scored. */
static int64_t position(const struct scores *s, struct unit u)
{
    int64_t i = 0;
    while (i < s->n && (s->unit[i].block != u.block || s->unit[i].parts != u.parts))
        i++;
    return i < s->n ? i : -1;
}

static int put_units(struct h5_writer *w, const struct comparison *k, struct arena *a, struct err *err)
{
    int64_t n = k->n_units, *block = arena_alloc(a, (size_t)n, sizeof *block, err),
            *parts = arena_alloc(a, (size_t)n, sizeof *parts, err);
    const char **names = arena_alloc(a, (size_t)n, sizeof *names, err);
    if (!block || !parts || !names)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        char text[UNIT_NAME];
        struct unit u = k->scores[0].unit[i];
        block[i] = u.block;
        parts[i] = u.parts;
        if (!(names[i] = arena_strdup(a, unit_name(text, u), err)))
            return -1;
    }
    return h5_put_strings(w, "unit", names, n, err) == 0 && h5_put_i64(w, "block", block, &n, 1, err) == 0
               ? h5_put_i64(w, "parts", parts, &n, 1, err)
               : -1;
}

static int put_criteria(struct h5_writer *w, const struct comparison *k, struct arena *a, struct err *err)
{
    int64_t c = k->n_criteria, n = k->n_units;
    double *score = arena_alloc(a, (size_t)c, (size_t)n * sizeof *score, err), *base = arena_alloc(a, (size_t)c, sizeof *base, err);
    int64_t *order = arena_alloc(a, (size_t)c, (size_t)n * sizeof *order, err);
    const char **names = arena_alloc(a, (size_t)c, sizeof *names, err), **meaning = arena_alloc(a, (size_t)c, sizeof *meaning, err);
    if (!score || !base || !order || !names || !meaning)
        return -1;
    for (int64_t i = 0; i < c; i++) {
        memcpy(score + i * n, k->scores[i].score, (size_t)n * sizeof *score);
        scores_order(order + i * n, &k->scores[i]);
        base[i] = scores_are_perplexities(k, i) ? k->scores[i].base_ppl : NAN;
        names[i] = k->which[i]->name;
        meaning[i] = k->which[i]->score;
    }
    return h5_put_strings(w, "criteria", names, c, err) == 0 && h5_put_strings(w, "meaning", meaning, c, err) == 0 &&
                   h5_put_f64(w, "scores", score, (int64_t[]){c, n}, 2, err) == 0 &&
                   h5_put_i64(w, "orders", order, (int64_t[]){c, n}, 2, err) == 0 &&
                   h5_put_f64(w, "base_ppl", base, &c, 1, err) == 0 &&
                   h5_put_f64(w, "correlation", k->correlation, (int64_t[]){c, c}, 2, err) == 0
               ? h5_put_f64(w, "overlap", k->overlap, (int64_t[]){k->n_ratios, c, c}, 3, err)
               : -1;
}

/* dropped [n_variants, most]: rows that are shorter end in -1. */
static int put_dropped(struct h5_writer *w, const struct comparison *k, struct arena *a, struct err *err)
{
    int64_t n = k->n_variants, most = 0, *at;
    for (int64_t i = 0; i < n; i++)
        most = k->variants[i].count > most ? k->variants[i].count : most;
    if (!(at = arena_alloc(a, (size_t)n, (size_t)most * sizeof *at, err)))
        return -1;
    for (int64_t i = 0; i < n; i++)
        for (int64_t d = 0; d < most; d++)
            at[i * most + d] = d < k->variants[i].count ? position(k->scores, k->variants[i].dropped[d]) : -1;
    return h5_put_i64(w, "variants/dropped", at, (int64_t[]){n, most}, 2, err);
}

static int put_variants(struct h5_writer *w, const struct comparison *k, struct arena *a, struct err *err)
{
    enum { COLUMNS = 6 };
    static const char *const names[COLUMNS] = {"variants/criterion", "variants/ratio",  "variants/protected",
                                               "variants/count",     "variants/params", "variants/same_as"};
    int64_t n = k->n_variants, texts = k->n_texts, *column = arena_alloc(a, (size_t)n, COLUMNS * sizeof *column, err);
    double *ppl = arena_alloc(a, (size_t)n, (size_t)texts * sizeof *ppl, err), *swap = arena_alloc(a, (size_t)n, sizeof *swap, err);
    if (!column || !ppl || !swap)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        const struct variant *v = &k->variants[i];
        const int64_t of[COLUMNS] = {v->criterion, v->ratio, v->protected_, v->count, v->params, v->same_as};
        for (int c = 0; c < COLUMNS; c++)
            column[c * n + i] = of[c];
        swap[i] = v->cut_swap;
        memcpy(ppl + i * texts, v->ppl, (size_t)texts * sizeof *ppl);
    }
    for (int c = 0; c < COLUMNS; c++)
        if (h5_put_i64(w, names[c], column + c * n, &n, 1, err) != 0)
            return -1;
    return h5_put_f64(w, "variants/cut_swap", swap, &n, 1, err) == 0 &&
                   h5_put_f64(w, "variants/ppl", ppl, (int64_t[]){n, texts}, 2, err) == 0
               ? put_dropped(w, k, a, err)
               : -1;
}

/* dir/zeroshot [..., n_tasks], its standard errors, and their averages [...], of n models; one model has no first dimension. */
static int put_zeroshot(struct h5_writer *w, const struct comparison *k, const char *dir, const struct zeroshot_scores *const *z,
                        int64_t n, int n_dims, struct arena *a, struct err *err)
{
    static const char *const names[4] = {"zeroshot", "zeroshot_stderr", "zeroshot_average", "zeroshot_average_stderr"};
    int64_t tasks = k->n_tasks, dims[2] = {n, tasks};
    double *of[4];
    for (int c = 0; c < 4; c++)
        if (!(of[c] = arena_alloc(a, (size_t)n, (size_t)(c < 2 ? tasks : 1) * sizeof(double), err)))
            return -1;
    for (int64_t i = 0; i < n; i++) {
        memcpy(of[0] + i * tasks, z[i]->acc, (size_t)tasks * sizeof(double));
        memcpy(of[1] + i * tasks, z[i]->std_error, (size_t)tasks * sizeof(double));
        of[2][i] = z[i]->average;
        of[3][i] = z[i]->average_std_error;
    }
    for (int c = 0; c < 4; c++) {
        char name[64];
        snprintf(name, sizeof name, "%s/%s", dir, names[c]);
        if (h5_put_f64(w, name, of[c], c < 2 ? dims + 1 - n_dims : dims, c < 2 ? n_dims + 1 : n_dims, err) != 0 ||
            h5_attr_string(w, name, "unit", "share of 1", err) != 0)
            return -1;
    }
    return 0;
}

/* tasks, and what was measured on them; nothing without. */
static int put_tasks(struct h5_writer *w, const struct comparison *k, struct arena *a, struct err *err)
{
    int64_t n = k->n_tasks;
    if (n == 0)
        return 0;
    int64_t *averaged = arena_alloc(a, (size_t)n, sizeof *averaged, err);
    const char **names = arena_alloc(a, (size_t)n, sizeof *names, err), **metrics = arena_alloc(a, (size_t)n, sizeof *metrics, err);
    const struct zeroshot_scores **z = arena_alloc(a, (size_t)k->n_variants, sizeof *z, err), *intact = &k->intact_zeroshot;
    if (!averaged || !names || !metrics || !z)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        names[i] = k->tasks[i]->name;
        metrics[i] = task_metric(k->tasks[i]);
        averaged[i] = k->averaged[i];
    }
    for (int64_t i = 0; i < k->n_variants; i++)
        z[i] = &k->variants[i].zeroshot;
    return h5_put_strings(w, "tasks", names, n, err) == 0 && h5_put_strings(w, "task_metrics", metrics, n, err) == 0 &&
                   h5_put_i64(w, "task_averaged", averaged, &n, 1, err) == 0 &&
                   put_zeroshot(w, k, "variants", z, k->n_variants, 1, a, err) == 0
               ? put_zeroshot(w, k, "intact", &intact, 1, 0, a, err)
               : -1;
}

/* text_... [n_texts] */
static int put_sources(struct h5_writer *w, const struct comparison_sheet *s, struct arena *a, struct err *err)
{
    int64_t n = s->k->n_texts;
    if (!s->sources)
        return 0;
    const char **text = arena_alloc(a, (size_t)n, 3 * sizeof *text, err);
    int64_t *count = arena_alloc(a, (size_t)n, 3 * sizeof *count, err);
    if (!text || !count)
        return -1;
    for (int64_t t = 0; t < n; t++) {
        const struct comparison_text *source = &s->sources[t];
        text[t] = source->sha256;
        text[n + t] = source->protocol;
        text[2 * n + t] = source->rows;
        count[t] = source->scored;
        count[n + t] = source->used;
        count[2 * n + t] = source->in_text;
    }
    return h5_put_strings(w, "text_sha256", text, n, err) == 0 && h5_put_strings(w, "text_protocol", text + n, n, err) == 0 &&
                   h5_put_strings(w, "text_rows", text + 2 * n, n, err) == 0 &&
                   h5_put_i64(w, "text_tokens_scored", count, &n, 1, err) == 0 &&
                   h5_put_i64(w, "text_tokens_used", count + n, &n, 1, err) == 0
               ? h5_put_i64(w, "text_tokens_in_text", count + 2 * n, &n, 1, err)
               : -1;
}

/* Facts come first, so that none of them takes the place of an attribute that readers rely on; the record, which has the names
 * and values that every result has, comes last. */
static int put_attributes(struct h5_writer *w, const struct comparison_sheet *s, struct err *err)
{
    for (int64_t i = 0; i < s->n_facts; i++)
        if (h5_attr_string(w, "/", s->facts[i][0], s->facts[i][1], err) != 0)
            return -1;
    return h5_attr_string(w, "/", "title", s->title, err) == 0 && h5_attr_string(w, "/", "model", s->model, err) == 0 &&
                   h5_attr_i64(w, "/", "keep_first", s->k->keep_first, err) == 0 &&
                   h5_attr_i64(w, "/", "keep_last", s->k->keep_last, err) == 0
               ? (s->record ? h5_attr_json(w, s->record, err) : 0)
               : -1;
}

int comparison_write_h5(const char *path, const struct comparison_sheet *s, struct err *err)
{
    const struct comparison *k = s->k;
    struct arena arena = {0};
    struct h5_writer w;
    int rc = -1;
    if (h5_writer_open(&w, path, err) != 0)
        return -1;
    if (put_units(&w, k, &arena, err) != 0 || put_criteria(&w, k, &arena, err) != 0 ||
        h5_put_f64(&w, "ratios", k->ratios, &k->n_ratios, 1, err) != 0 ||
        h5_put_strings(&w, "texts", k->texts, k->n_texts, err) != 0 || put_variants(&w, k, &arena, err) != 0 ||
        h5_put_f64(&w, "intact/ppl", k->intact_ppl, &k->n_texts, 1, err) != 0 ||
        h5_put_i64(&w, "intact/params", &k->intact_params, NULL, 0, err) != 0 || put_tasks(&w, k, &arena, err) != 0 ||
        put_sources(&w, s, &arena, err) != 0 || put_attributes(&w, s, err) != 0)
        goto done;
    rc = h5_writer_commit(&w, err);
done:
    if (rc != 0)
        h5_writer_abort(&w);
    arena_free(&arena);
    return rc;
}
