#include "train/watch.h"

#include <stdio.h>

static void warn(struct watch *w, struct progress *progress, const char *text)
{
    progress_say(progress, "warning: %s", text);
    if (!w->warnings)
        w->warnings = json_array();
    json_array_append_new(w->warnings, json_string(text));
}

/* The mean of the losses behind the first one, `later` of them. */
static double recent_mean(const struct watch *w, int64_t later)
{
    int64_t n = later < WATCH_RECENT ? later : WATCH_RECENT;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += w->recent[i];
    return sum / (double)n;
}

void watch_step(struct watch *w, int64_t step, double loss, double norm, bool last, struct progress *progress)
{
    char text[200];
    if (w->n == 0)
        w->first = loss;
    else /* the first loss is no evidence against itself */
        w->recent[(w->n - 1) % WATCH_RECENT] = loss;
    int64_t later = w->n++;
    if (norm == 0 && !w->told_gradient) {
        w->told_gradient = true;
        snprintf(text, sizeof text, "step %lld: the gradient is zero, nothing is learnt", (long long)step);
        warn(w, progress, text);
    }
    if (w->told_loss || later == 0 || (later < WATCH_RECENT && !last))
        return;
    double mean = recent_mean(w, later);
    if (mean > w->first + 1 || mean > 2 * w->first) {
        w->told_loss = true;
        snprintf(text, sizeof text,
                 "step %lld: the loss of late, %.4f, is far above that of the start, %.4f; "
                 "a lower --lr may help",
                 (long long)step, mean, w->first);
        warn(w, progress, text);
    }
}

void watch_free(struct watch *w)
{
    json_decref(w->warnings);
    *w = (struct watch){0};
}
