/* tests/unit/verify/test_token.c: a probe's sender is known again, and nothing else is taken for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verify/token.h"

static const uint8_t key[TOKEN_KEY_BYTES] = "a key of thirty-two random bytes",
                     other[TOKEN_KEY_BYTES] = "another";
#define T0 UINT64_C(1800000000)

static str_t token(uint64_t wall_s, struct sbuf *b)
{
    token_write(key, wall_s, b);
    return sbuf_view(b);
}

static void known_again_for_a_day(void **state)
{
    char bytes[64];
    struct sbuf b = SBUF_ON(bytes);
    str_t t = token(T0, &b);
    assert_int_equal(t.n, sizeof TOKEN_PREFIX - 1 + TOKEN_LETTERS);
    assert_true(token_has_form(t));
    assert_true(token_is_ours(key, t, T0));
    assert_true(token_is_ours(key, t, T0 + 23 * 3600));
    assert_true(token_is_ours(key, t, T0 - 3600)); /* a clock that was set back */
    assert_false(token_is_ours(key, t, T0 + 26 * 3600));
    assert_false(token_is_ours(key, t, T0 - 3 * 3600));
    assert_false(token_is_ours(other, t, T0));
    for (size_t i = 0; i < t.n; i++) /* a server that shouts */
        bytes[i] = (char)(bytes[i] >= 'a' && bytes[i] <= 'z' ? bytes[i] - 32 : bytes[i]);
    assert_true(token_is_ours(key, t, T0));
}

static void every_letter_counts(void **state)
{
    char bytes[64];
    struct sbuf b = SBUF_ON(bytes);
    str_t t = token(T0, &b);
    for (size_t i = sizeof TOKEN_PREFIX - 1; i < t.n; i++) {
        char was = bytes[i];
        bytes[i] = was == 'a' ? 'b' : 'a';
        assert_true(token_has_form(t));
        assert_false(token_is_ours(key, t, T0));
        bytes[i] = '1';
        assert_false(token_has_form(t));
        bytes[i] = was;
    }
    assert_false(token_has_form(str_sub(t, 0, t.n - 1)));
    assert_false(token_has_form(STR("postern-probe-")));
    assert_false(token_has_form(STR("alice")));
    assert_false(token_has_form(STR_NONE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_again_for_a_day),
        cmocka_unit_test(every_letter_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
