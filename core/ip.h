/* core/ip.h: addresses, networks, and host:port text. Pure. */
#ifndef CORE_IP_H
#define CORE_IP_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "core/str.h"

/* IPv4 is kept as an IPv4-mapped IPv6 address, so that one comparison serves both. Network byte order. */
struct ip {
    uint8_t b[16];
};

struct cidr {
    struct ip ip;
    uint8_t bits; /* 0..128, of the mapped form: 10.0.0.0/8 has 104 */
};

struct endpoint {
    struct ip ip;
    uint16_t port; /* host byte order */
};

bool ip_is_v4(const struct ip *ip);
bool ip_is_loopback(const struct ip *ip);
bool ip_is_any(const struct ip *ip); /* 0.0.0.0 or :: */
bool ip_eq(const struct ip *a, const struct ip *b);
/* "192.0.2.1", "2001:db8::1", "[2001:db8::1]". ERR_SYNTAX leaves *out alone, here and below. */
err_t ip_parse(str_t s, struct ip *out) WARN_UNUSED;
/* An address alone is /32 or /128; host bits set: ERR_SYNTAX. */
err_t cidr_parse(str_t s, struct cidr *out) WARN_UNUSED;
/* IPv4 and IPv6 are apart: ::/0 holds no IPv4 address. */
bool cidr_match(const struct cidr *net, const struct ip *ip);
bool cidr_overlap(const struct cidr *a, const struct cidr *b);

/* Whom an address stands for, in a word that is never 0: an IPv4 client is its address, an IPv6 client its
 * /64, which is what one customer has. The two do not meet: no IPv6 client comes from 0:ffff::/32. */
uint64_t ip_client_key(const struct ip *ip);
struct ip ip_of_client_key(uint64_t key); /* IPv6: the first of the /64 */

void ip_format(const struct ip *ip, struct sbuf *out); /* no brackets */
/* RFC 5321 4.1.3: [192.0.2.1] or [IPv6:2001:db8::1] */
void ip_format_literal(const struct ip *ip, struct sbuf *out);
void endpoint_format(const struct endpoint *e, struct sbuf *out); /* 192.0.2.1:25, [2001:db8::1]:25 */
/* Address and port both given; port 0 is let through, for listeners that take any. */
err_t endpoint_parse(str_t s, struct endpoint *out) WARN_UNUSED;
socklen_t endpoint_to_sockaddr(const struct endpoint *e, struct sockaddr_storage *out);
err_t endpoint_from_sockaddr(const struct sockaddr *sa, struct endpoint *out) WARN_UNUSED;

#endif
