/* daemon/census.c: how many messages wait, since when, and for whom: summed up in a walk over a worker's
 * queue. */
#include "daemon/walk_priv.h"

#define DESTINATIONS_MAX 1000 /* more count as "other" */

static const struct {
    const char *name;
    uint64_t below_s;
} AGES[] = {{"5m", 300}, {"1h", 3600}, {"6h", 21600}, {"1d", 86400}, {"3d", 259200}, {"more", UINT64_MAX}};

struct figures {
    uint64_t messages, recipients, bytes, oldest_ms;
};

struct counted_destination {
    struct figures figures;
    size_t key_n;
    char key[];
};

struct census {
    struct figures active, deferred, held, leased;
    uint64_t ages[COUNT_OF(AGES)];
    struct smap destinations; /* owned values */
    size_t destination_count;
    struct figures other, unknown;
};

struct census *census_new(void)
{
    struct census *c = calloc(1, sizeof *c);
    if (c)
        c->destinations.fold_case = true;
    return c;
}

void census_free(struct census *c)
{
    size_t at = 0;
    str_t key;
    void *value;
    if (!c)
        return;
    while (smap_next(&c->destinations, &at, &key, &value))
        free(value);
    smap_free(&c->destinations);
    free(c);
}

static void count(struct figures *f, const struct qmsg *m)
{
    f->messages++;
    f->recipients += m->rcpt_pending;
    f->bytes += m->body_bytes;
    if (!f->oldest_ms || m->arrived_ms < f->oldest_ms)
        f->oldest_ms = m->arrived_ms;
}

static struct figures *of_destination(struct census *c, str_t key)
{
    if (!key.p || !key.n)
        return &c->unknown;
    struct counted_destination *d = smap_get(&c->destinations, key);
    if (d)
        return &d->figures;
    d = c->destination_count < DESTINATIONS_MAX ? calloc(1, sizeof *d + key.n) : NULL;
    if (!d)
        return &c->other;
    memcpy(d->key, key.p, key.n);
    d->key_n = key.n;
    if (smap_put(&c->destinations, str_of(d->key, d->key_n), d)) {
        free(d);
        return &c->other;
    }
    c->destination_count++;
    return &d->figures;
}

static struct figures *of_state(struct census *c, str_t state)
{
    return str_eq(state, STR("active"))   ? &c->active
           : str_eq(state, STR("held"))   ? &c->held
           : str_eq(state, STR("leased")) ? &c->leased
                                          : &c->deferred;
}

void census_add(struct census *c, const struct qmsg *m, const struct relay_message_info *info)
{
    count(of_state(c, str_cstr(info->state)), m);
    count(of_destination(c, info->destination), m);
    uint64_t age_s = (uint64_t)seconds_since(m->arrived_ms);
    size_t i = 0;
    while (age_s >= AGES[i].below_s)
        i++;
    c->ages[i]++;
}

static void put(json_t *o, str_t name, const struct figures *f)
{
    if (f->messages && str_is_utf8(name))
        json_object_setn_new(o, name.p, name.n,
                             json_pack("{s:I, s:I, s:I, s:I}", "messages", (json_int_t)f->messages,
                                       "recipients", (json_int_t)f->recipients, "bytes", (json_int_t)f->bytes,
                                       "oldest_ms", (json_int_t)f->oldest_ms));
}

json_t *census_json(const struct census *c)
{
    json_t *states = json_object(), *ages = json_object(), *destinations = json_object();
    put(states, STR("active"), &c->active);
    put(states, STR("deferred"), &c->deferred);
    put(states, STR("held"), &c->held);
    put(states, STR("leased"), &c->leased);
    for (size_t i = 0; i < COUNT_OF(AGES); i++)
        json_object_set_new(ages, AGES[i].name, json_integer((json_int_t)c->ages[i]));
    size_t at = 0;
    str_t key;
    void *value;
    while (smap_next(&c->destinations, &at, &key, &value)) {
        const struct counted_destination *d = value;
        put(destinations, str_of(d->key, d->key_n), &d->figures);
    }
    put(destinations, STR("other"), &c->other);
    put(destinations, STR("unknown"), &c->unknown);
    return json_pack("{s:o, s:o, s:o}", "states", states, "ages", ages, "destinations", destinations);
}
