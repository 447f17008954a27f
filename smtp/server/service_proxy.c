/* smtp/server/service_proxy.c: a load balancer says who its client is, before the greeting, and before TLS on
 * a port where that comes first. From then on the client is that one: its class, its limits, its address in
 * logs and trace. */
#include "smtp/proto/proxy_header.h"
#include "smtp/server/service_priv.h"

#define HEADER_MS 10000 /* it comes in the balancer's first packet */

struct proxy_wait {
    struct proxy_reader reader;
    struct endpoint local;
    enum listener_tls tls;
};

size_t service_proxy_wait_bytes(void)
{
    return sizeof(struct proxy_wait);
}

void service_proxy_gone(struct session *s)
{
    if (!s->proxy_wait)
        return;
    pool_put(&s->service->proxy_waits, s->proxy_wait);
    s->proxy_wait = NULL;
}

void service_proxy_begin(struct session *s, int fd, const struct endpoint *local, enum listener_tls tls)
{
    s->has_via = true;
    s->step = ORIGIN_PROXY;
    s->via = s->peer.ip;
    s->refused = CLOSE_proxy; /* unless it turns out well */
    session_connect(s, fd);
    s->proxy_wait = pool_get(&s->service->proxy_waits);
    if (!s->proxy_wait) {
        conn_close(session_conn(s), -ENOMEM);
        return;
    }
    s->proxy_wait->local = *local;
    s->proxy_wait->tls = tls;
    session_wait(s, HEADER_MS);
}

static void refuse(struct session *s, const char *text)
{
    metric_inc(M_proxy_bad);
    LOG(proxy_refused, LF_QID("sid", s->id), LF_IP("via", &s->via), LF_U64("port", s->peer.port),
        LF_CSTR("text", text));
    conn_close(session_conn(s), 0);
}

void service_proxy_late(struct session *s)
{
    refuse(s, "it did not say who its client is in time; turn the PROXY protocol on there, or take it out of "
              "the listener's proxy");
}

static void take_client(struct session *s, const struct proxy_reader *r)
{
    switch (r->kind) {
    case PROXY_TCP: s->peer = r->client; break;
    case PROXY_UNKNOWN:
        s->peer = (struct endpoint){.ip = origin_no_address()};
        break; /* in no network: a stranger */
    case PROXY_LOCAL: break;
    }
    metric_inc(r->kind == PROXY_TCP     ? M_proxy_client
               : r->kind == PROXY_LOCAL ? M_proxy_local
                                        : M_proxy_unknown);
}

size_t service_proxy_data(struct session *s, const uint8_t *p, size_t n)
{
    struct proxy_wait *w = s->proxy_wait;
    bool done;
    err_t err;
    size_t used = proxy_read(&w->reader, p, n, &done, &err);
    if (err) {
        refuse(s,
               "what it said first is no PROXY header; turn the PROXY protocol on there, or take it out of "
               "the listener's proxy");
        return n;
    }
    if (!done)
        return used;
    const struct proxy_wait said = *w;
    timer_disarm(s->service->opt.loop, &s->timer);
    s->deadline_ms = UINT64_MAX;
    service_proxy_gone(s);
    take_client(s, &said.reader);
    service_admit(s, &said.local, said.tls);
    return used;
}
