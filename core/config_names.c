/* core/config_names.c: readers of names and addresses: hosts, domains, mailboxes, endpoints. Names are
 * lower-cased here, once. */
#include "core/config_priv.h"

#define NAME_BYTES_MAX       253 /* RFC 1035 2.3.4, without the root */
#define LABEL_BYTES_MAX      63
#define LOCAL_PART_BYTES_MAX 255

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static const char *label_fault(str_t label, bool underscore_ok)
{
    if (!label.n)
        return "has an empty label: a dot too many";
    if (label.n > LABEL_BYTES_MAX)
        return "has a label longer than 63 characters";
    if (label.p[0] == '-' || label.p[label.n - 1] == '-')
        return "has a label that starts or ends with a hyphen";
    for (size_t i = 0; i < label.n; i++) {
        char c = label.p[i];
        if (!is_letter(c) && !is_digit(c) && c != '-' && !(c == '_' && underscore_ok))
            return "has a character that no name can have";
    }
    return NULL;
}

const char *domain_name_fault(str_t s, bool underscore_ok)
{
    str_t label, rest = s;
    bool more, all_digits = true;

    if (!s.n)
        return "is empty";
    if (!str_is_ascii(s))
        return "is not ASCII: write the xn-- form of the name";
    if (s.n > NAME_BYTES_MAX)
        return "is longer than 253 characters";
    do {
        str_t all = rest;
        more = str_cut(all, '.', &label, &rest);
        const char *fault = label_fault(label, underscore_ok);
        if (fault)
            return fault;
    } while (more);
    for (size_t i = 0; i < label.n; i++)
        all_digits = all_digits && is_digit(label.p[i]);
    return all_digits ? "ends in a number, as no name does" : NULL;
}

str_t lower_copy(struct arena *a, str_t s)
{
    str_t copy = arena_str(a, s);
    for (size_t i = 0; copy.p && i < copy.n; i++)
        if (copy.p[i] >= 'A' && copy.p[i] <= 'Z')
            ((char *)copy.p)[i] |= 0x20;
    return copy;
}

void read_fqdn(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    const char *fault = domain_name_fault(n->text, false);
    if (!fault && str_find(n->text, '.') < 0)
        fault = "is not a full host name";
    if (fault)
        value_error_because(l, k, n, "%s", fault);
    else
        *(str_t *)field = lower_copy(l->arena, n->text);
}

/* A dot-string of RFC 5321 4.1.2 (RFC 6531: also UTF-8), or a quoted string. The SMTP parser decides for
 * good; this catches slips. */
static const char *local_part_fault(str_t s)
{
    static const char *const bad = "has something before the @ that no address can have";

    if (!s.n)
        return "has nothing before the @";
    if (s.n > LOCAL_PART_BYTES_MAX)
        return "has more than 255 characters before the @";
    bool quoted = s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"';
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c == 0x7f)
            return bad;
        if (quoted)
            continue;
        if (c == '.' && (i == 0 || i + 1 == s.n || s.p[i + 1] == '.'))
            return "has a dot too many before the @";
        if (c != '.' && c < 0x80 && !is_letter((char)c) && !is_digit((char)c) &&
            !strchr("!#$%&'*+-/=?^_`{|}~", c))
            return bad;
    }
    return NULL;
}

static const char *mailbox_fault(str_t s)
{
    ptrdiff_t at = str_rfind(s, '@');
    if (at < 0)
        return "has no @";
    const char *fault = local_part_fault(str_sub(s, 0, (size_t)at));
    return fault ? fault : domain_name_fault(str_sub(s, (size_t)at + 1, s.n), false);
}

static str_t mailbox_copy(struct arena *a, str_t s)
{
    size_t at = (size_t)str_rfind(s, '@');
    str_t copy = arena_str(a, s), domain = lower_copy(a, str_sub(s, at + 1, s.n));
    if (copy.p && domain.p)
        memcpy((char *)copy.p + at + 1, domain.p, domain.n);
    return copy;
}

void read_mailbox(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    const char *fault = mailbox_fault(n->text);
    if (fault)
        value_error_because(l, k, n, "%s", fault);
    else
        *(str_t *)field = mailbox_copy(l->arena, n->text);
}

void read_entry(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct cfg_domain *domain = container_of(field, struct cfg_domain, name);
    bool is_address = str_find(n->text, '@') >= 0;
    bool is_wildcard = !is_address && str_starts(n->text, STR("*."));
    const char *fault = is_address
                            ? mailbox_fault(n->text)
                            : domain_name_fault(str_sub(n->text, is_wildcard ? 2 : 0, n->text.n), false);

    if (fault) {
        value_error_because(l, k, n, "%s", fault);
        return;
    }
    domain->mark = n->mark;
    domain->is_address = is_address;
    domain->is_wildcard = is_wildcard;
    domain->name = is_address ? mailbox_copy(l->arena, n->text) : lower_copy(l->arena, n->text);
}

/* What it says in hexadecimal is net/tls_peer.c's to read; slips are told here. */
void read_pin(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    size_t digits = 0;
    bool is_hex = true;

    if (!str_starts(n->text, STR("spki:")) && !str_starts(n->text, STR("cert:"))) {
        value_error_because(l, k, n, "does not begin with spki: or cert:");
        return;
    }
    for (size_t i = 5; i < n->text.n; i++) {
        char c = n->text.p[i];
        bool is_digit_here = is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        bool is_colon = c == ':' && digits && digits % 2 == 0 && n->text.p[i - 1] != ':' && i + 1 < n->text.n;
        digits += is_digit_here;
        is_hex = is_hex && (is_digit_here || is_colon);
    }
    if (!is_hex || digits != 64)
        value_error_because(l, k, n, "is not the 64 hexadecimal digits of a SHA-256");
    else
        *(str_t *)field = arena_str(l->arena, n->text);
}

void read_endpoint(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct endpoint at;
    struct ip ip;

    if (endpoint_parse(n->text, &at) != 0) {
        if (ip_parse(n->text, &ip) == 0)
            value_error_because(
                l, k, n, ip_is_v4(&ip) ? "has no port" : "has no port, or no brackets around its address");
        else
            value_error(l, k, n);
        return;
    }
    if (at.port < k->min) {
        value_error_because(l, k, n, "has port 0");
        return;
    }
    *(struct endpoint *)field = at;
}

/* NAME:PORT; the port is 0 where none is given. */
static const char *name_and_port_fault(str_t s, str_t *name, uint16_t *port)
{
    str_t port_text;
    uint64_t value;

    *port = 0;
    if (str_starts(s, STR("["))) /* habit from elsewhere: "no MX lookup" */
        return "has brackets, which are for IPv6 addresses only";
    if (str_cut(s, ':', name, &port_text)) {
        if (str_to_u64(port_text, &value) != 0 || value < 1 || value > UINT16_MAX)
            return "has no port from 1 to 65535 behind the colon";
        *port = (uint16_t)value;
    }
    return domain_name_fault(*name, true);
}

/* False: no address, so a name. */
static bool parse_host_address(str_t s, struct cfg_host *host, const char **fault)
{
    struct endpoint at = {.port = 1};

    if (ip_parse(s, &at.ip) != 0) {
        if (endpoint_parse(s, &at) != 0)
            return false;
        host->port = at.port;
    }
    host->kind = HOST_IP;
    host->ip = at.ip;
    if (ip_is_any(&at.ip))
        *fault = "is no address that one can connect to";
    else if (at.port == 0)
        *fault = "has port 0";
    return true;
}

static bool parse_host(struct loader *l, const struct schema_key *k, const struct node *n,
                       struct cfg_host *host)
{
    char text[64];
    struct sbuf address = SBUF_ON(text);
    const char *fault = NULL;
    str_t name;

    *host = (struct cfg_host){.mark = n->mark};
    if (parse_host_address(n->text, host, &fault)) {
        ip_format(&host->ip, &address);
        host->name = arena_str(l->arena, sbuf_view(&address));
    } else {
        host->kind = HOST_NAME;
        fault = name_and_port_fault(n->text, &name, &host->port);
        if (!fault)
            host->name = lower_copy(l->arena, name);
    }
    if (fault)
        value_error_because(l, k, n, "%s", fault);
    return !fault;
}

void read_host(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct cfg_route *route = container_of(field, struct cfg_route, hosts);
    struct cfg_host host, *copy;

    if (!parse_host(l, k, n, &host) || !(copy = arena_alloc(l->arena, sizeof *copy)))
        return;
    *copy = host;
    route->hosts = copy;
    route->host_count = 1;
    route->mark = n->mark;
}

void read_hosts(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct cfg_route *route = container_of(field, struct cfg_route, hosts);

    route->hosts = new_items(l, k, n, sizeof *route->hosts);
    if (!route->hosts)
        return;
    for (const struct node *item = n->first; item && !too_many_errors(l); item = item->next)
        if (schema_check_kind(l, k, item, NODE_SCALAR) &&
            parse_host(l, k, item, &route->hosts[route->host_count]))
            route->host_count++;
}
