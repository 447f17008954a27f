/* A client and a host for the engine: what is said goes in, replies come out as text, and the host's answers
 * can be held back, shortened or made errors. Bytes that the engine does not consume are offered again after
 * each event. */
#ifndef TESTS_UNIT_SMTP_SERVER_PEER_H
#define TESTS_UNIT_SMTP_SERVER_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/server/session.h"

#define PEER_BYTES 262144

struct peer {
    struct smtpd_session *s;
    struct smtpd_memory memory;
    struct policy *policy;
    struct smtpd_client client;
    bool tls_offered;
    uint64_t now_ms;
    size_t step_bytes; /* input a call; 0 = all of it */

    /* How the host behaves. */
    bool hold_rcpt, hold_commit, hold_delay;
    bool no_share, doubts; /* of take_share and edge_line */
    unsigned ahead_max;    /* recipients seen ahead before the host says: not now; 0: it never does */
    size_t room;           /* bytes that body_append takes before it says no; SIZE_MAX = all */
    size_t room_step;      /* what peer_room() gives back */
    enum reply_id verdict;
    err_t space_err, begin_err, commit_err;

    /* What happened. */
    char in[PEER_BYTES], out[PEER_BYTES], body[PEER_BYTES];
    size_t in_n, out_n, out_seen, body_n;
    bool body_open, commit_due, rcpt_due, tls_due, delay_due;
    uint64_t space_asked;
    unsigned ahead_seen;
    unsigned begins, aborts, commits, closes, rcpts_asked, delays;
    uint32_t delay_ms;
    enum close_reason why;
    char real_helo[256];
    struct ip share_of; /* the last that take_share was asked about */
    unsigned shares;
    struct edge_line edge_line;
    struct endpoint named; /* by XCLIENT */
    enum client_class named_class;
    enum reply_id named_reply;
    char trace[4096], sender[600], rcpts[8192], asked[600], ahead[2048];
    char dsn[4096]; /* RET and ENVID, then NOTIFY and ORCPT of each recipient */
    struct envelope envelope;
    uint32_t rcpt_count;
};

static const char peer_config[] = "hostname: mx.example.com\n"
                                  "trusted_networks: [10.0.0.0/8]\n"
                                  "edge_networks: [192.0.2.10]\n"
                                  "domains:\n"
                                  "  - { name: example.com, local: true, route: { hosts: [10.0.0.5] } }\n";

static void peer_reply(void *host, const char *p, size_t n)
{
    struct peer *h = host;
    assert_true(h->out_n + n < sizeof h->out);
    memcpy(h->out + h->out_n, p, n);
    h->out_n += n;
    h->out[h->out_n] = '\0';
}

static void peer_rcpt(void *host, const struct smtpd_rcpt *r)
{
    struct peer *h = host;
    h->rcpts_asked++;
    snprintf(h->asked, sizeof h->asked, STR_FMT "|" STR_FMT "|" STR_FMT "|%s", STR_ARG(r->text),
             STR_ARG(r->address.local), STR_ARG(r->address.domain), r->sender);
    if (h->hold_rcpt)
        h->rcpt_due = true;
    else
        smtpd_rcpt_decided(h->s, h->verdict, STR_NONE);
}

static bool peer_rcpt_ahead(void *host, const struct smtpd_rcpt *r)
{
    struct peer *h = host;
    size_t n = strlen(h->ahead);
    snprintf(h->ahead + n, sizeof h->ahead - n, STR_FMT " ", STR_ARG(r->text));
    return h->ahead_max == 0 || ++h->ahead_seen < h->ahead_max;
}

static bool peer_discards(void *host, const struct address *a)
{
    (void)host;
    return str_eq(a->local, STR("discard"));
}

static bool peer_take_share(void *host, const struct ip *client)
{
    struct peer *h = host;
    h->share_of = *client;
    h->shares++;
    return !h->no_share;
}

static bool peer_edge_line(void *host, const struct edge_line *line, const struct ip *client, str_t by)
{
    struct peer *h = host;
    h->edge_line = *line;
    assert_int_equal(line->kind == EDGE_LINE_TELLS, client != NULL);
    return line->kind == EDGE_LINE_TELLS && !h->doubts;
}

static err_t peer_check_space(void *host, uint64_t size)
{
    struct peer *h = host;
    h->space_asked = size;
    return h->space_err;
}

static err_t peer_body_begin(void *host)
{
    struct peer *h = host;
    assert_false(h->body_open);
    if (h->begin_err)
        return h->begin_err;
    h->begins++;
    h->body_open = true;
    h->body_n = 0;
    return 0;
}

static size_t peer_body_append(void *host, const uint8_t *p, size_t n)
{
    struct peer *h = host;
    assert_true(h->body_open);
    size_t take = MIN(n, h->room);
    assert_true(h->body_n + take < sizeof h->body);
    memcpy(h->body + h->body_n, p, take);
    h->body_n += take;
    h->body[h->body_n] = '\0';
    if (h->room != SIZE_MAX)
        h->room -= take;
    return take;
}

static void peer_body_abort(void *host)
{
    struct peer *h = host;
    assert_true(h->body_open);
    h->body_open = false;
    h->aborts++;
}

static void peer_commit(void *host, const struct envelope *e, const struct envelope_rcpt *rcpts,
                        uint32_t rcpt_count, str_t trace)
{
    struct peer *h = host;
    struct sbuf b = SBUF_ON(h->rcpts);
    assert_true(h->body_open);
    h->body_open = false;
    h->commits++;
    h->envelope = *e;
    snprintf(h->real_helo, sizeof h->real_helo, STR_FMT, STR_ARG(e->real.helo));
    h->rcpt_count = rcpt_count;
    snprintf(h->sender, sizeof h->sender, STR_FMT, STR_ARG(e->sender));
    snprintf(h->trace, sizeof h->trace, STR_FMT, STR_ARG(trace));
    struct sbuf dsn = SBUF_ON(h->dsn);
    sbuf_printf(&dsn, "%d " STR_FMT, e->ret, STR_ARG(e->envid));
    for (uint32_t i = 0; i < rcpt_count; i++) {
        sbuf_str(&b, rcpts[i].address);
        sbuf_char(&b, ' ');
        sbuf_printf(&dsn, "|%u " STR_FMT, rcpts[i].notify, STR_ARG(rcpts[i].orcpt));
    }
    sbuf_char(&b, '\0');
    sbuf_char(&dsn, '\0');
    if (h->hold_commit)
        h->commit_due = true;
    else
        smtpd_committed(h->s, h->commit_err);
}

static inline void peer_starttls(void *host)
{
    struct peer *h = host;
    h->tls_due = true;
}

static inline void peer_delay(void *host, uint32_t ms)
{
    struct peer *h = host;
    assert_false(h->delay_due);
    h->delay_due = true;
    h->delay_ms = ms;
    h->delays++;
}

static void peer_close(void *host, enum close_reason why)
{
    struct peer *h = host;
    h->closes++;
    h->why = why;
}

static uint64_t peer_message_id(void *host)
{
    return 1234567890123456789u;
}

static enum reply_id peer_client_named(void *host, const struct endpoint *peer, enum client_class class)
{
    struct peer *h = host;
    h->named = *peer;
    h->named_class = class;
    return h->named_reply;
}

static const struct smtpd_host peer_ops = {
    .reply = peer_reply,
    .rcpt = peer_rcpt,
    .rcpt_ahead = peer_rcpt_ahead,
    .discards = peer_discards,
    .take_share = peer_take_share,
    .edge_line = peer_edge_line,
    .check_space = peer_check_space,
    .body_begin = peer_body_begin,
    .body_append = peer_body_append,
    .commit = peer_commit,
    .body_abort = peer_body_abort,
    .starttls = peer_starttls,
    .delay = peer_delay,
    .close = peer_close,
    .message_id = peer_message_id,
    .client_named = peer_client_named,
};

static size_t peer_no_names(void *ctx, str_t name, struct ip *out, size_t max)
{
    return 0;
}

static inline struct policy *peer_policy_of(const char *base, const char *more)
{
    struct diag d = {.file = "test"};
    struct gbuf yaml = {0};
    struct config *c = NULL;
    struct policy *p = NULL;
    static const struct policy_resolver resolver = {.resolve = peer_no_names};
    gbuf_cstr(&yaml, base);
    gbuf_cstr(&yaml, more);
    if (config_load_text(gbuf_view(&yaml), "test", &c, &d) || policy_build(&p, c, &resolver, &d))
        fail_msg(STR_FMT, STR_ARG(gbuf_view(&d.text)));
    gbuf_free(&yaml);
    diag_free(&d);
    return p;
}

static inline struct policy *peer_policy(const char *more)
{
    return peer_policy_of(peer_config, more);
}

/* Options are set between peer_new and peer_start. */
static inline struct peer *peer_new(const char *client, const char *more_config)
{
    struct peer *h = calloc(1, sizeof *h);
    assert_non_null(h);
    h->policy = peer_policy(more_config);
    smtpd_memory_init(&h->memory, 0);
    assert_int_equal(ip_parse(str_cstr(client), &h->client.peer.ip), 0);
    h->client.class = policy_classify(h->policy, &h->client.peer.ip);
    h->client.memory = &h->memory;
    h->verdict = R_rcpt_ok;
    h->named_reply = R_ok;
    h->room = SIZE_MAX;
    h->now_ms = 1795493666000; /* Tue, 24 Nov 2026 04:14:26 +0000 */
    return h;
}

static inline void peer_secured(struct peer *h, const char *cipher)
{
    smtpd_secured(h->s, &(struct smtpd_tls){"TLSv1.3", cipher, "none", CLASS_STRANGER});
}

static inline void peer_start(struct peer *h)
{
    assert_int_equal(smtpd_create(&h->s, &peer_ops, h, &h->client, h->policy, h->tls_offered), 0);
    smtpd_start(h->s);
}

static inline void peer_free(struct peer *h)
{
    smtpd_destroy(h->s);
    smtpd_memory_free(&h->memory); /* fails when something was not given back */
    policy_free(h->policy);
    free(h);
}

static inline void peer_pump(struct peer *h)
{
    while (h->in_n) {
        size_t n = h->step_bytes ? MIN(h->step_bytes, h->in_n) : h->in_n;
        size_t used = smtpd_input(h->s, (const uint8_t *)h->in, n, h->now_ms);
        assert_true(used <= n);
        assert_true(used == n || smtpd_waiting(h->s));
        memmove(h->in, h->in + used, h->in_n - used);
        h->in_n -= used;
        if (h->delay_due && !h->hold_delay) {
            h->delay_due = false;
            smtpd_resume(h->s);
        } else if (used < n) {
            break;
        }
    }
}

static inline void peer_feed(struct peer *h, str_t bytes)
{
    assert_true(h->in_n + bytes.n <= sizeof h->in);
    memcpy(h->in + h->in_n, bytes.p, bytes.n);
    h->in_n += bytes.n;
    peer_pump(h);
}

/* Lets everything happen that the host held back. */
static inline void peer_settle(struct peer *h)
{
    for (;;) {
        if (h->rcpt_due) {
            h->rcpt_due = false;
            smtpd_rcpt_decided(h->s, h->verdict, STR_NONE);
        } else if (h->commit_due) {
            h->commit_due = false;
            smtpd_committed(h->s, h->commit_err);
        } else if (smtpd_waiting(h->s) && !h->tls_due) {
            h->room += h->room_step;
            h->delay_due = false;
            smtpd_resume(h->s);
        } else {
            break;
        }
        peer_pump(h);
    }
}

/* What was replied since the last look. */
static inline const char *peer_heard(struct peer *h)
{
    const char *p = h->out + h->out_seen;
    h->out_seen = h->out_n;
    return p;
}

static inline const char *peer_say(struct peer *h, const char *bytes)
{
    peer_feed(h, str_cstr(bytes));
    return peer_heard(h);
}

static inline void assert_starts(const char *text, const char *prefix)
{
    if (strncmp(text, prefix, strlen(prefix)) != 0)
        fail_msg("\"%s\" does not start with \"%s\"", text, prefix);
}

static inline void assert_says(struct peer *h, const char *bytes, const char *prefix)
{
    assert_starts(peer_say(h, bytes), prefix);
}

#define TO_DATA "EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"

static inline struct peer *peer_in_data(const char *client, const char *more_config)
{
    struct peer *h = peer_new(client, more_config);
    peer_start(h);
    peer_feed(h, STR(TO_DATA));
    assert_non_null(strstr(peer_heard(h), "354 "));
    return h;
}

#define STRANGER "198.51.100.7"
#define EDGE     "192.0.2.10"
#define TRUSTED  "10.1.2.3"

#endif
