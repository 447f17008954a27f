/* tests/unit/admin/capture.h: what the parts of the `postern` command print. */
#ifndef TESTS_UNIT_ADMIN_CAPTURE_H
#define TESTS_UNIT_ADMIN_CAPTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "core/clock.h"

#define NOW_NS (UINT64_C(1795493666) * NS_PER_S) /* 2026-11-24T04:14:26Z */

static char output[8192];

/* What `write` prints, in `output`. */
#define CAPTURE(stream, write)                                                                               \
    do {                                                                                                     \
        memset(output, 0, sizeof output);                                                                    \
        FILE *stream = fmemopen(output, sizeof output - 1, "w");                                             \
        assert_non_null(stream);                                                                             \
        write;                                                                                               \
        fclose(stream);                                                                                      \
    } while (0)

static json_t *json_of(const char *text)
{
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    if (!json)
        fail_msg("%s", error.text);
    return json;
}

#endif
