/* smtp/proto/origin.c: XCLIENT and XFORWARD. See origin.h. */
#include "smtp/proto/origin.h"

const char *origin_step_name(enum origin_step step)
{
    static const char *const names[] = {
        [ORIGIN_CLIENT] = "client",     [ORIGIN_XCLIENT] = "xclient",   [ORIGIN_PROXY] = "proxy",
        [ORIGIN_XFORWARD] = "xforward", [ORIGIN_RECEIVED] = "received", [ORIGIN_UNKNOWN] = "unknown"};
    return (unsigned)step < COUNT_OF(names) ? names[step] : "unknown";
}

struct ip origin_no_address(void)
{
    return (struct ip){.b = {[10] = 0xff, [11] = 0xff}};
}

static const char *const attr_names[] = {
    [ATTR_NAME] = "NAME",         [ATTR_ADDR] = "ADDR",         [ATTR_PORT] = "PORT",
    [ATTR_PROTO] = "PROTO",       [ATTR_HELO] = "HELO",         [ATTR_LOGIN] = "LOGIN",
    [ATTR_DESTADDR] = "DESTADDR", [ATTR_DESTPORT] = "DESTPORT", [ATTR_IDENT] = "IDENT",
    [ATTR_SOURCE] = "SOURCE"};

#define COMMON_ATTRS                                                                                         \
    (1u << ATTR_NAME | 1u << ATTR_ADDR | 1u << ATTR_PORT | 1u << ATTR_PROTO | 1u << ATTR_HELO)

static err_t parse_address(str_t text, struct ip *out)
{
    bool is_v6 = str_istarts(text, STR("IPV6:"));
    err_t err = ip_parse(is_v6 ? str_sub(text, 5, text.n) : text, out);
    if (!err && (text.p[0] == '[' || ip_is_v4(out) == is_v6)) /* IPv6 has its prefix, and IPv4 none */
        return ERR_SYNTAX;
    return err;
}

static err_t parse_port(str_t text, uint16_t *out)
{
    uint64_t v = 0;
    if (str_to_u64(text, &v) || v > UINT16_MAX)
        return ERR_SYNTAX;
    *out = (uint16_t)v;
    return 0;
}

static err_t take_known(enum client_attr attr, str_t text, struct client_attrs *out)
{
    struct ip ip;
    uint16_t port;
    switch (attr) {
    case ATTR_ADDR: return parse_address(text, &out->ip);
    case ATTR_DESTADDR: return parse_address(text, &ip);
    case ATTR_PORT: return parse_port(text, &out->port);
    case ATTR_DESTPORT: return parse_port(text, &port);
    case ATTR_PROTO:
        out->esmtp = str_ieq(text, STR("ESMTP"));
        return out->esmtp || str_ieq(text, STR("SMTP")) ? 0 : ERR_SYNTAX;
    case ATTR_SOURCE: return str_ieq(text, STR("LOCAL")) || str_ieq(text, STR("REMOTE")) ? 0 : ERR_SYNTAX;
    default: return 0;
    }
}

static err_t take_attr(str_t word, unsigned allowed, struct client_attrs *out)
{
    char text[ORIGIN_TEXT_MAX];
    struct sbuf b = SBUF_ON(text);
    str_t name, value;
    enum client_attr attr = 0;
    if (!str_cut(word, '=', &name, &value) || !value.n)
        return ERR_SYNTAX;
    while (attr < ATTR_COUNT && !str_ieq(name, str_cstr(attr_names[attr])))
        attr++;
    if (attr == ATTR_COUNT || !(allowed & 1u << attr) || out->said & 1u << attr || xtext_decode(value, &b) ||
        b.overflow)
        return ERR_SYNTAX;
    out->said |= (uint16_t)(1u << attr);
    out->values[attr] = value;
    if (str_ieq(value, STR("[UNAVAILABLE]")) || str_ieq(value, STR("[TEMPUNAVAIL]")))
        return 0;
    out->known |= (uint16_t)(1u << attr);
    return take_known(attr, sbuf_view(&b), out);
}

static err_t parse(str_t arg, unsigned allowed, struct client_attrs *out)
{
    str_t word, rest = arg;
    *out = (struct client_attrs){.ip = origin_no_address()};
    for (bool more = true; more;) {
        more = str_cut(rest, ' ', &word, &rest);
        if (word.n && take_attr(word, allowed, out))
            return ERR_SYNTAX;
    }
    return out->said ? 0 : ERR_SYNTAX;
}

err_t xclient_parse(str_t arg, struct client_attrs *out)
{
    return parse(arg, COMMON_ATTRS | 1u << ATTR_LOGIN | 1u << ATTR_DESTADDR | 1u << ATTR_DESTPORT, out);
}

err_t xforward_parse(str_t arg, struct client_attrs *out)
{
    return parse(arg, COMMON_ATTRS | 1u << ATTR_IDENT | 1u << ATTR_SOURCE, out);
}

/* What stands in logs and trace lines. */
static uint8_t take_text(const struct client_attrs *said, enum client_attr attr, char *out)
{
    struct sbuf b = {.p = out, .cap = ORIGIN_TEXT_MAX};
    if (!(said->known & 1u << attr) || xtext_decode(said->values[attr], &b))
        return 0;
    for (size_t i = 0; i < b.n; i++)
        if (out[i] <= ' ' || out[i] > '~')
            out[i] = '?';
    return (uint8_t)b.n;
}

void origin_take(struct origin *o, const struct client_attrs *said)
{
    if (said->said & 1u << ATTR_ADDR)
        o->ip = said->ip;
    if (said->said & 1u << ATTR_NAME)
        o->name_n = take_text(said, ATTR_NAME, o->name);
    if (said->said & 1u << ATTR_HELO)
        o->helo_n = take_text(said, ATTR_HELO, o->helo);
}
