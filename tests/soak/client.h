/* A small HTTP client for tests of the server: one request a connection, over loopback. */
#ifndef ESPALIER_TESTS_SOAK_CLIENT_H
#define ESPALIER_TESTS_SOAK_CLIENT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct reply {
    int status; /* 0: the connection broke before there was one */
    char *text; /* head and body as they came, NUL-terminated */
    size_t n;
    int64_t events; /* "data: " lines */
    double first;   /* seconds to the first event that holds text, and to the end */
    double seconds;
};

static inline double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline int client_connect(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 120};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static inline bool client_send(int fd, const char *data, size_t n)
{
    for (size_t sent = 0; sent < n;) {
        ssize_t k = send(fd, data + sent, n - sent, MSG_NOSIGNAL);
        if (k <= 0)
            return false;
        sent += (size_t)k;
    }
    return true;
}

/* Sends a request and reads until the end, or leaves once `leave_at` bytes came (0: never). */
static inline struct reply client_ask(int port, const char *method, const char *path, const char *body, size_t n_body,
                                      size_t leave_at)
{
    struct reply r = {0};
    char head[512], part[16384];
    double start = now_seconds();
    size_t cap = 0;
    int fd = client_connect(port), len;
    if (fd < 0)
        return r;
    len = snprintf(head, sizeof head,
                   "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\nContent-Type: application/json\r\n"
                   "Content-Length: %zu\r\n\r\n",
                   method, path, port, n_body);
    client_send(fd, head, (size_t)len);
    client_send(fd, body, n_body); /* may fail: the answer may be there before the body is read */
    for (ssize_t k; (k = recv(fd, part, sizeof part, 0)) > 0;) {
        if (r.n + (size_t)k + 1 > cap) {
            char *text = realloc(r.text, cap = 2 * (r.n + (size_t)k + 1));
            if (!text)
                abort();
            r.text = text;
        }
        memcpy(r.text + r.n, part, (size_t)k);
        size_t from = r.n > 8 ? r.n - 8 : 0;
        r.n += (size_t)k;
        r.text[r.n] = 0;
        if (r.first == 0 && (strstr(r.text + from, "\"text\":\"") || strstr(r.text + from, "\"content\":\"")))
            r.first = now_seconds() - start;
        if (leave_at && r.n >= leave_at)
            break;
    }
    close(fd);
    r.seconds = now_seconds() - start;
    if (r.text && sscanf(r.text, "HTTP/1.%*d %d", &r.status) != 1)
        r.status = 0;
    for (const char *p = r.text; p && (p = strstr(p, "data: ")); p++)
        r.events++;
    return r;
}

#endif
