/* Ends of loopback connections that behave as a test tells them and note what happened to them. */
#ifndef TESTS_NET_ENDS_H
#define TESTS_NET_ENDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/metrics.h"
#include "net/conn.h"
#include "net/listener.h"

static const struct loop_options small = {.entries = 16, .buffer_count = 16, .buffer_bytes = 2048, .cpu = -1};

/* ---- one end of a connection, as a test wants it to behave ---- */

enum event { AT_NONE, AT_DATA, AT_EOF, AT_DRAINED, AT_CONNECTED, AT_SECURED, AT_RELEASE };

struct world {
    struct loop *l;
    unsigned open_count; /* ends still to close; the loop stops at 0 */
};

struct end {
    struct conn *c; /* from malloc, freed in `closed`: asan sees whoever touches it later */
    struct world *w;
    struct endpoint to;
    /* What it does. */
    enum event close_at;
    size_t take_max;     /* consumed per call of data; 0 = all */
    unsigned refuse;     /* that many calls of data consume nothing */
    bool resume_in_data; /* resumes first, then returns less */
    bool echo, finish_at_eof, paused;
    size_t finish_at; /* bytes */
    /* What happened to it. */
    size_t got;
    char text[256]; /* the first bytes */
    bool check;     /* bytes follow the pattern */
    unsigned data_count, eof_count, drained_count, connected_count, secured_count, closed_count;
    err_t closed_err, secured_err;
    struct timer timer;
};

static inline uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 7 + (i >> 8) * 13);
}

static inline void at_event(struct end *e, enum event ev)
{
    if (e->close_at == ev)
        conn_close(e->c, -EBADMSG);
}

static inline void look_at(struct end *e, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (e->got + i < sizeof e->text)
            e->text[e->got + i] = (char)p[i];
        if (e->check)
            assert_int_equal(p[i], pattern(e->got + i));
    }
}

static inline size_t on_data(struct conn *c, const uint8_t *p, size_t n)
{
    struct end *e = conn_ctx(c);
    assert_true(n > 0);
    assert_false(e->paused);
    assert_int_equal(e->eof_count, 0);
    assert_int_equal(e->closed_count, 0);
    e->data_count++;
    size_t used = e->take_max ? MIN(n, e->take_max) : n;
    if (e->refuse > 0) {
        e->refuse--;
        used = 0;
    }
    if (used < n) {
        if (e->resume_in_data)
            conn_resume(c);
        else
            timer_arm(e->w->l, &e->timer, 0);
    }
    look_at(e, p, used);
    e->got += used;
    if (e->echo)
        conn_write(c, p, used);
    at_event(e, AT_DATA);
    if (e->finish_at && e->got >= e->finish_at)
        conn_finish(c, 1000);
    return used;
}

static inline void resume_later(struct timer *t)
{
    struct end *e = container_of(t, struct end, timer);
    if (e->closed_count)
        return;
    e->paused = false;
    conn_resume(e->c);
}

static inline void on_eof(struct conn *c)
{
    struct end *e = conn_ctx(c);
    assert_false(e->paused);
    e->eof_count++;
    at_event(e, AT_EOF);
    if (e->finish_at_eof)
        conn_finish(c, 1000);
}

static inline void on_drained(struct conn *c)
{
    struct end *e = conn_ctx(c);
    assert_int_equal(conn_pending_bytes(c), 0);
    e->drained_count++;
    at_event(e, AT_DRAINED);
}

static inline void on_connected(struct conn *c)
{
    struct end *e = conn_ctx(c);
    e->connected_count++;
    at_event(e, AT_CONNECTED);
}

static inline void on_secured(struct conn *c, err_t err)
{
    struct end *e = conn_ctx(c);
    e->secured_count++;
    e->secured_err = err;
    assert_int_equal(conn_closing(c), err != 0);
    at_event(e, AT_SECURED);
}

static inline void on_closed(struct conn *c, err_t err)
{
    struct end *e = conn_ctx(c);
    assert_true(conn_closing(c));
    e->closed_count++;
    e->closed_err = err;
    timer_disarm(e->w->l, &e->timer);
    free(c);
    if (--e->w->open_count == 0)
        loop_stop(e->w->l);
}

static const struct conn_ops ops = {.data = on_data,
                                    .eof = on_eof,
                                    .drained = on_drained,
                                    .connected = on_connected,
                                    .secured = on_secured,
                                    .closed = on_closed};

static inline void make_world(struct world *w, const struct loop_options *opt)
{
    *w = (struct world){0};
    assert_int_equal(loop_create(&w->l, opt), 0);
}

static inline void end_init(struct end *e, struct world *w)
{
    e->w = w;
    e->c = malloc(conn_size());
    assert_non_null(e->c);
    memset(e->c, 0xee, conn_size());
    e->timer.fire = resume_later;
    w->open_count++;
}

static inline void end_open(struct end *e, struct world *w, int fd)
{
    end_init(e, w);
    conn_open(e->c, w->l, fd, &ops, e);
}

static inline void end_dial(struct end *e, struct world *w, const struct endpoint *to, uint32_t timeout_ms)
{
    end_init(e, w);
    conn_dial(e->c, w->l, to, NULL, timeout_ms, &ops, e);
}

static inline void run(struct world *w)
{
    loop_run(w->l);
    assert_int_equal(w->open_count, 0);
    loop_destroy(w->l);
}

static inline int bare_listener(struct endpoint *at, int backlog)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    if (backlog >= 0)
        assert_int_equal(listen(fd, backlog), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&sa, at), 0);
    return fd;
}

static inline int bare_connect(const struct endpoint *to)
{
    struct sockaddr_storage sa;
    socklen_t len = endpoint_to_sockaddr(to, &sa);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

static inline void tcp_pair(int fds[2])
{
    struct endpoint at;
    int listener = bare_listener(&at, 1);
    fds[0] = bare_connect(&at);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    close(listener);
}

static inline void send_all(int fd, const void *p, size_t n)
{
    assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), (ssize_t)n);
}

static inline uint8_t *pattern_bytes(size_t n)
{
    uint8_t *p = malloc(n);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = pattern(i);
    return p;
}

#endif
