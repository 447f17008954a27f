/* core/base.c: the end of the line for a broken invariant. */
#include <unistd.h>

#include "core/base.h"

void must_failed(const char *cond, const char *file, int line)
{
    /* One write(2), no stdio lock: this may run on any thread in any state. */
    char text[512];
    int n = snprintf(text, sizeof text, "postern: %s:%d: broken invariant: %s\n", file, line, cond);
    if (n > 0) {
        size_t bytes = MIN((size_t)n, sizeof text - 1);
        if (write(STDERR_FILENO, text, bytes) < 0)
            abort(); /* nobody to tell */
    }
    abort();
}
