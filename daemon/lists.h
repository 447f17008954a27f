/* daemon/lists.h: the files of recipients that `verify: { list: }` names: read, watched, and their sizes
 * remembered over restarts, so that half a file is noticed then, too. Main thread, or under the gateway's
 * lock.
 *
 * A file is read again at a reload, and by itself about a second after it was last changed (inotify on its
 * folder, for editors rename; where the file system tells nothing, as NFS does, within minutes). One that
 * cannot be read or lost too much is refused, and what was in force stays. After a start nothing was in
 * force: what is in the file counts then, and who is not in it is answered "later". */
#ifndef DAEMON_LISTS_H
#define DAEMON_LISTS_H

#include <jansson.h>

#include "verify/verifier.h"

#define LISTS_SETTLE_MS 1000 /* a file that was changed less long ago is still being written */

enum lists_rule {
    LISTS_STRICT,    /* boot, reload: a file that is refused is an error */
    LISTS_CONFIRMED, /* as many as are missing */
    LISTS_KEEP,      /* nobody asked for it: a file that is refused leaves what was in force */
};

struct lists {
    int fd;       /* inotify; readable: something happened beside a list. -1: none, so only minutes help */
    int *watches; /* owned */
    size_t watch_count;
    char *path;          /* owned: in the spool, JSON {"version": 1, "lists": [{"path", "fold_case", "tags",
                            "entries"}]} */
    json_t *remembered;  /* owned: "lists" */
    bool is_write_noted; /* that it cannot be written was said */
    int64_t told_entries, told_held_back; /* to the metrics, which sum what threads add */
};

/* Reads what is remembered; a damaged file is a note and nothing remembered. */
err_t lists_open(struct lists *l, str_t spool_directory, struct gbuf *notes) WARN_UNUSED;
void lists_close(struct lists *l); /* a zeroed one is fine */

/* All lists of `c`. *out (owned, lists_free) refers to its paths. Those of `previous` go on where nothing
 * changed. `l` NULL: nothing is remembered, nothing logged. Blocking. ERR_CONFIG with the reason in `d`;
 * -ENOMEM. */
err_t lists_load(struct verify_list **out, size_t *count, const struct config *c,
                 const struct verify_list *previous, size_t previous_count, const struct lists *l,
                 enum lists_rule rule, struct diag *d) WARN_UNUSED;
void lists_free(struct verify_list *lists, size_t count);

/* They are about to be in force: watches their folders and remembers their sizes. Blocking. */
void lists_in_force(struct lists *l, struct verify_list *lists, size_t count);

enum lists_news { LISTS_SAME, LISTS_UNSETTLED, LISTS_CHANGED };
enum lists_news lists_look(const struct verify_list *lists, size_t count); /* at the files; one stat each */
void lists_drain(struct lists *l);                                         /* the fd */

#endif
