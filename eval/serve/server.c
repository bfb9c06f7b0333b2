#include "eval/serve/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/base/progress.h"

static const char csp[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

/* ---- routes ---- */

static enum MHD_Result get_health(struct call *c, struct MHD_Connection *conn)
{
    bool draining = atomic_load(&c->s->draining);
    return reply_json(c, conn, draining ? 503 : 200, json_pack("{ss}", "status", draining ? "stopping" : "ok"));
}

static enum MHD_Result get_metrics(struct call *c, struct MHD_Connection *conn)
{
    struct engine_stats stats;
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (!out)
        return MHD_NO;
    engine_stats(c->s->engine, &stats);
    metrics_write(&c->s->metrics, &stats, out);
    bool whole = !ferror(out);
    whole &= fclose(out) == 0;
    if (!whole) {
        free(text);
        return MHD_NO;
    }
    return reply(c, conn, 200, "text/plain; version=0.0.4", text, n);
}

static enum MHD_Result get_models(struct call *c, struct MHD_Connection *conn)
{
    return reply_json(c, conn, 200, answer_models(c->s));
}

static enum MHD_Result get_model(struct call *c, struct MHD_Connection *conn)
{
    int i = find_variant(c->s, c->name, &c->err);
    return i < 0 ? reply_error(c, conn, &c->err) : reply_json(c, conn, 200, answer_model(c->s, &c->s->variants[i]));
}

static enum MHD_Result post_completion(struct call *c, struct MHD_Connection *conn)
{
    return serve_completion(c, conn, false);
}

static enum MHD_Result post_chat(struct call *c, struct MHD_Connection *conn)
{
    return serve_completion(c, conn, true);
}

static enum MHD_Result get_page(struct call *c, struct MHD_Connection *conn)
{
    const char *type;
    size_t n;
    const char *text = page_file(c->route, &type, &n);
    struct MHD_Response *r = MHD_create_response_from_buffer(n, (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (!r)
        return MHD_NO;
    add_headers(c->s, conn, r);
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "Content-Security-Policy", csp);
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    metrics_count(&c->s->metrics, c->route, 200);
    enum MHD_Result rc = MHD_queue_response(conn, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return rc;
}

static const struct route {
    const char *url, *method;
    bool open; /* without a key: nothing of the model is told */
    enum MHD_Result (*serve)(struct call *c, struct MHD_Connection *conn);
} routes[] = {
    {"/v1/completions", "POST", false, post_completion},
    {"/v1/chat/completions", "POST", false, post_chat},
    {"/v1/models", "GET", false, get_models},
    {"/v1/models/", "GET", false, get_model},
    {"/health", "GET", true, get_health},
    {"/metrics", "GET", false, get_metrics},
    {"/", "GET", true, get_page},
    {"/page.css", "GET", true, get_page},
    {"/page.js", "GET", true, get_page},
};

static const struct route *find_route(const char *url)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (!strcmp(routes[i].url, url) || (routes[i].serve == get_model && !strncmp(routes[i].url, url, strlen(routes[i].url))))
            return &routes[i];
    return NULL;
}

/* ---- who may ask ---- */

/* Hashes are compared, all of them and in full, so that time tells nothing of a key. */
static bool has_key(const struct server *s, struct MHD_Connection *conn)
{
    const char *header = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Authorization");
    char hash[65];
    int found = 0;
    if (s->o.n_keys == 0)
        return true;
    if (!header || strncasecmp(header, "Bearer ", 7) != 0)
        return false;
    struct err none = {0};
    if (bytes_sha256(hash, header + 7, strlen(header + 7), &none) != 0)
        return false;
    for (int i = 0; i < s->o.n_keys; i++)
        found |= CRYPTO_memcmp(hash, s->key_hashes[i], 64) == 0;
    return found;
}

/* A page of another site must not make a browser ask here: its requests say where they come from. */
static bool foreign_origin(const struct server *s, struct MHD_Connection *conn)
{
    const char *origin = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Origin");
    const char *host = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Host");
    if (!origin || (s->o.cors && (!strcmp(s->o.cors, "*") || !strcmp(s->o.cors, origin))))
        return false;
    const char *authority = strstr(origin, "://");
    return !authority || !host || strcmp(authority + 3, host) != 0;
}

/* The name in an authority, "name", "name:port" or "[::1]:port": where it begins and how long it is. */
static size_t host_name(const char **name, const char *authority)
{
    bool bracket = *authority == '[';
    *name = authority + bracket;
    return strcspn(*name, bracket ? "]" : ":");
}

static bool same_host(const char *authority, const char *other)
{
    const char *a, *b;
    size_t n = host_name(&a, authority), m = host_name(&b, other);
    return n == m && n > 0 && strncasecmp(a, b, n) == 0;
}

/* Whether a name is of the loopback address, in whichever form. */
static bool is_loopback_name(const char *name)
{
    struct in_addr v4;
    struct in6_addr v6;
    return !strcasecmp(name, "localhost") || (inet_pton(AF_INET, name, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127) ||
           (inet_pton(AF_INET6, name, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6));
}

/* Whether what follows the name is nothing or a port. */
static bool is_authority(const char *rest)
{
    rest += *rest == ']';
    return !*rest || (*rest == ':' && rest[1 + strspn(rest + 1, "0123456789")] == 0);
}

/* A server on the loopback address is asked by names of it only: a page from elsewhere whose own name resolves to 127.0.0.1 looks to a
 * browser like a page of this server, but its requests carry that name. */
static bool foreign_host(const struct server *s, struct MHD_Connection *conn)
{
    const char *host = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Host"), *name;
    char text[64];
    if (!s->loopback || !host)
        return false;
    size_t n = host_name(&name, host);
    if (!is_authority(name + n))
        return true;
    snprintf(text, sizeof text, "%.*s", (int)(n < 60 ? n : 60), name);
    if (is_loopback_name(text) || !strcasecmp(text, s->o.host)) /* --host has no brackets */
        return false;
    const char *origin = s->o.cors ? strstr(s->o.cors, "://") : NULL;
    return !origin || !same_host(host, origin + 3);
}

/* How often a header is there. */
struct count {
    const char *key;
    int n;
};

static enum MHD_Result count_one(void *arg, enum MHD_ValueKind kind, const char *key, const char *value)
{
    struct count *c = arg;
    (void)kind, (void)value;
    c->n += !strcasecmp(key, c->key);
    return MHD_YES;
}

static int count_header(struct MHD_Connection *conn, const char *key)
{
    struct count c = {key, 0};
    MHD_get_connection_values(conn, MHD_HEADER_KIND, count_one, &c);
    return c.n;
}

/* Two lengths, or a length beside chunks: two readers of the request would not agree where it ends. */
static bool has_doubtful_length(struct MHD_Connection *conn)
{
    int n = count_header(conn, "Content-Length");
    int codings = count_header(conn, "Transfer-Encoding");
    return n > 1 || codings > 1 || (n == 1 && codings == 1);
}

static bool is_get(const char *method)
{
    return !strcmp(method, "GET") || !strcmp(method, "HEAD");
}

/* What holds for every request: it is for this server, and its end is beyond doubt. */
static void check_request(struct call *c, struct MHD_Connection *conn, const char *version)
{
    struct api_error *e = &c->err;
    const char *coding = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Transfer-Encoding");
    int hosts = count_header(conn, "Host");
    if (hosts > 1 || (hosts == 0 && strcmp(version, "HTTP/1.0")))
        api_fail(e, 400, "invalid_request_error", "bad_host", NULL, "one Host header was expected");
    else if (has_doubtful_length(conn))
        api_fail(e, 400, "invalid_request_error", "bad_length", NULL, "one Content-Length was expected, or chunks without one");
    else if (coding && strcasecmp(coding, "chunked") != 0)
        api_fail(e, 501, "invalid_request_error", "bad_transfer_encoding", NULL, "Transfer-Encoding: only chunked is taken");
    else if (foreign_host(c->s, conn))
        api_fail(e, 403, "invalid_request_error", "host_not_allowed", NULL,
                 "the Host header names another host than this one: localhost or 127.0.0.1 was expected");
}

/* What can be said before the body is there. */
static void check_head(struct call *c, struct MHD_Connection *conn, const struct route *route, const char *url, const char *method)
{
    struct api_error *e = &c->err;
    const char *length = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Content-Length");
    if (!route)
        api_fail(e, 404, "invalid_request_error", "not_found", NULL, "there is nothing at %.100s", url);
    else if (strcmp(route->method, "POST") ? !is_get(method) : strcmp(method, "POST") != 0)
        api_fail(e, 405, "invalid_request_error", "method_not_allowed", NULL, "%s takes %s", route->url, route->method);
    else if (!route->open && !has_key(c->s, conn))
        api_fail(e, 401, "authentication_error", "invalid_api_key", NULL, "an API key was expected: Authorization: Bearer KEY");
    else if (foreign_origin(c->s, conn))
        api_fail(e, 403, "invalid_request_error", "origin_not_allowed", NULL, "requests from pages of other sites are not taken");
    else if (!route->open && atomic_load(&c->s->draining))
        api_fail(e, 503, "server_error", "stopping", NULL, "the server is stopping");
    else if (length && strtoull(length, NULL, 10) > (unsigned long long)c->s->o.body_bytes)
        api_fail(e, 413, "invalid_request_error", "body_too_large", NULL, "a body of %lld bytes at most is taken",
                 (long long)c->s->o.body_bytes);
}

/* ---- libmicrohttpd's calls ---- */

static void keep_body(struct call *c, const char *data, size_t n)
{
    if (c->err.status)
        return;
    if (n > (size_t)c->s->o.body_bytes - c->n) {
        api_fail(&c->err, 413, "invalid_request_error", "body_too_large", NULL, "a body of %lld bytes at most is taken",
                 (long long)c->s->o.body_bytes);
        return;
    }
    if (c->n + n > c->cap) {
        size_t cap = 2 * (c->n + n);
        char *body = realloc(c->body, cap);
        if (!body) {
            api_fail(&c->err, 500, "server_error", NULL, NULL, "out of memory");
            return;
        }
        c->body = body;
        c->cap = cap;
    }
    memcpy(c->body + c->n, data, n);
    c->n += n;
}

/* A part of the body. What is not wanted is answered at once and read on for a moment: a client whose bytes meet a closed socket
 * might lose the answer. */
static enum MHD_Result take_body(struct call *c, struct MHD_Connection *conn, const char *data, size_t n)
{
    const double MOMENT = 2; /* seconds; chunks may go on for ever */
    keep_body(c, data, n);
    if (c->err.status && c->refused == 0) {
        c->refused = clock_seconds();
        reply_refusal(c, conn, &c->err);
    }
    return c->err.status && clock_seconds() - c->refused > MOMENT ? MHD_NO : MHD_YES;
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *conn, const char *url, const char *method, const char *version,
                              const char *data, size_t *size, void **state)
{
    struct server *s = arg;
    struct call *c = *state;
    const struct route *route = find_route(url);
    if (!c) {
        if (!(c = *state = calloc(1, sizeof *c)))
            return MHD_NO;
        *c = (struct call){.s = s, .route = route ? route->url : "other", .began = clock_seconds()};
        atomic_fetch_add(&s->active, 1);
        arrivals_whole(s->arrivals, conn);
        check_request(c, conn, version);
        if (c->err.status)
            return reply_error(c, conn, &c->err);
        if (!strcmp(method, "OPTIONS") && s->o.cors)
            return MHD_YES;
        check_head(c, conn, route, url, method);
        /* a body that is not wanted is not waited for; libmicrohttpd closes the connection then */
        return c->err.status && !is_get(method) ? reply_error(c, conn, &c->err) : MHD_YES;
    }
    if (*size > 0) {
        enum MHD_Result rc = take_body(c, conn, data, *size);
        *size = 0;
        return rc;
    }
    if (c->refused > 0)
        return MHD_NO;
    if (!c->whole) {
        c->whole = true;
        atomic_fetch_add(&s->working, 1);
    }
    if (!strcmp(method, "OPTIONS") && s->o.cors)
        return reply(c, conn, 204, "text/plain", strdup(""), 0);
    if (c->err.status)
        return reply_error(c, conn, &c->err);
    c->name = url + strlen(route->url);
    return route->serve(c, conn);
}

static void completed(void *arg, struct MHD_Connection *conn, void **state, enum MHD_RequestTerminationCode how)
{
    struct call *c = *state;
    struct server *s = arg;
    (void)how;
    arrivals_next(s->arrivals, conn);
    if (!c)
        return;
    if (c->whole)
        atomic_fetch_sub(&s->working, 1);
    free(c->body);
    free(c);
    *state = NULL;
    atomic_fetch_sub(&s->active, 1);
}

/* ---- opening and closing ---- */

static int parse_address(struct sockaddr_storage *to, const char *host, int port, struct err *err)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    *to = (struct sockaddr_storage){0};
    if (port < 0 || port > 65535)
        return err_usage(err, "--port %d: 0 to 65535 was expected", port);
    if (!strcmp(host, "localhost"))
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
    } else {
        return err_usage(err, "--host %s: an address like 127.0.0.1 was expected", host);
    }
    return 0;
}

static void ignore_log(void *arg, const char *fmt, va_list ap)
{
    (void)arg, (void)fmt, (void)ap; /* what goes wrong with one connection is that client's business */
}

/* A listening socket, or -1. A port that was just left may be taken again (SO_REUSEADDR), one that somebody listens on may not:
 * libmicrohttpd's own option for the former shares the port with other servers (SO_REUSEPORT). */
static int open_socket(const struct server *s, const struct sockaddr_storage *address, struct err *err)
{
    bool v6 = address->ss_family == AF_INET6;
    int on = 1, fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t size = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (!v6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0) &&
        bind(fd, (const struct sockaddr *)address, size) == 0 && listen(fd, SOMAXCONN) == 0)
        return fd;
    if (errno == EADDRINUSE)
        err_set(err, "port %d of %s is in use by another program; port 0 takes one that is free", s->o.port, s->o.host);
    else
        err_errno(err, "cannot listen on %s, port %d", s->o.host, s->o.port);
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool is_loopback(const struct sockaddr_storage *a)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;
    return a->ss_family == AF_INET ? ntohl(v4->sin_addr.s_addr) >> 24 == 127 : IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static int bound_port(int fd, int asked)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        return asked;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port : ((struct sockaddr_in *)&a)->sin_port);
}

static int listen_on(struct server *s, struct err *err)
{
    struct sockaddr_storage address;
    if (parse_address(&address, s->o.host, s->o.port, err) != 0)
        return -1;
    int fd = open_socket(s, &address, err);
    if (fd < 0)
        return -1;
    s->loopback = is_loopback(&address);
    s->port = bound_port(fd, s->o.port);
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ERROR_LOG |
                     (address.ss_family == AF_INET6 ? MHD_USE_IPv6 : 0);
    s->daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, handle, s, MHD_OPTION_EXTERNAL_LOGGER, ignore_log, NULL, MHD_OPTION_LISTEN_SOCKET,
                         fd, MHD_OPTION_NOTIFY_COMPLETED, completed, s, MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.connections,
                         MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_NOTIFY_CONNECTION, arrivals_connection,
                         s->arrivals, MHD_OPTION_END);
    if (!s->daemon) {
        close(fd);
        return err_errno(err, "cannot listen on %s, port %d", s->o.host, s->o.port);
    }
    return 0;
}

static int check_options(const struct serve_options *o, struct err *err)
{
    if (o->body_bytes < 1 || o->prompt_tokens < 1 || o->max_tokens < 1 || o->prompts < 1 || o->connections < 1 ||
        o->connections > 1 << 16 || !(o->request_seconds > 0))
        return err_usage(err, "limits must be positive, and connections 65536 at most");
    if (o->chat_template && !tokenizer_chat_known(o->chat_template))
        return err_usage(err, "--chat-template %s: chatml, vicuna, llama2 or alpaca was expected", o->chat_template);
    return 0;
}

int server_open(struct server **out, const struct serve_variant *variants, int n_variants, const struct compute *c,
                const struct serve_options *o, struct err *err)
{
    *out = NULL;
    if (check_options(o, err) != 0)
        return -1;
    struct server *s = calloc(1, sizeof *s);
    struct engine_variant *runs = calloc((size_t)n_variants, sizeof *runs);
    if (!s || !runs) {
        free(s);
        free(runs);
        return err_set(err, "out of memory");
    }
    *s = (struct server){.variants = variants, .n_variants = n_variants, .o = *o, .context = o->engine.context};
    s->started = (int64_t)time(NULL);
    metrics_open(&s->metrics);
    json_object_seed(0); /* before there are threads */
    s->key_hashes = calloc((size_t)o->n_keys + 1, sizeof *s->key_hashes);
    int rc = s->key_hashes ? 0 : err_set(err, "out of memory");
    for (int i = 0; rc == 0 && i < o->n_keys; i++)
        rc = bytes_sha256(s->key_hashes[i], o->keys[i], strlen(o->keys[i]), err);
    for (int i = 0; i < n_variants; i++)
        runs[i] = variants[i].run;
    if (rc == 0)
        rc = engine_open(&s->engine, runs, n_variants, c, &o->engine, err);
    free(runs);
    if (rc != 0 || !(s->arrivals = arrivals_open(err)) || listen_on(s, err) != 0) {
        server_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

int server_port(const struct server *s)
{
    return s->port;
}

void server_drain(struct server *s)
{
    const double GRACE = 2; /* seconds for requests that are still being sent */
    double now = clock_seconds(), until = now + s->o.request_seconds + 1, grace = now + GRACE;
    atomic_store(&s->draining, true);
    while (atomic_load(&s->active) > 0 && (now = clock_seconds()) < until && (atomic_load(&s->working) > 0 || now < grace))
        usleep(10000);
}

void server_close(struct server *s)
{
    if (!s)
        return;
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    arrivals_close(s->arrivals);
    engine_close(s->engine);
    metrics_close(&s->metrics);
    free(s->key_hashes);
    free(s);
}
