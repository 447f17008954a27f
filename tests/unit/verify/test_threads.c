/* tests/unit/verify/test_threads.c: two workers on threads of their own that ask about the same recipients.
 * Run under the thread sanitizer. */
#include <pthread.h>
#include <stdatomic.h>

#include "world.h"

#define ADDRESSES 200
#define GOOD_EACH 3 /* one in so many is unknown */

struct worker {
    struct world *world;
    unsigned index;
    struct loop *loop;
    pthread_t thread;
    struct timer timer;
    struct asked asks[ADDRESSES];
    uint32_t asked_count, answered_count;
    bool is_draining, is_gone;
};

static struct world w;
static struct worker workers[2];
static atomic_uint finished, drained;

static void counted(struct verify_ask *a, const struct verify_answer *answer)
{
    struct asked *k = container_of(a, struct asked, ask);
    struct worker *me = &workers[a->verifier->worker];
    must(!k->is_answered);
    k->is_answered = true;
    k->answer = *answer;
    me->answered_count++;
}

static void ask_next(struct worker *me)
{
    for (int i = 0; i < 20 && me->asked_count < ADDRESSES; i++) {
        struct asked *k = &me->asks[me->asked_count];
        struct address a;
        k->ask.done = counted;
        snprintf(k->text, sizeof k->text, "%s%u@%s.example", me->asked_count % GOOD_EACH ? "user" : "bad",
                 me->asked_count, me->asked_count % 2 ? "one" : "two");
        me->asked_count++;
        must(address_parse_mailbox(str_cstr(k->text), &a) == 0);
        struct verify_query q = {.address = &a,
                                 .text = str_cstr(k->text),
                                 .sender = STR("s@far.example"),
                                 .client = w.client,
                                 .policy = w.policy};
        if (verifier_ask(w.verifiers[me->index], &q, &k->ask, &k->answer) == 0)
            counted(&k->ask, &k->answer);
    }
}

static void worker_drained(void *ctx)
{
    atomic_fetch_add(&drained, 1);
}

static void turn(struct timer *t)
{
    struct worker *me = container_of(t, struct worker, timer);
    bool is_last = me->index == 0;
    if (me->asked_count < ADDRESSES)
        ask_next(me);
    if (me->answered_count == ADDRESSES && !me->is_draining) {
        me->is_draining = true;
        me->answered_count = 0; /* counted once */
        atomic_fetch_add(&finished, 1);
    }
    if (atomic_load(&finished) == 2 && me->is_draining && !me->is_gone) {
        me->is_gone = true;
        verifier_drain(w.verifiers[me->index], worker_drained, NULL);
    }
    if (atomic_load(&drained) == 2 && is_last && w.one.listener && w.two.listener) {
        stop(&w.one);
        stop(&w.two);
    }
    bool is_quiet = !is_last || (!w.one.listener && !w.two.listener && !w.one.open && !w.two.open);
    if (atomic_load(&drained) == 2 && is_quiet)
        loop_stop(me->loop);
    else
        timer_arm(me->loop, t, 1);
}

static void *run(void *arg)
{
    struct worker *me = arg;
    if (me->index == 0)
        start_both(&w);
    loop_run(me->loop);
    return NULL;
}

static void two_threads_one_probe_each(void **state)
{
    static const struct rule rules[] = {{"RCPT TO:<bad", "550 5.1.1 no\r\n", false}, {0}};
    world_start(&w);
    w.one.rules = w.two.rules = rules;
    struct loop_options lo = {
        .entries = 256, .buffer_count = 256, .buffer_bytes = 16384, .cpu = -1, .name = "other"};
    workers[0].loop = w.loop;
    assert_int_equal(loop_create(&workers[1].loop, &lo), 0);
    w.policy = world_policy(&w, "");
    for (unsigned i = 0; i < 2; i++) {
        struct verifier_options o = {
            .shared = &w.shared, .loop = workers[i].loop, .policy = w.policy, .worker = i};
        assert_int_equal(verifier_create(&w.verifiers[i], &o), 0);
        workers[i].world = &w;
        workers[i].index = i;
        workers[i].timer.fire = turn;
        timer_arm(workers[i].loop, &workers[i].timer, 1);
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(workers[i].thread, NULL);
    for (unsigned i = 0; i < 2; i++)
        for (unsigned n = 0; n < ADDRESSES; n++)
            assert_int_equal(workers[i].asks[n].answer.reply, n % GOOD_EACH ? R_rcpt_ok : R_unknown_user);
    /* Each address once: whoever came second waited for the same answer, or found it. */
    assert_int_equal(seen(&w.one, "RCPT") + seen(&w.two, "RCPT"), ADDRESSES);
    for (unsigned i = 0; i < 2; i++) {
        verifier_destroy(w.verifiers[i]);
        loop_destroy(workers[i].loop);
    }
    policy_free(w.policy);
    sink_free(&w.one);
    sink_free(&w.two);
    verdict_cache_destroy(w.shared.known.cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_threads_one_probe_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
