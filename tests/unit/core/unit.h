/* tests/unit/core/unit.h: cmocka with the headers that it wants first. */
#ifndef TESTS_UNIT_CORE_UNIT_H
#define TESTS_UNIT_CORE_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/str.h"

/* For str_t against a C string literal; prints both when they differ. */
#define assert_str(actual, expected) assert_str_at((actual), (expected), __FILE__, __LINE__)
static inline void assert_str_at(str_t actual, const char *expected, const char *file, int line)
{
    if (!str_eq(actual, str_cstr(expected))) {
        print_error("is \"" STR_FMT "\", expected \"%s\"\n", STR_ARG(actual), expected);
        _fail(file, line);
    }
}

#endif
