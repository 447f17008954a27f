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
    bool date, message_id, done, cut_short, non_ascii;
};

#define HEADERS "Received: a\r\nReceived: b\r\n\tfolded: c\r\nDate: d\r\nMessage-Id: <e>\r\n"

static const struct header_case cases[] = {
    {STR(HEADERS "\r\nReceived: body\r\n"), 2, sizeof HEADERS + 1, true, true, true, false, false},
    {STR("received: a\r\nRECEIVED : b\r\nReceived\t:c\r\n"), 3, 0, false, false, false, false, false},
    {STR(".Received: a\r\n..x: b\r\nDate: c\r\n\r\n"), 1, 0, true, false, true, false, false},
    {STR("X-Received: a\r\nReceived-SPF: b\r\nReceive: c\r\n"), 0, 0, false, false, false, false, false},
    {STR("A-very-long-header-name-indeed-Date: a\r\nDate: b\r\n"), 0, 0, true, false, false, false, false},
    {STR("Message-ID-is-longer-than-16: a\r\n"), 0, 0, false, false, false, false, false},
    {STR("Subject: a\r\n Date: continued\r\n\tMessage-ID: continued\r\n"), 0, 0, false, false, false, false,
     false},
    {STR("Subject: a\r\n \r\nDate: b\r\n"), 0, 0, true, false, false, false, false},
    {STR("\r\nDate: a\r\n"), 0, 2, false, false, true, false, false},
    {STR("no header\r\nDate: a\r\n"), 0, 4, false, false, true, true, false},
    {STR("From root Tue Nov 24 04:14:26 2026\r\nDate: a\r\n"), 0, 6, false, false, true, true, false},
    {STR(" blank first\r\nDate: a\r\n"), 0, 1, false, false, true, true, false},
    {STR("Date: a\r\nbody at once\r\nMessage-ID: b\r\n"), 0, 15, true, false, true, true, false},
    {STR(": no name\r\nDate: a\r\n"), 0, 1, false, false, true, true, false},
    {STR("Da\0te: a\r\n"), 0, 3, false, false, true, true, false},
    {STR("Date\r\nMessage-ID: a\r\n"), 0, 5, false, false, true, true, false},
    {STR("Date: a\nMessage-ID: b\n"), 0, 0, true, true, false, false, false},
    {STR("Date: a\r\n\nMessage-ID: b\n"), 0, 10, true, false, true, true, false},
    {STR("Date:\r\n\r\n"), 0, 0, true, false, true, false, false},
    {STR("Subject: \xC3\xA9\r\n\r\n"), 0, 0, false, false, true, false, true},
    {STR("Subject:\xC3\xA9\r\n"), 0, 0, false, false, false, false, true},
    {STR("Subject: a\r\n\xC3\xA9: b\r\n"), 0, 13, false, false, true, true, false},
    {STR("Subject: a\r\n\r\n\xC3\xA9\r\n"), 0, 14, false, false, true, false, false},
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
                h.has_message_id != c->message_id || h.done != c->done || h.cut_short != c->cut_short ||
                h.non_ascii != c->non_ascii)
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
