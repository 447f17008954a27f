/* smtp/server/session.h: the server side of one SMTP session as a pure engine: bytes and events in, bytes and
 * requests out. No socket, no clock, no disk; the same object runs in the daemon, the fuzzer and the
 * simulator. One thread at a time. */
#ifndef SMTP_SERVER_SESSION_H
#define SMTP_SERVER_SESSION_H

#include "core/pool.h"
#include "policy/policy.h"
#include "smtp/proto/envelope.h"
#include "smtp/server/edge_lines.h"

struct smtpd_session;

/* What the engines of one thread are made of. Outlives each session that uses it. */
struct smtpd_memory {
    struct pool sessions, transactions, origins;
};
void smtpd_memory_init(struct smtpd_memory *m, uint32_t session_count_max); /* 0 = no limit */
void smtpd_memory_free(struct smtpd_memory *m);

enum close_reason {
#define CLOSE_REASON(id, is_error, text) CLOSE_##id,
#include "smtp/proto/close_reason.def"
#undef CLOSE_REASON
    CLOSE_COUNT
};
const char *close_reason_name(enum close_reason r);

struct smtpd_client {
    struct endpoint peer, local;
    enum client_class class;
    enum listener_tls tls;       /* of the listener */
    enum origin_step step;       /* how we know `peer`: ORIGIN_CLIENT or ORIGIN_PROXY */
    uint64_t session_id;         /* sid= of the log lines, as qid_format() prints it */
    struct smtpd_memory *memory; /* not owned */
};

/* A recipient waiting for its decision. Canonical; valid until smtpd_rcpt_decided or close, whichever is
 * first. */
struct smtpd_rcpt {
    struct address address;
    str_t text;         /* the whole address */
    const char *sender; /* NUL-terminated, "" for null */
    bool discards;      /* it takes mail and throws it away: the host is not asked about it */
};

/* Requests to the host. All required. None may call back into the engine from inside but where said. */
struct smtpd_host {
    /* Reply bytes: copied before return. */
    void (*reply)(void *host, const char *p, size_t n);
    /* Decide about a recipient that policy lets through: answer with smtpd_rcpt_decided, from inside the call
     * or later. */
    void (*rcpt)(void *host, const struct smtpd_rcpt *r);
    /* While one is being decided: a recipient that stands behind it in the input (RFC 2920). It will be asked
     * for in its turn; whoever has to ask elsewhere can begin. `r` is valid until return. False: not now; it
     * and those behind it are told of again with the next one that is decided. */
    bool (*rcpt_ahead)(void *host, const struct smtpd_rcpt *r);
    /* Is it an address of ours that takes mail and throws it away, as the sender of a probe is? Asked first
     * of all; it should take no time to say no. */
    bool (*discards)(void *host, const struct address *a);
    /* One message more from this client, a stranger: false when it has had its share (450). Asked at MAIL,
     * or, where the edge's Received line tells who it is, at the end of the content. */
    bool (*take_share)(void *host, const struct ip *client);
    /* What stands on top of a message of the edge: is it believed? For the log `client` and `by`: NULL and
     * absent when it tells of none. */
    bool (*edge_line)(void *host, const struct edge_line *line, const struct ip *client, str_t by);
    /* MAIL was said: is there room? 0, ERR_FULL or -ENOMEM (452 4.3.1), other (451). `size` 0 = not declared.
     */
    err_t (*check_space)(void *host, uint64_t size);
    /* DATA was said and may start. 0 or as check_space. */
    err_t (*body_begin)(void *host);
    /* Content to keep, dot-stuffed. Returns bytes taken; fewer than n: the host calls smtpd_resume when it
     * has room. */
    size_t (*body_append)(void *host, const uint8_t *p, size_t n);
    /* All content came and is good: make it durable, then smtpd_committed, from inside the call or later;
     * also when the session was closed meanwhile. `trace` = header lines to stand in front. e->sender is
     * valid until smtpd_committed, the rest until return. */
    void (*commit)(void *host, const struct envelope *e, const struct envelope_rcpt *rcpts,
                   uint32_t rcpt_count, str_t trace);
    void (*body_abort)(void *host); /* a body begun will not be committed */
    /* STARTTLS was answered 220: run the handshake, then smtpd_secured. */
    void (*starttls)(void *host);
    /* A stranger has made too many errors: smtpd_resume after so long, and its next command is read. */
    void (*delay)(void *host, uint32_t ms);
    /* The session is over; everything said by reply() is still to be sent. The host destroys the engine
     * later, and not while a commit is in flight. A recipient still asked about needs no answer any more. */
    void (*close)(void *host, enum close_reason why);
    /* MAIL was taken: the queue id that its message will have, for logs, Received: and the final reply. */
    uint64_t (*message_id)(void *host);
    /* XCLIENT was said: the client is another one. R_ok, or with what it is turned away. */
    enum reply_id (*client_named)(void *host, const struct endpoint *peer, enum client_class class);
};

/* What the client got with TLS. Texts live as long as the session. */
struct smtpd_tls {
    const char *version, *cipher;
    const char *verify;      /* what is known of its certificate: "none", "unknown", "ok", "pin" */
    enum client_class class; /* that its certificate makes it; CLASS_STRANGER: as its address says */
};

/* A policy stays valid while smtpd_policy() names it, or it is the last one set. tls_offered: there is a
 * certificate. A listener with implicit TLS has a handshake first: smtpd_secured. */
err_t smtpd_create(struct smtpd_session **out, const struct smtpd_host *ops, void *host,
                   const struct smtpd_client *client, const struct policy *policy,
                   bool tls_offered) WARN_UNUSED;
void smtpd_destroy(struct smtpd_session *s);    /* aborts an open body */
void smtpd_start(struct smtpd_session *s);      /* sends the greeting; with implicit TLS smtpd_secured does */
bool smtpd_idle(const struct smtpd_session *s); /* in no transaction */
/* Reload: in force at once, or when the running transaction ends. The client's class follows it; `shown` is
 * what its certificate makes it now, CLASS_STRANGER: nothing. tls_offered: as in smtpd_create, at once. */
void smtpd_set_policy(struct smtpd_session *s, const struct policy *policy, bool tls_offered,
                      enum client_class shown);
enum client_class smtpd_class(const struct smtpd_session *s);
const struct policy *smtpd_policy(const struct smtpd_session *s); /* in force now */

/* The client talks before the greeting: the session may be over then. */
void smtpd_early(struct smtpd_session *s);
/* Grows with each thing that the client has done in whole: a command, a state. Mere bytes do not move it. */
uint32_t smtpd_steps(const struct smtpd_session *s);

/* Bytes from the client; returns consumed. Fewer than n: the engine waits (for a verdict, room, a commit,
 * TLS) and takes the rest after the event that it waits for; smtpd_waiting() is true then. `now_ms` wall
 * clock. */
size_t smtpd_input(struct smtpd_session *s, const uint8_t *p, size_t n, uint64_t now_ms);
bool smtpd_waiting(const struct smtpd_session *s);
/* `detail` (may be absent) goes into the reply and the log. A 421 ends the session. */
void smtpd_rcpt_decided(struct smtpd_session *s, enum reply_id reply, str_t detail);
void smtpd_resume(struct smtpd_session *s); /* body_append has room again, or the delay is over */
void smtpd_committed(struct smtpd_session *s, err_t err); /* the only way to 250 after DATA */
void smtpd_secured(struct smtpd_session *s,
                   const struct smtpd_tls *tls); /* NULL: it failed, the session closes */
/* No more input comes, and all that came was consumed. A commit in flight is still answered, unless `reset`.
 */
void smtpd_eof(struct smtpd_session *s, bool reset);
void smtpd_timeout(struct smtpd_session *s); /* 421 4.4.2 and close */
/* SIGTERM: in no transaction 421 at once; else at the end of the transaction; `now` true: 421 at once (after
 * a commit in flight). */
void smtpd_shutdown(struct smtpd_session *s, bool now);
/* How long the client may take in the present state, ms; 0 = no limit (the engine waits for us, not for the
 * client). */
uint32_t smtpd_timeout_ms(const struct smtpd_session *s);

/* Who the message that is being committed came from; until smtpd_committed returns. */
const struct origin *smtpd_origin(const struct smtpd_session *s);

struct smtpd_stats { /* for the session's log line */
    uint32_t messages, rcpts, commands, errors;
    uint64_t bytes; /* input, after decryption */
    str_t helo;
    const char *where;        /* static: "after DATA content", "after RCPT", … */
    enum close_reason reason; /* CLOSE_COUNT: still open */
};
void smtpd_stats(const struct smtpd_session *s, struct smtpd_stats *out);

#endif
