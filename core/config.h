/* core/config.h: the configuration file as plain data. Parsed by libfyaml, driven by one schema table
 * (config.def); says nothing of what the values mean together (policy/ does). A loaded config is immutable;
 * its strings live in its arena. */
#ifndef CORE_CONFIG_H
#define CORE_CONFIG_H

#include "core/arena.h"
#include "core/ip.h"
#include "core/log.h"

/* Where a value came from; line 0 = the built-in default. Both count from 1. */
struct mark {
    int line, column;
};

/* Errors for people: every problem of a file, in order, with what was expected and what to write. */
struct diag {
    struct gbuf text; /* "FILE:LINE:COLUMN: error: ..." or "... warning: ..." lines */
    const char *file; /* set by the caller before use */
    unsigned error_count, warning_count;
};
void diag_error(struct diag *d, struct mark m, const char *fmt, ...) PRINTF_LIKE(3, 4);
void diag_warning(struct diag *d, struct mark m, const char *fmt, ...) PRINTF_LIKE(3, 4);
void diag_free(struct diag *d);

enum host_kind { HOST_NAME, HOST_IP };

struct cfg_host { /* "10.0.0.5", "[2001:db8::5]:2526", "mx2.example.com:2525" */
    enum host_kind kind;
    str_t name;    /* lower-cased A-label host name, or the address as text */
    struct ip ip;  /* HOST_IP */
    uint16_t port; /* always set: own, else the route's, else 25 */
    struct mark mark;
};

struct cfg_rate { /* so many messages in so much time; count 0 = no limit */
    uint32_t count, period_s;
};
#define CFG_RATE_COUNT_MAX 1000000
void cfg_rate_format(const struct cfg_rate *r, struct sbuf *out); /* "100/m", "none" */

enum route_protocol { ROUTE_SMTP, ROUTE_LMTP };
/* To a route's servers. DANE and MTA-STS will be rows here: what the recipient's domain asks for. */
enum tls_level { TLS_OFF, TLS_MAY, TLS_REQUIRE, TLS_VERIFY, TLS_PIN };

struct cfg_tls_peer { /* what the other side must show, and what we show */
    struct cfg_pin {
        str_t text; /* "spki:HEX" or "cert:HEX" */
        struct mark mark;
    } * pins;
    size_t pin_count;
    str_t ca;               /* path; absent: the system's store */
    str_t name;             /* in the certificate, and SNI; absent: the host's */
    str_t certificate, key; /* paths, both or none */
    struct mark mark;       /* line 0: not written */
};

enum auth_mechanism { AUTH_AUTO, AUTH_PLAIN, AUTH_LOGIN, AUTH_EXTERNAL };
struct cfg_auth {
    enum auth_mechanism mechanism;
    str_t user, password_file; /* path */
    struct mark mark;          /* line 0: we do not log in */
};

enum eight_bit { EIGHT_BIT_REPORT, EIGHT_BIT_SEND };

struct cfg_route {
    struct cfg_host *hosts; /* at least one when the route is set */
    size_t host_count;
    uint16_t port;
    bool mx; /* look names up as MX; never for addresses */
    enum route_protocol protocol;
    enum tls_level tls; /* default TLS_MAY */
    struct cfg_tls_peer tls_peer;
    struct cfg_auth auth;
    uint32_t connections_max; /* per worker, default 20 */
    uint32_t messages_max;    /* per connection, default 10000 */
    enum eight_bit eight_bit; /* to servers without 8BITMIME; default report */
    struct cfg_rate rate;     /* of all workers together, default none */
    bool chunking;            /* BDAT, default true */
    struct mark mark;
};

enum verify_mode { VERIFY_OFF, VERIFY_LISTED, VERIFY_UNVERIFIED };
enum verify_fail { FAIL_CLOSED, FAIL_STALE, FAIL_OPEN };
enum verify_compat { COMPAT_NONE, COMPAT_POSTFIX };
enum verify_sender {
    SENDER_ADAPTIVE, /* empty, and where that is refused, token */
    SENDER_NULL,     /* "empty" in the file: null is a word of YAML's */
    SENDER_TOKEN,    /* an address of ours with a keyed token: postern-probe-TOKEN@hostname */
    SENDER_ADDRESS,
};

struct cfg_verify { /* of the top of the file, or of a domain: what it does not say is the top's */
    enum verify_mode mode;
    bool enforce, cautious;
    enum verify_fail fail;
    enum verify_compat compat;
    struct {
        enum verify_sender kind;
        str_t address; /* SENDER_ADDRESS */
    } sender;
    str_t list; /* path; absent: none */
    uint32_t list_shrink_percent;
    bool fold_case;
    char separator; /* of tags in local parts; '\0': none */
    uint32_t good_fresh_s, good_refresh_s, good_keep_s, unknown_fresh_s, unknown_keep_s, confirm_s, stale_s;
    uint32_t connections_max, batch_max, rate_per_s, waiting_max; /* of a backend; rate 0: no limit */
    uint32_t canary_s;                                            /* 0: none */
    bool has_route;
    struct cfg_route route; /* instead of the domain's, for probes only */
    struct mark mark;       /* line 0: defaults */
};

struct cfg_domain { /* name: a domain, "*.domain", or "user@domain" */
    str_t name;     /* lower-cased A-labels; for an address the local part as written */
    bool is_address, is_wildcard;
    bool has_local; /* `local` is written; without it a domain takes it from the longest "*.domain" above it,
                       else false */
    bool local;
    bool has_route;
    struct cfg_route route;
    bool has_verify; /* without it: of the next less specific entry that has it, else of the top */
    struct cfg_verify verify;
    struct mark mark;
};

struct cfg_network { /* address, CIDR, or a host name that is resolved at boot, at reload and every 5 minutes
                      */
    bool is_name;
    str_t name;
    struct cidr cidr;
    struct mark mark;
};

struct cfg_names {
    str_t *items;
    size_t count;
};

enum listener_tls {
    LISTENER_TLS_BY_CLASS,
    LISTENER_TLS_OFF,
    LISTENER_TLS_MAY,
    LISTENER_TLS_REQUIRE,
    LISTENER_TLS_IMPLICIT
};

struct cfg_listener {
    struct endpoint at;
    enum listener_tls tls;
    struct { /* that tell of their clients */
        struct cidr *items;
        size_t count;
    } proxies;
    struct mark mark, tls_mark; /* tls_mark: line 0: not written */
};

struct cfg_certificate { /* for clients that say STARTTLS */
    str_t chain, key;    /* paths */
    struct mark mark, key_mark;
};

enum client_level { CLIENT_TLS_OFF, CLIENT_TLS_MAY, CLIENT_TLS_REQUIRE };
enum cert_class { CERT_CLASS_EDGE, CERT_CLASS_TRUSTED };

struct cfg_tls_client { /* who a client with this certificate is */
    enum cert_class class;
    str_t pin;      /* "spki:HEX" or "cert:HEX"; or: */
    str_t ca, name; /* path, host name */
    struct mark mark;
};

enum destination_mode { DEST_DNS, DEST_EDGE };
enum double_bounces { DOUBLE_BOUNCES_DROP, DOUBLE_BOUNCES_POSTMASTER };
enum early { EARLY_OFF, EARLY_LOG, EARLY_REFUSE };
enum line_endings { ENDINGS_STRICT, ENDINGS_NORMALISE };
/* From PINNED on: enum received_format, of smtp/proto. */
enum edge_format { EDGE_FORMAT_LEARNED, EDGE_FORMAT_ANY, EDGE_FORMAT_PINNED };
/* What the reply to EHLO offers to everybody, unless it is hidden from his class. */
enum extension {
#define EXTENSION(id, keyword) EXTENSION_##id,
#include "core/extension.def"
#undef EXTENSION
    EXTENSION_COUNT
};
const char *extension_keyword(enum extension e);

struct config {
    struct arena arena; /* owns every string and array below */
    str_t file;

    str_t hostname;                 /* default: gethostname(), must be a FQDN-shaped name */
    uint32_t workers;               /* 0 = auto: one per core */
    struct cfg_listener *listeners; /* at least one; default 0.0.0.0:25 */
    size_t listener_count;

    str_t user;   /* absent: `postern` if there is one, when we are root */
    bool sandbox; /* default true */

    str_t spool_directory;    /* default /var/spool/postern */
    uint64_t ring_size_bytes; /* per worker, default 256MiB, min 16MiB */
    uint32_t
        commit_delay_us; /* spool.commit_delay: wait at most this long for company, default 0, at most 2000 */
    uint32_t scrub_period_s;     /* spool.scrub, default 7 days; 0: off */
    uint64_t spool_memory_bytes; /* spool.memory: per worker, default 16MiB */
    uint32_t high_water_percent; /* spool.high_water, default 90 */

    enum destination_mode destination_mode; /* default dns */
    struct cfg_route destination;           /* DEST_EDGE: exactly one host; DEST_DNS: unused */
    bool has_edge_networks;                 /* else: what destination.host is or resolves to */
    struct cfg_network *edge_networks;
    size_t edge_network_count;
    struct cfg_names edge_names;
    enum edge_format edge_format;
    struct cfg_network *xclient_networks;
    size_t xclient_network_count;
    struct cfg_network *trusted_networks;
    size_t trusted_network_count;
    struct cfg_domain *domains;
    size_t domain_count;

    struct cfg_verify verify; /* for domains that say nothing else */
    struct {                  /* verdicts: what is known of addresses */
        uint32_t entries;     /* 1000000 */
        str_t store;          /* default: "verdicts" in the spool directory */
    } verdicts;

    struct {                           /* limits: semantics 4.6 and 4.8 */
        uint64_t message_size;         /* 20971520; 0 = none but the ring's */
        uint32_t recipients;           /* 1000 per message */
        uint32_t line_length;          /* 2048: command lines; RFC 5321 4.5.3.1 floor 512 */
        uint32_t header_size;          /* 102400 bytes of headers looked at */
        uint32_t hops;                 /* 50 Received lines */
        uint32_t errors;               /* 20 errors end a session with 421 */
        uint32_t junk_commands;        /* 100 of NOOP, RSET, VRFY, HELP since the last message */
        uint32_t messages_per_session; /* 0 = no limit */
        uint32_t sessions;             /* 20000 open over all workers */
        uint32_t sessions_per_client;  /* 50 for strangers, never edge or trusted; 0 = no limit */
        uint64_t memory;               /* 0 = no limit: bytes in use by the process */
    } limits;

    struct { /* harvest: unknown recipients of one stranger; 0 = off */
        uint32_t tarpit_after, defer_after, disconnect_after; /* 5, 20, 50 */
        uint32_t tarpit_ms, forget_s;                         /* 2 s, 60 s */
    } harvest;

    struct { /* strangers */
        uint32_t greet_delay_ms;
        enum early early; /* log */
        struct cfg_zones {
            str_t *names; /* lower-cased */
            size_t count;
        } dnsbl;
        struct cfg_rate connections, messages; /* of one client; none */
        uint32_t errors, error_delay_ms;       /* 10; 1 s */
        uint32_t min_rate;                     /* 100 bytes a second; 0: none */
    } strangers;

    struct {                 /* timeouts, milliseconds */
        uint32_t command;    /* 300 s */
        uint32_t data_block; /* 180 s between reads of content */
        uint32_t data_total; /* 3600 s for one message */
        uint32_t session;    /* 0 = none */
        uint32_t overload;   /* 10 s: strangers, while new ones are turned away */
        uint32_t shutdown;   /* 30 s: SIGTERM drain */
        uint32_t connect, greeting, helo, mail, rcpt, data_init, data_send,
            data_done;                         /* client: 30,300,300,300,300,120,180,600 s */
        uint32_t idle;                         /* 5 s: a warm outbound connection without work */
        uint32_t quit;                         /* 10 s */
        uint32_t verify_edge, verify_stranger; /* 30 s, 8 s: RCPT waits at most this long for its verdict */
    } timeouts;

    uint32_t hidden_extensions[3];     /* bits 1 << enum extension, by enum client_class */
    enum line_endings line_endings[3]; /* by enum client_class: stranger, edge, trusted; default strict */

    struct {                     /* retry */
        uint32_t first_s, max_s; /* 300, 4000 */
        uint32_t lifetime_s;     /* 5 d */
        uint32_t dsn_lifetime_s; /* 5 d, for null senders */
    } retry;

    struct {                                /* dsn */
        bool offer[3];                      /* by enum client_class; default: trusted only */
        uint64_t return_size;               /* 50KiB: a larger original goes back as its header lines */
        uint32_t delay_after_s;             /* 4 h; 0 = a sender is not told that mail is late */
        uint32_t rate;                      /* 100 reports a minute to one domain; 0 = no limit */
        enum double_bounces double_bounces; /* drop */
    } dsn;

    struct { /* dns */
        bool has_resolver;
        struct endpoint resolver; /* default: /etc/resolv.conf */
        uint32_t timeout_ms;      /* 10 s */
        bool use_hosts_file;      /* true */
    } dns;

    struct { /* tls, inbound */
        struct cfg_certificate *certificates;
        size_t certificate_count;   /* 0: no TLS for clients */
        enum client_level level[3]; /* by enum client_class; default may */
        struct cfg_tls_client *clients;
        size_t client_count;
        uint32_t warn_before_s; /* 14 d; 0: never */
    } tls;

    struct { /* admin */
        bool has_listen;
        struct endpoint listen; /* HTTP: /metrics and the read-only API; default none */
        str_t socket;           /* default /run/postern/admin.sock */
    } admin;

    struct {                    /* log */
        enum log_level level;   /* info */
        enum log_format format; /* logfmt */
        str_t file;             /* none = standard error */
    } log;

    bool has_postmaster; /* written in the file */
    str_t postmaster;    /* default postmaster@hostname: From: of DSNs is MAILER-DAEMON@hostname */
};

/* Boot and reload only; any one thread. On errors: ERR_CONFIG, *out = NULL and every problem in `d`. */
err_t config_load_file(const char *path, struct config **out, struct diag *d) WARN_UNUSED;
/* Reads `path` to `text`, for config_load_text(). On errors ERR_CONFIG with the reason in `d`. */
err_t config_read_file(const char *path, struct gbuf *text, struct diag *d) WARN_UNUSED;
err_t config_load_text(str_t yaml, const char *name, struct config **out, struct diag *d) WARN_UNUSED;
void config_free(struct config *c); /* NULL is fine */
/* "256MiB" as a configuration has it, for those who are told a size elsewhere. False: it is none. */
bool config_parse_size(str_t s, uint64_t *bytes);

/* Reload: names the keys that differ between the two and are only read at start, as "spool.directory,
 * workers" in `keys`; returns how many. */
size_t config_restart_keys(const struct config *running, const struct config *wanted, struct gbuf *keys);
/* The reference of all keys with type, default, bounds and prose, as Markdown; from the schema table. */
void config_write_docs(struct gbuf *out);

#endif
