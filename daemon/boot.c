/* daemon/boot.c: boot order. What can fail is done before the first message could be taken: configuration,
 * lock, rings, ports; a failure says what to do about it and undoes nothing that matters (the rings are
 * recovered again next time). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "daemon/backend.h"
#include "daemon/gateway.h"
#include "daemon/memory.h"

static void block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    must(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    signal(SIGPIPE, SIG_IGN);
}

static void raise_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &r); /* what we have is enough to start with */
    }
}

static void notes_to_log(struct gbuf *notes, enum log_event event)
{
    str_t rest = gbuf_view(notes), line;
    while (rest.n) {
        str_cut(rest, '\n', &line, &rest);
        if (line.n)
            log_emit(event, (const struct log_field[]){LF_STR("text", line)}, 1);
    }
    gbuf_free(notes);
    *notes = (struct gbuf){0};
}

static int fail(struct gbuf *notes, int status)
{
    notes_to_log(notes, EV_boot_failed);
    log_stop();
    return status;
}

static err_t start_log(const struct config *c, struct gbuf *notes)
{
    int fd = STDERR_FILENO;
    if (c->log.file.n) {
        fd = open(c->log.file.p, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
        if (fd < 0) {
            err_t err = -errno;
            gbuf_printf(notes, "log.file: cannot open " STR_FMT ": %s\n", STR_ARG(c->log.file),
                        err_text(err));
            return err;
        }
    }
    return log_start(fd, c->log.format, c->log.level);
}

/* One process per spool. The rings have locks of their own besides: a dead process's last write may still be
 * in flight. */
static err_t lock_spool(struct gateway *g, str_t directory, struct gbuf *notes)
{
    char path[4096];
    if (mkdir(directory.p, 0700) < 0 && errno != EEXIST) {
        err_t err = -errno;
        gbuf_printf(notes, "spool.directory: cannot make " STR_FMT ": %s\n", STR_ARG(directory),
                    err_text(err));
        return err;
    }
    snprintf(path, sizeof path, STR_FMT "/lock", STR_ARG(directory));
    g->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (g->lock_fd < 0) {
        err_t err = -errno;
        gbuf_printf(notes, "spool.directory: cannot open %s: %s\n", path, err_text(err));
        return err;
    }
    char pid[32] = "";
    if (flock(g->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        ssize_t n = pread(g->lock_fd, pid, sizeof pid - 1, 0);
        gbuf_printf(notes,
                    "the spool " STR_FMT " is in use by another posternd (pid %.*s); stop that one first, or "
                    "give this one a spool.directory of its own\n",
                    STR_ARG(directory), (int)(n > 0 ? strcspn(pid, "\n") : 1), n > 0 ? pid : "?");
        return ERR_LOCKED;
    }
    int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(g->lock_fd, 0) < 0 || pwrite(g->lock_fd, pid, (size_t)n, 0) < 0)
        gbuf_printf(notes, "spool.directory: the lock file cannot be written: %s\n", err_text(-errno));
    return 0;
}

static unsigned count_workers(const struct config *c)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return c->workers ? c->workers : (unsigned)MAX(cores, 1L);
}

/* Rings beyond the number of workers belong to an earlier, larger configuration: worker 0 takes their
 * messages over. */
static err_t adopt_orphans(struct gateway *g, str_t directory, struct gbuf *notes)
{
    DIR *dir = opendir(directory.p);
    if (!dir)
        return -errno;
    err_t err = 0;
    for (struct dirent *e; !err && (e = readdir(dir));) {
        unsigned ring, end = 0;
        if (sscanf(e->d_name, "ring-%u%n", &ring, (int *)&end) != 1 || e->d_name[end] ||
            ring < g->worker_count)
            continue;
        err = worker_adopt(&g->workers[0], ring, notes);
    }
    closedir(dir);
    return err;
}

static err_t open_workers(struct gateway *g, const struct config *c, struct gbuf *notes)
{
    long cores = MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L);
    g->worker_count = count_workers(c);
    g->workers = calloc(g->worker_count, sizeof *g->workers);
    if (!g->workers)
        return -ENOMEM;
    err_t err = 0;
    for (unsigned i = 0; !err && i < g->worker_count; i++)
        err = worker_open(&g->workers[i], i, g->current, g->worker_count <= (unsigned)cores ? (int)i : -1,
                          notes);
    if (!err)
        err = adopt_orphans(g, c->spool_directory, notes);
    for (unsigned i = 0; !err && i < g->worker_count; i++)
        err = worker_listen(&g->workers[i], notes);
    return err;
}

static void discard_workers(struct gateway *g)
{
    for (unsigned i = 0; i < g->worker_count; i++) {
        if (g->workers[i].current)
            worker_discard(&g->workers[i]);
    }
    free(g->workers);
}

/* Each thing that this kernel does not have, in one line. */
static void note_features(const struct loop_features *f, struct gbuf *notes)
{
    const struct {
        bool there;
        const char *text;
    } rows[] = {
        {f->single_issuer, "SINGLE_ISSUER rings (since 6.0): submissions take a lock"},
        {f->defer_taskrun, "DEFER_TASKRUN (since 6.1): completions interrupt the worker"},
        {f->coop_taskrun, "COOP_TASKRUN (since 5.19): completions send interrupts"},
        {f->msg_ring, "MSG_RING between rings: workers wake each other by eventfd"},
        {f->multishot_accept, "multishot accept (since 5.19): one submission per connection"},
        {f->multishot_recv, "multishot recv (since 6.0): one submission per read"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (!rows[i].there)
            gbuf_printf(notes, "io_uring: this kernel has no %s\n", rows[i].text);
    }
}

static err_t start_services(struct gateway *g, struct gbuf *notes)
{
    char text[512];
    struct sbuf error = SBUF_ON(text);
    const struct config *c = policy_config(g->current->policy);
    struct admin_backend backend;

    err_t err = tls_context_client(&g->tls_client, false, &error);
    if (!err)
        err = tls_context_client(&g->tls_client_verify, true, &error);
    for (unsigned i = 0; !err && i < g->worker_count; i++)
        err = worker_launch(&g->workers[i], g->dns, g->tls_client, g->tls_client_verify);
    if (!err) {
        backend_init(&backend, g);
        err = admin_start(&g->admin, c, &backend, &error);
    }
    if (err)
        gbuf_printf(notes, STR_FMT "\n", STR_ARG(sbuf_view(&error)));
    return err;
}

static void log_ready(struct gateway *g)
{
    const struct config *c = policy_config(g->current->policy);
    for (size_t i = 0; i < c->listener_count; i++) {
        char text[64];
        struct sbuf at = SBUF_ON(text);
        endpoint_format(&c->listeners[i].at, &at);
        LOG(listening, LF_STR("address", sbuf_view(&at)));
    }
    LOG(ready, LF_U64("workers", g->worker_count));
}

/* A bad configuration is told to whoever started us, wherever the log goes. */
static int refuse(struct diag *d)
{
    log_stop();
    fprintf(stderr, STR_FMT, STR_ARG(gbuf_view(&d->text)));
    diag_free(d);
    return EX_CONFIG;
}

int gateway_boot(struct gateway *g, const char *path)
{
    struct gbuf notes = {0};
    struct diag d = {.file = path};
    struct config *c;
    char text[256];
    struct sbuf error = SBUF_ON(text);

    *g = (struct gateway){.config_path = path, .lock_fd = -1, .started_wall_ns = clock_wall_ns()};
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    block_signals();
    raise_file_limit();
    memory_start();

    err_t err = config_load_file(path, &c, &d);
    if (err)
        return refuse(&d);
    err = start_log(c, &notes); /* before anything that may want to say something */
    if (err)
        return fail(&notes, EX_CANTCREAT);
    err = dns_start(&g->dns, c, &error);
    if (err) {
        diag_error(&d, (struct mark){0}, "dns: " STR_FMT, STR_ARG(sbuf_view(&error)));
        return refuse(&d);
    }
    err = snapshot_build(&g->current, c, g->dns, 1, &d);
    if (err)
        return refuse(&d);
    const struct config *conf = policy_config(g->current->policy);
    if (metrics_thread_start())
        gbuf_cstr(&notes, "metrics: no memory for the main thread's block; it shares one\n");
    gbuf_str(&notes, gbuf_view(&d.text)); /* warnings */
    diag_free(&d);
    LOG(boot, LF_CSTR("version", POSTERN_VERSION), LF_U64("pid", (uint64_t)getpid()),
        LF_U64("workers", count_workers(conf)), LF_STR("hostname", conf->hostname),
        LF_CSTR("tls", tls_library()), LF_CSTR("malloc", memory_allocator()));
    notes_to_log(&notes, EV_boot_note);

    err = lock_spool(g, conf->spool_directory, &notes);
    if (err)
        return fail(&notes, err == ERR_LOCKED ? EX_TEMPFAIL : EX_CANTCREAT);
    err = open_workers(g, conf, &notes);
    if (err) {
        bool no_ring = g->workers && !g->workers[0].loop;
        discard_workers(g);
        return fail(&notes, no_ring                                ? EX_CONFIG
                            : err == -EADDRINUSE || err == -EACCES ? EX_UNAVAILABLE
                                                                   : EX_OSERR);
    }
    note_features(loop_features(g->workers[0].loop), &notes);
    notes_to_log(&notes, EV_boot_note);
    err = start_services(g, &notes);
    if (err)
        return fail(
            &notes,
            EX_OSERR); /* workers may run already: the process ends, the rings are recovered next time */
    log_ready(g);
    return 0;
}
