/* verify/token.c: see token.h. */
#include "verify/token.h"

#include <openssl/hmac.h>
#include <openssl/mem.h>

#define SLOT_BYTES 4
#define MAC_BYTES  11
#define ALL_BYTES  (SLOT_BYTES + MAC_BYTES)

_Static_assert(ALL_BYTES * 8 == TOKEN_LETTERS * 5, "no letter holds bits to spare");

/* RFC 4648 6, in lower case: servers fold it. */
static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";

static void seal(const uint8_t *key, uint32_t slot, uint8_t out[ALL_BYTES])
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned mac_n;
    for (int i = 0; i < SLOT_BYTES; i++)
        out[i] = (uint8_t)(slot >> (8 * (SLOT_BYTES - 1 - i)));
    must(HMAC(EVP_sha256(), key, TOKEN_KEY_BYTES, out, SLOT_BYTES, mac, &mac_n) && mac_n >= MAC_BYTES);
    memcpy(out + SLOT_BYTES, mac, MAC_BYTES);
}

void token_write(const uint8_t key[TOKEN_KEY_BYTES], uint64_t wall_s, struct sbuf *out)
{
    uint8_t bytes[ALL_BYTES];
    seal(key, (uint32_t)(wall_s / 3600), bytes);
    sbuf_cstr(out, TOKEN_PREFIX);
    for (unsigned at = 0; at < TOKEN_LETTERS * 5; at += 5) {
        unsigned pair = (unsigned)bytes[at / 8] << 8 | (at / 8 + 1 < ALL_BYTES ? bytes[at / 8 + 1] : 0);
        sbuf_char(out, letters[pair >> (11 - at % 8) & 31]);
    }
}

/* -1: none of ours. */
static int value_of(char c)
{
    if (c >= 'a' && c <= 'z')
        return c - 'a';
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    return c >= '2' && c <= '7' ? c - '2' + 26 : -1;
}

static bool read_token(str_t local, uint8_t out[ALL_BYTES])
{
    str_t prefix = STR(TOKEN_PREFIX);
    if (local.n != prefix.n + TOKEN_LETTERS || !str_istarts(local, prefix))
        return false;
    uint32_t bits = 0, bit_count = 0, n = 0;
    for (size_t i = prefix.n; i < local.n; i++) {
        int v = value_of(local.p[i]);
        if (v < 0)
            return false;
        bits = bits << 5 | (uint32_t)v;
        bit_count += 5;
        if (bit_count >= 8) {
            bit_count -= 8;
            out[n++] = (uint8_t)(bits >> bit_count);
        }
    }
    return true;
}

bool token_has_form(str_t local)
{
    uint8_t bytes[ALL_BYTES];
    return read_token(local, bytes);
}

bool token_is_ours(const uint8_t key[TOKEN_KEY_BYTES], str_t local, uint64_t wall_s)
{
    uint8_t bytes[ALL_BYTES], want[ALL_BYTES];
    if (!read_token(local, bytes))
        return false;
    uint32_t slot = 0, now = (uint32_t)(wall_s / 3600);
    for (int i = 0; i < SLOT_BYTES; i++)
        slot = slot << 8 | bytes[i];
    if (slot > now + 1 || slot + TOKEN_HOURS < now) /* +1: the clock may have been set back */
        return false;
    seal(key, slot, want);
    return CRYPTO_memcmp(bytes, want, ALL_BYTES) == 0;
}
