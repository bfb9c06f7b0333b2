#include "eval/serve/http.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void add_headers(const struct server *s, struct MHD_Connection *conn, struct MHD_Response *r)
{
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(r, "Cache-Control", "no-store");
    if (!s->o.cors)
        return;
    /* clients have headers of their own; what a page of an allowed site asks for, it may send */
    const char *asked = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Access-Control-Request-Headers");
    bool plain = asked && asked[strspn(asked, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_, ")] == 0;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", s->o.cors);
    MHD_add_response_header(r, "Access-Control-Allow-Headers", plain ? asked : "Authorization, Content-Type");
    MHD_add_response_header(r, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    MHD_add_response_header(r, "Vary", "Origin");
}

enum MHD_Result reply(struct call *c, struct MHD_Connection *conn, int status, const char *type, char *body, size_t n)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(n, body, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        free(body);
        return MHD_NO;
    }
    add_headers(c->s, conn, r);
    MHD_add_response_header(r, "Content-Type", type);
    if (status == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (status == 429 || status == 503)
        MHD_add_response_header(r, "Retry-After", "1");
    if (status == 405)
        MHD_add_response_header(r, "Allow", !strncmp(c->route, "/v1/c", 5) ? "POST, OPTIONS" : "GET, HEAD, OPTIONS");
    metrics_count(&c->s->metrics, c->route, status);
    enum MHD_Result rc = MHD_queue_response(conn, (unsigned)status, r);
    MHD_destroy_response(r);
    return rc;
}

enum MHD_Result reply_json(struct call *c, struct MHD_Connection *conn, int status, json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(v);
    return text ? reply(c, conn, status, "application/json", text, strlen(text)) : MHD_NO;
}

enum MHD_Result reply_error(struct call *c, struct MHD_Connection *conn, const struct api_error *e)
{
    return reply_json(c, conn, e->status, answer_error(e));
}

void reply_refusal(struct call *c, struct MHD_Connection *conn, const struct api_error *e)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    json_t *v = answer_error(e);
    char *body = json_dumps(v, JSON_COMPACT), *text = NULL;
    const char *cors = c->s->o.cors;
    json_decref(v);
    int n = !body || !info
                ? -1
                : asprintf(&text,
                           "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                           "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n%s%s%s\r\n%s",
                           e->status, MHD_get_reason_phrase_for((unsigned)e->status), strlen(body),
                           cors ? "Access-Control-Allow-Origin: " : "", cors ? cors : "", cors ? "\r\nVary: Origin\r\n" : "", body);
    if (n >= 0 && send(info->connect_fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) == n)
        metrics_count(&c->s->metrics, c->route, e->status);
    if (info)
        shutdown(info->connect_fd, SHUT_WR);
    if (n >= 0)
        free(text);
    free(body);
}

bool peer_gone(void *conn)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct pollfd p = {.fd = info ? info->connect_fd : -1, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}
