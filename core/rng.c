/* core/rng.c: random numbers from the kernel. A link-time seam: nothing else stands in this file. */
#include <errno.h>
#include <sys/random.h>

#include "core/rng.h"

void rng_bytes(void *out, size_t n)
{
    char *at = out;
    while (n) {
        ssize_t got = getrandom(at, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        must(got > 0); /* cannot fail from Linux 3.17 on, once the pool is ready */
        at += got;
        n -= (size_t)got;
    }
}

/* xoshiro256++ (Blackman, Vigna 2019), one state per thread. */
uint64_t rng_u64(void)
{
    static _Thread_local uint64_t s[4];
    while (UNLIKELY((s[0] | s[1] | s[2] | s[3]) == 0))
        rng_bytes(s, sizeof s);
    uint64_t sum = s[0] + s[3];
    uint64_t result = (sum << 23 | sum >> 41) + s[0];
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return result;
}
