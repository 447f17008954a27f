/* smtp/server/service.c: the sessions of one worker: who is let in, reload, drain. */
#include <assert.h>
#include <unistd.h>

#include "core/rng.h"
#include "smtp/server/service_priv.h"

static_assert(sizeof(struct session) <= 320, "an idle session is cheap");

#define SCRATCH_BYTES_MAX ((size_t)4 << 20) /* the queue takes no more than 1 MiB of recipients */
#define KNOWN_SHARE       16                /* 1/16 of the sessions is kept for edge and trusted clients */
/* Connections that are told 421; past them the door is simply shut: a flood is not worth memory. */
#define REFUSED_COUNT_MAX 256

static void empty_run(struct tick_hook *h)
{
    struct smtpd_service *s = container_of(h, struct smtpd_service, empty_hook);
    if (s->emptied || !smtpd_service_is_empty(s))
        return;
    s->emptied = true;
    s->opt.empty(s->opt.ctx); /* last: the service may be gone */
}

void service_tell_if_empty(struct smtpd_service *s)
{
    if (s->draining && smtpd_service_is_empty(s))
        loop_at_tick_end(s->opt.loop, &s->empty_hook);
}

err_t smtpd_service_create(struct smtpd_service **out, const struct smtpd_service_options *opt)
{
    struct smtpd_service *s = calloc(1, sizeof *s);
    *out = s;
    if (!s)
        return -ENOMEM;
    s->opt = *opt;
    s->policy = opt->policy;
    s->tls = opt->tls ? tls_context_ref(opt->tls) : NULL;
    smtpd_memory_init(&s->memory, 0); /* bounded by admission, whose limits a reload may change */
    pool_init(&s->sessions, "smtpd_sessions", sizeof(struct session) + conn_size(), 0);
    pool_init(&s->proxy_waits, "smtpd_proxy_waits", service_proxy_wait_bytes(), 0); /* one a session */
    pool_init(&s->rcpt_waits, "smtpd_rcpt_waits", service_rcpt_wait_bytes(), 0);    /* one a session */
    pool_init(&s->dnsbl_checks, "smtpd_dnsbl", dnsbl_check_bytes(), 0); /* one a session, and what is out */
    s->pace = calloc(1, sizeof *s->pace);
    if (!s->pace) {
        smtpd_service_destroy(s);
        *out = NULL;
        return -ENOMEM;
    }
    arena_init(&s->scratch, SCRATCH_BYTES_MAX);
    list_init(&s->open);
    s->empty_hook.run = empty_run;
    rng_bytes(&s->next_session_id, sizeof s->next_session_id);
    return 0;
}

void smtpd_service_destroy(struct smtpd_service *s)
{
    if (!s)
        return;
    must(smtpd_service_is_empty(s));
    if (link_in_list(&s->empty_hook.link))
        list_remove(&s->empty_hook.link);
    smtpd_memory_free(&s->memory);
    pool_free(&s->sessions);
    pool_free(&s->proxy_waits);
    pool_free(&s->rcpt_waits);
    pool_free(&s->dnsbl_checks);
    free(s->pace);
    arena_free(&s->scratch);
    map64_free(&s->clients);
    tls_context_unref(s->tls);
    free(s);
}

/* --- admission --- */

/* An IPv4 client is its address, an IPv6 client its /64: that is what one customer has. The two do not meet:
 * no IPv6 client comes from 0:ffff::/32. */
uint64_t service_client_key(const struct ip *ip)
{
    uint64_t key;
    memcpy(&key, ip->b + (ip_is_v4(ip) ? 8 : 0), sizeof key);
    return key;
}

static uintptr_t client_sessions(const struct smtpd_service *s, const struct ip *ip)
{
    return (uintptr_t)map64_get(&s->clients, service_client_key(ip));
}

static err_t client_add(struct smtpd_service *s, const struct ip *ip)
{
    return map64_put(&s->clients, service_client_key(ip), (void *)(client_sessions(s, ip) + 1));
}

static void client_subtract(struct smtpd_service *s, const struct ip *ip)
{
    uintptr_t left = client_sessions(s, ip) - 1;
    if (left == 0)
        map64_remove(&s->clients, service_client_key(ip));
    else
        must(map64_put(&s->clients, service_client_key(ip), (void *)left) ==
             0); /* replaces: needs no memory */
}

static uint32_t session_limit(const struct smtpd_service *s, enum client_class class)
{
    uint32_t share = MAX(policy_config(s->policy)->limits.sessions / s->opt.worker_count, 1u);
    return class == CLASS_STRANGER ? share - share / KNOWN_SHARE : share;
}

/* Told when it changes, and over only when there is room to speak of. */
static void note_overload(struct smtpd_service *s)
{
    static const char *const names[] = {"none", "strangers", "all"};
    uint32_t count = s->session_count - s->refused_count, all = session_limit(s, CLASS_EDGE);
    uint32_t strangers = session_limit(s, CLASS_STRANGER);
    enum overload now = count >= all ? OVERLOAD_ALL : count >= strangers ? OVERLOAD_STRANGERS : OVERLOAD_NONE;
    if (now == s->overload || (now < s->overload && count >= strangers - strangers / KNOWN_SHARE))
        return;
    LOG(overload, LF_CSTR("stage", names[now]), LF_CSTR("was", names[s->overload]), LF_U64("sessions", count),
        LF_U64("limit", all));
    metric_set(M_overload_strangers, now >= OVERLOAD_STRANGERS);
    metric_set(M_overload_all, now == OVERLOAD_ALL);
    s->overload = (uint8_t)now;
}

/* R_ok, or what the client is told. */
static enum reply_id admit(const struct smtpd_service *s, enum client_class class, const struct ip *ip,
                           enum close_reason *why)
{
    uint32_t per_client = policy_config(s->policy)->limits.sessions_per_client;
    *why = CLOSE_shutdown;
    if (s->draining)
        return R_shutting_down;
    *why = CLOSE_overload;
    if (s->session_count - s->refused_count >= session_limit(s, class))
        return R_overloaded;
    *why = CLOSE_limit;
    if (class == CLASS_STRANGER && per_client && client_sessions(s, ip) >= per_client)
        return R_too_many_sessions;
    return R_ok;
}

static bool comes_too_often(struct smtpd_service *s, const struct ip *ip)
{
    const struct cfg_rate *rate = &policy_config(s->policy)->strangers.connections;
    if (pace_take(s->pace, service_client_key(ip), PACE_CONNECTIONS, rate, clock_mono_ns()))
        return false;
    metric_inc(M_paced_connections);
    return true;
}

static struct session *session_new(struct smtpd_service *service, const struct endpoint *peer)
{
    struct session *s = pool_get(&service->sessions);
    if (!s)
        return NULL;
    s->service = service;
    s->peer = *peer;
    s->id = service->next_session_id++;
    list_push_back(&service->open, &s->link);
    service->session_count++;
    return s;
}

void service_uncount(struct session *s)
{
    if (s->counted)
        client_subtract(s->service, &s->peer.ip);
    s->counted = false;
}

enum reply_id service_recount(struct session *s)
{
    uint32_t per_client = policy_config(s->service->policy)->limits.sessions_per_client;
    if (s->class != CLASS_STRANGER)
        return R_ok;
    if (per_client && client_sessions(s->service, &s->peer.ip) >= per_client)
        return R_too_many_sessions;
    if (comes_too_often(s->service, &s->peer.ip))
        return R_too_many_connections;
    s->counted = client_add(s->service, &s->peer.ip) == 0;
    return R_ok;
}

enum client_class service_shown_class(struct session *s, const struct tls_context *rules)
{
    int tag = rules && !s->closed ? conn_tls_client_tag(session_conn(s), rules) : -1;
    return tag < 0 ? CLASS_STRANGER : (enum client_class)tag;
}

void service_forget(struct session *s)
{
    struct smtpd_service *service = s->service;
    service_uncount(s);
    list_remove(&s->link);
    service->session_count--;
    pool_put(&service->sessions, s);
    note_overload(service);
    service_tell_if_empty(service);
}

struct admission {
    enum client_class class;
    enum reply_id reply; /* R_ok, or why not */
    enum close_reason why;
    bool silent; /* it is told nothing: it waits for TLS and reads no clear text, or there are too many */
};

static struct admission judge(struct smtpd_service *service, const struct ip *ip, enum listener_tls tls)
{
    struct admission a = {.class = policy_classify(service->policy, ip)};
    a.reply = admit(service, a.class, ip, &a.why);
    a.silent = tls == LISTENER_TLS_IMPLICIT || service->refused_count >= REFUSED_COUNT_MAX;
    if (a.reply == R_ok && a.class == CLASS_STRANGER && comes_too_often(service, ip)) {
        a.reply = R_too_many_connections;
        a.why = CLOSE_limit;
    }
    if (a.reply == R_ok && tls == LISTENER_TLS_IMPLICIT && !service->tls)
        a.reply =
            R_tls_unavailable; /* a reload took the certificates, and the listeners stay until a restart */
    return a;
}

static void enter(struct session *s, struct admission a, const struct endpoint *local, enum listener_tls tls)
{
    static const enum metric by_class[] = {
        [CLASS_STRANGER] = M_sessions_stranger,
        [CLASS_EDGE] = M_sessions_edge,
        [CLASS_TRUSTED] = M_sessions_trusted,
    };
    struct smtpd_service *service = s->service;
    s->class = (uint8_t)a.class;
    if (a.reply == R_ok) {
        s->counted = a.class == CLASS_STRANGER && client_add(service, &s->peer.ip) == 0;
        if (session_begin(s, local, tls) == 0) {
            metric_inc(by_class[a.class]);
            note_overload(service);
            return;
        }
        a.reply = R_overloaded;
        a.why = CLOSE_overload;
    }
    s->turned_away = true;
    service->refused_count++;
    metric_inc(M_sessions_refused);
    note_overload(service);
    session_refuse(s, a.reply, a.why, a.silent);
}

void service_admit(struct session *s, const struct endpoint *local, enum listener_tls tls)
{
    s->service->session_count--; /* it is not in its own way */
    struct admission a = judge(s->service, &s->peer.ip, tls);
    s->service->session_count++;
    enter(s, a, local, tls);
}

static bool is_proxy(const struct smtpd_door *door, const struct ip *ip)
{
    for (size_t i = 0; i < door->proxy_count; i++)
        if (cidr_match(&door->proxies[i], ip))
            return true;
    return false;
}

void smtpd_service_accept(struct smtpd_service *service, int fd, const struct endpoint *peer,
                          const struct endpoint *local, const struct smtpd_door *door)
{
    bool waits = is_proxy(door, &peer->ip);
    struct admission a = {0};
    if (!waits)
        a = judge(service, &peer->ip, door->tls);
    bool shut = waits ? service->session_count - service->refused_count >= session_limit(service, CLASS_EDGE)
                      : a.reply != R_ok && a.silent;
    struct session *s = shut ? NULL : session_new(service, peer);
    if (!s) {
        metric_inc(M_sessions_refused);
        note_overload(service);
        close(fd);
        return;
    }
    if (waits) {
        service_proxy_begin(s, fd, local, door->tls);
        return;
    }
    session_connect(s, fd);
    enter(s, a, local, door->tls);
}

/* --- reload --- */

void smtpd_service_set_policy(struct smtpd_service *service, const struct policy *p, struct tls_context *tls)
{
    struct tls_context *old = service->tls;
    service->policy = p;
    service->tls = tls ? tls_context_ref(tls) : NULL; /* handshakes that began keep theirs */
    tls_context_unref(old);
    LIST_EACH(&service->open, k)
    {
        struct session *s = container_of(k, struct session, link);
        if (s->engine)
            smtpd_set_policy(s->engine, p, tls != NULL, service_shown_class(s, tls));
    }
}

/* Asked now and then after a reload: counting here costs the data path nothing. */
uint32_t smtpd_service_policy_users(const struct smtpd_service *service, const struct policy *p)
{
    uint32_t count = service->policy == p;
    LIST_EACH(&service->open, k)
    {
        const struct session *s = container_of(k, struct session, link);
        count += s->engine && smtpd_policy(s->engine) == p;
    }
    return count;
}

uint32_t smtpd_service_session_count(const struct smtpd_service *s)
{
    return s->session_count;
}

bool smtpd_service_is_empty(const struct smtpd_service *s)
{
    return s->session_count == 0 && s->dnsbl_count == 0;
}

/* --- drain --- */

void smtpd_service_drain(struct smtpd_service *service, bool now)
{
    service->draining = true;
    service->drain_now |= now;
    LIST_EACH(&service->open, k)
    {
        struct session *s = container_of(k, struct session, link);
        struct smtpd_stats st = {.reason = CLOSE_limit};
        if (s->engine)
            smtpd_stats(s->engine, &st);
        if (st.reason == CLOSE_COUNT)
            smtpd_shutdown(s->engine, now);
        else if ((now || s->proxy_wait) && !s->closed) /* only lingers, or has not begun */
            conn_close(session_conn(s), 0);
    }
    service_tell_if_empty(service);
}
