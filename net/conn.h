/* net/conn.h: a byte stream over one socket, with or without TLS. Loop thread only.
 *
 * Sending: bytes are copied into the connection's output (conn_write) or sent from the owner's memory
 * (conn_write_ref); everything queued in one tick leaves in one sendmsg at the tick's end.
 * Receiving: `data` gets what arrived and returns how much it consumed; the rest is kept and offered again
 * after conn_resume(). An idle plain connection holds no buffer.
 *
 *      OPEN --conn_close()/error--> TERMINATE (shutdown, cancel) --> JOIN (ops in flight == 0) --> `closed`,
 * memory is the owner's again. Every completion of a closing connection ends in the join step. */
#ifndef NET_CONN_H
#define NET_CONN_H

#include "core/str.h"
#include "net/loop.h"
#include "net/tls.h"

struct conn;
struct conn_tls;
struct piece;

struct conn_ops {
    /* n > 0 bytes; returns consumed (0..n). Returning less than n pauses receiving until conn_resume(). */
    size_t (*data)(struct conn *c, const uint8_t *p, size_t n);
    void (*eof)(struct conn *c);       /* the peer sent FIN (or close_notify) after all data was offered */
    void (*drained)(struct conn *c);   /* output went from non-empty to empty */
    void (*connected)(struct conn *c); /* conn_dial only */
    void (*secured)(struct conn *c, err_t err); /* conn_starttls ended; on error the connection is closing */
    /* Last call. err: 0 after conn_close(), else what broke it (-ECONNRESET, ERR_TIMEOUT, ERR_TLS,
     * -ECONNREFUSED…). */
    void (*closed)(struct conn *c, err_t err);
};

/* A piece of the owner's memory in the output; `release` is called once, when the kernel is done with it (or
 * it is dropped). */
struct conn_ref {
    const void *p;
    size_t n;
    void (*release)(struct conn_ref *ref);
};

/* Bytes in order, in pool chunks or in owners' memory; private to net/conn*.c. */
struct piece_queue {
    struct piece *head, *tail; /* owned */
    size_t bytes, ref_bytes;   /* all, and those of refs */
};

/* Embedded in its owner (or allocated with conn_size()); the fields are for net/conn*.c only. Needs no
 * initialisation before conn_open() or conn_dial(). */
struct conn {
    const struct conn_ops *ops;
    void *ctx; /* the owner's */
    struct loop *loop;
    struct op recv_op, send_op, control_op; /* control: connect, later close */
    struct piece_queue wire;                /* as it goes to the socket */
    struct piece_queue kept;                /* received, not consumed */
    struct conn_tls *tls;                   /* owned; NULL in the clear */
    struct timer timer;                     /* dial, linger, the wait for the last input */
    struct link todo, starved;              /* at the tick's end; out of receive buffers */
    uint64_t cancel_seq;                    /* submission of the last cancel of recv_op, plus 1 */
    int fd;                                 /* owned */
    err_t why, send_err;
    uint8_t state;
    bool tried_resuming; /* of the handshake that failed */
    bool dialed, goes_first, paused, resuming, got_eof, eof_told, half_closed;
    bool parting; /* the peer has said its last word: no lingering */
    bool sparing; /* the peer is faster than whom it is for: reads take one buffer */
};
size_t conn_size(void);
void conn_open(struct conn *c, struct loop *l, int fd, const struct conn_ops *ops,
               void *ctx); /* takes fd, starts receiving */
/* Non-blocking connect with a time limit. The result is `connected` or `closed`. `from` may be NULL. */
void conn_dial(struct conn *c, struct loop *l, const struct endpoint *to, const struct endpoint *from,
               uint32_t timeout_ms, const struct conn_ops *ops, void *ctx);
void *conn_ctx(const struct conn *c);
struct loop *conn_loop(const struct conn *c);
int conn_fd(const struct conn *c);

/* More than 1 MiB of copied bytes that the peer does not take closes the connection with ERR_LIMIT. Once it
 * is finishing or closing, writes are dropped (refs are released later, from the loop). */
void conn_write(struct conn *c, const void *p, size_t n);
void conn_write_ref(struct conn *c, struct conn_ref *ref); /* order with conn_write is kept */
size_t conn_pending_bytes(const struct conn *c);           /* queued and not yet taken by the kernel */
void conn_pause(struct conn *c);
void conn_resume(struct conn *c); /* offers kept bytes again (from the loop, not from inside this call) */
/* Sends what is queued and FIN, waits for the peer's FIN so that no reset destroys our last words, then
 * closes (at most `linger_ms` later; ERR_TIMEOUT if output was left). No more `data`, `eof` or `drained`. */
void conn_finish(struct conn *c, uint32_t linger_ms);
/* The same for a peer that has taken its leave (QUIT): closes when the kernel has our last words, and does
 * not wait for its FIN. In TLS the peer still has a word to say (close_notify): conn_finish. */
void conn_part(struct conn *c, uint32_t patience_ms);
/* Closes now; unsent output is dropped. Calling twice is fine. `closed` always comes later, from the loop. */
void conn_close(struct conn *c, err_t why);
bool conn_closing(const struct conn *c); /* after conn_finish() or conn_close(), or broken */

/* After the queued clear-text output has left, runs the handshake. Clear bytes received and not consumed yet
 * are discarded first (RFC 3207 4.2: no command injection); a pause ends. From a `data` callback: what it
 * leaves unconsumed is discarded as well. server_name for SNI may be absent; the connection takes a reference
 * to `tls`.
 * Handshakes cost what a thousand commands cost: a tick gives them a share of its time, and the others wait
 * for their turn. First come those that we began, and those of which conn_go_first() said so before. */
void conn_starttls(struct conn *c, struct tls_context *tls, str_t server_name);
/* From a `data` callback: what it leaves unconsumed, and all that follows, is the peer's TLS. */
void conn_expect_tls(struct conn *c, struct tls_context *tls);
void conn_go_first(struct conn *c);
int conn_tls_client_tag(const struct conn *c, const struct tls_context *rules); /* -1 in the clear */
const struct tls_info *conn_tls(const struct conn *c);                          /* NULL while in the clear */
/* Of a handshake that failed: it was to go on from an earlier session. A full one may go well. Also in
 * `closed`. */
bool conn_tls_tried_resuming(const struct conn *c);
/* Why TLS failed, for people, or NULL; not after `closed` began. */
const char *conn_tls_error(const struct conn *c);

#endif
