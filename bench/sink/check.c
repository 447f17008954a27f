/* bench/sink/check.c: the line "X-Postern-Source: RUN.THREAD.NUMBER; crc32c=HEX; bytes=N" tells what must
 * follow it. Relays put their lines in front. */
#include <pthread.h>
#include <sys/mman.h>

#include "bench/sink/sink_priv.h"
#include "queue/crc32c.h"

#define RUNS_MAX    256
#define NUMBERS_MAX (UINT64_C(1) << 30)

static const char label[] = "X-Postern-Source: ";

static str_t our_line(str_t head)
{
    const char *at = memmem(head.p, head.n, label, sizeof label - 1);
    if (!at)
        return STR_NONE;
    at += sizeof label - 1;
    const char *end = memchr(at, '\r', (size_t)(head.p + head.n - at));
    return end && end + 1 < head.p + head.n ? str_of(at, (size_t)(end - at)) : STR_NONE;
}

str_t sink_id(str_t head)
{
    str_t line = our_line(head), id, rest;
    (void)str_cut(line, ';', &id, &rest);
    return id;
}

size_t sink_check_begin(struct sink_check *k, str_t head)
{
    char text[160];
    unsigned crc;
    unsigned long long bytes;
    str_t line = our_line(head), id, rest;
    if (!line.n || line.n >= sizeof text)
        return 0;
    (void)str_cut(line, ';', &id, &rest);
    snprintf(text, sizeof text, "%.*s", (int)rest.n, rest.p);
    if (sscanf(text, " crc32c=%8x; bytes=%llu", &crc, &bytes) != 2)
        return 0;
    *k = (struct sink_check){.want_crc = crc, .want_bytes = bytes, .known = true};
    return (size_t)(line.p + line.n + 2 - head.p);
}

void sink_check_content(struct sink_check *k, const void *p, size_t n)
{
    k->crc = crc32c(k->crc, p, n);
    k->bytes += n;
}

/* One bit a message of each run and thread; the kernel gives memory where bits are set. */
struct run {
    char name[64];
    _Atomic uint64_t *bits;
};

static struct run runs[RUNS_MAX];
static unsigned run_count;
static pthread_mutex_t runs_lock = PTHREAD_MUTEX_INITIALIZER;

static _Atomic uint64_t *bits_of(str_t name)
{
    _Atomic uint64_t *bits = NULL;
    unsigned i = 0;
    pthread_mutex_lock(&runs_lock);
    while (i < run_count && !str_eq(str_cstr(runs[i].name), name))
        i++;
    if (i == run_count && i < RUNS_MAX && name.n < sizeof runs[i].name) {
        void *p = mmap(NULL, NUMBERS_MAX / 8, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p != MAP_FAILED) {
            memcpy(runs[i].name, name.p, name.n);
            runs[i].bits = p;
            run_count++;
        }
    }
    if (i < run_count)
        bits = runs[i].bits;
    pthread_mutex_unlock(&runs_lock);
    return bits;
}

bool sink_first_copy(str_t id)
{
    uint64_t number;
    ptrdiff_t dot = str_rfind(id, '.');
    if (dot < 0 || str_to_u64(str_sub(id, (size_t)dot + 1, id.n), &number) || number >= NUMBERS_MAX)
        return true; /* none of ours: nothing is known of it */
    _Atomic uint64_t *bits = bits_of(str_sub(id, 0, (size_t)dot));
    uint64_t bit = UINT64_C(1) << (number % 64);
    return !bits || !(atomic_fetch_or(&bits[number / 64], bit) & bit);
}
