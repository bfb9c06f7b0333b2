#include "eval/serve/metrics.h"

#include <string.h>

#include "eval/engine.h"

static const double bounds[HISTOGRAM_BOUNDS] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};

void metrics_open(struct metrics *m)
{
    *m = (struct metrics){0};
    pthread_mutex_init(&m->lock, NULL);
}

void metrics_close(struct metrics *m)
{
    pthread_mutex_destroy(&m->lock);
}

void metrics_count(struct metrics *m, const char *route, int status)
{
    int i = 0, k = 0;
    pthread_mutex_lock(&m->lock);
    while (i < METRIC_ROUTES - 1 && m->routes[i].route && strcmp(m->routes[i].route, route) != 0)
        i++;
    m->routes[i].route = route;
    while (k < METRIC_STATUSES - 1 && m->routes[i].status[k] && m->routes[i].status[k] != status)
        k++;
    m->routes[i].status[k] = status;
    m->routes[i].count[k]++;
    pthread_mutex_unlock(&m->lock);
}

void metrics_time(struct metrics *m, enum metric_time which, double seconds)
{
    struct histogram *h = which == TIME_REQUEST ? &m->request : which == TIME_FIRST_TOKEN ? &m->first_token : &m->per_token;
    int i = 0;
    while (i < HISTOGRAM_BOUNDS && seconds > bounds[i])
        i++;
    pthread_mutex_lock(&m->lock);
    h->buckets[i]++;
    h->sum += seconds;
    pthread_mutex_unlock(&m->lock);
}

static void write_one(FILE *out, const char *name, const char *type, const char *help, double v)
{
    fprintf(out, "# HELP espalier_%s %s\n# TYPE espalier_%s %s\nespalier_%s %.17g\n", name, help, name, type, name, v);
}

static void write_histogram(FILE *out, const char *name, const char *help, const struct histogram *h)
{
    uint64_t n = 0;
    fprintf(out, "# HELP espalier_%s %s\n# TYPE espalier_%s histogram\n", name, help, name);
    for (int i = 0; i < HISTOGRAM_BOUNDS; i++)
        fprintf(out, "espalier_%s_bucket{le=\"%g\"} %llu\n", name, bounds[i], (unsigned long long)(n += h->buckets[i]));
    n += h->buckets[HISTOGRAM_BOUNDS];
    fprintf(out, "espalier_%s_bucket{le=\"+Inf\"} %llu\nespalier_%s_sum %.9g\nespalier_%s_count %llu\n", name,
            (unsigned long long)n, name, h->sum, name, (unsigned long long)n);
}

void metrics_write(struct metrics *m, const struct engine_stats *s, FILE *out)
{
    pthread_mutex_lock(&m->lock);
    fprintf(out, "# HELP espalier_requests_total answers by route and status\n# TYPE espalier_requests_total counter\n");
    for (int i = 0; i < METRIC_ROUTES && m->routes[i].route; i++)
        for (int k = 0; k < METRIC_STATUSES && m->routes[i].status[k]; k++)
            fprintf(out, "espalier_requests_total{route=\"%s\",code=\"%d\"} %llu\n", m->routes[i].route, m->routes[i].status[k],
                    (unsigned long long)m->routes[i].count[k]);
    write_one(out, "prompt_tokens_total", "counter", "prompt tokens computed", (double)s->prompt_tokens);
    write_one(out, "cached_tokens_total", "counter", "prompt tokens found in a cache", (double)s->reused_tokens);
    write_one(out, "generated_tokens_total", "counter", "new tokens", (double)s->new_tokens);
    write_one(out, "steps_total", "counter", "forwards", (double)s->steps);
    write_one(out, "rows_total", "counter", "rows of all forwards", (double)s->rows);
    write_one(out, "queue_length", "gauge", "sequences that wait", (double)s->waiting);
    write_one(out, "slots_used", "gauge", "sequences that run", (double)s->running);
    write_one(out, "slots", "gauge", "sequences that can run at once", (double)s->slots);
    write_histogram(out, "request_seconds", "from a completion request to the end of its answer", &m->request);
    write_histogram(out, "first_token_seconds", "from a completion request to its first token", &m->first_token);
    write_histogram(out, "token_seconds", "mean time between the tokens of a request", &m->per_token);
    pthread_mutex_unlock(&m->lock);
}
