/* smtp/server/service_rcpt.c: what becomes of a recipient: is there a way to it, does its client ask for too
 * many that do not exist, does its server know it. The answer may take a while; a client that collects
 * addresses waits longer. */
#include "smtp/server/service_priv.h"

/* Of a recipient that could not be decided at once. */
struct rcpt_wait {
    struct session *session;
    struct verify_ask ask;
    str_t to;      /* the engine's, until it is told */
    bool is_asked; /* verify/ has `ask` */
    struct timer tarpit;
    enum reply_id reply;
    char reference[sizeof((struct verify_answer *)NULL)->reference];
};

size_t service_rcpt_wait_bytes(void)
{
    return sizeof(struct rcpt_wait);
}

static uint32_t now_s(void)
{
    return (uint32_t)(clock_wall_ns() / NS_PER_S);
}

static const struct config *config_of(const struct session *s)
{
    return policy_config(smtpd_policy(s->engine));
}

/* Only strangers collect addresses: the edge asks for what others want to know, and is believed. */
static enum harvest_level level_of(const struct session *s)
{
    if (smtpd_class(s->engine) != CLASS_STRANGER)
        return HARVEST_NONE;
    return harvest_level(s->service->opt.strangers->unknown, ip_client_key(&s->peer.ip), config_of(s),
                         now_s());
}

static void count_against(const struct session *s)
{
    if (smtpd_class(s->engine) == CLASS_STRANGER)
        harvest_count(s->service->opt.strangers->unknown, ip_client_key(&s->peer.ip), config_of(s), now_s());
}

void service_rcpt_cancel(struct session *s)
{
    struct rcpt_wait *w = s->rcpt_wait;
    s->parked = NULL;
    if (!w)
        return;
    s->rcpt_wait = NULL;
    if (w->is_asked)
        verifier_cancel(&w->ask);
    timer_disarm(s->service->opt.loop, &w->tarpit);
    pool_put(&s->service->rcpt_waits, w);
}

static void decide(struct session *s, enum reply_id reply, str_t reference)
{
    smtpd_rcpt_decided(s->engine, reply, reference.n ? reference : STR_NONE);
}

/* After a wait: the engine has not read on meanwhile. */
static void decide_late(struct rcpt_wait *w)
{
    struct session *s = w->session;
    enum reply_id reply = w->reply;
    char reference[sizeof w->reference];
    memcpy(reference, w->reference, sizeof reference);
    service_rcpt_cancel(s);
    decide(s, reply, str_cstr(reference));
    if (s->closed)
        return;
    conn_resume(session_conn(s));
    session_touch(s, 0);
}

static void tarpit_over(struct timer *t)
{
    decide_late(container_of(t, struct rcpt_wait, tarpit));
}

static bool is_unknown(const struct verify_answer *a)
{
    return !a->shadow && (a->reply == R_unknown_user || a->reply == R_rcpt_disabled);
}

static void tell(const struct rcpt_wait *w, const struct verify_answer *a)
{
    const struct session *s = w->session;
    if (!a->shadow)
        return;
    metric_inc(M_verify_shadow);
    LOG(verify_shadow, LF_QID("sid", s->id), LF_IP("client", &s->peer.ip), LF_STR("to", w->to),
        LF_I64("would", reply_def(a->would)->code), LF_CSTR("source", answer_source_name(a->source)));
}

/* True: the answer has to wait. */
static bool detain(struct rcpt_wait *w, const struct verify_answer *a)
{
    struct session *s = w->session;
    tell(w, a);
    if (is_unknown(a))
        count_against(s);
    w->reply = a->reply;
    memcpy(w->reference, a->reference, sizeof w->reference);
    if (level_of(s) < HARVEST_TARPIT)
        return false;
    metric_inc(M_rcpts_tarpitted);
    timer_arm(s->service->opt.loop, &w->tarpit, config_of(s)->harvest.tarpit_ms);
    return true;
}

static void answered(struct verify_ask *ask, const struct verify_answer *a)
{
    struct rcpt_wait *w = container_of(ask, struct rcpt_wait, ask);
    w->is_asked = false;
    if (!detain(w, a))
        decide_late(w);
}

static struct verify_query query_of(const struct session *s, const struct smtpd_rcpt *r)
{
    return (struct verify_query){
        .address = &r->address,
        .text = r->text,
        .sender = str_cstr(r->sender),
        .class = smtpd_class(s->engine),
        .client = s->peer.ip,
        .policy = smtpd_policy(s->engine),
        .known_only = smtpd_class(s->engine) == CLASS_STRANGER &&
                      shed_stage(&s->service->shed, SHED_MEMORY) >= SHED_UNKNOWN,
    };
}

static void verify(struct session *s, const struct smtpd_rcpt *r)
{
    struct verify_answer now;
    struct verify_query q = query_of(s, r);
    struct rcpt_wait *w = pool_get(&s->service->rcpt_waits);
    if (!w) {
        decide(s, R_rcpt_temp, STR_NONE);
        return;
    }
    w->session = s;
    w->to = r->text;
    w->ask.done = answered;
    w->tarpit.fire = tarpit_over;
    s->rcpt_wait = w;
    if (verifier_ask(s->service->opt.verifier, &q, &w->ask, &now) == ERR_PENDING) {
        w->is_asked = true;
    } else if (!detain(w, &now)) {
        service_rcpt_cancel(s);
        decide(s, now.reply, str_cstr(now.reference));
    }
}

/* R_ok: it is to be verified. Asked for recipients seen ahead as well, so it changes nothing. */
static enum reply_id judge(const struct session *s, const struct smtpd_rcpt *r)
{
    struct route route;
    err_t err = policy_route(smtpd_policy(s->engine), &r->address, &route);
    if (err)
        return err == ERR_NOT_FOUND ? R_relay_denied : R_no_route_now;
    if (!s->service->opt.verifier || smtpd_class(s->engine) == CLASS_TRUSTED ||
        str_ieq(r->address.local, STR("postmaster"))) /* RFC 5321 4.5.1: it exists */
        return R_rcpt_ok;
    switch (level_of(s)) {
    case HARVEST_DISCONNECT: return R_too_many_unknown;
    case HARVEST_DEFER: return R_rcpt_temp;
    default: return R_ok;
    }
}

/* True: it is answered, or waits. */
static bool stopped_by_list(struct session *s, const struct smtpd_rcpt *r)
{
    const char *zone = dnsbl_zone(s);
    if (smtpd_class(s->engine) != CLASS_STRANGER || (!zone && !s->dnsbl_waiting) ||
        str_ieq(r->address.local, STR("postmaster"))) /* who was listed by mistake must be able to ask */
        return false;
    if (zone)
        decide(s, R_listed, str_cstr(zone));
    else
        s->parked = r;
    return true;
}

void service_rcpt_go_on(struct session *s)
{
    const struct smtpd_rcpt *r = s->parked;
    if (!r)
        return;
    s->parked = NULL;
    service_rcpt(s, r);
    if (s->closed)
        return;
    conn_resume(session_conn(s));
    session_touch(s, 0);
}

/* Recipients are what one session can make us keep most of. */
static bool is_out_of_memory(const struct session *s)
{
    return smtpd_class(s->engine) == CLASS_STRANGER && shed_stage(&s->service->shed, SHED_MEMORY) == SHED_ALL;
}

void service_rcpt(void *host, const struct smtpd_rcpt *r)
{
    struct session *s = host;
    s->ahead_count -= s->ahead_count > 0;
    service_count_for_memory(s->service);
    enum reply_id reply = is_out_of_memory(s) ? R_no_space : judge(s, r);
    if ((reply == R_ok || reply == R_rcpt_ok) && stopped_by_list(s, r))
        return;
    if (reply == R_ok) {
        verify(s, r);
        return;
    }
    if (reply == R_rcpt_temp)
        count_against(s);
    else if (reply == R_too_many_unknown)
        metric_inc(M_sessions_harvest);
    decide(s, reply, STR_NONE);
}

/* For a stranger not more than would be answered if all of them, and the one that is asked for, were unknown:
 * what is asked for ahead of an answer that stops it teaches him nothing, and costs the server as much. */
static bool may_look_ahead(const struct session *s)
{
    if (smtpd_class(s->engine) != CLASS_STRANGER)
        return true;
    return s->ahead_count + 1 < harvest_room(s->service->opt.strangers->unknown, ip_client_key(&s->peer.ip),
                                             config_of(s), now_s());
}

bool service_rcpt_ahead(void *host, const struct smtpd_rcpt *r)
{
    struct session *s = host;
    if (!s->rcpt_wait || judge(s, r) != R_ok)
        return true;
    struct verify_query q = query_of(s, r);
    if (q.known_only)
        return true;
    if (!may_look_ahead(s))
        return false;
    s->ahead_count++;
    verifier_hint(s->service->opt.verifier, &q);
    return true;
}

bool service_discards(void *host, const struct address *a)
{
    const struct session *s = host;
    return s->service->opt.verify && verifier_is_token(s->service->opt.verify, config_of(s), a);
}
