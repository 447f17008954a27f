/* Names for the policy tests; nothing outside is asked. */
#ifndef TESTS_UNIT_POLICY_FAKE_RESOLVER_H
#define TESTS_UNIT_POLICY_FAKE_RESOLVER_H

#include "policy/policy.h"

static size_t fake_resolve(void *ctx, str_t name, struct ip *out, size_t max)
{
    static const struct {
        const char *name, *address;
    } hosts[] = {
        {"edge.example.net", "192.0.2.10"},
        {"edge.example.net", "2001:db8:e::10"},
        {"mail.internal.example.com", "10.9.0.25"},
        {"mx.example.org", "198.51.100.25"},
        {"mx2.example.com", "10.0.0.6"},
        {"loop.example.net", "127.0.0.1"},
        {"own.example.net", "10.0.0.1"},
    };
    size_t n = 0;

    (void)ctx;
    for (size_t i = 0; i < COUNT_OF(hosts) && n < max; i++)
        if (str_eq(name, str_cstr(hosts[i].name)))
            must(ip_parse(str_cstr(hosts[i].address), &out[n++]) == 0);
    return n;
}

static const struct policy_resolver fake_resolver = {.resolve = fake_resolve};

#endif
