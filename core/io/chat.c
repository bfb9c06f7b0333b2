/* Chat templates. There is no Jinja interpreter here: a template is recognised where it is one of those below but for blanks and the
 * system message that it brings, and rendered from a table; any other is refused, for its text would be another one. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/tokenizer_impl.h"

/* Stand-ins in the table's strings. BOS and EOS come out empty where the template does not use them. */
#define BOS  "\1"
#define EOS  "\2"
#define ROLE "\3"

struct turn {
    const char *before, *after;
};

struct chat_format {
    const char *name;
    const char *start;
    struct turn system, user, assistant;
    const char *generation;
    bool any_role;       /* every role, in any order, is rendered by `user`; else user and assistant must alternate */
    bool system_in_user; /* the system message is put inside the first user turn */
};

enum { CHATML, LLAMA3, LLAMA2, VICUNA, ALPACA };

static const struct chat_format formats[] = {
    [CHATML] = {.name = "ChatML",
                .start = BOS,
                .user = {"<|im_start|>" ROLE "\n", "<|im_end|>\n"},
                .generation = "<|im_start|>assistant\n",
                .any_role = true},
    [LLAMA3] = {.name = "Llama 3",
                .start = BOS,
                .user = {"<|start_header_id|>" ROLE "<|end_header_id|>\n\n", "<|eot_id|>"},
                .generation = "<|start_header_id|>assistant<|end_header_id|>\n\n",
                .any_role = true},
    [LLAMA2] = {.name = "Llama 2",
                .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
                .user = {BOS "[INST] ", " [/INST]"},
                .assistant = {" ", " " EOS},
                .generation = "",
                .system_in_user = true},
    [VICUNA] = {.name = "Vicuna", /* FastChat's: turns on one line, a blank after the user's */
                .start = BOS,
                .system = {"", " "},
                .user = {"USER: ", " "},
                .assistant = {"ASSISTANT: ", EOS},
                .generation = "ASSISTANT:"},
    [ALPACA] = {.name = "Alpaca",
                .start = BOS,
                .system = {"", "\n\n"},
                .user = {"### Instruction:\n", "\n\n"},
                .assistant = {"### Response:\n", EOS "\n\n"},
                .generation = "### Response:\n"},
};

/* Templates as their models publish them, in the form that canonical gives: no blanks outside of strings, 'a' + 'b' joined to 'ab',
 * message.role as message['role']. A "*" stands for a system message inside a string. */
#define CHATML_TURN              "{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>\n'}}"
#define CHATML_END               "{%endfor%}{%ifadd_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}"
#define CHATML_SYSTEM(condition) "{%if" condition "%}{{'<|im_start|>system\n*<|im_end|>\n'}}{%endif%}"

static const struct known {
    int format;
    const char *template;
} known[] = {
    {CHATML, "{%formessageinmessages%}" CHATML_TURN CHATML_END},
    {CHATML,
     "{%ifnotadd_generation_promptisdefined%}{%setadd_generation_prompt=false%}{%endif%}{%formessageinmessages%}" CHATML_TURN
         CHATML_END},
    {CHATML, "{%formessageinmessages%}" CHATML_SYSTEM("loop.firstandmessages[0]['role']!='system'") CHATML_TURN CHATML_END},
    {CHATML, CHATML_SYSTEM("messages[0]['role']!='system'") "{%formessageinmessages%}" CHATML_TURN CHATML_END},
    {LLAMA3, "{%setloop_messages=messages%}{%formessageinloop_messages%}{%setcontent='<|start_header_id|>'+message['role']+"
             "'<|end_header_id|>\n\n'+message['content']|trim+'<|eot_id|>'%}{%ifloop.index0==0%}{%setcontent=bos_token+content%}"
             "{%endif%}{{content}}{%endfor%}{%ifadd_generation_prompt%}{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}"
             "{%endif%}"},
    {LLAMA2, "{%ifmessages[0]['role']=='system'%}{%setloop_messages=messages[1:]%}{%setsystem_message=messages[0]['content']%}"
             "{%else%}{%setloop_messages=messages%}{%setsystem_message=false%}{%endif%}{%formessageinloop_messages%}"
             "{%if(message['role']=='user')!=(loop.index0%2==0)%}{{raise_exception('Conversation roles must alternate "
             "user/assistant/user/assistant/...')}}{%endif%}{%ifloop.index0==0andsystem_message!=false%}"
             "{%setcontent='<<SYS>>\n'+system_message+'\n<</SYS>>\n\n'+message['content']%}{%else%}"
             "{%setcontent=message['content']%}{%endif%}{%ifmessage['role']=='user'%}"
             "{{bos_token+'[INST] '+content.strip()+' [/INST]'}}{%elifmessage['role']=='assistant'%}"
             "{{' '+content.strip()+' '+eos_token}}{%endif%}{%endfor%}"},
};

/* A rendering under way. */
struct chat {
    const struct tokenizer *t;
    const struct chat_format *format;
    const char *template; /* its canonical form */
    const char *preset;   /* [n_preset]: the system message of a chat without one */
    size_t n_preset;
    bool trims; /* strips blanks around each message */
    FILE *out;
};

/* ---- the template ---- */

/* Stands for a quote inside of a literal, so that the literal's end is told from it. */
enum { INNER_QUOTE = 4 };

/* What is inside of a string literal at *from, which is behind its opening quote: with \n and quotes undone. *from gets behind it. */
static char *put_literal(char *to, const char **from, char quote)
{
    const char *s = *from;
    for (; *s && *s != quote; s++) {
        s += *s == '\\' && s[1];
        *to++ = *s == 'n' && s[-1] == '\\' ? '\n' : *s == '\'' ? INNER_QUOTE : *s;
    }
    *from = *s ? s + 1 : s;
    return to;
}

/* Whether blanks that end at `end` print nothing: there are none, or a dash beside them takes them away, or they are the one line break
 * that is dropped behind a block tag. */
static bool is_silent(const char *begin, const char *end, const char *template)
{
    bool after_dash = begin - template >= 3 && begin[-3] == '-', before_dash = *end && end[1] && end[2] == '-';
    bool after_block = begin - template >= 2 && begin[-2] == '%';
    return begin == end || after_dash || before_dash || (after_block && end == begin + 1 && *begin == '\n');
}

/* The template in a form that spelling does not change, malloc'ed; NULL where something between its tags would be printed, or there is
 * no memory. */
static char *canonical(const char *template)
{
    char *out = malloc(2 * strlen(template) + 1), *to = out;
    bool inside = false;
    for (const char *s = template; out && *s;) {
        if (!inside) {
            const char *tag = s + strspn(s, " \t\r\n");
            if (!is_silent(s, tag, template) || (*tag && (tag[0] != '{' || (tag[1] != '{' && tag[1] != '%')))) {
                free(out);
                return NULL;
            }
            s = tag;
            if (!*s)
                break;
            *to++ = *s++;
            *to++ = *s++;
            s += *s == '-';
            inside = true;
        } else if (*s == '\'' || *s == '"') {
            bool joined = to - out >= 2 && to[-1] == '+' && to[-2] == '\''; /* 'a' + 'b' */
            char quote = *s++;
            to -= joined ? 2 : 0;
            if (!joined)
                *to++ = '\'';
            to = put_literal(to, &s, quote);
            *to++ = '\'';
        } else if ((s[0] == '}' || s[0] == '%') && s[1] == '}') {
            to -= to[-1] == '-';
            *to++ = *s++;
            *to++ = *s++;
            inside = false;
        } else if (!strncmp(s, "message.role", 12) || !strncmp(s, "message.content", 15)) {
            bool role = s[8] == 'r';
            to = stpcpy(to, role ? "message['role']" : "message['content']");
            s += role ? 12 : 15;
        } else {
            if (!strchr(" \t\r\n", *s))
                *to++ = *s;
            s++;
        }
    }
    if (out)
        *to = 0;
    return out;
}

/* Whether the text is the pattern, whose one "*", if any, stands for *n bytes at *any. */
static bool fits(const char **any, size_t *n, const char *pattern, const char *text)
{
    const char *star = strchr(pattern, '*');
    size_t length = strlen(text), before = star ? (size_t)(star - pattern) : strlen(pattern), after = star ? strlen(star + 1) : 0;
    *any = text + before;
    *n = length >= before + after ? length - before - after : 0;
    return length >= before + after && (star || length == before) && !strncmp(pattern, text, before) &&
           (!star || (!strcmp(star + 1, text + length - after) && !memchr(*any, '\'', *n)));
}

/* The format of a template; NULL where it is none of the known ones. The system message that it brings is *preset[*n]. */
static const struct chat_format *find_format(const char **preset, size_t *n, const char *template)
{
    *n = 0;
    for (size_t k = 0; template && k < sizeof known / sizeof *known; k++)
        if (fits(preset, n, known[k].template, template))
            return &formats[known[k].format];
    return NULL;
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
    const char *role, *content;
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return err_set(err, "a chat must be a non-empty array of messages");
    if (check_message(json_array_get(messages, 0), 0, &role, &content, err) != 0)
        return -1;
    put(c, c->format->start, "");
    if (c->n_preset > 0 && strcmp(role, "system")) {
        const struct turn *turn = turn_of(c->format, "system");
        put(c, turn->before, "system");
        for (size_t i = 0; i < c->n_preset; i++)
            fputc(c->preset[i] == INNER_QUOTE ? '\'' : c->preset[i], c->out);
        put(c, turn->after, "system");
    }
    if (put_messages(c, messages, err) != 0)
        return -1;
    if (generation_prompt)
        put(c, c->format->generation, "assistant");
    return 0;
}

/* Formats by name, for tokenizers that bring none or another template. Special tokens are put where `template` names them. */
static const struct named {
    const char *name;
    int format;
    const char *template, *preset;
} named[] = {
    {"chatml", CHATML, "", ""},
    {"llama2", LLAMA2, "bos_token eos_token .strip()", ""},
    {"vicuna", VICUNA, "bos_token eos_token",
     "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
     "answers to the user's questions."},
    {"alpaca", ALPACA, "bos_token eos_token", /* the prompt of data/instructions.c */
     "Below is an instruction that describes a task. Write a response that appropriately completes the request."},
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
    if (name ? !by_name : !t->chat_template)
        return err_set(err, "%s: the tokenizer has no chat template", t->file);
    char *form = by_name ? NULL : canonical(t->chat_template);
    c.template = by_name ? by_name->template : form;
    c.format = by_name ? &formats[by_name->format] : find_format(&c.preset, &c.n_preset, form);
    if (by_name) {
        c.preset = by_name->preset;
        c.n_preset = strlen(by_name->preset);
    }
    if (!c.format) {
        err_set(err,
                "%s: its chat template is none of those that are rendered here to the letter; --chat-template chatml, vicuna, "
                "llama2 or "
                "alpaca renders one of those instead",
                t->file);
        goto done;
    }
    c.trims = strstr(c.template, ".strip()") || strstr(c.template, "|trim");
    c.out = open_memstream(&out, &n);
    if (c.out)
        rc = render(&c, messages, generation_prompt, err);
    bool whole = c.out && !ferror(c.out);
    whole &= !c.out || fclose(c.out) == 0;
    if (!whole)
        rc = err_set(err, "out of memory");
done:
    free(form);
    if (rc == 0)
        *text = out;
    else
        free(out);
    return rc;
}
