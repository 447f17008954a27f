/* smtp/server/service_priv.h: shared by service.c (admission, reload, drain), service_session.c (one
 * session's connection) and service_host.c (what the engine asks for). Private to smtp/server/. */
#ifndef SMTP_SERVER_SERVICE_PRIV_H
#define SMTP_SERVER_SERVICE_PRIV_H

#include <errno.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "net/conn.h"
#include "smtp/server/harvest.h"
#include "smtp/server/pace_priv.h"
#include "smtp/server/service.h"
#include "smtp/server/session.h"
#include "smtp/server/shed_priv.h"
#include "smtp/server/strangers.h"

struct dnsbl_check;

#define DNSBL_ZONES_MAX 8 /* strangers.dnsbl takes no more */

struct smtpd_service {
    struct smtpd_service_options opt;
    const struct policy *policy; /* not owned */
    struct tls_context *tls;     /* counted; NULL: STARTTLS is not offered */
    struct smtpd_memory memory;
    struct pool sessions, rcpt_waits, proxy_waits, dnsbl_checks, dnsbl_questions;
    struct arena scratch; /* recipients of the commit being put together */
    struct list open;
    uint32_t session_count, refused_count;
    uint32_t dnsbl_count; /* questions that are out, those of sessions that are gone included */
    uint32_t dnsbl_out[DNSBL_ZONES_MAX]; /* the same, by the list's place in the configuration */
    struct shed shed;
    uint32_t unlooked_count; /* sessions and messages since memory was looked at */
    uint64_t file_limit;     /* descriptors that the process may have */
    uint64_t next_session_id;
    bool draining, drain_now, emptied;
    struct tick_hook empty_hook;
};

/* One connection. Freed when the connection is closed and no commit is in flight. */
struct session {
    struct smtpd_service *service;
    struct smtpd_session *engine; /* owned; NULL: only the 421 of `refused` is sent */
    struct queue_writer *writer;  /* owned, between DATA and commit or abort */
    struct link link;
    struct timer timer; /* lazy: armed for timer_due_ms, it looks at deadline_ms when it fires */
    uint64_t timer_due_ms, deadline_ms; /* loop clock; UINT64_MAX: we do not wait for the client */
    uint64_t unread_due_ms;             /* our replies are to be read until then; UINT64_MAX: none wait */
    uint64_t acked_bytes;               /* by the client's system, when that was set */
    uint64_t id, message_id, started_ms, data_started_ms;
    str_t sender; /* of the commit in flight, in the engine's memory */
    uint32_t rcpt_count;
    uint32_t ahead_count;            /* recipients asked for before their turn, which is still to come */
    struct proxy_wait *proxy_wait;   /* owned: the balancer has not said yet who its client is; else NULL */
    struct dnsbl_check *dnsbl;       /* owned: being asked for, or listed; else NULL */
    const struct smtpd_rcpt *parked; /* the engine's: a recipient that waits for dnsbl */
    uint32_t steps;                  /* smtpd_steps() when the deadline was new */
    struct rcpt_wait *rcpt_wait;     /* owned: a recipient that is being decided; else NULL */
    struct endpoint peer;            /* the client, whoever told us of it */
    struct ip via;                   /* who told us */
    char tls_version[12];
    const char *tls_verify; /* static */
    uint8_t class;          /* enum client_class, when it came */
    uint8_t refused;        /* enum close_reason */
    bool counted;           /* strangers_leave() at its end */
    bool turned_away;       /* in service->refused_count */
    bool has_via;
    uint8_t step; /* enum origin_step: how we know `peer` */
    bool committing, closed;
    bool greeted, told_early; /* a stranger's greeting may be late */
    bool dnsbl_waiting;
    bool delayed;                             /* the timer is for that */
    bool tls_asked;                           /* conn_starttls when the engine has returned */
    bool output_paused;                       /* the client does not read: no input until it does */
    _Alignas(16) unsigned char conn_memory[]; /* conn_size() bytes */
};

static inline struct conn *session_conn(struct session *s)
{
    return (struct conn *)(void *)s->conn_memory;
}

/* service_rcpt.c: the engine's questions about recipients */
size_t service_rcpt_wait_bytes(void); /* of service.rcpt_waits */
void service_rcpt(void *host, const struct smtpd_rcpt *r);
bool service_rcpt_ahead(void *host, const struct smtpd_rcpt *r);
bool service_discards(void *host, const struct address *a);
void service_rcpt_cancel(struct session *s);

void service_rcpt_go_on(struct session *s); /* dnsbl has its answer */

/* dnsbl.c */
size_t dnsbl_check_bytes(void);    /* of service.dnsbl_checks */
size_t dnsbl_question_bytes(void); /* of service.dnsbl_questions */
void dnsbl_start(struct session *s);
const char *dnsbl_zone(const struct session *s); /* that it is listed in; NULL: none that we know of */
void dnsbl_forget(struct session *s);

/* service.c */
void service_tell_if_empty(struct smtpd_service *s);
/* Something came that will take memory: a flood fills it faster than any timer looks. */
void service_count_for_memory(struct smtpd_service *s);
void service_forget(struct session *s);               /* frees it */
bool service_is_short(const struct smtpd_service *s); /* somebody is turned away for want of something */
/* How long a stranger may take for anything, in overload; UINT64_MAX: as long as ever. */
uint64_t service_patience_ms(const struct smtpd_service *s);
enum reply_id service_recount(struct session *s); /* it is another client now: R_ok, or what it is told */
void service_uncount(struct session *s);          /* it is no stranger: limits by address are not for it */
enum client_class service_shown_class(struct session *s, const struct tls_context *rules);

/* The client is known, as a balancer has named it. */
void service_admit(struct session *s, const struct endpoint *local, enum listener_tls tls);

/* service_proxy.c: a PROXY header, for which a session waits that has neither class nor engine */
size_t service_proxy_wait_bytes(void); /* of service.proxy_waits */
void service_proxy_begin(struct session *s, int fd, const struct endpoint *local, enum listener_tls tls);
size_t service_proxy_data(struct session *s, const uint8_t *p, size_t n); /* consumed */
void service_proxy_late(struct session *s);
void service_proxy_gone(struct session *s); /* its connection ended; NULL is fine */

/* service_session.c. The connection first, then either of the other two. */
void session_connect(struct session *s, int fd);
err_t session_begin(struct session *s, const struct endpoint *local, enum listener_tls tls) WARN_UNUSED;
/* `silent`: whoever waits for TLS reads no clear text. */
void session_refuse(struct session *s, enum reply_id reply, enum close_reason why, bool silent);
void session_wait(struct session *s, uint32_t wait_ms); /* for a PROXY header */
void session_delay(struct session *s, uint32_t ms);     /* before the engine reads on */
void session_touch(struct session *s, size_t n); /* n bytes came, or something happened: the deadline */
void session_hurry(struct session *s);           /* service_patience_ms() is less now */
void session_release(struct session *s);         /* connection or commit ended: the second of the two frees */

/* service_host.c */
extern const struct smtpd_host service_host;

#endif
