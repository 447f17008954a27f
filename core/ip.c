/* core/ip.c: addresses as text and as bytes. The C library's inet_pton() decides what is one: it takes no
 * leading zeros, no octal, no shortened IPv4 and no zone. */
#include "core/ip.h"

#include <arpa/inet.h>

#define V4_BITS 96 /* of the mapped prefix */

static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

bool ip_is_v4(const struct ip *ip)
{
    return memcmp(ip->b, v4_mapped, sizeof v4_mapped) == 0;
}

bool ip_is_loopback(const struct ip *ip)
{
    static const struct ip loopback = {.b = {[15] = 1}};
    return ip_is_v4(ip) ? ip->b[12] == 127 : ip_eq(ip, &loopback);
}

bool ip_is_any(const struct ip *ip)
{
    static const struct ip any;
    return ip_eq(ip, &any) || (ip_is_v4(ip) && memcmp(ip->b + 12, any.b, 4) == 0);
}

bool ip_eq(const struct ip *a, const struct ip *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

#define KEY_OF_ZERO UINT64_MAX /* ::/64; nobody comes from ffff:ffff:ffff:ffff::/64 */

uint64_t ip_client_key(const struct ip *ip)
{
    uint64_t key;
    memcpy(&key, ip->b + (ip_is_v4(ip) ? 8 : 0), sizeof key);
    return key ? key : KEY_OF_ZERO;
}

struct ip ip_of_client_key(uint64_t key)
{
    struct ip v6 = {0}, v4 = {0};
    key = key == KEY_OF_ZERO ? 0 : key;
    memcpy(v6.b, &key, sizeof key);
    memcpy(v4.b + 8, &key, sizeof key);
    return ip_is_v4(&v4) ? v4 : v6;
}

/* Brackets are for IPv6 only, as in URLs. */
static err_t parse_address(str_t s, bool *is_v4_text, struct ip *out)
{
    char text[INET6_ADDRSTRLEN];
    bool bracketed = s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']';
    if (bracketed)
        s = str_sub(s, 1, s.n - 2);
    if (s.n == 0 || s.n >= sizeof text || str_find(s, '\0') >= 0)
        return ERR_SYNTAX;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    struct ip ip;
    *is_v4_text = str_find(s, ':') < 0;
    if (*is_v4_text) {
        memcpy(ip.b, v4_mapped, sizeof v4_mapped);
        if (bracketed || inet_pton(AF_INET, text, ip.b + 12) != 1)
            return ERR_SYNTAX;
    } else if (inet_pton(AF_INET6, text, ip.b) != 1) {
        return ERR_SYNTAX;
    }
    *out = ip;
    return 0;
}

err_t ip_parse(str_t s, struct ip *out)
{
    bool is_v4_text;
    return parse_address(s, &is_v4_text, out);
}

/* Are the first `bits` bits the same? */
static bool prefix_eq(const struct ip *a, const struct ip *b, unsigned bits)
{
    unsigned bytes = bits / 8, rest = bits % 8;
    if (memcmp(a->b, b->b, bytes) != 0)
        return false;
    return rest == 0 || (a->b[bytes] ^ b->b[bytes]) >> (8 - rest) == 0;
}

static bool has_host_bits(const struct cidr *net)
{
    struct ip masked = {{0}};
    unsigned bytes = net->bits / 8, rest = net->bits % 8;
    memcpy(masked.b, net->ip.b, bytes);
    if (rest)
        masked.b[bytes] = (uint8_t)(net->ip.b[bytes] & 0xff << (8 - rest));
    return !ip_eq(&masked, &net->ip);
}

err_t cidr_parse(str_t s, struct cidr *out)
{
    str_t address, length;
    bool is_v4_text, has_length = str_cut(s, '/', &address, &length);
    struct cidr net;
    err_t err = parse_address(address, &is_v4_text, &net.ip);
    if (err)
        return err;
    uint64_t base = is_v4_text ? V4_BITS : 0, bits = 128 - base;
    if (has_length) {
        if (length.n > 1 && length.p[0] == '0')
            return ERR_SYNTAX; /* not decimal to every reader */
        err = str_to_u64(length, &bits);
        if (err)
            return err;
        if (bits > 128 - base)
            return ERR_SYNTAX;
    }
    net.bits = (uint8_t)(base + bits);
    if (has_host_bits(&net))
        return ERR_SYNTAX; /* "10.1.2.3/8": one of the two is a slip; do not guess which */
    *out = net;
    return 0;
}

/* An IPv6 network shorter than the mapped prefix never holds IPv4: whoever trusts ::/0 has not said
 * 0.0.0.0/0. */
static bool cidr_is_v4(const struct cidr *net)
{
    return net->bits >= V4_BITS && ip_is_v4(&net->ip);
}

bool cidr_match(const struct cidr *net, const struct ip *ip)
{
    return cidr_is_v4(net) == ip_is_v4(ip) && prefix_eq(&net->ip, ip, net->bits);
}

bool cidr_overlap(const struct cidr *a, const struct cidr *b)
{
    return cidr_is_v4(a) == cidr_is_v4(b) && prefix_eq(&a->ip, &b->ip, MIN(a->bits, b->bits));
}

void ip_format(const struct ip *ip, struct sbuf *out)
{
    char text[INET6_ADDRSTRLEN];
    if (ip_is_v4(ip)) { /* in every log line; inet_ntop() goes through printf */
        for (int i = 12; i < 16; i++) {
            if (i > 12)
                sbuf_char(out, '.');
            sbuf_u64(out, ip->b[i]);
        }
        return;
    }
    must(inet_ntop(AF_INET6, ip->b, text, sizeof text));
    sbuf_cstr(out, text);
}

void ip_format_literal(const struct ip *ip, struct sbuf *out)
{
    sbuf_cstr(out, ip_is_v4(ip) ? "[" : "[IPv6:");
    ip_format(ip, out);
    sbuf_char(out, ']');
}

void endpoint_format(const struct endpoint *e, struct sbuf *out)
{
    bool is_v4 = ip_is_v4(&e->ip);
    if (!is_v4)
        sbuf_char(out, '[');
    ip_format(&e->ip, out);
    sbuf_cstr(out, is_v4 ? ":" : "]:");
    sbuf_u64(out, e->port);
}

err_t endpoint_parse(str_t s, struct endpoint *out)
{
    ptrdiff_t colon = str_rfind(s, ':');
    if (colon < 0)
        return ERR_SYNTAX;
    str_t address = str_sub(s, 0, (size_t)colon), port_text = str_sub(s, (size_t)colon + 1, s.n);
    if (str_find(address, ':') >= 0 && address.p[0] != '[')
        return ERR_SYNTAX; /* "2001:db8::1:25" could mean two things */
    struct endpoint e;
    uint64_t port;
    err_t err = ip_parse(address, &e.ip);
    if (err)
        return err;
    err = str_to_u64(port_text, &port);
    if (err)
        return err;
    if (port > UINT16_MAX)
        return ERR_SYNTAX;
    e.port = (uint16_t)port;
    *out = e;
    return 0;
}

socklen_t endpoint_to_sockaddr(const struct endpoint *e, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (ip_is_v4(&e->ip)) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(e->port)};
        memcpy(&in.sin_addr, e->ip.b + 12, sizeof in.sin_addr);
        memcpy(out, &in, sizeof in);
        return sizeof in;
    }
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(e->port)};
    memcpy(&in6.sin6_addr, e->ip.b, sizeof in6.sin6_addr);
    memcpy(out, &in6, sizeof in6);
    return sizeof in6;
}

err_t endpoint_from_sockaddr(const struct sockaddr *sa, struct endpoint *out)
{
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        memcpy(out->ip.b, v4_mapped, sizeof v4_mapped);
        memcpy(out->ip.b + 12, &in.sin_addr, sizeof in.sin_addr);
        out->port = ntohs(in.sin_port);
        return 0;
    }
    if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        memcpy(out->ip.b, &in6.sin6_addr, sizeof in6.sin6_addr);
        out->port = ntohs(in6.sin6_port);
        return 0;
    }
    return ERR_UNSUPPORTED;
}
