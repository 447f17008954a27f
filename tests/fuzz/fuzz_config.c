/* Bytes as a configuration file: loaded, compiled, and asked about a few clients and recipients. */
#include "policy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libfyaml 0.7.12 loses a buffer after some syntax errors (a long run of single quotes): at most once per
 * refused file. */
const char *__lsan_default_suppressions(void)
{
    return "leak:libfyaml.so";
}

/* Half of all names resolve, to addresses near those that configurations name. */
static size_t resolve(void *ctx, str_t name, struct ip *out, size_t max)
{
    (void)ctx;
    if (!max || name.n % 2)
        return 0;
    must(ip_parse(name.n % 4 ? STR("127.0.0.1") : STR("192.0.2.10"), out) == 0);
    return 1;
}

static void ask(const struct policy *p)
{
    static const char *const recipients[] = {
        "a@example.com",       "postmaster@gw.example.com",    "a@deep.sub.example.com", "a@[127.0.0.1]",
        "\"q q\"@EXAMPLE.com", "a@m\xc3\xbcnchen.example.com", "ceo@example.com"};
    static const char *const clients[] = {"10.0.0.1", "192.0.2.10", "::1", "2001:db8::1"};
    struct address a;
    struct route route;
    struct ip ip;
    str_t rewritten;

    for (size_t i = 0; i < COUNT_OF(clients); i++) {
        must(ip_parse(str_cstr(clients[i]), &ip) == 0);
        must(policy_classify(p, &ip) <= CLASS_TRUSTED);
    }
    for (size_t i = 0; i < COUNT_OF(recipients); i++) {
        if (address_parse_mailbox(str_cstr(recipients[i]), &a))
            continue;
        enum reply_id reply = policy_check_rcpt(p, CLASS_STRANGER, &a, &rewritten);
        must(reply == R_rcpt_ok || reply == R_relay_denied);
        must(policy_check_rcpt(p, CLASS_TRUSTED, &a, &rewritten) == R_rcpt_ok);
        if (policy_route(p, &a, &route) == 0)
            must(route.key.n > 0 && (route.kind == ROUTE_DNS || route.hosts->host_count > 0));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct policy_resolver resolver = {.resolve = resolve};
    struct diag d = {0};
    struct config *c;
    struct policy *p;

    err_t err = config_load_text(str_of((const char *)data, size), "fuzz.yaml", &c, &d);
    if (!err)
        err = policy_build(&p, c, &resolver, &d);
    must((err == 0) == (d.error_count == 0));
    if (!err) {
        ask(p);
        policy_free(p);
    }
    diag_free(&d);
    return 0;
}
