/* policy/netset.c: see netset.h. */
#include "policy/netset.h"

#include <errno.h>

#define V4_BITS 96 /* of the mapped prefix (core/ip.h) */

err_t netset_add(struct netset *s, const struct cidr *net)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 16;
        struct cidr *items = realloc(s->items, cap * sizeof *items);
        if (!items)
            return -ENOMEM;
        s->items = items;
        s->cap = cap;
    }
    s->items[s->count++] = *net;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct cidr *x = a, *y = b;
    if (x->bits != y->bits)
        return y->bits - x->bits; /* longest first: single addresses are the usual hit */
    return memcmp(x->ip.b, y->ip.b, sizeof x->ip.b);
}

void netset_seal(struct netset *s)
{
    if (s->count)
        qsort(s->items, s->count, sizeof *s->items, compare);
    s->part_count = 0;
    for (size_t i = 0; i < s->count; i++) {
        struct netset_part *last = s->part_count ? &s->parts[s->part_count - 1] : NULL;
        if (last && last->bits == s->items[i].bits)
            last->count++;
        else
            s->parts[s->part_count++] =
                (struct netset_part){.bits = s->items[i].bits, .first = (uint32_t)i, .count = 1};
    }
}

static struct ip mask(const struct ip *ip, unsigned bits)
{
    struct ip masked = {{0}};
    unsigned bytes = bits / 8, rest = bits % 8;
    memcpy(masked.b, ip->b, bytes);
    if (rest)
        masked.b[bytes] = (uint8_t)(ip->b[bytes] & (0xff << (8 - rest)));
    return masked;
}

static bool part_has(const struct netset *s, const struct netset_part *part, const struct ip *ip)
{
    struct cidr wanted = {.ip = mask(ip, part->bits), .bits = part->bits};
    return bsearch(&wanted, s->items + part->first, part->count, sizeof wanted, compare) != NULL;
}

bool netset_match(const struct netset *s, const struct ip *ip)
{
    bool is_v4 = ip_is_v4(ip);
    for (size_t i = 0; i < s->part_count; i++) {
        /* As cidr_match has it: an IPv6 network wide enough to hold the mapped prefix still holds no IPv4. */
        if (is_v4 && s->parts[i].bits < V4_BITS)
            break;
        if (part_has(s, &s->parts[i], ip))
            return true;
    }
    return false;
}

void netset_free(struct netset *s)
{
    free(s->items);
    *s = (struct netset){0};
}
