/* smtp/client/auth.c: logging in (RFC 4954) by PLAIN (RFC 4616), LOGIN (a draft that everybody has) or
 * EXTERNAL (RFC 4422). Only under TLS, whatever the server offers. */
#include "smtp/client/client_priv.h"

/* user and password in base64, "AUTH PLAIN " and CRLF */
#define AUTH_LINE_MAX ((SMTPC_AUTH_BYTES_MAX + 2) * 4 / 3 + 64)

static void put_base64(struct sbuf *out, const char *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *b = (const uint8_t *)p;
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v =
            (uint32_t)b[i] << 16 | (left > 1 ? (uint32_t)b[i + 1] << 8 : 0) | (left > 2 ? b[i + 2] : 0);
        sbuf_char(out, digits[v >> 18]);
        sbuf_char(out, digits[v >> 12 & 63]);
        sbuf_char(out, left > 1 ? digits[v >> 6 & 63] : '=');
        sbuf_char(out, left > 2 ? digits[v & 63] : '=');
    }
}

static void fail_locally(struct smtpc *c, str_t text)
{
    const struct smtp_reply r = {.code = 454, .enhanced = {4, 7, 0}, .text = text};
    client_fail(c, STAGE_AUTH, &r);
}

/* Of what is allowed and offered; AUTH_AUTO: nothing is. */
static enum auth_mechanism choose(const struct smtpc *c)
{
    const struct smtpc_features *f = &c->features;
    enum auth_mechanism want = c->opt.auth.mechanism;
    if (want == AUTH_EXTERNAL)
        return f->auth_external ? AUTH_EXTERNAL : AUTH_AUTO;
    if (f->auth_plain && want != AUTH_LOGIN)
        return AUTH_PLAIN;
    return f->auth_login && want != AUTH_PLAIN ? AUTH_LOGIN : AUTH_AUTO;
}

static void say(struct smtpc *c, const char *words, str_t secret)
{
    char text[AUTH_LINE_MAX];
    struct sbuf line = SBUF_ON(text);
    sbuf_cstr(&line, words);
    put_base64(&line, secret.p, secret.n);
    sbuf_cstr(&line, "\r\n");
    must(!line.overflow);
    client_put_secret(c, EXPECT_AUTH, sbuf_view(&line));
    explicit_bzero(text, sizeof text);
}

static void say_plain(struct smtpc *c)
{
    char text[SMTPC_AUTH_BYTES_MAX + 2];
    struct sbuf secret = SBUF_ON(text);
    sbuf_char(&secret, '\0');
    sbuf_str(&secret, c->opt.auth.user);
    sbuf_char(&secret, '\0');
    sbuf_str(&secret, c->opt.auth.password);
    must(!secret.overflow);
    say(c, "AUTH PLAIN ", sbuf_view(&secret));
    explicit_bzero(text, sizeof text);
}

void auth_start(struct smtpc *c)
{
    enum auth_mechanism m = choose(c);
    c->auth_mechanism = (uint8_t)m;
    c->auth_step = 0;
    if (!c->secured) {
        fail_locally(c, STR("We log in under TLS only, and the server does not offer it"));
        return;
    }
    switch (m) {
    case AUTH_PLAIN: say_plain(c); break;
    case AUTH_LOGIN: client_put(c, EXPECT_AUTH, "AUTH LOGIN"); break;
    case AUTH_EXTERNAL:
        say(c, c->opt.auth.user.n ? "AUTH EXTERNAL " : "AUTH EXTERNAL =", c->opt.auth.user);
        break;
    case AUTH_AUTO: fail_locally(c, STR("The server offers no way to log in that we may use")); break;
    }
}

void auth_reply(struct smtpc *c, enum smtpc_stage at, const struct smtp_reply *r)
{
    bool is_login = c->auth_mechanism == AUTH_LOGIN;
    if (r->code / 100 == 2 && (!is_login || c->auth_step == 2))
        hello_done(c);
    else if (r->code == 334 && is_login && c->auth_step < 2)
        say(c, "", c->auth_step++ ? c->opt.auth.password : c->opt.auth.user);
    else
        client_fail(c, at,
                    r->code >= 400 ? r
                                   : NULL); /* it wants to know more, or nothing: that is not the mechanism */
}
