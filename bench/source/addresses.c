/* bench/source/addresses.c: whom a message is for. A pure function of its number, so that a set of
 * recipients, and which of them are unknown, is the same in every run and for every server. */
#include "bench/source/source_priv.h"

/* splitmix64: unknown recipients are spread evenly over the numbers, in no pattern. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

bool source_recipient(const struct source_options *o, uint64_t number, uint32_t i, struct sbuf *out)
{
    uint64_t k = number * o->rcpts_per_message + i;
    if (o->recipient_set)
        k %= o->recipient_set;
    bool unknown = mix(k) % 100 < o->unknown_percent;
    const char *address = unknown ? o->unknown : o->recipient;
    const char *percent = strchr(address, '%');
    if (percent) {
        sbuf_put(out, address, (size_t)(percent - address));
        sbuf_u64(out, k);
        sbuf_cstr(out, percent + 1);
    } else {
        sbuf_cstr(out, address);
    }
    return unknown;
}
