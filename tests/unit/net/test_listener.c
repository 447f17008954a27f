/* Listeners: opening, accepting, pausing, running out of descriptors, closing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#include "net/listener.h"

static const struct loop_options small = {.entries = 8, .buffer_count = 4, .buffer_bytes = 1024, .cpu = -1};

struct world {
    struct loop *l;
    struct listener *ln;
    unsigned want, accepted_count, closed_count;
    int fds[64];
    struct endpoint peers[64], locals[64];
    void (*accepted)(struct world *w);
};

static void on_accepted(void *ctx, int fd, const struct endpoint *peer, const struct endpoint *local)
{
    struct world *w = ctx;
    w->fds[w->accepted_count] = fd;
    w->peers[w->accepted_count] = *peer;
    w->locals[w->accepted_count] = *local;
    w->accepted_count++;
    if (w->accepted)
        w->accepted(w);
    else if (w->accepted_count == w->want)
        listener_close(w->ln);
}

static void on_closed(void *ctx, struct listener *ln)
{
    struct world *w = ctx;
    assert_ptr_equal(ln, w->ln);
    w->closed_count++;
    loop_stop(w->l);
}

static const struct listener_ops ops = {.accepted = on_accepted, .closed = on_closed};

static struct endpoint at(const char *text)
{
    struct endpoint e;
    assert_int_equal(endpoint_parse(str_cstr(text), &e), 0);
    return e;
}

static void open_world(struct world *w, const char *address)
{
    struct endpoint e = at(address);
    assert_int_equal(loop_create(&w->l, &small), 0);
    assert_int_equal(listener_open(&w->ln, &e), 0);
    assert_true(listener_endpoint(w->ln)->port != 0);
}

static void close_world(struct world *w)
{
    assert_int_equal(w->closed_count, 1);
    for (unsigned i = 0; i < w->accepted_count; i++)
        close(w->fds[i]);
    loop_destroy(w->l);
}

static int dial(const struct listener *ln)
{
    struct endpoint e = *listener_endpoint(ln);
    if (ip_is_any(&e.ip))
        e.ip = at(ip_is_v4(&e.ip) ? "127.0.0.1:1" : "[::1]:1").ip;
    struct sockaddr_storage sa;
    socklen_t len = endpoint_to_sockaddr(&e, &sa);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

static void accept_and_close(const char *address, const char *local)
{
    enum { N = 10 };
    struct world w = {.want = N};
    int clients[N];
    open_world(&w, address);
    for (unsigned i = 0; i < N; i++)
        clients[i] = dial(w.ln); /* before accepting starts: the backlog holds them */
    uint16_t port = listener_endpoint(w.ln)->port;
    listener_start(w.ln, w.l, &ops, &w);
    loop_run(w.l);
    assert_int_equal(w.accepted_count, N);
    struct endpoint want = at(local);
    for (unsigned i = 0; i < N; i++) {
        assert_true(ip_eq(&w.locals[i].ip, &want.ip));
        assert_int_equal(w.locals[i].port, port);
        assert_true(ip_is_loopback(&w.peers[i].ip)); /* 127.0.0.1 also when it dials 127.0.0.9 */
        assert_true(w.peers[i].port != 0);
        close(clients[i]);
    }
    close_world(&w);
}

static void test_accept(void **state)
{
    accept_and_close("127.0.0.1:0", "127.0.0.1:1");
    accept_and_close("127.0.0.9:0", "127.0.0.9:1");
}

static void test_accept_any(void **state)
{
    accept_and_close("0.0.0.0:0", "127.0.0.1:1");
}

static void test_accept_v6(void **state)
{
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool has_v6 = fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
    if (fd >= 0)
        close(fd);
    if (!has_v6)
        skip();
    accept_and_close("[::1]:0", "[::1]:1");
    accept_and_close("[::]:0", "[::1]:1");
}

/* Several workers, one address; and [::] beside 0.0.0.0 on one port. */
static void test_shared_port(void **state)
{
    struct listener *a, *b;
    struct endpoint e = at("127.0.0.1:0");
    assert_int_equal(listener_open(&a, &e), 0);
    e = *listener_endpoint(a);
    assert_int_equal(listener_open(&b, &e), 0);
    assert_int_equal(listener_endpoint(b)->port, e.port);
    listener_close(a);
    listener_close(b);
}

static void test_open_errors(void **state)
{
    struct listener *ln;
    struct endpoint e = at("192.0.2.1:0"); /* TEST-NET-1: not ours */
    assert_int_equal(listener_open(&ln, &e), -EADDRNOTAVAIL);
    assert_null(ln);
}

static void test_close_while_waiting(void **state)
{
    struct world w = {0};
    open_world(&w, "127.0.0.1:0");
    listener_start(w.ln, w.l, &ops, &w);
    listener_close(w.ln);
    listener_close(w.ln);
    loop_run(w.l);
    assert_int_equal(w.accepted_count, 0);
    close_world(&w);
}

static struct timer later;
static struct world *later_world;

static void resume_later(struct timer *t)
{
    assert_int_equal(later_world->accepted_count, 1);
    listener_resume(later_world->ln);
}

static void pause_after_first(struct world *w)
{
    if (w->accepted_count == 1) {
        listener_pause(w->ln);
        later_world = w;
        later = (struct timer){.fire = resume_later};
        timer_arm(w->l, &later, 20);
    } else {
        listener_close(w->ln);
    }
}

struct dialler {
    struct timer timer;
    struct world *w;
    int fd;
};

static void dial_now(struct timer *t)
{
    struct dialler *d = container_of(t, struct dialler, timer);
    d->fd = dial(d->w->ln);
}

static void test_pause(void **state)
{
    struct world w = {.accepted = pause_after_first};
    struct dialler second = {.timer.fire = dial_now, .w = &w};
    open_world(&w, "127.0.0.1:0");
    int first = dial(w.ln);
    listener_start(w.ln, w.l, &ops, &w);
    timer_arm(w.l, &second.timer, 8); /* while it is paused */
    loop_run(w.l);
    assert_int_equal(w.accepted_count, 2);
    close(first);
    close(second.fd);
    close_world(&w);
}

static void test_close_paused(void **state)
{
    struct world w = {0};
    open_world(&w, "127.0.0.1:0");
    listener_start(w.ln, w.l, &ops, &w);
    listener_pause(w.ln);
    listener_resume(w.ln);
    listener_pause(w.ln);
    listener_close(w.ln);
    loop_run(w.l);
    close_world(&w);
}

static struct rlimit full_limit;

static void allow_files(struct timer *t)
{
    assert_int_equal(later_world->accepted_count, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &full_limit), 0);
}

/* No descriptor is free: accepting pauses and goes on by itself. */
static void test_out_of_files(void **state)
{
    struct world w = {.want = 1};
    open_world(&w, "127.0.0.1:0");
    int client = dial(w.ln);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &full_limit), 0);
    struct rlimit none = {.rlim_cur = 3, .rlim_max = full_limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    listener_start(w.ln, w.l, &ops, &w);
    later_world = &w;
    later = (struct timer){.fire = allow_files};
    timer_arm(w.l, &later, 30);
    loop_run(w.l);
    assert_int_equal(w.accepted_count, 1);
    close(client);
    close_world(&w);
}

/* With somebody to tell them, those who come then are told, and the next is served once there are files. */
struct crowd {
    struct world w;
    struct timer free_files;
    unsigned told_count;
    int fds[6];
};

static void on_no_files(void *ctx, int fd)
{
    struct crowd *c = container_of((struct world *)ctx, struct crowd, w);
    listener_turn_away(fd, STR("421 4.3.2 Too busy\r\n"));
    if (++c->told_count == COUNT_OF(c->fds))
        timer_arm(c->w.l, &c->free_files, 1);
}

static void assert_told(int fd)
{
    char said[64];
    size_t n = 0;
    for (ssize_t got; n < sizeof said && (got = read(fd, said + n, sizeof said - n)) > 0;)
        n += (size_t)got;
    assert_int_equal(n, 20);
    assert_memory_equal(said, "421 4.3.2 Too busy\r\n", n);
}

static void free_and_dial(struct timer *t)
{
    struct crowd *c = container_of(t, struct crowd, free_files);
    assert_int_equal(c->w.accepted_count, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &full_limit), 0);
    assert_told(c->fds[0]);
    close(c->fds[0]);
    c->fds[0] = dial(c->w.ln);
}

static void allow_one(struct world *w)
{
    listener_close(w->ln);
}

static void test_told_when_out_of_files(void **state)
{
    static const struct listener_ops tells = {
        .accepted = on_accepted, .no_files = on_no_files, .closed = on_closed};
    struct crowd c = {.w.accepted = allow_one, .free_files.fire = free_and_dial};
    open_world(&c.w, "127.0.0.1:0");
    for (unsigned i = 0; i < COUNT_OF(c.fds); i++)
        c.fds[i] = dial(c.w.ln);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &full_limit), 0);
    listener_start(c.w.ln, c.w.l, &tells, &c.w); /* takes its spare descriptor, the lowest that is free */
    int next = dup(0);
    assert_true(next >= 0);
    close(next);
    struct rlimit none = {.rlim_cur = (rlim_t)next, .rlim_max = full_limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    loop_run(c.w.l);
    assert_int_equal(c.told_count, COUNT_OF(c.fds));
    assert_int_equal(c.w.accepted_count, 1);
    for (unsigned i = 1; i < COUNT_OF(c.fds); i++)
        assert_told(c.fds[i]);
    for (unsigned i = 0; i < COUNT_OF(c.fds); i++)
        close(c.fds[i]);
    close_world(&c.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept),       cmocka_unit_test(test_accept_any),
        cmocka_unit_test(test_accept_v6),    cmocka_unit_test(test_shared_port),
        cmocka_unit_test(test_open_errors),  cmocka_unit_test(test_close_while_waiting),
        cmocka_unit_test(test_pause),        cmocka_unit_test(test_close_paused),
        cmocka_unit_test(test_out_of_files), cmocka_unit_test(test_told_when_out_of_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
