/* net/listener.h: SO_REUSEPORT listening sockets with multishot accept; one listener object per worker and
 * address. */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include "net/loop.h"

struct listener;

struct listener_ops {
    /* A new socket: owned by the callee. Peer and local address are resolved already. */
    void (*accepted)(void *ctx, int fd, const struct endpoint *peer, const struct endpoint *local);
    /* A socket that took the last descriptor: to be told so and closed at once, by listener_turn_away().
     * NULL: it waits in the kernel until there are more. */
    void (*no_files)(void *ctx, int fd);
    void (*closed)(void *ctx, struct listener *ln); /* after listener_close: the last call */
};

/* -EADDRINUSE when anybody listens there already: SO_REUSEPORT would share the port with another process of
 * our user without a word. Before the first listener_open() of this process. */
err_t listener_check(const struct endpoint *at) WARN_UNUSED;
/* Only binds, so that errors come at boot, before privileges go. Port 0 gets a free port. Any thread. */
err_t listener_bind(int *fd, const struct endpoint *at) WARN_UNUSED;
/* Listens (backlog 4096) on a bound socket that does not block, ours or somebody else's, which it owns then,
 * in case of an error too; accepts nothing yet. */
err_t listener_adopt(struct listener **out, int fd) WARN_UNUSED;
/* Both. Any thread before listener_start. */
err_t listener_open(struct listener **out, const struct endpoint *at) WARN_UNUSED;
const struct endpoint *listener_endpoint(const struct listener *ln);
/* On the loop's thread. Out of files (EMFILE/ENFILE) `no_files` gets who waits, by a descriptor that is kept
 * for this; when nobody does, or there is no memory for a socket, accepting pauses 100 ms. Logged once per
 * episode. */
void listener_start(struct listener *ln, struct loop *l, const struct listener_ops *ops, void *ctx);
void listener_pause(struct listener *ln); /* stop accepting, keep the socket */
void listener_resume(struct listener *ln);
/* Sends what fits without waiting, and closes. Nothing is sent of no words. */
void listener_turn_away(int fd, str_t words);
void listener_close(
    struct listener *ln); /* async; frees the listener after ops->closed. Not started: frees at once */

#endif
