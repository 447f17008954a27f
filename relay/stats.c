/* relay/stats.c: figures per destination, summed over the workers: written by them with relaxed atomics, read
 * by the scraper. Entries are made under a mutex and never freed: a counter must not go back. Past a bound
 * everything new that is in no configuration counts as "other", so that a spammer's invented domains do not
 * flood the metrics. */
#include <pthread.h>
#include <stdatomic.h>

#include "core/metrics.h"
#include "relay/dest_priv.h"

#define DESTINATIONS_MAX 1000

struct dest_stats {
    struct dest_stats *next; /* of all */
    atomic_int_least64_t connections, down_workers;
    atomic_uint_least64_t sent, deferred, bounced;
    rate_state rate_at;
    size_t key_n;
    char key[];
};

static struct {
    pthread_mutex_t lock;
    struct smap by_key; /* under the lock */
    struct dest_stats *all;
    uint32_t count;
    bool is_collected;
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Without memory for more. */
static struct dest_stats other;

static str_t key_of(const struct dest_stats *s)
{
    return s == &other ? STR("other") : str_of(s->key, s->key_n);
}

static void collect_family(struct gbuf *out, const char *name, const char *type, const char *help)
{
    gbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void collect_gauge(struct gbuf *out, const char *name, const struct dest_stats *s, int64_t value)
{
    gbuf_printf(out, "%s{destination=\"", name);
    metrics_label(out, key_of(s));
    gbuf_printf(out, "\"} %lld\n", (long long)value);
}

static void collect_deliveries(struct gbuf *out, const struct dest_stats *s, const char *result,
                               uint64_t value)
{
    gbuf_cstr(out, "postern_destination_deliveries_total{destination=\"");
    metrics_label(out, key_of(s));
    gbuf_printf(out, "\",result=\"%s\"} %llu\n", result, (unsigned long long)value);
}

static void collect(void *ctx, struct gbuf *out)
{
    pthread_mutex_lock(&registry.lock);
    collect_family(out, "postern_destination_connections", "gauge",
                   "outbound connections open now, by destination");
    for (const struct dest_stats *s = registry.all; s; s = s->next)
        collect_gauge(out, "postern_destination_connections", s,
                      atomic_load_explicit(&s->connections, memory_order_relaxed));
    collect_family(out, "postern_destination_down", "gauge",
                   "workers that leave the destination alone for a while");
    for (const struct dest_stats *s = registry.all; s; s = s->next)
        collect_gauge(out, "postern_destination_down", s,
                      atomic_load_explicit(&s->down_workers, memory_order_relaxed));
    collect_family(out, "postern_destination_deliveries_total", "counter",
                   "delivery attempts per recipient, by destination and result");
    for (const struct dest_stats *s = registry.all; s; s = s->next) {
        collect_deliveries(out, s, "sent", atomic_load_explicit(&s->sent, memory_order_relaxed));
        collect_deliveries(out, s, "deferred", atomic_load_explicit(&s->deferred, memory_order_relaxed));
        collect_deliveries(out, s, "bounced", atomic_load_explicit(&s->bounced, memory_order_relaxed));
    }
    pthread_mutex_unlock(&registry.lock);
}

static struct dest_stats *add(str_t key, bool is_configured)
{
    if (registry.count >= DESTINATIONS_MAX && !is_configured)
        return &other;
    struct dest_stats *s = calloc(1, sizeof *s + key.n);
    if (!s)
        return &other;
    memcpy(s->key, key.p, key.n);
    s->key_n = key.n;
    if (smap_put(&registry.by_key, str_of(s->key, s->key_n), s)) {
        free(s);
        return &other;
    }
    registry.count++;
    s->next = registry.all;
    registry.all = s;
    return s;
}

struct dest_stats *dest_stats_get(str_t key, bool is_configured)
{
    pthread_mutex_lock(&registry.lock);
    bool is_first = !registry.is_collected;
    if (is_first) {
        registry.is_collected = true;
        registry.by_key.fold_case = true;
        registry.all = &other;
    }
    struct dest_stats *s = smap_get(&registry.by_key, key);
    if (!s)
        s = add(key, is_configured);
    pthread_mutex_unlock(&registry.lock);
    if (is_first)
        metrics_add_collector(collect, NULL);
    return s;
}

rate_state *dest_stats_rate(struct dest_stats *s)
{
    return s == &other ? NULL : &s->rate_at;
}

void dest_stats_connections(struct dest_stats *s, int change)
{
    atomic_fetch_add_explicit(&s->connections, change, memory_order_relaxed);
}

void dest_stats_down(struct dest_stats *s, int change)
{
    atomic_fetch_add_explicit(&s->down_workers, change, memory_order_relaxed);
}

void dest_stats_delivery(struct dest_stats *s, enum rcpt_result res)
{
    atomic_uint_least64_t *counter = res == RES_SENT       ? &s->sent
                                     : res == RES_DEFERRED ? &s->deferred
                                                           : &s->bounced;
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}
