#include "cli/report.h"

#include <math.h>
#include <string.h>

#include "cli/report_impl.h"
#include "prune/plan.h"

enum { SPEED_SIZE = 2 * NUMBER_SIZE + 8 };

static int64_t count(const bool *flags, int64_t n)
{
    int64_t k = 0;
    for (int64_t i = 0; flags && i < n; i++)
        k += flags[i];
    return k;
}

/* ---- head: title and the outcome in a few numbers ---- */

static void page_head(FILE *f, const struct report *r)
{
    html_head(f, r->title ? r->title : "Report", "");
    if (r->subtitle) {
        fputs("<p class=\"subtitle\">", f);
        html_text(f, r->subtitle);
        fputs("</p>\n", f);
    }
    fputs("</header>\n", f);
}

/* "40.00 ± 0.50" */
static const char *speed_plain(char out[SPEED_SIZE], const struct report_model *m)
{
    char mean[NUMBER_SIZE], std[NUMBER_SIZE];
    number_plain(mean, m->decode_tok_s);
    if (m->decode_std > 0)
        snprintf(out, SPEED_SIZE, "%s ± %s", mean, number_plain(std, m->decode_std));
    else
        snprintf(out, SPEED_SIZE, "%s", mean);
    return out;
}

/* How a speed differs from another: a percentage only where the two spreads do not explain the difference. */
static const char *speed_change(char out[SPEED_SIZE], const struct report_model *m, const struct report_model *from)
{
    char change[NUMBER_SIZE];
    *out = 0;
    if (!(m->decode_tok_s > 0) || !(from->decode_tok_s > 0))
        return out;
    if (!(m->decode_std > 0) || !(from->decode_std > 0))
        snprintf(out, SPEED_SIZE, "noise not measured");
    else if (fabs(m->decode_tok_s - from->decode_tok_s) <= m->decode_std + from->decode_std)
        snprintf(out, SPEED_SIZE, "no difference beyond the noise");
    else
        snprintf(out, SPEED_SIZE, "%s", number_change(change, m->decode_tok_s, from->decode_tok_s));
    return out;
}

/* "before -> after" with the change under it. */
static void summary_item(FILE *f, const char *name, const char *before, const char *after, const char *change)
{
    fputs("<div><dt>", f);
    html_text(f, name);
    fprintf(f, "</dt><dd><span class=\"from\">%s →</span> %s</dd>", before, after);
    fprintf(f, "%s%s%s</div>\n", *change ? "<dd class=\"change\">" : "", change, *change ? "</dd>" : "");
}

static void summary(FILE *f, const struct report *r)
{
    char before[NUMBER_SIZE], after[NUMBER_SIZE], change[NUMBER_SIZE], name[256];
    char speed_before[SPEED_SIZE], speed_after[SPEED_SIZE], faster[SPEED_SIZE];
    if (r->n_models < 2)
        return;
    const struct report_model *a = &r->models[0], *b = &r->models[r->n_models - 1];
    fputs("<dl class=\"summary\" aria-label=\"Outcome\">\n", f);
    if (a->n_blocks > 0 && b->n_blocks > 0)
        summary_item(f, "Transformer blocks", number_count(before, a->n_blocks), number_count(after, b->n_blocks),
                     number_change(change, (double)b->n_blocks, (double)a->n_blocks));
    if (a->params > 0 && b->params > 0)
        summary_item(f, "Parameters", number_count(before, a->params), number_count(after, b->params),
                     number_change(change, (double)b->params, (double)a->params));
    if (r->n_texts > 0) {
        snprintf(name, sizeof name, "Perplexity, %s", r->text_names[0]);
        summary_item(f, name, number_plain(before, a->ppl[0]), number_plain(after, b->ppl[0]),
                     number_change(change, b->ppl[0], a->ppl[0]));
    }
    if (a->decode_tok_s > 0 && b->decode_tok_s > 0)
        summary_item(f, "Decoding, tokens/s", speed_plain(speed_before, a), speed_plain(speed_after, b),
                     speed_change(faster, b, a));
    fputs("</dl>\n", f);
}

/* ---- block importance ---- */

static void blocks_legend(FILE *f, const struct report *r)
{
    int64_t n_dropped = count(r->dropped, r->n_blocks), n_guarded = 0;
    char name[64];
    for (int64_t i = 0; r->protected_ && i < r->n_blocks; i++)
        n_guarded += r->protected_[i] && !(r->dropped && r->dropped[i]);
    const struct {
        const char *class, *name;
        int64_t n;
        bool shown;
    } marks[] = {{"drop", "dropped", n_dropped, n_dropped > 0},
                 {"keep", "kept", r->n_blocks - n_dropped - n_guarded, true},
                 {"guard", "kept, protected from dropping", n_guarded, n_guarded > 0}};
    fputs("<ul class=\"legend\">\n", f);
    for (size_t k = 0; k < sizeof marks / sizeof *marks; k++) {
        snprintf(name, sizeof name, "%s (%lld)", marks[k].name, (long long)marks[k].n);
        if (marks[k].shown)
            legend_block(f, marks[k].class, name);
    }
    if (r->base_ppl > 0)
        legend_line(f, "base", "intact model");
    fputs("</ul>\n", f);
}

/* The figure's values for those who cannot see it, or want them exactly. */
static void blocks_table(FILE *f, const struct report *r)
{
    char number[NUMBER_SIZE], name[UNIT_NAME];
    fprintf(f,
            "<details><summary>The values as a table</summary>\n<div class=\"columns\"><table>\n"
            "<thead><tr><th scope=\"col\">Block</th><th scope=\"col\">%s</th></tr></thead>\n<tbody>\n",
            r->base_ppl > 0 ? "Perplexity without it" : "Score");
    for (int64_t i = 0; i < r->n_blocks; i++) {
        bool dropped = r->dropped && r->dropped[i], guarded = r->protected_ && r->protected_[i];
        fprintf(f, "<tr><th scope=\"row\">%s%s</th><td>%s</td></tr>\n", name_at(name, r->unit, i),
                dropped   ? " <span class=\"note\">dropped</span>"
                : guarded ? " <span class=\"note\">protected</span>"
                          : "",
                number_plain(number, r->score[i]));
    }
    fputs("</tbody></table></div></details>\n", f);
}

/* Names the blocks that the figure shows as arrows. */
static void blocks_off_scale(FILE *f, const struct report *r)
{
    char number[NUMBER_SIZE], name[UNIT_NAME];
    int64_t n = 0;
    for (int64_t i = 0; i < r->n_blocks; i++)
        if (!isfinite(r->score[i]) || r->score[i] > blocks_ceiling(r))
            fprintf(f, "%sblock %s (%s)", n++ ? ", " : " Off the scale (arrows): ", name_at(name, r->unit, i),
                    number_plain(number, r->score[i]));
    fputs(n ? "." : "", f);
}

static void blocks_section(FILE *f, const struct report *r)
{
    if (r->n_blocks <= 0)
        return;
    fputs("<section aria-labelledby=\"blocks\">\n<h2 id=\"blocks\">Block importance</h2>\n<figure>\n", f);
    blocks_legend(f, r);
    plot_blocks(f, r, false);
    plot_blocks(f, r, true);
    bool halves = false;
    for (int64_t i = 0; r->unit && i < r->n_blocks; i++)
        halves |= r->unit[i].parts != PARTS_ALL;
    const char *what = halves ? "half of a block" : "block";
    fputs("<figcaption>", f);
    if (r->base_ppl > 0)
        fprintf(f,
                "Perplexity of the model with that one %s left out, on the calibration rows. A stem starts at the perplexity of "
                "the intact model: the longer it is, the more the model relies on it.",
                what);
    else
        fprintf(f, "Score of each %s; the lowest are dropped first.", what);
    if (halves)
        fputs(" Each block stands twice: its attention, then its feed-forward.", f);
    blocks_off_scale(f, r);
    if (r->criterion) {
        fputs(" Criterion: ", f);
        html_text(f, r->criterion);
        fputs(".", f);
    }
    if (r->cut_swap > PLAN_UNSETTLED)
        fprintf(
            f,
            " <strong>The cut is not settled:</strong> on other texts of the kind the last block dropped and the first one kept "
            "would change places with a probability of %.0f\u00A0%%.",
            100 * r->cut_swap);
    fputs("</figcaption>\n", f);
    blocks_table(f, r);
    fputs("</figure>\n</section>\n", f);
}

/* ---- training ---- */

static void training_section(FILE *f, const struct report *r)
{
    char name[64];
    int64_t window = smoothing_window(r->n_steps);
    if (r->n_steps <= 0 && r->n_evals <= 0)
        return;
    fputs("<section aria-labelledby=\"training\">\n<h2 id=\"training\">Retraining</h2>\n<figure>\n<ul class=\"legend\">\n", f);
    if (r->n_steps > 0)
        legend_line(f, window > 1 ? "raw" : "smooth", "loss of each step");
    if (r->n_steps > 0 && window > 1) {
        snprintf(name, sizeof name, "mean over %lld steps", (long long)window);
        legend_line(f, "smooth", name);
    }
    if (r->n_evals > 0)
        fputs("<li><svg viewBox=\"0 0 22 14\" aria-hidden=\"true\"><path class=\"eval-line\" d=\"M1 7h20\"/>"
              "<circle class=\"eval\" cx=\"11\" cy=\"7\" r=\"4.5\"/></svg>held-out loss</li>\n",
              f);
    fputs("</ul>\n", f);
    plot_training(f, r, false);
    plot_training(f, r, true);
    fputs("<figcaption>Cross-entropy per target token, in nats.</figcaption>\n</figure>\n</section>\n", f);
}

/* ---- evaluation ---- */

/* One cell: the value, and how it differs from the first model's. Its label shows where the table is laid out as cards. */
static void cell(FILE *f, const char *kind, const char *label, const char *value, const char *change)
{
    fprintf(f, "<td role=\"cell\" data-label=\"%s", kind);
    html_text(f, label);
    fprintf(f, "\"><span class=\"value\">%s%s%s%s</span></td>", value, *change ? " <span class=\"change\">" : "", change,
            *change ? "</span>" : "");
}

static void heading(FILE *f, const char *kind, const char *text)
{
    fputs("<th role=\"columnheader\" scope=\"col\">", f);
    fputs(kind, f);
    html_text(f, text);
    fputs("</th>", f);
}

static void evaluation_row(FILE *f, const struct report *r, int64_t k, bool speed)
{
    static const char none[] = "<span class=\"note\">–</span>";
    const struct report_model *m = &r->models[k], *first = &r->models[0];
    char value[NUMBER_SIZE], change[NUMBER_SIZE] = "", rate[SPEED_SIZE], faster[SPEED_SIZE];
    fputs("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">", f);
    html_text(f, m->name);
    fputs("</th>", f);
    cell(f, "", "Blocks", m->n_blocks > 0 ? number_count(value, m->n_blocks) : none, "");
    if (k > 0)
        number_change(change, (double)m->params, (double)first->params);
    cell(f, "", "Parameters", m->params > 0 ? number_count(value, m->params) : none, m->params > 0 ? change : "");
    for (int64_t t = 0; t < r->n_texts; t++) {
        if (k > 0)
            number_change(change, m->ppl[t], first->ppl[t]);
        cell(f, "Perplexity, ", r->text_names[t], isnan(m->ppl[t]) ? none : number_plain(value, m->ppl[t]), change);
    }
    if (speed)
        cell(f, "", "Decoding, tokens/s", m->decode_tok_s > 0 ? speed_plain(rate, m) : none,
             k > 0 ? speed_change(faster, m, first) : "");
    fputs("</tr>\n", f);
}

static void evaluation_section(FILE *f, const struct report *r)
{
    bool speed = false;
    if (r->n_models <= 0)
        return;
    for (int64_t k = 0; k < r->n_models; k++)
        speed = speed || r->models[k].decode_tok_s > 0;
    /* The roles are those that these elements have by themselves; browsers drop them when a table is laid out as cards. */
    fputs("<section aria-labelledby=\"evaluation\">\n<h2 id=\"evaluation\">Evaluation</h2>\n"
          "<table class=\"cards\" role=\"table\">\n<thead role=\"rowgroup\"><tr role=\"row\">",
          f);
    heading(f, "", "Model");
    heading(f, "", "Blocks");
    heading(f, "", "Parameters");
    for (int64_t t = 0; t < r->n_texts; t++)
        heading(f, "Perplexity<br>", r->text_names[t]);
    if (speed)
        heading(f, "Decoding<br>", "tokens/s");
    fputs("</tr></thead>\n<tbody role=\"rowgroup\">\n", f);
    for (int64_t k = 0; k < r->n_models; k++)
        evaluation_row(f, r, k, speed);
    fputs("</tbody>\n</table>\n", f);
    if (r->n_texts > 0)
        fputs("<p class=\"note\"><small>Lower perplexity is better. Changes are against the first model.</small></p>\n", f);
    if (speed)
        fputs("<p class=\"note\"><small>Speeds: mean ± standard deviation over runs in which the models took turns. A difference "
              "within the sum of the two deviations is noise.</small></p>\n",
              f);
    fputs("</section>\n", f);
}

/* ---- samples ---- */

static void samples_section(FILE *f, const struct report *r)
{
    if (r->n_prompts <= 0 || r->n_models <= 0 || !r->continuations)
        return;
    fputs("<section aria-labelledby=\"samples\">\n<h2 id=\"samples\">Samples</h2>\n", f);
    for (int64_t p = 0; p < r->n_prompts; p++) {
        fputs("<article class=\"sample\">\n<h3>", f);
        html_text(f, r->prompts[p]);
        fputs("</h3>\n<dl class=\"answers\">\n", f);
        for (int64_t k = 0; k < r->n_models; k++) {
            const char *text = r->continuations[p * r->n_models + k];
            if (!text)
                continue;
            fputs("<div><dt>", f);
            html_text(f, r->models[k].name);
            fputs("</dt><dd>", f);
            html_text(f, text + strspn(text, " \n\t")); /* continuations tend to start with the blank after the prompt */
            fputs("</dd></div>\n", f);
        }
        fputs("</dl>\n</article>\n", f);
    }
    fputs("</section>\n", f);
}

static void page(FILE *f, const void *what)
{
    const struct report *r = what;
    page_head(f, r);
    summary(f, r);
    blocks_section(f, r);
    training_section(f, r);
    evaluation_section(f, r);
    samples_section(f, r);
    facts_section(f, "recipe", "How this was made", r->n_recipe, r->recipe);
    html_foot(f, r->n_facts, r->facts);
}

int report_write(const struct report *r, const char *path, struct err *err)
{
    return text_write(path, page, r, err);
}
