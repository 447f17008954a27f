/* net/conn_priv.h: shared by conn.c (life, receiving), conn_out.c (output), conn_tls.c. Private to net/. */
#ifndef NET_CONN_PRIV_H
#define NET_CONN_PRIV_H

#include "core/pool.h"
#include "net/conn.h"
#include "net/ring_priv.h"

/*      DIALING --> OPEN --conn_finish--> FINISHING (output leaves, FIN) --> LINGERING (until the peer's FIN)
 *         |         |                        |                                  |
 *         +---------+------------------------+----------------------------------+--> CLOSING (ops are
 * cancelled)
 *                                                             --> DESCRIPTOR (the fd is being closed) -->
 * CLOSED */
enum conn_state {
    CONN_DIALING,
    CONN_OPEN,
    CONN_FINISHING,
    CONN_LINGERING,
    CONN_CLOSING,
    CONN_DESCRIPTOR,
    CONN_CLOSED
};

#define CHUNK_BYTES     4096
#define CHUNK_COUNT_MAX 65536 /* per loop: 256 MiB of copied output and kept input */
#define HOT_CHUNK_MAX   64    /* kept out of the pool, which clears what it hands out */
#define COPIED_BYTES_MAX                                                                                     \
    ((size_t)1 << 20) /* per connection: replies to a peer that pipelines and does not read */
#define KEPT_BYTES_MAX  ((size_t)16384) /* per paused connection, then its recv is cancelled */
#define SEND_PIECES_MAX 64
#define SEND_BYTES_MAX                                                                                       \
    ((size_t)256 << 10)     /* per send: so that owners' time limits see a slow peer's progress */
#define SEND_IOVECS    2048 /* per submission, all connections together */
#define SEND_MESSAGES  256
#define SCRATCH_BYTES  16384 /* one TLS record */
#define STEPS_PER_TICK 1024

struct piece {
    struct piece *next;
    const uint8_t *p;
    size_t n;
    struct conn_ref *ref; /* the owner's; NULL: the piece is the head of a chunk */
};

struct chunk {
    struct piece piece;
    uint8_t bytes[CHUNK_BYTES - sizeof(struct piece)];
};

struct conn_tls {
    struct tls_session *session; /* owned; NULL if it could not be made */
    struct piece_queue plain;    /* output before encryption */
    size_t fed_paused_bytes;     /* ciphertext taken while nobody reads */
    struct conn *conn;
    struct link turn; /* it waits for its turn to go on with the handshake */
    err_t start_err, why;
    bool starting, established, ended, broken, closed_out;
    bool takes_rest; /* conn_expect_tls */
};

struct conn_loop {
    struct loop *loop;
    struct list todo;                       /* conns with something to do at the tick's end */
    struct list starved;                    /* conns whose recv found no buffer */
    struct list turns[2];                   /* conn_tls.turn: those that go first, the others */
    uint64_t turns_tick_ns, turns_spent_ns; /* of this tick */
    struct tick_hook todo_hook, starved_hook, turns_hook;
    struct pool chunks, refs, tls;
    struct piece *hot; /* owned; chunks */
    unsigned hot_count;
    /* What sends point to until the kernel has taken them; starts again when loop->submit_seq moves on. */
    uint64_t submit_seq;
    unsigned iovec_count, message_count;
    struct iovec iovecs[SEND_IOVECS];
    struct msghdr messages[SEND_MESSAGES];
    uint8_t scratch[SCRATCH_BYTES]; /* plaintext on its way to `data` */
};

static inline struct conn_loop *conn_loop_of(const struct conn *c)
{
    return c->loop->conns;
}

/* conn_out.c: queues. Refs are released by pieces_consume and pieces_drop; the callbacks may write or close.
 */
err_t pieces_copy(struct conn_loop *cl, struct piece_queue *q, const void *p, size_t n) WARN_UNUSED;
void pieces_move(struct piece_queue *to, struct piece_queue *from);
void pieces_consume(struct conn_loop *cl, struct piece_queue *q, size_t n);
void pieces_drop(struct conn_loop *cl, struct piece_queue *q);
struct chunk *pieces_take_chunk(struct piece_queue *q);            /* of a queue without refs; NULL: empty */
void pieces_give_back(struct piece_queue *q, struct chunk *chunk); /* to the front */
void chunk_put(struct conn_loop *cl, struct chunk *chunk);
void conn_flush(struct conn *c); /* submits a send if there is output and none is under way */
void conn_send_done(struct op *op, int32_t res, uint32_t cqe_flags, bool more);

/* conn.c */
void conn_schedule(struct conn *c); /* a step at the tick's end */
void conn_join(struct conn *c); /* every completion of a closing connection ends here; c may be gone after */
void conn_offer(struct conn *c, const uint8_t *p, size_t n);
void conn_note_eof(struct conn *c);
void conn_finish_why(struct conn *c, uint32_t linger_ms, err_t why);
void conn_output_gone(struct conn *c); /* FINISHING and all sent */

/* conn_tls.c */
void conn_tls_step(struct conn *c);                              /* starts the handshake */
void conn_tls_input(struct conn *c, const uint8_t *p, size_t n); /* ciphertext */
void conn_tls_pump(struct conn *c);                              /* plaintext to `data` while it is wanted */
void conn_tls_encrypt(struct conn *c);                           /* plain -> wire, one batch */
void conn_tls_truncated(struct conn *c);                         /* FIN */
void conn_tls_turns(struct tick_hook *h);                        /* handshakes, as far as a tick has time */
bool conn_tls_waits(const struct conn *c); /* for its turn: it should get no more input */
void conn_tls_free(struct conn *c);

#endif
