/* A completion over HTTP: whole, or as server-sent events. */
#include "eval/serve/http.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/progress.h"

/* A stream under way; libmicrohttpd calls for bytes and frees it. */
struct stream {
    struct run run;
    char *frame; /* what is being sent */
    size_t n, sent;
    bool finishing, ended;
};

/* The next frame, after waiting for something to tell. False: out of memory, or the client has left. */
static bool next_frame(struct stream *s)
{
    struct run *r = &s->run;
    struct api_error err = {0};
    json_t *v = answer_chunk(r);
    int rc = 0;
    while (!v && !s->finishing && rc == 0) {
        rc = run_advance(r, &err);
        v = rc < 0 ? NULL : answer_chunk(r);
    }
    if (err.status == 499)
        return false;
    if (!v && rc < 0) {
        v = answer_error(&err);
        s->finishing = r->usage_sent = true;
    } else if (!v && r->req.stream_usage && !r->usage_sent) {
        v = answer_usage_chunk(r);
        s->finishing = r->usage_sent = true;
    } else if (!v) {
        s->ended = s->finishing = true; /* the frame is [DONE] */
    }
    free(s->frame);
    s->sent = 0;
    s->frame = sse_frame(&s->n, v);
    return s->frame != NULL;
}

static ssize_t read_stream(void *arg, uint64_t pos, char *buf, size_t max)
{
    struct stream *s = arg;
    (void)pos;
    if (s->sent == s->n) {
        if (s->ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (!next_frame(s))
            return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    size_t n = s->n - s->sent < max ? s->n - s->sent : max;
    memcpy(buf, s->frame + s->sent, n);
    s->sent += n;
    return (ssize_t)n;
}

static void free_stream(void *arg)
{
    struct stream *s = arg;
    struct server *server = s->run.s;
    run_end(&s->run);
    free(s->frame);
    free(s);
    atomic_fetch_sub(&server->active, 1);
    atomic_fetch_sub(&server->working, 1);
}

static enum MHD_Result start_stream(struct call *c, struct MHD_Connection *conn, struct stream *s)
{
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, read_stream, s, free_stream);
    atomic_fetch_add(&c->s->active, 1); /* until free_stream */
    atomic_fetch_add(&c->s->working, 1);
    if (!response) {
        free_stream(s);
        return MHD_NO;
    }
    add_headers(c->s, conn, response);
    MHD_add_response_header(response, "Content-Type", "text/event-stream; charset=utf-8");
    MHD_add_response_header(response, "X-Accel-Buffering", "no");
    metrics_count(&c->s->metrics, c->route, 200);
    enum MHD_Result rc = MHD_queue_response(conn, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return rc;
}

enum MHD_Result serve_completion(struct call *c, struct MHD_Connection *conn, bool chat)
{
    struct stream *s = calloc(1, sizeof *s);
    struct api_error err = {0};
    if (!s)
        return MHD_NO;
    struct run *r = &s->run; /* stays where it is: choices point into it */
    int rc = run_begin(r, c->s, c->body ? c->body : "", c->n, chat, &err);
    r->gone = peer_gone;
    r->gone_arg = conn;
    if (rc == 0 && r->req.stream)
        return start_stream(c, conn, s);
    while (rc == 0)
        rc = run_advance(r, &err);
    json_t *v = rc > 0 ? answer_whole(r) : NULL;
    run_end(r);
    free(s);
    return v ? reply_json(c, conn, 200, v) : reply_error(c, conn, &err);
}
