/* bench/sink/sink.c: postern-sink: an SMTP or LMTP server that takes mail, counts it, and keeps it if asked
 * to. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/sink/sink_priv.h"

static _Atomic uint64_t taken_count;

void sink_message_taken(struct sink_thread *t)
{
    t->messages++;
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

static const char usage_text[] =
    "usage: postern-sink [options] ADDRESS:PORT\n"
    "  -d, --maildir DIR        keep each message in a Maildir (X-Sink-From:, X-Sink-To: lines in front)\n"
    "  -i, --ids FILE           append the X-Postern-Source id of each message taken\n"
    "  -t, --threads N          default 1\n"
    "  -n, --exit-after N       end after N messages\n"
    "      --reject-rcpt TEXT   550 5.1.1 for RCPT lines that contain TEXT\n"
    "      --defer-rcpt TEXT    450 4.2.0 for RCPT lines that contain TEXT\n"
    "      --refuse-data REPLY  this reply to every end of data, such as \"451 4.3.0 no\"\n"
    "      --lmtp               speak LMTP (RFC 2033): one reply per recipient after the data\n"
    "      --dsn                offer DSN (RFC 3461); RET, ENVID, NOTIFY and ORCPT stand in X-Sink-From: and "
    "X-Sink-To:\n"
    "      --no-pipelining      do not offer PIPELINING\n"
    "  -q, --quiet              no summary at the end\n";

enum { OPT_REJECT = 256, OPT_DEFER, OPT_REFUSE_DATA, OPT_LMTP, OPT_DSN, OPT_NO_PIPELINING };

static int parse_options(int argc, char **argv, struct sink_options *o)
{
    static const struct option longs[] = {{"maildir", 1, 0, 'd'},
                                          {"ids", 1, 0, 'i'},
                                          {"threads", 1, 0, 't'},
                                          {"exit-after", 1, 0, 'n'},
                                          {"reject-rcpt", 1, 0, OPT_REJECT},
                                          {"defer-rcpt", 1, 0, OPT_DEFER},
                                          {"refuse-data", 1, 0, OPT_REFUSE_DATA},
                                          {"lmtp", 0, 0, OPT_LMTP},
                                          {"dsn", 0, 0, OPT_DSN},
                                          {"no-pipelining", 0, 0, OPT_NO_PIPELINING},
                                          {"quiet", 0, 0, 'q'},
                                          {"help", 0, 0, 'h'},
                                          {0}};
    *o = (struct sink_options){.thread_count = 1};
    for (int c; (c = getopt_long(argc, argv, "d:i:t:n:qh", longs, NULL)) != -1;) {
        switch (c) {
        case 'd': o->maildir = optarg; break;
        case 'i': o->ids_path = optarg; break;
        case 't': o->thread_count = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'n': o->exit_after = strtoull(optarg, NULL, 10); break;
        case OPT_REJECT: o->reject_rcpt = optarg; break;
        case OPT_DEFER: o->defer_rcpt = optarg; break;
        case OPT_REFUSE_DATA: o->refuse_data = optarg; break;
        case OPT_LMTP: o->lmtp = true; break;
        case OPT_DSN: o->dsn = true; break;
        case OPT_NO_PIPELINING: o->no_pipelining = true; break;
        case 'q': o->quiet = true; break;
        case 'h': fputs(usage_text, stdout); exit(EX_OK);
        default: return EX_USAGE;
        }
    }
    if (optind != argc - 1 || o->thread_count < 1 || o->thread_count > 64 ||
        endpoint_parse(str_cstr(argv[optind]), &o->at)) {
        fputs(usage_text, stderr);
        return EX_USAGE;
    }
    return 0;
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

int main(int argc, char **argv)
{
    struct sink_options o;
    sigset_t set;
    int status = parse_options(argc, argv, &o);
    if (status)
        return status;
    if (o.maildir && keep_prepare(o.maildir)) {
        perror(o.maildir);
        return EX_CANTCREAT;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);

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
    (void)sigwait(&set, &signal_number);
    uint64_t connections = 0, messages = 0, recipients = 0, bytes = 0, bare = 0;
    for (unsigned i = 0; i < o.thread_count; i++) {
        loop_stop(threads[i].loop);
        pthread_join(threads[i].thread, NULL); /* open sessions end with the process */
        connections += threads[i].connections;
        messages += threads[i].messages;
        recipients += threads[i].recipients;
        bytes += threads[i].bytes;
        bare += threads[i].bare_endings;
    }
    if (!o.quiet)
        printf("connections=%llu messages=%llu recipients=%llu bytes=%llu bare_endings=%llu\n",
               (unsigned long long)connections, (unsigned long long)messages, (unsigned long long)recipients,
               (unsigned long long)bytes, (unsigned long long)bare);
    fflush(stdout);
    _exit(EX_OK); /* connections still open are the kernel's to close */
}
