/* admin/cli/text.h: numbers and text as people read them. Pure. */
#ifndef ADMIN_CLI_TEXT_H
#define ADMIN_CLI_TEXT_H

#include "core/str.h"

void text_age(struct sbuf *out, double seconds);  /* 45s, 12m, 3h12m, 5d3h */
void text_size(struct sbuf *out, uint64_t bytes); /* 512 B, 20 KiB, 1.5 GiB */
/* "in 4m" or "now" for an RFC 3339 time in UTC; what cannot be read as one is shown as it is. */
void text_until(struct sbuf *out, str_t rfc3339, uint64_t now_wall_ns);
/* UTF-8 for a terminal: control characters and marks that reorder text become '?'. Reasons and addresses come
 * from strangers, who must not paint on the administrator's screen. Writes at most s.n bytes; returns how
 * many. */
size_t text_safe(char *out, str_t s);
size_t text_width(str_t s); /* in characters */

#endif
