/* The API with a backend of the test's own, over both doors, spoken by hand. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "admin/admin.h"

static char directory[64], socket_path[96];

/* --- the backend --- */

static struct {
    bool silent; /* the workers do not answer */
    enum queue_verb verb;
    size_t limit, id_count;
    bool dry;
    char who[128], why[256];
    unsigned reload_count;
    err_t reload_err;
    const char *reload_text;
    char pause[600];
    err_t pause_err;
    struct verify_request verify; /* the last one */
    err_t verify_err;
} backend_state;

static json_t *backend_status(void *ctx)
{
    assert_ptr_equal(ctx, &backend_state);
    return backend_state.silent ? NULL : json_pack("{s:s, s:i}", "version", "1.2.3", "pid", 77);
}

static json_t *backend_queue(void *ctx, struct queue_request *rq)
{
    backend_state.verb = rq->verb;
    backend_state.limit = rq->limit;
    backend_state.dry = rq->dry;
    backend_state.id_count = rq->filter.id_count;
    snprintf(backend_state.who, sizeof backend_state.who, "%s", rq->who);
    snprintf(backend_state.why, sizeof backend_state.why, "%s", rq->why);
    queue_request_free(rq);
    return backend_state.silent ? NULL
                                : json_pack("{s:[{s:s}], s:i, s:i}", "messages", "id", "0000000000001",
                                            "matched", 3, "done", 2);
}

static json_t *backend_message(void *ctx, uint64_t id, enum message_part part, struct gbuf *bytes)
{
    if (backend_state.silent)
        return NULL;
    if (part != MESSAGE_ENVELOPE)
        gbuf_cstr(bytes, "Subject: x\r\n");
    return id == 1 ? json_pack("{s:s}", "id", "0000000000001") : json_object();
}

static void backend_lease_end(void *ctx, uint64_t lease)
{
}

static json_t *backend_destinations(void *ctx)
{
    return backend_state.silent ? NULL : json_array();
}

static json_t *backend_edges(void *ctx)
{
    return backend_state.silent ? NULL : json_pack("{s:s}", "format", "learned");
}

static err_t backend_edges_forget(void *ctx, const struct ip *ip)
{
    return !ip || ip_is_v4(ip) ? 0 : ERR_NOT_FOUND;
}

static err_t backend_reload(void *ctx, bool shrunk_lists_ok, struct gbuf *text)
{
    backend_state.reload_count++;
    if (backend_state.reload_text)
        gbuf_cstr(text, backend_state.reload_text);
    return backend_state.reload_err;
}

static json_t *backend_resize(void *ctx, uint64_t bytes, struct gbuf *problems)
{
    if (bytes == 77)
        gbuf_cstr(problems, "ring-00: no\n");
    return backend_state.silent ? NULL : json_pack("{s:I}", "bytes", (json_int_t)bytes);
}

static json_t *backend_scrub(void *ctx)
{
    return backend_state.silent ? NULL : json_object();
}

static err_t backend_pause(void *ctx, bool paused, str_t key, str_t by, json_t **out)
{
    struct sbuf b = SBUF_ON(backend_state.pause);
    sbuf_printf(&b, "%s " STR_FMT, paused ? "pause" : "resume", STR_ARG(key.p ? key : STR("all")));
    sbuf_char(&b, '\0');
    char text[128];
    snprintf(text, sizeof text, STR_FMT, STR_ARG(by));
    assert_non_null(strstr(text, "uid:"));
    *out = backend_state.pause_err ? NULL : json_pack("{s:s}", "result", "ok");
    return backend_state.pause_err;
}

static err_t backend_verify(void *ctx, const struct verify_request *rq, json_t **out, struct gbuf *lines,
                            struct sbuf *why)
{
    backend_state.verify = *rq;
    if (backend_state.verify_err) {
        sbuf_cstr(why, "so it is");
        return backend_state.verify_err;
    }
    if (rq->verb == VERIFY_EXPORT)
        gbuf_cstr(lines, "{\"address\":\"bob@example.com\"}\n");
    else
        *out = json_pack("{s:s}", "address", rq->address);
    return 0;
}

static const struct admin_backend backend = {.status = backend_status,
                                             .queue = backend_queue,
                                             .message = backend_message,
                                             .lease_end = backend_lease_end,
                                             .destinations = backend_destinations,
                                             .edges = backend_edges,
                                             .edges_forget = backend_edges_forget,
                                             .resize = backend_resize,
                                             .scrub = backend_scrub,
                                             .reload = backend_reload,
                                             .pause = backend_pause,
                                             .verify = backend_verify,
                                             .ctx = &backend_state};

/* --- starting and asking --- */

static err_t start(struct admin **a, str_t path, const char *listen, char error_text[512])
{
    struct config c = {.admin = {.socket = path}};
    struct sbuf error = {error_text, 0, 511, false};
    memset(error_text, 0, 512);
    if (listen) {
        c.admin.has_listen = true;
        assert_int_equal(endpoint_parse(str_cstr(listen), &c.admin.listen), 0);
    }
    return admin_start(a, &c, &backend, &error);
}

static int group_setup(void **state)
{
    snprintf(directory, sizeof directory, "/tmp/postern-admin-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    snprintf(socket_path, sizeof socket_path, "%s/admin.sock", directory);
    return 0;
}

static int group_teardown(void **state)
{
    unlink(socket_path);
    return rmdir(directory);
}

static int setup(void **state)
{
    char text[512];
    struct admin *a;
    memset(&backend_state, 0, sizeof backend_state);
    if (start(&a, str_cstr(socket_path), "127.0.0.1:0", text)) {
        print_error("%s\n", text);
        return -1;
    }
    *state = a;
    return 0;
}

static int teardown(void **state)
{
    admin_stop(*state);
    return access(socket_path, F_OK) == 0 ? -1 : 0; /* the file goes with the server */
}

static int dial_unix(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    memcpy(sa.sun_path, socket_path, strlen(socket_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static int dial_tcp(const struct admin *a)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(admin_port(a)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

struct reply {
    int status;
    char text[65536]; /* headers and body */
    const char *body;
};

static struct reply reply_state;

/* Sends `request` as it is and reads to the end. The server may close before it has read all of a request
 * that is too large; then there is no reply to count on. */
static const struct reply *ask_raw(int fd, const char *request, size_t bytes)
{
    struct reply *r = &reply_state;
    size_t n = 0;
    memset(r, 0, sizeof *r);
    while (bytes > 0) {
        ssize_t sent = send(fd, request, bytes, MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        request += sent;
        bytes -= (size_t)sent;
    }
    ssize_t got;
    while (n < sizeof r->text - 1 && (got = recv(fd, r->text + n, sizeof r->text - 1 - n, 0)) > 0)
        n += (size_t)got;
    close(fd);
    sscanf(r->text, "HTTP/1.1 %d", &r->status);
    const char *end = strstr(r->text, "\r\n\r\n");
    r->body = end ? end + 4 : "";
    return r;
}

static const struct reply *ask(int fd, const char *method, const char *path)
{
    char request[512];
    int n =
        snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n",
                 method, path, strcmp(method, "POST") ? "" : "Content-Length: 0\r\n");
    return ask_raw(fd, request, (size_t)n);
}

static void assert_error_in_json(const struct reply *r)
{
    json_error_t error;
    json_t *json = json_loads(r->body, 0, &error);
    assert_non_null(json);
    assert_true(json_is_string(json_object_get(json, "error")));
    json_decref(json);
}

/* --- tests --- */

static void test_routes(void **state)
{
    static const struct {
        bool tcp;
        const char *method, *path;
        int status;
        const char *text; /* in headers or body */
    } cases[] = {
        {false, "GET", "/api/v1/status", 200, "\"version\":\"1.2.3\""},
        {false, "GET", "/api/v1/status", 200, "Content-Type: application/json"},
        {false, "GET", "/api/v1/queue", 200, "0000000000001"},
        {false, "GET", "/api/v1/queue?limit=5", 200, "0000000000001"},
        {false, "GET", "/api/v1/queue?limit=5&sender=a*&older=3h&state=held,deferred", 200, "0000000000001"},
        {false, "GET", "/api/v1/queue?older=soon", 400, "45s"},
        {false, "GET", "/api/v1/queue?state=asleep", 400, "deferred"},
        {false, "GET", "/api/v1/queue?colour=red", 400, "colour"},
        {false, "GET", "/api/v1/queue?id=12345", 400, "13 letters"},
        {false, "GET", "/api/v1/queue/stats", 200, "{"},
        {false, "GET", "/api/v1/queue/message?id=0000000000001", 200, "0000000000001"},
        {false, "GET", "/api/v1/queue/message?id=0000000000002", 404, "error"},
        {false, "GET", "/api/v1/queue/message", 400, "id"},
        {false, "GET", "/api/v1/queue/headers?id=0000000000001", 200, "Subject: x"},
        {false, "POST", "/api/v1/queue/hold?id=0000000000001", 200, "matched"},
        {false, "POST", "/api/v1/queue/hold", 400, "all=1"},
        {false, "POST", "/api/v1/queue/remove?all=1&dry=1", 200, "matched"},
        {false, "GET", "/api/v1/queue/remove?all=1", 405, "Allow: POST"},
        {true, "GET", "/api/v1/queue/message?id=0000000000001", 200, "0000000000001"},
        {true, "GET", "/api/v1/queue/headers?id=0000000000001", 403, "Unix socket"},
        {true, "POST", "/api/v1/queue/remove?all=1", 403, "Unix socket"},
        {false, "GET", "/api/v1/destinations", 200, "[]"},
        {true, "GET", "/api/v1/edges", 200, "learned"},
        {false, "POST", "/api/v1/edges/forget?address=192.0.2.10", 200, "ok"},
        {false, "POST", "/api/v1/edges/forget?all=1", 200, "ok"},
        {false, "POST", "/api/v1/edges/forget?address=2001:db8::/64", 404, "no message"},
        {false, "POST", "/api/v1/edges/forget", 400, "all=1"},
        {false, "POST", "/api/v1/edges/forget?address=somewhere", 400, "which edge"},
        {false, "POST", "/api/v1/edges/forget?address=192.0.2.10&all=1", 400, "which edge"},
        {true, "POST", "/api/v1/edges/forget?all=1", 403, "Unix socket"},
        {false, "GET", "/metrics", 200, "text/plain; version=0.0.4"},
        {false, "GET", "/metrics", 200, "# TYPE postern_sessions_total counter"},
        {false, "POST", "/api/v1/reload", 200, "\"result\":\"ok\""},
        {false, "GET", "/api/v1/reload", 405, "Allow: POST"},
        {false, "POST", "/api/v1/status", 405, "Allow: GET, HEAD"},
        {false, "DELETE", "/api/v1/queue", 405, "Allow: GET, HEAD"},
        {false, "GET", "/", 404, "error"},
        {false, "GET", "/api/v1/status/", 404, "error"},
        {false, "GET", "/api/v1/../../etc/passwd", 404, "error"},
        {false, "GET", "/api/v1/queue?limit=0", 400, "limit"},
        {false, "GET", "/api/v1/queue?limit=10001", 400, "limit"},
        {false, "GET", "/api/v1/queue?limit=-1", 400, "limit"},
        {false, "GET", "/api/v1/queue?limit=99999999999999999999", 400, "limit"},
        {true, "GET", "/metrics", 200, "postern_"},
        {true, "GET", "/api/v1/status", 200, "1.2.3"},
        {true, "GET", "/api/v1/reload", 405, "Allow: POST"},
        {true, "POST", "/api/v1/reload", 403, "Unix socket"},
        {true, "POST", "/nothing", 403, "Unix socket"},
        {true, "PUT", "/api/v1/reload", 405, "error"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int fd = cases[i].tcp ? dial_tcp(*state) : dial_unix();
        const struct reply *r = ask(fd, cases[i].method, cases[i].path);
        if (r->status != cases[i].status || !strstr(r->text, cases[i].text))
            fail_msg("%s %s: %s", cases[i].method, cases[i].path, r->text);
        if (r->status >= 400)
            assert_error_in_json(r);
    }
    assert_int_equal(backend_state.reload_count, 1); /* only the one that was allowed */
}

static void test_head_has_no_body(void **state)
{
    const struct reply *r = ask(dial_unix(), "HEAD", "/api/v1/status");
    assert_int_equal(r->status, 200);
    assert_string_equal(r->body, "");
}

static void test_limit_reaches_the_backend(void **state)
{
    ask(dial_unix(), "GET", "/api/v1/queue?limit=7");
    assert_int_equal(backend_state.limit, 7);
    ask(dial_unix(), "GET", "/api/v1/queue");
    assert_int_equal(backend_state.limit, 100);
}

static void test_changes_reach_the_backend(void **state)
{
    const char *ids = "0000000000001\n0000000000002\r\n0000000000001\n";
    char request[512];
    int n = snprintf(request, sizeof request,
                     "POST /api/v1/queue/remove?dry=1&why=too%%20old HTTP/1.1\r\nHost: localhost\r\n"
                     "Connection: close\r\nContent-Length: %zu\r\n\r\n%s",
                     strlen(ids), ids);
    assert_int_equal(ask_raw(dial_unix(), request, (size_t)n)->status, 200);
    assert_int_equal(backend_state.verb, QUEUE_REMOVE);
    assert_int_equal(backend_state.id_count, 2);
    assert_true(backend_state.dry);
    assert_string_equal(backend_state.why, "too old");
    char pid[32];
    snprintf(pid, sizeof pid, "pid:%d", (int)getpid());
    assert_non_null(strstr(backend_state.who, pid));
    assert_non_null(strstr(backend_state.who, "uid:"));
}

static void test_verify_parameters(void **state)
{
    static const struct {
        bool tcp;
        const char *method, *path; /* behind /api/v1/verify/ */
        int status;
        const char *text;
    } cases[] = {
        {false, "GET", "show?address=bob%40example.com", 200, "bob@example.com"},
        {true, "GET", "show?address=bob%40example.com", 200, "bob@example.com"},
        {false, "GET", "show", 400, "address"},
        {false, "GET", "show?address=", 400, "address"},
        {false, "GET", "show?address=%ff", 400, "UTF-8"},
        {false, "GET", "show?address=a&domain=b", 400, "selected"},
        {false, "GET", "show?colour=red", 400, "colour"},
        {false, "GET", "show?%ff=red", 400, "UTF-8"},
        {false, "GET", "stats", 200, "{"},
        {false, "GET", "backends", 200, "{"},
        {false, "GET", "export?verdict=good&domain=example.com&after=a&limit=10", 200,
         "application/x-ndjson"},
        {false, "GET", "export", 200, "bob@example.com"},
        {false, "GET", "export?limit=0", 400, "10000"},
        {false, "GET", "export?verdict=best", 400, "good or unknown"},
        {true, "GET", "export", 403, "Unix socket"},
        {false, "POST", "probe?address=a&store=0", 200, "{"},
        {false, "GET", "probe?address=a", 405, "Allow: POST"},
        {true, "POST", "probe?address=a", 403, "Unix socket"},
        {false, "POST", "pin?address=a", 400, "good or unknown"},
        {false, "POST", "pin?address=a&verdict=good&why=x", 200, "{"},
        {false, "POST", "unpin", 400, "address"},
        {false, "POST", "purge", 400, "all=1"},
        {false, "POST", "purge?address=a&domain=b", 400, "either"},
        {false, "POST", "purge?older=soon", 400, "45s"},
        {false, "POST", "purge?older=99999999d", 400, "45s"},
        {false, "POST", "purge?verdict=unknown&older=2d", 200, "{"},
        {false, "POST", "retry", 400, "all=1"},
        {false, "POST", "retry?all=1", 200, "{"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char path[256];
        snprintf(path, sizeof path, "/api/v1/verify/%s", cases[i].path);
        const struct reply *r = ask(cases[i].tcp ? dial_tcp(*state) : dial_unix(), cases[i].method, path);
        if (r->status != cases[i].status || !strstr(r->text, cases[i].text))
            fail_msg("%s %s: %s", cases[i].method, path, r->text);
        if (r->status >= 400)
            assert_error_in_json(r);
    }
}

static void test_verify_reaches_the_backend(void **state)
{
    const struct verify_request *rq = &backend_state.verify;
    ask(dial_unix(), "POST", "/api/v1/verify/purge?verdict=unknown&older=2d&domain=EXAMPLE.com&dry=1");
    assert_int_equal(rq->verb, VERIFY_PURGE);
    assert_true(rq->takes_unknown && !rq->takes_good && rq->dry);
    assert_int_equal(rq->older_s, 2 * 86400);
    assert_string_equal(rq->domain, "example.com");
    ask(dial_unix(), "POST", "/api/v1/verify/pin?address=b%40c&verdict=unknown");
    assert_int_equal(rq->verb, VERIFY_PIN);
    assert_false(rq->good);
    ask(dial_unix(), "POST", "/api/v1/verify/probe?address=b%40c");
    assert_false(rq->no_store);
    ask(dial_unix(), "POST", "/api/v1/verify/probe?address=b%40c&store=0");
    assert_true(rq->no_store);
}

static void test_verify_refusals(void **state)
{
    static const struct {
        err_t err;
        int status;
        const char *text;
    } cases[] = {
        {ERR_SYNTAX, 400, "so it is"},        {ERR_NOT_FOUND, 404, "so it is"},
        {ERR_UNSUPPORTED, 409, "so it is"},   {ERR_FULL, 507, "so it is"},
        {ERR_TIMEOUT, 503, "did not answer"}, {-ENOMEM, 500, "so it is"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        backend_state.verify_err = cases[i].err;
        const struct reply *r = ask(dial_unix(), "POST", "/api/v1/verify/unpin?address=a");
        assert_int_equal(r->status, cases[i].status);
        assert_non_null(strstr(r->body, cases[i].text));
        assert_error_in_json(r);
    }
}

static void test_silent_workers(void **state)
{
    static const char *const paths[] = {"/api/v1/status", "/api/v1/queue", "/api/v1/queue/stats",
                                        "/api/v1/queue/message?id=0000000000001", "/api/v1/destinations"};
    backend_state.silent = true;
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        const struct reply *r = ask(dial_unix(), "GET", paths[i]);
        assert_int_equal(r->status, 503);
        assert_error_in_json(r);
    }
}

static void test_reload(void **state)
{
    static const struct {
        err_t err;
        const char *text;
        int status;
        const char *body;
    } cases[] = {
        {0, NULL, 200, "{\"result\":\"ok\",\"warnings\":[]}"},
        {0, "a.yaml:1:2: warning: odd\n", 200,
         "{\"result\":\"ok\",\"warnings\":[\"a.yaml:1:2: warning: odd\"]}"},
        {ERR_CONFIG, "a.yaml:1:2: error: x\na.yaml:3:4: error: y\n", 422,
         "\"problems\":[\"a.yaml:1:2: error: x\",\"a.yaml:3:4: error: y\"]"},
        {ERR_CONFIG, "a.yaml:1:2: error: \xff\xfe", 422, "\"problems\":[\"a.yaml:1:2: error: ??\"]"},
        {ERR_CLOSED, NULL, 503, "shutting down"},
        {-ENOMEM, NULL, 500, "\"error\""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        backend_state.reload_err = cases[i].err;
        backend_state.reload_text = cases[i].text;
        const struct reply *r = ask(dial_unix(), "POST", "/api/v1/reload");
        assert_int_equal(r->status, cases[i].status);
        if (!strstr(r->body, cases[i].body))
            fail_msg("%s", r->body);
    }
}

static void test_pause(void **state)
{
    static char long_key[700];
    memset(long_key, 'k', sizeof long_key - 1);
    memcpy(long_key, "{\"destination\":\"", 16);
    memcpy(long_key + sizeof long_key - 3, "\"}", 3);
    static const struct {
        const char *path, *body;
        err_t err;
        int status;
        const char *asked, *said;
    } cases[] = {
        {"pause", "", 0, 200, "pause all", "ok"},
        {"resume", "", 0, 200, "resume all", "ok"},
        {"pause", "{}", 0, 200, "pause all", "ok"},
        {"pause", "{\"destination\": \"mx:example.com:25\"}", 0, 200, "pause mx:example.com:25", "ok"},
        {"resume", "{\"destination\": \"10.0.0.5:25\"}", -ENOSPC, 500, "resume 10.0.0.5:25", "durable"},
        {"pause", "", ERR_CLOSED, 503, "pause all", "shutting down"},
        {"pause", "{\"destinatoin\": \"x\"}", 0, 400, "", "destination"},
        {"pause", "{\"destination\": \"x\", \"y\": 1}", 0, 400, "", "destination"},
        {"pause", "{\"destination\": \"\"}", 0, 400, "", "destination"},
        {"pause", "{\"destination\": \"a b\"}", 0, 400, "", "destination"},
        {"pause", "{\"destination\": \"a\\nb\"}", 0, 400, "", "destination"},
        {"pause", "{\"destination\": 7}", 0, 400, "", "destination"},
        {"pause", "{\"destination\": null}", 0, 400, "", "destination"},
        {"pause", "[]", 0, 400, "", "destination"},
        {"pause", "x", 0, 400, "", "destination"},
        {"pause", long_key, 0, 400, "", "destination"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char request[1024];
        backend_state.pause[0] = '\0';
        backend_state.pause_err = cases[i].err;
        int n = snprintf(request, sizeof request,
                         "POST /api/v1/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
                         "%zu\r\n\r\n%s",
                         cases[i].path, strlen(cases[i].body), cases[i].body);
        const struct reply *r = ask_raw(dial_unix(), request, (size_t)n);
        if (r->status != cases[i].status || !strstr(r->body, cases[i].said))
            fail_msg("case %zu: %d %s", i, r->status, r->body);
        assert_string_equal(backend_state.pause, cases[i].asked);
    }
}

static void test_bodies(void **state)
{
    static char request[200000];
    int n = snprintf(
        request, sizeof request,
        "POST /api/v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", 5000);
    memset(request + n, 'x', sizeof request - (size_t)n);
    assert_int_equal(ask_raw(dial_unix(), request, (size_t)n + 5000)->status, 200);
    assert_int_equal(backend_state.reload_count, 1);

    n = snprintf(request, sizeof request,
                 "POST /api/v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n",
                 150000);
    request[n] = 'x';
    ask_raw(dial_unix(), request, (size_t)n + 150000);
    assert_int_equal(backend_state.reload_count, 1); /* too large: not done */
    assert_int_equal(ask(dial_unix(), "GET", "/api/v1/status")->status, 200);
}

static void test_garbage(void **state)
{
    static char headers[100000];
    static const char *const texts[] = {"", "EHLO x\r\nMAIL FROM:<>\r\n", "GET\r\n\r\n",
                                        "GET /metrics HTTP/9.9\r\n\r\n",
                                        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        int fd = dial_tcp(*state);
        assert_true(send(fd, texts[i], strlen(texts[i]), MSG_NOSIGNAL) >= 0);
        shutdown(fd, SHUT_WR);
        assert_true(ask_raw(fd, "", 0)->status != 200);
    }
    int n = snprintf(headers, sizeof headers, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: ");
    memset(headers + n, 'a', sizeof headers - (size_t)n);
    assert_true(ask_raw(dial_tcp(*state), headers, sizeof headers)->status != 200);
    assert_int_equal(ask(dial_tcp(*state), "GET", "/metrics")->status, 200);
}

static void test_keep_alive(void **state)
{
    static const char two[] = "GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
                              "GET /api/v1/destinations HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    const struct reply *r = ask_raw(dial_unix(), two, sizeof two - 1);
    assert_non_null(strstr(r->text, "1.2.3"));
    assert_non_null(strstr(r->text, "[]"));
}

static void test_socket_mode(void **state)
{
    struct stat st;
    assert_int_equal(lstat(socket_path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0660);
}

static void test_socket_in_use(void **state)
{
    char text[512];
    struct admin *second;
    assert_int_equal(start(&second, str_cstr(socket_path), NULL, text), -EADDRINUSE);
    assert_null(second);
    assert_non_null(strstr(text, "another process answers"));
    assert_non_null(strstr(text, socket_path));
    assert_int_equal(ask(dial_unix(), "GET", "/api/v1/status")->status, 200); /* the first is unharmed */
}

static void test_port_in_use(void **state)
{
    char text[512], at[32], other[96];
    struct admin *second;
    snprintf(at, sizeof at, "127.0.0.1:%u", admin_port(*state));
    snprintf(other, sizeof other, "%s/other.sock", directory);
    assert_int_equal(start(&second, str_cstr(other), at, text), -EADDRINUSE);
    assert_non_null(strstr(text, at));
    assert_int_equal(access(other, F_OK), -1); /* what was opened first is gone again */
}

static void test_stale_socket_is_replaced(void **state)
{
    char text[512];
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct admin *a;
    memcpy(sa.sun_path, socket_path, strlen(socket_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    close(fd); /* as a crash leaves it */
    assert_int_equal(start(&a, str_cstr(socket_path), NULL, text), 0);
    assert_int_equal(admin_port(a), 0);
    assert_int_equal(ask(dial_unix(), "GET", "/api/v1/status")->status, 200);
    admin_stop(a);
}

static void test_other_file_is_kept(void **state)
{
    char text[512];
    struct admin *a;
    int fd = open(socket_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(start(&a, str_cstr(socket_path), NULL, text), -EEXIST);
    assert_non_null(strstr(text, "not a socket"));
    assert_int_equal(access(socket_path, F_OK), 0);
    unlink(socket_path);
}

static void test_bad_paths(void **state)
{
    char text[512], path[300];
    struct admin *a;
    snprintf(path, sizeof path, "%s/absent/admin.sock", directory);
    assert_int_equal(start(&a, str_cstr(path), NULL, text), -ENOENT);
    assert_non_null(strstr(text, "directory does not exist"));
    memset(path, 'x', sizeof path);
    path[200] = '\0';
    assert_int_equal(start(&a, str_cstr(path), NULL, text), -ENAMETOOLONG);
    admin_stop(NULL);
}

#define WITH_SERVER(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SERVER(test_routes),
        WITH_SERVER(test_head_has_no_body),
        WITH_SERVER(test_limit_reaches_the_backend),
        WITH_SERVER(test_changes_reach_the_backend),
        WITH_SERVER(test_verify_parameters),
        WITH_SERVER(test_verify_reaches_the_backend),
        WITH_SERVER(test_verify_refusals),
        WITH_SERVER(test_silent_workers),
        WITH_SERVER(test_reload),
        WITH_SERVER(test_pause),
        WITH_SERVER(test_bodies),
        WITH_SERVER(test_garbage),
        WITH_SERVER(test_keep_alive),
        WITH_SERVER(test_socket_mode),
        WITH_SERVER(test_socket_in_use),
        WITH_SERVER(test_port_in_use),
        cmocka_unit_test(test_stale_socket_is_replaced),
        cmocka_unit_test(test_other_file_is_kept),
        cmocka_unit_test(test_bad_paths),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
