/* admin/cli/table.c: see table.h. */
#include "admin/cli/table.h"

#include <errno.h>

#include "admin/cli/text.h"

void table_column(struct table *t, const char *heading, bool right)
{
    must(t->column_count < TABLE_COLUMNS_MAX && t->cell_count == 0);
    t->headings[t->column_count] = heading;
    t->right[t->column_count++] = right;
}

void table_cell(struct table *t, str_t s)
{
    if (t->cell_count == t->cell_cap) {
        size_t cap = MAX((size_t)64, 2 * t->cell_cap);
        size_t *ends = realloc(t->ends, cap * sizeof *ends);
        if (!ends) {
            t->out_of_memory = true;
            return;
        }
        t->ends = ends;
        t->cell_cap = cap;
    }
    if (s.n == 0)
        s = STR("-");
    char *safe = malloc(s.n);
    if (safe)
        gbuf_put(&t->text, safe, text_safe(safe, s));
    if (!safe || t->text.overflow)
        t->out_of_memory = true;
    free(safe);
    t->ends[t->cell_count++] = t->text.n;
}

static str_t cell(const struct table *t, size_t i)
{
    size_t from = i ? t->ends[i - 1] : 0;
    return str_of(t->text.p + from, t->ends[i] - from);
}

static void write_cell(FILE *out, str_t s, size_t width, bool right, bool last)
{
    int pad = (int)(width - text_width(s));
    if (right)
        fprintf(out, "%*s", pad, "");
    fwrite(s.p, 1, s.n, out);
    if (last)
        fputc('\n', out);
    else
        fprintf(out, "%*s", right ? 2 : pad + 2, "");
}

err_t table_write(const struct table *t, FILE *out)
{
    size_t width[TABLE_COLUMNS_MAX];
    if (t->out_of_memory)
        return -ENOMEM;
    for (size_t k = 0; k < t->column_count; k++)
        width[k] = strlen(t->headings[k]);
    for (size_t i = 0; i < t->cell_count; i++) {
        size_t k = i % t->column_count, n = text_width(cell(t, i));
        width[k] = MAX(width[k], n);
    }
    for (size_t k = 0; k < t->column_count; k++)
        write_cell(out, str_cstr(t->headings[k]), width[k], t->right[k], k + 1 == t->column_count);
    for (size_t i = 0; i < t->cell_count; i++) {
        size_t k = i % t->column_count;
        write_cell(out, cell(t, i), width[k], t->right[k], k + 1 == t->column_count);
    }
    return 0;
}

void table_free(struct table *t)
{
    gbuf_free(&t->text);
    free(t->ends);
    *t = (struct table){0};
}
