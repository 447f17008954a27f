/* net/tls_priv.h: what the two halves of TLS share: contexts (files, policy) and sessions (bytes). */
#ifndef NET_TLS_PRIV_H
#define NET_TLS_PRIV_H

#include <openssl/ssl.h>

#include "net/tls.h"

struct tls_context {
    SSL_CTX *ctx;  /* owned */
    unsigned refs; /* atomic */
    bool is_server, verify;
};

/* The oldest entry of the library's error queue in plain words ("wrong version number"); empties the queue.
 */
void tls_queue_text(struct sbuf *out);

#endif
