/* core/diag.c: problems of a configuration, one line each (config.h). */
#include "core/config.h"

#define DIAG_LINES_MAX 1000 /* nobody reads more; a hostile file must not fill the memory with complaints */

/* What is quoted from the file must not reach a terminal as control sequences: C0, DEL and the C1 block of
 * UTF-8. */
static void clean(char *s)
{
    for (unsigned char *p = (unsigned char *)s; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
        else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
            p[0] = p[1] = '?';
    }
}

PRINTF_LIKE(4, 0)
static void diag_line(struct diag *d, struct mark m, const char *severity, const char *fmt, va_list ap)
{
    char line[1024];

    if (d->error_count + d->warning_count > DIAG_LINES_MAX)
        return;
    if (d->error_count + d->warning_count == DIAG_LINES_MAX) {
        gbuf_cstr(&d->text, "(further problems are not shown)\n");
        return;
    }
    vsnprintf(line, sizeof line, fmt, ap);
    clean(line);
    gbuf_cstr(&d->text, d->file ? d->file : "configuration");
    if (m.line > 0)
        gbuf_printf(&d->text, ":%d:%d", m.line, m.column);
    gbuf_printf(&d->text, ": %s: %s\n", severity, line);
}

void diag_error(struct diag *d, struct mark m, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    diag_line(d, m, "error", fmt, ap);
    va_end(ap);
    d->error_count++;
}

void diag_warning(struct diag *d, struct mark m, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    diag_line(d, m, "warning", fmt, ap);
    va_end(ap);
    d->warning_count++;
}

void diag_free(struct diag *d)
{
    gbuf_free(&d->text);
    d->error_count = d->warning_count = 0;
}
