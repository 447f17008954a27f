/* daemon/boot.c: boot order. What can fail is done before the first message could be taken: configuration,
 * lock, ports, sandbox, rings; a failure says what to do about it and undoes nothing that matters (the rings
 * are recovered again next time). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "daemon/backend.h"
#include "daemon/certificates.h"
#include "daemon/gateway.h"
#include "daemon/memory.h"
#include "daemon/verification.h"

#define FILES_BESIDE_SESSIONS 512 /* rings, listeners, outbound connections, DNS, admin: a modest guess */

/* Until there are workers SIGTERM and SIGINT end the process as they would any other: nothing was promised
 * yet. A SIGHUP waits for the end of boot. */
static err_t prepare_signals(struct gateway *g)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    must(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write past RLIMIT_FSIZE gets EFBIG */
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    g->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    g->drained_fd = eventfd(0, EFD_CLOEXEC);
    return g->signal_fd < 0 || g->drained_fd < 0 ? -errno : 0;
}

static void block_end_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    must(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
}

static void raise_file_limit(const struct config *c, struct gbuf *notes)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return;
    rlim_t before = r.rlim_cur;
    r.rlim_cur = r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r) < 0)
        r.rlim_cur = before;
    if (r.rlim_cur < (rlim_t)c->limits.sessions + FILES_BESIDE_SESSIONS)
        gbuf_printf(notes,
                    "only %llu files may be open, too few for limits.sessions of %u; raise LimitNOFILE=\n",
                    (unsigned long long)r.rlim_cur, c->limits.sessions);
}

static void lines_to_log(enum log_event event, str_t text)
{
    str_t line;
    while (text.n) {
        str_cut(text, '\n', &line, &text);
        if (line.n)
            log_emit(event, (const struct log_field[]){LF_STR("text", line)}, 1);
    }
}

static void notes_to_log(struct gbuf *notes)
{
    lines_to_log(EV_boot_note, gbuf_view(notes));
    gbuf_free(notes);
}

/* The last line of the notes is the reason. It goes to whoever started us too, if the log goes elsewhere. */
static int fail(struct gateway *g, struct gbuf *notes, err_t err, int status)
{
    if (!notes->n)
        gbuf_printf(notes, "%s\n", err_text(err));
    while (notes->n && notes->p[notes->n - 1] == '\n')
        notes->n--;
    const char *newline = memrchr(notes->p, '\n', notes->n);
    size_t reason_at = newline ? (size_t)(newline + 1 - notes->p) : 0;
    str_t reason = str_of(notes->p + reason_at, notes->n - reason_at);
    lines_to_log(EV_boot_note, str_of(notes->p, reason_at));
    LOG(boot_failed, LF_STR("text", reason));
    if (g->log_is_file)
        fprintf(stderr, "posternd: " STR_FMT "\n", STR_ARG(reason));
    gbuf_free(notes);
    gateway_end(g);
    log_stop();
    return status;
}

/* The file is opened before the user changes, and is his. */
static err_t open_log(const struct gateway *g, const struct config *c, int *fd, struct gbuf *notes)
{
    *fd = STDERR_FILENO;
    if (!c->log.file.n)
        return 0;
    *fd = open(c->log.file.p, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    err_t err = *fd < 0 ? -errno : user_give(&g->confine.user, *fd);
    if (err)
        gbuf_printf(notes, "log.file: cannot open " STR_FMT ": %s\n", STR_ARG(c->log.file), err_text(err));
    return err;
}

/* One process per spool. The rings have locks of their own besides: a dead process's last write may still be
 * in flight. */
static err_t lock_spool(struct gateway *g, const struct config *c, struct gbuf *notes)
{
    const str_t directory = c->spool_directory;
    char path[4096];
    err_t err = confine_spool(&g->confine, c, notes);
    if (err)
        return err;
    snprintf(path, sizeof path, STR_FMT "/lock", STR_ARG(directory));
    g->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (g->lock_fd < 0) {
        err = -errno;
        gbuf_printf(notes, "spool.directory: cannot open %s: %s\n", path, err_text(err));
        return err;
    }
    err = user_give(&g->confine.user, g->lock_fd);
    if (err)
        return err;
    char pid[32] = "";
    err = flock(g->lock_fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
    if (err && err != -EWOULDBLOCK) {
        gbuf_printf(notes, "spool.directory: cannot lock %s: %s\n", path, err_text(err));
        return err;
    }
    if (err) {
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
    if (!dir) {
        err_t err = -errno;
        gbuf_printf(notes, "spool.directory: cannot read " STR_FMT ": %s\n", STR_ARG(directory),
                    err_text(err));
        return err;
    }
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

/* Exit status: 0, or what it is called that a ring could not be had. */
static int open_status(err_t err, bool has_loop)
{
    if (err == ERR_LOCKED)
        return EX_TEMPFAIL;
    if (has_loop)
        return EX_CANTCREAT;
    return err == -ENOMEM || err == -EMFILE || err == -ENFILE ? EX_OSERR : EX_CONFIG;
}

static int open_workers(struct gateway *g, const struct config *c, err_t *err, struct gbuf *notes)
{
    long cores = MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L);
    unsigned count = count_workers(c);
    bool is_pinned = count <= (unsigned)cores;
    g->workers = calloc(count, sizeof *g->workers);
    if (!g->workers) {
        *err = -ENOMEM;
        return EX_OSERR;
    }
    g->worker_count = count;
    for (unsigned i = 0; i < count; i++) {
        *err = worker_open(&g->workers[i], i, g->current, is_pinned ? (int)i : -1, notes);
        if (*err)
            return open_status(*err, g->workers[i].loop != NULL);
    }
    *err = adopt_orphans(g, c->spool_directory, notes);
    if (*err)
        return open_status(*err, true);
    for (unsigned i = 0; i < count; i++) {
        *err = worker_listen(&g->workers[i], &g->ports, notes);
        if (*err)
            return EX_UNAVAILABLE;
    }
    return 0;
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
        {f->restricted, "restrictions (since 5.10): a worker's ring may do what this process may"},
        {f->multishot_recv, "multishot recv (since 6.0): one submission per read"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (!rows[i].there)
            gbuf_printf(notes, "io_uring: this kernel has no %s\n", rows[i].text);
    }
}

/* All know each other before one runs. */
static err_t launch_workers(struct gateway *g)
{
    g->budget = cells_new(BUDGET_DOMAINS);
    g->strangers = strangers_new(policy_config(g->current->policy)->limits.sessions);
    g->edge_lines = edge_lines_new();
    const struct worker_shared shared = {.dns = g->dns,
                                         .verify = &g->verify,
                                         .budget = g->budget,
                                         .strangers = g->strangers,
                                         .edge_lines = g->edge_lines};
    err_t err = g->budget && g->strangers && g->edge_lines ? 0 : -ENOMEM;
    for (unsigned i = 0; i < g->worker_count && !err; i++)
        err = worker_prepare(&g->workers[i], &shared, g->pause.now);
    for (unsigned i = 0; i < g->worker_count && !err; i++)
        err = worker_launch(&g->workers[i]);
    return err;
}

/* The admin side first, as it may fail, and a worker takes mail from its first moment on. */
static int start_services(struct gateway *g, struct gbuf *notes)
{
    char text[512];
    struct sbuf error = SBUF_ON(text);
    struct admin_backend backend;

    backend_init(&backend, g);
    err_t err = admin_start(&g->admin, policy_config(g->current->policy), &backend, &error);
    if (err) {
        gbuf_printf(notes, STR_FMT "\n", STR_ARG(sbuf_view(&error)));
        return EX_UNAVAILABLE;
    }
    err = launch_workers(g);
    if (err) {
        gbuf_printf(notes, "cannot start the workers: %s\n", err_text(err));
        return EX_OSERR;
    }
    return 0;
}

/* A sum over the workers, as other gauges are, would say nothing. */
static void collect_age(void *ctx, struct gbuf *out)
{
    struct gateway *g = ctx;
    uint64_t oldest_ms = UINT64_MAX, now_ms = clock_wall_ns() / NS_PER_MS;
    for (unsigned i = 0; i < g->worker_count; i++) {
        uint64_t ms = atomic_load_explicit(&g->workers[i].oldest_arrived_ms, memory_order_relaxed);
        if (ms)
            oldest_ms = MIN(oldest_ms, ms);
    }
    gbuf_printf(out,
                "# HELP postern_queue_oldest_seconds age of the oldest message in the queue; 0: it is empty\n"
                "# TYPE postern_queue_oldest_seconds gauge\npostern_queue_oldest_seconds %.3f\n",
                oldest_ms < now_ms ? (double)(now_ms - oldest_ms) / 1000.0 : 0.0);
}

static void collect_certificates(void *ctx, struct gbuf *out)
{
    struct gateway *g = ctx;
    certificates_collect(&g->certificates, out);
}

static void collect_pauses(void *ctx, struct gbuf *out)
{
    struct gateway *g = ctx;
    pause_collect(&g->pause, out);
}

static const char *on_off(bool on)
{
    return on ? "on" : "off";
}

static void log_ready(struct gateway *g)
{
    size_t count = policy_config(g->current->policy)->listener_count;
    for (size_t i = 0; i < count; i++) {
        char text[64];
        struct sbuf at = SBUF_ON(text);
        endpoint_format(listener_endpoint(g->workers[0].listeners[i].listener), &at);
        LOG(listening, LF_STR("address", sbuf_view(&at)));
    }
    LOG(sandbox, LF_U64("uid", (uint64_t)geteuid()), LF_CSTR("landlock", on_off(g->confine.files_locked)),
        LF_CSTR("seccomp", on_off(g->confine.calls_locked)),
        LF_CSTR("rings", on_off(loop_features(g->workers[0].loop)->restricted)));
    LOG(ready, LF_U64("workers", g->worker_count));
}

/* A bad configuration is told to whoever started us, wherever the log goes. */
static int refuse(struct gateway *g, struct gbuf *notes, struct diag *d, err_t err)
{
    notes_to_log(notes);
    gateway_end(g);
    log_stop();
    if (d->text.n)
        fprintf(stderr, STR_FMT, STR_ARG(gbuf_view(&d->text)));
    else
        fprintf(stderr, "posternd: %s\n", err_text(err));
    diag_free(d);
    return err == -ENOMEM ? EX_OSERR : EX_CONFIG;
}

static err_t read_config(struct gateway *g, struct config **c, struct diag *d)
{
    err_t err = config_read_file(g->config_path, &g->config_text, d);
    return err ? err : config_load_text(gbuf_view(&g->config_text), g->config_path, c, d);
}

/* All that takes privileges, and then no more of them. One thread until here. 0, or the exit status. */
static int boot_privileged(struct gateway *g, const struct config *c, err_t *err, struct gbuf *notes)
{
    int log_fd;
    *err = confine_choose(&g->confine, c, notes);
    if (*err)
        return EX_CONFIG;
    *err = open_log(g, c, &log_fd, notes);
    if (*err)
        return EX_CANTCREAT;
    log_direct(log_fd, c->log.format, c->log.level);
    g->log_is_file = c->log.file.n > 0;
    raise_file_limit(c, notes);
    *err = lock_spool(g, c, notes);
    if (*err)
        return *err == ERR_LOCKED ? EX_TEMPFAIL : EX_CANTCREAT;
    *err = ports_open(&g->ports, c, count_workers(c), notes);
    if (*err)
        return EX_UNAVAILABLE;
    *err = confine_enter(&g->confine, c, g->config_path, notes);
    if (*err)
        return EX_OSERR;
    *err = log_start(log_fd, c->log.format, c->log.level);
    if (*err)
        gbuf_printf(notes, "log: cannot start its thread: %s\n", err_text(*err));
    return *err ? EX_OSERR : 0;
}

/* Configuration, log and resolver. 0, or the exit status. */
static int boot_config(struct gateway *g, struct gbuf *notes)
{
    struct diag d = {.file = g->config_path};
    struct config *c;
    char text[256];
    struct sbuf error = SBUF_ON(text);

    err_t err = read_config(g, &c, &d);
    if (err)
        return refuse(g, notes, &d, err);
    int status = boot_privileged(g, c, &err, notes);
    if (status) {
        config_free(c);
        return fail(g, notes, err, status);
    }
    err = dns_start(&g->dns, c, &error);
    if (err) {
        config_free(c);
        diag_error(&d, (struct mark){0}, "dns: " STR_FMT, STR_ARG(sbuf_view(&error)));
        return refuse(g, notes, &d, err);
    }
    err = lists_open(&g->lists, c->spool_directory, notes);
    if (err) {
        config_free(c);
        return refuse(g, notes, &d, err);
    }
    err = snapshot_build(&g->current, c, g->dns, &g->names, NULL, &g->lists, LISTS_STRICT, &d);
    if (err)
        return refuse(g, notes, &d, err);
    gbuf_str(notes, gbuf_view(&d.text)); /* warnings */
    diag_free(&d);
    return 0;
}

/* Rings and verdicts; then no more system calls than serving takes. 0, or the exit status. */
static int boot_spool(struct gateway *g, struct gbuf *notes)
{
    const struct config *c = policy_config(g->current->policy);
    err_t err = pause_load(&g->pause, c->spool_directory, notes);
    if (err)
        return fail(g, notes, err, EX_OSERR);
    int status = open_workers(g, c, &err, notes);
    if (status)
        return fail(g, notes, err, status);
    metric_set(M_queue_messages, 0); /* recovery counted on this thread; each worker tells of its own ring */
    metric_set(M_queue_recipients, 0);
    note_features(loop_features(g->workers[0].loop), notes);
    err = verification_open(&g->verify, c, g->worker_count, notes);
    if (err)
        return fail(g, notes, err, EX_CANTCREAT);
    err = confine_seal(&g->confine, c, notes);
    return err ? fail(g, notes, err, EX_OSERR) : 0;
}

static int boot_services(struct gateway *g, struct gbuf *notes)
{
    block_end_signals();
    pthread_mutex_lock(&g->lock); /* the admin thread may not reload what does not run yet */
    int status = start_services(g, notes);
    if (!status) {
        lists_in_force(&g->lists, g->current->lists, g->current->list_count);
        metrics_add_collector(collect_age, g);
        metrics_add_collector(collect_pauses, g);
        metrics_add_collector(verification_collect, &g->verify);
        metrics_add_collector(collect_certificates, g);
        certificates_set(&g->certificates, g->current);
        certificates_warn(&g->certificates, g->current);
        log_ready(g);
    }
    pthread_mutex_unlock(&g->lock);
    return status ? fail(g, notes, 0, status) : 0;
}

int gateway_boot(struct gateway *g, const char *path)
{
    struct gbuf notes = {0};

    *g = (struct gateway){.config_path = path,
                          .lock_fd = -1,
                          .signal_fd = -1,
                          .drained_fd = -1,
                          .started_wall_ns = clock_wall_ns()};
    pthread_mutex_init(&g->lock, NULL);
    pause_init(&g->pause);
    certificates_init(&g->certificates);
    err_t err = prepare_signals(g);
    if (err)
        return fail(g, &notes, err, EX_OSERR);
    memory_start();
    int status = boot_config(g, &notes);
    if (status)
        return status;
    if (metrics_thread_start())
        gbuf_cstr(&notes, "metrics: no memory for the main thread's block; it shares one\n");
    const struct config *c = policy_config(g->current->policy);
    LOG(boot, LF_CSTR("version", POSTERN_VERSION), LF_U64("pid", (uint64_t)getpid()),
        LF_U64("workers", count_workers(c)), LF_STR("hostname", c->hostname), LF_CSTR("tls", tls_library()),
        LF_CSTR("malloc", memory_allocator()));
    if (c->limits.memory && !memory_is_watched())
        gbuf_printf(&notes, "limits.memory: %s does not tell what is in use; the limit is not watched\n",
                    memory_allocator());
    notes_to_log(&notes);
    status = boot_spool(g, &notes);
    if (status)
        return status;
    notes_to_log(&notes);
    return boot_services(g, &notes);
}
