#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "data/text.h"

struct tokenize {
    const struct tokenizer *t;
    FILE *out;
    bool bos;
};

static int print_ids(const struct tokenize *k, const char *text, size_t n, struct err *err)
{
    struct ids ids = {0};
    int rc = -1;
    if (k->bos && tokenizer_bos(k->t) < 0) {
        err_set(err, "--bos: the tokenizer has no BOS token");
        goto done;
    }
    if ((k->bos && ids_push(&ids, tokenizer_bos(k->t), err) != 0) || tokenizer_encode(&ids, k->t, text, n, err) != 0)
        goto done;
    fputc('[', k->out);
    for (size_t i = 0; i < ids.n; i++)
        fprintf(k->out, "%s%d", i ? "," : "", ids.ids[i]);
    fputs("]\n", k->out);
    rc = 0;
done:
    free(ids.ids);
    return rc;
}

static int print_text(const struct tokenize *k, const char *line, size_t n, struct err *err)
{
    json_error_t why;
    json_t *row = json_loadb(line, n, 0, &why), *v, *string = NULL;
    struct ids ids = {0};
    char *text = NULL, *printed = NULL;
    size_t i, n_text;
    int rc = -1;
    if (!json_is_array(row)) {
        err_set(err, "--reverse: a JSON array of token ids per line was expected: %.60s", line);
        goto done;
    }
    json_array_foreach(row, i, v) {
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id > INT32_MAX) {
            err_set(err, "--reverse: a JSON array of token ids per line was expected: %.60s", line);
            goto done;
        }
        if (ids_push(&ids, (int32_t)id, err) != 0)
            goto done;
    }
    if (tokenizer_decode(&text, &n_text, k->t, ids.ids, ids.n, err) != 0)
        goto done;
    string = json_utf8(text, n_text);
    if (!string || !(printed = json_line(string))) {
        err_set(err, "out of memory");
        goto done;
    }
    fputs(printed, k->out);
    rc = 0;
done:
    free(printed);
    json_decref(string);
    json_decref(row);
    free(ids.ids);
    free(text);
    return rc;
}

/* Each line of the file: text, a JSON string (.jsonl), or with --reverse an array of ids. */
static int each_line(const struct tokenize *k, const char *path, bool reverse, struct err *err)
{
    char *data;
    size_t size;
    int rc = 0;
    bool jsonl = path_has_suffix(path, ".jsonl") || path_has_suffix(path, ".jsonl.gz");
    if (file_read_text(&data, &size, path, err) != 0)
        return -1;
    size = text_newlines(data, size);
    size_t number = 0;
    for (char *p = data, *end = data + size; p < end && rc == 0;) {
        char *stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop)
            stop = end;
        *stop = 0;
        number++;
        if (reverse) {
            rc = print_text(k, p, (size_t)(stop - p), err);
        } else if (jsonl) {
            json_error_t why;
            json_t *v = json_load(p, (size_t)(stop - p), &why);
            if (!json_is_string(v))
                rc = err_set(err, "%s: line %zu: a JSON string was expected", path, number);
            else
                rc = print_ids(k, json_string_value(v), json_string_length(v), err);
            json_decref(v);
        } else {
            rc = print_ids(k, p, (size_t)(stop - p), err);
        }
        p = stop + 1;
    }
    free(data);
    return rc;
}

static int render_chat(struct cli *cli, const struct tokenizer *t, const char *path, const char *template, bool prompt,
                       struct err *err)
{
    char *text = NULL;
    struct ids ids = {0};
    int rc = -1;
    json_t *messages = json_read(path, err), *list = json_array();
    if (!messages || tokenizer_chat_as(&text, t, template, messages, prompt, err) != 0 ||
        tokenizer_encode_chat(&ids, t, text, strlen(text), err) != 0)
        goto done;
    for (size_t i = 0; i < ids.n; i++)
        json_array_append_new(list, json_integer(ids.ids[i]));
    cli->result = json_pack("{ss sO}", "text", text, "ids", list);
    if (!cli->json)
        fputs(text, text_output(cli));
    rc = 0;
done:
    json_decref(list);
    json_decref(messages);
    free(ids.ids);
    free(text);
    return rc;
}

int cmd_tokenize(struct cli *cli, struct err *err)
{
    const char *file = NULL, *chat = NULL, *template = NULL;
    bool bos = false, reverse = false, prompt = false;
    struct opt own[] = {
        {OPT_STRING, "file", &file, "F", "an input per line; .jsonl: a JSON string per line"},
        {OPT_FLAG, "bos", &bos, NULL, "put BOS first"},
        {OPT_FLAG, "reverse", &reverse, NULL, "read arrays of ids, print JSON strings"},
        {OPT_STRING, "chat", &chat, "MESSAGES.json", "render the chat template"},
        {OPT_STRING, "chat-template", &template, "NAME",
         "with --chat: chatml, vicuna, llama2 or alpaca instead of the model's own"},
        {OPT_FLAG, "generation-prompt", &prompt, NULL, "with --chat: end where the answer begins"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 2, "MODEL (TEXT | --file F | --chat MESSAGES.json)", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if ((words.n == 2) + (file != NULL) + (chat != NULL) != 1)
        return err_usage(err, "tokenize takes one input: TEXT, --file or --chat");
    static const char *const either[][2] = {{"reverse", "chat"}, {"reverse", "bos"}, {"chat", "bos"}, {NULL}};
    if (opt_exclusive(&words, either, err) != 0)
        return -1;
    if (template && !tokenizer_chat_known(template))
        return err_usage(err, "--chat-template %s: chatml, vicuna, llama2 or alpaca was expected", template);
    if (template && !chat)
        return err_usage(err, "--chat-template goes with --chat");
    if (prompt && !chat)
        return err_usage(err, "--generation-prompt goes with --chat");
    struct tokenizer *t = NULL;
    if (common_tokenizer(&t, &o, words.word[0], err) != 0)
        return -1;
    struct tokenize k = {t, text_output(cli), bos};
    if (chat)
        rc = render_chat(cli, t, chat, template, prompt, err);
    else if (file)
        rc = each_line(&k, file, reverse, err);
    else if (reverse)
        rc = print_text(&k, words.word[1], strlen(words.word[1]), err);
    else
        rc = print_ids(&k, words.word[1], strlen(words.word[1]), err);
    tokenizer_free(t);
    return rc;
}
