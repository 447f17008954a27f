/* smtp/client/client_priv.h: what the client engine's files share. */
#ifndef SMTP_CLIENT_CLIENT_PRIV_H
#define SMTP_CLIENT_CLIENT_PRIV_H

#include "smtp/client/client.h"

/* Content up to this is sent by BDAT behind the recipients, before it is known whether one is accepted: a
 * round trip is worth that much in vain. */
#define CHUNK_BYTES_MAX ((uint64_t)64 << 10)
#define SLOT_COUNT      2 /* one on the wire, one behind it */
/* RCPTs unanswered at a time, of all that is on the wire. Their replies (<= 512 bytes each) must fit into
 * socket buffers, or both sides would wait for the other one to read (RFC 2920 3.1). */
#define RCPT_WINDOW 200
/* A power of two that holds a window of RCPTs and what may stand around it: DOT, RSET, MAIL, DATA. */
#define EXPECT_MAX 256
/* RCPT with a longest address and a longest ORCPT, with room to spare. */
#define LINE_OUT_MAX 1200

enum phase {
    PHASE_CONNECT,
    PHASE_GREETING,
    PHASE_HELO,
    PHASE_TLS, /* the handshake; nothing may come but smtpc_secured */
    PHASE_UP,
    PHASE_QUIT,
    PHASE_DEAD,
};

/* Replies come in the order of the commands: a queue of what the next ones answer. */
enum expect {
    EXPECT_GREETING,
    EXPECT_EHLO,
    EXPECT_HELO,
    EXPECT_STARTTLS,
    EXPECT_AUTH,
    EXPECT_RSET,
    EXPECT_PROBE_END, /* the RSET that ends a probe */
    EXPECT_MAIL,
    EXPECT_RCPT,
    EXPECT_DATA,
    EXPECT_DOT, /* LMTP: as many replies as recipients were accepted */
    EXPECT_QUIT,
};

/* A tx is in one of these; at most one is in COMMANDS or CONTENT, and those in DOT or PROBED stand before it.
 * One that is chunked goes on before its commands are answered. */
enum tx_state {
    TX_WAITING,
    TX_COMMANDS, /* MAIL was sent */
    TX_CONTENT,  /* 354 came, or BDAT was said: the host streams */
    TX_DOT,      /* the end of data was sent */
    TX_PROBED,   /* a probe: all was said, RSET too */
};

/* Which recipients the server took at RCPT: they have their outcome after the dot. */
struct bits {
    uint64_t *words; /* `few`, or owned */
    uint32_t cap;    /* recipients */
    uint64_t few[4];
};

struct smtpc {
    const struct smtpc_host *ops;
    void *host;
    struct smtpc_options opt;
    char helo_name[ADDRESS_DOMAIN_MAX];
    struct smtpc_features features;
    enum phase phase;
    bool secured;
    bool busy; /* a call is on the stack: it will pump when it leaves */
    bool ready_due, starttls_due;
    bool sending_secret;
    uint8_t auth_mechanism; /* enum auth_mechanism, of those the server has */
    uint8_t auth_step;      /* responses given */
    bool bdat_unknown;      /* the server offered CHUNKING and does not know BDAT */
    bool rset_due;          /* the server still holds a transaction that came to nothing */
    struct smtpc_tx *first; /* the callers', in order of delivery */
    uint32_t tx_count;
    bool slot_used[SLOT_COUNT];
    struct bits accepted[SLOT_COUNT];
    uint8_t expected[EXPECT_MAX];
    uint32_t expected_at, expected_count;
    uint32_t rcpts_out; /* of these: RCPTs */
    struct sbuf out;    /* on out_bytes; sent when a call leaves, or is full */
    char out_bytes[4096];
    struct reply_parser parser;
};

/* client.c */
void client_put(struct smtpc *c, enum expect expect, const char *fmt, ...) PRINTF_LIKE(3, 4);
void client_put_secret(struct smtpc *c, enum expect expect, str_t line); /* CRLF included; by itself */
void client_flush(struct smtpc *c);
void client_fail(struct smtpc *c, enum smtpc_stage at, const struct smtp_reply *reply);

/* hello.c: up to the first `ready` */
void hello_reply(struct smtpc *c, enum expect expect, enum smtpc_stage at, const struct smtp_reply *r);

/* auth.c */
void auth_start(struct smtpc *c); /* says AUTH, or fails */
void auth_reply(struct smtpc *c, enum smtpc_stage at, const struct smtp_reply *r);
void hello_done(struct smtpc *c); /* hello.c: logged in, or need not */

/* transaction.c */
bool transaction_add(struct smtpc *c, struct smtpc_tx *tx); /* false: out of memory */
void transaction_remove(struct smtpc *c, struct smtpc_tx *tx);
/* One outcome. False: the callback ended the connection; tx is gone. */
bool transaction_outcome(struct smtpc *c, struct smtpc_tx *tx, uint32_t index, bool accepted,
                         enum smtpc_stage at, const struct smtp_reply *r);
void transaction_reply(struct smtpc *c, enum expect expect, enum smtpc_stage at, const struct smtp_reply *r);
void transaction_pump(struct smtpc *c); /* says all that may be said now */

static inline bool client_is_dead(const struct smtpc *c)
{
    return c->phase == PHASE_DEAD;
}

#endif
