/* How long a connection may take for the head of a request. libmicrohttpd counts from the last byte that came, so that a head of one
 * byte now and then would keep its connection for as long as it likes. */
#include "eval/serve/http.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/progress.h"

static const double HEAD_SECONDS = 10, LOOK_SECONDS = 0.25;

struct arrival {
    struct arrival *next;
    int fd;
    double until; /* 0: nothing is waited for, or it is cut already */
};

struct arrivals {
    struct arrival *first;
    pthread_mutex_t lock;
    pthread_t thread;
    atomic_bool ends;
};

/* A socket is shut down, not closed: that is libmicrohttpd's to do, which then reads the end. */
static void *watch(void *arg)
{
    struct arrivals *hs = arg;
    while (!atomic_load(&hs->ends)) {
        usleep((useconds_t)(LOOK_SECONDS * 1e6));
        double now = clock_seconds();
        pthread_mutex_lock(&hs->lock);
        for (struct arrival *h = hs->first; h; h = h->next)
            if (h->until > 0 && now > h->until) {
                h->until = 0;
                shutdown(h->fd, SHUT_RDWR);
            }
        pthread_mutex_unlock(&hs->lock);
    }
    return NULL;
}

struct arrivals *arrivals_open(struct err *err)
{
    struct arrivals *hs = calloc(1, sizeof *hs);
    if (!hs) {
        err_set(err, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&hs->lock, NULL);
    if (pthread_create(&hs->thread, NULL, watch, hs) == 0)
        return hs;
    err_set(err, "cannot start a thread");
    pthread_mutex_destroy(&hs->lock);
    free(hs);
    return NULL;
}

void arrivals_close(struct arrivals *hs)
{
    if (!hs)
        return;
    atomic_store(&hs->ends, true);
    pthread_join(hs->thread, NULL);
    pthread_mutex_destroy(&hs->lock);
    free(hs);
}

void arrivals_connection(void *arg, struct MHD_Connection *conn, void **place, enum MHD_ConnectionNotificationCode what)
{
    struct arrivals *hs = arg;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct arrival *h = *place;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        if (!info || !(*place = h = calloc(1, sizeof *h)))
            return; /* without memory it has no limit but libmicrohttpd's */
        *h = (struct arrival){.fd = info->connect_fd, .until = clock_seconds() + HEAD_SECONDS};
        pthread_mutex_lock(&hs->lock);
        h->next = hs->first;
        hs->first = h;
        pthread_mutex_unlock(&hs->lock);
    } else if (h) {
        pthread_mutex_lock(&hs->lock);
        struct arrival **at = &hs->first;
        while (*at != h)
            at = &(*at)->next;
        *at = h->next;
        pthread_mutex_unlock(&hs->lock);
        free(h);
        *place = NULL;
    }
}

static void set_until(struct arrivals *hs, struct MHD_Connection *conn, double until)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct arrival *h = info ? info->socket_context : NULL;
    if (!h)
        return;
    pthread_mutex_lock(&hs->lock);
    h->until = until;
    pthread_mutex_unlock(&hs->lock);
}

void arrivals_whole(struct arrivals *hs, struct MHD_Connection *conn)
{
    set_until(hs, conn, 0);
}

void arrivals_next(struct arrivals *hs, struct MHD_Connection *conn)
{
    set_until(hs, conn, clock_seconds() + IDLE_SECONDS + HEAD_SECONDS);
}
