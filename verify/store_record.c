/* verify/store_record.c: records as bytes, and which keys match a pattern. */
#include "verify/store_priv.h"

#define VERSION 1

/* FNV-1a over key and value: LMDB has no checksums of its own, and a value under the wrong key is as wrong as
 * a changed one. It finds damage, not malice. */
static uint32_t sum(str_t key, const uint8_t *value, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < key.n; i++)
        h = (h ^ (uint8_t)key.p[i]) * UINT64_C(0x100000001b3);
    for (size_t i = 0; i < n; i++)
        h = (h ^ value[i]) * UINT64_C(0x100000001b3);
    return (uint32_t)(h ^ h >> 32);
}

static void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void store_encode(str_t key, const struct verdict_record *r, uint8_t out[STORE_VALUE_BYTES])
{
    memset(out, 0, STORE_VALUE_BYTES);
    out[0] = VERSION;
    out[1] = r->state;
    out[2] = r->source;
    out[3] = r->pin;
    out[4] = r->suspect;
    put_u32(out + 8, r->checked_s);
    put_u32(out + 12, r->refused_s);
    put_u32(out + 16, sum(key, out, 16));
}

err_t store_decode(str_t key, str_t value, struct verdict_record *out)
{
    const uint8_t *p = (const uint8_t *)value.p;
    if (value.n < 1 || key.n == 0 || key.n > VERIFY_KEY_MAX)
        return ERR_CORRUPT;
    if (p[0] > VERSION)
        return ERR_VERSION;
    if (p[0] != VERSION || value.n != STORE_VALUE_BYTES || get_u32(p + 16) != sum(key, p, 16))
        return ERR_CORRUPT;
    if (p[1] > VERDICT_DISABLED || p[2] > SOURCE_SENDER || p[3] > PIN_UNKNOWN || p[4] > 1)
        return ERR_CORRUPT;
    *out = (struct verdict_record){.state = p[1],
                                   .source = p[2],
                                   .pin = p[3],
                                   .suspect = p[4],
                                   .checked_s = get_u32(p + 8),
                                   .refused_s = get_u32(p + 12)};
    return 0;
}

/* Only the last '*' is ever tried again, so the time is at most the product of the lengths. */
bool store_glob(str_t glob, str_t key)
{
    size_t g = 0, k = 0, star = SIZE_MAX, star_key = 0;
    while (k < key.n) {
        if (g < glob.n && glob.p[g] == '*') {
            star = g++;
            star_key = k;
        } else if (g < glob.n && (glob.p[g] == '?' || glob.p[g] == key.p[k])) {
            g++;
            k++;
        } else if (star != SIZE_MAX) {
            g = star + 1;
            k = ++star_key;
        } else {
            return false;
        }
    }
    while (g < glob.n && glob.p[g] == '*')
        g++;
    return g == glob.n;
}
