/* bench/source/source.c: postern-source: sends many messages over many sessions and says how it went. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/source/source_priv.h"
#include "core/clock.h"

static struct gbuf body;
static pthread_mutex_t done_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_cond = PTHREAD_COND_INITIALIZER;
static unsigned done_count;

const uint8_t *source_body(size_t *n)
{
    *n = body.n;
    return (const uint8_t *)body.p;
}

void source_thread_done(struct source_thread *t)
{
    (void)t;
    pthread_mutex_lock(&done_lock);
    done_count++;
    pthread_cond_signal(&done_cond);
    pthread_mutex_unlock(&done_lock);
}

/* Headers and lines of text up to the wanted size; the id line (about 40 bytes) is counted in. */
static void make_body(const struct source_options *o)
{
    static const char text[] =
        "The quick brown fox jumps over the lazy dog, and the mail goes through the gateway.\r\n";
    char date[48];
    body.max = (size_t)1 << 30;
    date[clock_rfc5322(clock_wall_ns(), date)] = '\0';
    gbuf_printf(&body,
                "From: <%s>\r\nTo: <postern@example.com>\r\nSubject: from postern-source\r\nDate: %s\r\n\r\n",
                o->sender, date);
    while (body.n + 40 + sizeof text - 1 < o->size_bytes)
        gbuf_put(&body, text, sizeof text - 1);
    if (body.n + 42 < o->size_bytes) {
        while (body.n + 42 < o->size_bytes)
            gbuf_put(&body, "x", 1);
        gbuf_put(&body, "\r\n", 2);
    }
}

/* A file as it is, line ends made CRLF, dots stuffed. */
static int read_body(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return EX_NOINPUT;
    }
    body.max = (size_t)1 << 30;
    int last = '\n';
    for (int c; (c = getc(f)) != EOF;) {
        if (c == '.' && last == '\n')
            gbuf_put(&body, ".", 1);
        if (c == '\n' && last != '\r')
            gbuf_put(&body, "\r", 1);
        char byte = (char)c;
        gbuf_put(&body, &byte, 1);
        last = c;
    }
    if (last != '\n')
        gbuf_put(&body, "\r\n", 2);
    fclose(f);
    return 0;
}

static const char usage_text[] =
    "usage: postern-source [options] ADDRESS:PORT\n"
    "  -s, --sessions N              at once (default 1)\n"
    "  -m, --messages N              in all (default 1)\n"
    "  -p, --messages-per-session N  default 1\n"
    "  -r, --recipients N            per message (default 1)\n"
    "  -l, --size BYTES              of each message (default 1024)\n"
    "  -f, --from ADDRESS            default sender@example.net\n"
    "  -t, --to ADDRESS              a % in it is replaced by a running number\n"
    "      --helo NAME\n"
    "      --file FILE               send this message\n"
    "  -T, --threads N               default 1\n"
    "  -i, --ids FILE                write the id of each message that got 250\n"
    "      --run NAME                first part of the ids (default: the process id)\n"
    "      --retry-for SECONDS       when the connection breaks, try again for this long\n"
    "      --no-pipelining           wait for each reply\n"
    "      --json                    results as JSON\n";

enum { OPT_HELO = 256, OPT_FILE, OPT_RUN, OPT_RETRY, OPT_NO_PIPELINING, OPT_JSON };

static int parse_options(int argc, char **argv, struct source_options *o)
{
    static const struct option longs[] = {{"sessions", 1, 0, 's'},
                                          {"messages", 1, 0, 'm'},
                                          {"messages-per-session", 1, 0, 'p'},
                                          {"recipients", 1, 0, 'r'},
                                          {"size", 1, 0, 'l'},
                                          {"from", 1, 0, 'f'},
                                          {"to", 1, 0, 't'},
                                          {"helo", 1, 0, OPT_HELO},
                                          {"file", 1, 0, OPT_FILE},
                                          {"threads", 1, 0, 'T'},
                                          {"ids", 1, 0, 'i'},
                                          {"run", 1, 0, OPT_RUN},
                                          {"retry-for", 1, 0, OPT_RETRY},
                                          {"no-pipelining", 0, 0, OPT_NO_PIPELINING},
                                          {"json", 0, 0, OPT_JSON},
                                          {"help", 0, 0, 'h'},
                                          {0}};
    static char run[16];
    snprintf(run, sizeof run, "%d", (int)getpid());
    *o = (struct source_options){.thread_count = 1,
                                 .session_count = 1,
                                 .message_count = 1,
                                 .messages_per_session = 1,
                                 .rcpts_per_message = 1,
                                 .size_bytes = 1024,
                                 .helo = "source.example.net",
                                 .sender = "sender@example.net",
                                 .recipient = "user@example.com",
                                 .run_name = run};
    for (int c; (c = getopt_long(argc, argv, "s:m:p:r:l:f:t:T:i:h", longs, NULL)) != -1;) {
        switch (c) {
        case 's': o->session_count = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'm': o->message_count = strtoull(optarg, NULL, 10); break;
        case 'p': o->messages_per_session = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'r': o->rcpts_per_message = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'l': o->size_bytes = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'f': o->sender = optarg; break;
        case 't': o->recipient = optarg; break;
        case 'T': o->thread_count = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'i': o->ids_path = optarg; break;
        case OPT_HELO: o->helo = optarg; break;
        case OPT_FILE: o->file = optarg; break;
        case OPT_RUN: o->run_name = optarg; break;
        case OPT_RETRY: o->retry_s = (uint32_t)strtoul(optarg, NULL, 10); break;
        case OPT_NO_PIPELINING: o->no_pipelining = true; break;
        case OPT_JSON: o->json = true; break;
        case 'h': fputs(usage_text, stdout); exit(EX_OK);
        default: return EX_USAGE;
        }
    }
    bool bad = optind != argc - 1 || o->thread_count < 1 || o->thread_count > 64 || !o->session_count ||
               !o->message_count || !o->messages_per_session || !o->rcpts_per_message ||
               strlen(o->run_name) > 40 || strlen(o->recipient) > 300 || strlen(o->sender) > 300 ||
               strlen(o->helo) > 255 || endpoint_parse(str_cstr(argv[optind]), &o->to);
    if (bad)
        fputs(usage_text, stderr);
    return bad ? EX_USAGE : 0;
}

struct starter {
    struct mail mail;
    struct source_thread *t;
};

static void start_sessions(struct mail *m)
{
    must(source_sessions_start(container_of(m, struct starter, mail)->t) == 0);
}

static void *thread_main(void *arg)
{
    struct source_thread *t = arg;
    struct starter starter = {.mail.deliver = start_sessions, .t = t};
    loop_post(t->loop, &starter.mail);
    loop_run(t->loop);
    return NULL;
}

static double quantile_ms(const uint64_t *buckets, double q)
{
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < SOURCE_LATENCY_BUCKETS; i++)
        total += buckets[i];
    for (unsigned i = 0; i < SOURCE_LATENCY_BUCKETS; i++) {
        seen += buckets[i];
        if (total && (double)seen >= q * (double)total)
            return (double)(UINT64_C(1) << (i / 2)) * (i % 2 ? 2.0 : 1.5) /
                   1000.0; /* the bucket's upper bound */
    }
    return 0;
}

static void print_results(const struct source_options *o, const struct source_thread *r, double elapsed_s)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                 (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    const char *format =
        o->json
            ? "{\"messages\": %llu, \"refused\": %llu, \"connections\": %llu, \"lost_connections\": %llu, "
              "\"bytes\": %llu, \"seconds\": %.6f, \"per_second\": %.1f, \"cpu_seconds\": %.3f, "
              "\"p50_ms\": %.3f, \"p99_ms\": %.3f}\n"
            : "messages=%llu refused=%llu connections=%llu lost_connections=%llu bytes=%llu seconds=%.3f "
              "per_second=%.1f cpu_seconds=%.3f p50_ms=%.3f p99_ms=%.3f\n";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    printf(format, (unsigned long long)r->ok, (unsigned long long)r->refused, (unsigned long long)r->connects,
           (unsigned long long)r->lost, (unsigned long long)r->bytes, elapsed_s,
           elapsed_s > 0 ? (double)r->ok / elapsed_s : 0.0, cpu, quantile_ms(r->latency, 0.5),
           quantile_ms(r->latency, 0.99));
#pragma GCC diagnostic pop
    if (r->first_error[0])
        fprintf(stderr, "postern-source: first problem: %s\n", r->first_error);
}

static int open_thread(struct source_thread *t, const struct source_options *o, unsigned index)
{
    struct loop_options lo = {.cpu = -1, .name = "postern-source"};
    uint64_t per = o->message_count / o->thread_count;
    uint32_t sessions = o->session_count / o->thread_count;
    *t = (struct source_thread){.opt = o, .index = index, .ids_fd = -1};
    t->quota = per + (index < o->message_count % o->thread_count);
    t->session_count = MAX(sessions + (index < o->session_count % o->thread_count), 1u);
    t->session_count = (uint32_t)MIN((uint64_t)t->session_count, MAX(t->quota, UINT64_C(1)));
    err_t err = loop_create(&t->loop, &lo);
    if (err) {
        fprintf(stderr, "postern-source: %s\n", loop_create_hint(err));
        return EX_OSERR;
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

static void add_results(struct source_thread *sum, const struct source_thread *t)
{
    sum->ok += t->ok;
    sum->refused += t->refused;
    sum->connects += t->connects;
    sum->lost += t->lost;
    sum->bytes += t->bytes;
    sum->last_ok_ns = MAX(sum->last_ok_ns, t->last_ok_ns);
    for (unsigned i = 0; i < SOURCE_LATENCY_BUCKETS; i++)
        sum->latency[i] += t->latency[i];
    if (!sum->first_error[0])
        memcpy(sum->first_error, t->first_error, sizeof sum->first_error);
}

int main(int argc, char **argv)
{
    struct source_options o;
    struct source_thread sum = {0};
    int status = parse_options(argc, argv, &o);
    if (status)
        return status;
    signal(SIGPIPE, SIG_IGN);
    if (o.file)
        status = read_body(o.file);
    else
        make_body(&o);
    if (status)
        return status;
    struct source_thread *threads = calloc(o.thread_count, sizeof *threads);
    must(threads);
    for (unsigned i = 0; i < o.thread_count; i++) {
        status = open_thread(&threads[i], &o, i);
        if (status)
            return status;
    }
    uint64_t started = clock_mono_ns();
    for (unsigned i = 0; i < o.thread_count; i++)
        must(pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]) == 0);
    pthread_mutex_lock(&done_lock);
    while (done_count < o.thread_count)
        pthread_cond_wait(&done_cond, &done_lock);
    pthread_mutex_unlock(&done_lock);
    for (unsigned i = 0; i < o.thread_count; i++) {
        loop_stop(threads[i].loop);
        pthread_join(threads[i].thread, NULL);
        add_results(&sum, &threads[i]);
    }
    print_results(&o, &sum, sum.last_ok_ns > started ? (double)(sum.last_ok_ns - started) / 1e9 : 0.0);
    fflush(stdout);
    _exit(sum.refused || sum.ok < o.message_count ? 1 : 0);
}
