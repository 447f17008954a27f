/* core/mailbox.h: many threads send, one receives. Messages are links inside the sender's structs (no
 * allocation); ownership moves with the message. Built on ck_ring (MPSC); net/loop wakes the receiver. */
#ifndef CORE_MAILBOX_H
#define CORE_MAILBOX_H

#include "core/base.h"
#include "core/err.h"

struct mailbox; /* opaque */

/* First member (or embedded) of whatever is sent; `deliver` runs on the receiver's thread and owns `m`. */
struct mail {
    void (*deliver)(struct mail *m);
    struct mail *next; /* private to the mailbox */
};

/* `wake` is called by a sender after an enqueue to a mailbox that was idle; must be callable from any thread.
 * One call may be made for mail that mailbox_run() has delivered already. capacity_log2: 2..MAILBOX_LOG2_MAX.
 */
err_t mailbox_create(struct mailbox **out, uint32_t capacity_log2, void (*wake)(void *ctx),
                     void *ctx) WARN_UNUSED;
/* Receiver's thread, after all senders are gone. Mail that is still inside is dropped: run it first. */
void mailbox_destroy(struct mailbox *mb);
/* Any thread. Never fails and never blocks: past the ring's capacity mail goes on a locked overflow list. */
void mailbox_send(struct mailbox *mb, struct mail *m);
/* Receiver only: delivers at most `max_count`; returns how many; true in *more if some are left. */
uint32_t mailbox_run(struct mailbox *mb, uint32_t max_count, bool *more);

#endif
