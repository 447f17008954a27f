/* daemon/gateway.c: signals, reload and drain. Boot is in boot.c. */
#include "daemon/gateway.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "daemon/certificates.h"
#include "daemon/verification.h"

#define REFRESH_MS (5 * 60 * 1000) /* of names; of lists, where nothing tells that they changed */
/* For what only has to stop when timeouts.shutdown is over. */
#define GRACE_NS (UINT64_C(10) * NS_PER_S)

static bool has_named_networks(const struct config *c)
{
    for (size_t i = 0; i < c->edge_network_count; i++) {
        if (c->edge_networks[i].is_name)
            return true;
    }
    for (size_t i = 0; i < c->trusted_network_count; i++) {
        if (c->trusted_networks[i].is_name)
            return true;
    }
    return c->destination_mode == DEST_EDGE && !c->has_edge_networks &&
           c->destination.hosts[0].kind == HOST_NAME;
}

/* What only a restart or a command changes: said, never half-applied. */
static void warn_restart_needed(const struct config *was, const struct config *now, struct diag *d)
{
    struct gbuf keys = {0};
    if (config_restart_keys(was, now, &keys) > 0)
        diag_warning(d, (struct mark){0}, STR_FMT ": the change takes effect at the next restart",
                     STR_ARG(gbuf_view(&keys)));
    gbuf_free(&keys);
    if (was->ring_size_bytes != now->ring_size_bytes)
        diag_warning(d, (struct mark){0},
                     "spool.ring_size: `postern queue resize` gives the rings this size");
}

/* One line of a diagnosis per log event. */
static void log_lines(enum log_event event, str_t text)
{
    str_t line;
    while (text.n) {
        str_cut(text, '\n', &line, &text);
        log_emit(event, (const struct log_field[]){LF_STR("text", line)}, 1);
    }
}

/* Under the lock. Takes `s`. */
static void swap_snapshot(struct gateway *g, struct snapshot *s)
{
    struct snapshot *old = g->current;
    g->current = s;
    lists_in_force(&g->lists, s->lists, s->list_count);
    for (unsigned i = 0; i < g->worker_count; i++)
        worker_set_snapshot(&g->workers[i], s);
    const struct config *c = policy_config(s->policy);
    log_set(c->log.format, c->log.level);
    verification_configured(&g->verify, c);
    certificates_set(&g->certificates, s);
    snapshot_unref(old);
}

/* Under the lock. `text` is the configuration file's. */
static err_t make_current(struct gateway *g, str_t text, enum lists_rule rule, struct diag *d)
{
    struct snapshot *s;
    struct config *c;
    err_t err = config_load_text(text, g->config_path, &c, d);
    if (err)
        return err;
    if (rule != LISTS_KEEP) /* there the file is the old one, and what cannot be read now is kept */
        err = confine_check(&g->confine, c, d);
    if (err) {
        config_free(c);
        return err;
    }
    err = snapshot_build(&s, c, g->dns, &g->names, g->current, &g->lists, rule, d);
    if (err)
        return err;
    warn_restart_needed(policy_config(g->current->policy), policy_config(s->policy), d);
    swap_snapshot(g, s);
    return 0;
}

static err_t reload_locked(struct gateway *g, bool shrunk_lists_ok, struct diag *d)
{
    struct gbuf text = {0};
    err_t err = g->draining ? ERR_CLOSED : config_read_file(g->config_path, &text, d);
    if (!err)
        err = make_current(g, gbuf_view(&text), shrunk_lists_ok ? LISTS_CONFIRMED : LISTS_STRICT, d);
    if (err) {
        gbuf_free(&text);
        return err;
    }
    gbuf_free(&g->config_text);
    g->config_text = text;
    return 0;
}

err_t gateway_reload(struct gateway *g, bool shrunk_lists_ok, struct gbuf *text)
{
    struct diag d = {.file = g->config_path};

    pthread_mutex_lock(&g->lock);
    err_t err = reload_locked(g, shrunk_lists_ok, &d);
    metric_inc(err ? M_reloads_refused : M_reloads_ok);
    log_lines(err ? EV_reload_refused : EV_boot_note, gbuf_view(&d.text));
    if (!err) {
        LOG(reload, LF_CSTR("file", g->config_path), LF_U64("generation", g->current->generation));
        certificates_warn(&g->certificates, g->current);
    } else if (!d.text.n) {
        LOG(reload_refused, LF_ERR("text", err));
    }
    pthread_mutex_unlock(&g->lock);
    if (text)
        gbuf_str(text, gbuf_view(&d.text));
    diag_free(&d);
    return err;
}

/* The configuration in force again, not the file, which somebody may be editing: host names may stand for
 * other addresses by now, lists of recipients may say something else. True: look at the lists again soon. */
static bool refresh(struct gateway *g, bool names_too)
{
    struct diag d = {.file = g->config_path};

    pthread_mutex_lock(&g->lock);
    enum lists_news lists = lists_look(g->current->lists, g->current->list_count);
    if (lists == LISTS_CHANGED || (names_too && has_named_networks(policy_config(g->current->policy)))) {
        (void)make_current(g, gbuf_view(&g->config_text), LISTS_KEEP, &d); /* else what is known stays */
        log_lines(EV_boot_note, gbuf_view(&d.text));
    }
    pthread_mutex_unlock(&g->lock);
    diag_free(&d);
    return lists == LISTS_UNSETTLED;
}

/* --- what the main thread waits for --- */

enum { EVENT_TIME = 0, EVENT_DRAINED = -1, EVENT_LISTS = -2 }; /* else a signal's number */

static int next_event(struct gateway *g, int timeout_ms)
{
    struct pollfd p[] = {{.fd = g->signal_fd, .events = POLLIN},
                         {.fd = g->drained_fd, .events = POLLIN},
                         {.fd = g->lists.fd, .events = POLLIN}}; /* -1 is skipped */
    struct signalfd_siginfo si;
    uint64_t count;

    if (poll(p, COUNT_OF(p), timeout_ms) <= 0)
        return EVENT_TIME;
    if (p[1].revents && read(g->drained_fd, &count, sizeof count) == (ssize_t)sizeof count) {
        g->drained_count += (unsigned)count;
        return EVENT_DRAINED;
    }
    if (p[0].revents && read(g->signal_fd, &si, sizeof si) == (ssize_t)sizeof si)
        return (int)si.ssi_signo;
    if (p[2].revents) {
        lists_drain(&g->lists);
        return EVENT_LISTS;
    }
    return EVENT_TIME;
}

static bool is_end(int event)
{
    return event == SIGTERM || event == SIGINT;
}

/* --- drain --- */

static void worker_drained(void *ctx)
{
    const struct gateway *g = ctx;
    uint64_t one = 1;
    must(write(g->drained_fd, &one, sizeof one) == (ssize_t)sizeof one);
}

/* What holds a worker up now is the kernel or our mistake; a crash costs nothing that got 250. */
NORETURN static void give_up(void)
{
    LOG(internal, LF_CSTR("text", "a worker does not end; its ring is recovered at the next start"));
    log_stop();
    _exit(EX_SOFTWARE);
}

static void hurry(struct gateway *g)
{
    dns_cancel(g->dns);
    for (unsigned i = 0; i < g->worker_count; i++) {
        if (g->workers[i].launched)
            worker_hurry(&g->workers[i]);
    }
}

static void drain_workers(struct gateway *g, uint32_t limit_ms)
{
    unsigned wanted_count = 0;
    for (unsigned i = 0; i < g->worker_count; i++) {
        if (g->workers[i].launched) {
            worker_drain(&g->workers[i], worker_drained, g);
            wanted_count++;
        }
    }
    uint64_t until_ns = clock_mono_ns() + limit_ms * NS_PER_MS;
    for (bool is_hurried = false; g->drained_count < wanted_count;) {
        uint64_t now_ns = clock_mono_ns();
        uint64_t left_ms = now_ns < until_ns ? (until_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
        if (left_ms > 0 && (!is_end(next_event(g, (int)left_ms)) || is_hurried))
            continue;
        if (is_hurried)
            give_up();
        is_hurried = true;
        hurry(g);
        until_ns = clock_mono_ns() + GRACE_NS;
    }
}

void gateway_end(struct gateway *g)
{
    pthread_mutex_lock(&g->lock);
    g->draining = true;
    uint32_t limit_ms = g->current ? policy_config(g->current->policy)->timeouts.shutdown : 0;
    pthread_mutex_unlock(&g->lock);

    drain_workers(g, limit_ms);
    /* Before the loops are gone: admin may be asking one, and DNS touches a loop for a moment after it has
     * given it its last answer. */
    admin_stop(g->admin);
    dns_stop(g->dns);
    for (unsigned i = 0; i < g->worker_count; i++) {
        if (g->workers[i].launched)
            worker_join(&g->workers[i]);
        else if (g->workers[i].current)
            worker_discard(&g->workers[i]);
    }
    free(g->workers);
    cells_free(g->budget);
    strangers_free(g->strangers);
    edge_lines_free(g->edge_lines);
    verification_close(&g->verify);
    snapshot_unref(g->current);
    names_free(&g->names);
    lists_close(&g->lists);
    pause_free(&g->pause);
    certificates_free(&g->certificates);
    ports_close(&g->ports);
    confine_free(&g->confine);
    gbuf_free(&g->config_text);
    int fds[] = {g->signal_fd, g->drained_fd, g->lock_fd};
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

static uint64_t now_ms(void)
{
    return clock_mono_ns() / NS_PER_MS;
}

/* Until it is to end. */
static void serve(struct gateway *g)
{
    uint64_t names_at_ms = now_ms() + REFRESH_MS, lists_at_ms = names_at_ms;
    for (;;) {
        uint64_t now = now_ms(), due_ms = MIN(names_at_ms, lists_at_ms);
        int event = next_event(g, due_ms > now ? (int)(due_ms - now) : 0);
        if (is_end(event))
            return;
        if (event == SIGHUP)
            (void)gateway_reload(g, false, NULL);
        now = now_ms();
        if (event == EVENT_LISTS) /* others may follow: all at once, in a moment */
            lists_at_ms = MIN(lists_at_ms, now + LISTS_SETTLE_MS);
        if (now < MIN(names_at_ms, lists_at_ms))
            continue;
        bool is_unsettled = refresh(g, now >= names_at_ms);
        if (now >= names_at_ms)
            names_at_ms = now + REFRESH_MS;
        lists_at_ms = is_unsettled ? now + LISTS_SETTLE_MS : names_at_ms;
        pthread_mutex_lock(&g->lock);
        certificates_warn_daily(&g->certificates, g->current);
        pthread_mutex_unlock(&g->lock);
    }
}

int gateway_run(struct gateway *g)
{
    serve(g);
    pthread_mutex_lock(&g->lock);
    LOG(drain, LF_U64("timeout_s", policy_config(g->current->policy)->timeouts.shutdown / 1000));
    pthread_mutex_unlock(&g->lock);
    gateway_end(g);
    LOG(stopped, LF_I64("queued", metric_read(M_queue_messages)));
    log_stop();
    return EX_OK;
}
