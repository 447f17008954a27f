/* A whole server session. Bytes 0 to 3 choose class, line endings, limits and the seed of a host that decides
 * late, has no room, fails and shuts down; the rest is what the client says. */
#include "core/log.h"
#include "smtp/server/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct host {
    struct smtpd_session *s;
    uint64_t seed;
    bool body_open, commit_due, rcpt_due, tls_due, closed;
    unsigned committed, commits_ok, queued_said, starts_said, begins;
    uint8_t last[4]; /* of the stored body */
    bool is_trusted;
    size_t line_n;
    char line[512];
};

static uint32_t roll(struct host *h, uint32_t sides)
{
    h->seed ^= h->seed << 13;
    h->seed ^= h->seed >> 7;
    h->seed ^= h->seed << 17;
    return (uint32_t)(h->seed >> 33) % sides;
}

static bool is_digit(char ch)
{
    return ch >= '0' && ch <= '9';
}

static void reply_line(struct host *h, str_t line)
{
    must(line.n >= 6 && is_digit(line.p[0]) && is_digit(line.p[1]) && is_digit(line.p[2]));
    must(line.p[0] >= '2' && line.p[0] <= '5' && (line.p[3] == ' ' || line.p[3] == '-'));
    must(str_ends(line, STR("\r\n")));
    for (size_t i = 0; i < line.n - 2; i++)
        must(line.p[i] >= ' ' && line.p[i] < 0x7F);
    h->queued_said += str_starts(line, STR("250 2.0.0 OK: queued as "));
    h->starts_said += str_starts(line, STR("354 "));
    must(h->queued_said <= h->commits_ok); /* never 250 before it is durable */
    must(h->starts_said <= h->begins);
}

static void host_reply(void *host, const char *p, size_t n)
{
    struct host *h = host;
    must(!h->closed);
    for (size_t i = 0; i < n; i++) {
        must(h->line_n < sizeof h->line);
        h->line[h->line_n++] = p[i];
        if (p[i] != '\n')
            continue;
        reply_line(h, str_of(h->line, h->line_n));
        h->line_n = 0;
    }
}

static enum reply_id verdict(struct host *h)
{
    static const enum reply_id all[] = {R_rcpt_ok,      R_rcpt_ok,   R_rcpt_ok,
                                        R_unknown_user, R_rcpt_temp, R_too_many_unknown};
    return all[roll(h, COUNT_OF(all))];
}

static void host_rcpt(void *host, const struct smtpd_rcpt *r)
{
    struct host *h = host;
    must(r->address.domain.n > 0 && r->text.n > 2);
    h->rcpt_due = roll(h, 2);
    if (!h->rcpt_due)
        smtpd_rcpt_decided(h->s, verdict(h), STR_NONE);
}

static bool host_rcpt_ahead(void *host, const struct smtpd_rcpt *r)
{
    const struct host *h = host;
    must(h->rcpt_due && r->address.domain.n > 0 && r->text.n > 2);
    return r->address.local.n % 3;
}

static bool host_discards(void *host, const struct address *a)
{
    return a->local.n == 1;
}

static err_t trouble(struct host *h)
{
    return roll(h, 8) ? 0 : roll(h, 2) ? ERR_FULL : -5;
}

static err_t host_check_space(void *host, uint64_t size)
{
    return trouble(host);
}

static err_t host_body_begin(void *host)
{
    struct host *h = host;
    must(!h->body_open);
    err_t err = trouble(h);
    if (err)
        return err;
    h->begins++;
    h->body_open = true;
    memcpy(h->last, "  \r\n", 4);
    return 0;
}

static size_t host_body_append(void *host, const uint8_t *p, size_t n)
{
    struct host *h = host;
    must(h->body_open && n > 0);
    size_t take = roll(h, 3) ? n : roll(h, (uint32_t)n + 1);
    for (size_t i = 0; i < take; i++) { /* no bare CR or LF is ever stored, and nothing that ends DATA */
        must((p[i] == '\n') == (h->last[3] == '\r'));
        must(p[i] != '\r' || memcmp(h->last + 1, "\r\n.", 3) != 0);
        memmove(h->last, h->last + 1, 3);
        h->last[3] = p[i];
    }
    return take;
}

static void host_body_abort(void *host)
{
    struct host *h = host;
    must(h->body_open);
    h->body_open = false;
}

static void tell_committed(struct host *h)
{
    err_t err = trouble(h);
    h->commit_due = false;
    h->committed++;
    h->commits_ok += !err;
    smtpd_committed(h->s, err);
}

static void host_commit(void *host, const struct envelope *e, const struct envelope_rcpt *rcpts,
                        uint32_t rcpt_count, str_t trace)
{
    struct host *h = host;
    must(h->body_open && rcpt_count > 0 && str_starts(trace, STR("Received: ")) &&
         str_ends(trace, STR("\r\n")));
    must(h->last[3] == '\n');
    struct address a; /* what leaves here in commands is read by the book again */
    must(!e->sender.n || address_parse_mailbox(e->sender, &a) == 0);
    for (uint32_t i = 0; i < rcpt_count; i++)
        must(address_parse_mailbox(rcpts[i].address, &a) == 0);
    for (uint32_t i = 0; i < rcpt_count; i++) /* postmaster is rewritten to example.com too */
        must(h->is_trusted || str_ends(rcpts[i].address, STR("@example.com")));
    for (size_t i = 0; i < trace.n; i++)
        must(trace.p[i] != '\n' || (i > 0 && trace.p[i - 1] == '\r'));
    h->body_open = false;
    h->commit_due = true;
    if (roll(h, 2))
        tell_committed(h);
}

static void host_starttls(void *host)
{
    struct host *h = host;
    h->tls_due = true;
}

static void host_delay(void *host, uint32_t ms)
{
    must(ms > 0);
}

static void host_close(void *host, enum close_reason why)
{
    struct host *h = host;
    must(!h->closed && why < CLOSE_COUNT);
    h->closed = true;
}

static uint64_t host_message_id(void *host)
{
    return 42;
}

static enum reply_id host_client_named(void *host, const struct endpoint *peer, enum client_class class)
{
    struct host *h = host;
    h->is_trusted = class == CLASS_TRUSTED;
    return R_ok;
}

static bool host_take_share(void *host, const struct ip *client)
{
    return roll(host, 8);
}

static bool host_edge_line(void *host, const struct edge_line *line, const struct ip *client, str_t by)
{
    must((line->kind == EDGE_LINE_TELLS) == (client != NULL) && (!client || (line->formats && by.n)));
    return client && roll(host, 2);
}

static const struct smtpd_host ops = {
    .reply = host_reply,
    .rcpt = host_rcpt,
    .rcpt_ahead = host_rcpt_ahead,
    .discards = host_discards,
    .take_share = host_take_share,
    .edge_line = host_edge_line,
    .check_space = host_check_space,
    .body_begin = host_body_begin,
    .body_append = host_body_append,
    .commit = host_commit,
    .body_abort = host_body_abort,
    .starttls = host_starttls,
    .delay = host_delay,
    .close = host_close,
    .message_id = host_message_id,
    .client_named = host_client_named,
};

static size_t no_names(void *ctx, str_t name, struct ip *out, size_t max)
{
    return 0;
}

static const struct policy *policy(bool normalise)
{
    static const char yaml[] =
        "hostname: mx.example.com\n"
        "trusted_networks: [10.0.0.0/8]\n"
        "edge_networks: [192.0.2.10]\n"
        "limits: { message_size: 3000, header_size: 1024, hops: 3, recipients: 20, line_length: 600,"
        " errors: 6, junk_commands: 8, messages_per_session: 5 }\n"
        "strangers: { errors: 3 }\n"
        "domains: [ { name: example.com, local: true, route: { hosts: [10.0.0.5] } } ]\n";
    static struct policy *made[2];
    static const struct policy_resolver resolver = {.resolve = no_names};
    if (!made[normalise]) {
        struct gbuf text = {0};
        struct config *c;
        struct diag d = {.file = "fuzz"};
        gbuf_cstr(&text, yaml);
        if (normalise)
            gbuf_cstr(&text, "line_endings: { stranger: normalise, edge: normalise, trusted: normalise }\n");
        must(config_load_text(gbuf_view(&text), "fuzz", &c, &d) == 0);
        must(policy_build(&made[normalise], c, &resolver, &d) == 0);
        gbuf_free(&text);
        diag_free(&d);
        log_set(LOG_LOGFMT, LOG_ERROR);
    }
    return made[normalise];
}

/* Something that the engine waits for, or something from outside. */
static void event(struct host *h)
{
    if (roll(h, 200) == 0)
        smtpd_shutdown(h->s, roll(h, 2));
    if (roll(h, 400) == 0)
        smtpd_timeout(h->s);
    if (h->rcpt_due) {
        h->rcpt_due = false;
        smtpd_rcpt_decided(h->s, verdict(h), STR_NONE);
    } else if (h->commit_due) {
        tell_committed(h);
    } else if (h->tls_due) {
        h->tls_due = false;
        smtpd_secured(h->s, roll(h, 8) ? &(struct smtpd_tls){"TLSv1.3", "X", "none", CLASS_STRANGER} : NULL);
    } else {
        smtpd_resume(h->s);
    }
}

static void talk(struct host *h, const uint8_t *p, size_t n, bool normalise)
{
    uint64_t now_ms = 1795493666000;
    size_t at = 0;
    while (at < n) {
        size_t some = (size_t)1 + roll(h, roll(h, 2) ? 16 : 4096), step = MIN(n - at, some);
        size_t used = smtpd_input(h->s, p + at, step, now_ms++);
        must(used <= step);
        must(used == step || smtpd_waiting(h->s));
        at += used;
        while (smtpd_waiting(h->s) && roll(h, 4))
            event(h);
        if (roll(h, 4) == 0)
            smtpd_set_policy(h->s, policy(normalise), roll(h, 2), CLASS_STRANGER);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const clients[] = {"198.51.100.7", "192.0.2.10", "10.1.2.3", "2001:db8::1"};
    struct smtpd_memory memory;
    struct host h = {0};
    if (size < 4)
        return 0;
    bool normalise = data[0] & 4;
    const struct policy *p = policy(normalise);
    struct smtpd_client client = {.memory = &memory, .session_id = 7};
    must(ip_parse(str_cstr(clients[data[0] & 3]), &client.peer.ip) == 0);
    client.class = policy_classify(p, &client.peer.ip);
    h.is_trusted = client.class == CLASS_TRUSTED;
    h.seed = 1 + data[1] + (uint64_t)data[2] * 256 + (uint64_t)data[3] * 65536;
    smtpd_memory_init(&memory, 1);
    must(smtpd_create(&h.s, &ops, &h, &client, p, data[0] & 8) == 0);
    smtpd_start(h.s);
    talk(&h, data + 4, size - 4, normalise);
    if (roll(&h, 2))
        smtpd_eof(h.s, roll(&h, 2));
    while (h.commit_due)
        event(&h);
    struct smtpd_stats st;
    smtpd_stats(h.s, &st);
    must(st.messages == h.commits_ok && st.where);
    smtpd_destroy(h.s);
    must(!h.body_open);
    smtpd_memory_free(&memory);
    return 0;
}
