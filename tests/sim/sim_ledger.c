/* tests/sim/sim_ledger.c: what clients handed over, what next hops got, and whether the two agree. */
#include <inttypes.h>

#include "core/log.h"
#include "queue/queue.h"
#include "tests/sim/sim.h"

#define LINE_BYTES_MAX   900
#define PREFIX_BYTES_MAX 2000
#define RCPTS_PER_NUMBER 16

static const char *const domains[] = {"home.example", "one.example", "two.example", "named.example",
                                      "far.example"};
static const char kind_letters[] = {[RCPT_GOOD] = 'g', [RCPT_SLOW_START] = 's', [RCPT_UNKNOWN] = 'u'};

static struct ledger {
    struct submission **all; /* owned, and what they point to; by number - 1 */
    size_t count, cap;
    struct submission **open; /* owned; accepted, and not all of them ended */
    size_t open_count, open_cap;
    uint64_t accepted, delivered, duplicates, reports, successes, lost, damage_reports;
} L;

/* ---- submissions ---- */

struct submission *ledger_new(void)
{
    if (L.count == L.cap) {
        L.cap = L.cap ? L.cap * 2 : 256;
        L.all = reallocarray(L.all, L.cap, sizeof *L.all);
    }
    struct submission *s = calloc(1, sizeof *s);
    must(L.all && s);
    L.all[L.count++] = s;
    s->number = (uint32_t)L.count;
    return s;
}

struct submission *ledger_find(uint32_t number)
{
    return number >= 1 && number <= L.count ? L.all[number - 1] : NULL;
}

void ledger_accepted(struct submission *s, uint64_t queue_id)
{
    s->state = SUB_ACCEPTED;
    s->queue_id = queue_id;
    L.accepted++;
    if (L.open_count == L.open_cap) {
        L.open_cap = L.open_cap ? L.open_cap * 2 : 256;
        L.open = reallocarray(L.open, L.open_cap, sizeof *L.open);
        must(L.open != NULL);
    }
    L.open[L.open_count++] = s;
}

void ledger_refused(struct submission *s)
{
    s->state = SUB_REFUSED;
    s->had_faults = disk_fault_count() > 0;
}

void ledger_rcpt(const struct submission *s, uint32_t i, struct sbuf *out)
{
    const struct submission_rcpt *r = &s->rcpts[i];
    sbuf_printf(out, "r%u.%u.%c@%s", s->number, i, kind_letters[r->kind], domains[r->domain]);
}

struct submission_rcpt *ledger_rcpt_find(str_t address, struct submission **out)
{
    char text[128], want[128];
    unsigned number, i;
    (void)snprintf(text, sizeof text, STR_FMT, STR_ARG(address));
    if (sscanf(text, "r%u.%u.", &number, &i) != 2)
        return NULL;
    struct submission *s = ledger_find(number);
    if (!s || i >= s->rcpt_count)
        return NULL;
    struct sbuf b = SBUF_ON(want);
    ledger_rcpt(s, i, &b);
    *out = s;
    return str_eq(sbuf_view(&b), address) ? &s->rcpts[i] : NULL;
}

/* ---- bodies: made again whenever they are needed ---- */

static uint64_t draw(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static void body_line(struct gbuf *out, uint64_t *state)
{
    static const char *const odd[] = {"", ".", "..", ". leading dot", ".\t", "From here", "..."};
    char line[LINE_BYTES_MAX];
    if (draw(state) % 4 == 0) {
        gbuf_cstr(out, odd[draw(state) % COUNT_OF(odd)]);
    } else {
        size_t n = 1 + draw(state) % (draw(state) % 8 ? 70 : LINE_BYTES_MAX - 1);
        for (size_t i = 0; i < n; i++)
            line[i] = (char)('!' + draw(state) % 94);
        gbuf_put(out, line, n);
    }
    gbuf_cstr(out, "\r\n");
}

void ledger_body(const struct submission *s, struct gbuf *out)
{
    uint64_t state = W.seed ^ (uint64_t)s->number << 32;
    size_t from = out->n;
    gbuf_printf(out, "Subject: %u\r\nFrom: somebody\r\n\r\n", s->number);
    while (out->n - from < s->body_bytes)
        body_line(out, &state);
}

/* ---- what next hops got ---- */

static bool is_expired(const struct submission *s)
{
    return W.now_ns - s->sent_ns >= W.traits.lifetime_s * SIM_S;
}

/* Is what stands in front of the body trace headers and nothing else? */
static void check_prefix(const struct submission *s, str_t prefix)
{
    static const str_t names[] = {{"Received: ", 10}, {"\t", 1}, {"Date: ", 6}, {"Message-ID: ", 12}};
    bool ok = prefix.n <= PREFIX_BYTES_MAX && str_starts(prefix, names[0]) && str_ends(prefix, STR("\r\n"));
    while (ok && prefix.n > 0) {
        bool known = false;
        for (size_t i = 0; i < COUNT_OF(names); i++)
            known = known || str_starts(prefix, names[i]);
        const char *end = memmem(prefix.p, prefix.n, "\r\n", 2);
        ok = known && end;
        if (ok)
            prefix = str_sub(prefix, (size_t)(end - prefix.p) + 2, prefix.n);
    }
    if (!ok)
        violation("message %u came with something strange in front", s->number);
}

static void check_content(const struct submission *s, str_t content)
{
    struct gbuf body = {0};
    ledger_body(s, &body);
    if (content.n < body.n || memcmp(content.p + content.n - body.n, body.p, body.n) != 0)
        violation("message %u came with another body: %zu bytes, sent were %zu", s->number, content.n,
                  body.n);
    check_prefix(s, str_sub(content, 0, content.n - body.n));
    gbuf_free(&body);
}

static bool may_exist(const struct submission *s)
{
    /* Refused after a failed write: some of it may have reached the disk, and a crash right then makes it
     * live. */
    return s->state == SUB_DOTTED || s->state == SUB_ACCEPTED || (s->state == SUB_REFUSED && s->had_faults);
}

uint64_t ledger_delivered(struct submission *s, struct submission_rcpt *r, str_t content, uint64_t life)
{
    uint64_t i = (uint64_t)(r - s->rcpts);
    trace("delivered %u.%u, time %u", s->number, (unsigned)i, r->deliveries + 1);
    if (!may_exist(s) || !r->taken)
        violation("message %u was delivered, but never accepted (state %u)", s->number, s->state);
    check_content(s, content);
    if (r->deliveries > 0) {
        L.duplicates++;
        bool was_on_its_way = life < r->acked_life; /* a dead process's last words come late */
        if (r->acked && !was_on_its_way && !gateway_may_forget(r->acked_life, r->acked_ns))
            violation(
                "message %u.%u was delivered again without a reason; the first was acknowledged at %" PRIu64
                " ms in life %" PRIu64,
                s->number, (unsigned)i, r->acked_ns / SIM_MS, r->acked_life);
    }
    L.delivered++;
    r->deliveries++;
    r->acked = false;
    return (uint64_t)s->number * RCPTS_PER_NUMBER + i;
}

void ledger_acked(uint64_t arg)
{
    struct submission_rcpt *r =
        &ledger_find((uint32_t)(arg / RCPTS_PER_NUMBER))->rcpts[arg % RCPTS_PER_NUMBER];
    r->acked = true;
    r->acked_ns = W.now_ns;
    r->acked_life = gateway_life();
}

/* Both a report and a delivery are fine: a crash may come between the report and the record of it, and the
 * next attempt may go well. */
static void report_failure(const struct submission *s, struct submission_rcpt *r, str_t address)
{
    if (!r->refused && !is_expired(s))
        violation("a report for " STR_FMT ", whom no server refused", STR_ARG(address));
    r->reports++;
    L.reports++;
}

static void report_success(const struct submission *s, struct submission_rcpt *r, str_t address)
{
    if (!r->deliveries || !s->wants_success || servers_offer_dsn())
        violation("a report of success for " STR_FMT " that nobody is to get", STR_ARG(address));
    r->successes++;
    L.successes++;
}

static void report_rcpt(str_t address, str_t action)
{
    struct submission *s;
    struct submission_rcpt *r = ledger_rcpt_find(address, &s);
    if (!r || !may_exist(s) || s->null_sender)
        violation("a report for somebody who was never sent to: " STR_FMT, STR_ARG(address));
    trace("reported " STR_FMT " as " STR_FMT, STR_ARG(address), STR_ARG(action));
    if (str_eq(action, STR("failed")))
        report_failure(s, r, address);
    else if (str_eq(action, STR("relayed")))
        report_success(s, r, address);
    else if (!str_eq(action, STR("delayed")) || s->wants_success ||
             W.now_ns - s->sent_ns + SIM_MS < SIM_WARN_AFTER_S * SIM_S) /* the queue counts milliseconds */
        violation("a report that nobody is to get: " STR_FMT " " STR_FMT, STR_ARG(address), STR_ARG(action));
}

void ledger_report(str_t content)
{
    str_t line, rest = content, address = STR_NONE;
    bool any = false;
    while (rest.n > 0) {
        (void)str_cut(rest, '\n', &line, &rest);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (str_istarts(line, STR("Final-Recipient: rfc822;")))
            address = str_trim(str_sub(line, 24, line.n));
        if (!str_istarts(line, STR("Action:")))
            continue;
        report_rcpt(address, str_trim(str_sub(line, 7, line.n)));
        any = true;
    }
    if (!any)
        violation("a message with the null sender that is no report");
}

/* ---- is everything there? ---- */

static bool is_over(const struct submission *s, const struct submission_rcpt *r)
{
    bool is_success_due = s->wants_success && !servers_offer_dsn();
    return !r->taken || r->reports > 0 || (r->deliveries > 0 && (r->successes > 0 || !is_success_due)) ||
           (s->null_sender && (r->refused || is_expired(s)));
}

/* Bit rot may cost the message that it hit, and says so. */
static void lost(struct submission *s, uint32_t i, const char *what)
{
    L.lost++;
    if (L.lost > W.rot_count || L.lost > L.damage_reports)
        violation("message %u.%u was accepted and is %s (lost so far: %" PRIu64 ", flipped bits: %" PRIu64
                  ", reports of damage: %" PRIu64 ")",
                  s->number, i, what, L.lost, W.rot_count, L.damage_reports);
    trace("lost to rot: %u", s->number);
    for (uint32_t k = 0; k < s->rcpt_count; k++)
        s->rcpts[k].taken = false;
}

static void check_one(struct queue *q, struct submission *s)
{
    struct qmsg *m = queue_find(q, s->queue_id);
    for (uint32_t i = 0; i < s->rcpt_count; i++) {
        const struct submission_rcpt *r = &s->rcpts[i];
        if (is_over(s, r) || r->deliveries > 0) /* the latter's report must come: seen at the end */
            continue;
        bool may_be_bounced =
            r->refused || is_expired(s); /* then the report must be queued: seen at the end */
        if (!m) {
            if (!may_be_bounced)
                lost(s, i, "not queued");
            continue;
        }
        if (m->rcpt_count != s->taken_count)
            violation("message %u has %u recipients, accepted were %u", s->number, m->rcpt_count,
                      s->taken_count);
        enum rcpt_state state = queue_rcpt_state(m, r->index);
        if (state != RCPT_PENDING && !(state == RCPT_BOUNCED && may_be_bounced))
            lost(s, i, "queued with the wrong state");
    }
}

static bool is_closed(const struct submission *s)
{
    for (uint32_t i = 0; i < s->rcpt_count; i++)
        if (!is_over(s, &s->rcpts[i]))
            return false;
    return true;
}

static void drop_closed(void)
{
    size_t n = 0;
    for (size_t i = 0; i < L.open_count; i++)
        if (!is_closed(L.open[i]))
            L.open[n++] = L.open[i];
    L.open_count = n;
}

void ledger_check_recovered(struct queue *q)
{
    drop_closed();
    for (size_t i = 0; i < L.open_count; i++)
        check_one(q, L.open[i]);
}

void ledger_check_end(struct queue *q)
{
    drop_closed();
    for (size_t i = 0; i < L.open_count; i++) {
        struct submission *s = L.open[i];
        const struct qmsg *m = queue_find(q, s->queue_id);
        for (uint32_t k = 0; k < s->rcpt_count; k++)
            if (!is_over(s, &s->rcpts[k]))
                lost(s, k, m && m->held ? "held" : "neither delivered nor reported");
    }
}

void ledger_damage(void)
{
    L.damage_reports++;
    if (W.rot_count == 0)
        violation("damage was reported, and none was done");
}

void ledger_summary(char *out, size_t n)
{
    (void)snprintf(out, n,
                   "%zu sent, %" PRIu64 " accepted, %" PRIu64 " delivered (%" PRIu64 " again), %" PRIu64
                   " reported, %" PRIu64 " told of success, %" PRIu64 " lost to %" PRIu64 " flipped bits",
                   L.count, L.accepted, L.delivered, L.duplicates, L.reports, L.successes, L.lost,
                   W.rot_count);
}

void ledger_begin(void)
{
    L = (struct ledger){0};
}

void ledger_end(void)
{
    for (size_t i = 0; i < L.count; i++)
        free(L.all[i]);
    free(L.all);
    free(L.open);
}
