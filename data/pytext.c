#include "data/pytext.h"

#include <stdbool.h>
#include <string.h>
#include <utf8proc.h>

/* The character at the end of its text is 0; a byte that is not UTF-8 is a character of its own. */
static int32_t char_at(const char *s, size_t *len)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t k = *s ? utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &c) : 0;
    *len = *s ? k > 0 ? (size_t)k : 1 : 0;
    return k > 0 ? c : *s ? 0xFFFD : 0;
}

static int32_t char_before(const char *s, size_t at, size_t *len)
{
    size_t start = at;
    do
        start--;
    while (start > 0 && ((unsigned char)s[start] & 0xC0) == 0x80);
    *len = at - start;
    size_t n;
    return char_at(s + start, &n);
}

/* Py_UNICODE_ISSPACE */
static bool is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

int64_t pytext_len(const char *s)
{
    int64_t n = 0;
    for (size_t len; *s; s += len, n++)
        char_at(s, &len);
    return n;
}

size_t pytext_rstrip(const char *s, size_t n)
{
    size_t len;
    while (n > 0 && is_space(char_before(s, n, &len)))
        n -= len;
    return n;
}

void pytext_strip(char *s)
{
    size_t from = 0, n = pytext_rstrip(s, strlen(s)), len;
    while (from < n && is_space(char_at(s + from, &len)))
        from += len;
    memmove(s, s + from, n - from);
    s[n - from] = 0;
}

void pytext_replace(char *s, const char *from, const char *to)
{
    size_t n_from = strlen(from), n_to = strlen(to);
    char *out = s;
    for (const char *p = s; *p;) {
        bool hit = !strncmp(p, from, n_from);
        memmove(out, hit ? to : p, hit ? n_to : 1);
        out += hit ? n_to : 1;
        p += hit ? n_from : 1;
    }
    *out = 0;
}

void pytext_remove_brackets(char *s)
{
    char *out = s;
    for (const char *p = s; *p;) {
        const char *end = *p == '[' ? p + strcspn(p, "]\n") : p; /* a dot matches no line break */
        if (*end == ']' && end > p)
            p = end + 1;
        else
            *out++ = *p++;
    }
    *out = 0;
}

/* ---- letter case ---- */

/* The characters whose title case is several characters (Unicode, SpecialCasing.txt); utf8proc has only what is one to one. */
static const struct {
    int32_t from, to[3];
} long_titles[] = {
    {0x00DF, {0x0053, 0x0073}},         {0x0149, {0x02BC, 0x004E}},         {0x01F0, {0x004A, 0x030C}},
    {0x0390, {0x0399, 0x0308, 0x0301}}, {0x03B0, {0x03A5, 0x0308, 0x0301}}, {0x0587, {0x0535, 0x0582}},
    {0x1E96, {0x0048, 0x0331}},         {0x1E97, {0x0054, 0x0308}},         {0x1E98, {0x0057, 0x030A}},
    {0x1E99, {0x0059, 0x030A}},         {0x1E9A, {0x0041, 0x02BE}},         {0x1F50, {0x03A5, 0x0313}},
    {0x1F52, {0x03A5, 0x0313, 0x0300}}, {0x1F54, {0x03A5, 0x0313, 0x0301}}, {0x1F56, {0x03A5, 0x0313, 0x0342}},
    {0x1FB2, {0x1FBA, 0x0345}},         {0x1FB4, {0x0386, 0x0345}},         {0x1FB6, {0x0391, 0x0342}},
    {0x1FB7, {0x0391, 0x0342, 0x0345}}, {0x1FC2, {0x1FCA, 0x0345}},         {0x1FC4, {0x0389, 0x0345}},
    {0x1FC6, {0x0397, 0x0342}},         {0x1FC7, {0x0397, 0x0342, 0x0345}}, {0x1FD2, {0x0399, 0x0308, 0x0300}},
    {0x1FD3, {0x0399, 0x0308, 0x0301}}, {0x1FD6, {0x0399, 0x0342}},         {0x1FD7, {0x0399, 0x0308, 0x0342}},
    {0x1FE2, {0x03A5, 0x0308, 0x0300}}, {0x1FE3, {0x03A5, 0x0308, 0x0301}}, {0x1FE4, {0x03A1, 0x0313}},
    {0x1FE6, {0x03A5, 0x0342}},         {0x1FE7, {0x03A5, 0x0308, 0x0342}}, {0x1FF2, {0x1FFA, 0x0345}},
    {0x1FF4, {0x038F, 0x0345}},         {0x1FF6, {0x03A9, 0x0342}},         {0x1FF7, {0x03A9, 0x0342, 0x0345}},
    {0xFB00, {0x0046, 0x0066}},         {0xFB01, {0x0046, 0x0069}},         {0xFB02, {0x0046, 0x006C}},
    {0xFB03, {0x0046, 0x0066, 0x0069}}, {0xFB04, {0x0046, 0x0066, 0x006C}}, {0xFB05, {0x0053, 0x0074}},
    {0xFB06, {0x0053, 0x0074}},         {0xFB13, {0x0544, 0x0576}},         {0xFB14, {0x0544, 0x0565}},
    {0xFB15, {0x0544, 0x056B}},         {0xFB16, {0x054E, 0x0576}},         {0xFB17, {0x0544, 0x056D}},
};

/* Writes the title case and returns its length in bytes, at most 6. */
static size_t put_title(char *out, int32_t c)
{
    size_t n = 0;
    for (size_t i = 0; i < sizeof long_titles / sizeof *long_titles; i++) {
        if (long_titles[i].from != c)
            continue;
        for (int k = 0; k < 3 && long_titles[i].to[k]; k++)
            n += (size_t)utf8proc_encode_char(long_titles[i].to[k], (utf8proc_uint8_t *)out + n);
        return n;
    }
    return (size_t)utf8proc_encode_char(utf8proc_totitle(c), (utf8proc_uint8_t *)out);
}

static bool is_cased(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

/* What may stand between a letter and the end of its word. */
static bool is_case_ignorable(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_LM ||
           k == UTF8PROC_CATEGORY_SK || (c && c < 128 && strchr("'.:^`", c)) || c == 0xB7 || c == 0x2018 || c == 0x2019;
}

/* Whether the sigma at s[at] ends a word: a letter before it and none behind it. */
static bool ends_word(const char *s, size_t at)
{
    size_t len;
    int32_t c = 0;
    for (size_t i = at; i > 0; i -= len)
        if (!is_case_ignorable(c = char_before(s, i, &len)))
            break;
    if (!is_cased(c))
        return false;
    for (size_t i = at + strlen("\u03A3"); (c = char_at(s + i, &len)) != 0 && is_case_ignorable(c);)
        i += len;
    return !is_cased(c);
}

/* Writes the lower case of the character c at s[at]. */
static size_t put_lower(char *out, int32_t c, const char *s, size_t at)
{
    utf8proc_uint8_t *o = (utf8proc_uint8_t *)out;
    if (c == 0x130) { /* I with a dot: the dot stays */
        strcpy(out, "i\u0307");
        return strlen(out);
    }
    return (size_t)utf8proc_encode_char(c == 0x3A3 && ends_word(s, at) ? 0x3C2 : utf8proc_tolower(c), o);
}

char *pytext_capitalize(const char *s, struct arena *arena, struct err *err)
{
    char *out = arena_alloc(arena, strlen(s) + 4, 3, err); /* no character becomes more than three times as long */
    size_t n = 0, len;
    if (!out)
        return NULL;
    for (size_t at = 0; s[at]; at += len) {
        int32_t c = char_at(s + at, &len);
        n += at == 0 ? put_title(out, c) : put_lower(out + n, c, s, at);
    }
    out[n] = 0;
    return out;
}
