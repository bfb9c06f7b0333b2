#include "cli/comparison_facts.h"

#include <string.h>

#include "cli/report_impl.h"
#include "core/base/file.h"
#include "core/base/json.h"

void comparison_text_set(struct comparison_text *to, const struct eval_text *t, const struct ppl_result *measured)
{
    *to = (struct comparison_text){.sha256 = t->sha256,
                                   .protocol = t->protocol.name,
                                   .rows = t->rows,
                                   .scored = measured->tokens_scored,
                                   .used = (int64_t)t->ids.n,
                                   .in_text = t->tokens_in_text};
}

static void add_fact(struct facts *f, const char *name, const char *value)
{
    if (!value || f->n == MAX_FACTS)
        return;
    snprintf(f->text[f->n], sizeof f->text[f->n], "%s", value);
    snprintf(f->name[f->n], sizeof f->name[f->n], "%s", name);
    f->pair[f->n][0] = f->name[f->n];
    f->pair[f->n][1] = f->text[f->n];
    f->n++;
}

/* "piqa 100 of 1838, boolq 100 of 3270, from number 50 on" */
static void add_task_facts(struct facts *f, const struct eval_tasks *t)
{
    char text[FACT_SIZE];
    int n = 0;
    if (t->n == 0)
        return;
    for (int64_t i = 0; i < t->n; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%s %lld of %lld", i ? ", " : "", t->task[i]->name,
                      (long long)t->set[i].n, (long long)t->set[i].n_rows);
    if (t->words.offset > 0)
        snprintf(text + n, sizeof text - (size_t)n, ", from number %lld on", (long long)t->words.offset);
    add_fact(f, "zero-shot documents", text);
    add_fact(f, "zero-shot BOS", t->words.bos ? "before every text" : "none");
}

const char *comparison_text_part(char out[PART_SIZE], const struct comparison_text *t)
{
    char used[NUMBER_SIZE], all[NUMBER_SIZE];
    number_whole(all, t->in_text);
    if (t->used < t->in_text)
        snprintf(out, PART_SIZE, "first %s of %s tokens", number_whole(used, t->used), all);
    else
        snprintf(out, PART_SIZE, "%s tokens", all);
    return out;
}

/* "first 3,072 of 304,896 tokens, 3,048 of them scored; rows: wikitext; sha256 ..." */
static void add_text_facts(struct facts *f, const struct comparison_origin *from)
{
    char name[FACT_NAME], part[PART_SIZE], text[FACT_SIZE], scored[NUMBER_SIZE];
    if (from->k->n_texts > 0)
        add_fact(f, "perplexity protocol", from->sources[0].protocol);
    for (int64_t i = 0; i < from->k->n_texts; i++) {
        const struct comparison_text *t = &from->sources[i];
        snprintf(name, sizeof name, "text %s", from->k->texts[i]);
        snprintf(text, sizeof text, "%s, %s scored; rows: %s; sha256 %s", comparison_text_part(part, t),
                 number_whole(scored, t->scored), t->rows, t->sha256);
        add_fact(f, name, text);
    }
}

void comparison_facts(struct facts *f, const struct comparison_origin *from, const json_t *result)
{
    static const char *const strings[][2] = {
        {"model", "model"},           {"model hash", "model_hash"},    {"weights", "dtype"}, {"instruction set", "isa"},
        {"OpenBLAS kernels", "blas"}, {"espalier", "program_version"}, {"commit", "commit"}};
    const struct comparison *k = from->k;
    char text[96];
    *f = (struct facts){.n = 0};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        add_fact(f, strings[i][0], json_string_value(json_object_get(result, strings[i][1])));
    add_fact(f, "calibration", path_base(from->cal->file));
    add_fact(f, "calibration sha256", from->cal->sha256);
    snprintf(text, sizeof text, "%lld x %lld tokens, seed %lld", (long long)from->cal->n, (long long)from->cal->len,
             (long long)from->seed);
    add_fact(f, "calibration rows", text);
    add_text_facts(f, from);
    add_task_facts(f, from->tasks);
    snprintf(text, sizeof text, "first %lld, last %lld blocks", (long long)k->keep_first, (long long)k->keep_last);
    add_fact(f, "protected ends", text);
    snprintf(text, sizeof text, "%.1f s", json_real_value(json_object_get(result, "wall_seconds")));
    add_fact(f, "took", text);
    snprintf(text, sizeof text, "%.0f MiB", (double)json_integer_value(json_object_get(result, "peak_rss_bytes")) / (1 << 20));
    add_fact(f, "peak memory", text);
}

json_t *comparison_record(const struct comparison_origin *from, const json_t *result)
{
    const struct calibration *cal = from->cal;
    json_t *record = json_object();
    json_object_update(record, (json_t *)result);
    facts_file(record, "calibration", cal->file, cal->sha256);
    json_object_update_new(record, json_pack("{sI sI}", "samples", (json_int_t)cal->n, "seq_len", (json_int_t)cal->len));
    json_t *texts = json_array();
    for (int64_t i = 0; i < from->k->n_texts; i++) {
        const struct comparison_text *t = &from->sources[i];
        json_array_append_new(texts,
                              json_pack("{so ss sI sI sI ss ss}", "text", json_text(from->k->texts[i]), "text_sha256", t->sha256,
                                        "tokens_scored", (json_int_t)t->scored, "tokens_used", (json_int_t)t->used,
                                        "tokens_in_text", (json_int_t)t->in_text, "rows", t->rows, "protocol", t->protocol));
    }
    json_object_set_new(record, "texts", texts);
    if (from->k->n_texts > 0)
        json_object_set_new(record, "protocol", json_string(from->sources[0].protocol));
    return record;
}
