/* The HTTP side: one call of libmicrohttpd's handler after another makes up a request. */
#ifndef ESPALIER_EVAL_SERVE_HTTP_H
#define ESPALIER_EVAL_SERVE_HTTP_H

#include <microhttpd.h>

#include "eval/serve/serve_impl.h"

/* A request on its way. */
struct call {
    struct server *s;
    const char *route; /* for the metrics: a literal */
    const char *name;  /* what follows the route in the URL, while the handler is called */
    char *body;
    size_t n, cap;
    struct api_error err; /* found before the body was there */
    double began;
    bool whole;     /* all of the request is there: from here on the server works for it */
    double refused; /* when a body that is not wanted was answered; 0: it was not */
};

/* ---- http.c ---- */

/* Queues a body that is handed over (malloc'ed). */
enum MHD_Result reply(struct call *c, struct MHD_Connection *conn, int status, const char *type, char *body, size_t n);
enum MHD_Result reply_json(struct call *c, struct MHD_Connection *conn, int status, json_t *v); /* releases v */
enum MHD_Result reply_error(struct call *c, struct MHD_Connection *conn, const struct api_error *e);
/* The answer while the body is still coming, when libmicrohttpd takes none; nothing can be answered after it. */
void reply_refusal(struct call *c, struct MHD_Connection *conn, const struct api_error *e);
/* What every response carries. */
void add_headers(const struct server *s, struct MHD_Connection *conn, struct MHD_Response *r);
/* Whether the peer of a connection has closed it. */
bool peer_gone(void *conn);

/* ---- arrival.c: connections whose next head is not there in time are cut ---- */

enum { IDLE_SECONDS = 30 }; /* libmicrohttpd closes a connection on which nothing comes */

struct arrivals *arrivals_open(struct err *err);
void arrivals_close(struct arrivals *hs); /* after the daemon has stopped */
/* libmicrohttpd's MHD_OPTION_NOTIFY_CONNECTION. */
void arrivals_connection(void *hs, struct MHD_Connection *conn, void **place, enum MHD_ConnectionNotificationCode what);
void arrivals_whole(struct arrivals *hs, struct MHD_Connection *conn); /* the head is there: no limit until the next one */
void arrivals_next(struct arrivals *hs, struct MHD_Connection *conn);  /* the request is answered: the next head may come */

/* ---- completion.c: /v1/completions and /v1/chat/completions ---- */

enum MHD_Result serve_completion(struct call *c, struct MHD_Connection *conn, bool chat);

/* ---- page.c: the files of the page; NULL where there is none of this name ---- */

const char *page_file(const char *url, const char **type, size_t *n);

#endif
