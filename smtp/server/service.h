/* smtp/server/service.h: SMTP sessions of one worker: sockets, engines, the queue and the log brought
 * together. Loop thread only. */
#ifndef SMTP_SERVER_SERVICE_H
#define SMTP_SERVER_SERVICE_H

#include "net/listener.h"
#include "net/tls.h"
#include "policy/policy.h"
#include "queue/queue.h"
#include "verify/verifier.h"

struct dns;
struct edge_lines;
struct strangers;
struct smtpd_service;

/* Limits. limits.sessions is split evenly over the workers; the last sixteenth is kept for the edge and
 * trusted networks, and so are the last files and the last fifth of limits.memory (shed_priv.h).
 * What is limited by client (an IPv6 client is its /64) is counted for all workers together, as SO_REUSEPORT
 * spreads a client's connections over them. A session over a limit gets one 421 line. */
struct smtpd_service_options {
    struct loop *loop;
    struct queue *queue;
    const struct policy *policy;
    /* Not owned; NULL: every recipient that policy lets through is taken. */
    const struct verify_shared *verify;
    struct verifier *verifier;     /* this worker's */
    struct strangers *strangers;   /* of all workers; not owned */
    struct edge_lines *edge_lines; /* the same; NULL: nothing is learned, or believed without `edge_format` */
    struct tls_context *tls; /* NULL: STARTTLS is not offered; the service takes its own reference. Tags of
                                its   rules are client classes */
    struct dns *dns;         /* for strangers.dnsbl; NULL: nobody is on a list */
    uint64_t (*memory_used)(void); /* by the process, in bytes, for limits.memory; NULL: nobody knows */
    bool counts_files; /* what is accepted are descriptors of this process, which may have only so many */
    unsigned worker;
    unsigned worker_count;                       /* share limits.sessions; > 0 */
    void (*accepted)(void *ctx, struct qmsg *m); /* a message is durable: relay it */
    void (*empty)(void *ctx);                    /* after smtpd_service_drain: the last session is gone */
    void *ctx;
};

err_t smtpd_service_create(struct smtpd_service **out, const struct smtpd_service_options *opt) WARN_UNUSED;
void smtpd_service_destroy(struct smtpd_service *s); /* no sessions may be left */
/* What a listener says of who comes in by it. */
struct smtpd_door {
    enum listener_tls tls;
    struct cidr *proxies; /* they name their client before anything else; read only here */
    size_t proxy_count;
};
/* `door`: the listener that it came to; not kept. */
void smtpd_service_accept(struct smtpd_service *s, int fd, const struct endpoint *peer,
                          const struct endpoint *local, const struct smtpd_door *door);
/* There is no descriptor for it but this one, which is closed: it is told 421. */
void smtpd_service_turn_away(struct smtpd_service *s, int fd, const struct smtpd_door *door);
/* How many files and how much memory there is: now and then, and accepting does by itself. */
void smtpd_service_look(struct smtpd_service *s);
/* Reload. Sessions in a transaction keep the old snapshot until its end: it can go when
 * smtpd_service_policy_users says 0. */
void smtpd_service_set_policy(struct smtpd_service *s, const struct policy *p, struct tls_context *tls);
uint32_t smtpd_service_policy_users(const struct smtpd_service *s, const struct policy *p);
uint32_t smtpd_service_session_count(
    const struct smtpd_service *s); /* connections that are only being refused included */
/* No session, and no answer that it waits for on behalf of one that is gone: it may be destroyed. */
bool smtpd_service_is_empty(const struct smtpd_service *s);
/* No new sessions; those in a transaction may finish it, or with `now` only a commit in flight. May be called
 * again. */
void smtpd_service_drain(struct smtpd_service *s, bool now);

#endif
