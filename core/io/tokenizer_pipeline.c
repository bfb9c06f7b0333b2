/* The parts of tokenizer.json around its model: pre_tokenizer, normalizer, decoder. Format: the serialisation of Hugging Face's
 * tokenizers library. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/base/json.h"
#include "core/io/tokenizer_impl.h"

const char *type_member(const json_t *obj)
{
    const char *type = json_string_value(json_object_get(obj, "type"));
    return type ? type : "(no type)";
}

/* ---- pre_tokenizer ---- */

static int add_split(struct tokenizer *t, const json_t *pre, struct err *err)
{
    static const char *const rules[] = {
        [SPLIT_ISOLATED] = "Isolated",        [SPLIT_REMOVED] = "Removed",       [SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_WITH_NEXT] = "MergedWithNext", [SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const char *behavior = NULL;
    bool invert = false;
    if (json_get_string(&behavior, pre, "behavior", t->file, err) != 0 || json_get_bool(&invert, pre, "invert", t->file, err) != 0)
        return -1;
    size_t rule = 0;
    while (rule < sizeof rules / sizeof *rules && (!behavior || strcmp(behavior, rules[rule])))
        rule++;
    if (rule == sizeof rules / sizeof *rules)
        return err_set(err, "%s: pre_tokenizer Split: unknown behavior \"%s\"", t->file, behavior ? behavior : "");
    const json_t *pattern = json_object_get(pre, "pattern"), *regex = json_object_get(pattern, "Regex");
    const json_t *literal = json_object_get(pattern, "String");
    if (json_is_string(regex))
        return split_add_pattern(t, json_string_value(regex), json_string_length(regex), (enum split_rule)rule, invert, err);
    if (!json_is_string(literal) || json_string_length(literal) == 0)
        return err_set(err, "%s: pre_tokenizer Split: pattern must be {\"Regex\": ...} or a non-empty {\"String\": ...}", t->file);
    const char *s = json_string_value(literal);
    size_t n = json_string_length(literal), n_escaped = 0;
    char *escaped = malloc(2 * n);
    if (!escaped)
        return err_set(err, "out of memory");
    for (size_t i = 0; i < n; i++) {
        if (s[i] && strchr("\\^$.|?*+()[]{}&#-", s[i]))
            escaped[n_escaped++] = '\\';
        escaped[n_escaped++] = s[i];
    }
    int rc = split_add_pattern(t, escaped, n_escaped, (enum split_rule)rule, invert, err);
    free(escaped);
    return rc;
}

static int add_byte_level(struct tokenizer *t, const json_t *pre, struct err *err)
{
    bool prefix = true, regex = true; /* the library's defaults */
    if (json_get_bool(&prefix, pre, "add_prefix_space", t->file, err) != 0 ||
        json_get_bool(&regex, pre, "use_regex", t->file, err) != 0)
        return -1;
    const struct step space = {.kind = STEP_PREFIX};
    if (prefix && split_add_step(t, &space, err) != 0)
        return -1;
    const char *pattern = tokenizer_gpt2_pattern;
    return regex ? split_add_pattern(t, pattern, strlen(pattern), SPLIT_ISOLATED, false, err) : 0;
}

static int add_digits(struct tokenizer *t, const json_t *pre, struct err *err)
{
    bool each = false;
    if (json_get_bool(&each, pre, "individual_digits", t->file, err) != 0)
        return -1;
    return split_add_pattern(t, "\\p{N}", 5, each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false, err);
}

/* A string of exactly one character, kept by the tokenizer. */
static int read_char(struct span *out, struct tokenizer *t, const json_t *obj, const char *key, struct err *err)
{
    const json_t *v = json_object_get(obj, key);
    const char *s = json_string_value(v);
    utf8proc_int32_t c;
    size_t n = json_string_length(v);
    if (!s || n == 0 || utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &c) != (utf8proc_ssize_t)n)
        return err_set(err, "%s: %s: \"%s\" must be one character", t->file, type_member(obj), key);
    *out = (struct span){tokenizer_keep(t, s, n, err), n};
    return out->s ? 0 : -1;
}

static int add_metaspace(struct tokenizer *t, const json_t *pre, struct err *err)
{
    static const char *const schemes[] = {[PREPEND_NEVER] = "never", [PREPEND_FIRST] = "first", [PREPEND_ALWAYS] = "always"};
    const char *scheme = NULL;
    bool prefix = true; /* the older way to say "always" or "never" */
    struct step step = {.kind = STEP_METASPACE, .splits = true};
    if (t->n_steps > 0)
        return err_set(err, "%s: pre_tokenizer: Metaspace must come first", t->file);
    if (json_get_string(&scheme, pre, "prepend_scheme", t->file, err) != 0 ||
        json_get_bool(&prefix, pre, "add_prefix_space", t->file, err) != 0 ||
        json_get_bool(&step.splits, pre, "split", t->file, err) != 0 || read_char(&step.blank, t, pre, "replacement", err) != 0)
        return -1;
    if (!scheme)
        scheme = prefix ? "always" : "never";
    size_t k = 0;
    while (k < 3 && strcmp(scheme, schemes[k]))
        k++;
    if (k == 3 || (!prefix && k != PREPEND_NEVER))
        return err_set(err, "%s: pre_tokenizer Metaspace: unknown prepend_scheme \"%s\"%s", t->file, scheme,
                       prefix ? "" : " without add_prefix_space");
    step.prepend = (enum prepend)k;
    return split_add_step(t, &step, err);
}

static int add_pre_tokenizer(struct tokenizer *t, const json_t *pre, bool last, struct err *err)
{
    const char *type = type_member(pre);
    if (!strcmp(type, "ByteLevel") && t->kind != BYTE_LEVEL)
        return err_set(err, "%s: pre_tokenizer ByteLevel beside byte_fallback is not supported", t->file);
    if (!strcmp(type, "ByteLevel"))
        return last ? add_byte_level(t, pre, err) : err_set(err, "%s: pre_tokenizer: ByteLevel must come last", t->file);
    if (last && t->kind == BYTE_LEVEL)
        return err_set(err, "%s: pre_tokenizer \"%s\": a BPE without byte_fallback must be byte-level, its last step ByteLevel",
                       t->file, type);
    if (!strcmp(type, "Split"))
        return add_split(t, pre, err);
    if (!strcmp(type, "Digits"))
        return add_digits(t, pre, err);
    if (!strcmp(type, "Metaspace") && t->kind == CHARACTERS)
        return add_metaspace(t, pre, err);
    return err_set(err, "%s: pre_tokenizer \"%s\" is not supported", t->file, type);
}

int pre_tokenizer_from_json(struct tokenizer *t, const json_t *pre, struct err *err)
{
    if (t->kind == CHARACTERS && (!pre || json_is_null(pre)))
        return 0;
    if (strcmp(type_member(pre), "Sequence"))
        return add_pre_tokenizer(t, pre, true, err);
    const json_t *list = json_object_get(pre, "pretokenizers");
    size_t n = json_array_size(list);
    if (n == 0)
        return err_set(err, "%s: pre_tokenizer Sequence: \"pretokenizers\" must be a non-empty array", t->file);
    for (size_t i = 0; i < n; i++)
        if (add_pre_tokenizer(t, json_array_get(list, i), i + 1 == n, err) != 0)
            return -1;
    return 0;
}

/* ---- normalizer ---- */

/* A string of an object, or, with a NULL key, of its {"pattern": {"String": ...}}; kept by the tokenizer. empty: it may be. */
static int read_text(struct span *out, struct tokenizer *t, const json_t *obj, const char *key, bool empty, struct err *err)
{
    const json_t *v = key ? json_object_get(obj, key) : json_object_get(json_object_get(obj, "pattern"), "String");
    if (!json_is_string(v) || (!empty && json_string_length(v) == 0))
        return err_set(err, "%s: %s: \"%s\" must be a %sstring", t->file, type_member(obj), key ? key : "pattern\".\"String",
                       empty ? "" : "non-empty ");
    out->n = json_string_length(v);
    out->s = tokenizer_keep(t, json_string_value(v), out->n, err);
    return out->s ? 0 : -1;
}

static int add_normalizer(struct tokenizer *t, const json_t *normalizer, struct err *err)
{
    static const struct {
        const char *type;
        int options;
    } unicode[] = {
        {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
        {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
        {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
        {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
    };
    const char *type = type_member(normalizer);
    struct form form = {.kind = FORM_UNICODE};
    if (!strcmp(type, "Prepend")) {
        form.kind = FORM_PREPEND;
        if (read_text(&form.to, t, normalizer, "prepend", true, err) != 0)
            return -1;
    } else if (!strcmp(type, "Replace")) {
        form.kind = FORM_REPLACE;
        if (read_text(&form.from, t, normalizer, NULL, false, err) != 0 ||
            read_text(&form.to, t, normalizer, "content", true, err) != 0)
            return -1;
    } else {
        size_t i = 0, n = sizeof unicode / sizeof *unicode;
        while (i < n && strcmp(type, unicode[i].type))
            i++;
        if (i == n)
            return err_set(err, "%s: normalizer \"%s\" is not supported", t->file, type);
        form.options = unicode[i].options;
    }
    if (t->n_forms == TOKENIZER_MAX_FORMS)
        return err_set(err, "%s: more than %d normalizers", t->file, TOKENIZER_MAX_FORMS);
    t->forms[t->n_forms++] = form;
    return 0;
}

int normalizer_from_json(struct tokenizer *t, const json_t *normalizer, struct err *err)
{
    if (!normalizer || json_is_null(normalizer))
        return 0;
    if (strcmp(type_member(normalizer), "Sequence"))
        return add_normalizer(t, normalizer, err);
    const json_t *list = json_object_get(normalizer, "normalizers"), *item;
    if (!json_is_array(list))
        return err_set(err, "%s: normalizer Sequence: \"normalizers\" must be an array", t->file);
    size_t i;
    json_array_foreach(list, i, item)
        if (add_normalizer(t, item, err) != 0)
            return -1;
    return 0;
}

/* ---- decoder ---- */

static int read_strip(struct tokenizer *t, const json_t *item, struct err *err)
{
    struct span c;
    struct decoder *d = &t->decoder;
    if (read_char(&c, t, item, "content", err) != 0 || json_get_int(&d->strip_start, item, "start", t->file, err) != 0 ||
        json_get_int(&d->strip_stop, item, "stop", t->file, err) != 0)
        return -1;
    if (c.n != 1 || d->strip_start < 0 || d->strip_stop < 0)
        return err_set(err, "%s: decoder Strip: an ASCII character and counts that are not negative expected", t->file);
    d->strip = *c.s;
    return 0;
}

/* The steps of a LLaMA decoder: each may be left out, but in this order, and what Strip works on must be one text. */
static int read_decoders(struct tokenizer *t, const json_t *list, struct err *err)
{
    static const char *const order[] = {"Replace", "ByteFallback", "Fuse", "Strip"};
    enum { REPLACE, BYTE_FALLBACK, FUSE, STRIP, END };
    const json_t *item;
    size_t i, next = 0;
    bool fused = false;
    json_array_foreach(list, i, item) {
        const char *type = type_member(item);
        size_t k = next;
        while (k < END && strcmp(type, order[k]))
            k++;
        if (k == END || (k == STRIP && !fused))
            return err_set(err,
                           "%s: decoder Sequence: \"%s\" as number %zu is not supported: Replace, ByteFallback, Fuse and "
                           "Strip expected",
                           t->file, type, i);
        next = k + 1;
        fused |= k == FUSE;
        t->decoder.bytes |= k == BYTE_FALLBACK;
        if (k == REPLACE && (read_text(&t->decoder.from, t, item, NULL, false, err) != 0 ||
                             read_text(&t->decoder.to, t, item, "content", true, err) != 0))
            return -1;
        if (k == STRIP && read_strip(t, item, err) != 0)
            return -1;
    }
    return 0;
}

int decoder_from_json(struct tokenizer *t, const json_t *decoder, struct err *err)
{
    const char *type = type_member(decoder);
    const json_t *list = json_object_get(decoder, "decoders");
    if (t->kind == BYTE_LEVEL) {
        if (!decoder || json_is_null(decoder) || !strcmp(type, "ByteLevel"))
            return 0;
        return err_set(err, "%s: decoder \"%s\" is not supported: ByteLevel expected", t->file, type);
    }
    t->decoder.whole_runs = true;
    if (strcmp(type, "Sequence") || !json_is_array(list))
        return err_set(err, "%s: decoder \"%s\" is not supported: a Sequence of Replace, ByteFallback, Fuse and Strip expected",
                       t->file, type);
    return read_decoders(t, list, err);
}
