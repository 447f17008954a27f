/* The service with a real loop and a real queue. Clients are the other ends of socket pairs, of the address
 * that a test gives them: each waits for a text, says the next one, and so on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <sys/socket.h>
#include <unistd.h>

#include "net/conn.h"
#include "smtp/proto/envelope.h"
#include "smtp/server/service.h"
#include "smtp/server/strangers.h"

#define GUARD_MS    30000 /* a session that never ends fails the test instead of hanging it */
#define CLIENTS_MAX 8

struct world;

struct line {
    const char *wait; /* in what came since the last line was said */
    const char *say;  /* "TLS": start TLS; "FIN:text": say it and half-close; "GONE:text": say it and close */
};

struct client {
    struct world *w;
    struct conn *c; /* owned until closed */
    const struct line *lines;
    char out[131072];
    size_t n, seen;
    bool secured, over;
};

struct world {
    struct loop *loop;
    struct queue *queue;
    struct policy *policy, *other_policy;
    struct smtpd_service *service;
    struct strangers *strangers;
    struct tls_context *tls, *client_tls;
    struct smtpd_door door;
    char directory[64];
    struct client clients[CLIENTS_MAX];
    unsigned client_count, clients_over;
    struct timer guard;
    void (*then)(struct world *w); /* once, when the clients are over */
    unsigned accepted;
    struct qmsg *last; /* gone with the queue */
    uint64_t last_bytes;
    struct mail step;
    bool is_over, emptied;
};

static size_t no_names(void *ctx, str_t name, struct ip *out, size_t max)
{
    return 0;
}

static struct policy *policy_of(const char *more)
{
    char yaml[2048];
    struct sbuf b = SBUF_ON(yaml);
    struct diag d = {.file = "test"};
    struct config *c = NULL;
    struct policy *p = NULL;
    static const struct policy_resolver resolver = {.resolve = no_names};
    sbuf_printf(&b,
                "hostname: mx.example.com\n"
                "workers: 1\n"
                "trusted_networks: [10.0.0.0/8]\n"
                "edge_networks: [192.0.2.10]\n"
                "domains:\n  - { name: example.com, local: true, route: { hosts: [10.0.0.5] } }\n%s",
                more);
    if (config_load_text(sbuf_view(&b), "test", &c, &d) || policy_build(&p, c, &resolver, &d))
        fail_msg(STR_FMT, STR_ARG(gbuf_view(&d.text)));
    diag_free(&d);
    return p;
}

/* --- the end --- */

static void queue_closed(void *ctx)
{
    struct world *w = ctx;
    w->queue = NULL;
    timer_disarm(w->loop, &w->guard);
    loop_stop(w->loop);
}

static void close_all(struct mail *m)
{
    struct world *w = container_of(m, struct world, step);
    if (w->clients_over < w->client_count) { /* still hearing of the end */
        loop_post(w->loop, m);
        return;
    }
    smtpd_service_destroy(w->service);
    w->service = NULL;
    queue_close(w->queue, queue_closed, w);
}

static void service_empty(void *ctx)
{
    struct world *w = ctx;
    assert_false(w->emptied);
    w->emptied = true;
    w->step.deliver = close_all;
    loop_post(w->loop, &w->step);
}

static void end_if_over(struct world *w)
{
    if (w->clients_over < w->client_count || w->is_over)
        return;
    w->is_over = true;
    if (w->then)
        w->then(w);
    smtpd_service_drain(w->service, false);
}

static void guard_fired(struct timer *t)
{
    struct world *w = container_of(t, struct world, guard);
    for (unsigned i = 0; i < w->client_count; i++)
        print_error("client %u heard: %s\n", i, w->clients[i].out);
    fail_msg("it never ends");
}

/* --- clients --- */

/* Past the connection's output queue, which a close would drop. */
static void say_now(struct client *cl, const char *text)
{
    assert_int_equal(send(conn_fd(cl->c), text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void client_say(struct client *cl, const char *say)
{
    if (strcmp(say, "TLS") == 0) {
        conn_starttls(cl->c, cl->w->client_tls, STR_NONE);
    } else if (strncmp(say, "FIN:", 4) == 0) {
        say_now(cl, say + 4);
        shutdown(conn_fd(cl->c), SHUT_WR);
    } else if (strncmp(say, "GONE:", 5) == 0) {
        say_now(cl, say + 5);
        conn_close(cl->c, 0);
    } else {
        conn_write(cl->c, say, strlen(say));
    }
}

static void client_step(struct client *cl)
{
    while (cl->lines && strstr(cl->out + cl->seen, cl->lines->wait)) {
        const char *say = (cl->lines++)->say;
        if (!cl->lines->wait)
            cl->lines = NULL;
        cl->seen = cl->n;
        client_say(cl, say);
    }
}

static size_t client_data(struct conn *c, const uint8_t *p, size_t n)
{
    struct client *cl = conn_ctx(c);
    assert_true(cl->n + n < sizeof cl->out);
    memcpy(cl->out + cl->n, p, n);
    cl->n += n;
    client_step(cl);
    return n;
}

static void client_eof(struct conn *c)
{
    conn_finish(c, 1000);
}

static void client_secured(struct conn *c, err_t err)
{
    struct client *cl = conn_ctx(c);
    assert_int_equal(err, 0);
    cl->secured = true;
    client_step(cl);
}

static void client_closed(struct conn *c, err_t err)
{
    struct client *cl = conn_ctx(c);
    cl->c = NULL;
    cl->over = true;
    free(c);
    cl->w->clients_over++;
    end_if_over(cl->w);
}

static const struct conn_ops client_ops = {
    .data = client_data, .eof = client_eof, .secured = client_secured, .closed = client_closed};

static struct client *client_start(struct world *w, const char *from, const struct line *lines)
{
    struct client *cl = &w->clients[w->client_count++];
    int pair[2];
    struct endpoint peer = {.port = 40000}, local = {.port = 25};
    must(w->client_count <= CLIENTS_MAX);
    *cl = (struct client){.w = w, .c = malloc(conn_size()), .lines = lines};
    assert_non_null(cl->c);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(ip_parse(str_cstr(from), &peer.ip), 0);
    conn_open(cl->c, w->loop, pair[0], &client_ops, cl);
    smtpd_service_accept(w->service, pair[1], &peer, &local, &w->door);
    return cl;
}

/* --- the world --- */

static void accepted(void *ctx, struct qmsg *m)
{
    struct world *w = ctx;
    w->accepted++;
    w->last = m;
    w->last_bytes = m->body_bytes;
}

static void no_live(void *ctx, struct qmsg *m)
{
    fail_msg("a new ring has no messages");
}

static uint64_t used_bytes; /* of memory, as the service is told */

static uint64_t memory_used(void)
{
    return used_bytes;
}

static struct world *world_new_tls(const char *more_config, struct tls_context *tls,
                                   struct tls_context *client_tls)
{
    struct world *w = calloc(1, sizeof *w);
    struct gbuf notes = {0};
    const struct loop_options lo = {.entries = 64, .buffer_count = 64, .buffer_bytes = 4096, .cpu = -1};
    assert_non_null(w);
    w->policy = policy_of(more_config);
    w->strangers = strangers_new(100);
    assert_non_null(w->strangers);
    w->tls = tls;
    w->client_tls = client_tls;
    snprintf(w->directory, sizeof w->directory, "/tmp/test_service.XXXXXX");
    assert_non_null(mkdtemp(w->directory));
    assert_int_equal(loop_create(&w->loop, &lo), 0);
    const struct queue_options qo = {.directory = str_cstr(w->directory),
                                     .ring_bytes = 16 << 20,
                                     .high_water_percent = 90,
                                     .hot_bytes = 4 << 20,
                                     .progress_flush_ms = 200};
    assert_int_equal(queue_open(&w->queue, &qo, no_live, NULL, &notes), 0);
    gbuf_free(&notes);
    queue_start(w->queue, w->loop);
    const struct smtpd_service_options so = {.loop = w->loop,
                                             .queue = w->queue,
                                             .policy = w->policy,
                                             .tls = tls,
                                             .memory_used = memory_used,
                                             .strangers = w->strangers,
                                             .worker_count = 1,
                                             .accepted = accepted,
                                             .empty = service_empty,
                                             .ctx = w};
    assert_int_equal(smtpd_service_create(&w->service, &so), 0);
    w->guard.fire = guard_fired;
    timer_arm(w->loop, &w->guard, GUARD_MS);
    return w;
}

static struct world *world_new(const char *more_config)
{
    return world_new_tls(more_config, NULL, NULL);
}

static void world_free(struct world *w)
{
    char path[128];
    assert_true(w->emptied);
    loop_destroy(w->loop);
    policy_free(w->policy);
    policy_free(w->other_policy);
    strangers_free(w->strangers);
    snprintf(path, sizeof path, "%s/ring-00", w->directory);
    unlink(path);
    rmdir(w->directory);
    free(w);
}

#define STRANGER "198.51.100.7"
#define EDGE     "192.0.2.10"
#define TRUSTED  "10.1.2.3"

#define ENVELOPE                                                                                             \
    "MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<eve@example.com>\r\nDATA\r\n"

static void assert_heard(const struct client *cl, const char *text)
{
    if (!strstr(cl->out, text))
        fail_msg("no \"%s\" in \"%s\"", text, cl->out);
}

/* --- messages --- */

static void look_at_queued(struct world *w)
{
    struct arena a;
    struct qload ld = {0};
    struct envelope e;
    struct envelope_rcpt r;
    arena_init(&a, 65536);
    assert_int_equal(w->accepted, 2);
    assert_int_equal(w->last->rcpt_count, 2);
    assert_int_equal(w->last->body_bytes, sizeof "Subject: two\r\n\r\n..\r\n" - 1);
    assert_int_equal(queue_load(w->queue, w->last, &a, &ld), 0); /* hot */
    assert_int_equal(envelope_decode(ld.meta, &e), 0);
    assert_true(str_eq(e.sender, STR("a@b.example")));
    assert_true(str_eq(e.helo, STR("c.example")));
    assert_int_equal(e.client_class, CLASS_STRANGER);
    assert_int_equal(envelope_rcpt_decode(ld.rcpts[1], &r), 0);
    assert_true(str_eq(r.address, STR("eve@example.com")));
    assert_true(str_starts(
        ld.trace, STR("Received: from c.example ([198.51.100.7])\r\n\tby mx.example.com with ESMTP id ")));
    queue_load_end(&ld);
    arena_free(&a);
}

static void test_two_pipelined_messages(void **state)
{
    static const struct line lines[] = {
        {"220 mx.example.com ESMTP Postern\r\n", "EHLO c.example\r\n"},
        {"250 ENHANCEDSTATUSCODES\r\n", ENVELOPE},
        {"354 ", "Subject: one\r\n\r\n.\r\n" ENVELOPE},
        {"354 ", "Subject: two\r\n\r\n..\r\n.\r\nQUIT\r\n"},
        {"221 ", "FIN:"},
        {0},
    };
    struct world *w = world_new("");
    struct client *cl = client_start(w, STRANGER, lines);
    w->then = look_at_queued;
    loop_run(w->loop);
    assert_heard(cl, "250 2.0.0 OK: queued as ");
    assert_heard(cl, "\r\n221 2.0.0 Bye\r\n");
    world_free(w);
}

static void test_large_message(void **state)
{
    static char big[1 << 20];
    static struct line lines[] = {{"220 ", "EHLO c\r\n"},
                                  {"250 ENHANCEDSTATUSCODES\r\n", ENVELOPE},
                                  {"354 ", big},
                                  {"250 2.0.0", "QUIT\r\n"},
                                  {0}};
    size_t n = 0;
    while (n < 900000)
        n += (size_t)snprintf(big + n, sizeof big - n, "%s%zu\r\n", n % 3 ? "" : "..", n);
    snprintf(big + n, sizeof big - n, ".\r\n");
    struct world *w = world_new("");
    client_start(w, TRUSTED, lines);
    loop_run(w->loop);
    assert_int_equal(w->accepted, 1);
    assert_int_equal(w->last_bytes, n);
    world_free(w);
}

/* A message has only so much room for recipients in the queue, whatever the limit says. */
static void test_more_recipients_than_the_queue_takes(void **state)
{
    static char rcpts[1200000];
    static struct line lines[] = {{"220 ", "EHLO c\r\n"},
                                  {"250 ENHANCEDSTATUSCODES\r\n", rcpts},
                                  {"354 ", "Subject: x\r\n\r\n.\r\n"},
                                  {"250 2.0.0 OK: queued", "QUIT\r\n"},
                                  {0}};
    struct sbuf b = SBUF_ON(rcpts);
    sbuf_cstr(&b, "MAIL FROM:<>\r\n");
    for (unsigned i = 0; i < 2200; i++)
        sbuf_printf(&b, "RCPT TO:<%0250u@%060u.%060u.%060u.example.org>\r\n", i, 0, 0, 0);
    sbuf_cstr(&b, "DATA\r\n");
    sbuf_char(&b, '\0');
    struct world *w = world_new("limits: { recipients: 100000 }\n");
    struct client *cl = client_start(w, TRUSTED, lines);
    loop_run(w->loop);
    assert_heard(cl, "250 2.1.5");
    assert_heard(cl, "452 4.5.3");
    assert_int_equal(w->accepted, 1);
    world_free(w);
}

/* The client is gone when the commit is done: the message is in the queue and has to be relayed. */
static void test_client_leaves_during_the_commit(void **state)
{
    static const struct line lines[] = {
        {"220 ", "EHLO c\r\n"}, {"250 ENHANCEDSTATUSCODES\r\n", ENVELOPE}, {"354 ", "GONE:x\r\n.\r\n"}, {0}};
    struct world *w = world_new("");
    client_start(w, STRANGER, lines);
    loop_run(w->loop);
    assert_int_equal(w->accepted, 1);
    world_free(w);
}

static void test_half_closed_client_hears_the_reply(void **state)
{
    static const struct line lines[] = {{"220 ", "EHLO c\r\n" ENVELOPE}, {"354 ", "FIN:x\r\n.\r\n"}, {0}};
    struct world *w = world_new("");
    struct client *cl = client_start(w, STRANGER, lines);
    loop_run(w->loop);
    assert_int_equal(w->accepted, 1);
    assert_heard(cl, "250 2.0.0 OK: queued");
    world_free(w);
}

static void test_client_leaves_during_content(void **state)
{
    static const struct line lines[] = {{"220 ", "EHLO c\r\n" ENVELOPE}, {"354 ", "GONE:half a line"}, {0}};
    struct world *w = world_new("");
    client_start(w, STRANGER, lines);
    loop_run(w->loop);
    assert_int_equal(w->accepted, 0);
    world_free(w);
}

/* --- an end from outside --- */

static void drain_now(struct world *w, bool now)
{
    smtpd_service_drain(w->service, now);
    w->is_over = true; /* service_empty ends the world */
}

struct drainer {
    struct world *w;
    struct timer timer;
    bool now;
};

/* When each client has said its lines and heard of the last, or was turned away. */
static void drain_fired(struct timer *t)
{
    struct drainer *d = container_of(t, struct drainer, timer);
    for (unsigned i = 0; i < d->w->client_count; i++) {
        const struct client *cl = &d->w->clients[i];
        if (!cl->over && (cl->lines || !strstr(cl->out + cl->seen, "250 "))) {
            timer_arm(d->w->loop, t, 8);
            return;
        }
    }
    drain_now(d->w, d->now);
}

/* --- limits and time --- */

static void run_and_drain(struct world *w)
{
    struct drainer d = {.w = w, .timer.fire = drain_fired, .now = true};
    timer_arm(w->loop, &d.timer, 0);
    loop_run(w->loop);
}

static const struct line stay[] = {{"220 ", "NOOP\r\n"}, {0}};

static void test_sessions_per_client(void **state)
{
    struct world *w = world_new("limits: { sessions_per_client: 2 }\n");
    struct client *first = client_start(w, "2001:db8::1", stay),
                  *second = client_start(w, "2001:db8::1", stay),
                  *third = client_start(w, "2001:db8::2", NULL), *other = client_start(w, STRANGER, stay);
    for (unsigned i = 0; i < 3; i++)
        client_start(w, EDGE, stay);
    run_and_drain(w);
    assert_string_equal(third->out, "421 4.7.0 Too many sessions from your address\r\n");
    assert_heard(first, "250 2.0.0 OK");
    assert_heard(second, "250 2.0.0 OK");
    assert_heard(other, "250 2.0.0 OK");
    for (unsigned i = 4; i < 7; i++)
        assert_heard(&w->clients[i], "250 2.0.0 OK");
    world_free(w);
}

static void test_sessions_in_all(void **state)
{
    struct world *w = world_new("limits: { sessions: 2 }\n");
    client_start(w, STRANGER, stay);
    client_start(w, TRUSTED, stay);
    struct client *third = client_start(w, STRANGER, NULL);
    run_and_drain(w);
    assert_string_equal(third->out, "421 4.3.2 Too busy, try again later\r\n");
    world_free(w);
}

/* What a flood takes is noticed while it lasts: no timer looks here. */
static void test_memory_is_looked_at_in_a_flood(void **state)
{
    static char many[16384];
    static struct line lines[] = {{"220 ", many}, {0}};
    struct world *w = world_new("limits: { memory: 1000000000, junk_commands: 1000 }\n");
    size_t n = (size_t)snprintf(many, sizeof many, "EHLO c\r\n");
    for (unsigned i = 0; i < 300; i++)
        n += (size_t)snprintf(many + n, sizeof many - n, "MAIL FROM:<a@b.example>\r\nRSET\r\n");
    snprintf(many + n, sizeof many - n, "QUIT\r\n");
    used_bytes = 1000000000;
    struct client *cl = client_start(w, STRANGER, lines);
    loop_run(w->loop);
    used_bytes = 0;
    assert_heard(cl, "452 4.3.1");
    world_free(w);
}

static void test_time_limits(void **state)
{
    static const char *const limits[] = {"timeouts: { command: 20ms }\n", "timeouts: { session: 20ms }\n"};
    for (size_t i = 0; i < COUNT_OF(limits); i++) {
        struct world *w = world_new(limits[i]);
        struct client *cl = client_start(w, STRANGER, NULL);
        loop_run(w->loop);
        assert_heard(cl, "ESMTP Postern\r\n421 4.4.2");
        world_free(w);
    }
}

/* EHLO's reply is 25 times as long as EHLO, and this client sends them in one go. */
static void test_replies_do_not_pile_up(void **state)
{
    static char many[4096];
    static struct line lines[] = {{"220 ", many}, {"221 ", "FIN:"}, {0}};
    many[0] = '\0';
    size_t n = 0;
    for (unsigned i = 0; i < 300; i++)
        n += (size_t)snprintf(many + n, sizeof many - n, "EHLO c\r\n");
    snprintf(many + n, sizeof many - n, "QUIT\r\n");
    struct world *w = world_new("limits: { junk_commands: 1000 }\n");
    struct client *cl = client_start(w, STRANGER, lines);
    loop_run(w->loop);
    assert_heard(cl, "221 2.0.0 Bye");
    world_free(w);
}

/* --- drain and reload --- */

static void test_drain(void **state)
{
    static const struct line idle[] = {{"220 ", "EHLO c\r\n"}, {0}};
    static const struct line in_transaction[] = {
        {"220 ", "EHLO c\r\n"}, {"250 ENHANCEDSTATUSCODES", "MAIL FROM:<>\r\n"}, {0}};
    struct world *w = world_new("");
    struct client *a = client_start(w, STRANGER, idle), *b = client_start(w, TRUSTED, in_transaction);
    run_and_drain(w);
    assert_heard(a, "421 4.3.2 Service shutting down");
    assert_heard(b, "421 4.3.2 Service shutting down");
    world_free(w);
}

static void test_drain_without_sessions_says_empty_from_the_loop(void **state)
{
    struct world *w = world_new("");
    drain_now(w, false);
    assert_false(w->emptied);
    struct client *late = client_start(w, EDGE, NULL);
    loop_run(w->loop);
    assert_string_equal(late->out, "421 4.3.2 Service shutting down, try again later\r\n");
    world_free(w);
}

struct reloader {
    struct world *w;
    struct timer timer;
};

static void reload_fired(struct timer *t)
{
    struct reloader *r = container_of(t, struct reloader, timer);
    struct world *w = r->w;
    if (!strstr(w->clients[0].out, "554 5.7.1")) {
        timer_arm(w->loop, t, 8);
        return;
    }
    smtpd_service_set_policy(w->service, w->other_policy, NULL);
    assert_int_equal(smtpd_service_policy_users(w->service, w->policy), 1); /* in its transaction */
    assert_int_equal(smtpd_service_policy_users(w->service, w->other_policy), 1);
    static const char more[] =
        "RCPT TO:<x@example.org>\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<x@example.org>\r\nQUIT\r\n";
    conn_write(w->clients[0].c, more, sizeof more - 1);
}

static void old_policy_is_free(struct world *w)
{
    assert_int_equal(smtpd_service_policy_users(w->service, w->policy), 0);
}

static void test_reload_between_transactions(void **state)
{
    static const struct line lines[] = {
        {"220 ", "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<x@example.org>\r\n"}, {"221 ", "FIN:"}, {0}};
    struct world *w = world_new("");
    w->other_policy = policy_of("  - { name: example.org, local: true, route: { hosts: [10.0.0.6] } }\n");
    struct client *cl = client_start(w, STRANGER, lines);
    struct reloader r = {.w = w, .timer.fire = reload_fired};
    timer_arm(w->loop, &r.timer, 0);
    w->then = old_policy_is_free;
    loop_run(w->loop);
    assert_heard(cl, "554 5.7.1");
    assert_heard(cl, "250 2.1.5");
    world_free(w);
}

/* --- TLS --- */

static void write_identity(const char *cert_path, const char *key_path)
{
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY *key = EVP_PKEY_new();
    X509 *x = X509_new();
    assert_true(ec && EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(key, ec));
    assert_true(X509_set_version(x, 2) && ASN1_INTEGER_set(X509_get_serialNumber(x), 1));
    assert_true(X509_gmtime_adj(X509_get_notBefore(x), -3600) &&
                X509_gmtime_adj(X509_get_notAfter(x), 86400));
    assert_true(X509_set_pubkey(x, key) && X509_sign(x, key, EVP_sha256()) > 0);
    FILE *f = fopen(cert_path, "w");
    assert_true(f && PEM_write_X509(f, x) && fclose(f) == 0);
    f = fopen(key_path, "w");
    assert_true(f && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) && fclose(f) == 0);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void make_contexts(struct tls_context **server, struct tls_context **client)
{
    char dir[] = "/tmp/test_service_tls.XXXXXX", cert[64], key[64], text[512];
    struct sbuf error = SBUF_ON(text);
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof cert, "%s/cert.pem", dir);
    snprintf(key, sizeof key, "%s/key.pem", dir);
    write_identity(cert, key);
    assert_int_equal(tls_context_server(server, &error), 0);
    assert_int_equal(tls_context_add_identity(*server, str_cstr(cert), str_cstr(key), &error), 0);
    assert_int_equal(tls_context_client(client, NULL, &error), 0);
    unlink(cert);
    unlink(key);
    rmdir(dir);
}

static void look_at_trace(struct world *w)
{
    struct arena a;
    struct qload ld = {0};
    arena_init(&a, 65536);
    assert_int_equal(w->accepted, 1);
    assert_int_equal(queue_load(w->queue, w->last, &a, &ld), 0);
    char text[1024];
    snprintf(text, sizeof text, STR_FMT, STR_ARG(ld.trace));
    assert_non_null(strstr(text, " with ESMTPS id "));
    assert_non_null(strstr(text, " (version=TLSv1.3 cipher="));
    queue_load_end(&ld);
    arena_free(&a);
}

static void test_starttls(void **state)
{
    static const struct line lines[] = {
        {"220 ", "EHLO c\r\n"},
        {"250-STARTTLS\r\n", "STARTTLS\r\nMAIL FROM:<injected@b.example>\r\n"},
        {"220 2.0.0", "TLS"},
        {"", "RCPT TO:<bob@example.com>\r\nEHLO c\r\n"}, /* written once the handshake is done */
        {"250 ENHANCEDSTATUSCODES\r\n", ENVELOPE},
        {"354 ", "x\r\n.\r\nQUIT\r\n"},
        {"221 ", "FIN:"},
        {0},
    };
    struct tls_context *server, *client;
    make_contexts(&server, &client);
    struct world *w = world_new_tls("", server, client);
    struct client *cl = client_start(w, STRANGER, lines);
    w->then = look_at_trace;
    loop_run(w->loop);
    assert_true(cl->secured);
    assert_heard(cl, "503 5.5.1 Say EHLO first\r\n250-");
    assert_null(strstr(cl->out, "2.1.0 Sender OK\r\n503")); /* what was injected was not obeyed */
    assert_heard(cl, "250 2.0.0 OK: queued");
    world_free(w);
    tls_context_unref(server);
    tls_context_unref(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_pipelined_messages),
        cmocka_unit_test(test_large_message),
        cmocka_unit_test(test_more_recipients_than_the_queue_takes),
        cmocka_unit_test(test_client_leaves_during_the_commit),
        cmocka_unit_test(test_half_closed_client_hears_the_reply),
        cmocka_unit_test(test_client_leaves_during_content),
        cmocka_unit_test(test_sessions_per_client),
        cmocka_unit_test(test_sessions_in_all),
        cmocka_unit_test(test_memory_is_looked_at_in_a_flood),
        cmocka_unit_test(test_time_limits),
        cmocka_unit_test(test_replies_do_not_pile_up),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_without_sessions_says_empty_from_the_loop),
        cmocka_unit_test(test_reload_between_transactions),
        cmocka_unit_test(test_starttls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
