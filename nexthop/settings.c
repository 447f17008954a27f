/* nexthop/settings.c: see settings.h. */
#include "nexthop/settings.h"

#include <errno.h>
#include <ifaddrs.h>

#define OWN_MAX 1024 /* listeners times local addresses */

static void own_add(struct hop_settings *s, const struct endpoint *e)
{
    if (s->own_count < OWN_MAX)
        s->own[s->own_count++] = *e;
}

/* A wildcard listens on every address of this machine. Without the list of them loopback at least is known.
 */
static void own_add_all(struct hop_settings *s, uint16_t port, const struct ifaddrs *interfaces)
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

err_t hop_settings_copy(struct hop_settings *out, const struct config *c)
{
    struct hop_settings s = {.times = {.connect_ms = c->timeouts.connect,
                                       .greeting_ms = c->timeouts.greeting,
                                       .helo_ms = c->timeouts.helo,
                                       .mail_ms = c->timeouts.mail,
                                       .rcpt_ms = c->timeouts.rcpt,
                                       .data_init_ms = c->timeouts.data_init,
                                       .data_send_ms = c->timeouts.data_send,
                                       .data_done_ms = c->timeouts.data_done,
                                       .idle_ms = c->timeouts.idle,
                                       .quit_ms = c->timeouts.quit}};
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

void hop_settings_free(struct hop_settings *s)
{
    free(s->own);
    s->own = NULL;
    s->own_count = 0;
}

bool hop_settings_is_own(const struct hop_settings *s, const struct endpoint *e)
{
    for (size_t i = 0; i < s->own_count; i++)
        if (s->own[i].port == e->port && ip_eq(&s->own[i].ip, &e->ip))
            return true;
    return ip_is_any(&e->ip);
}

uint32_t stage_ms(const struct stage_times *t, enum smtpc_stage stage)
{
    switch (stage) {
    case STAGE_CONNECT: return t->connect_ms;
    case STAGE_GREETING: return t->greeting_ms;
    case STAGE_HELO:
    case STAGE_TLS:
    case STAGE_AUTH: return t->helo_ms;
    case STAGE_MAIL: return t->mail_ms;
    case STAGE_RCPT: return t->rcpt_ms;
    case STAGE_DATA: return t->data_init_ms;
    case STAGE_CONTENT: return t->data_send_ms;
    case STAGE_DOT: return t->data_done_ms;
    case STAGE_QUIT: return t->quit_ms;
    case STAGE_IDLE: return t->idle_ms;
    }
    return t->data_done_ms;
}

#define DRIP_FACTOR                                                                                          \
    4 /* a peer that sends something now and then but never gets on has this many time-outs                  \
       */

uint64_t stage_left_ms(uint64_t now_ms, uint64_t progress_ms, uint64_t wait_ms)
{
    uint64_t limit_ms = progress_ms + wait_ms * DRIP_FACTOR;
    if (now_ms + wait_ms <= limit_ms)
        return wait_ms;
    return limit_ms > now_ms ? limit_ms - now_ms : 0;
}
