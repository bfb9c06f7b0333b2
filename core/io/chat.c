/* Chat templates. There is no Jinja interpreter here: a template is recognised by what it contains, and rendered from a table. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/tokenizer_impl.h"

/* Stand-ins in the table's strings. BOS and EOS come out empty where the template does not use them. */
#define BOS  "\1"
#define EOS  "\2"
#define ROLE "\3"

enum { MARKERS = 5 };

struct turn {
    const char *before, *after;
};

struct chat_format {
    const char *name;
    const char *has[MARKERS];   /* all of these are in the template, */
    const char *lacks[MARKERS]; /* and none of these */
    const char *start;
    struct turn system, user, assistant;
    const char *generation;
    bool any_role;       /* every role, in any order, is rendered by `user`; else user and assistant must alternate */
    bool system_in_user; /* the system message is put inside the first user turn */
};

/* The markers are looked for in the template with its \n unescaped and 'a' + 'b' joined to 'ab'. */
static const struct chat_format formats[] = {
    {.name = "ChatML",
     .has = {"<|im_start|>", "<|im_end|>\n", "<|im_start|>assistant\n"},
     .lacks = {"<think>", "strftime_now", "reasoning"},
     .start = BOS,
     .user = {"<|im_start|>" ROLE "\n", "<|im_end|>\n"},
     .generation = "<|im_start|>assistant\n",
     .any_role = true},
    {.name = "Llama 3",
     .has = {"<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"},
     .lacks = {"Cutting Knowledge", "strftime_now", "tools"},
     .start = BOS,
     .user = {"<|start_header_id|>" ROLE "<|end_header_id|>\n\n", "<|eot_id|>"},
     .generation = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .any_role = true},
    {.name = "Llama 2",
     .has = {"[INST] ", "<<SYS>>", " [/INST]"},
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {BOS "[INST] ", " [/INST]"},
     .assistant = {" ", " " EOS},
     .generation = "",
     .system_in_user = true},
    {.name = "Vicuna", /* turns on one line, each with a blank before it */
     .has = {"' USER: '", "' ASSISTANT: '", "' ASSISTANT:'"},
     .start = BOS,
     .system = {"", ""},
     .user = {" USER: ", ""},
     .assistant = {" ASSISTANT: ", EOS},
     .generation = " ASSISTANT:"},
    {.name = "Vicuna", /* FastChat's: turns on one line, a blank after the user's */
     .has = {"'USER: '", "+ ' '", "'ASSISTANT: '", "'ASSISTANT:'"},
     .lacks = {"+ '\n'", "+ '\n\n'"},
     .start = BOS,
     .system = {"", " "},
     .user = {"USER: ", " "},
     .assistant = {"ASSISTANT: ", EOS},
     .generation = "ASSISTANT:"},
    {.name = "Vicuna", /* a line per turn */
     .has = {"'USER: '", "+ '\n'", "'ASSISTANT: '", "'ASSISTANT:'", "+ '\n\n'"},
     .start = BOS,
     .system = {"", "\n\n"},
     .user = {"USER: ", "\n"},
     .assistant = {"ASSISTANT: ", EOS "\n"},
     .generation = "ASSISTANT:"},
    {.name = "Alpaca",
     .has = {"'### Instruction:\n'", "+ '\n\n'", "'### Response:\n'", "{{ '### Response:\n' }}"},
     .lacks = {"Below ", "<|EOT|>"},
     .start = BOS,
     .system = {"", "\n\n"},
     .user = {"### Instruction:\n", "\n\n"},
     .assistant = {"### Response:\n", EOS "\n\n"},
     .generation = "### Response:\n"},
};

/* A rendering under way. */
struct chat {
    const struct tokenizer *t;
    const struct chat_format *format;
    char *template; /* with escapes undone */
    bool trims;     /* strips blanks around each message */
    FILE *out;
};

/* ---- the template ---- */

static char *unescape(const char *s, struct err *err)
{
    char *out = malloc(strlen(s) + 1), *p = out;
    if (!out) {
        err_set(err, "out of memory");
        return NULL;
    }
    for (; *s; s++) {
        if (*s == '\\' && s[1] == 'n') {
            *p++ = '\n';
            s++;
        } else if (!strncmp(s, "' + '", 5) || !strncmp(s, "\" + \"", 5)) {
            s += 4;
        } else {
            *p++ = *s;
        }
    }
    *p = 0;
    return out;
}

static const struct chat_format *find_format(const char *template)
{
    for (size_t k = 0; k < sizeof formats / sizeof *formats; k++) {
        const struct chat_format *f = &formats[k];
        bool fits = true;
        for (size_t i = 0; i < MARKERS; i++)
            fits = fits && (!f->has[i] || strstr(template, f->has[i])) && (!f->lacks[i] || !strstr(template, f->lacks[i]));
        if (fits)
            return f;
    }
    return NULL;
}

/* The system message that the template itself brings: the rest of a string literal after `before`, up to `end` where one is
 * given. Returns its length, 0 where there is none. */
static size_t literal_after(const char **start, const char *template, const char *before, const char *end)
{
    for (const char *p = template; (p = strstr(p, before));) {
        char quote = p > template ? p[-1] : 0, last = before[strlen(before) - 1];
        if (last == '\'' || last == '"')
            quote = last;
        else if (quote != '\'' && quote != '"')
            quote = '{'; /* plain template text: it ends where an expression starts */
        p += strlen(before);
        const char *stop = p;
        while (*stop && (*stop != quote || stop[-1] == '\\') && (!end || strncmp(stop, end, strlen(end))))
            stop++;
        if (stop > p && (end ? !strncmp(stop, end, strlen(end)) : *stop == quote)) {
            *start = p;
            return (size_t)(stop - p);
        }
    }
    return 0;
}

static size_t default_system(const char **start, const struct chat *c)
{
    if (c->format->any_role)
        return literal_after(start, c->template, "<|im_start|>system\n", "<|im_end|>");
    return c->format->system_in_user ? 0 : literal_after(start, c->template, "system_message = '", NULL);
}

/* ---- rendering ---- */

/* A special token's text where the template mentions it by `name`. */
static const char *special_text(const struct chat *c, int32_t id, const char *name)
{
    return id >= 0 && strstr(c->template, name) ? c->t->tokens[id].text.s : "";
}

/* A string of the table. */
static void put(struct chat *c, const char *s, const char *role)
{
    for (; s && *s; s++) {
        if (*s == *BOS)
            fputs(special_text(c, c->t->bos, "bos_token"), c->out);
        else if (*s == *EOS)
            fputs(special_text(c, c->t->eos, "eos_token"), c->out);
        else if (*s == *ROLE)
            fputs(role, c->out);
        else
            fputc(*s, c->out);
    }
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x1F); /* what Python's strip takes, in ASCII */
}

static void put_content(struct chat *c, const char *s, size_t n, bool trim)
{
    while (trim && n > 0 && is_blank(*s)) {
        s++;
        n--;
    }
    while (trim && n > 0 && is_blank(s[n - 1]))
        n--;
    fwrite(s, 1, n, c->out);
}

static const struct turn *turn_of(const struct chat_format *f, const char *role)
{
    if (f->any_role || !strcmp(role, "user"))
        return &f->user;
    return strcmp(role, "system") ? &f->assistant : &f->system;
}

static void put_turn(struct chat *c, const struct turn *turn, const char *role, const char *content)
{
    put(c, turn->before, role);
    put_content(c, content, strlen(content), c->trims);
    put(c, turn->after, role);
}

static int check_message(const json_t *message, size_t i, const char **role, const char **content, struct err *err)
{
    *role = json_string_value(json_object_get(message, "role"));
    *content = json_string_value(json_object_get(message, "content"));
    if (!*role || !*content)
        return err_set(err, "message %zu: an object with strings \"role\" and \"content\" expected", i);
    if (strlen(*content) != json_string_length(json_object_get(message, "content")))
        return err_set(err, "message %zu: the content holds a NUL character", i);
    return 0;
}

/* The first user turn with the system message inside it; blanks are stripped around the two together. */
static int put_joined(struct chat *c, const char *system, const char *content, struct err *err)
{
    const struct turn *s = &c->format->system, *u = &c->format->user;
    size_t n = strlen(s->before) + strlen(system) + strlen(s->after) + strlen(content);
    char *joined = malloc(n + 1);
    if (!joined)
        return err_set(err, "out of memory");
    snprintf(joined, n + 1, "%s%s%s%s", s->before, system, s->after, content);
    put_turn(c, u, "user", joined);
    free(joined);
    return 0;
}

static int put_messages(struct chat *c, const json_t *messages, struct err *err)
{
    const struct chat_format *f = c->format;
    const char *role, *content, *system = NULL;
    size_t i, n_turns = 0;
    const json_t *message;
    json_array_foreach(messages, i, message) {
        if (check_message(message, i, &role, &content, err) != 0)
            return -1;
        if (!strcmp(role, "system") && (i == 0 || f->any_role)) {
            if (f->system_in_user)
                system = content;
            else
                put_turn(c, turn_of(f, role), role, content);
            continue;
        }
        if (!f->any_role && strcmp(role, n_turns % 2 ? "assistant" : "user"))
            return err_set(err,
                           "message %zu: role \"%s\": a %s chat goes user, assistant, user, ... after an optional system message",
                           i, role, f->name);
        if (system && n_turns == 0) {
            if (put_joined(c, system, content, err) != 0)
                return -1;
        } else {
            put_turn(c, turn_of(f, role), role, content);
        }
        n_turns++;
    }
    return 0;
}

static int render(struct chat *c, const json_t *messages, bool generation_prompt, struct err *err)
{
    const char *role, *content, *preset = NULL;
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return err_set(err, "a chat must be a non-empty array of messages");
    if (check_message(json_array_get(messages, 0), 0, &role, &content, err) != 0)
        return -1;
    put(c, c->format->start, "");
    size_t n_preset = strcmp(role, "system") ? default_system(&preset, c) : 0;
    if (n_preset > 0) {
        const struct turn *turn = turn_of(c->format, "system");
        put(c, turn->before, "system");
        for (size_t i = 0; i < n_preset; i++)
            if (preset[i] != '\\' || (preset[i + 1] != '\'' && preset[i + 1] != '"'))
                fputc(preset[i], c->out);
        put(c, turn->after, "system");
    }
    if (put_messages(c, messages, err) != 0)
        return -1;
    if (generation_prompt)
        put(c, c->format->generation, "assistant");
    return 0;
}

/* Formats by name, for tokenizers that bring none. The text stands in for a template where one is asked: which special tokens are
 * put, and the system message of conversations without one. */
static const struct named {
    const char *name;
    const struct chat_format *format;
    const char *template;
} named[] = {
    {"chatml", &formats[0], ""},
    {"llama2", &formats[2], "bos_token eos_token .strip()"},
    {"vicuna", &formats[4],
     "bos_token eos_token system_message = 'A chat between a curious user and an artificial intelligence assistant. The assistant "
     "gives helpful, detailed, and polite answers to the user\\'s questions.'"},
    {"alpaca", &formats[6], /* the prompt of data/instructions.c */
     "bos_token eos_token system_message = 'Below is an instruction that describes a task. Write a response that appropriately "
     "completes the request.'"},
};

static const struct named *find_named(const char *name)
{
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (!strcmp(named[i].name, name))
            return &named[i];
    return NULL;
}

bool tokenizer_chat_known(const char *name)
{
    return find_named(name) != NULL;
}

int tokenizer_chat(char **text, const struct tokenizer *t, const struct json_t *messages, bool generation_prompt, struct err *err)
{
    return tokenizer_chat_as(text, t, NULL, messages, generation_prompt, err);
}

int tokenizer_chat_as(char **text, const struct tokenizer *t, const char *name, const struct json_t *messages,
                      bool generation_prompt, struct err *err)
{
    size_t n;
    int rc = -1;
    char *out = NULL;
    struct chat c = {.t = t};
    const struct named *by_name = name ? find_named(name) : NULL;
    const char *template = by_name ? by_name->template : name ? NULL : t->chat_template;
    if (!template)
        return err_set(err, "%s: the tokenizer has no chat template", t->file);
    c.template = unescape(template, err);
    if (!c.template)
        return -1;
    c.format = by_name ? by_name->format : find_format(c.template);
    c.trims = strstr(c.template, ".strip()") || strstr(c.template, "| trim") || strstr(c.template, "|trim");
    if (!c.format) {
        err_set(err, "%s: unknown chat template (ChatML, Llama 2 and 3, Vicuna and Alpaca are known): %.200s", t->file, template);
        goto done;
    }
    c.out = open_memstream(&out, &n);
    if (c.out)
        rc = render(&c, messages, generation_prompt, err);
    if (!c.out || ferror(c.out) || fclose(c.out) != 0)
        rc = err_set(err, "out of memory");
done:
    free(c.template);
    if (rc == 0)
        *text = out;
    else
        free(out);
    return rc;
}
