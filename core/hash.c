/* core/hash.c: SipHash-1-3 over strings (Aumasson, Bernstein 2012), plain and with ASCII case folded.
 *
 * Keys come from outside (addresses, host names). With a secret per process nobody can choose colliding ones.
 */
#include <endian.h>
#include <stddef.h>

#include "core/hash.h"
#include "core/rng.h"
#include "core/str.h"

static uint64_t seed[2];

/* Before main(), so that no later hash has to ask whether the seed is there. */
__attribute__((constructor)) static void seed_once(void)
{
    rng_bytes(seed, sizeof seed);
}

#define EACH_BYTE(b) (UINT64_C(0x0101010101010101) * (b))

/* Eight characters at once: sets bit 0x20 in every byte that is A..Z. Bytes from 0x80 stay as they are. */
static uint64_t fold8(uint64_t x)
{
    uint64_t low7 = x & EACH_BYTE(0x7f);
    uint64_t from_a = low7 + EACH_BYTE(0x80 - 'A');
    uint64_t above_z = low7 + EACH_BYTE(0x7f - 'Z');
    uint64_t upper = (from_a ^ above_z) & ~x & EACH_BYTE(0x80);
    return x | upper >> 2;
}

static uint64_t rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

struct sip {
    uint64_t v0, v1, v2, v3;
};

/* By value and inlined: the state lives in registers from the first word to the last round. */
ALWAYS_INLINE struct sip sip_round(struct sip s)
{
    s.v0 += s.v1, s.v1 = rotl(s.v1, 13) ^ s.v0, s.v0 = rotl(s.v0, 32);
    s.v2 += s.v3, s.v3 = rotl(s.v3, 16) ^ s.v2;
    s.v0 += s.v3, s.v3 = rotl(s.v3, 21) ^ s.v0;
    s.v2 += s.v1, s.v1 = rotl(s.v1, 17) ^ s.v2, s.v2 = rotl(s.v2, 32);
    return s;
}

ALWAYS_INLINE struct sip sip_word(struct sip s, uint64_t word)
{
    s.v3 ^= word;
    s = sip_round(s);
    s.v0 ^= word;
    return s;
}

ALWAYS_INLINE struct sip sip_begin(void)
{
    return (struct sip){seed[0] ^ UINT64_C(0x736f6d6570736575), seed[1] ^ UINT64_C(0x646f72616e646f6d),
                        seed[0] ^ UINT64_C(0x6c7967656e657261), seed[1] ^ UINT64_C(0x7465646279746573)};
}

ALWAYS_INLINE uint64_t load8(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return le64toh(word);
}

/* The bytes that are left over, the first in the low bits. */
ALWAYS_INLINE uint64_t load_rest(const char *end, size_t rest, size_t all)
{
    if (rest && all >= sizeof(uint64_t)) /* with some before them that have been hashed */
        return load8(end - sizeof(uint64_t)) >> (8 * (sizeof(uint64_t) - rest));
    uint64_t word = 0;
    for (size_t i = 0; i < rest; i++)
        word |= (uint64_t)(uint8_t)end[-(ptrdiff_t)rest + (ptrdiff_t)i] << 8 * i;
    return word;
}

ALWAYS_INLINE struct sip sip_string(struct sip h, str_t s, bool fold_case)
{
    size_t at = 0;
    uint64_t word;
    for (; s.n - at >= sizeof word; at += sizeof word) {
        word = load8(s.p + at);
        h = sip_word(h, fold_case ? fold8(word) : word);
    }
    word = s.n ? load_rest(s.p + s.n, s.n - at, s.n) : 0;
    return sip_word(h, (fold_case ? fold8(word) : word) | (uint64_t)s.n << 56);
}

ALWAYS_INLINE uint64_t sip_end(struct sip *h)
{
    for (int i = 0; i < 3; i++)
        *h = sip_round(*h);
    return h->v0 ^ h->v1 ^ h->v2 ^ h->v3;
}

ALWAYS_INLINE uint64_t hash(str_t s, bool fold_case)
{
    struct sip h = sip_string(sip_begin(), s, fold_case);
    h.v2 ^= 0xff;
    return sip_end(&h);
}

uint64_t str_hash(str_t s)
{
    return hash(s, false);
}

uint64_t str_ihash(str_t s)
{
    return hash(s, true);
}

/* The 128-bit variant of the reference implementation. */
struct hash128 str_hash128(str_t s)
{
    struct sip h = sip_begin();
    struct hash128 out;
    h.v1 ^= 0xee;
    h = sip_string(h, s, false);
    h.v2 ^= 0xee;
    out.lo = sip_end(&h);
    h.v1 ^= 0xdd;
    out.hi = sip_end(&h);
    return out;
}

uint64_t hash_u64(uint64_t key)
{
    key ^= seed[0];
    key = (key ^ key >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    key = (key ^ key >> 27) * UINT64_C(0x94d049bb133111eb);
    return key ^ key >> 31;
}
