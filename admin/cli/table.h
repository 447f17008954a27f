/* admin/cli/table.h: aligned columns for people. Cells are copied and made safe for a terminal. */
#ifndef ADMIN_CLI_TABLE_H
#define ADMIN_CLI_TABLE_H

#include "core/str.h"

#define TABLE_COLUMNS_MAX 12

struct table {
    const char *headings[TABLE_COLUMNS_MAX]; /* static */
    bool right[TABLE_COLUMNS_MAX];           /* numbers */
    size_t column_count;
    struct gbuf text; /* all cells, one behind the other; owned */
    size_t *ends;     /* of each cell in `text`; owned */
    size_t cell_count, cell_cap;
    bool out_of_memory;
};

/* Zero-init, then the columns, then the cells row by row. */
void table_column(struct table *t, const char *heading, bool right);
void table_cell(struct table *t, str_t s);                       /* absent or empty: "-" */
err_t table_write(const struct table *t, FILE *out) WARN_UNUSED; /* -ENOMEM: it was cut, nothing is written */
void table_free(struct table *t);

#endif
