/* Verifiers with a real loop and two scripted servers: "one.example" and "two.example". A test is a list of
 * steps: `act` once, then `until` must become true before the next step. Two verifiers on one loop: every
 * question goes by mail as between threads. */
#ifndef TESTS_UNIT_VERIFY_WORLD_H
#define TESTS_UNIT_VERIFY_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/clock.h"
#include "core/metrics.h"
#include "tests/unit/relay/sink.h"
#include "verify/operator.h"
#include "verify/verifier_priv.h"

#define GUARD_MS 60000 /* a step that never ends fails the test instead of hanging it */
#define ASKS_MAX 512

struct world;
struct step {
    void (*act)(struct world *w);
    bool (*until)(struct world *w);
};

struct asked {
    struct verify_ask ask;
    struct world *world;
    struct verify_answer answer;
    bool is_answered, is_pending, is_cancelled;
    char text[128];
};

struct world {
    struct loop *loop;
    struct policy *policy;
    struct verify_shared shared;
    struct verifier *verifiers[2];
    struct sink one, two;
    struct asked asks[ASKS_MAX];
    uint32_t ask_count, answered_count;
    enum client_class class; /* of the next asks */
    const char *sender;
    struct ip client;
    const char *mode; /* default: unverified */
    struct policy *next_policy;
    const char *wait;   /* of strangers */
    const char *canary; /* how often; default never */
    unsigned at;        /* the verifier that is asked next */
    const struct step *steps;
    size_t step_at;
    bool is_acting, is_over;
    uint64_t guard_ms;
    struct timer timer;
    unsigned drained_count;
    int mark; /* the test's own */
    struct probe_now probe;
    char transcript[4096];
    bool probe_is_done;
};

static size_t no_names(void *ctx, str_t name, struct ip *out, size_t max)
{
    return 0;
}

static struct policy *world_policy(const struct world *w, const char *verify)
{
    char yaml[2048];
    struct sbuf b = SBUF_ON(yaml);
    sbuf_printf(
        &b,
        "hostname: gw.example.com\n"
        "listeners: [ { address: \"127.0.0.1:1\" } ]\n"
        "verify: { mode: %s, rate: 0, canary: %s%s }\n"
        "domains:\n"
        "  - { name: one.example, local: true, route: { hosts: [\"127.0.0.1:%u\"], tls: off } }\n"
        "  - { name: two.example, local: true, route: { hosts: [\"127.0.0.1:%u\"], tls: off } }\n"
        "  - { name: both.example, local: true, route: { hosts: [\"127.0.0.1:%u\", "
        "\"127.0.0.1:%u\"], tls: off } }\n"
        "  - { name: off@one.example, verify: { mode: off } }\n"
        "  - { name: \"*.wild.example\", local: true, route: { hosts: [\"127.0.0.1:%u\"], tls: off } }\n"
        "  - { name: lmtp.example, local: true, route: { hosts: [\"127.0.0.1:%u\"], tls: off, "
        "protocol: lmtp } }\n"
        "timeouts: { connect: 5s, quit: 1s, verify_edge: 60s, verify_stranger: %s }\n",
        w->mode ? w->mode : "unverified", w->canary ? w->canary : "0s", verify, w->one.at.port,
        w->two.at.port, w->one.at.port, w->two.at.port, w->one.at.port, w->one.at.port,
        w->wait ? w->wait : "50s");
    struct diag d = {.file = "test.yaml"};
    struct config *c;
    struct policy *p = NULL;
    struct policy_resolver resolver = {.resolve = no_names};
    if (config_load_text(sbuf_view(&b), "test.yaml", &c, &d) || policy_build(&p, c, &resolver, &d))
        fail_msg(STR_FMT, STR_ARG(gbuf_view(&d.text)));
    diag_free(&d);
    return p;
}

/* --- asking --- */

static void answered(struct verify_ask *a, const struct verify_answer *answer)
{
    struct asked *k = container_of(a, struct asked, ask);
    assert_false(k->is_answered);
    assert_false(k->is_cancelled);
    k->is_answered = true;
    k->is_pending = false;
    k->answer = *answer;
    k->world->answered_count++;
}

__attribute__((unused)) static struct asked *ask(struct world *w, const char *to)
{
    assert_true(w->ask_count < ASKS_MAX);
    struct asked *k = &w->asks[w->ask_count++];
    struct address a;
    *k = (struct asked){.world = w, .ask.done = answered};
    snprintf(k->text, sizeof k->text, "%s", to);
    assert_int_equal(address_parse_mailbox(str_cstr(k->text), &a), 0);
    struct verify_query q = {.address = &a,
                             .text = str_cstr(k->text),
                             .sender = str_cstr(w->sender ? w->sender : "someone@far.example"),
                             .class = w->class,
                             .client = w->client,
                             .policy = w->policy};
    err_t err = verifier_ask(w->verifiers[w->at], &q, &k->ask, &k->answer);
    assert_true(err == 0 || err == ERR_PENDING);
    k->is_pending = err == ERR_PENDING;
    k->is_answered = !k->is_pending;
    w->answered_count += k->is_answered;
    return k;
}

__attribute__((unused)) static bool all_answered(struct world *w)
{
    return w->answered_count == w->ask_count;
}

__attribute__((unused)) static const struct asked *asked(const struct world *w, const char *to)
{
    for (uint32_t i = w->ask_count; i-- > 0;)
        if (str_eq(str_cstr(w->asks[i].text), str_cstr(to)))
            return &w->asks[i];
    fail_msg("%s was not asked", to);
    return NULL;
}

#define assert_answer(w, to, r, src)                                                                         \
    do {                                                                                                     \
        const struct asked *k_ = asked((w), (to));                                                           \
        assert_true(k_->is_answered);                                                                        \
        assert_string_equal(answer_source_name(k_->answer.source), (src));                                   \
        assert_int_equal(k_->answer.reply, (r));                                                             \
    } while (0)

/* How often a server saw lines that start so. */
static uint32_t seen(const struct sink *s, const char *start)
{
    uint32_t n = 0;
    str_t rest = gbuf_view(&s->lines), line;
    while (str_cut(rest, '\n', &line, &rest))
        n += str_istarts(line, str_cstr(start));
    return n;
}

__attribute__((unused)) static struct backend *backend_of(struct world *w, const char *domain)
{
    char text[128];
    snprintf(text, sizeof text, "x@%s", domain);
    struct address a;
    struct route route;
    assert_int_equal(address_parse_mailbox(str_cstr(text), &a), 0);
    assert_int_equal(policy_verify_route(w->policy, &a, &route), 0);
    for (unsigned i = 0; i < 2; i++) {
        struct backend *b = smap_get(&w->verifiers[i]->backends, route.key);
        if (b)
            return b;
    }
    return NULL;
}

/* Time is not waited for: what was known becomes that much older, what is to come comes now. */
static struct verdict_record older(void *ctx, struct verdict_record r)
{
    uint32_t s = *(uint32_t *)ctx;
    r.checked_s -= MIN(r.checked_s, s);
    r.refused_s -= MIN(r.refused_s, s);
    return r;
}
__attribute__((unused)) static void age_record(struct world *w, const char *key, uint32_t seconds)
{
    verdict_cache_update(w->shared.known.cache, str_cstr(key), wall_s(), older, &seconds, NULL);
}

/* --- running --- */

static void world_drained(void *ctx)
{
    struct world *w = ctx;
    w->drained_count++;
}

static void stop(struct sink *s)
{
    if (s->listener) /* else the test closed it */
        sink_stop(s);
}

static void over(struct world *w)
{
    if (!w->is_over) {
        w->is_over = true;
        for (unsigned i = 0; i < 2; i++)
            verifier_drain(w->verifiers[i], world_drained, w);
    }
    if (w->drained_count == 2 && w->verifiers[0]) {
        for (unsigned i = 0; i < 2; i++) {
            verifier_destroy(w->verifiers[i]);
            w->verifiers[i] = NULL;
        }
        stop(&w->one);
        stop(&w->two);
    }
    bool is_quiet = !w->verifiers[0] && !w->one.listener && !w->two.listener && !w->one.open && !w->two.open;
    if (is_quiet)
        loop_stop(w->loop);
    else
        timer_arm(w->loop, &w->timer, 8);
}

static void world_turn(struct timer *t)
{
    struct world *w = container_of(t, struct world, timer);
    while (w->steps) {
        const struct step *s = &w->steps[w->step_at];
        if (!s->act && !s->until) {
            w->steps = NULL;
            break;
        }
        if (!w->is_acting) {
            w->is_acting = true;
            w->guard_ms = loop_now_ms(w->loop) + GUARD_MS;
            if (s->act)
                s->act(w);
        }
        if (s->until && !s->until(w)) {
            if (loop_now_ms(w->loop) > w->guard_ms) {
                print_error("step %zu never ended\nserver one saw:\n" STR_FMT "server two saw:\n" STR_FMT,
                            w->step_at, STR_ARG(gbuf_view(&w->one.lines)), STR_ARG(gbuf_view(&w->two.lines)));
                abort();
            }
            timer_arm(w->loop, t, 1);
            return;
        }
        w->is_acting = false;
        w->step_at++;
    }
    over(w);
}

static void world_start(struct world *w)
{
    struct loop_options lo = {
        .entries = 256, .buffer_count = 256, .buffer_bytes = 16384, .cpu = -1, .name = "test"};
    assert_int_equal(loop_create(&w->loop, &lo), 0);
    sink_open(&w->one, w->loop);
    sink_open(&w->two, w->loop);
    assert_int_equal(verdict_cache_create(&w->shared.known.cache, 10000), 0);
    w->shared.workers = w->verifiers;
    w->shared.worker_count = 2;
    memset(w->shared.token_key, 7, sizeof w->shared.token_key);
    assert_int_equal(ip_parse(STR("192.0.2.77"), &w->client), 0);
}

/* verify: more of the settings, ", batch: 3". */
__attribute__((unused)) static void world_run(struct world *w, const char *verify, const struct step *steps)
{
    w->policy = world_policy(w, verify);
    for (unsigned i = 0; i < 2; i++) {
        struct verifier_options o = {.shared = &w->shared, .loop = w->loop, .policy = w->policy, .worker = i};
        assert_int_equal(verifier_create(&w->verifiers[i], &o), 0);
    }
    w->steps = steps;
    w->timer.fire = world_turn;
    timer_arm(w->loop, &w->timer, 0);
    loop_run(w->loop);
    policy_free(w->policy);
    policy_free(w->next_policy);
    loop_destroy(w->loop);
    sink_free(&w->one);
    sink_free(&w->two);
    verdict_cache_destroy(w->shared.known.cache);
}

__attribute__((unused)) static void start_one(struct world *w)
{
    sink_start(&w->one);
}

__attribute__((unused)) static void start_both(struct world *w)
{
    sink_start(&w->one);
    sink_start(&w->two);
}

/* --- what several tests do --- */

__attribute__((unused)) static const struct rule ordinary[] = {
    {"RCPT TO:<bad", "550 5.1.1 no such user\r\n", false},
    {"RCPT TO:<full", "552 5.2.2 over quota\r\n", false},
    {"RCPT TO:<grey", "450 4.7.1 greylisted\r\n", false},
    {"RCPT TO:<gone", "550 5.2.1 mailbox disabled\r\n", false},
    {0},
};

__attribute__((unused)) static void ask_bob(struct world *w)
{
    sink_start(&w->one);
    ask(w, "bob@one.example");
}

__attribute__((unused)) static const struct rule no_bob[] = {{"RCPT TO:<bob", "550 5.1.1 no\r\n", false},
                                                             {0}};

__attribute__((unused)) static void bob_is_refused(struct world *w)
{
    w->one.rules = no_bob;
    age_record(w, "bob@one.example", 2 * 86400);
    ask(w, "bob@one.example");
}

#endif
