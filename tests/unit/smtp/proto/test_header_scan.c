/* tests/unit/smtp/proto/test_header_scan.c: tests of smtp/proto/header_scan.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "smtp/proto/content.h"

struct header_case {
    str_t in;
    uint32_t received_count, bytes; /* bytes 0: all of it */
    bool date, message_id, from, done;
};

#define HEADERS "Received: a\r\nReceived: b\r\n\tfolded: c\r\nDate: d\r\nMessage-Id: <e>\r\nFrom: f\r\n"

static const struct header_case cases[] = {
    {STR(HEADERS "\r\nReceived: body\r\n"), 2, sizeof HEADERS + 1, true, true, true, true},
    {STR("received: a\r\nRECEIVED : b\r\nReceived\t:c\r\n"), 3, 0, false, false, false, false},
    {STR(".Received: a\r\n..x: b\r\nDate: c\r\n\r\n"), 1, 0, true, false, false, true},
    {STR("X-Received: a\r\nReceived-SPF: b\r\nReceive: c\r\n"), 0, 0, false, false, false, false},
    {STR("A-very-long-header-name-indeed-Date: a\r\nDate: b\r\n"), 0, 0, true, false, false, false},
    {STR("Message-ID-is-longer-than-16: a\r\n"), 0, 0, false, false, false, false},
    {STR("Subject: a\r\n Date: continued\r\n\tFrom: continued\r\n"), 0, 0, false, false, false, false},
    {STR("Subject: a\r\n \r\nDate: b\r\n"), 0, 0, true, false, false, false},
    {STR("\r\nDate: a\r\n"), 0, 2, false, false, false, true},
    {STR("no header\r\nDate: a\r\n"), 0, 4, false, false, false, true},
    {STR(" blank first\r\nDate: a\r\n"), 0, 1, false, false, false, true},
    {STR("Date: a\r\nbody at once\r\nFrom: b\r\n"), 0, 15, true, false, false, true},
    {STR(": no name\r\nDate: a\r\n"), 0, 1, false, false, false, true},
    {STR("Da\0te: a\r\n"), 0, 3, false, false, false, true},
    {STR("Date\r\nFrom: a\r\n"), 0, 5, false, false, false, true},
    {STR("Date: a\nFrom: b\n"), 0, 0, true, false, true, false},
    {STR("Date: a\r\n\nFrom: b\n"), 0, 10, true, false, false, true},
    {STR("Date:\r\n\r\n"), 0, 0, true, false, false, true},
};

static void test_headers(void **state)
{
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct header_case *c = &cases[i];
        for (size_t step = 1; step <= c->in.n; step++) {
            struct header_scan h = {0};
            for (size_t at = 0; at < c->in.n; at += step)
                header_scan(&h, (const uint8_t *)c->in.p + at, MIN(step, c->in.n - at));
            uint32_t bytes = c->bytes ? c->bytes : (uint32_t)c->in.n;
            if (h.received_count != c->received_count || h.bytes != bytes || h.has_date != c->date ||
                h.has_message_id != c->message_id || h.has_from != c->from || h.done != c->done)
                fail_msg("case %zu by %zu: received %u bytes %u done %d", i, step, h.received_count, h.bytes,
                         h.done);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_headers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
