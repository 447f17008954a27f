/* Connections over real loopback sockets: both ends are conns of one loop, or one end is a bare socket. */
#include "ends.h"

/* ---- the cases ---- */

static struct end server_end;

static void accepted(void *ctx, int fd, const struct endpoint *peer, const struct endpoint *local)
{
    end_open(&server_end, ctx, fd);
}

static struct listener *echo_listener;

static void listener_closed(void *ctx, struct listener *ln)
{
}

static size_t client_data(struct conn *c, const uint8_t *p, size_t n)
{
    struct end *e = conn_ctx(c);
    look_at(e, p, n);
    e->got += n;
    if (e->got == 10) {
        conn_finish(c, 1000);
        listener_close(echo_listener);
    }
    return n;
}

static void test_accept_and_echo(void **state)
{
    static const struct listener_ops listener_ops = {.accepted = accepted, .closed = listener_closed};
    struct conn_ops client_ops = ops;
    client_ops.data = client_data;
    struct world w;
    make_world(&w, &small);
    struct end client = {0};
    server_end = (struct end){.echo = true, .finish_at_eof = true};
    struct endpoint at;
    assert_int_equal(endpoint_parse(STR("127.0.0.1:0"), &at), 0);
    assert_int_equal(listener_open(&echo_listener, &at), 0);
    at = *listener_endpoint(echo_listener);
    listener_start(echo_listener, w.l, &listener_ops, &w);
    end_init(&client, &w);
    conn_dial(client.c, w.l, &at, NULL, 1000, &client_ops, &client);
    conn_write(client.c, "hello", 5); /* before it is connected */
    conn_write(client.c, "again", 5);
    assert_int_equal(conn_pending_bytes(client.c), 10);
    assert_ptr_equal(conn_loop(client.c), w.l);
    run(&w);
    assert_int_equal(client.connected_count, 1);
    assert_int_equal(client.drained_count, 1);
    assert_memory_equal(client.text, "helloagain", 10);
    assert_int_equal(server_end.got, 10);
    assert_int_equal(server_end.eof_count, 1);
    assert_int_equal(server_end.closed_err, 0);
    assert_int_equal(client.closed_err, 0);
}

static struct conn_ref big_ref;
static unsigned release_count;

static void count_release(struct conn_ref *ref)
{
    assert_ptr_equal(ref, &big_ref);
    release_count++;
}

/* A sender of n bytes by reference and a receiver that behaves as told. */
static void transfer(struct end *receiver, size_t n, const struct loop_options *opt, int send_buffer)
{
    struct world w;
    make_world(&w, opt);
    int fds[2];
    tcp_pair(fds);
    if (send_buffer)
        setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
    struct end sender = {0};
    uint8_t *bytes = pattern_bytes(n);
    big_ref = (struct conn_ref){bytes, n, count_release};
    release_count = 0;
    receiver->check = true;
    receiver->finish_at_eof = true;
    end_open(&sender, &w, fds[0]);
    end_open(receiver, &w, fds[1]);
    conn_write_ref(sender.c, &big_ref);
    conn_finish(sender.c, 60000);
    run(&w);
    assert_int_equal(receiver->got, n);
    assert_int_equal(receiver->eof_count, 1);
    assert_int_equal(receiver->closed_err, 0);
    assert_int_equal(sender.closed_err, 0);
    assert_int_equal(release_count, 1);
    free(bytes);
}

static void test_large_ref(void **state)
{
    struct end r = {0};
    transfer(&r, 6 << 20, &small, 8192);
}

static void test_backpressure(void **state)
{
    struct end refuses = {.refuse = 5}, slow = {.take_max = 5000},
               by_byte = {.take_max = 1, .resume_in_data = true};
    transfer(&refuses, 1 << 20, &small, 0);
    transfer(&slow, 1 << 20, &small, 0);
    transfer(&by_byte, 3000, &small, 0);
    assert_true(slow.data_count > 100);
    assert_int_equal(by_byte.data_count, 3000);
}

/* More connections than receive buffers: ENOBUFS is an episode, not an end. */
static void test_few_buffers(void **state)
{
    enum { N = 24, BYTES = 60000 };
    static const struct loop_options tiny = {
        .entries = 8, .buffer_count = 2, .buffer_bytes = 1024, .cpu = -1};
    struct world w;
    make_world(&w, &tiny);
    static struct end senders[N], receivers[N];
    memset(senders, 0, sizeof senders);
    memset(receivers, 0, sizeof receivers);
    uint8_t *bytes = pattern_bytes(BYTES);
    int64_t before = metric_read(M_loop_nobufs);
    for (unsigned i = 0; i < N; i++) {
        int fds[2];
        tcp_pair(fds);
        receivers[i].check = receivers[i].finish_at_eof = true;
        end_open(&senders[i], &w, fds[0]);
        end_open(&receivers[i], &w, fds[1]);
        conn_write(senders[i].c, bytes, BYTES);
        conn_finish(senders[i].c, 60000);
    }
    run(&w);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(receivers[i].got, BYTES);
        assert_int_equal(receivers[i].closed_err, 0);
    }
    assert_true(metric_read(M_loop_nobufs) > before);
    free(bytes);
}

enum { PIECES = 300 };
static struct conn_ref refs[PIECES];
static unsigned next_release;

static void release_in_order(struct conn_ref *ref)
{
    assert_ptr_equal(ref, &refs[next_release]);
    next_release++;
}

/* Copies and references in turn, empty ones too, far more than one sendmsg takes. */
static void test_order(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    struct end sender = {0}, receiver = {.check = true, .finish_at_eof = true};
    end_open(&sender, &w, fds[0]);
    end_open(&receiver, &w, fds[1]);
    uint8_t *bytes = pattern_bytes(PIECES * 400);
    size_t at = 0;
    next_release = 0;
    for (unsigned i = 0; i < PIECES; i++) {
        size_t copied = (i * 37) % 200, by_ref = i % 5 == 0 ? 0 : (i * 53) % 200;
        conn_write(sender.c, bytes + at, copied);
        at += copied;
        refs[i] = (struct conn_ref){bytes + at, by_ref, release_in_order};
        conn_write_ref(sender.c, &refs[i]);
        at += by_ref;
        assert_int_equal(conn_pending_bytes(sender.c), at);
    }
    conn_finish(sender.c, 60000);
    run(&w);
    assert_int_equal(receiver.got, at);
    assert_int_equal(next_release, PIECES);
    free(bytes);
}

static struct end *release_closes;

static void close_in_release(struct conn_ref *ref)
{
    release_count++;
    if (release_closes) {
        conn_close(release_closes->c, -EBADMSG);
        conn_write(release_closes->c, "late", 4); /* dropped */
    }
}

static void test_close_in_callbacks(void **state)
{
    static const enum event events[] = {AT_DATA, AT_EOF, AT_DRAINED, AT_RELEASE};
    for (size_t i = 0; i < COUNT_OF(events); i++) {
        struct world w;
        make_world(&w, &small);
        int fds[2];
        tcp_pair(fds);
        send_all(fds[0], "abc", 3);
        shutdown(fds[0], SHUT_WR);
        struct end e = {.close_at = events[i]};
        end_open(&e, &w, fds[1]);
        release_count = 0;
        release_closes = events[i] == AT_RELEASE ? &e : NULL;
        struct conn_ref first = {"ref", 3, close_in_release}, second = {"second", 6, close_in_release};
        conn_write(e.c, "x", 1);
        conn_write_ref(e.c, &first);
        conn_write_ref(e.c, &second);
        run(&w);
        assert_int_equal(e.closed_err, -EBADMSG);
        assert_int_equal(e.closed_count, 1);
        assert_int_equal(release_count, 2);
        close(fds[0]);
    }
}

static void test_close_when_connected(void **state)
{
    struct world w;
    make_world(&w, &small);
    struct endpoint at;
    int listener = bare_listener(&at, 4); /* the kernel completes the handshake, nobody accepts */
    struct end e = {.close_at = AT_CONNECTED}, before = {0};
    end_dial(&e, &w, &at, 1000);
    end_dial(&before, &w, &at, 1000);
    conn_close(before.c, ERR_CLOSED); /* while the connect is in flight */
    conn_close(before.c, -EIO);       /* the first reason stands */
    run(&w);
    assert_int_equal(e.connected_count, 1);
    assert_int_equal(e.closed_err, -EBADMSG);
    assert_int_equal(before.closed_err, ERR_CLOSED);
    close(listener);
}

/* A reference given to a connection that is closing is released all the same, from the loop. */
static void test_write_after_close(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    struct end e = {0};
    end_open(&e, &w, fds[1]);
    conn_close(e.c, 0);
    conn_write(e.c, "x", 1);
    big_ref = (struct conn_ref){"ref", 3, count_release};
    release_count = 0;
    conn_write_ref(e.c, &big_ref);
    assert_int_equal(release_count, 0);
    run(&w);
    assert_int_equal(release_count, 1);
    char buf[8];
    assert_int_equal(recv(fds[0], buf, sizeof buf, 0), 0);
    close(fds[0]);
}

static void test_dial_refused(void **state)
{
    struct world w;
    make_world(&w, &small);
    struct endpoint at;
    int bound = bare_listener(&at, -1); /* ours, so that nobody listens there */
    struct end e = {0};
    end_dial(&e, &w, &at, 1000);
    run(&w);
    assert_int_equal(e.connected_count, 0);
    assert_int_equal(e.closed_err, -ECONNREFUSED);
    close(bound);
}

/* A backlog of 0 holds one connection; the kernel drops the next SYN. */
static void test_dial_timeout(void **state)
{
    struct world w;
    make_world(&w, &small);
    struct endpoint at;
    int listener = bare_listener(&at, 0);
    int first = bare_connect(&at);
    struct end e = {0};
    end_dial(&e, &w, &at, 30);
    run(&w);
    assert_int_equal(e.connected_count, 0);
    assert_int_equal(e.closed_err, ERR_TIMEOUT);
    close(first);
    close(listener);
}

static void test_dial_from(void **state)
{
    struct world w;
    make_world(&w, &small);
    struct endpoint at, from, not_ours;
    int listener = bare_listener(&at, 4);
    assert_int_equal(endpoint_parse(STR("127.0.0.77:0"), &from), 0);
    assert_int_equal(endpoint_parse(STR("192.0.2.1:0"), &not_ours), 0);
    struct end good = {.close_at = AT_CONNECTED}, bad = {0};
    end_init(&good, &w);
    conn_dial(good.c, w.l, &at, &from, 1000, &ops, &good);
    end_init(&bad, &w);
    conn_dial(bad.c, w.l, &at, &not_ours, 1000, &ops, &bad);
    assert_int_equal(bad.closed_count, 0); /* never from inside the call */
    run(&w);
    assert_int_equal(good.connected_count, 1);
    assert_int_equal(bad.closed_err, -EADDRNOTAVAIL);
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    int fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);
    assert_int_equal(ntohl(peer.sin_addr.s_addr), INADDR_LOOPBACK + 76);
    close(fd);
    close(listener);
}

static void test_reset(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    struct end e = {0};
    end_open(&e, &w, fds[1]);
    struct linger hard = {1, 0};
    setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fds[0]);
    run(&w);
    assert_int_equal(e.closed_err, -ECONNRESET);
    assert_int_equal(e.eof_count, 0);
}

/* All data comes before eof, even if the owner takes its time. */
static void test_eof_after_data(void **state)
{
    for (unsigned refuse = 0; refuse < 3; refuse++) {
        struct world w;
        make_world(&w, &small);
        int fds[2];
        tcp_pair(fds);
        send_all(fds[0], "abc", 3);
        shutdown(fds[0], SHUT_WR);
        struct end e = {.refuse = refuse, .finish_at_eof = true};
        end_open(&e, &w, fds[1]);
        run(&w);
        assert_int_equal(e.got, 3);
        assert_int_equal(e.eof_count, 1);
        assert_int_equal(e.closed_err, 0);
        close(fds[0]);
    }
}

/* conn_pause() from outside holds data and eof back. */
static void test_pause(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    send_all(fds[0], "abc", 3);
    shutdown(fds[0], SHUT_WR);
    struct end e = {.paused = true, .finish_at_eof = true};
    end_open(&e, &w, fds[1]);
    conn_pause(e.c);
    conn_resume(e.c);
    conn_pause(e.c); /* the last word counts */
    timer_arm(w.l, &e.timer, 20);
    run(&w);
    assert_int_equal(e.got, 3);
    assert_int_equal(e.eof_count, 1);
    close(fds[0]);
}

/* The last reply reaches a peer whose bytes we have not read: no reset destroys it. */
static void test_finish(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    uint8_t *junk = pattern_bytes(100000);
    send_all(fds[0], junk, 100000);
    struct end e = {.refuse = 1, .finish_at = 0};
    end_open(&e, &w, fds[1]);
    conn_write(e.c, "221 bye\r\n", 9);
    conn_finish(e.c, 30); /* the peer never hangs up */
    assert_true(conn_closing(e.c));
    conn_write(e.c, "too late", 8);
    run(&w);
    assert_int_equal(e.data_count, 0);
    assert_int_equal(e.closed_err, 0);
    char buf[64];
    assert_int_equal(recv(fds[0], buf, sizeof buf, 0), 9);
    assert_memory_equal(buf, "221 bye\r\n", 9);
    assert_int_equal(recv(fds[0], buf, sizeof buf, 0), 0);
    close(fds[0]);
    free(junk);
}

/* A peer that has taken its leave is not waited for: ends although it does not hang up (the test's own time
 * limit would show), and without a reset. */
static void test_part(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    struct end e = {0};
    end_open(&e, &w, fds[1]);
    conn_write(e.c, "221 bye\r\n", 9);
    conn_part(e.c, 24 * 3600 * 1000);
    assert_true(conn_closing(e.c));
    run(&w);
    assert_int_equal(e.closed_err, 0);
    char buf[64];
    assert_int_equal(recv(fds[0], buf, sizeof buf, 0), 9);
    assert_memory_equal(buf, "221 bye\r\n", 9);
    assert_int_equal(recv(fds[0], buf, sizeof buf, 0), 0);
    close(fds[0]);
}

static void test_finish_in_data(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    send_all(fds[0], "QUIT\r\nmore", 10);
    shutdown(fds[0], SHUT_WR);
    struct end e = {.take_max = 6, .finish_at = 6, .resume_in_data = true};
    end_open(&e, &w, fds[1]);
    run(&w);
    assert_int_equal(e.got, 6);
    assert_int_equal(e.data_count, 1);
    assert_int_equal(e.eof_count, 0);
    assert_int_equal(e.closed_err, 0);
    close(fds[0]);
}

/* The peer takes nothing: the output does not leave, the time is up. */
static void test_finish_stuck(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    size_t n = 32 << 20;
    uint8_t *bytes = pattern_bytes(n);
    big_ref = (struct conn_ref){bytes, n, count_release};
    release_count = 0;
    struct end e = {0};
    end_open(&e, &w, fds[1]);
    conn_write_ref(e.c, &big_ref);
    conn_finish(e.c, 30);
    run(&w);
    assert_int_equal(e.closed_err, ERR_TIMEOUT);
    assert_int_equal(release_count, 1);
    close(fds[0]);
    free(bytes);
}

/* Copied output that nobody takes is bounded. */
static void test_output_limit(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    struct end e = {0};
    end_open(&e, &w, fds[1]);
    char block[1000] = {0};
    unsigned count = 0;
    while (!conn_closing(e.c)) {
        conn_write(e.c, block, sizeof block);
        count++;
    }
    assert_int_equal(count, (1 << 20) / 1000 + 1);
    run(&w);
    assert_int_equal(e.closed_err, ERR_LIMIT);
    close(fds[0]);
}

struct last_words {
    struct timer timer;
    struct end *e;
    int peer;
};

/* The peer says why it hangs up and resets; our write fails, its words are still read. */
static void hang_up(struct timer *t)
{
    struct last_words *lw = container_of(t, struct last_words, timer);
    send_all(lw->peer, "421 busy\r\n", 10);
    close(lw->peer); /* with our bytes unread: RST */
    conn_write(lw->e->c, "MAIL FROM:<>\r\n", 14);
}

static void test_last_words(void **state)
{
    struct world w;
    make_world(&w, &small);
    int fds[2];
    tcp_pair(fds);
    struct end e = {0};
    end_open(&e, &w, fds[1]);
    conn_write(e.c, "EHLO x\r\n", 8);
    struct last_words lw = {.timer.fire = hang_up, .e = &e, .peer = fds[0]};
    timer_arm(w.l, &lw.timer, 10);
    run(&w);
    assert_int_equal(e.closed_count, 1);
    assert_int_not_equal(e.closed_err, 0);
    assert_memory_equal(e.text, "421 busy\r\n", 10);
}

static void test_size(void **state)
{
    assert_true(conn_size() <= 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept_and_echo),
        cmocka_unit_test(test_large_ref),
        cmocka_unit_test(test_backpressure),
        cmocka_unit_test(test_few_buffers),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_close_in_callbacks),
        cmocka_unit_test(test_close_when_connected),
        cmocka_unit_test(test_write_after_close),
        cmocka_unit_test(test_dial_refused),
        cmocka_unit_test(test_dial_timeout),
        cmocka_unit_test(test_dial_from),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_eof_after_data),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_finish),
        cmocka_unit_test(test_part),
        cmocka_unit_test(test_finish_in_data),
        cmocka_unit_test(test_finish_stuck),
        cmocka_unit_test(test_output_limit),
        cmocka_unit_test(test_last_words),
        cmocka_unit_test(test_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
