/* smtp/server/session_priv.h: the inside of the engine, shared by its files. Private to smtp/server/.
 *
 *               +------ RCPT -----> RCPT_WAIT ---verdict---+
 *               |                                          |
 *   COMMAND ----+---- STARTTLS ---> TLS_WAIT --secured-----+---> COMMAND
 *               |                                          |
 *               +- DATA, BDAT -> CONTENT --> COMMIT_WAIT --+         (each of them ---> CLOSED)
 *               |                |   ^ `---- chunk done ---+
 *               |                v   |                     |
 *               |              ROOM_WAIT                   |
 *               |                                          |
 *               +- BDAT refused -> SKIP -------------------+
 *               +- many errors --> PENALTY_WAIT -----------+
 *
 * In a *_WAIT state no input is consumed, so replies keep the order of the commands. */
#ifndef SMTP_SERVER_SESSION_PRIV_H
#define SMTP_SERVER_SESSION_PRIV_H

#include <errno.h>

#include "core/log.h"
#include "core/metrics.h"
#include "smtp/proto/content.h"
#include "smtp/server/session.h"

enum session_state {
    STATE_COMMAND,
    STATE_CONTENT,
    STATE_SKIP,
    STATE_RCPT_WAIT,
    STATE_ROOM_WAIT,
    STATE_COMMIT_WAIT,
    STATE_PENALTY_WAIT,
    STATE_TLS_WAIT,
    STATE_CLOSED,
};

#define MAILBOX_MAX     (ADDRESS_LOCAL_MAX + 1 + ADDRESS_DOMAIN_MAX)
#define NORMALISE_BYTES 1024           /* input normalised at a time */
#define TOP_BYTES_MAX   ((size_t)8192) /* of a header section, for who wrote its first lines */

/* Content from 354 to the dot, or of all chunks. Bytes are scanned once, and consumed from the input only
 * when they are stored.
 */
struct content {
    struct content_scan scan;
    struct header_scan headers;
    enum reply_id error; /* R_ok, or why the rest is drained and the message refused */
    bool eight_bit;      /* it is, declared or not */
    uint64_t started_ms;
    size_t scanned_n; /* bytes at the front of the next input that `scan` has seen */
    size_t store_n;   /* how many of them are content still to be stored */
    char held[4];     /* content in front of these, out of the scanner */
    uint8_t held_n, held_at;
    /* Class `normalise`: output of content_normalise waiting for room, and the input that it stands for. */
    uint8_t *spill; /* in the transaction's arena */
    size_t spill_n, spill_at, spill_input_n;
    uint8_t normalise_state;
};

/* A message that comes by BDAT. */
struct chunks {
    bool begun, is_last;
    bool refused;          /* only RSET helps */
    uint8_t stuff_state;   /* of content_stuff_octets() */
    uint64_t octets, left; /* of the present chunk, and those still to come */
    uint8_t *text; /* in the transaction's arena: what DATA would have brought, on its way to `content` */
    size_t text_n, text_at;
    size_t text_octets; /* what it stands for and is not consumed yet */
};

/* Made at MAIL, gone after the commit's reply or at RSET, EHLO and close. */
struct transaction {
    struct arena arena; /* owns sender, rcpts, their texts and the set */
    str_t sender;
    struct mail_params params;
    struct envelope_rcpt *rcpts;
    uint32_t rcpt_count, rcpt_cap, rcpts_said;
    uint32_t discard_count; /* recipients that were taken to be thrown away; not in rcpts */
    size_t rcpts_bytes;
    uint32_t *set; /* open addressing, index + 1; past a handful of recipients */
    uint32_t set_cap;
    struct smtpd_rcpt asked; /* the RCPT being decided; views into asked_text */
    char asked_text[MAILBOX_MAX + 1];
    struct rcpt_params asked_params; /* its ORCPT is in asked_orcpt */
    char asked_orcpt[ORCPT_MAX];
    bool body_open;  /* the host has a body of ours that is neither committed nor aborted */
    bool committing; /* the host has it for good */
    uint64_t message_id;
    struct content content;
    struct chunks chunks;
    char *top; /* in the arena: the front of the edge's message, where its own trace lines stand; else NULL */
    size_t top_n;
    struct origin real; /* once the content is there */
};

struct smtpd_session {
    const struct smtpd_host *ops;
    void *host;
    const struct policy *policy,
        *next_policy; /* not owned; the same but after a reload during a transaction */
    struct smtpd_memory *memory;
    struct transaction *tx;  /* owned, from memory->transactions */
    struct arena line_arena; /* holds `line` while a command line came in part */
    char *line;
    uint32_t line_n, line_cap;
    uint64_t id, now_ms, bytes;
    uint64_t skip_bytes, skip_started_ms; /* of a refused chunk, until its reply */
    size_t ahead_n;       /* bytes at the front of the next input whose recipients the host was told of */
    struct ip peer;       /* the client, connected to us or named */
    struct origin *named; /* owned, from memory->origins: by XCLIENT; else NULL */
    struct origin *told;  /* owned, as well: of the next message, by XFORWARD */
    struct smtpd_tls tls; /* version NULL: in the clear; `class` also of a session that followed a reload */
    const char *where;
    uint32_t messages, rcpts, commands, errors;
    uint32_t faults, junk; /* errors and idle talk since the last message */
    uint16_t skip_reply;   /* enum reply_id */
    uint8_t state;         /* enum session_state */
    uint8_t class;         /* enum client_class */
    uint8_t reason;        /* enum close_reason */
    uint8_t next_shown;    /* enum client_class: tls.class, with next_policy */
    uint8_t listener_tls;  /* enum listener_tls */
    uint8_t step;          /* enum origin_step: how we know `peer` */
    bool helo_said;        /* by the line that was read last */
    bool greeted, esmtp, tls_offered, tls_active;
    bool line_overlong;  /* the rest of this line is swallowed */
    bool eof_seen;       /* close after the reply that is due */
    bool penalty_paid;   /* the next command has been waited for */
    bool shutdown_asked; /* 421 as soon as no transaction is left */
    uint8_t helo_n;
    char helo[ADDRESS_DOMAIN_MAX];
};

static inline const struct config *session_config(const struct smtpd_session *s)
{
    return policy_config(s->policy);
}
static inline bool session_normalises(const struct smtpd_session *s)
{
    return session_config(s)->line_endings[s->class] == ENDINGS_NORMALISE;
}
/* TLS for this client, here and now. */
static inline enum client_level session_tls_level(const struct smtpd_session *s)
{
    static const enum client_level by_listener[] = {[LISTENER_TLS_OFF] = CLIENT_TLS_OFF,
                                                    [LISTENER_TLS_MAY] = CLIENT_TLS_MAY,
                                                    [LISTENER_TLS_REQUIRE] = CLIENT_TLS_REQUIRE,
                                                    [LISTENER_TLS_IMPLICIT] = CLIENT_TLS_REQUIRE};
    if (!s->tls_offered)
        return CLIENT_TLS_OFF;
    return s->listener_tls == LISTENER_TLS_BY_CLASS ? session_config(s)->tls.level[s->class]
                                                    : by_listener[s->listener_tls];
}
/* Nothing but STARTTLS, and what CMD_IN_CLEAR says, until it has been said. */
static inline bool session_needs_tls(const struct smtpd_session *s)
{
    return !s->tls_active && session_tls_level(s) == CLIENT_TLS_REQUIRE;
}
/* What is not offered is refused like something unknown. */
static inline bool session_offers(const struct smtpd_session *s, enum extension e)
{
    return !(session_config(s)->hidden_extensions[s->class] & 1u << e);
}
static inline bool session_offers_dsn(const struct smtpd_session *s)
{
    return session_config(s)->dsn.offer[s->class];
}

/* session.c */
/* For a message that could not be stored: 452 when there is no room, else 451. */
enum reply_id session_reply_for_store(err_t err);
/* The last error that the client may make is answered by session_settle(), which follows. */
void session_reply(struct smtpd_session *s, enum reply_id id, str_t detail);
void session_error(struct smtpd_session *s);
bool session_overdue(const struct smtpd_session *s, uint64_t started_ms); /* timeouts.data_total has passed */
void session_junk(struct smtpd_session *s); /* one more idle command, an error when there are too many */
void session_reply_lines(struct smtpd_session *s, int code,
                         str_t lines); /* whole, CRLF included; no enhanced code */
void session_goodbye(struct smtpd_session *s, enum reply_id id, enum close_reason why);
void session_close(struct smtpd_session *s, enum close_reason why);
void session_drop_transaction(struct smtpd_session *s); /* NULL is fine; an open body is aborted */
/* Between two commands: closes when the client has used up its errors, when we shut down, or at end of input.
 */
void session_settle(struct smtpd_session *s);

/* session_line.c. Consumes up to the end of one line; a whole one is executed. */
size_t session_read_line(struct smtpd_session *s, const uint8_t *p, size_t n);
void session_drop_line(struct smtpd_session *s);
/* Tells the host of the recipients in the whole lines at the front of `p`, which stay unread. */
void session_look_ahead(struct smtpd_session *s, const uint8_t *p, size_t n);

/* session_commands.c */
void session_command(struct smtpd_session *s, str_t line);
bool session_rcpt_ahead(struct smtpd_session *s, str_t line); /* false: look no further */

/* For want of space, counted. */
enum reply_id session_reply_for_space(err_t err);

/* session_chunk.c */
void session_bdat(struct smtpd_session *s, str_t arg);
size_t session_chunk(struct smtpd_session *s, const uint8_t *p, size_t n); /* STATE_CONTENT of BDAT */
size_t session_skip(struct smtpd_session *s, size_t n);

/* session_data.c */
enum reply_id session_content_start(struct smtpd_session *s) WARN_UNUSED; /* not R_ok: logged and counted */
size_t session_content(struct smtpd_session *s, const uint8_t *p, size_t n);
void session_message_refused(struct smtpd_session *s,
                             enum reply_id why); /* log and metric; the reply is the caller's */

/* session_origin.c: who the client really is */
void session_classify(struct smtpd_session *s);
enum reply_id session_check_naming(const struct smtpd_session *s, enum extension e);
void session_xclient(struct smtpd_session *s, str_t arg);
void session_xforward(struct smtpd_session *s, str_t arg);
void session_forget_told(struct smtpd_session *s);
/* Whose share of messages one more counts against, as far as it is known at MAIL; NULL: nobody's. */
const struct ip *session_limited_client(const struct smtpd_session *s);
/* The same at the end of the content, for whom only that told: R_ok, or why not. After session_origin(). */
enum reply_id session_check_share(const struct smtpd_session *s);
/* The front of a message passes by. */
void session_keep_top(struct smtpd_session *s, const uint8_t *p, size_t n);
/* Who it is besides `peer`, as far as it is known by now, and how: for the log. NULL: nobody else told. */
const struct ip *session_known_origin(const struct smtpd_session *s, const char **by);
/* Finds it out: transaction.real, of the message whose content is there. */
void session_origin(struct smtpd_session *s);
void session_greet(struct smtpd_session *s); /* session.c */

/* transaction.c */
struct transaction *transaction_create(struct smtpd_memory *m, uint32_t rcpt_count_max, str_t sender);
void transaction_destroy(struct smtpd_memory *m, struct transaction *tx);
bool transaction_has_rcpt(const struct transaction *tx, str_t address);
/* Copies; ERR_LIMIT. */
err_t transaction_add_rcpt(struct transaction *tx, str_t address,
                           const struct rcpt_params *params) WARN_UNUSED;

/* trace.c: Received:, and for trusted clients the Date: and Message-ID: that are missing. */
void trace_write(const struct smtpd_session *s, const struct origin *real, struct sbuf *out);

#endif
