/* smtp/proto/proxy_header.c: see proxy_header.h. */
#include "smtp/proto/proxy_header.h"

#define V2_FIXED_BYTES 16
#define V2_IPV4_BYTES  12 /* two addresses, two ports */
#define V2_IPV6_BYTES  36

static const uint8_t v1_start[] = {'P', 'R', 'O', 'X', 'Y', ' '};
static const uint8_t v2_start[] = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};

static bool starts_like(const struct proxy_reader *r, const uint8_t *start, size_t n)
{
    return memcmp(r->bytes, start, MIN((size_t)r->n, n)) == 0;
}

/* --- version 1: one line --- */

static err_t parse_port(str_t s, uint16_t *out)
{
    uint64_t v = 0;
    if (s.n > 5 || (s.n > 1 && s.p[0] == '0') || str_to_u64(s, &v) || v > UINT16_MAX)
        return ERR_SYNTAX;
    *out = (uint16_t)v;
    return 0;
}

static err_t parse_v1_address(str_t s, bool is_v4, struct ip *out)
{
    bool has_colon = str_find(s, ':') >= 0;
    if (str_find(s, '[') >= 0 || has_colon == is_v4)
        return ERR_SYNTAX;
    return ip_parse(s, out);
}

/* `line` without its CRLF. */
static err_t parse_v1(struct proxy_reader *r, str_t line)
{
    str_t words[6], rest = line;
    size_t count = 0;
    bool more = true;
    for (; more && count < COUNT_OF(words); count++)
        more = str_cut(rest, ' ', &words[count], &rest);
    r->kind = PROXY_UNKNOWN;
    if (count >= 2 && str_eq(words[1], STR("UNKNOWN")))
        return 0; /* whatever follows */
    bool is_v4 = count >= 2 && str_eq(words[1], STR("TCP4"));
    struct ip to;
    uint16_t to_port;
    if (count != 6 || more || (!is_v4 && !str_eq(words[1], STR("TCP6"))) ||
        parse_v1_address(words[2], is_v4, &r->client.ip) || parse_v1_address(words[3], is_v4, &to) ||
        parse_port(words[4], &r->client.port) || parse_port(words[5], &to_port))
        return ERR_SYNTAX;
    r->kind = PROXY_TCP;
    return 0;
}

static err_t step_v1(struct proxy_reader *r, bool *done)
{
    uint8_t last = r->bytes[r->n - 1];
    if (!starts_like(r, v1_start, sizeof v1_start))
        return ERR_SYNTAX;
    if (last != '\n')
        return r->n == PROXY_V1_BYTES_MAX ? ERR_SYNTAX : 0;
    if (r->bytes[r->n - 2] != '\r')
        return ERR_SYNTAX;
    *done = true;
    return parse_v1(r, str_of((const char *)r->bytes, (size_t)r->n - 2));
}

/* --- version 2: binary --- */

static uint16_t get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/* Of the addresses that we read; 0: all is skipped. */
static size_t v2_address_bytes(const struct proxy_reader *r)
{
    if (r->bytes[12] == 0x20)
        return 0;
    return r->bytes[13] == 0x11 ? V2_IPV4_BYTES : r->bytes[13] == 0x21 ? V2_IPV6_BYTES : 0;
}

static err_t check_v2_fixed(const struct proxy_reader *r)
{
    uint8_t command = r->bytes[12], family = r->bytes[13];
    uint16_t bytes = get_u16(r->bytes + 14);
    if ((command != 0x20 && command != 0x21) || bytes > PROXY_V2_BYTES_MAX || bytes < v2_address_bytes(r))
        return ERR_SYNTAX;
    /* Streams of a family that we may not know; no datagrams. */
    return command == 0x21 && ((family & 0x0F) > 1 || family >> 4 > 3) ? ERR_SYNTAX : 0;
}

static void take_v2_client(struct proxy_reader *r)
{
    const uint8_t *at = r->bytes + V2_FIXED_BYTES;
    size_t bytes = v2_address_bytes(r);
    r->kind = r->bytes[12] == 0x20 ? PROXY_LOCAL : bytes ? PROXY_TCP : PROXY_UNKNOWN;
    if (bytes == V2_IPV4_BYTES) {
        r->client.ip = (struct ip){.b = {[10] = 0xff, [11] = 0xff}};
        memcpy(r->client.ip.b + 12, at, 4);
        r->client.port = get_u16(at + 8);
    } else if (bytes == V2_IPV6_BYTES) {
        memcpy(r->client.ip.b, at, 16);
        r->client.port = get_u16(at + 32);
    }
}

static err_t step_v2(struct proxy_reader *r, bool *done)
{
    if (!starts_like(r, v2_start, sizeof v2_start))
        return ERR_SYNTAX;
    if (r->n < V2_FIXED_BYTES)
        return 0;
    err_t err = r->n == V2_FIXED_BYTES ? check_v2_fixed(r) : 0;
    size_t bytes = v2_address_bytes(r);
    if (err || r->n < V2_FIXED_BYTES + bytes)
        return err;
    take_v2_client(r);
    r->skip = (uint16_t)(get_u16(r->bytes + 14) - bytes);
    *done = r->skip == 0;
    return 0;
}

size_t proxy_read(struct proxy_reader *r, const uint8_t *p, size_t n, bool *done, err_t *err)
{
    size_t used = 0;
    *done = false;
    *err = 0;
    while (used < n && !*done && !*err) {
        if (r->skip) {
            size_t skipped = MIN((size_t)r->skip, n - used);
            r->skip -= (uint16_t)skipped;
            used += skipped;
            *done = r->skip == 0;
            continue;
        }
        r->bytes[r->n++] = p[used++];
        *err = r->bytes[0] == v1_start[0] ? step_v1(r, done) : step_v2(r, done);
    }
    return used;
}
