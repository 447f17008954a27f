/* Against a real unbound on loopback that knows only what stands below; and the pure part on hand-made
 * results. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/dns_priv.h"

#define UNBOUND "/usr/sbin/unbound"

static char directory[64], config_path[96];
static pid_t unbound_pid;
static int unbound_log = -1;
static struct endpoint unbound_at;

/* --- the server --- */

static int udp_bind(struct endpoint *at)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof sa;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
    assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&sa, at), 0);
    return fd;
}

static void write_config(uint16_t port)
{
    static const char *const rows[] = {
        "both.test. A 192.0.2.1",
        "both.test. A 192.0.2.2",
        "both.test. A 192.0.2.3",
        "both.test. AAAA 2001:db8::1",
        "both.test. AAAA 2001:db8::2",
        "four.test. A 192.0.2.4",
        "six.test. AAAA 2001:db8::6",
        "alias.test. CNAME four.test.",
        "text.test. TXT nothing-else",
        "zero.test. A 0.0.0.0",
        "mx.test. MX 20 Backup.mx.test.",
        "mx.test. MX 10 first.mx.test.",
        "mx.test. MX 10 second.mx.test.",
        "null.test. MX 0 .",
        "halfnull.test. MX 0 .",
        "halfnull.test. MX 10 mx.test.",
        "odd.test. MX 10 bad\\032host.test.",
    };
    FILE *f = fopen(config_path, "w");
    assert_non_null(f);
    fprintf(
        f,
        "server:\n  interface: 127.0.0.1\n  port: %u\n  do-ip6: no\n  num-threads: 1\n  so-reuseport: no\n"
        "  directory: \"%s\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  do-daemonize: no\n"
        "  use-syslog: no\n  logfile: \"\"\n  verbosity: 1\n  module-config: \"iterator\"\n"
        "  local-zone: \"test.\" static\n  local-zone: \"refused.test.\" refuse\n",
        port, directory);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        fprintf(f, "  local-data: '%s'\n", rows[i]);
    for (int i = 0; i < 20; i++) /* more than a query holds; the worst first */
        fprintf(f, "  local-data: 'many.test. MX %d h%d.test.'\n", 100 - i, 100 - i);
    for (int i = 1; i <= 20; i++)
        fprintf(
            f, "  local-data: 'crowd.test. A 198.51.100.%d'\n  local-data: 'crowd.test. AAAA 2001:db8::%d'\n",
            i, i);
    fprintf(f, "remote-control:\n  control-enable: no\n");
    fclose(f);
}

/* It says when it serves; the pipe ends when it could not. */
static bool serves(int fd)
{
    char text[8192];
    size_t n = 0;
    while (n < sizeof text - 1) {
        ssize_t got = read(fd, text + n, sizeof text - 1 - n);
        if (got <= 0)
            return false;
        n += (size_t)got;
        text[n] = '\0';
        if (strstr(text, "start of service"))
            return true;
    }
    return false;
}

static bool unbound_start(void)
{
    int ends[2];
    close(udp_bind(&unbound_at));
    write_config(unbound_at.port);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    unbound_pid = fork();
    assert_true(unbound_pid >= 0);
    if (unbound_pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        execl(UNBOUND, "unbound", "-d", "-c", config_path, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    unbound_log = ends[0];
    if (serves(unbound_log))
        return true;
    kill(unbound_pid, SIGKILL);
    waitpid(unbound_pid, NULL, 0);
    close(unbound_log);
    unbound_pid = 0;
    return false;
}

static int setup(void **state)
{
    snprintf(directory, sizeof directory, "/tmp/postern-dns-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    snprintf(config_path, sizeof config_path, "%s/unbound.conf", directory);
    if (access(UNBOUND, X_OK) != 0)
        return 0;
    for (int i = 0; i < 10; i++) { /* somebody may take the port between us and it */
        if (unbound_start())
            return 0;
    }
    return -1;
}

static int teardown(void **state)
{
    if (unbound_pid) {
        kill(unbound_pid, SIGTERM);
        waitpid(unbound_pid, NULL, 0);
        close(unbound_log);
    }
    unlink(config_path);
    return rmdir(directory);
}

static struct dns *start(const struct endpoint *resolver, uint32_t timeout_ms)
{
    struct config c = {.dns = {.has_resolver = true, .resolver = *resolver, .timeout_ms = timeout_ms}};
    char text[256] = "";
    struct sbuf error = {text, 0, sizeof text - 1, false};
    struct dns *d;
    if (dns_start(&d, &c, &error))
        fail_msg("%s", text);
    return d;
}

static struct dns *start_with_server(void)
{
    if (!unbound_pid)
        skip();
    return start(&unbound_at, 20000);
}

static void query_set(struct dns_query *q, enum dns_kind kind, const char *name)
{
    *q = (struct dns_query){.kind = kind};
    memcpy(q->name, name, strlen(name) + 1);
}

static struct dns_query asked(struct dns *d, enum dns_kind kind, const char *name)
{
    struct dns_query q;
    query_set(&q, kind, name);
    dns_ask_blocking(d, &q);
    return q;
}

static void assert_address(const struct dns_query *q, uint32_t at, const char *expected)
{
    char text[64] = "";
    struct sbuf b = {text, 0, sizeof text - 1, false};
    assert_true(at < q->count);
    ip_format(&q->addresses[at], &b);
    assert_string_equal(text, expected);
}

/* --- tests with the server --- */

static void test_results(void **state)
{
    static const struct {
        enum dns_kind kind;
        const char *name;
        err_t err;
        uint32_t count;
    } cases[] = {
        {DNS_ADDRESS, "both.test", 0, 5},
        {DNS_ADDRESS, "BOTH.Test", 0, 5},
        {DNS_ADDRESS, "four.test", 0, 1},
        {DNS_ADDRESS, "six.test", 0, 1},
        {DNS_ADDRESS, "alias.test", 0, 1},
        {DNS_ADDRESS, "crowd.test", 0, DNS_ADDRESSES_MAX},
        {DNS_ADDRESS, "text.test", ERR_DNS_NODATA, 0},
        {DNS_ADDRESS, "zero.test", ERR_DNS_NODATA, 0},
        {DNS_ADDRESS, "absent.test", ERR_DNS_NXDOMAIN, 0},
        {DNS_ADDRESS, "refused.test", ERR_DNS_TEMP, 0},
        {DNS_ADDRESS, "", ERR_DNS_NXDOMAIN, 0},
        {DNS_ADDRESS, "two..dots.test", ERR_DNS_NXDOMAIN, 0},
        {DNS_ADDRESS, "dot.test.", ERR_DNS_NXDOMAIN, 0},
        {DNS_ADDRESS, "bl ank.test", ERR_DNS_NXDOMAIN, 0},
        {DNS_MX, "mx.test", 0, 3},
        {DNS_MX, "many.test", 0, DNS_MX_MAX},
        {DNS_MX, "null.test", ERR_NULL_MX, 0},
        {DNS_MX, "halfnull.test", 0, 1},
        {DNS_MX, "odd.test", ERR_DNS_TEMP, 0},
        {DNS_MX, "four.test", ERR_DNS_NODATA, 0},
        {DNS_MX, "absent.test", ERR_DNS_NXDOMAIN, 0},
        {DNS_MX, "refused.test", ERR_DNS_TEMP, 0},
    };
    struct dns *d = start_with_server();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct dns_query q = asked(d, cases[i].kind, cases[i].name);
        if (q.err != cases[i].err || q.count != cases[i].count || q.secure)
            fail_msg("%s: %s, %u answers, secure %d", cases[i].name, err_text(q.err), q.count, q.secure);
        if (!q.err)
            assert_true(q.ttl_s > 0);
    }
    dns_stop(d);
}

static void test_families_alternate(void **state)
{
    struct dns *d = start_with_server();
    struct dns_query q = asked(d, DNS_ADDRESS, "both.test");
    assert_int_equal(q.count, 5);
    for (uint32_t i = 0; i < q.count; i++)
        assert_int_equal(ip_is_v4(&q.addresses[i]), i == 1 || i >= 3);
    q = asked(d, DNS_ADDRESS, "four.test");
    assert_address(&q, 0, "192.0.2.4");
    q = asked(d, DNS_ADDRESS, "six.test");
    assert_address(&q, 0, "2001:db8::6");
    q = asked(d, DNS_ADDRESS, "alias.test");
    assert_address(&q, 0, "192.0.2.4");
    dns_stop(d);
}

static void test_mx_order(void **state)
{
    struct dns *d = start_with_server();
    bool first = false, second = false;
    for (int i = 0; i < 200 && !(first && second); i++) { /* both orders of the equal ones come up */
        struct dns_query q = asked(d, DNS_MX, "mx.test");
        assert_int_equal(q.count, 3);
        assert_int_equal(q.mx[0].preference, 10);
        assert_int_equal(q.mx[1].preference, 10);
        assert_int_equal(q.mx[2].preference, 20);
        assert_string_equal(q.mx[2].host, "backup.mx.test");
        assert_string_not_equal(q.mx[0].host, q.mx[1].host);
        if (!strcmp(q.mx[0].host, "first.mx.test"))
            first = true;
        else
            second = true;
    }
    assert_true(first && second);
    struct dns_query q = asked(d, DNS_MX, "many.test");
    for (uint32_t i = 0; i < DNS_MX_MAX; i++)
        assert_int_equal(q.mx[i].preference, 81 + i);
    assert_string_equal(q.mx[0].host, "h81.test");
    dns_stop(d);
}

/* --- with a loop --- */

struct asker {
    struct mail begin;
    struct dns *dns;
    struct loop *loop;
    struct dns_query queries[40];
    uint32_t answered_count;
    bool inside_ask;
};

static struct asker *the_asker;

static void on_answered(struct dns_query *q)
{
    struct asker *a = the_asker;
    assert_false(a->inside_ask);
    assert_ptr_equal(loop_current(), a->loop);
    if (++a->answered_count == COUNT_OF(a->queries))
        loop_stop(a->loop);
}

static void on_begin(struct mail *m)
{
    static const char *const names[] = {"both.test", "absent.test", "bad..name", "four.test"};
    struct asker *a = container_of(m, struct asker, begin);
    a->inside_ask = true;
    for (size_t i = 0; i < COUNT_OF(a->queries); i++) {
        query_set(&a->queries[i], DNS_ADDRESS, names[i % COUNT_OF(names)]);
        a->queries[i].answered = on_answered;
        dns_ask(a->dns, a->loop, &a->queries[i]);
    }
    a->inside_ask = false;
}

static struct asker *asker_create(struct dns *d)
{
    const struct loop_options opt = {
        .entries = 64, .buffer_count = 16, .buffer_bytes = 4096, .cpu = -1, .name = "test"};
    struct asker *a = calloc(1, sizeof *a);
    a->dns = d;
    a->begin.deliver = on_begin;
    assert_int_equal(loop_create(&a->loop, &opt), 0);
    the_asker = a;
    return a;
}

static void asker_destroy(struct asker *a)
{
    loop_destroy(a->loop);
    free(a);
}

static void test_answers_come_to_the_loop(void **state)
{
    struct dns *d = start_with_server();
    struct asker *a = asker_create(d);
    loop_post(a->loop, &a->begin);
    loop_run(a->loop);
    assert_int_equal(a->answered_count, COUNT_OF(a->queries));
    for (size_t i = 0; i < COUNT_OF(a->queries); i += 4) {
        assert_int_equal(a->queries[i].count, 5);
        assert_int_equal(a->queries[i + 1].err, ERR_DNS_NXDOMAIN);
        assert_int_equal(a->queries[i + 2].err, ERR_DNS_NXDOMAIN);
        assert_int_equal(a->queries[i + 3].count, 1);
    }
    dns_stop(d);
    asker_destroy(a);
}

static void on_begin_and_stop(struct mail *m)
{
    struct asker *a = container_of(m, struct asker, begin);
    on_begin(m);
    dns_stop(a->dns); /* the answers wait in the loop's mailbox */
    a->dns = NULL;
}

static void test_stop_answers_the_rest(void **state)
{
    struct endpoint silent;
    int fd = udp_bind(&silent);
    struct asker *a = asker_create(start(&silent, 3600 * 1000));
    a->begin.deliver = on_begin_and_stop;
    loop_post(a->loop, &a->begin);
    loop_run(a->loop);
    assert_int_equal(a->answered_count, COUNT_OF(a->queries));
    for (size_t i = 0; i < COUNT_OF(a->queries); i++)
        assert_int_equal(a->queries[i].err, i % 4 == 2 ? ERR_DNS_NXDOMAIN : ERR_DNS_TEMP);
    asker_destroy(a);
    close(fd);
}

static void on_begin_and_cancel(struct mail *m)
{
    struct asker *a = container_of(m, struct asker, begin);
    on_begin(m);
    dns_cancel(a->dns);
}

/* Shutting down: those who wait get their answer, and so does who asks later; the resolver is still there. */
static void test_cancel_answers_at_once(void **state)
{
    struct endpoint silent;
    int fd = udp_bind(&silent);
    struct asker *a = asker_create(start(&silent, 3600 * 1000));
    a->begin.deliver = on_begin_and_cancel;
    loop_post(a->loop, &a->begin);
    loop_run(a->loop);
    assert_int_equal(a->answered_count, COUNT_OF(a->queries));
    assert_int_equal(asked(a->dns, DNS_MX, "mx.test").err, ERR_DNS_TEMP);
    dns_stop(a->dns);
    asker_destroy(a);
    close(fd);
}

static void test_time_out(void **state)
{
    struct endpoint silent;
    int fd = udp_bind(&silent);
    struct dns *d = start(&silent, 50);
    assert_int_equal(asked(d, DNS_MX, "mx.test").err, ERR_DNS_TEMP);
    assert_int_equal(asked(d, DNS_ADDRESS, "both.test").err, ERR_DNS_TEMP);
    dns_stop(d);
    close(fd);
}

static void test_no_resolver_configured(void **state)
{
    struct config c = {.dns = {.timeout_ms = 50, .use_hosts_file = true}};
    char text[256];
    struct sbuf error = SBUF_ON(text);
    struct dns *d;
    assert_int_equal(dns_start(&d, &c, &error),
                     0); /* nothing is asked of it: there is no outside world here */
    dns_stop(d);
    dns_stop(NULL);
}

/* --- the pure part --- */

static void test_names(void **state)
{
    char longest[260], too_long[260], label[80];
    memset(longest, 'a', sizeof longest);
    for (size_t i = 49; i < 253; i += 50)
        longest[i] = '.';
    memcpy(too_long, longest, sizeof longest);
    longest[253] = too_long[254] = '\0';
    memset(label, 'a', sizeof label);
    label[64] = '\0';
    const struct {
        const char *name;
        bool good;
    } cases[] = {
        {"a", true},
        {"example.com", true},
        {"_dmarc.example.com", true},
        {"xn--bcher-kva.example", true},
        {longest, true},
        {label + 1, true},
        {label, false},
        {too_long, false},
        {"", false},
        {".", false},
        {".a", false},
        {"a.", false},
        {"a..b", false},
        {"a\\.b", false},
        {"a b", false},
        {"b\xc3\xbc", false},
        {"a/b", false},
        {"a\nb", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        if (dns_name_valid(cases[i].name) != cases[i].good)
            fail_msg("%s", cases[i].name);
    }
}

static void test_judge(void **state)
{
    const struct {
        int ub_err;
        struct ub_result r;
        err_t err;
    } cases[] = {
        {0, {.havedata = 1}, 0},
        {0, {.havedata = 1, .secure = 1}, 0},
        {0, {.rcode = 0}, ERR_DNS_NODATA},
        {0, {.rcode = 3, .nxdomain = 1}, ERR_DNS_NXDOMAIN},
        {0, {.rcode = 2}, ERR_DNS_TEMP},
        {0, {.rcode = 5}, ERR_DNS_TEMP},
        {0, {.rcode = 2, .bogus = 1}, ERR_DNS_BOGUS},
        {0, {.havedata = 1, .bogus = 1}, ERR_DNS_BOGUS},
        {UB_SERVFAIL, {.havedata = 1}, ERR_DNS_TEMP},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(dns_judge(cases[i].ub_err, &cases[i].r), cases[i].err);
    assert_int_equal(dns_judge(0, NULL), ERR_DNS_TEMP);
}

static void test_merge(void **state)
{
    static const struct {
        err_t v6, v4, merged;
        bool secure6, secure4, secure;
    } cases[] = {
        {0, 0, 0, true, true, true},
        {0, 0, 0, true, false, false},
        {ERR_DNS_TEMP, 0, 0, false, true, true},
        {0, ERR_DNS_BOGUS, 0, false, false, false},
        {ERR_DNS_NODATA, 0, 0, true, false, false},
        {ERR_DNS_NXDOMAIN, ERR_DNS_NXDOMAIN, ERR_DNS_NXDOMAIN, true, true, false},
        {ERR_DNS_NODATA, ERR_DNS_NODATA, ERR_DNS_NODATA, false, false, false},
        {ERR_DNS_NXDOMAIN, ERR_DNS_NODATA, ERR_DNS_NODATA, false, false, false},
        {ERR_DNS_NODATA, ERR_DNS_TEMP, ERR_DNS_TEMP, false, false, false},
        {ERR_DNS_TEMP, ERR_DNS_NXDOMAIN, ERR_DNS_TEMP, false, false, false},
        {ERR_DNS_TEMP, ERR_DNS_BOGUS, ERR_DNS_BOGUS, false, false, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct dns_part v6 = {.err = cases[i].v6, .secure = cases[i].secure6, .ttl_s = 60, .count = 1};
        struct dns_part v4 = {.err = cases[i].v4, .secure = cases[i].secure4, .ttl_s = 30, .count = 1};
        struct dns_query q = {.count = 7, .secure = true};
        dns_merge_addresses(&q, &v6, &v4);
        assert_int_equal(q.err, cases[i].merged);
        assert_int_equal(q.secure, cases[i].secure);
        assert_int_equal(q.count, cases[i].merged ? 0 : !cases[i].v6 + !cases[i].v4);
        assert_int_equal(q.ttl_s, cases[i].merged ? 0 : cases[i].v4 ? 60 : 30);
    }
}

/* One record, as a hostile server may send it. */
static void test_hostile_mx(void **state)
{
    static const struct {
        const char *rdata;
        int n;
        err_t err;
    } cases[] = {
        {"\0\x0a\3mx1\4test\0", 12, 0},        {"\0\0\0", 3, ERR_NULL_MX},
        {"\0\x0a", 2, ERR_DNS_TEMP},           {"", 0, ERR_DNS_TEMP},
        {"\0\x0a\3mx", 5, ERR_DNS_TEMP},     /* the label is cut */
        {"\0\x0a\3mx1", 6, ERR_DNS_TEMP},    /* no root */
        {"\0\x0a\3mx1\0x", 8, ERR_DNS_TEMP}, /* something behind the name */
        {"\0\x0a\xc0\x0c", 4, ERR_DNS_TEMP}, /* compressed */
        {"\0\x0a\3m\n1\0", 7, ERR_DNS_TEMP},   {"\0\x0a\3m.1\0", 7, ERR_DNS_TEMP},
        {"\0\x0a\3m\0001\0", 7, ERR_DNS_TEMP},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char bytes[32];
        memcpy(bytes, cases[i].rdata, (size_t)cases[i].n);
        char *data[] = {bytes, NULL};
        int len[] = {cases[i].n};
        struct ub_result r = {.data = data, .len = len, .havedata = 1, .ttl = 5};
        struct dns_query q = {0};
        dns_take_mx(&q, &r);
        if (q.err != cases[i].err)
            fail_msg("case %zu: %s", i, err_text(q.err));
    }
}

/* The longest name that fits the wire, and more of it than fits. */
static void test_long_mx(void **state)
{
    uint8_t rdata[400];
    size_t n = 2;
    rdata[0] = rdata[1] = 0;
    for (int i = 0; i < 6; i++) {
        rdata[n++] = 63;
        memset(rdata + n, 'a', 63);
        n += 63;
    }
    rdata[n++] = 0;
    char *data[] = {(char *)rdata, NULL};
    int len[] = {(int)n};
    struct ub_result r = {.data = data, .len = len, .havedata = 1};
    struct dns_query q = {0};
    dns_take_mx(&q, &r);
    assert_int_equal(q.err, ERR_DNS_TEMP);
    rdata[2 + 3 * 64] = 61; /* 3 * 64 + 61 = 253 */
    rdata[2 + 3 * 64 + 62] = 0;
    len[0] = 2 + 3 * 64 + 63;
    q = (struct dns_query){0};
    dns_take_mx(&q, &r);
    assert_int_equal(q.err, 0);
    assert_int_equal(strlen(q.mx[0].host), 253);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_judge),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_hostile_mx),
        cmocka_unit_test(test_long_mx),
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_families_alternate),
        cmocka_unit_test(test_mx_order),
        cmocka_unit_test(test_answers_come_to_the_loop),
        cmocka_unit_test(test_stop_answers_the_rest),
        cmocka_unit_test(test_cancel_answers_at_once),
        cmocka_unit_test(test_time_out),
        cmocka_unit_test(test_no_resolver_configured),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
