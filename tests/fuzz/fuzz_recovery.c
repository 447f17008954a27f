/* tests/fuzz/fuzz_recovery.c: any bytes in a ring's file, then open: recovery must come to an end, and so
 * must an adoption, which reads all that recovery believes in.
 *
 * Input: a byte of options, then mutations of a small valid ring that was not closed: {u8 kind, u24 offset,
 * ...} kind 0: u8 value                 one byte kind 1: u8 n, n bytes            a stretch kind 2: u24 to,
 * u8 sectors       a stretch copied elsewhere (misplaced writes, earlier laps) kind 3: u8 sectors zeros kind
 * 4: u24 length               the file ends there kind 5: u8 n, n bytes of payload of the record there, whose
 * CRC is then made right: what no accident brings about */
#include <fcntl.h>
#include <unistd.h>

#include "core/log.h"
#include "queue/crc32c.h"
#include "queue/queue_priv.h"

#define SEGMENT_BYTES 65536u
#define IMAGE_BYTES   (DISK_DATA_AT + 8 * SEGMENT_BYTES)
#define MESSAGES      12u

enum { OPTION_ADOPT = 1 };

static uint8_t *image, *pristine;
static char directory[64];
static uint32_t magic, seed;

static void no_live(void *ctx, struct qmsg *m)
{
}

static void path_of(uint32_t ring_index, char *out, size_t n)
{
    snprintf(out, n, "%s/ring-%02u", directory, ring_index);
}

static struct queue_options options(uint32_t ring_index)
{
    return (struct queue_options){.directory = str_cstr(directory),
                                  .ring_index = ring_index,
                                  .ring_bytes = 8 * SEGMENT_BYTES,
                                  .segment_bytes = SEGMENT_BYTES,
                                  .hot_bytes = 1};
}

static void put_record(struct queue *q, enum record_type type, uint64_t id, const void *p, uint32_t n)
{
    struct qplace place;
    must(qbatch_reserve(q, QSPACE_MAIL, n, &place) == 0);
    memcpy(place.payload, p, n);
    qbatch_finish(q, &place, &(struct disk_record){.type = type, .id = id, .bytes = n});
}

/* A message of one chunk and two recipients, all in one batch. */
static void put_message(struct queue *q, uint64_t id, uint32_t body_bytes)
{
    static uint8_t body[8000];
    struct {
        struct disk_commit head;
        struct disk_extent extent;
        uint32_t lengths[2];
        uint8_t states[2];
        char text[2 + 3 + 4];
    } __attribute__((packed)) c = {
        .head = {.arrived_ms = id,
                 .body_bytes = body_bytes,
                 .extent_count = 1,
                 .rcpt_count = 2,
                 .meta_bytes = 2,
                 .trace_bytes = 3,
                 .blobs_bytes = 4},
        .lengths = {1, 3},
        .text = "mmtttabbb",
    };
    memset(body, (int)id, sizeof body);
    put_record(q, RECORD_BODY, id, body, body_bytes);
    c.extent =
        (struct disk_extent){.position = qbatch_head(q) - qrecord_bytes(body_bytes), .bytes = body_bytes};
    put_record(q, RECORD_COMMIT, id, &c, sizeof c);
}

/* Of the first segment; mutations of it say whatever a disk could. */
static void put_keep(struct queue *q, uint64_t id)
{
    struct disk_keep d = {.count = 2};
    struct qkeep_entry before = {0};
    uint8_t payload[256], *to = payload + sizeof d;
    for (uint32_t i = 0; i < d.count; i++) {
        struct qkeep_entry e = {.id = id + i * 50,
                                .arrived_ms = id,
                                .due_ms = 9,
                                .offset = 4096 * (i + 1),
                                .commit_bytes = 200,
                                .body_bytes = 100,
                                .ring_bytes = 400,
                                .rcpt_count = 2};
        to = qkeep_encode(to, &before, &e);
        memset(to, RCPT_PENDING, 2);
        to += 2;
    }
    memcpy(payload, &d, sizeof d);
    put_record(q, RECORD_KEEP, 0, payload, (uint32_t)(to - payload));
}

static void make_image(void)
{
    struct queue *q;
    struct gbuf notes = {0};
    struct queue_options opt = options(0);
    must(queue_open(&q, &opt, no_live, NULL, &notes) == 0);
    gbuf_free(&notes);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        put_message(q, 100 + i, 100 + i * 500);
        if (i % 3 == 2)
            put_record(q, RECORD_REMOVE, 100 + i - 1, "", 0);
        if (i % 2)
            must(qbatch_write_blocking(q) == 0);
    }
    struct disk_progress p = {.due_ms = 5, .attempts = 1, .rcpt_count = 2};
    uint8_t payload[sizeof p + 2] = {0};
    memcpy(payload, &p, sizeof p);
    payload[sizeof p] = RCPT_DELIVERED;
    put_record(q, RECORD_PROGRESS, 100, payload, sizeof payload);
    must(qbatch_write_blocking(q) == 0);
    put_keep(q, 103);
    must(qbatch_write_blocking(q) == 0);
    magic = q->magic;
    seed = q->seed;
    queue_discard(q);
    char path[96];
    path_of(0, path, sizeof path);
    int fd = open(path, O_RDONLY);
    pristine = malloc(IMAGE_BYTES);
    image = malloc(IMAGE_BYTES);
    must(fd >= 0 && pristine && image && read(fd, pristine, IMAGE_BYTES) == (ssize_t)IMAGE_BYTES);
    close(fd);
}

static void clean_up(void)
{
    log_stop();
    static const char *const names[] = {"ring-00", "ring-01"};
    char path[128];
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        (void)unlink(path);
    }
    snprintf(path, sizeof path, "%s/corrupt", directory);
    must(unlink(path) == 0);
    must(rmdir(directory) == 0);
    free(pristine);
    free(image);
}

static void start(void)
{
    /* Damage is logged, by the thousand. */
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    must(nowhere >= 0 && log_start(nowhere, LOG_LOGFMT, LOG_ERROR) == 0);
    atexit(log_stop); /* joins the writer: a thread left behind is a leak to tsan */
    snprintf(directory, sizeof directory, "%s/postern-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    must(mkdtemp(directory) != NULL);
    char path[128];
    snprintf(path, sizeof path, "%s/corrupt", directory);
    int in_the_way = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); /* a file: nothing can be kept in it */
    must(in_the_way >= 0 && close(in_the_way) == 0);
    make_image();
    atexit(clean_up);
}

/* ---- mutations ---- */

struct input {
    const uint8_t *p;
    size_t n;
};

static uint32_t take(struct input *in, size_t bytes)
{
    uint32_t v = 0;
    for (size_t i = 0; i < bytes && in->n > 0; i++, in->p++, in->n--)
        v |= (uint32_t)*in->p << (8 * i);
    return v;
}

/* The data area is what matters most: offsets below half of it mean that. */
static size_t offset_of(uint32_t v)
{
    if (v >> 20 == 0)
        return (size_t)(DISK_DATA_AT + v % (8 * SEGMENT_BYTES));
    return v % (2 * DISK_SECTOR);
}

static void put_bytes(struct input *in, size_t at, size_t n)
{
    for (size_t i = 0; i < n && in->n > 0; i++)
        if (at + i < IMAGE_BYTES)
            image[at + i] = (uint8_t)take(in, 1);
}

/* The nearest record at or behind `at` gets new payload bytes, and a CRC that says they are meant. */
static void forge(struct input *in, size_t at, size_t n)
{
    struct disk_record r;
    for (at = ALIGN_DOWN(at, 8); at + sizeof r <= IMAGE_BYTES; at += 8) {
        memcpy(&r, image + at, sizeof r);
        if (r.magic != magic || r.bytes > IMAGE_BYTES - at - sizeof r)
            continue;
        size_t from = r.bytes ? take(in, 2) % r.bytes : 0;
        put_bytes(in, at + sizeof r + from, MIN(n, (size_t)r.bytes - from));
        r.crc = 0;
        uint32_t crc = crc32c(seed, &r.position, sizeof r.position);
        crc = crc32c(crc, image + at + sizeof r, r.bytes);
        r.crc = crc32c(crc, &r, sizeof r);
        memcpy(image + at, &r, sizeof r);
        return;
    }
}

static size_t mutate(struct input *in)
{
    size_t length = IMAGE_BYTES;
    while (in->n > 0) {
        uint32_t kind = take(in, 1) % 6;
        size_t at = offset_of(take(in, 3));
        size_t to, n;
        switch (kind) {
        case 0: image[at] = (uint8_t)take(in, 1); break;
        case 1:
            n = take(in, 1);
            put_bytes(in, at, n);
            break;
        case 2:
            to = ALIGN_DOWN(offset_of(take(in, 3)), DISK_SECTOR);
            n = take(in, 1) % 8 * DISK_SECTOR;
            at = ALIGN_DOWN(at, DISK_SECTOR);
            n = MIN(n, IMAGE_BYTES - MAX(at, to));
            memmove(image + to, image + at, n);
            break;
        case 3:
            n = take(in, 1) % 32 * DISK_SECTOR;
            memset(image + at, 0, MIN(n, IMAGE_BYTES - at));
            break;
        case 4: length = at; break;
        default: forge(in, at, take(in, 1)); break;
        }
    }
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!image)
        start();
    struct input in = {data, size};
    uint32_t option = take(&in, 1);
    memcpy(image, pristine, IMAGE_BYTES);
    size_t length = mutate(&in);
    char path[96];
    path_of(0, path, sizeof path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    must(fd >= 0 && write(fd, image, length) == (ssize_t)length);
    close(fd);
    struct gbuf notes = {0};
    struct queue *q = NULL;
    struct queue_options opt = options(option & OPTION_ADOPT ? 1 : 0);
    err_t err = queue_open(&q, &opt, no_live, NULL, &notes);
    if (!err && option & OPTION_ADOPT)
        err = queue_adopt(q, 0, no_live, NULL, &notes);
    if (q)
        queue_discard(q);
    gbuf_free(&notes);
    if (option & OPTION_ADOPT) {
        path_of(1, path, sizeof path);
        must(unlink(path) == 0);
    }
    (void)err; /* refused or not: both are fine */
    return 0;
}
