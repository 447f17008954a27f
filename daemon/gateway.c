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

#define NAMES_REFRESH_MS (5 * 60 * 1000)

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

/* What only a restart changes: said, never half-applied. */
static void warn_restart_needed(const struct config *was, const struct config *now, struct diag *d)
{
    struct gbuf keys = {0};
    if (config_restart_keys(was, now, &keys) > 0)
        diag_warning(d, (struct mark){0}, STR_FMT ": the change takes effect at the next restart",
                     STR_ARG(gbuf_view(&keys)));
    gbuf_free(&keys);
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

static void swap_snapshot(struct gateway *g, struct snapshot *s)
{
    struct snapshot *old = g->current;
    g->current = s;
    for (unsigned i = 0; i < g->worker_count; i++)
        worker_set_snapshot(&g->workers[i], s);
    const struct config *c = policy_config(s->policy);
    log_set(c->log.format, c->log.level);
    snapshot_unref(old);
}

err_t gateway_reload(struct gateway *g, struct gbuf *text)
{
    struct diag d = {0};
    struct snapshot *s = NULL;
    err_t err = ERR_CLOSED;

    pthread_mutex_lock(&g->lock);
    if (!g->draining)
        err = snapshot_load(&s, g->config_path, g->dns, g->current->generation + 1, &d);
    if (!err) {
        warn_restart_needed(policy_config(g->current->policy), policy_config(s->policy), &d);
        swap_snapshot(g, s);
        metric_inc(M_reloads_ok);
        log_lines(EV_boot_note, gbuf_view(&d.text));
        LOG(reload, LF_CSTR("file", g->config_path), LF_U64("generation", s->generation));
    } else {
        metric_inc(M_reloads_refused);
        log_lines(EV_reload_refused, gbuf_view(&d.text));
    }
    pthread_mutex_unlock(&g->lock);
    if (text)
        gbuf_str(text, gbuf_view(&d.text));
    diag_free(&d);
    return err;
}

static void refresh_names(struct gateway *g)
{
    pthread_mutex_lock(&g->lock);
    bool wanted = has_named_networks(policy_config(g->current->policy));
    pthread_mutex_unlock(&g->lock);
    if (wanted)
        (void)gateway_reload(g, NULL); /* a bad file meanwhile is logged, and the old snapshot stays */
}

/* --- drain --- */

static void worker_drained(void *ctx)
{
    struct gateway *g = ctx;
    pthread_mutex_lock(&g->lock);
    g->drained_count++;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static void drain(struct gateway *g)
{
    int64_t queued = metric_read(M_queue_messages);

    pthread_mutex_lock(&g->lock);
    g->draining = true;
    LOG(drain, LF_U64("timeout_s", policy_config(g->current->policy)->timeouts.shutdown / 1000));
    pthread_mutex_unlock(&g->lock);
    for (unsigned i = 0; i < g->worker_count; i++)
        worker_drain(&g->workers[i], worker_drained, g);
    pthread_mutex_lock(&g->lock);
    while (g->drained_count < g->worker_count)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
    admin_stop(g->admin); /* before the loops end: it may be asking one */
    for (unsigned i = 0; i < g->worker_count; i++)
        worker_join(&g->workers[i]);
    dns_stop(g->dns);
    snapshot_unref(g->current);
    tls_context_unref(g->tls_client);
    tls_context_unref(g->tls_client_verify);
    free(g->workers);
    LOG(stopped, LF_I64("queued", queued));
    log_stop();
    close(g->lock_fd);
}

int gateway_run(struct gateway *g)
{
    sigset_t set; /* blocked since boot, in all threads */
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    must(fd >= 0);

    for (bool run = true; run;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int n = poll(&p, 1, NAMES_REFRESH_MS);
        struct signalfd_siginfo si;
        if (n == 0) {
            refresh_names(g);
        } else if (n > 0 && read(fd, &si, sizeof si) == (ssize_t)sizeof si) {
            if (si.ssi_signo == SIGHUP)
                (void)gateway_reload(g, NULL);
            else
                run = false;
        }
    }
    close(fd);
    drain(g);
    return EX_OK;
}
