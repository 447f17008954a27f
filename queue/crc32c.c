/* queue/crc32c.c: the SSE4.2 instruction where there is one, a table elsewhere.
 *
 * The instruction has a latency of three cycles and a throughput of one, so three streams run at once; a CRC
 * is linear, and moving one past n further bytes is a multiplication by a constant, done with four table
 * look-ups. */
#include "queue/crc32c.h"

#if defined(__SSE4_2__)

#include <nmmintrin.h>

#define LONG_BYTES  8192u
#define SHORT_BYTES 256u

/* shift_*[k][b]: the state b << 8k after LONG_BYTES (SHORT_BYTES) of zeros. */
static uint32_t shift_long[4][256], shift_short[4][256];

static uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void shift_table_make(uint32_t table[4][256], uint32_t bytes)
{
    uint32_t basis[32];
    for (unsigned bit = 0; bit < 32; bit++) {
        uint64_t state = UINT32_C(1) << bit;
        for (uint32_t i = 0; i < bytes / 8; i++)
            state = _mm_crc32_u64(state, 0);
        basis[bit] = (uint32_t)state;
    }
    for (unsigned k = 0; k < 4; k++)
        for (unsigned b = 0; b < 256; b++)
            for (unsigned bit = 0; bit < 8; bit++)
                if (b >> bit & 1)
                    table[k][b] ^= basis[8 * k + bit];
}

__attribute__((constructor)) static void shift_tables_make(void)
{
    shift_table_make(shift_long, LONG_BYTES);
    shift_table_make(shift_short, SHORT_BYTES);
}

static uint64_t shift(const uint32_t table[4][256], uint64_t state)
{
    return table[0][state & 255] ^ table[1][state >> 8 & 255] ^ table[2][state >> 16 & 255] ^
           table[3][state >> 24 & 255];
}

/* Three neighbouring stretches of `bytes` each. */
static uint64_t three_at_once(uint64_t a, const uint8_t *p, uint32_t bytes, const uint32_t table[4][256])
{
    uint64_t b = 0, c = 0;
    for (uint32_t i = 0; i < bytes; i += 8) {
        a = _mm_crc32_u64(a, load64(p + i));
        b = _mm_crc32_u64(b, load64(p + bytes + i));
        c = _mm_crc32_u64(c, load64(p + 2 * bytes + i));
    }
    return shift(table, shift(table, a) ^ b) ^ c;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t state = ~crc;
    for (; n >= 3 * LONG_BYTES; p += 3 * LONG_BYTES, n -= 3 * LONG_BYTES)
        state = three_at_once(state, p, LONG_BYTES, shift_long);
    for (; n >= 3 * SHORT_BYTES; p += 3 * SHORT_BYTES, n -= 3 * SHORT_BYTES)
        state = three_at_once(state, p, SHORT_BYTES, shift_short);
    for (; n >= 8; p += 8, n -= 8)
        state = _mm_crc32_u64(state, load64(p));
    for (; n > 0; p++, n--)
        state = _mm_crc32_u8((uint32_t)state, *p);
    return ~(uint32_t)state;
}

#else

#define POLYNOMIAL_REVERSED 0x82f63b78u

static uint32_t byte_table[256];

__attribute__((constructor)) static void byte_table_make(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t v = b;
        for (unsigned bit = 0; bit < 8; bit++)
            v = v & 1 ? v >> 1 ^ POLYNOMIAL_REVERSED : v >> 1;
        byte_table[b] = v;
    }
}

uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;
    crc = ~crc;
    for (; n > 0; p++, n--)
        crc = byte_table[(crc ^ *p) & 255] ^ crc >> 8;
    return ~crc;
}

#endif
