/* net/dns.c: the thread between the workers and libunbound.
 *
 *      dns_ask -> inbox -> lookup (1 or 2 questions) -> libunbound's own thread
 *                             | answer, or time-out            |
 *      answered <- loop_post <-+<------ ub_process <-----------+
 *
 * All lookups live as long as one another (dns.timeout_ms), so their list is ordered by deadline. */
#include "net/dns.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/pool.h"
#include "net/dns_priv.h"

#define INBOX_LOG2 12
#define INBOX_TURN 256 /* queries taken before answers get their turn */

struct lookup {
    struct link link;
    struct dns *dns;
    struct dns_query *q;
    uint64_t deadline_ns;
    uint32_t part_count;
    struct dns_part
        parts[2]; /* DNS_ADDRESS: AAAA, A. DNS_MX: one, whose records go straight into the query */
};

struct dns {
    struct dns_settings settings;
    uint64_t timeout_ns;
    pthread_t thread;
    int wake_fd;
    struct mailbox *inbox; /* owned */
    atomic_bool cancelled, stopping;

    /* The thread's own. */
    struct ub_ctx *ub; /* owned; NULL after it broke, until the next query */
    struct list open;  /* lookups, earliest deadline first */
    struct pool lookups;
};

struct dns_waiter {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool done;
};

/* --- answering --- */

static void answer_on_loop(struct mail *m)
{
    struct dns_query *q = container_of(m, struct dns_query, mail);
    q->answered(q);
}

static void tell(struct dns_query *q)
{
    double seconds = (double)(clock_mono_ns() - q->asked_ns) / (double)NS_PER_S;
    if (q->err == ERR_DNS_TEMP || q->err == ERR_DNS_BOGUS)
        metric_inc(M_dns_failures);
    metric_observe(H_dns_s, seconds);
    LOG(dns, LF_CSTR("name", q->name), LF_CSTR("type", q->kind == DNS_MX ? "mx" : "address"),
        LF_CSTR("result", q->err ? err_text(q->err) : "ok"), LF_U64("ms", (uint64_t)(seconds * 1000)));

    if (q->loop) {
        q->mail.deliver = answer_on_loop;
        loop_post(q->loop, &q->mail);
        return;
    }
    struct dns_waiter *w = q->waiter;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    pthread_cond_signal(&w->answered);
    pthread_mutex_unlock(&w->lock);
}

static void fail(struct dns_query *q, err_t err)
{
    q->err = err;
    q->count = 0;
    q->secure = false;
    q->ttl_s = 0;
    tell(q);
}

/* --- lookups --- */

static void lookup_finish(struct lookup *k)
{
    struct dns *d = k->dns;
    struct dns_query *q = k->q;
    err_t err = k->parts[0].err;
    if (q->kind == DNS_IPV4) { /* nothing else was asked for: that half says the same, and has nothing */
        k->parts[1] = k->parts[0];
        k->parts[1].count = 0;
    }
    if (q->kind != DNS_MX)
        dns_merge_addresses(q, &k->parts[0], &k->parts[1]);
    list_remove(&k->link);
    pool_put(&d->lookups, k);
    if (q->kind == DNS_MX && err)
        fail(q, err);
    else
        tell(q);
}

static void lookup_part_done(struct lookup *k)
{
    for (uint32_t i = 0; i < k->part_count; i++) {
        if (k->parts[i].pending)
            return;
    }
    lookup_finish(k);
}

/* What is still open is given up; what has been answered counts. */
static void lookup_give_up(struct lookup *k)
{
    for (uint32_t i = 0; i < k->part_count; i++) {
        struct dns_part *p = &k->parts[i];
        if (!p->pending)
            continue;
        ub_cancel(k->dns->ub, p->async_id); /* no callback after this */
        p->pending = false;
        p->err = ERR_DNS_TEMP;
    }
    lookup_finish(k);
}

/* libunbound's callback, from inside ub_process(). */
static void part_answered(void *arg, int ub_err, struct ub_result *r)
{
    struct dns_part *p = arg;
    struct dns_query *q = p->lookup->q;
    p->pending = false;
    p->err = dns_judge(ub_err, r);
    if (!p->err && q->kind != DNS_MX) {
        dns_take_addresses(p, r);
    } else if (!p->err) {
        q->err = 0;
        dns_take_mx(q, r);
        p->err = q->err;
    }
    ub_resolve_free(r);
    lookup_part_done(p->lookup);
}

static void part_ask(struct lookup *k, int rrtype)
{
    struct dns_part *p = &k->parts[k->part_count++];
    *p = (struct dns_part){.lookup = k, .rrtype = rrtype, .pending = true};
    if (ub_resolve_async(k->dns->ub, k->q->name, rrtype, DNS_CLASS_IN, p, part_answered, &p->async_id)) {
        p->pending = false;
        p->err = ERR_DNS_TEMP;
    }
}

static bool resolver_there(struct dns *d)
{
    char text[128];
    struct sbuf error = SBUF_ON(text);
    if (d->ub || !dns_resolver_open(&d->ub, &d->settings, false, &error))
        return true;
    LOG(internal, LF_STR("text", sbuf_view(&error)));
    return false;
}

static void lookup_start(struct dns *d, struct dns_query *q)
{
    struct lookup *k = pool_get(&d->lookups);
    if (!k) {
        fail(q, ERR_DNS_TEMP);
        return;
    }
    k->dns = d;
    k->q = q;
    k->deadline_ns = clock_mono_ns() + d->timeout_ns;
    list_push_back(&d->open, &k->link);
    if (q->kind == DNS_MX) {
        part_ask(k, DNS_TYPE_MX);
    } else {
        if (q->kind == DNS_ADDRESS)
            part_ask(k, DNS_TYPE_AAAA);
        part_ask(k, DNS_TYPE_A);
    }
    lookup_part_done(k); /* when none could be asked */
}

static void query_arrived(struct mail *m)
{
    struct dns_query *q = container_of(m, struct dns_query, mail);
    struct dns *d = q->dns;
    metric_inc(M_dns_queries);
    if (!dns_name_valid(q->name))
        fail(q, ERR_DNS_NXDOMAIN);
    else if (atomic_load(&d->cancelled) || !resolver_there(d))
        fail(q, ERR_DNS_TEMP);
    else
        lookup_start(d, q);
}

/* --- the thread --- */

static void give_up_until(struct dns *d, uint64_t now_ns)
{
    struct link *first;
    while ((first = list_first(&d->open)) != NULL) {
        struct lookup *k = container_of(first, struct lookup, link);
        if (k->deadline_ns > now_ns)
            return;
        lookup_give_up(k);
    }
}

static int wait_ms(const struct dns *d)
{
    const struct link *first = list_first(&d->open);
    if (!first)
        return -1;
    uint64_t deadline = container_of(first, const struct lookup, link)->deadline_ns, now = clock_mono_ns();
    return deadline <= now ? 0 : (int)MIN((deadline - now + NS_PER_MS - 1) / NS_PER_MS, (uint64_t)INT32_MAX);
}

static void take_answers(struct dns *d)
{
    int rc = d->ub ? ub_process(d->ub) : 0;
    if (!rc)
        return;
    /* Its thread or the pipe to it is gone: begin again with a new one. */
    char text[128];
    struct sbuf b = SBUF_ON(text);
    sbuf_printf(&b, "libunbound: %s", ub_strerror(rc));
    LOG(internal, LF_STR("text", sbuf_view(&b)));
    give_up_until(d, UINT64_MAX);
    ub_ctx_delete(d->ub);
    d->ub = NULL;
}

static void *dns_thread(void *arg)
{
    struct dns *d = arg;
    pthread_setname_np(pthread_self(), "dns");
    (void)!metrics_thread_start(); /* without a block of its own it counts in the shared one */
    for (bool more = true, stopping = false; more || !stopping;) {
        struct pollfd fds[] = {{.fd = d->wake_fd, .events = POLLIN},
                               {.fd = d->ub ? ub_fd(d->ub) : -1, .events = POLLIN}};
        uint64_t wakes;
        int ready = poll(fds, COUNT_OF(fds), more ? 0 : wait_ms(d));
        if (ready > 0 && fds[0].revents)
            (void)!read(d->wake_fd, &wakes, sizeof wakes);
        stopping =
            atomic_load(&d->stopping); /* before the inbox: what was asked before dns_stop() is in it */
        mailbox_run(d->inbox, INBOX_TURN, &more);
        if (ready > 0 && fds[1].revents)
            take_answers(d);
        give_up_until(d, atomic_load(&d->cancelled) ? UINT64_MAX : clock_mono_ns());
    }
    return NULL;
}

static void wake(void *ctx)
{
    const struct dns *d = ctx;
    uint64_t one = 1;
    (void)!write(d->wake_fd, &one,
                 sizeof one); /* fails only when the counter is full, and then it is awake */
}

/* --- life --- */

/* Signals belong to the main thread. */
static err_t start_thread(struct dns *d)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&d->thread, NULL, dns_thread, d);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -rc;
}

static void dns_free(struct dns *d)
{
    ub_ctx_delete(d->ub);
    mailbox_destroy(d->inbox);
    if (d->wake_fd >= 0)
        close(d->wake_fd);
    pool_free(&d->lookups);
    free(d);
}

err_t dns_start(struct dns **out, const struct config *c, struct sbuf *error)
{
    *out = NULL;
    struct dns *d = calloc(1, sizeof *d);
    if (!d) {
        sbuf_cstr(error, "out of memory");
        return -ENOMEM;
    }
    dns_settings_take(&d->settings, c);
    d->timeout_ns = c->dns.timeout_ms * NS_PER_MS;
    list_init(&d->open);
    pool_init(&d->lookups, "dns_lookups", sizeof(struct lookup), 0); /* bounded by the queries' owners */
    d->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    err_t err = d->wake_fd < 0 ? -errno : mailbox_create(&d->inbox, INBOX_LOG2, wake, d);
    if (!err)
        err = dns_resolver_open(&d->ub, &d->settings, true, error);
    if (!err)
        err = start_thread(d);
    if (err) {
        if (error->n == 0)
            sbuf_cstr(error, err_text(err));
        dns_free(d);
        return err;
    }
    *out = d;
    return 0;
}

void dns_cancel(struct dns *d)
{
    atomic_store(&d->cancelled, true);
    wake(d);
}

void dns_stop(struct dns *d)
{
    if (!d)
        return;
    atomic_store(&d->cancelled, true);
    atomic_store(&d->stopping, true);
    wake(d);
    pthread_join(d->thread, NULL);
    dns_free(d);
}

static void ask(struct dns *d, struct dns_query *q)
{
    q->dns = d;
    q->asked_ns = clock_mono_ns();
    q->mail.deliver = query_arrived;
    mailbox_send(d->inbox, &q->mail);
}

void dns_ask(struct dns *d, struct loop *l, struct dns_query *q)
{
    must(l && q->answered);
    q->loop = l;
    q->waiter = NULL;
    ask(d, q);
}

void dns_ask_blocking(struct dns *d, struct dns_query *q)
{
    struct dns_waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    q->loop = NULL;
    q->waiter = &w;
    ask(d, q);
    pthread_mutex_lock(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.answered, &w.lock);
    pthread_mutex_unlock(&w.lock);
    pthread_cond_destroy(&w.answered);
    pthread_mutex_destroy(&w.lock);
    q->waiter = NULL;
}
