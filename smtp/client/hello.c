/* Greeting, EHLO with the fall back to HELO, STARTTLS; then AUTH, in auth.c. */
#include "smtp/client/client_priv.h"

void hello_done(struct smtpc *c)
{
    c->phase = PHASE_UP;
    c->ready_due = true;
}

static void come_up(struct smtpc *c)
{
    if (c->opt.has_auth)
        auth_start(c);
    else
        hello_done(c);
}

static void say_hello(struct smtpc *c)
{
    c->phase = PHASE_HELO;
    c->features = (struct smtpc_features){0};
    client_put(c, EXPECT_EHLO, "%s " STR_FMT, c->opt.lmtp ? "LHLO" : "EHLO", STR_ARG(c->opt.helo_name));
}

static void take_mechanisms(struct smtpc_features *f, str_t words)
{
    str_t word;
    while (words.n) {
        str_t all = words;
        str_cut(all, ' ', &word, &words);
        f->auth_plain |= str_ieq(word, STR("PLAIN"));
        f->auth_login |= str_ieq(word, STR("LOGIN"));
        f->auth_external |= str_ieq(word, STR("EXTERNAL"));
    }
}

/* "RCPTMAX=100 MAILMAX=20"; what is not understood is no limit. RFC 9422 3: at most six digits. */
static void take_limits(struct smtpc_features *f, str_t rest)
{
    str_t word, name, digits;
    bool more = rest.n > 0;
    while (more) {
        uint64_t n;
        more = str_cut(rest, ' ', &word, &rest);
        if (!str_cut(word, '=', &name, &digits) || str_to_u64(digits, &n) || !n || n > 999999)
            continue;
        if (str_ieq(name, STR("MAILMAX")))
            f->messages_max = (uint32_t)n;
        else if (str_ieq(name, STR("RCPTMAX")))
            f->rcpts_max = (uint32_t)n;
        else if (str_ieq(name, STR("RCPTDOMAINMAX")))
            f->rcpt_domains_max = (uint32_t)n;
    }
}

static str_t domain_of(str_t address)
{
    ptrdiff_t at = str_rfind(address, '@');
    return at < 0 ? STR_NONE : str_sub(address, (size_t)at + 1, address.n);
}

uint32_t smtpc_rcpts_fitting(const struct smtpc_features *f, const struct envelope_rcpt *rcpts,
                             uint32_t rcpt_count)
{
    uint32_t n = f->rcpts_max ? MIN(f->rcpts_max, rcpt_count) : rcpt_count, domains = 0;
    for (uint32_t i = 0; f->rcpt_domains_max && i < n; i++) {
        str_t domain = domain_of(rcpts[i].address);
        uint32_t k = 0;
        while (k < i && !str_ieq(domain, domain_of(rcpts[k].address)))
            k++;
        domains += k == i;
        if (domains > f->rcpt_domains_max)
            return i;
    }
    return n;
}

/* "SIZE 1000", "8BITMIME" */
static void take_feature(struct smtpc_features *f, str_t line)
{
    str_t keyword, value;
    str_cut(line, ' ', &keyword, &value);
    if (str_ieq(keyword, STR("PIPELINING"))) {
        f->pipelining = true;
    } else if (str_ieq(keyword, STR("SIZE"))) {
        f->size = true;
        if (str_to_u64(str_trim(value), &f->size_max))
            f->size_max = 0;
    } else if (str_ieq(keyword, STR("8BITMIME"))) {
        f->eightbit = true;
    } else if (str_ieq(keyword, STR("SMTPUTF8"))) {
        f->smtputf8 = true;
    } else if (str_ieq(keyword, STR("STARTTLS"))) {
        f->starttls = true;
    } else if (str_ieq(keyword, STR("ENHANCEDSTATUSCODES"))) {
        f->enhanced = true;
    } else if (str_ieq(keyword, STR("CHUNKING"))) {
        f->chunking = true;
    } else if (str_ieq(keyword, STR("AUTH"))) {
        take_mechanisms(f, value);
    } else if (str_ieq(keyword, STR("DSN"))) {
        f->dsn = true;
    } else if (str_ieq(keyword, STR("LIMITS"))) {
        take_limits(f, str_trim(value));
    }
}

static void take_features(struct smtpc *c, str_t text)
{
    str_t line, rest = text;
    bool more = str_cut(rest, '\n', &line, &rest); /* the first line is the server's name */
    c->features = (struct smtpc_features){.esmtp = true};
    while (more) {
        more = str_cut(rest, '\n', &line, &rest);
        take_feature(&c->features, str_trim(line));
    }
    c->features.pipelining = c->features.pipelining && !c->opt.lock_step;
}

static void said_hello(struct smtpc *c)
{
    const struct smtp_reply no_tls = {.code = 454,
                                      .enhanced = {4, 7, 4},
                                      .text = STR("TLS is required here, but the server does not offer it")};
    if (c->secured || c->opt.tls == SMTPC_TLS_OFF)
        come_up(c);
    else if (c->features.starttls)
        client_put(c, EXPECT_STARTTLS, "STARTTLS");
    else if (c->opt.tls == SMTPC_TLS_MAY)
        come_up(c);
    else
        client_fail(c, STAGE_TLS, &no_tls);
}

static void on_ehlo(struct smtpc *c, enum smtpc_stage at, const struct smtp_reply *r)
{
    if (r->code / 100 == 2) {
        take_features(c, r->text);
        said_hello(c);
    } else if (r->code / 100 == 5 && !c->opt.lmtp) {
        client_put(c, EXPECT_HELO, "HELO " STR_FMT, STR_ARG(c->opt.helo_name));
    } else {
        client_fail(c, at, r);
    }
}

static void on_starttls(struct smtpc *c, enum smtpc_stage at, const struct smtp_reply *r)
{
    if (r->code / 100 == 2) {
        c->phase = PHASE_TLS;
        c->starttls_due = true;
    } else if (r->code / 100 != 3 && c->opt.tls == SMTPC_TLS_MAY) {
        come_up(c);
    } else {
        client_fail(c, at, r);
    }
}

void hello_reply(struct smtpc *c, enum expect expect, enum smtpc_stage at, const struct smtp_reply *r)
{
    bool ok = r->code / 100 == 2;
    if (expect == EXPECT_EHLO)
        on_ehlo(c, at, r);
    else if (expect == EXPECT_STARTTLS)
        on_starttls(c, at, r);
    else if (expect == EXPECT_AUTH)
        auth_reply(c, at, r);
    else if (!ok)
        client_fail(c, at, r);
    else if (expect == EXPECT_GREETING)
        say_hello(c);
    else
        said_hello(c); /* HELO: no features */
}

/* RFC 3207 4.2: what was learnt in the clear is forgotten; hello again. */
void smtpc_secured(struct smtpc *c, err_t err)
{
    if (client_is_dead(c))
        return;
    must(c->phase == PHASE_TLS && !c->busy);
    if (err) {
        client_fail(c, STAGE_TLS, NULL);
        return;
    }
    c->secured = true;
    say_hello(c);
    client_flush(c);
}
