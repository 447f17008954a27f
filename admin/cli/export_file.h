/* admin/cli/export_file.h: a file of exported messages being written (docs/export-format.md). Errors are told
 * on standard error; false: there is one. */
#ifndef ADMIN_CLI_EXPORT_FILE_H
#define ADMIN_CLI_EXPORT_FILE_H

#include "admin/transfer.h"

struct export_file {
    int fd; /* owned, unless it is the standard output */
    char nonce[TRANSFER_NONCE_CHARS + 1];
};

/* Makes `name`, which may not be there ("-" or NULL: the standard output), and writes its first line. */
bool export_file_create(struct export_file *x, const char *name);
/* A record as transfer_write() makes it. ERR_CORRUPT: it is none, nothing was written; else an error that was
 * told. */
err_t export_file_put(struct export_file *x, str_t record) WARN_UNUSED;
/* When it is there, all before it is on the disk. */
bool export_file_mark(struct export_file *x, enum transfer_item item, uint64_t count);
bool export_file_close(struct export_file *x);

#endif
