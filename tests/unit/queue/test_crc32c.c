/* CRC-32C against its published values (RFC 3720 B.4) and against a bit-by-bit one, over every split. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "queue/crc32c.h"

static uint32_t slow(const uint8_t *p, size_t n)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    return ~crc;
}

static void test_published(void **state)
{
    uint8_t p[32];
    memset(p, 0, sizeof p);
    assert_int_equal(crc32c(0, p, sizeof p), 0x8a9136aa);
    memset(p, 0xff, sizeof p);
    assert_int_equal(crc32c(0, p, sizeof p), 0x62a8ab43);
    for (uint8_t i = 0; i < sizeof p; i++)
        p[i] = i;
    assert_int_equal(crc32c(0, p, sizeof p), 0x46dd794e);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(0, "", 0), 0);
}

static void test_lengths_and_splits(void **state)
{
    static uint8_t p[60000];
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof p; i++)
        p[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
    static const size_t lengths[] = {1, 7, 8, 9, 767, 768, 769, 777, 5000, 24575, 24576, 24577, 30001, 59999};
    for (size_t i = 0; i < COUNT_OF(lengths); i++)
        for (size_t offset = 0; offset < 2; offset++) {
            size_t n = lengths[i], half = n / 3;
            uint32_t whole = crc32c(0, p + offset, n);
            assert_int_equal(whole, slow(p + offset, n));
            assert_int_equal(crc32c(crc32c(0, p + offset, half), p + offset + half, n - half), whole);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_lengths_and_splits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
