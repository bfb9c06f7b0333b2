/* From text to words: added tokens, UTF-8 runs, and the pre-tokenizer's patterns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/io/tokenizer_impl.h"

enum { MATCH_LIMIT = 100000000 };

/* The pattern published with GPT-2, which tokenizer.json calls ByteLevel with use_regex. */
const char tokenizer_gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- compiling ---- */

/* Rewrites a pattern from Oniguruma's meaning to PCRE2's: \s is the property White_Space. Escapes that mean another thing in the
 * two, and that no published pre-tokenizer uses, are refused. malloc'ed, or NULL and an error. */
static char *translate_pattern(const struct tokenizer *t, const char *pattern, size_t n, size_t *n_out, struct err *err)
{
    static const char space[] = "\\p{White_Space}", no_space[] = "\\P{White_Space}";
    char *out = malloc(n * sizeof space + 1), *p = out;
    if (!out) {
        err_set(err, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        bool escape = pattern[i] == '\\' && i + 1 < n;
        char c = escape ? pattern[i + 1] : 0;
        if (c == 's' || c == 'S') {
            memcpy(p, c == 's' ? space : no_space, sizeof space - 1);
            p += sizeof space - 1;
            i++;
        } else if ((escape && c && strchr("wWbBhHGKRXyYO", c)) || (pattern[i] == '&' && i + 1 < n && pattern[i + 1] == '&')) {
            err_set(err, "%s: pattern \"%.*s\": \"%.2s\" is not supported", t->file, (int)n, pattern, pattern + i);
            free(out);
            return NULL;
        } else {
            *p++ = pattern[i];
            if (escape)
                *p++ = pattern[++i];
        }
    }
    *n_out = (size_t)(p - out);
    return out;
}

int split_add_step(struct tokenizer *t, const struct step *step, struct err *err)
{
    if (t->n_steps == TOKENIZER_MAX_STEPS)
        return err_set(err, "%s: more than %d pre-tokenizer steps", t->file, TOKENIZER_MAX_STEPS);
    t->steps[t->n_steps++] = *step;
    return 0;
}

int split_add_pattern(struct tokenizer *t, const char *pattern, size_t n, enum split_rule rule, bool invert, struct err *err)
{
    struct step step = {.kind = STEP_SPLIT, .rule = rule, .invert = invert};
    size_t n_pcre;
    char *pcre = translate_pattern(t, pattern, n, &n_pcre, err);
    if (!pcre)
        return -1;
    int code;
    PCRE2_SIZE at;
    /* Ruby's syntax, which Hugging Face uses, lets ^ and $ match at line breaks */
    step.re = pcre2_compile((PCRE2_SPTR)pcre, n_pcre, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &at, NULL);
    free(pcre);
    if (!step.re) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(code, why, sizeof why);
        return err_set(err, "%s: pattern \"%.*s\": %s", t->file, (int)n, pattern, (const char *)why);
    }
    pcre2_jit_compile(step.re, PCRE2_JIT_COMPLETE); /* without a JIT the interpreter runs it */
    if (split_add_step(t, &step, err) != 0) {
        pcre2_code_free(step.re);
        return -1;
    }
    if (!t->limits) {
        t->limits = pcre2_match_context_create(NULL);
        if (!t->limits)
            return err_set(err, "out of memory");
        /* more than the default, as a long run of blanks backtracks once per byte, yet an end to patterns that blow up */
        pcre2_set_match_limit(t->limits, MATCH_LIMIT);
    }
    return 0;
}

void split_free(struct tokenizer *t)
{
    for (int i = 0; i < t->n_steps; i++)
        pcre2_code_free(t->steps[i].re);
    pcre2_match_context_free(t->limits);
}

/* ---- pre-tokenizer ---- */

static int run_steps(struct encoder *e, int k, const char *s, size_t n);

/* A search through one piece: the last match, and where to look for the next. */
struct search {
    size_t from, start, end;
};

/* The next match in s[n]; 1, 0 or -1. An empty match right after the last match does not count. */
static int next_match(struct search *f, struct encoder *e, const struct step *step, const char *s, size_t n)
{
    while (f->from <= n) {
        int rc = pcre2_match(step->re, (PCRE2_SPTR)s, n, f->from, PCRE2_NO_UTF_CHECK, e->match, e->t->limits);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(step->re, (PCRE2_SPTR)s, n, f->from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, e->match, e->t->limits);
        if (rc == PCRE2_ERROR_NOMATCH)
            return 0;
        if (rc < 0) {
            PCRE2_UCHAR why[128];
            pcre2_get_error_message(rc, why, sizeof why);
            return err_set(e->err, "%s: splitting text: %s", e->t->file, (const char *)why);
        }
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(e->match); /* \K is refused, so start <= end */
        if (found[1] > found[0] || found[0] != f->end) {
            *f = (struct search){found[1], found[0], found[1]};
            return 1;
        }
        do
            f->from++;
        while (f->from < n && ((uint8_t)s[f->from] & 0xC0) == 0x80);
    }
    return 0;
}

/* A piece that is still growing while its neighbours are looked at. */
struct pending {
    size_t start, end;
    bool open, was_match;
};

/* Adds the segment start..end: to the pending piece where the rule joins the two, else the pending piece is done. */
static int add_segment(struct encoder *e, int k, const char *s, struct pending *p, size_t start, size_t end, bool is_match)
{
    const struct step *step = &e->t->steps[k];
    is_match ^= step->invert;
    bool joins = false;
    switch (step->rule) {
    case SPLIT_WITH_PREVIOUS: joins = is_match && !p->was_match; break;
    case SPLIT_WITH_NEXT: joins = !is_match && p->was_match; break;
    case SPLIT_CONTIGUOUS: joins = is_match == p->was_match; break;
    case SPLIT_ISOLATED:
    case SPLIT_REMOVED: break;
    }
    if (p->open && joins) {
        p->end = end;
    } else {
        if (p->open && run_steps(e, k + 1, s + p->start, p->end - p->start) != 0)
            return -1;
        *p = (struct pending){start, end, !(is_match && step->rule == SPLIT_REMOVED), false};
    }
    p->was_match = is_match;
    return 0;
}

static int run_split(struct encoder *e, int k, const char *s, size_t n)
{
    struct pending p = {0};
    struct search f = {.end = SIZE_MAX};
    size_t done = 0;
    int found;
    while ((found = next_match(&f, e, &e->t->steps[k], s, n)) > 0) {
        if (f.start > done && add_segment(e, k, s, &p, done, f.start, false) != 0)
            return -1;
        if (add_segment(e, k, s, &p, f.start, f.end, true) != 0)
            return -1;
        done = f.end;
    }
    if (found < 0 || (done < n && add_segment(e, k, s, &p, done, n, false) != 0))
        return -1;
    return p.open ? run_steps(e, k + 1, s + p.start, p.end - p.start) : 0;
}

static int run_prefix_space(struct encoder *e, int k, const char *s, size_t n)
{
    if (s[0] == ' ')
        return run_steps(e, k + 1, s, n);
    char *spaced = malloc(n + 1);
    if (!spaced)
        return err_set(e->err, "out of memory");
    spaced[0] = ' ';
    memcpy(spaced + 1, s, n);
    int rc = run_steps(e, k + 1, spaced, n + 1);
    free(spaced);
    return rc;
}

static bool starts_with(const char *s, size_t n, const struct span *with)
{
    return n >= with->n && !memcmp(s, with->s, with->n);
}

static int run_metaspace(struct encoder *e, int k, const char *s, size_t n)
{
    static const struct span space = {" ", 1};
    const struct step *step = &e->t->steps[k];
    const struct span *blank = &step->blank;
    bool prepend = step->prepend == PREPEND_ALWAYS || (step->prepend == PREPEND_FIRST && e->at_start);
    char *text = text_replace(&n, s, n, &space, blank, blank->n, e->err);
    if (!text)
        return -1;
    size_t start = blank->n;
    if (prepend && !starts_with(text + start, n - start, blank)) {
        memcpy(text, blank->s, blank->n);
        start = 0;
    }
    int rc = 0;
    for (size_t i = start + 1; step->splits && i < n && rc == 0; i++)
        if (starts_with(text + i, n - i, blank)) {
            rc = run_steps(e, k + 1, text + start, i - start);
            start = i;
        }
    if (rc == 0)
        rc = run_steps(e, k + 1, text + start, n - start);
    free(text);
    return rc;
}

/* Runs the steps from number k on over one piece. */
static int run_steps(struct encoder *e, int k, const char *s, size_t n)
{
    if (n == 0)
        return 0;
    if (k == e->t->n_steps)
        return encode_word(e, s, n);
    switch (e->t->steps[k].kind) {
    case STEP_SPLIT: return run_split(e, k, s, n);
    case STEP_PREFIX: return run_prefix_space(e, k, s, n);
    case STEP_METASPACE: return run_metaspace(e, k, s, n);
    }
    return 0;
}

static int split_piece(struct encoder *e, const char *s, size_t n)
{
    return run_steps(e, 0, s, n);
}

/* ---- added tokens ---- */

static utf8proc_int32_t char_at(const char *s, size_t n, size_t *len)
{
    utf8proc_int32_t c = -1;
    utf8proc_ssize_t k = n ? utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &c) : 0;
    *len = k > 0 ? (size_t)k : 1;
    return k > 0 ? c : -1;
}

static utf8proc_int32_t char_before(const char *s, size_t at, size_t *len)
{
    size_t start = at;
    while (start > 0 && at - start < 4) {
        start--;
        if (((uint8_t)s[start] & 0xC0) != 0x80)
            break;
    }
    utf8proc_int32_t c = char_at(s + start, at - start, len);
    return start + *len == at ? c : -1;
}

static bool is_space(utf8proc_int32_t c)
{
    if (c < 0)
        return false;
    utf8proc_category_t k = utf8proc_category(c);
    return (c >= 9 && c <= 13) || c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

/* A word character as regular expressions have it: letters, marks, digits, connectors. */
static bool is_word_char(utf8proc_int32_t c)
{
    if (c < 0)
        return false;
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC;
}

/* Whether a match at start..end counts, and how far it reaches into the blanks around it (not before `from`). */
static bool match_extent(const struct added *a, const char *s, size_t n, size_t from, size_t *start, size_t *end)
{
    size_t len;
    if (a->single_word && ((*start > 0 && is_word_char(char_before(s, *start, &len))) ||
                           (*end < n && is_word_char(char_at(s + *end, n - *end, &len)))))
        return false;
    if (a->lstrip)
        while (*start > from && is_space(char_before(s, *start, &len)) && *start - from >= len)
            *start -= len;
    if (a->rstrip)
        while (*end < n && is_space(char_at(s + *end, n - *end, &len)))
            *end += len;
    return true;
}

/* Emits the added tokens of the set in s[n] and hands the text between them on. */
static int split_added(struct encoder *e, const struct added_set *set, const char *s, size_t n,
                       int (*between)(struct encoder *e, const char *s, size_t n))
{
    size_t done = 0;
    for (size_t i = 0; set->n > 0 && i < n;) {
        bool may = set->first[(uint8_t)s[i]] < set->first[(uint8_t)s[i] + 1];
        const struct added *a = may ? added_match(set, s + i, n - i, !e->literal) : NULL;
        if (!a) {
            i++;
            continue;
        }
        size_t start = i, end = i + a->match.n;
        i = end;
        if (!match_extent(a, s, n, done, &start, &end))
            continue;
        if ((start > done && between(e, s + done, start - done) != 0) || ids_push(e->out, a->id, e->err) != 0)
            return -1;
        e->at_start = false;
        done = end; /* the search goes on from the match itself, as in the reference: the next one may begin in these blanks */
    }
    return done < n ? between(e, s + done, n - done) : 0;
}

/* ---- UTF-8 ---- */

static int split_valid(struct encoder *e, const char *s, size_t n)
{
    char *form;
    size_t n_form;
    if (split_normalize(&form, &n_form, e->t, s, n, e->err) != 0)
        return -1;
    int rc = split_added(e, &e->t->normalized, form ? form : s, n_form, split_piece);
    free(form);
    return rc;
}

/* Bytes from s on that are all valid UTF-8, or all invalid. */
static size_t utf8_run(const char *s, size_t n, bool *valid)
{
    size_t i = 0;
    while (i < n) {
        size_t len = 1;
        bool ok = (uint8_t)s[i] < 0x80 || char_at(s + i, n - i, &len) >= 0;
        if (i == 0)
            *valid = ok;
        else if (ok != *valid)
            break;
        i += len;
    }
    return i;
}

/* Bytes that are not UTF-8 are outside every pattern: each run of them is a word of its own. */
static int split_utf8(struct encoder *e, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        bool valid;
        size_t run = utf8_run(s + i, n - i, &valid);
        if ((valid ? split_valid : encode_word)(e, s + i, run) != 0)
            return -1;
        i += run;
    }
    return 0;
}

/* For CHARACTERS, such a byte becomes U+FFFD, as in SentencePiece: it shall not make a text begin anew. */
static int split_cleaned(struct encoder *e, const char *s, size_t n)
{
    bool valid = true;
    if (utf8_run(s, n, &valid) == n && valid)
        return split_valid(e, s, n);
    if (n >= SIZE_MAX / 3)
        return err_set(e->err, "out of memory: %zu bytes of text", n);
    char *text = malloc(3 * n), *p = text;
    if (!text)
        return err_set(e->err, "out of memory: %zu bytes of text", n);
    for (size_t i = 0; i < n;) {
        size_t run = utf8_run(s + i, n - i, &valid);
        for (size_t k = 0; k < run; k++) {
            memcpy(p, valid ? s + i + k : "\xEF\xBF\xBD", valid ? 1 : 3);
            p += valid ? 1 : 3;
        }
        i += run;
    }
    int rc = split_valid(e, text, (size_t)(p - text));
    free(text);
    return rc;
}

int split_text(struct encoder *e, const char *s, size_t n)
{
    static int (*const between[])(struct encoder * e, const char *s,
                                  size_t n) = {[BYTE_LEVEL] = split_utf8, [CHARACTERS] = split_cleaned, [PIECES] = pieces_encode};
    e->at_start = true;
    if (n == 0)
        return 0;
    if (e->plain && e->t->beside.n == 0)
        return between[e->t->kind](e, s, n);
    return split_added(e, e->plain ? &e->t->beside : &e->t->raw, s, n, between[e->t->kind]);
}
