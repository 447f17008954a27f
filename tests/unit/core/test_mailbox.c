/* tests/unit/core/test_mailbox.c: order, budget, wake-ups, overflow; with real threads (run under tsan too).
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "core/mailbox.h"
#include "unit.h"

struct parcel {
    struct mail mail; /* first */
    int sender, number;
    unsigned *seen_count; /* the receiver's */
    struct mailbox *send_on_to;
};

static void deliver(struct mail *m)
{
    struct parcel *p = (struct parcel *)m;
    (*p->seen_count)++;
    if (p->send_on_to) {
        struct mailbox *to = p->send_on_to;
        p->send_on_to = NULL;
        mailbox_send(to, m);
    }
}

static void count_wake(void *ctx)
{
    (*(unsigned *)ctx)++;
}

static struct mailbox *make(uint32_t capacity_log2, unsigned *wake_count)
{
    struct mailbox *mb;
    *wake_count = 0;
    assert_int_equal(mailbox_create(&mb, capacity_log2, count_wake, wake_count), 0);
    return mb;
}

static void wakes_only_the_idle(void **state)
{
    unsigned wakes, seen = 0;
    struct mailbox *mb = make(4, &wakes);
    struct parcel p[3] = {{.mail.deliver = deliver, .seen_count = &seen},
                          {.mail.deliver = deliver, .seen_count = &seen},
                          {.mail.deliver = deliver, .seen_count = &seen}};
    bool more;
    assert_int_equal(mailbox_run(mb, 10, &more), 0);
    assert_false(more);
    mailbox_send(mb, &p[0].mail);
    assert_int_equal(wakes, 1);
    mailbox_send(mb, &p[1].mail);
    mailbox_send(mb, &p[2].mail);
    assert_int_equal(wakes, 1);

    assert_int_equal(mailbox_run(mb, 2, &more), 2);
    assert_true(more);
    mailbox_send(mb, &p[0].mail); /* the receiver knows that it has work */
    assert_int_equal(wakes, 1);
    assert_int_equal(mailbox_run(mb, 2, &more), 2); /* the budget exactly */
    assert_false(more);
    mailbox_send(mb, &p[0].mail); /* and yet it is idle */
    assert_int_equal(wakes, 2);
    assert_int_equal(mailbox_run(mb, 10, &more), 1);
    assert_int_equal(seen, 5);
    mailbox_destroy(mb);
    mailbox_destroy(NULL);
}

static void overflow_loses_nothing(void **state)
{
    unsigned wakes, seen[100] = {0};
    struct parcel p[100] = {0};
    struct mailbox *mb = make(2, &wakes); /* three on the ring, the rest on the list */
    for (int i = 0; i < 100; i++) {
        p[i].mail.deliver = deliver;
        p[i].seen_count = &seen[i];
        mailbox_send(mb, &p[i].mail);
    }
    assert_int_equal(wakes, 1);
    bool more;
    uint32_t count = 0;
    do
        count += mailbox_run(mb, 7, &more);
    while (more);
    assert_int_equal(count, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(seen[i], 1);
    mailbox_destroy(mb);
}

static void overflow_does_not_starve(void **state)
{
    unsigned wakes, on_ring = 0, on_list = 0;
    struct parcel p[8] = {0};
    struct mailbox *mb = make(2, &wakes);
    for (int i = 0; i < 8; i++) {
        p[i].mail.deliver = deliver;
        p[i].seen_count = i < 3 ? &on_ring : &on_list;
        p[i].send_on_to = mb; /* each comes back once: the ring never runs empty */
        mailbox_send(mb, &p[i].mail);
    }
    bool more;
    mailbox_run(mb, 4, &more);
    assert_true(more);
    assert_int_equal(on_ring, 2);
    assert_int_equal(on_list, 2);
    while (more)
        mailbox_run(mb, 4, &more);
    assert_int_equal(on_ring + on_list, 16);
    mailbox_destroy(mb);
}

/* Threads: the receiver sleeps on a semaphore that only wake() posts, so a lost wake-up hangs the test. */
#define SENDER_COUNT 4
#define PARCEL_COUNT 5000

struct sender {
    pthread_t thread;
    struct mailbox *mb;
    struct parcel parcels[PARCEL_COUNT];
    unsigned seen[PARCEL_COUNT];
};

static void post(void *semaphore)
{
    sem_post(semaphore);
}

static void *send_all(void *arg)
{
    struct sender *s = arg;
    for (int i = 0; i < PARCEL_COUNT; i++) {
        struct parcel *p = &s->parcels[i];
        p->mail.deliver = deliver;
        p->number = i; /* plain stores: the mailbox orders them before the receiver's reads */
        p->seen_count = &s->seen[i];
        mailbox_send(s->mb, &p->mail);
    }
    return NULL;
}

static void run_threads(uint32_t capacity_log2, uint32_t budget)
{
    static struct sender senders[SENDER_COUNT];
    sem_t woken;
    struct mailbox *mb;
    assert_int_equal(sem_init(&woken, 0, 0), 0);
    assert_int_equal(mailbox_create(&mb, capacity_log2, post, &woken), 0);
    memset(senders, 0, sizeof senders);
    for (int i = 0; i < SENDER_COUNT; i++) {
        senders[i].mb = mb;
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
    }
    uint32_t count = 0;
    bool more = false;
    while (count < SENDER_COUNT * PARCEL_COUNT) {
        if (!more)
            while (sem_wait(&woken) != 0)
                ;
        count += mailbox_run(mb, budget, &more);
    }
    for (int i = 0; i < SENDER_COUNT; i++) {
        pthread_join(senders[i].thread, NULL);
        for (int k = 0; k < PARCEL_COUNT; k++) {
            assert_int_equal(senders[i].seen[k], 1);
            assert_int_equal(senders[i].parcels[k].number, k);
        }
    }
    assert_int_equal(mailbox_run(mb, budget, &more), 0);
    assert_false(more);
    mailbox_destroy(mb);
    sem_destroy(&woken);
}

static void threads_and_a_roomy_ring(void **state)
{
    run_threads(12, 64);
}

static void threads_and_overflow(void **state)
{
    run_threads(2, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wakes_only_the_idle),      cmocka_unit_test(overflow_loses_nothing),
        cmocka_unit_test(overflow_does_not_starve), cmocka_unit_test(threads_and_a_roomy_ring),
        cmocka_unit_test(threads_and_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
