/* tests/unit/core/test_log.c: the writer thread, levels, slow and broken readers; with real threads. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/log.h"
#include "core/metrics.h"
#include "unit.h"

static char text[4 << 20];

/* What was written to a memory file, as text. */
static str_t contents(int fd)
{
    ssize_t n = pread(fd, text, sizeof text, 0);
    assert_true(n >= 0 && (size_t)n < sizeof text);
    return str_of(text, (size_t)n);
}

static int memory_file(void)
{
    int fd = memfd_create("log", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static size_t count_of(str_t s, const char *needle)
{
    size_t count = 0, n = strlen(needle);
    for (const char *at = s.p; (at = memmem(at, s.n - (size_t)(at - s.p), needle, n)) != NULL; at += n)
        count++;
    return count;
}

static void levels_and_reload(void **state)
{
    int fd = memory_file();
    assert_int_equal(log_start(fd, LOG_LOGFMT, LOG_INFO), 0);
    LOG(dns, LF_CSTR("name", "debug is off"));
    LOG(rcpt, LF_CSTR("to", "a@example.com"));
    LOG(drain);
    log_set(LOG_JSON, LOG_WARN);
    LOG(rcpt, LF_CSTR("to", "info is off"));
    LOG(internal, LF_CSTR("text", "x"));
    log_stop();
    str_t s = contents(fd);
    assert_int_equal(count_of(s, "\n"), 3);
    assert_int_equal(count_of(s, " level=info event=rcpt to=a@example.com\n"), 1);
    assert_int_equal(count_of(s, " level=notice event=drain\n"), 1);
    assert_int_equal(count_of(s, ",\"level\":\"error\",\"event\":\"internal\",\"text\":\"x\"}\n"), 1);
    close(fd);
    log_stop(); /* without effect */
}

static void without_writer_to_stderr(void **state)
{
    int fd = memory_file(), saved = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    log_set(LOG_LOGFMT, LOG_INFO);
    LOG(boot_failed, LF_CSTR("text", "early"));
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_int_equal(count_of(contents(fd), "level=error event=boot_failed text=early\n"), 1);
    close(fd);
}

#define THREAD_COUNT 6 /* at a time */
#define ROUND_COUNT  2 /* the second takes over the rings of the first */
/* Of a thread. Those of all fit one ring, which each may be given after another: none may be dropped. */
#define LINE_COUNT 300

static void *emit_many(void *arg)
{
    for (uint64_t i = 0; i < LINE_COUNT; i++)
        LOG(rcpt, LF_U64("thread", (uintptr_t)arg), LF_U64("n", i));
    return NULL;
}

static void threads_keep_their_order(void **state)
{
    int fd = memory_file();
    assert_int_equal(log_start(fd, LOG_LOGFMT, LOG_INFO), 0);
    for (uintptr_t round = 0; round < ROUND_COUNT; round++) {
        pthread_t threads[THREAD_COUNT];
        for (uintptr_t i = 0; i < THREAD_COUNT; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, emit_many, (void *)(round * THREAD_COUNT + i)),
                             0);
        for (size_t i = 0; i < THREAD_COUNT; i++)
            pthread_join(threads[i], NULL);
    }
    log_stop();
    assert_int_equal(log_dropped_count(), 0);

    uint64_t next[ROUND_COUNT * THREAD_COUNT] = {0}, line_count = 0;
    str_t line, rest = contents(fd);
    while (str_cut(rest, '\n', &line, &rest)) {
        const char *at = memmem(line.p, line.n, " thread=", 8);
        assert_non_null(at);
        unsigned long thread, n;
        assert_int_equal(sscanf(at, " thread=%lu n=%lu\n", &thread, &n), 2);
        assert_true(thread < COUNT_OF(next));
        assert_int_equal(n, next[thread]);
        next[thread]++;
        line_count++;
    }
    assert_int_equal(line_count, ROUND_COUNT * THREAD_COUNT * LINE_COUNT);
    close(fd);
}

/* Reads one line from a pipe. */
static str_t read_line(int fd)
{
    size_t n = 0;
    do {
        ssize_t got = read(fd, text + n, 1);
        assert_int_equal(got, 1);
    } while (text[n++] != '\n');
    return str_of(text, n);
}

static void writer_wakes_for_single_lines(void **state)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(log_start(fds[1], LOG_LOGFMT, LOG_INFO), 0);
    for (uint64_t i = 0; i < 10; i++) {
        char expected[32];
        snprintf(expected, sizeof expected, " n=%d\n", (int)i);
        LOG(rcpt, LF_U64("n", i));
        assert_true(str_ends(read_line(fds[0]), str_cstr(expected)));
        struct pollfd p = {.fd = fds[0], .events = POLLIN};
        assert_int_equal(poll(&p, 1, 12), 0); /* nothing else comes; most times the writer falls asleep */
    }
    log_stop();
    close(fds[0]);
    close(fds[1]);
}

static void *drain_pipe(void *arg)
{
    int fd = *(int *)arg;
    size_t n = 0;
    for (ssize_t got; (got = read(fd, text + n, sizeof text - n)) > 0;)
        n += (size_t)got;
    *(int *)arg = (int)n;
    return NULL;
}

static void slow_reader_drops_and_counts(void **state)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(log_start(fds[1], LOG_LOGFMT, LOG_INFO), 0);
    uint64_t before = log_dropped_count();
    int64_t metric_before = metric_read(M_log_dropped);
    uint64_t emitted = 0;
    while (log_dropped_count() == before) { /* the pipe and the ring fill, then lines go */
        LOG(rcpt, LF_U64("n", emitted));
        emitted++;
    }
    uint64_t dropped = log_dropped_count() - before;
    pthread_t reader;
    int fd_then_bytes = fds[0];
    assert_int_equal(pthread_create(&reader, NULL, drain_pipe, &fd_then_bytes), 0);
    log_stop();
    close(fds[1]);
    pthread_join(reader, NULL);
    close(fds[0]);

    str_t s = str_of(text, (size_t)fd_then_bytes);
    assert_int_equal(count_of(s, " event=rcpt "), emitted - dropped);
    char expected[64];
    snprintf(expected, sizeof expected, " level=warn event=log_dropped count=%llu\n",
             (unsigned long long)dropped);
    assert_int_equal(count_of(s, expected), 1);
    assert_int_equal(metric_read(M_log_dropped) - metric_before, dropped);
}

static void broken_reader_is_survived(void **state)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    uint64_t before = log_dropped_count();
    assert_int_equal(log_start(fds[1], LOG_LOGFMT, LOG_INFO), 0);
    LOG(rcpt, LF_U64("n", 1)); /* EPIPE, and no SIGPIPE */
    LOG(rcpt, LF_U64("n", 2));
    log_stop();
    assert_int_equal(log_dropped_count() - before, 2);
    close(fds[1]);

    /* The next log tells of the loss. */
    int fd = memory_file();
    assert_int_equal(log_start(fd, LOG_LOGFMT, LOG_INFO), 0);
    LOG(rcpt, LF_U64("n", 3));
    log_stop();
    str_t s = contents(fd);
    assert_int_equal(count_of(s, " event=rcpt n=3\n"), 1);
    assert_int_equal(count_of(s, " event=log_dropped count=2\n"), 1);
    close(fd);
}

/* A full disk cuts a line in two: the next one does not continue it. */
static void torn_line_is_ended(void **state)
{
    int fd = memory_file();
    /* Ten bytes of room. */
    char page[4096];
    memset(page, '-', sizeof page);
    assert_int_equal(write(fd, page, sizeof page - 10), sizeof page - 10);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit small = {sizeof page, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(log_start(fd, LOG_LOGFMT, LOG_INFO), 0);
    LOG(rcpt, LF_U64("n", 1)); /* ten bytes of it, then EFBIG */
    log_stop();
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(log_start(fd, LOG_LOGFMT, LOG_INFO), 0);
    LOG(rcpt, LF_U64("n", 2));
    log_stop();
    str_t s = contents(fd);
    assert_true(s.n > sizeof page);
    assert_memory_equal(s.p + sizeof page - 10, "ts=", 3);
    assert_int_equal(s.p[sizeof page], '\n');
    assert_int_equal(count_of(s, "\nts="), 2);
    assert_int_equal(count_of(s, " event=rcpt n=2\n"), 1);
    assert_int_equal(count_of(s, " event=log_dropped count=1\n"), 1);
    close(fd);
}

static void non_blocking_pipe_is_waited_for(void **state)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, 0), 0);
    uint64_t before = log_dropped_count();
    assert_int_equal(log_start(fds[1], LOG_LOGFMT, LOG_INFO), 0);
    for (uint64_t i = 0; i < 2000; i++) /* more than a pipe holds, less than the ring */
        LOG(rcpt, LF_U64("n", i));
    pthread_t reader;
    int fd_then_bytes = fds[0];
    assert_int_equal(pthread_create(&reader, NULL, drain_pipe, &fd_then_bytes), 0);
    log_stop();
    close(fds[1]);
    pthread_join(reader, NULL);
    close(fds[0]);
    assert_int_equal(log_dropped_count(), before);
    assert_int_equal(count_of(str_of(text, (size_t)fd_then_bytes), " event=rcpt n="), 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_and_reload),
        cmocka_unit_test(without_writer_to_stderr),
        cmocka_unit_test(threads_keep_their_order),
        cmocka_unit_test(writer_wakes_for_single_lines),
        cmocka_unit_test(slow_reader_drops_and_counts),
        cmocka_unit_test(broken_reader_is_survived),
        cmocka_unit_test(torn_line_is_ended),
        cmocka_unit_test(non_blocking_pipe_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
