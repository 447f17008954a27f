/* tests/sim/sim_server.c: next hops: good, slow, refusing, closing in the middle of a reply, dying after the
 * content, dead for a while. */
#include <errno.h>

#include "core/list.h"
#include "tests/sim/sim.h"

#define SERVER_COUNT 5
#define PATIENCE_NS  (400 * SIM_S)
#define SLOW_NS      (3 * SIM_S)
#define STALL_NS     (200 * SIM_S)
#define CONN_RCPTS   RCPTS_MAX
#define LINE_BYTES   1200
#define MARKS_MAX    (CONN_RCPTS * 8)

enum condition { SERVER_GOOD, SERVER_SLOW, SERVER_REFUSING, SERVER_SILENT };

static struct server {
    uint32_t index;
    enum condition condition;
} servers[SERVER_COUNT];

/* One connection; also a transaction. */
struct conn_in {
    struct link link;
    struct server *server;
    struct stream *s;
    uint64_t number; /* never used again: timers name it */
    uint64_t life;   /* of the process that dialled */
    bool in_data, null_sender, for_sender, slow;
    uint64_t heard;
    struct {
        struct submission *s;
        struct submission_rcpt *r;
    } rcpts[CONN_RCPTS];
    uint32_t rcpt_count;
    char line[LINE_BYTES];
    size_t line_n;
    struct gbuf content; /* owned; dot-unstuffed */
    struct gbuf unsaid;  /* owned: replies of a slow server, and what is known when they are read */
    uint64_t marks[MARKS_MAX];
    uint32_t mark_count;
};
static struct list conns;
static uint64_t conn_number;

static void conn_free(struct conn_in *c)
{
    list_remove(&c->link);
    gbuf_free(&c->content);
    gbuf_free(&c->unsaid);
    free(c);
}

static struct conn_in *conn_find(uint64_t number)
{
    LIST_EACH(&conns, k)
    {
        struct conn_in *c = container_of(k, struct conn_in, link);
        if (c->number == number)
            return c;
    }
    return NULL;
}

static bool trouble(void)
{
    return !W.healing && chance_ppm(W.traits.peer_trouble_ppm);
}

/* ---- saying ---- */

static void say_now(void *ctx, uint64_t number)
{
    struct conn_in *c = conn_find(number);
    if (!c || !c->s)
        return;
    stream_send(c->s, c->unsaid.p, c->unsaid.n);
    c->unsaid.n = 0;
    for (uint32_t i = 0; i < c->mark_count; i++)
        stream_mark(c->s, ledger_acked, c->marks[i]);
    c->mark_count = 0;
}

static void say_after(struct conn_in *c, const char *text, uint64_t wait_ns)
{
    gbuf_cstr(&c->unsaid, text);
    if (wait_ns == 0)
        say_now(NULL, c->number);
    else
        world_at(wait_ns, say_now, NULL, c->number);
}

static void say(struct conn_in *c, const char *text)
{
    bool slow = c->server->condition == SERVER_SLOW || c->unsaid.n > 0;
    say_after(c, text, slow ? chance_around(SLOW_NS) : 0);
}

/* ---- the end ---- */

static void leave(struct conn_in *c, bool reset)
{
    if (reset)
        stream_reset(c->s);
    else
        stream_close(c->s);
    c->s = NULL; /* freed by whoever calls, at the end of what it does */
}

static void closed(void *ctx)
{
    conn_free(ctx);
}

/* Ends the connection as a server should not: in the middle of a reply, or without one. */
static void break_off(struct conn_in *c, const char *reply)
{
    trace("server %u breaks off", c->server->index);
    char part[8] = "";
    memcpy(part, reply, chance_below(5));
    stream_send(c->s, part, strlen(part));
    leave(c, chance_below(2));
}

/* ---- commands ---- */

static str_t path_of(str_t line)
{
    ptrdiff_t from = str_find(line, '<'), to = str_find(line, '>');
    must(from >= 0 && to > from);
    return str_of(line.p + from + 1, (size_t)(to - from - 1));
}

bool servers_offer_dsn(void)
{
    return W.seed % 4 == 0;
}

static void rcpt(struct conn_in *c, str_t address, bool has_notify)
{
    struct submission *s = NULL;
    struct submission_rcpt *r = ledger_rcpt_find(address, &s);
    if (!r && (!c->null_sender || c->server->index != 0))
        violation("server %u got a stranger's address: " STR_FMT, c->server->index, STR_ARG(address));
    if (has_notify != (servers_offer_dsn() && r && s->wants_success))
        violation("server %u got %s NOTIFY for " STR_FMT, c->server->index, has_notify ? "a" : "no",
                  STR_ARG(address));
    if (!r) {
        c->for_sender = true;
        say(c, "250 2.1.5 ok\r\n");
        return;
    }
    r->attempts++;
    if (r->kind == RCPT_UNKNOWN) {
        r->refused = true;
        say(c, "550 5.1.1 no such user\r\n");
    } else if (trouble() || (r->kind == RCPT_SLOW_START && r->attempts <= 1 + s->number % 2)) {
        say(c, "451 4.2.0 later\r\n");
    } else if (c->rcpt_count == CONN_RCPTS) {
        say(c, "452 4.5.3 too many\r\n");
    } else {
        c->rcpts[c->rcpt_count].s = s;
        c->rcpts[c->rcpt_count++].r = r;
        say(c, "250 2.1.5 ok\r\n");
    }
}

static void reset_transaction(struct conn_in *c)
{
    c->rcpt_count = 0;
    c->for_sender = c->null_sender = false;
    c->content.n = 0;
}

static void command(struct conn_in *c, str_t line)
{
    if (trouble()) {
        break_off(c, "250 2.0.0 ok\r\n");
    } else if (trouble()) {
        say(c, "421 4.3.2 closing\r\n");
        say_now(NULL, c->number);
        leave(c, false);
    } else if (str_starts(line, STR("EHLO"))) {
        say(c, servers_offer_dsn() ? "250-sim\r\n250-DSN\r\n" : "250-sim\r\n");
        say(c, W.seed % 3 ? "250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
                          : "250 8BITMIME\r\n");
    } else if (str_starts(line, STR("MAIL"))) {
        reset_transaction(c);
        c->null_sender = path_of(line).n == 0;
        say(c, "250 2.1.0 ok\r\n");
    } else if (str_starts(line, STR("RCPT"))) {
        rcpt(c, path_of(line), str_ends(line, STR(" NOTIFY=SUCCESS,FAILURE\r\n")));
    } else if (str_starts(line, STR("DATA"))) {
        c->in_data = c->rcpt_count > 0 || c->for_sender;
        say(c, c->in_data ? "354 go on\r\n" : "503 5.5.1 no recipients\r\n");
    } else if (str_starts(line, STR("RSET"))) {
        reset_transaction(c);
        say(c, "250 2.0.0 ok\r\n");
    } else if (str_starts(line, STR("QUIT"))) {
        say(c, "221 2.0.0 bye\r\n");
        say_now(NULL, c->number);
        leave(c, false);
    } else {
        violation("server %u got a strange command: " STR_FMT, c->server->index, STR_ARG(line));
    }
}

/* ---- content ---- */

static void take(struct conn_in *c)
{
    if (c->for_sender)
        ledger_report(gbuf_view(&c->content));
    for (uint32_t i = 0; i < c->rcpt_count; i++) {
        uint64_t mark = ledger_delivered(c->rcpts[i].s, c->rcpts[i].r, gbuf_view(&c->content), c->life);
        if (c->mark_count < MARKS_MAX)
            c->marks[c->mark_count++] = mark;
    }
}

static void refuse(struct conn_in *c)
{
    for (uint32_t i = 0; i < c->rcpt_count; i++)
        c->rcpts[i].r->refused = true;
}

static void end_of_content(struct conn_in *c)
{
    static const char ok[] = "250 2.0.0 taken\r\n";
    c->in_data = false;
    switch (trouble() ? chance_below(6) : 6) {
    case 0: say(c, "451 4.3.0 not now\r\n"); break;
    case 1:
        if (!c->for_sender) { /* reports must arrive in the end */
            refuse(c);
            say(c, "554 5.6.0 not that\r\n");
            break;
        }
        say(c, "452 4.3.1 no room\r\n");
        break;
    case 2: /* taken, and the reply never comes, or half of it */
        take(c);
        c->mark_count = 0;
        break_off(c, ok);
        break;
    case 3: break_off(c, ok); break;
    case 4: /* taken, and the reply comes late */
        take(c);
        say_after(c, ok, chance_around(STALL_NS));
        break;
    default:
        take(c);
        say(c, ok);
        break;
    }
    reset_transaction(c);
}

static void content_line(struct conn_in *c)
{
    str_t line = str_of(c->line, c->line_n);
    if (str_eq(line, STR(".\r\n"))) {
        end_of_content(c);
        return;
    }
    if (line.p[0] == '.')
        line = str_sub(line, 1, line.n);
    gbuf_str(&c->content, line);
}

static void data(void *ctx, const char *p, size_t n)
{
    struct conn_in *c = ctx;
    c->heard++;
    for (size_t i = 0; i < n && c->s; i++) {
        must(c->line_n < sizeof c->line);
        c->line[c->line_n++] = p[i];
        if (p[i] != '\n')
            continue;
        if (c->in_data)
            content_line(c);
        else
            command(c, str_of(c->line, c->line_n));
        c->line_n = 0;
    }
    if (!c->s)
        conn_free(c);
}

/* ---- life ---- */

static void patience_ends(void *ctx, uint64_t number)
{
    struct conn_in *c = conn_find(number);
    if (!c)
        return;
    if (c->heard == 0) {
        if (c->s)
            leave(c, true);
        conn_free(c);
        return;
    }
    c->heard = 0;
    world_at(PATIENCE_NS, patience_ends, NULL, number);
}

static void stall_ends(void *ctx, uint64_t number)
{
    struct conn_in *c = conn_find(number);
    if (c && c->s)
        stream_pause(c->s, false);
}

static void connected(void *ctx, struct stream *s)
{
    struct conn_in *c = ctx;
    c->s = s;
    world_at(PATIENCE_NS, patience_ends, NULL, c->number);
    say(c, trouble() ? "421 4.3.2 busy\r\n" : "220 sim ESMTP\r\n");
    if (trouble()) { /* does not read for a while */
        stream_pause(s, true);
        world_at(chance_around(STALL_NS), stall_ends, NULL, c->number);
    }
}

static const struct peer_ops server_ops = {connected, data, closed};

err_t servers_dialled(const struct endpoint *to, const struct peer_ops **ops, void **ctx)
{
    struct server *server = &servers[to->ip.b[15]];
    must(to->ip.b[15] < SERVER_COUNT && to->port == 25);
    if (server->condition == SERVER_REFUSING)
        return -ECONNREFUSED;
    if (server->condition == SERVER_SILENT)
        return -ETIMEDOUT;
    struct conn_in *c = calloc(1, sizeof *c);
    must(c != NULL);
    c->server = server;
    c->number = ++conn_number;
    c->life = gateway_life();
    list_push_back(&conns, &c->link);
    *ops = &server_ops;
    *ctx = c;
    return 0;
}

static void condition_changes(void *ctx, uint64_t index)
{
    if (W.healing)
        return;
    bool is_bad = W.traits.has_backlog && index == 1;
    bool well = !trouble() && (chance_below(4) != 0) != is_bad;
    servers[index].condition = well ? SERVER_GOOD : (enum condition)chance_below(SERVER_SILENT + 1);
    trace("server %u is %d", (unsigned)index, servers[index].condition);
    world_at(chance_around(W.traits.server_mood_ms * SIM_MS), condition_changes, NULL, index);
}

void servers_begin(void)
{
    list_init(&conns);
    conn_number = 0;
    for (uint32_t i = 0; i < SERVER_COUNT; i++) {
        servers[i] = (struct server){.index = i};
        if (W.traits.has_backlog && i == 1)
            servers[i].condition = SERVER_REFUSING;
        if (W.traits.peer_trouble_ppm > 0)
            world_at(chance_around(W.traits.server_mood_ms * SIM_MS), condition_changes, NULL, i);
    }
}

void servers_heal(void)
{
    for (uint32_t i = 0; i < SERVER_COUNT; i++)
        servers[i].condition = SERVER_GOOD;
}

void servers_end(void)
{
    LIST_EACH(&conns, k)
    conn_free(container_of(k, struct conn_in, link));
}
