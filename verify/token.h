/* verify/token.h: the local part of a probe's sender: "postern-probe-" and 24 letters, which are the hour and
 * a keyed hash of it. A server that asks back about its recipient, or a gateway that passes the sender on
 * with a question of its own, shows us the token again: a loop. Pure but for the hash; any thread. */
#ifndef VERIFY_TOKEN_H
#define VERIFY_TOKEN_H

#include "core/str.h"

#define TOKEN_PREFIX    "postern-probe-"
#define TOKEN_LETTERS   24
#define TOKEN_KEY_BYTES 32
#define TOKEN_HOURS     24 /* how old a token may be and still be ours */

void token_write(const uint8_t key[TOKEN_KEY_BYTES], uint64_t wall_s, struct sbuf *out);
bool token_has_form(str_t local); /* any gateway's */
bool token_is_ours(const uint8_t key[TOKEN_KEY_BYTES], str_t local, uint64_t wall_s);

#endif
