/* smtp/server/service.c: the sessions of one worker: who is let in, reload, drain. */
#include <assert.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/rng.h"
#include "smtp/server/service_priv.h"

static_assert(sizeof(struct session) <= 320, "an idle session is cheap");

#define SCRATCH_BYTES_MAX ((size_t)4 << 20) /* the queue takes no more than 1 MiB of recipients */
/* Connections that are told 421 and waited for; past them it is said once and the door is shut: a flood is
 * not worth memory. */
#define REFUSED_COUNT_MAX 256
#define LOOK_COUNT        64 /* sessions and messages between two looks at memory, timer or not */

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
    pool_init(&s->dnsbl_questions, "smtpd_dnsbl_questions", dnsbl_question_bytes(), 0); /* eight of each */
    arena_init(&s->scratch, SCRATCH_BYTES_MAX);
    list_init(&s->open);
    s->empty_hook.run = empty_run;
    rng_bytes(&s->next_session_id, sizeof s->next_session_id);
    smtpd_service_look(s);
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
    pool_free(&s->dnsbl_questions);
    arena_free(&s->scratch);
    tls_context_unref(s->tls);
    free(s);
}

/* --- overload --- */

bool service_is_short(const struct smtpd_service *s)
{
    return shed_worst(&s->shed) != SHED_NONE;
}

uint64_t service_patience_ms(const struct smtpd_service *s)
{
    enum shed_stage stage = shed_worst(&s->shed);
    return stage == SHED_NONE ? UINT64_MAX
                              : MAX(policy_config(s->policy)->timeouts.overload >> (stage - 1), 1u);
}

/* Who does nothing holds a place that others are turned away for: it has less time from now on. */
static void look(struct smtpd_service *s, enum shed_cause cause, uint64_t used, uint64_t limit)
{
    enum shed_stage was = shed_worst(&s->shed);
    shed_look(&s->shed, cause, used, limit);
    if (shed_worst(&s->shed) <= was)
        return;
    LIST_EACH(&s->open, k)
    session_hurry(container_of(k, struct session, link));
}

static void look_at_memory(struct smtpd_service *s)
{
    uint64_t limit = policy_config(s->policy)->limits.memory;
    s->unlooked_count = 0;
    look(s, SHED_MEMORY, limit && s->opt.memory_used ? s->opt.memory_used() : 0, limit);
}

void service_count_for_memory(struct smtpd_service *s)
{
    if (++s->unlooked_count >= LOOK_COUNT)
        look_at_memory(s);
}

/* --- admission --- */

static enum stranger_entry count_client(struct session *s)
{
    struct smtpd_service *service = s->service;
    enum stranger_entry entry = strangers_enter(service->opt.strangers, ip_client_key(&s->peer.ip),
                                                policy_config(service->policy)->limits.sessions_per_client);
    s->counted = entry == STRANGER_COUNTED;
    return entry;
}

static uint32_t session_limit(const struct smtpd_service *s)
{
    return MAX(policy_config(s->policy)->limits.sessions / s->opt.worker_count, 1u);
}

static uint32_t admitted_count(const struct smtpd_service *s)
{
    return s->session_count - s->refused_count;
}

static void note_sessions(struct smtpd_service *s)
{
    look(s, SHED_SESSIONS, admitted_count(s), session_limit(s));
}

/* There is too little for one more session of this class. */
static bool is_short(const struct smtpd_service *s, enum shed_cause cause, enum client_class class)
{
    return shed_stage(&s->shed, cause) >= (class == CLASS_STRANGER ? SHED_STRANGERS : SHED_ALL);
}

/* A connection that is only being refused would make it worse. */
static bool is_pressed(const struct smtpd_service *s, enum client_class class)
{
    return is_short(s, SHED_FILES, class) || is_short(s, SHED_MEMORY, class);
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
    if (is_short(s, SHED_SESSIONS, class) || is_pressed(s, class))
        return R_overloaded;
    *why = CLOSE_limit;
    if (class == CLASS_STRANGER && per_client &&
        strangers_sessions(s->opt.strangers, ip_client_key(ip)) >= per_client)
        return R_too_many_sessions;
    return R_ok;
}

static bool comes_too_often(struct smtpd_service *s, const struct ip *ip)
{
    const struct cfg_rate *rate = &policy_config(s->policy)->strangers.connections;
    if (pace_take(s->opt.strangers->connections, ip_client_key(ip), rate, clock_mono_ns()))
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
        strangers_leave(s->service->opt.strangers, ip_client_key(&s->peer.ip));
    s->counted = false;
}

enum reply_id service_recount(struct session *s)
{
    if (s->class != CLASS_STRANGER)
        return R_ok;
    if (count_client(s) == STRANGER_TOO_MANY)
        return R_too_many_sessions;
    return comes_too_often(s->service, &s->peer.ip) ? R_too_many_connections : R_ok;
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
    note_sessions(service);
    service_tell_if_empty(service);
}

struct admission {
    enum client_class class;
    enum reply_id reply; /* R_ok, or why not */
    enum close_reason why;
    bool silent; /* it is told nothing: it waits for TLS and reads no clear text */
    bool brief;  /* it is told, and not waited for */
};

static struct admission judge(struct smtpd_service *service, const struct ip *ip, enum listener_tls tls)
{
    struct admission a = {.class = policy_classify(service->policy, ip)};
    a.reply = admit(service, a.class, ip, &a.why);
    a.silent = tls == LISTENER_TLS_IMPLICIT;
    a.brief = service->refused_count >= REFUSED_COUNT_MAX || is_pressed(service, a.class);
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
    if (a.reply == R_ok && a.class == CLASS_STRANGER && count_client(s) == STRANGER_TOO_MANY) {
        a.reply = R_too_many_sessions; /* others came to other workers meanwhile */
        a.why = CLOSE_limit;
    }
    if (a.reply == R_ok) {
        if (session_begin(s, local, tls) == 0) {
            metric_inc(by_class[a.class]);
            note_sessions(service);
            return;
        }
        a.reply = R_overloaded;
        a.why = CLOSE_overload;
    }
    s->turned_away = true;
    service->refused_count++;
    metric_inc(M_sessions_refused);
    note_sessions(service);
    session_refuse(s, a.reply, a.why, a.silent || a.brief);
}

void service_admit(struct session *s, const struct endpoint *local, enum listener_tls tls)
{
    s->service->session_count--; /* it is not in its own way */
    note_sessions(s->service);
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

/* Without a session, and so without memory. */
static void turn_away(int fd, enum reply_id reply, bool silent)
{
    char line[512];
    struct sbuf b = SBUF_ON(line);
    metric_inc(M_sessions_refused);
    if (!silent) {
        reply_write(&b, reply, STR_NONE);
        metric_reply(reply_def(reply)->code);
    }
    listener_turn_away(fd, sbuf_view(&b));
}

void smtpd_service_turn_away(struct smtpd_service *service, int fd, const struct smtpd_door *door)
{
    turn_away(fd, R_overloaded, door->tls == LISTENER_TLS_IMPLICIT);
}

/* The lowest that is free, so all below it are in use. */
static void note_files(struct smtpd_service *service, uint64_t fd)
{
    look(service, SHED_FILES, fd, service->file_limit);
}

void smtpd_service_accept(struct smtpd_service *service, int fd, const struct endpoint *peer,
                          const struct endpoint *local, const struct smtpd_door *door)
{
    bool waits = is_proxy(door, &peer->ip);
    struct admission a = {0};
    note_files(service, (uint64_t)fd);
    note_sessions(service);
    service_count_for_memory(service);
    if (!waits)
        a = judge(service, &peer->ip, door->tls);
    else if (is_short(service, SHED_SESSIONS, CLASS_EDGE) || is_pressed(service, CLASS_EDGE))
        a = (struct admission){.reply = R_overloaded, .brief = true};
    bool is_shut = a.reply != R_ok && (a.silent || a.brief);
    struct session *s = is_shut ? NULL : session_new(service, peer);
    if (!s) {
        turn_away(fd, is_shut ? a.reply : R_overloaded, door->tls == LISTENER_TLS_IMPLICIT);
        note_sessions(service);
        return;
    }
    if (waits) {
        service_proxy_begin(s, fd, local, door->tls);
        return;
    }
    session_connect(s, fd);
    enter(s, a, local, door->tls);
}

static void look_at_files(struct smtpd_service *service)
{
    struct rlimit r;
    service->file_limit = getrlimit(RLIMIT_NOFILE, &r) < 0 ? 0 : r.rlim_cur;
    int fd = eventfd(0, EFD_CLOEXEC);
    note_files(service, fd < 0 ? service->file_limit : (uint64_t)fd);
    if (fd >= 0)
        close(fd);
}

void smtpd_service_look(struct smtpd_service *service)
{
    if (service->opt.counts_files)
        look_at_files(service);
    look_at_memory(service);
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
