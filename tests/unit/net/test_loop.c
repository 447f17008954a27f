/* Loops: mail between threads, hooks, timers, operations, cancellation, provided buffers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/metrics.h"
#include "net/loop.h"

static struct loop *make_loop(const struct loop_options *opt)
{
    struct loop *l;
    err_t err = loop_create(&l, opt);
    if (err)
        print_message("%s\n", loop_create_hint(err));
    assert_int_equal(err, 0);
    return l;
}

static const struct loop_options small = {.entries = 8, .buffer_count = 4, .buffer_bytes = 1024, .cpu = -1};

/* The newest ring of this process. */
static int ring_fd(void)
{
    for (int fd = 1023; fd >= 0; fd--) {
        char path[64], link[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, link, sizeof link - 1) > 0 && strstr(link, "[io_uring]"))
            return fd;
    }
    return -1;
}

/* Nothing can be added to a ring that runs: its restrictions are in force, for operations and for this. */
static void test_restricted(void **state)
{
    enum { REGISTER_FILES = 2, REGISTER_EVENTFD = 4 };
    struct loop *l = make_loop(&small);
    int fd = ring_fd(), none = -1;
    assert_true(fd >= 0);
    assert_true(loop_features(l)->restricted);
    loop_stop(l);
    loop_run(l);
    for (unsigned what = REGISTER_FILES; what <= REGISTER_EVENTFD; what += 2) {
        errno = 0;
        assert_int_equal(syscall(SYS_io_uring_register, fd, what, &none, 1), -1);
        assert_int_equal(errno, EACCES);
    }
    loop_destroy(l);
}

static void test_create_destroy(void **state)
{
    struct loop *l = make_loop(&small);
    assert_null(loop_current());
    assert_true(loop_features(l)->buffer_ring);
    int x;
    loop_set_data(l, 3, &x);
    assert_ptr_equal(loop_data(l, 3), &x);
    assert_null(loop_data(l, 4));
    loop_destroy(l); /* never run */
}

static void test_hints(void **state)
{
    static const err_t errs[] = {-ENOSYS, -EPERM, -ENOMEM, -EINVAL, ERR_UNSUPPORTED, -EMFILE, -EIO};
    for (size_t i = 0; i < COUNT_OF(errs); i++)
        assert_true(strlen(loop_create_hint(errs[i])) > 5);
}

/* ---- mail ---- */

struct note {
    struct mail mail;
    struct loop *to;
    unsigned *count, stop_at;
};

static void note_deliver(struct mail *m)
{
    struct note *n = container_of(m, struct note, mail);
    assert_ptr_equal(loop_current(), n->to);
    if (++*n->count == n->stop_at)
        loop_stop(n->to);
}

static void test_post_before_run(void **state)
{
    struct loop *l = make_loop(&small);
    unsigned count = 0;
    struct note notes[3];
    for (unsigned i = 0; i < 3; i++) {
        notes[i] = (struct note){.mail.deliver = note_deliver, .to = l, .count = &count, .stop_at = 3};
        loop_post(l, &notes[i].mail);
    }
    loop_run(l);
    assert_int_equal(count, 3);
    loop_destroy(l);
}

static void test_stop_delivers_what_was_posted(void **state)
{
    struct loop *l = make_loop(&small);
    unsigned count = 0;
    struct note n = {.mail.deliver = note_deliver, .to = l, .count = &count};
    loop_post(l, &n.mail);
    loop_stop(l);
    loop_run(l);
    assert_int_equal(count, 1);
    loop_destroy(l);
}

enum { SENDERS = 3, NOTES_EACH = 3000 };

struct sender {
    pthread_t thread;
    struct note notes[NOTES_EACH];
};

static void *sender_main(void *arg)
{
    struct sender *s = arg;
    for (unsigned i = 0; i < NOTES_EACH; i++)
        loop_post(s->notes[i].to, &s->notes[i].mail);
    return NULL;
}

/* Threads without a loop; more than the mailbox holds. */
static void test_post_from_threads(void **state)
{
    struct loop *l = make_loop(&small);
    static struct sender senders[SENDERS];
    unsigned count = 0;
    for (unsigned s = 0; s < SENDERS; s++) {
        for (unsigned i = 0; i < NOTES_EACH; i++)
            senders[s].notes[i] = (struct note){
                .mail.deliver = note_deliver, .to = l, .count = &count, .stop_at = SENDERS * NOTES_EACH};
        assert_int_equal(pthread_create(&senders[s].thread, NULL, sender_main, &senders[s]), 0);
    }
    loop_run(l);
    for (unsigned s = 0; s < SENDERS; s++)
        pthread_join(senders[s].thread, NULL);
    assert_int_equal(count, SENDERS * NOTES_EACH);
    loop_destroy(l);
}

struct ball {
    struct mail mail;
    struct loop *loops[2];
    unsigned hits;
};

static void ball_deliver(struct mail *m)
{
    struct ball *b = container_of(m, struct ball, mail);
    assert_ptr_equal(loop_current(), b->loops[b->hits % 2]);
    if (++b->hits < 2000) {
        loop_post(b->loops[b->hits % 2], m);
    } else {
        loop_stop(b->loops[0]);
        loop_stop(b->loops[1]);
    }
}

static void *run_main(void *arg)
{
    loop_run(arg);
    return NULL;
}

static void test_ping_pong(void **state)
{
    struct ball b = {.mail.deliver = ball_deliver};
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++)
        b.loops[i] = make_loop(&small);
    loop_post(b.loops[0], &b.mail);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_main, b.loops[i]), 0);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(b.hits, 2000);
    for (unsigned i = 0; i < 2; i++)
        loop_destroy(b.loops[i]);
}

static void self_deliver(struct mail *m)
{
    struct ball *b = container_of(m, struct ball, mail);
    if (++b->hits < 100)
        loop_post(b->loops[0], m);
    else
        loop_stop(b->loops[0]);
}

static void test_post_to_self(void **state)
{
    struct ball b = {.mail.deliver = self_deliver};
    b.loops[0] = make_loop(&small);
    loop_post(b.loops[0], &b.mail);
    loop_run(b.loops[0]);
    assert_int_equal(b.hits, 100);
    loop_destroy(b.loops[0]);
}

/* ---- hooks and timers ---- */

struct hook {
    struct tick_hook hook;
    struct loop *l;
    struct hook *next;
    unsigned runs;
};

static void hook_run(struct tick_hook *h)
{
    struct hook *k = container_of(h, struct hook, hook);
    k->runs++;
    if (k->next)
        loop_at_tick_end(k->l, &k->next->hook);
    else
        loop_stop(k->l);
}

static void test_hooks(void **state)
{
    struct loop *l = make_loop(&small);
    struct hook chain[10] = {0};
    for (unsigned i = 0; i < 10; i++)
        chain[i] = (struct hook){.hook.run = hook_run, .l = l, .next = i < 9 ? &chain[i + 1] : NULL};
    loop_at_tick_end(l, &chain[0].hook);
    loop_at_tick_end(l, &chain[0].hook);
    loop_run(l);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(chain[i].runs, 1);
    loop_destroy(l);
}

struct alarm {
    struct timer timer;
    struct loop *l;
    uint64_t after_ms, start_ns;
    unsigned *order, rank;
};

static void alarm_fire(struct timer *t)
{
    struct alarm *a = container_of(t, struct alarm, timer);
    assert_true(clock_mono_ns() - a->start_ns >= a->after_ms * NS_PER_MS);
    assert_int_equal(*a->order, a->rank);
    if (++*a->order == 4)
        loop_stop(a->l);
}

static void test_timers(void **state)
{
    static const struct {
        uint64_t after_ms;
        unsigned rank;
    } cases[] = {{70, 3}, {0, 0}, {40, 2}, {12, 1}};
    struct loop *l = make_loop(&small);
    unsigned order = 0;
    struct alarm alarms[4], never = {.timer.fire = alarm_fire};
    for (unsigned i = 0; i < 4; i++) {
        alarms[i] = (struct alarm){.timer.fire = alarm_fire,
                                   .l = l,
                                   .after_ms = cases[i].after_ms,
                                   .rank = cases[i].rank,
                                   .order = &order,
                                   .start_ns = loop_now_ns(l)};
        timer_arm(l, &alarms[i].timer, cases[i].after_ms);
    }
    timer_arm(l, &never.timer, 20);
    timer_disarm(l, &never.timer);
    loop_run(l);
    assert_int_equal(order, 4);
    loop_destroy(l);
}

/* ---- operations ---- */

struct call {
    struct op op;
    struct loop *l;
    int32_t res;
    unsigned done_count, *left;
    int fd;
};

static void call_done(struct op *op, int32_t res, uint32_t flags, bool more)
{
    struct call *k = container_of(op, struct call, op);
    assert_false(more);
    assert_int_equal(op->inflight, 0);
    k->res = res;
    k->done_count++;
    if (--*k->left == 0)
        loop_stop(k->l);
}

static struct call make_call(struct loop *l, unsigned *left)
{
    return (struct call){.op.done = call_done, .l = l, .left = left, .res = INT32_MIN};
}

static void test_cancel(void **state)
{
    struct loop *l = make_loop(&small);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    unsigned left = 3;
    char buf[8];
    struct call recv1 = make_call(l, &left), recv2 = make_call(l, &left), poll1 = make_call(l, &left);
    op_recv(l, &recv1.op, fds[0], buf, sizeof buf);
    op_recv(l, &recv2.op, fds[1], buf, sizeof buf);
    op_poll(l, &poll1.op, fds[1], POLLIN);
    assert_int_equal(recv1.op.inflight, 1);
    op_cancel(l, &recv1.op);
    op_cancel_fd(l, fds[1]);
    loop_run(l);
    assert_int_equal(recv1.res, -ECANCELED);
    assert_int_equal(recv2.res, -ECANCELED);
    assert_int_equal(poll1.res, -ECANCELED);
    op_cancel(l, &recv1.op); /* nothing in flight: no effect */
    close(fds[0]);
    close(fds[1]);
    loop_destroy(l);
}

/* Far more than the submission ring holds, from one place. */
static void test_full_submission_ring(void **state)
{
    enum { N = 500 };
    struct loop *l = make_loop(&small);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    static struct call calls[N];
    unsigned left = N;
    for (unsigned i = 0; i < N; i++) {
        calls[i] = make_call(l, &left);
        op_poll(l, &calls[i].op, fds[0], POLLOUT);
    }
    loop_run(l);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(calls[i].done_count, 1);
        assert_int_equal(calls[i].res, POLLOUT);
    }
    close(fds[0]);
    close(fds[1]);
    loop_destroy(l);
}

/* More connects than addresses are kept; the caller's address goes out of scope at once. */
static void test_connects(void **state)
{
    enum { N = 150 };
    struct loop *l = make_loop(&small);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(listener, 512), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    static struct call calls[N];
    unsigned left = N;
    for (unsigned i = 0; i < N; i++) {
        calls[i] = make_call(l, &left);
        calls[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_true(calls[i].fd >= 0);
        struct sockaddr_in copy = at;
        op_connect(l, &calls[i].op, calls[i].fd, (struct sockaddr *)&copy, sizeof copy);
        memset(&copy, 0xff, sizeof copy);
    }
    loop_run(l);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(calls[i].res, 0);
        close(calls[i].fd);
    }
    close(listener);
    loop_destroy(l);
}

struct file_test {
    struct op op;
    struct loop *l;
    int fd;
    unsigned step;
    struct iovec out[2], in;
    char buf[16];
};

static void file_step(struct op *op, int32_t res, uint32_t flags, bool more)
{
    struct file_test *t = container_of(op, struct file_test, op);
    switch (t->step++) {
    case 0:
        assert_int_equal(res, 10);
        op_fdatasync(t->l, op, t->fd);
        break;
    case 1:
        assert_int_equal(res, 0);
        op_readv(t->l, op, t->fd, &t->in, 1, 3);
        break;
    case 2:
        assert_int_equal(res, 7);
        assert_memory_equal(t->buf, "lo-ring", 7);
        op_close(t->l, op, t->fd);
        break;
    default: assert_int_equal(res, 0); loop_stop(t->l);
    }
}

static void test_file(void **state)
{
    char hello[] = "hello", ring[] = "-ring", dir[] = "/tmp/test_loop.XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
    struct file_test t = {.op.done = file_step, .l = make_loop(&small)};
    t.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(t.fd >= 0);
    t.out[0] = (struct iovec){hello, 5};
    t.out[1] = (struct iovec){ring, 5};
    t.in = (struct iovec){t.buf, sizeof t.buf};
    op_writev(t.l, &t.op, t.fd, t.out, 2, 0, RWF_DSYNC);
    loop_run(t.l);
    assert_int_equal(t.step, 4);
    assert_int_equal(fcntl(t.fd, F_GETFD), -1);
    loop_destroy(t.l);
    unlink(path);
    rmdir(dir);
}

/* ---- provided buffers ---- */

struct stream {
    struct op op;
    struct loop *l;
    int fd, peer;
    size_t n, nobufs;
    uint16_t held[8];
    unsigned held_count;
    bool hold, eof;
    uint8_t next;
};

static void stream_done(struct op *op, int32_t res, uint32_t flags, bool more)
{
    struct stream *s = container_of(op, struct stream, op);
    if (res > 0) {
        struct rbuf b = loop_buffer(s->l, res, flags);
        for (uint32_t i = 0; i < b.n; i++)
            assert_int_equal(b.p[i], s->next++);
        s->n += b.n;
        if (s->hold)
            s->held[s->held_count++] = b.id;
        else
            loop_buffer_return(s->l, b.id);
    } else if (res == -ENOBUFS) {
        assert_false(more);
        s->nobufs++;
        s->hold = false;
        while (s->held_count > 0)
            loop_buffer_return(s->l, s->held[--s->held_count]);
    } else {
        assert_int_equal(res, 0);
        s->eof = true;
        loop_stop(s->l);
        return;
    }
    if (!more)
        op_recv_multishot(s->l, op, s->fd);
}

static void test_recv_multishot(void **state)
{
    static uint8_t data[20000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct stream s = {.op.done = stream_done, .fd = fds[0], .hold = true};
    s.l = make_loop(&small);
    assert_int_equal(send(fds[1], data, sizeof data, 0), sizeof data);
    shutdown(fds[1], SHUT_WR);
    int64_t before = metric_read(M_loop_nobufs);
    op_recv_multishot(s.l, &s.op, s.fd);
    loop_run(s.l);
    assert_true(s.eof);
    assert_int_equal(s.n, sizeof data);
    assert_true(s.nobufs >= 1); /* four buffers of 1 KiB were held */
    assert_true(metric_read(M_loop_nobufs) - before >= 1);
    assert_true(metric_read(M_loop_ticks) > 0 && metric_read(M_loop_cqes) > 0 &&
                metric_read(M_loop_sqes) > 0);
    close(fds[0]);
    close(fds[1]);
    loop_destroy(s.l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_destroy),
        cmocka_unit_test(test_restricted),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_post_before_run),
        cmocka_unit_test(test_stop_delivers_what_was_posted),
        cmocka_unit_test(test_post_from_threads),
        cmocka_unit_test(test_ping_pong),
        cmocka_unit_test(test_post_to_self),
        cmocka_unit_test(test_hooks),
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_full_submission_ring),
        cmocka_unit_test(test_connects),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_recv_multishot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
