/* What the server makes of requests and of text, without a network. */
#include "core/base/utf8.h"
#include "tests/tiny_model.h"

#include "eval/serve/serve_impl.h"

/* ---- requests ---- */

static int parse(struct api_request *r, const char *body, bool chat, struct api_error *err)
{
    *err = (struct api_error){0};
    return api_request_parse(r, body, strlen(body), chat, err);
}

static void good_requests(void **state)
{
    (void)state;
    static const char *const completions[] = {
        "{\"prompt\":\"a\"}",
        "{\"prompt\":\"\"}",
        "{\"prompt\":[\"a\",\"b\"],\"max_tokens\":0,\"echo\":true,\"logprobs\":0}",
        "{\"prompt\":[1,2,3],\"stop\":\"x\"}",
        "{\"prompt\":[[1],[2,3],\"mixed\"],\"stop\":[\"x\",\"y\"],\"stream\":false}",
        "{\"prompt\":\"a\",\"temperature\":0,\"top_p\":1,\"top_k\":-1,\"seed\":-5,\"n\":1,\"best_of\":1,\"user\":\"u\"}",
        "{\"prompt\":\"a\",\"presence_penalty\":0,\"frequency_penalty\":0.0,\"logit_bias\":{},\"suffix\":null,\"echo\":false}",
        "{\"prompt\":\"\\ud83c\\udf33\",\"model\":null,\"max_tokens\":null,\"stream\":true,\"stream_options\":{\"include_usage\":"
        "true,\"include_obfuscation\":false}}",
        "{\"prompt\":\"a\",\"presence_penalty\":-2,\"frequency_penalty\":1.5,\"logit_bias\":{\"5\":-100,\"07\":0.5},\"n\":3,"
        "\"best_of\":3}",
        /* lm-eval's local-completions: log-likelihoods, and generating */
        "{\"model\":\"m\",\"prompt\":[[1,2],[3,4,5]],\"temperature\":0,\"max_tokens\":1,\"logprobs\":1,\"seed\":1234,\"echo\":"
        "true}",
        "{\"prompt\":[[1,2]],\"model\":\"m\",\"max_tokens\":24,\"temperature\":0,\"stop\":[\"\\n\",\"<|im_end|>\"],\"seed\":1234}",
    };
    static const char *const chats[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
        "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\"}],\"name\":\"n\"}],\"max_completion_tokens\":3,\"logprobs\":true,\"top_logprobs\":20}",
        /* what clients send to say that they want nothing of the kind */
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
        "\"content\":\"b\",\"refusal\":null,\"tool_calls\":null,\"function_call\":null,\"audio\":null,\"annotations\":[]},{"
        "\"role\":"
        "\"user\",\"content\":\"c\"}],\"tools\":[],\"tool_choice\":\"none\",\"parallel_tool_calls\":true,\"response_format\":{"
        "\"type\":"
        "\"text\"},\"modalities\":[\"text\"],\"service_tier\":\"auto\",\"store\":false,\"metadata\":{\"a\":\"b\"},\"user\":\"u\","
        "\"n\":1,"
        "\"functions\":null,\"reasoning_effort\":null,\"max_tokens\":null,\"max_completion_tokens\":5,\"prompt_cache_key\":\"k\"}",
    };
    size_t n_completions = sizeof completions / sizeof *completions, n_chats = sizeof chats / sizeof *chats;
    for (size_t i = 0; i < n_completions + n_chats; i++) {
        struct api_request r;
        struct api_error err;
        const char *body = i < n_completions ? completions[i] : chats[i - n_completions];
        if (parse(&r, body, i >= n_completions, &err) != 0)
            fail_msg("%s: %s", body, err.message);
        if (i == 5)
            assert_true(r.seeded && r.sampling.seed == (uint64_t)-5 && r.sampling.top_k == 0 && r.sampling.temperature == 0 &&
                        r.n == 1);
        if (i == 7)
            assert_true(r.stream && r.stream_usage);
        if (i == 8)
            assert_true(r.n == 3 && r.sampling.presence_penalty == -2 && r.sampling.frequency_penalty == 1.5 &&
                        r.sampling.n_bias == 2 && r.sampling.bias[0].id == 5 && r.sampling.bias[0].logit == -100 &&
                        r.sampling.bias[1].id == 7);
        if (i == n_completions + 1)
            assert_string_equal(json_string_value(json_object_get(json_array_get(r.messages, 1), "content")), "ab");
        if (i == n_completions + 2) {
            assert_string_equal(json_string_value(json_object_get(json_array_get(r.messages, 0), "role")), "system");
            assert_int_equal(r.max_tokens, 5);
        }
        api_request_free(&r);
    }
}

/* Bodies that must be refused with 400, and what the answer must name. */
static void hostile_requests(void **state)
{
    (void)state;
    static const struct {
        const char *body, *param;
        bool chat;
    } cases[] = {
        {"", NULL, false},
        {"{", NULL, false},
        {"[]", NULL, false},
        {"null", NULL, false},
        {"{} {}", NULL, false},
        {"{\"prompt\":\"a\",\"prompt\":\"b\"}", NULL, false},
        {"{\"prompt\":\"\xff\"}", NULL, false},
        {"{\"prompt\":\"\xc0\x80\"}", NULL, false},
        {"{\"prompt\":\"\xed\xa0\x80\"}", NULL, false},
        {"{\"prompt\":\"\\ud800\"}", NULL, false},
        {"{\"prompt\":\"\\u0000\"}", NULL, false},
        {"{\"prompt\":\"a\",\"max_tokens\":99999999999999999999}", NULL, false},
        {"{\"prompt\":\"a\",\"temperature\":1e999}", NULL, false},
        {"{\"prompt\":\"a\",\"temperature\":NaN}", NULL, false},
        {"{}", "prompt", false},
        {"{\"prompt\":null}", "prompt", false},
        {"{\"prompt\":1}", "prompt", false},
        {"{\"prompt\":{}}", "prompt", false},
        {"{\"prompt\":[]}", "prompt", false},
        {"{\"prompt\":[[]]}", "prompt", false},
        {"{\"prompt\":[1,\"a\"]}", "prompt", false},
        {"{\"prompt\":[1.5]}", "prompt", false},
        {"{\"prompt\":[-1]}", "prompt", false},
        {"{\"prompt\":[4294967296]}", "prompt", false},
        {"{\"prompt\":[[[1]]]}", "prompt", false},
        {"{\"prompt\":\"a\",\"max_tokens\":-1}", "max_tokens", false},
        {"{\"prompt\":\"a\",\"max_tokens\":1.0}", "max_tokens", false},
        {"{\"prompt\":\"a\",\"max_tokens\":\"5\"}", "max_tokens", false},
        {"{\"prompt\":\"a\",\"max_tokens\":0}", "max_tokens", false},
        {"{\"prompt\":\"a\",\"max_tokens\":9223372036854775807}", "max_tokens", false},
        {"{\"prompt\":\"a\",\"temperature\":-0.1}", "temperature", false},
        {"{\"prompt\":\"a\",\"temperature\":true}", "temperature", false},
        {"{\"prompt\":\"a\",\"top_p\":0}", "top_p", false},
        {"{\"prompt\":\"a\",\"top_p\":1.01}", "top_p", false},
        {"{\"prompt\":\"a\",\"top_k\":-2}", "top_k", false},
        {"{\"prompt\":\"a\",\"seed\":1.5}", "seed", false},
        {"{\"prompt\":\"a\",\"n\":0}", "n", false},
        {"{\"prompt\":\"a\",\"n\":129}", "n", false},
        {"{\"prompt\":\"a\",\"n\":\"2\"}", "n", false},
        {"{\"prompt\":\"a\",\"best_of\":2}", "best_of", false},
        {"{\"best_of\":2,\"prompt\":\"a\",\"n\":3}", "best_of", false},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"best_of\":1}", "best_of", true},
        {"{\"prompt\":\"a\",\"stop\":\"\"}", "stop", false},
        {"{\"prompt\":\"a\",\"stop\":[1]}", "stop", false},
        {"{\"prompt\":\"a\",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\",\"d\",\"e\",\"f\","
         "\"g\",\"h\"]}",
         "stop", false},
        {"{\"prompt\":\"a\",\"logprobs\":21}", "logprobs", false},
        {"{\"prompt\":\"a\",\"logprobs\":true}", "logprobs", false},
        {"{\"prompt\":\"a\",\"echo\":1}", "echo", false},
        {"{\"prompt\":\"a\",\"echo\":true,\"stream\":true}", "echo", false},
        {"{\"prompt\":\"a\",\"stream\":\"yes\"}", "stream", false},
        {"{\"prompt\":\"a\",\"stream_options\":{\"x\":1}}", "stream_options", false},
        {"{\"prompt\":\"a\",\"stream_options\":{\"include_obfuscation\":true}}", "stream_options", false},
        {"{\"prompt\":\"a\",\"stream_options\":true}", "stream_options", false},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"5\":100.5}}", "logit_bias", false},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"5\":null}}", "logit_bias", false},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"-5\":1}}", "logit_bias", false},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"\":1}}", "logit_bias", false},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"5x\":1}}", "logit_bias", false},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"99999999999999999999\":1}}", "logit_bias", false},
        {"{\"prompt\":\"a\",\"logit_bias\":[]}", "logit_bias", false},
        {"{\"prompt\":\"a\",\"presence_penalty\":2.5}", "presence_penalty", false},
        {"{\"prompt\":\"a\",\"frequency_penalty\":\"0\"}", "frequency_penalty", false},
        {"{\"prompt\":\"a\",\"user\":5}", "user", false},
        {"{\"prompt\":\"a\",\"messages\":[]}", "messages", false},
        {"{\"prompt\":\"a\",\"max_completion_tokens\":1}", "max_completion_tokens", false},
        {"{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix", false},
        {"{\"prompt\":\"a\",\"nope\":null}", "nope", false},
        {"{\"prompt\":\"a\",\"model\":5}", "model", false},
        {"{}", "messages", true},
        {"{\"messages\":[]}", "messages", true},
        {"{\"messages\":\"a\"}", "messages", true},
        {"{\"messages\":[1]}", "messages[0]", true},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0]", true},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}", "messages[0]", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "messages[0]", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", "messages[0]", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[1]}]}", "messages[0]", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"extra\":1}]}", "messages[0]", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"logprobs\":5}", "logprobs", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"top_logprobs\":5}", "top_logprobs", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":0}", "max_tokens", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"echo\":true}", "echo", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"tool_calls\":[1]}]}", "messages[0]", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":1,\"max_completion_tokens\":1}",
         "max_completion_tokens", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":[{\"type\":\"function\"}]}", "tools", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tool_choice\":\"required\"}", "tool_choice", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"response_format\":{\"type\":\"json_object\"}}", "response_format",
         true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"modalities\":[\"text\",\"audio\"]}", "modalities", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"store\":true}", "store", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"reasoning_effort\":\"high\"}", "reasoning_effort", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"min_p\":0.1}", "min_p", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_request r;
        struct api_error err;
        if (parse(&r, cases[i].body, cases[i].chat, &err) != -1 || err.status != 400)
            fail_msg("%s: 400 was expected, %d found", cases[i].body, err.status);
        if (strcmp(err.param, cases[i].param ? cases[i].param : "") != 0 || !err.message[0])
            fail_msg("%s: blamed on \"%s\": %s", cases[i].body, err.param, err.message);
        api_request_free(&r);
    }
}

/* Deep nesting, and every prefix and every flipped byte of a good body: an answer, never a crash. */
static void damaged_requests(void **state)
{
    (void)state;
    static const char good[] =
        "{\"prompt\":[[1,2],\"caf\xc3\xa9\"],\"stop\":[\"a\",\"b\"],\"max_tokens\":5,\"temperature\":0.5,"
        "\"stream_options\":{\"include_usage\":true},\"seed\":12,\"logprobs\":3,\"logit_bias\":{\"7\":-1},\"n\":2}";
    struct api_request r;
    struct api_error err = {0};
    char *deep = malloc(1 << 20);
    memset(deep, '[', 1 << 20);
    assert_int_equal(api_request_parse(&r, deep, 1 << 20, false, &err), -1);
    api_request_free(&r);
    free(deep);
    for (size_t n = 0; n < sizeof good - 1; n++)
        for (int flip = -1; flip < 8; flip++) {
            char body[sizeof good];
            memcpy(body, good, sizeof good);
            if (flip >= 0)
                body[n] = (char)(body[n] ^ (1 << flip));
            err = (struct api_error){0};
            api_request_parse(&r, body, flip < 0 ? n : sizeof good - 1, n % 2, &err);
            api_request_free(&r);
        }
}

/* ---- text ---- */

static struct tokenizer *bytes_tokenizer(void)
{
    struct tokenizer *t;
    char *path = in_scratch("tokenizer.json");
    tiny_tokenizer(path, false);
    OK(tokenizer_open(&t, path, &err));
    return t;
}

/* Feeds `text` a byte token at a time; what comes out in pieces, with | between them. */
static void feed(char *out, const struct tokenizer *t, const char *text, const char *const *stops, int n_stops, bool *stopped)
{
    struct text_out o;
    size_t lengths[4], n;
    char *at = out;
    for (int i = 0; i < n_stops; i++)
        lengths[i] = strlen(stops[i]);
    OK(text_open(&o, t, NULL, 0, &err));
    o.stops = stops;
    o.stop_lengths = lengths;
    o.n_stops = n_stops;
    for (const char *p = text; *p && !o.stopped; p++) {
        OK(text_add(&o, (unsigned char)*p, &err));
        const char *s = text_take(&o, &n, false);
        if (n > 0)
            at = mempcpy(mempcpy(at, s, n), "|", 1);
    }
    const char *s = text_take(&o, &n, true);
    at = mempcpy(at, s, n);
    *at = 0;
    *stopped = o.stopped;
    text_close(&o);
}

static void text_comes_whole(void **state)
{
    (void)state;
    static const struct {
        const char *text, *stops[3], *out;
        bool stopped;
    } cases[] = {
        {"abc", {0}, "a|b|c|", false},
        {"\xc3\xa9-\xe2\x82\xac-\xf0\x9f\x8c\xb3", {0}, "\xc3\xa9|-|\xe2\x82\xac|-|\xf0\x9f\x8c\xb3|", false},
        {"a\xe2\x82", {0}, "a|\xe2\x82", false}, /* it ends inside a character: at the end, as it is */
        {"a\xff"
         "b",
         {0},
         "a|\xff|b|",
         false}, /* no character begins so: nothing to wait for */
        {"one END two", {"END"}, "o|n|e| |", true},
        {"one EN two", {"END"}, "o|n|e| |EN |t|w|o|", false}, /* what might have become one is held back */
        {"one E", {"END"}, "o|n|e| |E", false},
        {"aab", {"ab"}, "a|", true},
        {"xyzab", {"zab", "yz"}, "x|", true}, /* the first to be complete */
        {"ababac", {"abac"}, "ab|", true},
    };
    struct tokenizer *t = bytes_tokenizer();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[64];
        int n = 0;
        bool stopped;
        while (n < 3 && cases[i].stops[n])
            n++;
        feed(out, t, cases[i].text, cases[i].stops, n, &stopped);
        if (strcmp(out, cases[i].out) != 0 || stopped != cases[i].stopped)
            fail_msg("%s: \"%s\" was expected, \"%s\" came", cases[i].text, cases[i].out, out);
    }
    tokenizer_free(t);
}

static void valid_text(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"abc", "abc"},
        {"a\xff"
         "b",
         "a\xEF\xBF\xBD"
         "b"},
        {"\xe2\x82", "\xEF\xBF\xBD"}, /* Python: b"\xe2\x82".decode(errors="replace") */
        {"\x80\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xed\xa0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xf0\x9f\x8c\xb3", "\xf0\x9f\x8c\xb3"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        char *s = utf8_repaired(&n, cases[i][0], strlen(cases[i][0]));
        assert_string_equal(s, cases[i][1]);
        assert_int_equal(n, strlen(cases[i][1]));
        assert_true(utf8_valid(s, n));
        assert_int_equal(utf8_valid(cases[i][0], strlen(cases[i][0])), !strcmp(cases[i][0], cases[i][1]));
        free(s);
    }
    assert_int_equal(text_characters("\xc3\xa9-\xe2\x82\xac", 6), 3);
}

/* ---- frames and errors ---- */

static void frames(void **state)
{
    (void)state;
    size_t n;
    char *s = sse_frame(&n, json_pack("{ss}", "a", "two\nlines\r\n\ndata: x"));
    assert_string_equal(s, "data: {\"a\":\"two\\nlines\\r\\n\\ndata: x\"}\n\n");
    assert_int_equal(n, strlen(s));
    free(s);
    s = sse_frame(&n, NULL);
    assert_string_equal(s, "data: [DONE]\n\n");
    free(s);
}

static void errors(void **state)
{
    (void)state;
    struct api_error e = {0};
    char long_text[1000];
    memset(long_text, 0xc3, sizeof long_text);
    long_text[sizeof long_text - 1] = 0;
    for (size_t i = 1; i < sizeof long_text - 1; i += 2)
        long_text[i] = (char)0xa9;
    assert_int_equal(api_invalid(&e, "x", "%s", long_text), -1);
    assert_int_equal(api_invalid(&e, "y", "a later one"), -1);
    json_t *v = answer_error(&e), *error = json_object_get(v, "error");
    assert_string_equal(json_string_value(json_object_get(error, "param")), "x");
    assert_string_equal(json_string_value(json_object_get(error, "type")), "invalid_request_error");
    assert_true(json_is_null(json_object_get(error, "code")) && json_is_string(json_object_get(error, "message")));
    json_decref(v);
}

static void metrics_text(void **state)
{
    (void)state;
    struct metrics m;
    struct engine_stats stats = {.waiting = 3, .new_tokens = 17};
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    metrics_open(&m);
    metrics_count(&m, "/health", 200);
    metrics_count(&m, "/health", 200);
    metrics_count(&m, "/health", 503);
    static const char *const others[] = {"/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i"};
    for (size_t i = 0; i < 9; i++)
        metrics_count(&m, others[i], 200);
    metrics_time(&m, TIME_REQUEST, 0.02);
    metrics_time(&m, TIME_REQUEST, 1e9);
    metrics_write(&m, &stats, f);
    fclose(f);
    assert_non_null(strstr(text, "espalier_requests_total{route=\"/health\",code=\"200\"} 2\n"));
    for (size_t i = 0; i < 9; i++) {
        char line[80];
        snprintf(line, sizeof line, "espalier_requests_total{route=\"%s\",code=\"200\"} 1\n", others[i]);
        assert_non_null(strstr(text, line));
    }
    assert_non_null(strstr(text, "espalier_queue_length 3\n"));
    assert_non_null(strstr(text, "espalier_request_seconds_bucket{le=\"0.01\"} 0\n"));
    assert_non_null(strstr(text, "espalier_request_seconds_bucket{le=\"300\"} 1\n"));
    assert_non_null(strstr(text, "espalier_request_seconds_bucket{le=\"+Inf\"} 2\n"));
    free(text);
    metrics_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_requests),    cmocka_unit_test(hostile_requests), cmocka_unit_test(damaged_requests),
        cmocka_unit_test(text_comes_whole), cmocka_unit_test(valid_text),       cmocka_unit_test(frames),
        cmocka_unit_test(errors),           cmocka_unit_test(metrics_text),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
