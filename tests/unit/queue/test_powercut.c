/* Power cuts at any moment of a busy ring, seeded. The disk holds every write back for a while; a cut keeps
 * some sectors of what is in flight and drops the others. Then: what was acknowledged and not removed is
 * there and whole, nothing appears that was never committed or whose leaving was durable, and no torn write
 * is called damage. The survivor goes on, until the next cut. */
#define fsio_write_durable_async real_write_durable_async
#include "queue/fsio.c"
#undef fsio_write_durable_async
/* The door's own declaration was renamed as well. */
void fsio_write_durable_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, const void *p,
                              size_t n, uint64_t at);

#include "bed.h"

#define MESSAGES   16000u
#define IN_FLIGHT  2u /* a batch and a superblock */
#define PUTS       12u
#define TURNS_MAX  400000u /* of the loop: then it will never come */
#define LIVE_COUNT 24u

static uint64_t lcg;
static uint64_t below(uint64_t bound)
{
    lcg = lcg * 6364136223846793005u + 1442695040888963407u;
    return (lcg >> 33) % bound;
}

/* ---- the disk ---- */

struct held {
    struct mail mail;
    struct fsio_io *io; /* NULL: free */
    struct loop *loop;
    struct fsio_file *f;
    const uint8_t *p;
    size_t n;
    uint64_t at;
    uint32_t turns;
};
static struct held held[IN_FLIGHT];

static void held_turn(struct mail *m)
{
    struct held *h = container_of(m, struct held, mail);
    if (h->turns-- > 0) {
        loop_post(h->loop, m);
        return;
    }
    struct fsio_io *io = h->io;
    assert_int_equal(fsio_write_durable(h->f, h->p, h->n, h->at), 0);
    h->io = NULL;
    io->done(io, 0);
}

void fsio_write_durable_async(struct fsio_io *io, struct loop *l, struct fsio_file *f, const void *p,
                              size_t n, uint64_t at)
{
    struct held *h = held;
    while (h->io)
        must(++h < held + IN_FLIGHT);
    *h = (struct held){.mail.deliver = held_turn,
                       .io = io,
                       .loop = l,
                       .f = f,
                       .p = p,
                       .n = n,
                       .at = at,
                       .turns = (uint32_t)below(12)};
    loop_post(l, &h->mail);
}

/* The power goes: the file as it would be found, in another folder. */
static void cut(const struct bed *b, struct bed *after)
{
    char path[128];
    bed_crash_copy(b, after);
    bed_ring_path(after, path, sizeof path);
    int fd = open(path, O_WRONLY);
    uint64_t keep_of_8 = below(9);
    for (struct held *h = held; h < held + IN_FLIGHT; h++)
        for (size_t i = 0; h->io && i < h->n; i += 4096)
            if (below(8) < keep_of_8)
                assert_int_equal(pwrite(fd, h->p + i, 4096, (off_t)(h->at + i)), 4096);
    close(fd);
}

/* ---- what was promised ---- */

static struct promise {
    uint64_t id;
    uint32_t seed, attempts;
    bool acked, removed, gone; /* gone: that it was removed is on the disk */
} promises[MESSAGES];
static uint32_t promise_count;
static uint64_t moved_bytes; /* by reclaim, in all lives */

static uint64_t kept_cuts; /* of rings with kept segments */

static struct promise *promise_of(uint64_t id)
{
    for (uint32_t i = promise_count; i-- > 0;)
        if (promises[i].id == id)
            return &promises[i];
    return NULL;
}

/* ---- the work ---- */

static struct put coming[PUTS];
static struct promise *put_promises[PUTS];

static void coming_reap(void)
{
    for (uint32_t i = 0; i < PUTS; i++) {
        if (!put_promises[i] || !coming[i].done)
            continue;
        assert_true(coming[i].err == 0 || coming[i].err == ERR_FULL);
        put_promises[i]->acked = coming[i].err == 0;
        put_promises[i] = NULL;
    }
}

static uint64_t size_small = 4000, size_large = 30000;
static uint32_t put_max = 6;

static bool put_one(struct bed *b)
{
    for (uint32_t i = 0; i < put_max; i++) {
        if (put_promises[i])
            continue;
        if (promise_count == MESSAGES || queue_check_space(b->q, 20000))
            return false;
        uint32_t seed = promise_count;
        coming[i] = (struct put){.seed = seed,
                                 .bytes = below(4) ? below(size_small) : below(size_large),
                                 .rcpt_count = 1 + (uint32_t)below(9),
                                 .commit_when_sent = true};
        put_promises[i] = &promises[promise_count++];
        *put_promises[i] = (struct promise){.seed = seed};
        put_start(b, &coming[i]);
        put_promises[i]->id = coming[i].id;
        return true;
    }
    return true;
}

static bool nth(void *ctx, struct qmsg *m)
{
    uint64_t *n = ctx;
    if ((*n)-- > 0)
        return true;
    *n = m->id;
    return false;
}

static struct qmsg *any(struct bed *b)
{
    struct queue_stats st;
    queue_stats(b->q, &st);
    if (st.message_count == 0)
        return NULL;
    uint64_t n = below(st.message_count);
    queue_each(b->q, nth, &n);
    return queue_find(b->q, n);
}

static void change_one(struct bed *b)
{
    struct qmsg *m = any(b);
    struct promise *pr = m ? promise_of(m->id) : NULL;
    struct queue_stats st;
    queue_stats(b->q, &st);
    if (!pr)
        return;
    if (st.message_count > LIVE_COUNT && below(4) > 0) {
        pr->removed = true;
        queue_remove(b->q, m);
    } else {
        queue_set_due(b->q, m, 1, ++pr->attempts);
    }
}

static void work(struct bed *b, uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++) {
        if (below(2))
            put_one(b);
        if (below(2))
            change_one(b);
        loop_run(b->loop);
        coming_reap();
    }
}

/* ---- a backlog: the ring is filled to the brim, turned, and emptied in a bad order ---- */

enum phase { FILL, TURN, THIN, CLEAR, TIMES };

static void remove_it(struct bed *b, struct promise *pr)
{
    struct qmsg *m = pr->acked && !pr->removed ? queue_find(b->q, pr->id) : NULL;
    if (!m)
        return;
    pr->removed = true;
    queue_remove(b->q, m);
}

/* TURN: what comes leaves soon. THIN: one of a few leaves, in no order. CLEAR: a stretch, or all. */
static void leave(struct bed *b, enum phase phase)
{
    uint32_t from = (uint32_t)below(promise_count + 1), n = (uint32_t)below(20);
    if (phase == TURN && promise_count > 0) {
        for (uint32_t i = promise_count > 60 ? promise_count - 60 : 0; i < promise_count; i++)
            if (below(8) < 6)
                remove_it(b, &promises[i]);
    } else if (phase == THIN && promise_count > 0) {
        for (; n > 0; n--)
            remove_it(b, &promises[below(promise_count)]);
    } else if (phase == CLEAR) {
        for (n *= 4; n > 0 && from < promise_count; n--)
            remove_it(b, &promises[from++]);
    } else if (phase == TIMES) {
        change_one(b);
    }
}

static void note_gone(struct bed *b)
{
    const struct queue *q = b->q;
    if (!list_empty(&q->dirty) || !list_empty(&q->sealed) || q->open || held[0].io || held[1].io)
        return;
    for (uint32_t i = 0; i < promise_count; i++)
        promises[i].gone |= promises[i].removed;
}

static void backlog_work(struct bed *b, uint32_t steps)
{
    static const enum phase likely[] = {FILL, TURN, TURN, TURN, TURN, THIN, CLEAR, TIMES};
    enum phase phase = FILL;
    struct queue_stats st;
    uint32_t fill_percent = 40 + (uint32_t)below(60);
    for (uint32_t i = 0; i < steps; i++) {
        queue_stats(b->q, &st);
        bool is_filled = st.live_bytes >= st.ring_bytes / 100 * fill_percent;
        if (phase == FILL ? is_filled || below(1000) == 0 : below(200) == 0)
            phase = likely[below(COUNT_OF(likely))];
        bool puts = phase == FILL || phase == TURN ? true : below(6) == 0;
        for (uint32_t n = (uint32_t)below(6); puts && n > 0 && put_one(b); n--)
            ;
        if (phase != FILL && below(phase == TURN ? 2 : 8) == 0)
            leave(b, phase);
        loop_run(b->loop);
        coming_reap();
        if (below(20) == 0)
            note_gone(b);
    }
}

static bool is_busy(void)
{
    for (uint32_t i = 0; i < PUTS; i++)
        if (put_promises[i])
            return true;
    return false;
}

/* All leaves; then it takes mail as an empty ring does. */
static void must_get_empty(struct bed *b, uint64_t seed)
{
    uint64_t written = 0, wanted = b->opt.ring_bytes * 2;
    uint32_t turns = 0;
    for (; turns < TURNS_MAX && (is_busy() || written < wanted); turns++) {
        coming_reap();
        for (uint32_t i = 0; i < promise_count; i++)
            remove_it(b, &promises[i]);
        if (!is_busy())
            promise_count = 0;
        if (written < wanted && put_one(b))
            written += size_small / 2;
        loop_run(b->loop);
    }
    if (turns == TURNS_MAX)
        fail_msg("seed %u: a ring out of which all leaves takes no more mail", (unsigned)seed);
    promise_count = 0;
}

/* The old life comes to its end, quietly. */
static void finish(struct bed *b)
{
    for (uint32_t i = 0; i < PUTS; i++) {
        if (!put_promises[i])
            continue;
        uint32_t turns = 0;
        while (!coming[i].done && turns++ < TURNS_MAX)
            loop_run(b->loop);
        if (!coming[i].done)
            fail_msg("a message waits for ever");
        put_promises[i] = NULL; /* not acknowledged at the time of the cut */
    }
    bed_destroy(b);
}

static bool was_committed(void *ctx, struct qmsg *m)
{
    struct promise *pr = promise_of(m->id);
    assert_non_null(pr);
    assert_true(m->attempts <= pr->attempts);
    if (pr->gone)
        fail_msg("message %u came back", pr->seed);
    pr->acked = true; /* also one whose acknowledgment got lost in the cut */
    pr->removed = false;
    pr->attempts = m->attempts;
    return true;
}

static void check(struct bed *b, uint64_t seed, uint32_t life)
{
    struct queue_stats st;
    queue_stats(b->q, &st);
    if (st.damaged_records > 0)
        fail_msg("seed %u, life %u: damage", (unsigned)seed, life);
    for (uint32_t i = 0; i < promise_count; i++) {
        struct promise *pr = &promises[i];
        struct qmsg *m = queue_find(b->q, pr->id);
        if (pr->acked && !pr->removed && !m)
            fail_msg("seed %u, life %u: message %u was promised and is gone", (unsigned)seed, life, i);
        uint32_t found;
        if (m) {
            assert_int_equal(bed_check(b, m, &found), 0);
            assert_int_equal(found, pr->seed);
        }
        pr->acked = false;
    }
    queue_each(b->q, was_committed, NULL);
}

static void new_disk(uint64_t seed)
{
    lcg = seed;
    promise_count = 0;
    memset(put_promises, 0, sizeof put_promises);
}

static void cut_and_open(struct bed *b, uint64_t seed, uint32_t life)
{
    struct bed next;
    cut(b, &next);
    /* What the old process still does after the cut nobody remembers. */
    struct queue_stats st;
    queue_stats(b->q, &st);
    moved_bytes += st.reappended_bytes;
    kept_cuts += st.kept_segment_count > 0;
    static struct promise at_cut[MESSAGES];
    memcpy(at_cut, promises, sizeof at_cut);
    finish(b);
    memcpy(promises, at_cut, sizeof at_cut);
    *b = next;
    b->opt.directory = str_cstr(b->dir);
    bed_open(b);
    check(b, seed, life);
}

static void lives(uint64_t seed, uint32_t count)
{
    struct bed b;
    new_disk(seed);
    size_small = 4000;
    size_large = 30000;
    put_max = 6;
    bed_make(&b);
    b.opt.segment_bytes = 64 << 10;
    b.opt.ring_bytes = 1 << 20;
    bed_open(&b);
    for (uint32_t life = 0; life < count; life++) {
        work(&b, 20 + (uint32_t)below(150));
        cut_and_open(&b, seed, life);
    }
    bed_destroy(&b);
}

static void backlog_lives(uint64_t seed, uint32_t count)
{
    struct bed b;
    new_disk(seed);
    size_small = 500 + below(3000);
    size_large = size_small + below(12000);
    put_max = 1 + (uint32_t)below(PUTS);
    bed_make(&b);
    b.opt.segment_bytes = 64 << 10 << below(2);
    b.opt.ring_bytes = b.opt.segment_bytes * (16 + below(24));
    b.opt.high_water_percent = 80 + (uint32_t)below(20);
    bed_open(&b);
    for (uint32_t life = 0; life < count; life++) {
        backlog_work(&b, 500 + (uint32_t)below(4000));
        if (below(8) == 0)
            must_get_empty(&b, seed);
        else
            cut_and_open(&b, seed, life);
    }
    must_get_empty(&b, seed);
    bed_destroy(&b);
}

static void test_lives(void **state)
{
    for (uint64_t seed = 1; seed <= 6; seed++)
        lives(seed, 12);
    assert_true(moved_bytes > 0); /* reclaim was cut short as well */
}

static void test_backlog_lives(void **state)
{
    kept_cuts = 0;
    for (uint64_t seed = 2; seed <= 4; seed++)
        backlog_lives(seed, 3);
    assert_true(kept_cuts > 0);
}

int main(int argc, char **argv)
{
    if (argc == 3) { /* FIRST-SEED COUNT: a longer look */
        for (uint64_t seed = strtoull(argv[1], NULL, 10), n = strtoull(argv[2], NULL, 10); n > 0;
             seed++, n--) {
            if (seed & 1)
                lives(seed, 12);
            else
                backlog_lives(seed, 12);
        }
        printf("%llu cuts of rings with kept segments\n", (unsigned long long)kept_cuts);
        return 0;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lives), cmocka_unit_test(test_backlog_lives)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
