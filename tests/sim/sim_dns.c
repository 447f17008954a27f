/* tests/sim/sim_dns.c: stands in for net/dns*.c: one name has an address, and is sometimes not to be had. */
#include "net/dns.h"

#include "tests/sim/sim.h"

#define TEMP_PPM 100000

struct dns {
    char nothing;
};

static void look_up(struct dns_query *q)
{
    q->count = 0;
    q->secure = false;
    q->ttl_s = 1 + (uint32_t)chance_below(300);
    q->err = ERR_DNS_NXDOMAIN;
    if (q->kind != DNS_ADDRESS || strcmp(q->name, "mx.named.example") != 0)
        return;
    q->err = !W.healing && chance_ppm(TEMP_PPM) ? ERR_DNS_TEMP : 0;
    if (q->err)
        return;
    q->count = 1;
    must(ip_parse(STR("10.0.0.3"), &q->addresses[0]) == 0);
}

err_t dns_start(struct dns **out, const struct config *c, struct sbuf *error)
{
    static struct dns only;
    *out = &only;
    return 0;
}

void dns_stop(struct dns *d)
{
}

static void deliver(struct mail *m)
{
    struct dns_query *q = container_of(m, struct dns_query, mail);
    q->answered(q);
}

static void answer(void *ctx, uint64_t arg)
{
    struct dns_query *q = ctx;
    look_up(q);
    q->mail.deliver = deliver;
    loop_post(q->loop, &q->mail);
}

void dns_ask(struct dns *d, struct loop *l, struct dns_query *q)
{
    q->loop = l;
    process_at(chance_around(20 * SIM_MS), answer, q, 0);
}

void dns_ask_blocking(struct dns *d, struct dns_query *q)
{
    look_up(q);
}
