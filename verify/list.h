/* verify/list.h: a file of recipients: an address per line, or "@domain" for all of it; blank lines and what
 * follows '#' are skipped. Immutable once loaded; shared by all threads, counted. */
#ifndef VERIFY_LIST_H
#define VERIFY_LIST_H

#include "core/config.h"
#include "verify/verdict.h"

struct recipient_list;

/* Blocking: boot, reload, a watcher. Bad lines are warnings with line and column in `d`, and are skipped; a
 * file that cannot be read is an error. With `previous` (may be NULL): a list that lost more than
 * shrink_max_percent of its entries is refused with ERR_LIMIT and a text that says how to confirm it.
 * `confirmed`: taken all the same. Keys are made by `rules`. */
err_t recipient_list_load(struct recipient_list **out, const char *path,
                          const struct verdict_key_rules *rules, const struct recipient_list *previous,
                          uint32_t shrink_max_percent, bool confirmed, struct diag *d) WARN_UNUSED;
struct recipient_list *recipient_list_ref(struct recipient_list *l);
void recipient_list_unref(struct recipient_list *l);                /* NULL is fine */
bool recipient_list_has(const struct recipient_list *l, str_t key); /* a key of verdict_key */
uint64_t recipient_list_count(const struct recipient_list *l);

#endif
