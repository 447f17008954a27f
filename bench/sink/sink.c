/* bench/sink/sink.c: postern-sink: an SMTP or LMTP server that takes mail, counts it, and keeps it if asked
 * to. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/sink/sink_priv.h"
#include "core/log.h"

static _Atomic uint64_t taken_count;

void sink_message_taken(struct sink_thread *t)
{
    sink_count(&t->n.messages, 1);
    if (t->opt->exit_after && ++taken_count == t->opt->exit_after)
        (void)kill(getpid(), SIGTERM);
}

static void accepted(void *ctx, int fd, const struct endpoint *peer, const struct endpoint *local)
{
    (void)local;
    sink_accept(ctx, fd, peer);
}

static void listener_gone(void *ctx, struct listener *ln)
{
    (void)ctx, (void)ln;
}

struct starter {
    struct mail mail;
    struct sink_thread *t;
};

static void start_listening(struct mail *m)
{
    static const struct listener_ops ops = {.accepted = accepted, .closed = listener_gone};
    struct starter *s = container_of(m, struct starter, mail);
    listener_start(s->t->listener, s->t->loop, &ops, s->t);
}

static void *thread_main(void *arg)
{
    struct sink_thread *t = arg;
    loop_run(t->loop);
    return NULL;
}

static int open_thread(struct sink_thread *t, const struct sink_options *o, unsigned index)
{
    struct loop_options lo = {.cpu = -1, .name = "postern-sink"};
    *t = (struct sink_thread){.opt = o, .index = index, .ids_fd = -1};
    err_t err = loop_create(&t->loop, &lo);
    if (err) {
        fprintf(stderr, "postern-sink: %s\n", loop_create_hint(err));
        return EX_OSERR;
    }
    err = listener_open(&t->listener, &o->at);
    if (err) {
        fprintf(stderr, "postern-sink: cannot listen: %s\n", err_text(err));
        return EX_UNAVAILABLE;
    }
    if (o->ids_path) {
        t->ids_fd = open(o->ids_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (t->ids_fd < 0) {
            perror(o->ids_path);
            return EX_CANTCREAT;
        }
    }
    return 0;
}

/* All counters of all threads, and our CPU time, as one line. */
static void print_counters(struct sink_thread *threads, unsigned n)
{
    struct rusage u;
#define X(name)                                                                                              \
    {                                                                                                        \
        uint64_t sum = 0;                                                                                    \
        for (unsigned i = 0; i < n; i++)                                                                     \
            sum += atomic_load_explicit(&threads[i].n.name, memory_order_relaxed);                           \
        printf(#name "=%llu ", (unsigned long long)sum);                                                     \
    }
    SINK_COUNTER_LIST(X)
#undef X
    getrusage(RUSAGE_SELF, &u);
    printf("cpu_seconds=%.3f\n", (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                                     (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct sink_options o;
    sigset_t set;
    int status = sink_options_parse(argc, argv, &o);
    if (status)
        return status;
    if (o.maildir && keep_prepare(o.maildir)) {
        perror(o.maildir);
        return EX_CANTCREAT;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    log_set(LOG_LOGFMT, LOG_WARN);

    struct sink_thread *threads = calloc(o.thread_count, sizeof *threads);
    struct starter *starters = calloc(o.thread_count, sizeof *starters);
    must(threads && starters);
    for (unsigned i = 0; i < o.thread_count; i++) {
        status = open_thread(&threads[i], &o, i);
        if (status)
            return status;
    }
    for (unsigned i = 0; i < o.thread_count; i++) {
        starters[i] = (struct starter){.mail.deliver = start_listening, .t = &threads[i]};
        loop_post(threads[i].loop, &starters[i].mail);
        must(pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]) == 0);
    }
    int signal_number;
    while (sigwait(&set, &signal_number) == 0 && signal_number == SIGUSR1)
        print_counters(threads, o.thread_count);
    for (unsigned i = 0; i < o.thread_count; i++) {
        loop_stop(threads[i].loop);
        pthread_join(threads[i].thread, NULL); /* open sessions end with the process */
    }
    if (!o.quiet)
        print_counters(threads, o.thread_count);
    _exit(EX_OK); /* connections still open are the kernel's to close */
}
