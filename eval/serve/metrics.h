/* Counters and histograms in Prometheus' text format. */
#ifndef ESPALIER_EVAL_SERVE_METRICS_H
#define ESPALIER_EVAL_SERVE_METRICS_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

enum { HISTOGRAM_BOUNDS = 14, METRIC_ROUTES = 16, METRIC_STATUSES = 16 };

struct histogram {
    uint64_t buckets[HISTOGRAM_BOUNDS + 1];
    double sum;
};

struct metrics {
    pthread_mutex_t lock;
    struct {
        const char *route;
        int status[METRIC_STATUSES];
        uint64_t count[METRIC_STATUSES];
    } routes[METRIC_ROUTES];
    struct histogram request, first_token, per_token;
};

void metrics_open(struct metrics *m);
void metrics_close(struct metrics *m);

/* route must outlive the metrics: a literal. */
void metrics_count(struct metrics *m, const char *route, int status);

enum metric_time { TIME_REQUEST, TIME_FIRST_TOKEN, TIME_PER_TOKEN };
void metrics_time(struct metrics *m, enum metric_time which, double seconds);

struct engine_stats;
void metrics_write(struct metrics *m, const struct engine_stats *stats, FILE *out);

#endif
