/* tests/sim/sim_gateway.c: lives of the gateway: boot on the disk that the last one left, run, then a crash
 * or a clean restart. Also the administrator, and whatever else happens to a machine.
 *
 * After a crash the process is taken apart by its own shutdown, cut off from everything: its sockets are
 * reset, its writes go nowhere, the world stands still. So each crash also proves that nothing leaks. */
#include <errno.h>

#include "core/log.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_worker.h"

#define DOWN_NS_MAX      (20 * SIM_S)
#define HEAL_NS_MAX      (6 * 3600 * SIM_S)
#define IDLE_CHECK_NS    SIM_S
#define RESTART_EVERY_NS (60 * SIM_S)
#define RELOAD_EVERY_NS  (20 * SIM_S)
/* How long after a reply was read a crash may make it forgotten: progress_flush_ms, the timer's grain, the
 * write in flight and the one behind it. */
#define FORGET_NS ((200 + 2 * 8 + 2 * 210) * SIM_MS)

enum ending { RUNNING, CRASHED, STOPPED };

static struct life {
    uint64_t number, ended_ns, faults_at_start, rot_at_start;
    enum ending ending;
    bool had_faults, was_full;
} lives[1 << 16];

static struct policy *policies[2]; /* owned; both live as long as the run */
static uint64_t life;

uint64_t gateway_life(void)
{
    return life;
}

static struct life *life_of(uint64_t number)
{
    return &lives[number % COUNT_OF(lives)];
}

bool gateway_may_forget(uint64_t number, uint64_t since_ns)
{
    const struct life *l = life_of(number);
    if (l->number != number || W.rot_count > 0)
        return true;
    uint64_t end_ns = number == life ? 0 : l->ended_ns;
    if (l->was_full || l->had_faults || (number == life && disk_fault_count() > l->faults_at_start))
        return true;
    return number != life && l->ending == CRASHED && end_ns - since_ns <= FORGET_NS;
}

void gateway_was_full(bool full)
{
    life_of(life)->was_full |= full;
}

/* ---- configuration ---- */

static const char config_format[] =
    "hostname: gw.sim.example\n"
    "workers: 1\n"
    "listeners: [ { address: \"192.0.2.1:25\" } ]\n"
    "spool: { directory: /spool, ring_size: 16MiB }\n"
    "destination: { mode: edge, host: \"10.0.0.4:25\" }\n"
    "trusted_networks: [10.1.0.0/16]\n"
    "domains:\n"
    "  - { name: home.example, local: true, route: { hosts: [\"10.0.0.0:25\"] } }\n"
    "  - { name: one.example, local: true, route: { hosts: [\"10.0.0.1:25\"%s] } }\n"
    "  - { name: two.example, local: true, route: { hosts: [\"10.0.0.2:25\"], connections: %u } }\n"
    "  - { name: named.example, local: true, route: { hosts: [\"mx.named.example:25\"] } }\n"
    "limits: { sessions_per_client: 0 }\n"
    "retry: { first: %us, max: 60s, lifetime: %us }\n"
    "dsn: { rate: 0, delay_after: %us }\n";

static struct policy *policy_new(bool with_second_host)
{
    char text[2048];
    struct diag d = {.file = "sim.yaml"};
    struct config *c;
    struct policy *p;
    unsigned connections = 1 + (unsigned)chance_below(8), first_s = 1 + (unsigned)chance_below(20);
    (void)snprintf(text, sizeof text, config_format, with_second_host ? ", \"10.0.0.2:25\"" : "", connections,
                   first_s, W.traits.lifetime_s, SIM_WARN_AFTER_S);
    err_t err = config_load_text(str_cstr(text), d.file, &c, &d);
    if (!err)
        err = policy_build(&p, c, NULL, &d);
    if (err)
        violation("configuration: " STR_FMT, STR_ARG(gbuf_view(&d.text)));
    diag_free(&d);
    return p;
}

static const struct policy *any_policy(void)
{
    return policies[chance_below(COUNT_OF(policies))];
}

/* ---- what happens to it ---- */

void gateway_crash(bool power_cut)
{
    if (W.dead)
        return;
    trace("crash %llu: %s", (unsigned long long)W.crash_count, power_cut ? "power cut" : "killed");
    W.crash_count++;
    W.power_cut_count += power_cut;
    W.kept_crash_count += worker_kept_count() > 0;
    struct life *l = life_of(life);
    l->ending = CRASHED;
    l->ended_ns = W.now_ns;
    gateway_was_full(worker_is_full());
    W.dead = true;
    disk_crash(power_cut);
    net_crash(power_cut && chance_below(2));
    worker_drain(true);
}

static void crash_event(void *ctx, uint64_t arg)
{
    if (W.healing)
        return;
    if (worker_is_up())
        gateway_crash(chance_below(2));
    world_at(chance_around(W.traits.crash_every_ms * SIM_MS), crash_event, NULL, 0);
}

static void restart_event(void *ctx, uint64_t arg)
{
    if (W.healing)
        return;
    trace("restart");
    worker_drain(false);
    world_at(chance_around(RESTART_EVERY_NS), restart_event, NULL, 0);
}

static void reload_event(void *ctx, uint64_t arg)
{
    worker_reload(any_policy());
    if (!W.healing)
        world_at(chance_around(RELOAD_EVERY_NS), reload_event, NULL, 0);
}

static void fault_event(void *ctx, uint64_t arg)
{
    if (W.healing)
        return;
    disk_fault(chance_around(2 * SIM_S));
    world_at(chance_around(W.traits.disk_fault_every_ms * SIM_MS), fault_event, NULL, 0);
}

/* An administrator who cannot make up his mind. */
static void resize_event(void *ctx, uint64_t arg)
{
    if (W.healing)
        return;
    uint64_t count_max = (UINT64_C(16) << 20) / W.traits.segment_bytes;
    worker_resize((8 + chance_below(MIN(count_max, UINT64_C(64)) - 7)) * W.traits.segment_bytes);
    world_at(chance_around(W.traits.resize_every_ms * SIM_MS), resize_event, NULL, 0);
}

static void rot_event(void *ctx, uint64_t arg)
{
    if (W.healing)
        return;
    disk_rot();
    world_at(chance_around(W.traits.rot_every_ms * SIM_MS), rot_event, NULL, 0);
}

/* After the last step: trouble ends, and everything must come to rest. */
static void rest_event(void *ctx, uint64_t since_ns)
{
    if (!W.healing && W.steps >= W.steps_max) {
        trace("the world heals");
        W.healing = true;
        since_ns = W.now_ns;
        disk_heal();
        servers_heal();
    }
    if (W.healing && clients_are_idle() && worker_is_idle()) {
        trace("at rest");
        ledger_check_end(worker_queue());
        W.finished = true;
        worker_drain(false);
        return;
    }
    if (W.healing && W.now_ns - since_ns > HEAL_NS_MAX) {
        worker_print_queue();
        violation("the world does not come to rest");
    }
    world_at(IDLE_CHECK_NS, rest_event, NULL, since_ns);
}

static void begin_trouble(void)
{
    world_at(chance_around(W.traits.crash_every_ms * SIM_MS), crash_event, NULL, 0);
    world_at(chance_around(RESTART_EVERY_NS), restart_event, NULL, 0);
    world_at(chance_around(RELOAD_EVERY_NS), reload_event, NULL, 0);
    if (W.traits.disk_fault_every_ms)
        world_at(chance_around(W.traits.disk_fault_every_ms * SIM_MS), fault_event, NULL, 0);
    if (W.traits.resize_every_ms)
        world_at(chance_around(W.traits.resize_every_ms * SIM_MS), resize_event, NULL, 0);
    if (W.traits.rot_every_ms)
        world_at(chance_around(W.traits.rot_every_ms * SIM_MS), rot_event, NULL, 0);
    world_at(IDLE_CHECK_NS, rest_event, NULL, 0);
}

/* ---- a life ---- */

static void show_notes(struct gbuf *notes)
{
    str_t rest = gbuf_view(notes), line;
    while (rest.n) {
        str_cut(rest, '\n', &line, &rest);
        trace("%s" STR_FMT, W.dead ? "(dead) " : "", STR_ARG(line));
    }
    gbuf_free(notes);
}

static bool boot(void)
{
    struct gbuf notes = {0};
    uint64_t faults = disk_fault_count();
    err_t err = worker_open(any_policy(), &notes);
    show_notes(&notes);
    if (err && !W.dead && disk_fault_count() == faults)
        violation("the process does not start: %s", err_text(err));
    if (!err)
        ledger_check_recovered(worker_queue());
    return !err;
}

static void pass_down_time(void)
{
    uint64_t until_ns = W.now_ns + chance_below(chance_below(3) ? SIM_S : DOWN_NS_MAX);
    while (world_step(until_ns))
        ;
    W.now_ns = MAX(W.now_ns, until_ns);
}

static void one_life(void)
{
    life++;
    struct life *l = life_of(life);
    *l = (struct life){.number = life, .faults_at_start = disk_fault_count()};
    W.dead = false;
    trace("life %llu", (unsigned long long)life);
    if (boot())
        worker_run();
    if (l->ending == RUNNING) {
        l->ending = STOPPED;
        l->ended_ns = W.now_ns;
    }
    l->had_faults = disk_fault_count() > l->faults_at_start;
    if (process_events_left())
        violation("an operation outlived its process");
    W.dead = false;
}

void gateway_run(void)
{
    life = 0;
    for (size_t i = 0; i < COUNT_OF(policies); i++)
        policies[i] = policy_new(i > 0);
    begin_trouble();
    while (!W.finished) {
        one_life();
        if (!W.finished)
            pass_down_time();
    }
    for (size_t i = 0; i < COUNT_OF(policies); i++)
        policy_free(policies[i]);
}
