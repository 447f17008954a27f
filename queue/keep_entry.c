/* queue/keep_entry.c: an entry of a keep record as bytes. Messages in a segment are neighbours: their numbers
 * differ little from those before, so an entry has some 20 bytes. Numbers are LEB128; differences are folded,
 * so that small ones of either sign are short. */
#include "queue/queue_priv.h"

static uint8_t *put(uint8_t *to, uint64_t v)
{
    for (; v >= 128; v >>= 7)
        *to++ = (uint8_t)(v | 128);
    *to++ = (uint8_t)v;
    return to;
}

static uint8_t *put_difference(uint8_t *to, uint64_t v, uint64_t from)
{
    uint64_t d = v - from;
    return put(to, d << 1 ^ (d >> 63 ? UINT64_MAX : 0));
}

static uint64_t get(const uint8_t **p, const uint8_t *end, bool *ok)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
        uint8_t c = *(*p)++;
        v |= (uint64_t)(c & 127) << shift;
        if (c < 128)
            return v;
    }
    *ok = false;
    return 0;
}

static uint64_t get_difference(const uint8_t **p, const uint8_t *end, uint64_t from, bool *ok)
{
    uint64_t v = get(p, end, ok);
    return from + (v >> 1 ^ (v & 1 ? UINT64_MAX : 0));
}

uint8_t *qkeep_encode(uint8_t *to, struct qkeep_entry *before, const struct qkeep_entry *e)
{
    to = put_difference(to, e->id, before->id);
    to = put_difference(to, e->arrived_ms, before->arrived_ms);
    to = put_difference(to, e->due_ms, e->arrived_ms);
    to = put_difference(to, e->offset, before->offset);
    to = put(to, e->commit_bytes);
    to = put(to, e->body_bytes);
    to = put(to, e->ring_bytes);
    to = put(to, e->attempts);
    to = put(to, e->flags);
    to = put(to, e->rcpt_count);
    *before = *e;
    return to;
}

bool qkeep_decode(const uint8_t **p, const uint8_t *end, struct qkeep_entry *e)
{
    bool ok = true;
    e->id = get_difference(p, end, e->id, &ok);
    e->arrived_ms = get_difference(p, end, e->arrived_ms, &ok);
    e->due_ms = get_difference(p, end, e->arrived_ms, &ok);
    e->offset = get_difference(p, end, e->offset, &ok);
    e->commit_bytes = get(p, end, &ok);
    e->body_bytes = get(p, end, &ok);
    e->ring_bytes = get(p, end, &ok);
    e->attempts = get(p, end, &ok);
    e->flags = get(p, end, &ok);
    e->rcpt_count = get(p, end, &ok);
    return ok && e->rcpt_count <= (size_t)(end - *p);
}
