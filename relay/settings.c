/* relay/settings.c: what the relay keeps of a configuration. */
#include <errno.h>
#include <ifaddrs.h>

#include "relay/relay_priv.h"

#define OWN_MAX 1024 /* listeners times local addresses */

static void own_add(struct settings *s, const struct endpoint *e)
{
    if (s->own_count < OWN_MAX)
        s->own[s->own_count++] = *e;
}

/* A wildcard listens on every address of this machine. Without the list of them loopback at least is known.
 */
static void own_add_all(struct settings *s, uint16_t port, const struct ifaddrs *interfaces)
{
    for (const struct ifaddrs *i = interfaces; i; i = i->ifa_next) {
        struct endpoint e;
        if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        if (endpoint_from_sockaddr(i->ifa_addr, &e) == 0) {
            e.port = port;
            own_add(s, &e);
        }
    }
}

err_t settings_copy(struct settings *out, const struct config *c)
{
    struct settings s = {
        .connect_ms = c->timeouts.connect,
        .greeting_ms = c->timeouts.greeting,
        .helo_ms = c->timeouts.helo,
        .mail_ms = c->timeouts.mail,
        .rcpt_ms = c->timeouts.rcpt,
        .data_init_ms = c->timeouts.data_init,
        .data_send_ms = c->timeouts.data_send,
        .data_done_ms = c->timeouts.data_done,
        .idle_ms = c->timeouts.idle,
        .quit_ms = c->timeouts.quit,
        .retry = {c->retry.first_s, c->retry.max_s},
        .lifetime_ms = (uint64_t)c->retry.lifetime_s * 1000,
        .delay_after_ms = (uint64_t)c->dsn.delay_after_s * 1000,
        .return_size_bytes = c->dsn.return_size,
        .dsn_rate = c->dsn.rate,
        .double_bounces = c->dsn.double_bounces,
        .dsn_lifetime_ms = (uint64_t)c->retry.dsn_lifetime_s * 1000,
    };
    size_t n = MIN(c->hostname.n, sizeof s.hostname - 1);
    memcpy(s.hostname, c->hostname.p, n);
    s.own = calloc(OWN_MAX, sizeof *s.own);
    if (!s.own)
        return -ENOMEM;
    struct ifaddrs *interfaces = NULL;
    if (getifaddrs(&interfaces) != 0)
        interfaces = NULL;
    for (size_t i = 0; i < c->listener_count; i++) {
        const struct endpoint *e = &c->listeners[i].at;
        if (ip_is_any(&e->ip))
            own_add_all(&s, e->port, interfaces);
        else
            own_add(&s, e);
    }
    if (interfaces)
        freeifaddrs(interfaces);
    *out = s;
    return 0;
}

void settings_free(struct settings *s)
{
    free(s->own);
    s->own = NULL;
    s->own_count = 0;
}

bool settings_is_own(const struct settings *s, const struct endpoint *e)
{
    for (size_t i = 0; i < s->own_count; i++)
        if (s->own[i].port == e->port && ip_eq(&s->own[i].ip, &e->ip))
            return true;
    return ip_is_any(&e->ip);
}
