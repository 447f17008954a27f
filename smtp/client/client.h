/* smtp/client/client.h: the client side of one SMTP or LMTP connection as a pure engine: pipelined within and
 * across messages (RFC 2920: content, ".", and the next message's MAIL/RCPT/DATA leave in one write). A small
 * message leaves whole, without a wait for replies, where the server takes BDAT (RFC 3030). No socket, no
 * clock, no disk. */
#ifndef SMTP_CLIENT_CLIENT_H
#define SMTP_CLIENT_CLIENT_H

#include "core/config.h"
#include "smtp/proto/envelope.h"
#include "smtp/proto/reply.h"

struct smtpc;

/* Re-entrancy: smtpc_deliver and smtpc_content_end may be called from inside any callback; smtpc_closed and
 * smtpc_content_abort too, and their tx_lost and failed come before they return. smtpc_input, smtpc_secured,
 * smtpc_quit and smtpc_destroy only from outside: a host that was told `failed` or `quit_done` destroys the
 * engine when the call that told it has returned. After `failed` every call but smtpc_destroy does nothing.
 */

enum smtpc_tls { SMTPC_TLS_OFF, SMTPC_TLS_MAY, SMTPC_TLS_REQUIRE };

struct smtpc_auth { /* RFC 4954, 4616 (PLAIN); the user is not needed for EXTERNAL */
    enum auth_mechanism mechanism;
    str_t user, password; /* SMTPC_AUTH_BYTES_MAX together */
};
#define SMTPC_AUTH_BYTES_MAX 1024

struct smtpc_options {
    str_t helo_name; /* copied */
    bool lmtp;
    bool lock_step;       /* a command at a time, whatever the server says of PIPELINING */
    bool sends_eight_bit; /* to a server without 8BITMIME too */
    enum smtpc_tls tls;
    bool chunking; /* BDAT where it saves a round trip */
    bool has_auth; /* logs in before anything is sent, and fails where it cannot: never in the clear */
    struct smtpc_auth auth; /* texts live as long as the engine */
};

/* What the server offered in EHLO. */
struct smtpc_features {
    bool esmtp, pipelining, size, eightbit, smtputf8, starttls, enhanced, chunking, dsn;
    bool auth_plain, auth_login, auth_external;
    uint64_t size_max; /* 0 = unknown */
    /* LIMITS (RFC 9422): messages in a session; recipients, and their domains, in a message. 0 = not said. */
    uint32_t messages_max, rcpts_max, rcpt_domains_max;
};
/* How many of the first recipients one message to such a server may have; at least 1. */
uint32_t smtpc_rcpts_fitting(const struct smtpc_features *f, const struct envelope_rcpt *rcpts,
                             uint32_t rcpt_count);

/* Where in the dialogue something happened; for time-outs, logs and triage. */
enum smtpc_stage {
    STAGE_CONNECT,
    STAGE_GREETING,
    STAGE_HELO,
    STAGE_TLS,
    STAGE_AUTH,
    STAGE_MAIL,
    STAGE_RCPT,
    STAGE_DATA,
    STAGE_CONTENT,
    STAGE_DOT,
    STAGE_QUIT,
    STAGE_IDLE
};
const char *smtpc_stage_name(enum smtpc_stage s);

/* One message for this connection, or one probe: MAIL, RCPT…, RSET, and never DATA. Embedded in its owner,
 * alive until tx_done. */
struct smtpc_tx {
    str_t sender;                      /* "" = null */
    const struct envelope_rcpt *rcpts; /* addresses without <> */
    uint32_t rcpt_count;
    uint64_t size; /* for SIZE=; 0 = do not say */
    /* Of the content, if it stands there as BDAT sends it, without a dot to take off; else 0. Exactly as many
     * must be streamed. */
    uint64_t chunk_bytes;
    enum body_type body;
    bool smtputf8;
    bool probe; /* every recipient's outcome is what the server said to RCPT, or to MAIL if it refused that */
    enum dsn_ret ret; /* this, ENVID, NOTIFY and ORCPT are said to servers that offer DSN */
    str_t envid;
    void *owner;
    /* client-private */
    struct smtpc_tx *next;
    uint32_t rcpts_sent, rcpts_answered, rcpts_ok, dots_answered, outcome_count, dot_index;
    uint8_t state, slot;
    bool mail_answered, mail_refused, data_sent, data_answered, chunked;
};

struct smtpc_host {
    /* Bytes to send: copied before return. */
    void (*send)(void *host, const char *p, size_t n);
    /* Now stream this message's content (dot-stuffed, ends in CRLF) behind what was sent, in order; then call
     * smtpc_content_end. Comes from smtpc_input, smtpc_deliver or smtpc_content_end. */
    void (*content)(void *host, struct smtpc_tx *tx);
    /* The outcome of one recipient, once each. `reply` is the server's; accepted = the server took
     * responsibility (after "."), or would (a probe, at RCPT). */
    void (*rcpt_done)(void *host, struct smtpc_tx *tx, uint32_t index, bool accepted, enum smtpc_stage at,
                      const struct smtp_reply *reply);
    /* All recipients of tx have their outcome; the engine forgets tx. */
    void (*tx_done)(void *host, struct smtpc_tx *tx);
    /* The dialogue is up, or a tx left: smtpc_slots() more may be given. Called after smtpc_input, not from
     * inside smtpc_deliver. */
    void (*ready)(void *host);
    void (*starttls)(void *host); /* run the handshake, then smtpc_secured */
    /* The connection is no use any more: refused at `at` (reply may be NULL: broken dialogue or closed).
     * Transactions without outcome are handed back first through tx_lost. Then the host closes the socket. */
    void (*failed)(void *host, enum smtpc_stage at, const struct smtp_reply *reply);
    /* This tx got no final answer. `maybe_delivered`: the end of data was sent, so it may
     * have been taken (duplicate window). */
    void (*tx_lost)(void *host, struct smtpc_tx *tx, bool maybe_delivered);
    void (*quit_done)(void *host); /* after smtpc_quit: close the socket */
};

err_t smtpc_create(struct smtpc **out, const struct smtpc_host *ops, void *host,
                   const struct smtpc_options *opt) WARN_UNUSED;
void smtpc_destroy(struct smtpc *c); /* no callbacks; transactions are the caller's */
void smtpc_start(struct smtpc *c);   /* the socket is connected */
void smtpc_input(struct smtpc *c, const uint8_t *p, size_t n); /* takes all */
/* The peer closed, the socket broke, or a time-out: ends in `failed`. */
void smtpc_closed(struct smtpc *c, err_t why);
void smtpc_secured(struct smtpc *c, err_t err);

/* How many more tx it takes now: 0 while greeting; 2 when pipelining: one in content or with its probe out,
 * one behind. */
uint32_t smtpc_slots(const struct smtpc *c);
/* At least one recipient. What the server's EHLO rules out (8BITMIME, SMTPUTF8, SIZE) is refused on its
 * behalf from inside this call: rcpt_done for each recipient at STAGE_MAIL, tx_done; the slot is free again
 * then. */
void smtpc_deliver(struct smtpc *c, struct smtpc_tx *tx);
void smtpc_content_end(struct smtpc *c, struct smtpc_tx *tx); /* all content was handed to the socket: sends
                                                                 ".\r\n" if need be, and what follows */
/* Content cannot be read to its end: the connection must die without ending the data. Ends in tx_lost and
 * failed. */
void smtpc_content_abort(struct smtpc *c, struct smtpc_tx *tx);
void smtpc_quit(struct smtpc *c);                    /* when idle */
bool smtpc_idle(const struct smtpc *c);              /* up, and no tx */
enum smtpc_stage smtpc_stage(const struct smtpc *c); /* what it waits for now: picks the time-out */
bool smtpc_has_pipelined(
    const struct smtpc *c); /* also inside `failed`: several commands wait for their replies */
bool smtpc_sends_secret(const struct smtpc *c); /* inside `send`: these bytes are credentials, for no log */
/* After `failed`: the server offered CHUNKING and does not know BDAT; another connection should do without.
 */
bool smtpc_bdat_unknown(const struct smtpc *c);
const struct smtpc_features *smtpc_features(const struct smtpc *c);

#endif
