#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report_impl.h"
#include "core/base/utf8.h"
#include "core/base/file.h"

static const char style[] =
#include "cli/report_css.inc"
    ;

int text_write(const char *path, void (*fill)(FILE *f, const void *what), const void *what, struct err *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return err_errno(err, "%s: cannot make it", path);
    fill(f, what);
    bool whole = !ferror(f);
    whole = fclose(f) == 0 && whole;
    int rc = whole ? file_write(path, text, size, err) : err_set(err, "%s: out of memory", path);
    free(text);
    return rc;
}

/* ---- parts of a page ---- */

void html_head(FILE *f, const char *title, const char *more_style)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n<title>",
          f);
    html_text(f, title);
    fprintf(f, "</title>\n<style>\n%s%s</style>\n</head>\n<body>\n<main>\n<header>\n<h1>", style, more_style);
    html_text(f, title);
    fputs("</h1>\n", f);
}

void facts_section(FILE *f, const char *id, const char *title, int64_t n, const char *const (*facts)[2])
{
    if (n <= 0)
        return;
    fprintf(f, "<section aria-labelledby=\"%s\">\n<h2 id=\"%s\">%s</h2>\n<table class=\"facts\" role=\"table\"><tbody>\n", id, id,
            title);
    for (int64_t i = 0; i < n; i++) {
        fputs("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">", f);
        html_text(f, facts[i][0]);
        fputs("</th><td role=\"cell\">", f);
        html_text(f, facts[i][1]);
        fputs("</td></tr>\n", f);
    }
    fputs("</tbody></table>\n</section>\n", f);
}

void html_foot(FILE *f, int64_t n_facts, const char *const (*facts)[2])
{
    facts_section(f, "facts", "Provenance", n_facts, facts);
    fputs("</main>\n</body>\n</html>\n", f);
}

/* ---- text and numbers ---- */

void html_text(FILE *f, const char *text)
{
    static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */
    const char *end = text ? text + strlen(text) : NULL;
    for (const char *s = text; s && s < end;) {
        size_t n = utf8_char(s, (size_t)(end - s));
        bool control = n == 1 && ((unsigned char)*s < 0x20 || *s == 0x7F) && *s != '\n' && *s != '\t';
        if (n == 0 || control)
            fputs(replacement, f);
        else if (*s == '&')
            fputs("&amp;", f);
        else if (*s == '<')
            fputs("&lt;", f);
        else if (*s == '>')
            fputs("&gt;", f);
        else if (*s == '"')
            fputs("&quot;", f);
        else if (*s == '\'')
            fputs("&#39;", f);
        else
            fwrite(s, 1, n, f);
        s += n ? n : utf8_bad(s, (size_t)(end - s));
    }
}

/* "1234567" -> "1,234,567". */
static void group_thousands(char out[NUMBER_SIZE], const char *digits)
{
    size_t n = strlen(digits), k = 0;
    for (size_t i = 0; i < n && k + 2 < NUMBER_SIZE; i++) {
        out[k++] = digits[i];
        if (digits[i] != '-' && i + 1 < n && (n - 1 - i) % 3 == 0)
            out[k++] = ',';
    }
    out[k] = 0;
}

/* 10 to a power in typographic form, after a mantissa with `decimals`, or alone with decimals < 0. */
static void power_of_ten(char out[NUMBER_SIZE], double mantissa, int exponent, int decimals)
{
    static const char *const superscript[10] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    char digits[16];
    int n = decimals < 0 ? snprintf(out, NUMBER_SIZE, "10") : snprintf(out, NUMBER_SIZE, "%.*f × 10", decimals, mantissa);
    snprintf(digits, sizeof digits, "%d", exponent);
    for (const char *d = digits; *d; d++)
        n += snprintf(out + n, (size_t)(NUMBER_SIZE - n), "%s", *d == '-' ? "⁻" : superscript[*d - '0']);
}

const char *number_plain(char out[NUMBER_SIZE], double v)
{
    char digits[32];
    double size = fabs(v);
    int exponent = 0;
    if (isnan(v)) {
        strcpy(out, "n/a");
    } else if (isinf(v)) {
        strcpy(out, v > 0 ? "∞" : "−∞");
    } else if (size >= 999999.5 || (size > 0 && size < 0.0005)) {
        exponent = (int)floor(log10(size));
        double mantissa = v / pow(10, exponent);
        if (fabs(mantissa) >= 9.995) { /* would print as 10.00 */
            mantissa /= 10;
            exponent++;
        }
        power_of_ten(out, mantissa, exponent, 2);
    } else if (size >= 999.995) {
        snprintf(digits, sizeof digits, "%.0f", v);
        group_thousands(out, digits);
    } else {
        snprintf(out, NUMBER_SIZE, "%.*f", size >= 1 || size == 0 ? 2 : 4, v);
    }
    return out;
}

const char *number_whole(char out[NUMBER_SIZE], int64_t n)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", (long long)n);
    group_thousands(out, digits);
    return out;
}

const char *number_count(char out[NUMBER_SIZE], int64_t n)
{
    static const struct {
        double unit;
        const char *name;
    } scale[] = {{1e12, "T"}, {1e9, "B"}, {1e6, "M"}};
    for (size_t i = 0; i < sizeof scale / sizeof *scale; i++) {
        double v = (double)n / scale[i].unit;
        if (v >= 0.9995) {
            snprintf(out, NUMBER_SIZE, "%.*f %s", v < 9.995 ? 2 : 1, v, scale[i].name);
            return out;
        }
    }
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", (long long)n);
    group_thousands(out, digits);
    return out;
}

const char *number_change(char out[NUMBER_SIZE], double v, double from)
{
    double ratio = v / from, percent = 100 * (ratio - 1);
    char times[NUMBER_SIZE];
    if (!(from > 0) || !isfinite(ratio)) {
        *out = 0;
    } else if (ratio >= 9.995) { /* a percentage is hard to read from here on */
        if (ratio >= 999.5)
            number_plain(times, ratio);
        else
            snprintf(times, sizeof times, "%.*f", ratio < 99.95 ? 1 : 0, ratio);
        snprintf(out, NUMBER_SIZE, "×%.40s", times);
    } else if (fabs(percent) < 0.05) {
        strcpy(out, "±0 %");
    } else {
        snprintf(out, NUMBER_SIZE, "%s%.1f %%", percent < 0 ? "−" : "+", fabs(percent));
    }
    return out;
}

const char *number_tick(char out[NUMBER_SIZE], double v)
{
    double exponent = v == 0 ? 0 : floor(log10(fabs(v)) + 1e-9), mantissa = v / pow(10, exponent);
    char digits[32];
    if (exponent >= 6 || exponent <= -4) {
        int decimals = 0;
        for (double shifted = mantissa; decimals < 4 && fabs(shifted - round(shifted)) >= 1e-6; shifted *= 10)
            decimals++;
        power_of_ten(out, mantissa, (int)exponent, fabs(mantissa - 1) < 1e-6 ? -1 : decimals);
        return out;
    }
    snprintf(digits, sizeof digits, "%.10g", v);
    if (fabs(v) >= 1000 && !strchr(digits, '.'))
        group_thousands(out, digits);
    else
        snprintf(out, NUMBER_SIZE, "%s", digits);
    return out;
}
