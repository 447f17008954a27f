/* smtp/server/session_origin.c: who the client really is, best source first: it connected itself, or XCLIENT
 * or a PROXY header named it; else, of a message of the edge, XFORWARD, else the edge's own Received: line.
 */
#include "smtp/server/session_priv.h"

#define HOPS_MAX 4 /* of the edge with itself: content filters */

/* What a certificate says goes before what an address says: it was given to somebody. To whom XCLIENT names
 * it was not. */
void session_classify(struct smtpd_session *s)
{
    bool shown = s->tls.class != CLASS_STRANGER && !s->named;
    s->class = shown ? (uint8_t)s->tls.class : (uint8_t)policy_classify(s->policy, &s->peer);
}

/* --- XCLIENT, XFORWARD --- */

enum reply_id session_check_naming(const struct smtpd_session *s, enum extension e)
{
    if (!session_offers(s, e) || !policy_may_name_client(s->policy, (enum client_class)s->class, &s->peer))
        return R_not_authorised;
    return s->tx ? R_in_transaction : R_ok;
}

static struct origin *origin_of(struct smtpd_session *s, struct origin **place)
{
    if (!*place)
        *place = pool_get(&s->memory->origins);
    return *place;
}

static void log_said(const struct smtpd_session *s, const char *command, const struct client_attrs *a)
{
    LOG(client_named, LF_QID("sid", s->id), LF_CSTR("by", command), LF_IP("from", &s->peer),
        LF_STR("name", a->values[ATTR_NAME]), LF_STR("addr", a->values[ATTR_ADDR]),
        LF_STR("port", a->values[ATTR_PORT]), LF_STR("proto", a->values[ATTR_PROTO]),
        LF_STR("helo", a->values[ATTR_HELO]), LF_STR("login", a->values[ATTR_LOGIN]),
        LF_STR("destaddr", a->values[ATTR_DESTADDR]), LF_STR("destport", a->values[ATTR_DESTPORT]),
        LF_STR("ident", a->values[ATTR_IDENT]), LF_STR("source", a->values[ATTR_SOURCE]));
}

/* The session starts again at the greeting, TLS stays. HELO, if it is told, counts as said (as Postfix has
 * it). */
void session_xclient(struct smtpd_session *s, str_t arg)
{
    struct client_attrs a;
    if (xclient_parse(arg, &a)) {
        session_reply(s, R_bad_syntax, STR_NONE);
        return;
    }
    struct origin *o = origin_of(s, &s->named);
    if (!o) {
        session_goodbye(s, R_overloaded, CLOSE_overload);
        return;
    }
    log_said(s, "xclient", &a);
    session_forget_told(s);
    o->ip = s->peer;
    o->helo_n = 0;
    origin_take(o, &a);
    s->peer = o->ip;
    if (a.said & 1u << ATTR_ADDR)
        s->step = ORIGIN_XCLIENT;
    session_classify(s);
    s->greeted = o->helo_n > 0;
    s->esmtp = s->greeted && a.esmtp;
    s->helo_n = o->helo_n;
    memcpy(s->helo, o->helo, o->helo_n);
    const struct endpoint peer = {.ip = s->peer, .port = a.port};
    enum reply_id reply = s->ops->client_named(s->host, &peer, (enum client_class)s->class);
    if (reply == R_ok)
        session_greet(s);
    else
        session_goodbye(s, reply, CLOSE_limit);
}

void session_forget_told(struct smtpd_session *s)
{
    if (!s->told)
        return;
    pool_put(&s->memory->origins, s->told);
    s->told = NULL;
}

/* May come in several commands. */
void session_xforward(struct smtpd_session *s, str_t arg)
{
    struct client_attrs a;
    if (xforward_parse(arg, &a)) {
        session_reply(s, R_bad_syntax, STR_NONE);
        return;
    }
    struct origin *o = origin_of(s, &s->told);
    if (!o) {
        session_goodbye(s, R_overloaded, CLOSE_overload);
        return;
    }
    if (!o->step)
        o->ip = origin_no_address();
    o->step = ORIGIN_XFORWARD;
    log_said(s, "xforward", &a);
    origin_take(o, &a);
    session_reply(s, R_ok, STR_NONE);
}

/* --- the edge's own trace lines --- */

void session_keep_top(struct smtpd_session *s, const uint8_t *p, size_t n)
{
    struct transaction *tx = s->tx;
    if (s->class != CLASS_EDGE || s->told || tx->top_n == TOP_BYTES_MAX)
        return;
    if (!tx->top)
        tx->top = arena_alloc(&tx->arena, TOP_BYTES_MAX);
    if (!tx->top)
        return;
    n = MIN(n, TOP_BYTES_MAX - tx->top_n);
    memcpy(tx->top + tx->top_n, p, n);
    tx->top_n += n;
}

static bool is_edge_name(const struct smtpd_session *s, str_t name)
{
    const struct cfg_names *names = &session_config(s)->edge_names;
    for (size_t i = 0; i < names->count; i++)
        if (str_ieq(name, names->items[i]))
            return true;
    return !names->count && str_ieq(name, str_of(s->helo, s->helo_n));
}

/* From the top down, only as long as the edge wrote the line: the first that is not from the edge itself
 * tells. */
static enum edge_line_kind read_edges_lines(const struct smtpd_session *s, struct received_line *l,
                                            uint8_t *hops)
{
    str_t top = str_of(s->tx->top, s->tx->top_n);
    for (unsigned i = 0; i < HOPS_MAX; i++) {
        str_t value = s->tx->top ? received_find(top, i) : STR_NONE;
        bool is_read = value.p && received_parse(value, l) == 0;
        if (!is_read)
            *l = (struct received_line){.by = received_by(value)};
        bool is_cut = !value.p && s->tx->top_n == TOP_BYTES_MAX;
        if (!is_edge_name(s, l->by))
            return i || is_cut ? EDGE_LINE_OWN : EDGE_LINE_OTHERS;
        if (!is_read)
            return EDGE_LINE_OWN;
        *hops = (uint8_t)i;
        if (!ip_is_loopback(&l->client.ip) && policy_classify(s->policy, &l->client.ip) != CLASS_EDGE)
            return EDGE_LINE_TELLS;
    }
    return EDGE_LINE_OWN;
}

static void take_edges_word(struct smtpd_session *s, struct origin *out)
{
    struct received_line l = {0};
    uint8_t hops = 0;
    enum edge_line_kind kind = read_edges_lines(s, &l, &hops);
    const struct edge_line line = {
        .kind = kind, .formats = (uint8_t)l.formats, .hops = hops, .label = l.label};
    *out = (struct origin){.step = ORIGIN_UNKNOWN, .ip = origin_no_address()};
    if (s->ops->edge_line(s->host, &line, kind == EDGE_LINE_TELLS ? &l.client.ip : NULL, l.by))
        *out = l.client;
}

const struct origin *smtpd_origin(const struct smtpd_session *s)
{
    must(s->tx);
    return &s->tx->real;
}

const struct ip *session_known_origin(const struct smtpd_session *s, const char **by)
{
    const struct origin *found = s->tx && s->tx->real.step ? &s->tx->real : s->told;
    bool has_found = found && found->step;
    enum origin_step step = has_found ? found->step : (enum origin_step)s->step;
    *by = step ? origin_step_name(step) : NULL;
    if (!step || step == ORIGIN_UNKNOWN)
        return NULL;
    return has_found ? &found->ip : &s->peer;
}

void session_origin(struct smtpd_session *s)
{
    struct transaction *tx = s->tx;
    struct origin *o = &tx->real;
    if (s->told && s->told->step) {
        *o = *s->told;
    } else if (s->class == CLASS_EDGE) {
        take_edges_word(s, o);
    } else {
        if (s->named)
            *o = *s->named;
        o->step = (enum origin_step)s->step;
        o->ip = s->peer;
    }
}

/* --- limits --- */

const struct ip *session_limited_client(const struct smtpd_session *s)
{
    const struct origin *told = s->told;
    if (s->class == CLASS_TRUSTED)
        return NULL;
    struct ip nobody = origin_no_address();
    if (!told || !told->step || ip_eq(&told->ip, &nobody))
        return s->class == CLASS_STRANGER ? &s->peer : NULL;
    return policy_classify(s->policy, &told->ip) == CLASS_STRANGER ? &told->ip : NULL;
}

enum reply_id session_check_share(const struct smtpd_session *s)
{
    const struct origin *real = &s->tx->real;
    if (real->step != ORIGIN_RECEIVED || policy_classify(s->policy, &real->ip) != CLASS_STRANGER)
        return R_ok;
    return s->ops->take_share(s->host, &real->ip) ? R_ok : R_too_much_mail;
}
