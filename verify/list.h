/* verify/list.h: a file of recipients: an address per line, or "@domain" for all of it. Blank lines are
 * skipped, and what follows a '#' at the start of a line or after a blank (in an address '#' is a letter like
 * others). Immutable once loaded; shared by all threads, counted. Addresses stand there as keyed 128-bit
 * hashes: 32 to 64 bytes each, whatever their length. */
#ifndef VERIFY_LIST_H
#define VERIFY_LIST_H

#include "core/config.h"
#include "verify/verdict.h"

#define RECIPIENT_LIST_BYTES_MAX ((size_t)512 << 20) /* of the file: over ten million addresses */
#define RECIPIENT_LIST_NOTES_MAX 20                  /* bad lines that are named; the rest are counted */

struct recipient_list;

/* Which version of a file: all zero, none. */
struct file_mark {
    uint64_t device, inode, bytes;
    uint64_t modified_ns, changed_ns; /* wall clock */
};
bool file_mark_eq(const struct file_mark *a, const struct file_mark *b);
/* Not changed for a second: whoever writes it has come to an end, and what comes next will have another time.
 */
bool file_mark_is_settled(const struct file_mark *m, uint64_t now_wall_ns);

/* Blocking: boot, reload, a watcher. Bad lines are warnings with line and column in `d`, and are skipped; a
 * file that cannot be read is an error. With `previous` (may be NULL): when more than shrink_max_percent of
 * its entries are not in the new one, that is refused with ERR_LIMIT and a text that says how to confirm it:
 * half a file, or another's, looks just like that. `confirmed`: taken all the same. Keys are made by `rules`;
 * when those have changed since `previous`, only the numbers of entries are compared. */
err_t recipient_list_load(struct recipient_list **out, const char *path,
                          const struct verdict_key_rules *rules, const struct recipient_list *previous,
                          uint32_t shrink_max_percent, bool confirmed, struct diag *d) WARN_UNUSED;
/* The same of a text, without `previous`; d->file is its name. Fails only for want of memory. */
err_t recipient_list_parse(struct recipient_list **out, str_t text, const struct verdict_key_rules *rules,
                           struct diag *d) WARN_UNUSED;
/* The file is not, or not for certain, the version that was read. *now (may be NULL): which it is. Blocking.
 */
bool recipient_list_changed(const struct recipient_list *l, const char *path, struct file_mark *now);
struct recipient_list *recipient_list_ref(struct recipient_list *l);
void recipient_list_unref(struct recipient_list *l);                /* NULL is fine */
bool recipient_list_has(const struct recipient_list *l, str_t key); /* a key of verdict_key */
uint64_t recipient_list_count(const struct recipient_list *l);      /* "@domain" is one */

#endif
