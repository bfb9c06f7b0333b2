#include "prune/similarity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/nn/tile.h"
#include "prune/gram.h"

enum { TASK_ROWS = 64 };

struct similarity {
    int64_t rows, len, dim;
    double *sums; /* [tasks]: partial sums of one pass over the rows */
    double (*term)(const float *x, const float *y, int64_t n);
    /* cka */
    double *gram, *left, *right, *means; /* [dim, dim], [GRAM_ROWS, dim] twice, [2, dim] */
    double norm_before;                  /* |X^T X| of the next unit, known from this one */
    int64_t next;
    /* angular */
    bool all_tokens;
    int64_t tokens, window;
    float *streams; /* [n + 1][tokens, dim] */
    double *norms;  /* [n + 1][tokens] */
};

/* ---- one number a token ---- */

static double dot(const float *x, const float *y, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * (double)y[i];
    return s;
}

static double cosine(const float *x, const float *y, int64_t n)
{
    double norms = sqrt(dot(x, x, n) * dot(y, y, n));
    return norms > 0 ? dot(x, y, n) / norms : 0;
}

static double relative_magnitude(const float *x, const float *y, int64_t n)
{
    double change = 0, norm = dot(y, y, n);
    for (int64_t i = 0; i < n; i++)
        change += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
    return norm > 0 ? sqrt(change / norm) : 0;
}

struct mean_job {
    const struct similarity *s;
    const float *x, *y;
};

static void mean_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct mean_job *j = arg;
    int64_t begin = task * TASK_ROWS, end = min_i64(begin + TASK_ROWS, j->s->rows), dim = j->s->dim;
    double sum = 0;
    for (int64_t i = begin; i < end; i++)
        sum += j->s->term(j->x + i * dim, j->y + i * dim, dim);
    j->s->sums[task] = sum;
}

static double mean_over_rows(const struct similarity *s, const struct compute *c, const float *x, const float *y)
{
    int64_t tasks = ceil_div(s->rows, TASK_ROWS);
    double sum = 0;
    struct mean_job j = {s, x, y};
    pool_run(c->pool, mean_task, &j, tasks);
    for (int64_t t = 0; t < tasks; t++)
        sum += s->sums[t];
    return sum / (double)s->rows;
}

static void see_influence(struct watcher *w, const struct compute *c, int64_t i, const float *before, const float *after)
{
    w->scores->score[i] = 1 - mean_over_rows(w->state, c, before, after);
}

static void see_magnitude(struct watcher *w, const struct compute *c, int64_t i, const float *before, const float *after)
{
    w->scores->score[i] = mean_over_rows(w->state, c, before, after);
}

/* ---- CKA ---- */

static void column_means(double *mean, const float *x, int64_t rows, int64_t dim)
{
    memset(mean, 0, (size_t)dim * sizeof *mean);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < dim; k++)
            mean[k] += (double)x[i * dim + k];
    for (int64_t k = 0; k < dim; k++)
        mean[k] /= (double)rows;
}

static void centre(double *out, const float *x, const double *mean, int64_t rows, int64_t dim)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < dim; k++)
            out[i * dim + k] = (double)x[i * dim + k] - mean[k];
}

/* |A^T B| (Frobenius) of the centred streams */
static double cross_norm(const struct similarity *s, const struct compute *c, const float *a, const double *mean_a, const float *b,
                         const double *mean_b)
{
    double sum = 0;
    memset(s->gram, 0, (size_t)(s->dim * s->dim) * sizeof *s->gram);
    for (int64_t i = 0; i < s->rows; i += GRAM_ROWS) {
        int64_t n = min_i64(GRAM_ROWS, s->rows - i);
        centre(s->left, a + i * s->dim, mean_a, n, s->dim);
        centre(s->right, b + i * s->dim, mean_b, n, s->dim);
        gram_add(c, s->gram, s->left, s->right, n, s->dim);
    }
    for (int64_t i = 0; i < s->dim * s->dim; i++)
        sum += s->gram[i] * s->gram[i];
    return sqrt(sum);
}

static void see_cka(struct watcher *w, const struct compute *c, int64_t i, const float *before, const float *after)
{
    struct similarity *s = w->state;
    double *x = s->means, *y = s->means + s->dim;
    column_means(x, before, s->rows, s->dim);
    column_means(y, after, s->rows, s->dim);
    double norm_x = s->next == i && i > 0 ? s->norm_before : cross_norm(s, c, before, x, before, x);
    double norm_y = cross_norm(s, c, after, y, after, y), cross = cross_norm(s, c, after, y, before, x), both = norm_x * norm_y;
    w->scores->score[i] = both > 0 ? 1 - cross * cross / both : 1;
    s->norm_before = norm_y;
    s->next = i + 1;
}

/* ---- angular distance ---- */

/* The tokens of a stream that count, with their norms. */
static void keep_stream(struct similarity *s, int64_t k, const float *x)
{
    float *to = s->streams + k * s->tokens * s->dim;
    int64_t stride = s->all_tokens ? 1 : s->len, first = s->all_tokens ? 0 : s->len - 1;
    for (int64_t i = 0; i < s->tokens; i++) {
        memcpy(to + i * s->dim, x + (first + i * stride) * s->dim, (size_t)s->dim * sizeof *to);
        s->norms[k * s->tokens + i] = sqrt(dot(to + i * s->dim, to + i * s->dim, s->dim));
    }
}

static void see_stream(struct watcher *w, const struct compute *c, int64_t i, const float *before, const float *after)
{
    (void)c;
    if (i == 0)
        keep_stream(w->state, 0, before);
    keep_stream(w->state, i + 1, after);
}

struct window_job {
    const struct similarity *s;
    double *distance; /* [n + 1, n] */
    int64_t n;
};

static void window_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    const struct window_job *j = arg;
    const struct similarity *s = j->s;
    int64_t w = task / j->n, i = task % j->n;
    if (w == 0 || i + w > j->n) {
        j->distance[task] = NAN;
        return;
    }
    double sum = 0;
    for (int64_t t = 0; t < s->tokens; t++) {
        int64_t a = i * s->tokens + t, b = (i + w) * s->tokens + t;
        double norms = s->norms[a] * s->norms[b];
        double cos = norms > 0 ? dot(s->streams + a * s->dim, s->streams + b * s->dim, s->dim) / norms : 0;
        sum += acos(fmin(fmax(cos, -1), 1)) / M_PI;
    }
    j->distance[task] = sum / (double)s->tokens;
}

static void finish_windows(struct watcher *w, const struct compute *c)
{
    const struct similarity *s = w->state;
    struct scores *out = w->scores;
    struct window_job j = {s, out->distance, out->n};
    pool_run(c->pool, window_task, &j, (out->n + 1) * out->n);
    const double *of_length = out->distance + s->window * out->n;
    out->window = s->window;
    for (int64_t i = 0; i < out->n; i++) {
        out->score[i] = INFINITY;
        for (int64_t first = i - s->window + 1; first <= i; first++)
            if (first >= 0 && first + s->window <= out->n)
                out->score[i] = fmin(out->score[i], of_length[first]);
    }
}

/* ---- */

static void finish_nothing(struct watcher *w, const struct compute *c)
{
    (void)w, (void)c;
}

static void release(struct watcher *w)
{
    struct similarity *s = w->state;
    if (s) {
        free(s->sums);
        free(s->gram);
        free(s->left);
        free(s->right);
        free(s->means);
        free(s->streams);
        free(s->norms);
    }
    free(s);
    w->state = NULL;
}

static int bind_cka(struct similarity *s, struct err *err)
{
    size_t row = (size_t)s->dim * sizeof(double);
    s->gram = mem_alloc((size_t)s->dim, row, err);
    s->left = mem_alloc(GRAM_ROWS, row, err);
    s->right = mem_alloc(GRAM_ROWS, row, err);
    s->means = mem_alloc(2, row, err);
    return s->gram && s->left && s->right && s->means ? 0 : -1;
}

static int bind_angular(struct similarity *s, struct scores *out, const struct calibration *cal, const struct similarity_options *o,
                        struct err *err)
{
    size_t streams = (size_t)out->n + 1;
    if (o->window < 1 || o->window > out->n)
        return err_usage(err, "--count %lld: a window of 1 to %lld blocks was expected", (long long)o->window, (long long)out->n);
    s->window = o->window;
    s->all_tokens = o->all_tokens;
    s->tokens = o->all_tokens ? s->rows : cal->n;
    s->streams = mem_alloc(streams, (size_t)(s->tokens * s->dim) * sizeof *s->streams, err);
    s->norms = mem_alloc(streams, (size_t)s->tokens * sizeof *s->norms, err);
    out->distance = mem_alloc(streams, (size_t)out->n * sizeof *out->distance, err);
    return s->streams && s->norms && out->distance ? 0 : -1;
}

int similarity_watch(struct watcher *w, struct scores *out, const struct model *m, const struct calibration *cal,
                     const struct similarity_options *o, struct err *err)
{
    struct similarity *s = mem_alloc(1, sizeof *s, err);
    *w = (struct watcher){.scores = out, .state = s, .finish = finish_nothing, .release = release};
    if (!s)
        return -1;
    s->rows = cal->n * cal->len;
    s->len = cal->len;
    s->dim = m->cfg.dim;
    if (!(s->sums = mem_alloc((size_t)ceil_div(s->rows, TASK_ROWS), sizeof *s->sums, err)))
        return -1;
    if (!strcmp(out->criterion, "bi")) {
        w->see = see_influence;
        s->term = cosine;
    } else if (!strcmp(out->criterion, "relative-magnitude")) {
        w->see = see_magnitude;
        s->term = relative_magnitude;
    } else if (!strcmp(out->criterion, "cka")) {
        w->see = see_cka;
        return bind_cka(s, err);
    } else {
        w->see = see_stream;
        w->finish = finish_windows;
        return bind_angular(s, out, cal, o, err);
    }
    return 0;
}
