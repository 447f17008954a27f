/* smtp/server/service_session.c: one session's connection: bytes to the engine, time, the end and its log
 * line. */
#include <netinet/in.h>
#include <sys/ioctl.h>

/* This header has tcpi_bytes_acked; the C library's own may be older. */
#include <linux/sockios.h>
#include <linux/tcp.h>

#include "smtp/server/service_priv.h"

/* Input for the engine at a time, and how many bytes of replies may wait for a client that does not read:
 * together they bound what pipelined commands can make us hold. The shortest command with the longest reply
 * makes 25 bytes of one. */
#define FEED_BYTES        4096
#define OUTPUT_HIGH_BYTES 32768
#define REFUSED_LINGER_MS 2000

/* --- time --- */

static void greet(struct session *s);

static bool is_stranger(const struct session *s)
{
    return smtpd_class(s->engine) == CLASS_STRANGER;
}

/* What the client has for what it is to do now; 0: nothing to do. */
static uint64_t step_ms(const struct session *s)
{
    uint64_t ms = smtpd_timeout_ms(s->engine);
    return is_stranger(s) ? MIN(ms, service_patience_ms(s->service)) : ms;
}

/* 0 where there is no such number. */
static uint64_t acked_bytes(struct session *s)
{
    struct tcp_info info = {0};
    socklen_t n = sizeof info;
    (void)getsockopt(conn_fd(session_conn(s)), IPPROTO_TCP, TCP_INFO, &info, &n);
    return info.tcpi_bytes_acked;
}

/* Replies that the kernel has and the client's system has not. */
static bool has_unread(const struct session *s)
{
    int bytes = 0;
    return ioctl(conn_fd(session_conn((struct session *)s)), SIOCOUTQ, &bytes) == 0 && bytes > 0;
}

/* Replies wait, and commands do not renew their time: whoever sends and never reads would stay for ever. */
static void watch_reader(struct session *s)
{
    uint64_t allowed_ms = step_ms(s);
    if (s->unread_due_ms != UINT64_MAX || !allowed_ms || !is_stranger(s) ||
        !policy_config(smtpd_policy(s->engine))->strangers.min_rate)
        return;
    s->unread_due_ms = loop_now_ms(s->service->opt.loop) + allowed_ms;
    s->acked_bytes = acked_bytes(s);
}

/* It may act now, and has its time for that. */
static void all_read(struct session *s, uint64_t now_ms)
{
    uint64_t allowed_ms = step_ms(s);
    s->unread_due_ms = UINT64_MAX;
    if (allowed_ms && s->deadline_ms != UINT64_MAX)
        s->deadline_ms = now_ms + allowed_ms;
}

/* What was read since, at the least rate, gives more of it. Asked only when time is up. */
static void renew_unread(struct session *s, uint64_t now_ms)
{
    uint32_t rate = policy_config(smtpd_policy(s->engine))->strangers.min_rate;
    uint64_t acked = acked_bytes(s), taken = acked - MIN(acked, s->acked_bytes);
    if (!conn_pending_bytes(session_conn(s)) && !has_unread(s)) {
        all_read(s, now_ms);
        return;
    }
    if (!rate) { /* a reload's */
        s->unread_due_ms = UINT64_MAX;
        return;
    }
    s->acked_bytes = acked;
    s->unread_due_ms = MIN(s->unread_due_ms + taken * 1000 / rate, now_ms + step_ms(s));
}

/* Who has replies to read may well wait for them before it acts. */
static uint64_t due_ms(const struct session *s)
{
    uint32_t session_ms = policy_config(smtpd_policy(s->engine))->timeouts.session;
    uint64_t due = s->unread_due_ms == UINT64_MAX ? s->deadline_ms : s->unread_due_ms;
    return session_ms ? MIN(due, s->started_ms + session_ms) : due;
}

static void arm_for_due(struct session *s, uint64_t now_ms)
{
    s->timer_due_ms = due_ms(s);
    timer_arm(s->service->opt.loop, &s->timer, s->timer_due_ms > now_ms ? s->timer_due_ms - now_ms : 0);
}

static void delay_over(struct session *s)
{
    s->delayed = false;
    if (conn_closing(session_conn(s)))
        return;
    smtpd_resume(s->engine);
    conn_resume(session_conn(s));
    session_touch(s, 0);
}

static void timer_fired(struct timer *t)
{
    struct session *s = container_of(t, struct session, timer);
    uint64_t now_ms = loop_now_ms(s->service->opt.loop);
    if (s->proxy_wait) {
        service_proxy_late(s);
        return;
    }
    if (!s->greeted) {
        if (!conn_closing(session_conn(s)))
            greet(s);
        return;
    }
    if (s->delayed) {
        delay_over(s);
        return;
    }
    if (s->deadline_ms == UINT64_MAX) /* session_touch arms it again when the client is to act */
        return;
    if (s->unread_due_ms <= now_ms)
        renew_unread(s, now_ms);
    else if (s->deadline_ms <= now_ms && has_unread(s))
        watch_reader(s);
    if (now_ms < due_ms(s)) {
        arm_for_due(s, now_ms);
        return;
    }
    if (is_stranger(s) && service_is_short(s->service))
        metric_inc(M_overload_cut);
    smtpd_timeout(s->engine);
}

void session_delay(struct session *s, uint32_t ms)
{
    s->delayed = true;
    timer_arm(s->service->opt.loop, &s->timer, ms);
}

void session_wait(struct session *s, uint32_t wait_ms)
{
    timer_arm(s->service->opt.loop, &s->timer, wait_ms);
}

/* A whole command earns all of the time again; bytes of one, or of content, only what they take at the least
 * rate: one byte a minute is worth nothing. */
static uint64_t new_deadline(struct session *s, size_t n, uint64_t now_ms)
{
    const struct config *c = policy_config(smtpd_policy(s->engine));
    uint64_t allowed_ms = step_ms(s), full_ms = now_ms + allowed_ms;
    uint32_t steps = smtpd_steps(s->engine), rate = c->strangers.min_rate;
    bool is_same = n && steps == s->steps && s->deadline_ms != UINT64_MAX;
    s->steps = steps;
    if (!allowed_ms)
        return UINT64_MAX;
    if (!is_same || !rate || !is_stranger(s))
        return full_ms;
    return MIN(full_ms, s->deadline_ms + (uint64_t)n * 1000 / rate);
}

void session_touch(struct session *s, size_t n)
{
    uint64_t now_ms = loop_now_ms(s->service->opt.loop);
    s->deadline_ms = new_deadline(s, n, now_ms);
    if (s->deadline_ms == UINT64_MAX)
        return;
    if (!timer_armed(&s->timer) || s->timer_due_ms > due_ms(s))
        arm_for_due(s, now_ms);
}

void session_hurry(struct session *s)
{
    uint64_t now_ms = loop_now_ms(s->service->opt.loop);
    if (!s->engine || s->closed || !s->greeted || s->deadline_ms == UINT64_MAX || !step_ms(s))
        return;
    s->deadline_ms = MIN(s->deadline_ms, now_ms + step_ms(s));
    if (s->unread_due_ms != UINT64_MAX)
        s->unread_due_ms = MIN(s->unread_due_ms, now_ms + step_ms(s));
    if (!timer_armed(&s->timer) || s->timer_due_ms > due_ms(s))
        arm_for_due(s, now_ms);
}

/* --- the connection's callbacks --- */

static void go_first(struct session *s)
{
    if (!is_stranger(s))
        conn_go_first(session_conn(s));
}

static void start_tls(struct session *s)
{
    go_first(s);
    conn_starttls(session_conn(s), s->service->tls, STR_NONE);
}

static size_t conn_data(struct conn *c, const uint8_t *p, size_t n)
{
    struct session *s = conn_ctx(c);
    uint64_t wall_ms = clock_wall_ns() / NS_PER_MS;
    size_t used = s->proxy_wait ? service_proxy_data(s, p, n) : 0;
    if (s->proxy_wait)
        return used;
    if (!s->engine)
        return n;
    if (!s->greeted) { /* kept until then */
        if (!s->told_early)
            smtpd_early(s->engine);
        s->told_early = true;
        return used;
    }
    if (conn_pending_bytes(c) > 0) /* replies to what came before */
        watch_reader(s);
    while (used < n && !smtpd_waiting(s->engine)) {
        if (conn_pending_bytes(c) >= OUTPUT_HIGH_BYTES && !conn_closing(c)) {
            s->output_paused = true;
            watch_reader(s);
            break;
        }
        used += smtpd_input(s->engine, p + used, MIN(n - used, (size_t)FEED_BYTES), wall_ms);
    }
    session_touch(s, used);
    if (s->tls_asked) {
        s->tls_asked = false;
        start_tls(s);
    }
    return used;
}

static void conn_eof(struct conn *c)
{
    struct session *s = conn_ctx(c);
    if (s->engine)
        smtpd_eof(s->engine, false);
    else
        conn_close(c, 0);
}

static void conn_drained(struct conn *c)
{
    struct session *s = conn_ctx(c);
    if (s->engine && s->unread_due_ms != UINT64_MAX)
        all_read(s, loop_now_ms(s->service->opt.loop));
    if (!s->output_paused)
        return;
    s->output_paused = false;
    conn_resume(c);
}

static void conn_secured(struct conn *c, err_t err)
{
    struct session *s = conn_ctx(c);
    const struct tls_info *info = err ? NULL : conn_tls(c);
    if (!info) {
        smtpd_secured(s->engine, NULL);
        return;
    }
    snprintf(s->tls_version, sizeof s->tls_version, "%s", info->version);
    s->tls_verify = tls_trust_name(info->trust);
    const struct smtpd_tls tls = {
        .version = info->version,
        .cipher = info->cipher,
        .verify = s->tls_verify,
        .class = service_shown_class(s, s->service->tls), /* of today, not of when it came */
    };
    smtpd_secured(s->engine, &tls);
    if (!is_stranger(s))
        service_uncount(s);
    session_touch(s, 0);
}

static void conn_closed(struct conn *c, err_t err)
{
    struct session *s = conn_ctx(c);
    s->closed = true;
    timer_disarm(s->service->opt.loop, &s->timer);
    service_proxy_gone(s);
    if (s->engine)
        smtpd_eof(s->engine, true); /* no effect when the engine closed it */
    session_release(s);
}

static const struct conn_ops conn_ops = {
    .data = conn_data,
    .eof = conn_eof,
    .drained = conn_drained,
    .secured = conn_secured,
    .closed = conn_closed,
};

/* --- beginning and end --- */

void session_connect(struct session *s, int fd)
{
    s->started_ms = loop_now_ms(s->service->opt.loop);
    s->deadline_ms = s->unread_due_ms = UINT64_MAX;
    s->timer.fire = timer_fired;
    conn_open(session_conn(s), s->service->opt.loop, fd, &conn_ops, s);
}

static void greet(struct session *s)
{
    s->greeted = true;
    smtpd_start(s->engine);
    conn_resume(session_conn(s));
    session_touch(s, 0);
}

/* Late for strangers, to see who does not wait; not with implicit TLS, where the client talks first. */
static void greet_in_time(struct session *s, enum listener_tls tls)
{
    uint32_t delay_ms = policy_config(s->service->policy)->strangers.greet_delay_ms;
    if (!delay_ms || s->class != CLASS_STRANGER || tls == LISTENER_TLS_IMPLICIT)
        greet(s);
    else
        timer_arm(s->service->opt.loop, &s->timer, delay_ms);
    if (tls == LISTENER_TLS_IMPLICIT) {
        go_first(s);
        conn_expect_tls(session_conn(s),
                        s->service->tls); /* its hello may stand right behind a PROXY header */
    }
}

err_t session_begin(struct session *s, const struct endpoint *local, enum listener_tls tls)
{
    struct smtpd_service *service = s->service;
    const struct smtpd_client client = {
        .peer = s->peer,
        .local = *local,
        .class = (enum client_class)s->class,
        .tls = tls,
        .step = s->has_via ? ORIGIN_PROXY : ORIGIN_CLIENT,
        .session_id = s->id,
        .memory = &service->memory,
    };
    err_t err = smtpd_create(&s->engine, &service_host, s, &client, service->policy, service->tls != NULL);
    if (err)
        return err;
    dnsbl_start(s);
    greet_in_time(s, tls);
    return 0;
}

void session_refuse(struct session *s, enum reply_id reply, enum close_reason why, bool silent)
{
    char line[512];
    struct sbuf b = SBUF_ON(line);
    s->refused = (uint8_t)why;
    if (silent) {
        conn_close(session_conn(s), 0);
        return;
    }
    reply_write(&b, reply, STR_NONE);
    conn_write(session_conn(s), b.p, b.n);
    metric_reply(reply_def(reply)->code);
    conn_finish(session_conn(s), REFUSED_LINGER_MS);
}

static void log_session(const struct session *s)
{
    struct smtpd_stats st = {.where = "after CONNECT", .reason = (enum close_reason)s->refused};
    enum client_class class = (enum client_class)s->class;
    uint64_t ms = loop_now_ms(s->service->opt.loop) - s->started_ms;
    if (s->engine) {
        smtpd_stats(s->engine, &st);
        class = smtpd_class(s->engine);
    }
    char id[16];
    str_t last = s->message_id ? str_of(id, qid_format(s->message_id, id)) : STR_NONE;
    metric_observe(H_session_s, (double)ms / 1000);
    LOG(session, LF_QID("sid", s->id), LF_STR("id", last), LF_IP("client", &s->peer.ip),
        LF_U64("port", s->peer.port), LF_IP("via", s->has_via ? &s->via : NULL),
        LF_CSTR("real_by", s->step ? origin_step_name((enum origin_step)s->step) : NULL),
        LF_CSTR("class", client_class_name(class)), LF_STR("helo", st.helo),
        LF_CSTR("tls", s->tls_version[0] ? s->tls_version : NULL), LF_CSTR("verify", s->tls_verify),
        LF_U64("messages", st.messages), LF_U64("rcpts", st.rcpts), LF_U64("commands", st.commands),
        LF_U64("errors", st.errors), LF_U64("bytes", st.bytes), LF_U64("ms", ms),
        LF_CSTR("reason", close_reason_name(st.reason)), LF_CSTR("where", st.where));
}

void session_release(struct session *s)
{
    must(s->closed);
    if (s->committing) /* the message will be in the queue, whoever is there to hear it */
        return;
    log_session(s);
    dnsbl_forget(s);
    if (s->engine)
        smtpd_destroy(s->engine);
    if (s->turned_away)
        s->service->refused_count--;
    service_forget(s);
}
