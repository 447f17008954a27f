/* tests/fuzz/fuzz_salvage.c: any bytes as a file of corrupt/ or a ring.
 *
 * Input: a byte of options; else the bytes. With OPTION_SEED the CRC of each record whose header is plausible
 * is made right for one ring, so that the parsers behind the check are reached. */
#include <stdlib.h>

#include "queue/crc32c.h"
#include "queue/queue_priv.h"
#include "queue/salvage.h"

enum { OPTION_SEED = 1, OPTION_SUPER = 2 };

static uint64_t sum;

static void piece(void *ctx, const uint8_t *p, size_t n, bool damaged)
{
    sum += n;
    for (size_t i = 0; i < n && p; i++)
        sum += p[i];
}

static void make_right(uint8_t *p, size_t n, uint32_t seed)
{
    for (size_t at = 0; at + sizeof(struct disk_record) <= n; at += 8) {
        struct disk_record r;
        memcpy(&r, p + at, sizeof r);
        if (r.version != RECORD_VERSION || r.bytes > n - at - sizeof r)
            continue;
        r.magic = DISK_RECORD_MAGIC;
        r.crc = qrecord_crc_seeded(seed, r.position, &r, p + at + sizeof r);
        memcpy(p + at, &r, sizeof r);
        at += ALIGN_DOWN(sizeof r + r.bytes, 8);
    }
}

static void look(const struct salvage *s)
{
    for (size_t i = 0; i < salvage_count(s); i++) {
        const struct salvage_message *m = salvage_at(s, i);
        for (uint32_t k = 0; k < MIN(m->rcpt_count, 100u); k++) {
            enum rcpt_state state;
            sum += salvage_rcpt(s, m, k, &state).n + (uint64_t)state;
        }
        salvage_body(s, m, piece, NULL);
        sum += m->trace.n + m->meta.n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 1)
        return 0;
    uint8_t option = *data++;
    uint8_t *p = malloc(n); /* of just that size, for the sanitizer; aligned for records */
    if (!p)
        return 0;
    memcpy(p, data, --n);
    static struct disk_super super[2];
    super[0] = (struct disk_super){.magic = DISK_SUPER_MAGIC, .segment_bytes = 4096, .tail_segment = 1};
    super[0].crc = crc32c(0, &super[0], offsetof(struct disk_super, crc));
    if (option & OPTION_SEED)
        make_right(p, n, crc32c(0, &super[0].salt, sizeof super[0].salt));
    struct salvage *s;
    if (salvage_open(&s, p, n, option & OPTION_SUPER ? (const uint8_t *)super : NULL) == 0) {
        look(s);
        salvage_close(s);
    }
    free(p);
    return 0;
}
