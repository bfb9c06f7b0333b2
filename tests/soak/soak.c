/* Many clients at once against a running server: requests that are right, that are given up, and that are hostile.
 *   soak PORT CLIENTS SECONDS         every answer is checked; at the end nothing may be left running
 *   soak PORT CLIENTS SECONDS bench   streams only; tells tokens/s and the time to the first token */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/soak/client.h"

enum { MAX_CLIENTS = 1024, MAX_TIMES = 1 << 16, REFERENCES = 4 };

static int port;
static double end;
static bool bench;
static atomic_llong n_whole, n_streams, n_left, n_hostile, n_torn, n_refused, n_wrong, n_tokens;
static char *reference[REFERENCES]; /* what the same request gave first */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double first_times[MAX_TIMES];
static int n_times;

static void wrong(const char *what, const struct reply *r)
{
    if (atomic_fetch_add(&n_wrong, 1) < 20)
        printf("WRONG %s: status %d: %.300s\n", what, r->status, r->text ? r->text : "(nothing)");
}

/* Busy is no mistake. */
static bool refused(const struct reply *r)
{
    bool busy = r->status == 429 || r->status == 503;
    if (busy) {
        atomic_fetch_add(&n_refused, 1);
        usleep(20000);
    }
    return busy;
}

static uint32_t draw(uint64_t *s, uint32_t n)
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return (uint32_t)(*s * 0x2545f4914f6cdd1du >> 33) % n;
}

/* The same request must have the same answer whatever else runs: greedy, and drawn with a seed; two choices, and with penalties. */
static void ask_whole(uint64_t *s)
{
    char body[512];
    uint32_t k = draw(s, REFERENCES);
    int n = snprintf(body, sizeof body,
                     "{\"prompt\":\"%.*s tree %u\",\"max_tokens\":12,\"temperature\":%d,\"seed\":7,\"logprobs\":2,\"n\":%u,"
                     "\"frequency_penalty\":%u,\"logit_bias\":{\"101\":%u}}",
                     (int)(k * 60),
                     "pruned in winter and tied to the wall, row by row, and so on, year after year, until the whole of it "
                     "is covered and the fruit hangs within reach of the one who planted it, ",
                     k, k % 2, 1 + (k == 3), k / 2, k / 2);
    struct reply r = client_ask(port, "POST", "/v1/completions", body, (size_t)n, 0);
    char *choices = r.status == 200 ? strstr(r.text, "\"choices\"") : NULL, *usage = choices ? strstr(choices, "\"usage\"") : NULL;
    if (usage) {
        *usage = 0;
        pthread_mutex_lock(&lock);
        if (!reference[k])
            reference[k] = strdup(choices);
        bool same = !strcmp(reference[k], choices);
        pthread_mutex_unlock(&lock);
        if (!same)
            wrong("another answer to the same request", &r);
        atomic_fetch_add(&n_whole, 1);
    } else if (!refused(&r)) {
        wrong("completion", &r);
    }
    free(r.text);
}

static void ask_stream(uint64_t *s, size_t leave_at)
{
    char body[1024];
    bool chat = draw(s, 2);
    int tokens = bench ? 128 : 1 + (int)draw(s, 40);
    int n = chat && !bench ? snprintf(body, sizeof body,
                                      "{\"messages\":[{\"role\":\"user\",\"content\":\"Say %u\"}],\"stream\":true,"
                                      "\"stop\":[\"zq\"],\"max_tokens\":%d}",
                                      draw(s, 1000), tokens)
                           : snprintf(body, sizeof body,
                                      "{\"prompt\":\"Chapter %u. In the old garden behind the house, where the wall keeps the "
                                      "warmth of the day, there stood\",\"stream\":true,\"temperature\":0,\"max_tokens\":%d}",
                                      draw(s, 1000), tokens);
    struct reply r =
        client_ask(port, "POST", chat && !bench ? "/v1/chat/completions" : "/v1/completions", body, (size_t)n, leave_at);
    if (leave_at) {
        atomic_fetch_add(&n_left, 1);
    } else if (r.status == 200 && r.n > 20 && strstr(r.text + r.n - 24, "data: [DONE]\n\n")) {
        atomic_fetch_add(&n_streams, 1);
        atomic_fetch_add(&n_tokens, r.events - 1);
        pthread_mutex_lock(&lock);
        if (n_times < MAX_TIMES)
            first_times[n_times++] = r.first;
        pthread_mutex_unlock(&lock);
    } else if (!refused(&r)) {
        wrong("stream", &r);
    }
    free(r.text);
}

static void ask_hostile(uint64_t *s)
{
    static const char *const bodies[] = {
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{\"prompt\":}",
        "{\"prompt\":1}",
        "{\"prompt\":\"\xff\xfe\"}",
        "{\"prompt\":\"a\",\"prompt\":\"b\"}",
        "{\"prompt\":\"a\",\"max_tokens\":1e99}",
        "{\"prompt\":\"a\",\"max_tokens\":99999999999999999999}",
        "{\"prompt\":\"a\",\"max_tokens\":-1}",
        "{\"prompt\":[[]]}",
        "{\"prompt\":[1,\"a\"]}",
        "{\"prompt\":[2147483647]}",
        "{\"prompt\":[-1]}",
        "{\"prompt\":\"a\",\"temperature\":3}",
        "{\"prompt\":\"a\",\"nope\":1}",
        "{\"prompt\":\"a\",\"n\":1000}",
        "{\"prompt\":\"a\",\"stop\":[\"\"]}",
        "{\"prompt\":\"a\",\"logprobs\":21}",
        "{\"prompt\":\"a\",\"model\":\"../etc\"}",
        "{\"prompt\":\"\\u0000\"}",
        "{\"prompt\":\"a\",\"top_p\":0}",
        "{\"prompt\":\"a\",\"stream\":1}",
        "{\"messages\":[]}",
    };
    static const char *const paths[] = {"/v1/completions", "/v1/chat/completions"};
    size_t n = sizeof bodies / sizeof *bodies, k = draw(s, (uint32_t)n + 2);
    char *deep = NULL;
    const char *body = k < n ? bodies[k] : "";
    size_t len = strlen(body);
    if (k >= n) { /* brackets without end, and more than is taken */
        len = k == n ? 100000 : 5 << 20;
        body = deep = malloc(len);
        if (!deep)
            abort();
        memset(deep, '[', len);
    }
    struct reply r = client_ask(port, "POST", paths[draw(s, 2)], body, len, 0);
    if (r.status < 400 || r.status >= 500)
        if (!(k > n && r.status == 0) && !refused(&r)) /* the connection may be reset while such a body is still being sent */
            wrong("hostile request", &r);
    atomic_fetch_add(&n_hostile, 1);
    free(r.text);
    free(deep);
}

/* Bytes that stop or are no HTTP at all. */
static void ask_torn(uint64_t *s)
{
    static const char *const heads[] = {
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"prompt\":",
        "POST /v1/comp",
        "\r\n\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "\x16\x03\x01\x02",
        "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    };
    const char *head = heads[draw(s, sizeof heads / sizeof *heads)];
    int fd = client_connect(port);
    if (fd < 0)
        return;
    client_send(fd, head, strlen(head));
    usleep(draw(s, 20000));
    close(fd);
    atomic_fetch_add(&n_torn, 1);
}

static void ask_status(void)
{
    static const char *const paths[] = {"/health", "/metrics", "/v1/models", "/", "/page.js"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct reply r = client_ask(port, "GET", paths[i], "", 0, 0);
        if (r.status != 200)
            wrong(paths[i], &r);
        free(r.text);
    }
}

static void *client_main(void *arg)
{
    uint64_t s = (uint64_t)(uintptr_t)arg * 0x9e3779b97f4a7c15u + 1;
    while (now_seconds() < end) {
        uint32_t k = bench ? 0 : draw(&s, 100);
        if (k < 35)
            ask_stream(&s, 0);
        else if (k < 55)
            ask_whole(&s);
        else if (k < 72)
            ask_stream(&s, 1 + draw(&s, 3000));
        else if (k < 90)
            ask_hostile(&s);
        else if (k < 97)
            ask_torn(&s);
        else
            ask_status();
    }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Whether the server has come to rest: nothing runs, nothing waits. */
static bool at_rest(void)
{
    for (int i = 0; i < 100; i++, usleep(100000)) {
        struct reply r = client_ask(port, "GET", "/metrics", "", 0, 0);
        bool rest = r.status == 200 && strstr(r.text, "espalier_slots_used 0\n") && strstr(r.text, "espalier_queue_length 0\n");
        free(r.text);
        if (rest)
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    static pthread_t threads[MAX_CLIENTS];
    int n = argc > 2 ? atoi(argv[2]) : 0;
    double seconds = argc > 3 ? atof(argv[3]) : 0, start = now_seconds();
    if (argc < 4 || n < 1 || n > MAX_CLIENTS) {
        fprintf(stderr, "usage: soak PORT CLIENTS SECONDS [bench]\n");
        return 2;
    }
    port = atoi(argv[1]);
    bench = argc > 4;
    end = start + seconds;
    for (int i = 0; i < n; i++)
        if (pthread_create(&threads[i], NULL, client_main, (void *)(uintptr_t)(i + 1)) != 0)
            return 2;
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    seconds = now_seconds() - start;
    bool rest = at_rest();
    qsort(first_times, (size_t)n_times, sizeof *first_times, by_value);
    printf("%d clients, %.0f s: %lld completions, %lld streams, %lld given up, %lld hostile, %lld torn, %lld refused as busy, %lld "
           "WRONG%s\n",
           n, seconds, n_whole, n_streams, n_left, n_hostile, n_torn, n_refused, n_wrong, rest ? "" : "; NOT AT REST");
    if (n_times > 0)
        printf("%.1f tokens/s in streams; first token after %.3f s (median), %.3f s (95 %%)\n", (double)n_tokens / seconds,
               first_times[n_times / 2], first_times[n_times * 95 / 100]);
    for (int i = 0; i < REFERENCES; i++)
        free(reference[i]);
    return n_wrong == 0 && rest ? 0 : 1;
}
