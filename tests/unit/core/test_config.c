/* The loader: what values become, defaults, bounds of the file itself. What is said of bad files stands in
 * tests/golden/config. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include "core/config.h"

#include <cmocka.h>

static struct config *load(const char *yaml)
{
    struct diag d = {.file = "t.yaml"};
    struct config *c = NULL;
    err_t err = config_load_text(str_cstr(yaml), "t.yaml", &c, &d);
    if (err)
        print_error(STR_FMT, STR_ARG(gbuf_view(&d.text)));
    assert_int_equal(err, 0);
    assert_int_equal(d.text.n, 0);
    diag_free(&d);
    return c;
}

/* Loads what must be refused; *d keeps what was said. */
static void refuse(str_t yaml, struct diag *d)
{
    struct config *c;
    *d = (struct diag){.file = "t.yaml"};
    assert_int_equal(config_load_text(yaml, "t.yaml", &c, d), ERR_CONFIG);
    assert_null(c);
    assert_true(d->error_count > 0);
}

static bool says(const struct diag *d, const char *text)
{
    return d->text.n && memmem(d->text.p, d->text.n, text, strlen(text)) != NULL;
}

#define assert_text(s, literal)                                                                              \
    do {                                                                                                     \
        if (!str_eq((s), STR(literal)))                                                                      \
            fail_msg("\"" STR_FMT "\" is not \"%s\"", STR_ARG(s), literal);                                  \
    } while (0)

static void test_defaults(void **state)
{
    struct config *c = load("hostname: GW.example.com\n");

    assert_text(c->hostname, "gw.example.com");
    assert_text(c->postmaster, "postmaster@gw.example.com");
    assert_false(c->has_postmaster);
    assert_int_equal(c->workers, 0);
    assert_int_equal(c->listener_count, 1);
    assert_int_equal(c->listeners[0].at.port, 25);
    assert_true(ip_is_any(&c->listeners[0].at.ip) && ip_is_v4(&c->listeners[0].at.ip));
    assert_text(c->spool_directory, "/var/spool/postern");
    assert_int_equal(c->ring_size_bytes, 256 << 20);
    assert_int_equal(c->commit_delay_us, 0);
    assert_int_equal(c->high_water_percent, 90);
    assert_int_equal(c->destination_mode, DEST_DNS);
    assert_int_equal(c->limits.message_size, 20971520);
    assert_int_equal(c->limits.recipients, 1000);
    assert_int_equal(c->limits.line_length, 2048);
    assert_int_equal(c->limits.header_size, 102400);
    assert_int_equal(c->limits.hops, 50);
    assert_int_equal(c->limits.errors, 20);
    assert_int_equal(c->limits.junk_commands, 100);
    assert_int_equal(c->limits.sessions, 20000);
    assert_int_equal(c->limits.sessions_per_client, 50);
    assert_int_equal(c->timeouts.command, 300000);
    assert_int_equal(c->timeouts.data_done, 600000);
    assert_int_equal(c->timeouts.session, 0);
    assert_int_equal(c->timeouts.idle, 5000);
    for (int i = 0; i < 3; i++)
        assert_int_equal(c->line_endings[i], ENDINGS_STRICT);
    assert_int_equal(c->retry.first_s, 300);
    assert_int_equal(c->retry.max_s, 4000);
    assert_int_equal(c->retry.lifetime_s, 5 * 86400);
    assert_false(c->dns.has_resolver);
    assert_int_equal(c->dns.timeout_ms, 10000);
    assert_true(c->dns.use_hosts_file);
    assert_false(c->admin.has_listen);
    assert_text(c->admin.socket, "/run/postern/admin.sock");
    assert_int_equal(c->log.level, LOG_INFO);
    assert_int_equal(c->log.format, LOG_LOGFMT);
    assert_null(c->log.file.p);
    assert_int_equal(c->tls.certificate_count, 0);
    assert_int_equal(c->tls.level[0], CLIENT_TLS_MAY);
    config_free(c);
}

static void test_routes(void **state)
{
    struct config *c = load("hostname: gw.example.com\n"
                            "domains:\n"
                            "  - name: EXAMPLE.com\n"
                            "    local: true\n"
                            "    route:\n"
                            "      hosts: [10.0.0.5, '10.0.0.6:26', 2001:db8::5, '[2001:db8::6]', "
                            "'[2001:db8::7]:27', MX.example.com,\n"
                            "              'mx2.example.com:28']\n"
                            "      port: 2525\n"
                            "      mx: true\n"
                            "      tls: verify\n"
                            "      connections: 7\n"
                            "  - { name: '*.Example.org' }\n"
                            "  - { name: John.Doe@EXAMPLE.com, local: false, route: { hosts: [a.example], "
                            "port: 24, protocol: lmtp } }\n");
    static const struct {
        const char *name;
        uint16_t port;
        enum host_kind kind;
    } hosts[] = {{"10.0.0.5", 2525, HOST_IP},       {"10.0.0.6", 26, HOST_IP},
                 {"2001:db8::5", 2525, HOST_IP},    {"2001:db8::6", 2525, HOST_IP},
                 {"2001:db8::7", 27, HOST_IP},      {"mx.example.com", 2525, HOST_NAME},
                 {"mx2.example.com", 28, HOST_NAME}};
    const struct cfg_domain *d = c->domains;

    assert_int_equal(c->domain_count, 3);
    assert_text(d[0].name, "example.com");
    assert_true(d[0].local && d[0].has_local && d[0].has_route && d[0].route.mx);
    assert_int_equal(d[0].route.tls, TLS_VERIFY);
    assert_int_equal(d[0].route.connections_max, 7);
    assert_int_equal(d[0].mark.line, 3);
    assert_int_equal(d[0].mark.column, 11);
    assert_int_equal(d[0].route.host_count, COUNT_OF(hosts));
    for (size_t i = 0; i < COUNT_OF(hosts); i++) {
        assert_true(str_eq(d[0].route.hosts[i].name, str_cstr(hosts[i].name)));
        assert_int_equal(d[0].route.hosts[i].port, hosts[i].port);
        assert_int_equal(d[0].route.hosts[i].kind, hosts[i].kind);
    }
    assert_text(d[1].name, "*.example.org");
    assert_true(d[1].is_wildcard && !d[1].local && !d[1].has_local && !d[1].has_route);
    assert_text(d[2].name, "John.Doe@example.com");
    assert_true(d[2].is_address && d[2].has_local && !d[2].local);
    assert_int_equal(d[2].route.protocol, ROUTE_LMTP);
    assert_int_equal(d[2].route.tls, TLS_MAY);
    config_free(c);
}

static void test_destination_and_networks(void **state)
{
    struct config *c =
        load("hostname: gw.example.com\n"
             "destination: { port: 26, mode: edge, mx: true, host: EDGE.example.net, rate: 5/h }\n"
             "edge_networks: []\n"
             "trusted_networks: [10.0.0.0/8, 192.0.2.1, '2001:db8::/32', Mail_1.example.com]\n");

    assert_int_equal(c->destination_mode, DEST_EDGE);
    assert_int_equal(c->destination.host_count, 1);
    assert_text(c->destination.hosts[0].name, "edge.example.net");
    assert_int_equal(c->destination.hosts[0].port, 26);
    assert_int_equal(c->destination.rate.count, 5);
    assert_int_equal(c->destination.rate.period_s, 3600);
    assert_int_equal(c->destination.messages_max, 10000);
    assert_true(c->destination.mx);
    assert_true(c->has_edge_networks);
    assert_int_equal(c->edge_network_count, 0);
    assert_int_equal(c->trusted_network_count, 4);
    assert_int_equal(c->trusted_networks[0].cidr.bits, 104);
    assert_int_equal(c->trusted_networks[1].cidr.bits, 128);
    assert_int_equal(c->trusted_networks[2].cidr.bits, 32);
    assert_true(c->trusted_networks[3].is_name);
    assert_text(c->trusted_networks[3].name, "mail_1.example.com");
    config_free(c);
}

static void test_units(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"0", 0},           {"1000", 1000},         {"3KiB", 3072},
                 {"3KB", 3000},      {"2MiB", 2097152},      {"2MB", 2000000},
                 {"1GiB", 1u << 30}, {"1GB", 1000000000ull}, {"\"64MiB\"", 64u << 20}};
    static const struct {
        const char *text;
        uint32_t ms;
    } times[] = {{"7", 7000},     {"500ms", 500},   {"90s", 90000}, {"5m", 300000},
                 {"2h", 7200000}, {"1d", 86400000}, {"3000us", 3}};
    char yaml[256];

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        snprintf(yaml, sizeof yaml, "hostname: a.b\nlimits: { message_size: %s }\n", sizes[i].text);
        struct config *c = load(yaml);
        assert_int_equal(c->limits.message_size, sizes[i].bytes);
        config_free(c);
    }
    for (size_t i = 0; i < COUNT_OF(times); i++) {
        snprintf(yaml, sizeof yaml, "hostname: a.b\ntimeouts: { data_total: %s }\n", times[i].text);
        struct config *c = load(yaml);
        assert_int_equal(c->timeouts.data_total, times[i].ms);
        config_free(c);
    }
}

static void test_hostile_files(void **state)
{
    struct gbuf big = {0};
    struct diag d;

    gbuf_cstr(&big, "hostname: gw.example.com\n#");
    while (big.n <= (1 << 20))
        gbuf_cstr(&big, "................................................................");
    refuse(gbuf_view(&big), &d);
    assert_true(says(&d, "t.yaml: error: the file is larger than 1 MiB"));
    diag_free(&d);

    /* a megabyte of the shortest items: bounded memory, bounded talk */
    big.n = 0;
    gbuf_cstr(&big, "hostname: gw.example.com\ndomains: [");
    while (big.n < (1 << 20) - 4)
        gbuf_cstr(&big, "a,");
    gbuf_cstr(&big, "]\n");
    refuse(gbuf_view(&big), &d);
    assert_true(says(&d, "domains: has "));
    diag_free(&d);
    big.n = 0;
    for (unsigned i = 0; big.n < (1 << 20) - 32; i++)
        gbuf_printf(&big, "k%u: 1\n", i);
    refuse(gbuf_view(&big), &d);
    assert_true(d.text.n < (1 << 20));
    diag_free(&d);
    gbuf_free(&big);

    refuse(STR("hostname: gw.example.com\nlog: \xff\n"), &d);
    assert_true(says(&d, "t.yaml:2:1: error: this line is not UTF-8"));
    diag_free(&d);
    refuse(STR("hostname: \0gw.example.com\n"), &d);
    assert_true(says(&d, "t.yaml:1:1: error: this line is not UTF-8"));
    diag_free(&d);
    refuse(STR("hostname: \"gw\\0.example.com\"\n"), &d);
    assert_true(says(&d, "t.yaml:1:12: error: hostname: "));
    diag_free(&d);
}

static void test_files(void **state)
{
    char directory[] = "/tmp/postern-config-XXXXXX", path[64];
    struct diag d = {0};
    struct config *c;

    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/gw.yaml", directory);
    assert_int_equal(config_load_file(path, &c, &d), ERR_CONFIG);
    assert_true(says(&d, "gw.yaml: error: cannot be read: "));
    diag_free(&d);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "hostname: gw.example.com\n", 25), 25);
    close(fd);
    d = (struct diag){0};
    assert_int_equal(config_load_file(path, &c, &d), 0);
    assert_true(str_eq(c->file, str_cstr(path)));
    config_free(c);
    diag_free(&d);
    d = (struct diag){0};
    assert_int_equal(config_load_file(directory, &c, &d), ERR_CONFIG); /* a folder */
    diag_free(&d);
    unlink(path);
    rmdir(directory);
}

static void test_restart_keys(void **state)
{
    struct config *a = load("hostname: a.b\n");
    struct config *b =
        load("hostname: c.d\nworkers: 2\nlisteners: [ { address: '0.0.0.0:25' } ]\nlimits: { hops: 9 }\n");
    struct config *c = load("hostname: a.b\nlisteners: [ { address: '0.0.0.0:26' } ]\nspool: { ring_size: "
                            "1GiB, directory: /a, high_water: 50, "
                            "commit_delay: 1ms }\n"
                            "admin: { listen: '127.0.0.1:1' }\nlog: { file: /b, level: debug }\n");
    struct gbuf keys = {0};

    assert_int_equal(config_restart_keys(a, a, &keys), 0);
    assert_int_equal(keys.n, 0);
    assert_int_equal(config_restart_keys(a, b, &keys), 1);
    assert_text(gbuf_view(&keys), "workers");
    keys.n = 0;
    assert_int_equal(config_restart_keys(a, c, &keys), 6);
    assert_text(gbuf_view(&keys), "listeners, spool.directory, spool.commit_delay, "
                                  "spool.high_water, admin.listen, log.file");
    gbuf_free(&keys);
    config_free(a);
    config_free(b);
    config_free(c);
}

/* The reference names every key of a file that sets them all. */
static void test_docs(void **state)
{
    static const char *const parts[] = {
        "# Configuration\n",
        "## `spool`",
        "| `ring_size` | size in bytes | `256MiB` | 16MiB to 16TiB | reload |",
        "## `domains[].route`",
        "| `mx` | `false`, `true` | `false` | ",
        "| `name` | ",
        " required ",
        "| `command` | duration | `5m` | 1ms to 1d | "};
    struct gbuf docs = {0};

    config_write_docs(&docs);
    assert_false(docs.overflow);
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        if (!memmem(docs.p, docs.n, parts[i], strlen(parts[i])))
            fail_msg("the reference lacks: %s", parts[i]);
    gbuf_free(&docs);
}

static void test_diag(void **state)
{
    struct diag d = {.file = "f"};

    diag_error(&d, (struct mark){3, 4}, "a\nb\x1b[m%s", "\xc2\x9b");
    diag_warning(&d, (struct mark){0}, "w");
    assert_text(gbuf_view(&d.text), "f:3:4: error: a?b?[m??\nf: warning: w\n");
    for (int i = 0; i < 2000; i++)
        diag_error(&d, (struct mark){1, 1}, "x");
    assert_int_equal(d.error_count, 2001);
    assert_true(str_ends(gbuf_view(&d.text), STR("(further problems are not shown)\n")));
    diag_free(&d);
    assert_int_equal(d.error_count, 0);
}

static void test_verify(void **state)
{
    struct config *c = load("hostname: gw.example.com\n"
                            "domains:\n"
                            "  - { name: a.example, local: true, verify: { fail: open, tags: '+' } }\n"
                            "  - { name: b.example, local: true }\n"
                            "  - { name: x@a.example, verify: { mode: off, sender: me@b.example } }\n"
                            "verify: { mode: unverified, fail: stale, sender: empty, good_fresh: 2h, "
                            "good_refresh: 1h, route: { hosts: [10.0.0.1], connections: 3 } }\n");
    const struct cfg_domain *d = c->domains;

    assert_int_equal(c->verify.mode, VERIFY_UNVERIFIED);
    assert_int_equal(c->verify.sender.kind, SENDER_NULL);
    assert_int_equal(c->verify.unknown_fresh_s, 600);
    assert_true(c->verify.enforce && c->verify.has_route);
    /* A domain starts from the top of the file, wherever that stands in it. */
    assert_true(d[0].has_verify && !d[1].has_verify);
    assert_int_equal(d[0].verify.mode, VERIFY_UNVERIFIED);
    assert_int_equal(d[0].verify.fail, FAIL_OPEN);
    assert_int_equal(d[0].verify.separator, '+');
    assert_int_equal(d[0].verify.good_fresh_s, 7200);
    assert_int_equal(d[0].verify.route.hosts[0].port, 25);
    assert_int_equal(d[2].verify.mode, VERIFY_OFF);
    assert_int_equal(d[2].verify.sender.kind, SENDER_ADDRESS);
    assert_text(d[2].verify.sender.address, "me@b.example");
    config_free(c);

    c = load("hostname: gw.example.com\n");
    assert_int_equal(c->verify.mode, VERIFY_OFF);
    assert_int_equal(c->verify.good_keep_s, 31 * 86400);
    assert_int_equal(c->verify.separator, 0);
    assert_false(c->verify.has_route);
    assert_int_equal(c->timeouts.verify_edge, 30000);
    assert_int_equal(c->verdicts.entries, 1000000);
    config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_verify),
        cmocka_unit_test(test_routes),        cmocka_unit_test(test_destination_and_networks),
        cmocka_unit_test(test_units),         cmocka_unit_test(test_files),
        cmocka_unit_test(test_hostile_files), cmocka_unit_test(test_restart_keys),
        cmocka_unit_test(test_docs),          cmocka_unit_test(test_diag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
