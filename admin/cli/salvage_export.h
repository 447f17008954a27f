/* admin/cli/salvage_export.h: salvaged messages as an export that `postern queue import` takes. */
#ifndef ADMIN_CLI_SALVAGE_EXPORT_H
#define ADMIN_CLI_SALVAGE_EXPORT_H

#include "admin/cli/export_file.h"
#include "queue/salvage.h"

/* One without a whole envelope cannot be delivered. */
bool salvage_can_export(const struct salvage *s, const struct salvage_message *m);
/* What is damaged, or lacks something, goes in held: somebody shall look at it before it is sent. False after
 * telling why. */
bool salvage_export(const struct salvage *s, const struct salvage_message *m, struct export_file *x);
/* Instead of bytes that are missing; without the line's end. */
void salvage_say_missing(size_t n, struct sbuf *out);

#endif
