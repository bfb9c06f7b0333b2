#include "core/base/progress.h"

#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/utf8.h"

static const double FIRST_SHOWN = 1.0, TERMINAL_EVERY = 0.1, LINE_EVERY = 10.0; /* seconds */

double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double progress_clock(const struct progress *p)
{
    return clock_seconds() - (p ? p->paused : 0);
}

void progress_open(struct progress *p, FILE *out, bool quiet)
{
    *p = (struct progress){.out = quiet ? NULL : out, .terminal = isatty(fileno(out))};
}

void progress_begin(struct progress *p, const char *what, int64_t total, const char *unit)
{
    if (!p)
        return;
    p->what = what;
    p->unit = unit;
    p->total = total;
    p->started = progress_clock(p);
    p->shown = p->started + FIRST_SHOWN - (p->terminal ? TERMINAL_EVERY : LINE_EVERY);
    p->drawn = false;
}

static void format_time(char *s, size_t n, double seconds)
{
    long t = (long)(seconds + 0.5);
    if (t < 60)
        snprintf(s, n, "%lds", t);
    else if (t < 3600)
        snprintf(s, n, "%ldm%02lds", t / 60, t % 60);
    else
        snprintf(s, n, "%ldh%02ldm", t / 3600, t / 60 % 60);
}

static void draw(struct progress *p, int64_t done, double now)
{
    enum { WIDTH = 24 };
    double elapsed = now - p->started, rate = elapsed > 0 ? (double)done / elapsed : 0;
    double part = p->total > 0 ? (double)done / (double)p->total : 0;
    char time[32];
    format_time(time, sizeof time, done < p->total && rate > 0 ? (double)(p->total - done) / rate : elapsed);
    if (p->terminal) {
        int full = (int)(part * WIDTH + 0.5);
        fprintf(p->out, "\r\033[K%s ", p->what);
        for (int i = 0; i < WIDTH; i++)
            fputs(i < full ? "\xe2\x96\x88" : "\xc2\xb7", p->out); /* full block, middle dot */
        fprintf(p->out, " ");
    } else {
        fprintf(p->out, "%s: ", p->what);
    }
    fprintf(p->out, "%3.0f%%  %lld/%lld %s  %.*f/s  %s %s", 100 * part, (long long)done, (long long)p->total, p->unit,
            rate < 1     ? 3
            : rate < 100 ? 1
                         : 0,
            rate, time, done < p->total ? "left" : "in all");
    if (!p->terminal)
        fputc('\n', p->out);
    fflush(p->out);
    p->drawn = true;
    p->drawn_at = done;
    p->shown = now;
}

void progress_update(struct progress *p, int64_t done)
{
    if (!p)
        return;
    if (p->pause) {
        double start = clock_seconds();
        p->pause(p->pause_arg);
        p->paused += clock_seconds() - start;
    }
    if (!p->out)
        return;
    double now = progress_clock(p);
    if (now - p->shown >= (p->terminal ? TERMINAL_EVERY : LINE_EVERY))
        draw(p, done, now);
}

void progress_end(struct progress *p)
{
    if (!p || !p->out || !p->drawn)
        return;
    if (p->drawn_at != p->total)
        draw(p, p->total, progress_clock(p));
    if (p->terminal)
        fputc('\n', p->out);
    p->drawn = false;
}

void progress_say(struct progress *p, const char *fmt, ...)
{
    if (!p || !p->out)
        return;
    if (p->terminal && p->drawn)
        fputs("\r\033[K", p->out);
    char text[1024], visible[sizeof text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    utf8_visible(visible, sizeof visible, text);
    fprintf(p->out, "%s\n", visible);
    fflush(p->out);
}
