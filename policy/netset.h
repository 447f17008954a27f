/* policy/netset.h: "is this address in one of these networks", for any number of networks. Built once, then
 * read by any thread. */
#ifndef POLICY_NETSET_H
#define POLICY_NETSET_H

#include "core/ip.h"

#define NETSET_LENGTHS_MAX 129 /* prefix lengths 0..128 */

/* Networks sorted by prefix length and address. A lookup masks the address once per length that occurs (three
 * or four in life) and searches that length's part by halving. */
struct netset {
    struct cidr *items; /* owned */
    size_t count, cap;
    struct netset_part {
        uint8_t bits;
        uint32_t first, count;
    } parts[NETSET_LENGTHS_MAX];
    size_t part_count;
};

err_t netset_add(struct netset *s, const struct cidr *net) WARN_UNUSED; /* before netset_seal; -ENOMEM */
void netset_seal(struct netset *s);
bool netset_match(const struct netset *s, const struct ip *ip);
void netset_free(struct netset *s);

#endif
