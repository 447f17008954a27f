/* admin/transfer_file.c: files of records, and how to find the next one behind damage. */
#include <errno.h>

#include "admin/transfer_priv.h"

#define FIRST_LINE "postern-export 1 "

/* Of the numbers in a mark: a length that is wrong by one digit must not swallow what follows. */
static uint32_t check_of(str_t s)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.p[i]) * 16777619u;
    return h;
}

/* --- writing --- */

void transfer_put_open(struct gbuf *out, const char *nonce, str_t text)
{
    gbuf_printf(out, FIRST_LINE "%s " STR_FMT "\n", nonce, STR_ARG(text));
}

void transfer_put_mark(struct gbuf *out, const char *nonce, enum transfer_item item, uint64_t count)
{
    gbuf_printf(out, "@%s %s %llu\n", nonce, item == TRANSFER_END ? "end" : "sealed",
                (unsigned long long)count);
}

err_t transfer_put_record(struct gbuf *out, const char *nonce, str_t record)
{
    str_t line, rest;
    struct transfer_head head;
    if (!str_cut(record, '\n', &line, &rest) || !transfer_head(line, &head) ||
        rest.n != head.json_bytes + head.data_bytes + 2)
        return ERR_CORRUPT;
    gbuf_printf(out, "@%s message %08x " STR_FMT "\n", nonce, (unsigned)check_of(line), STR_ARG(line));
    gbuf_str(out, rest);
    return out->overflow ? -ENOMEM : 0;
}

/* --- reading --- */

/* The next line without its end; of one that is too long for a mark, the beginning. False: the end. */
static bool read_line(struct transfer_file *t)
{
    size_t n = 0;
    int c;
    while ((c = getc(t->f)) != EOF && c != '\n')
        if (n < sizeof t->line - 1)
            t->line[n++] = (char)(c ? c : ' ');
    t->line[n] = '\0';
    return n > 0 || c != EOF;
}

static bool is_mark(const struct transfer_file *t)
{
    return !strncmp(t->line, t->mark, strlen(t->mark));
}

err_t transfer_open(struct transfer_file *t, FILE *f)
{
    char first[4096];
    size_t n = 0;
    int c;
    *t = (struct transfer_file){.f = f};
    while (n < sizeof first - 1 && (c = getc(f)) != EOF && c != '\n')
        first[n++] = (char)c;
    str_t line = str_of(first, n), nonce;
    if (!str_starts(line, STR("postern-export ")))
        return ERR_SYNTAX;
    if (!str_starts(line, STR(FIRST_LINE)))
        return ERR_VERSION;
    str_cut(str_sub(line, strlen(FIRST_LINE), n), ' ', &nonce, &line);
    if (nonce.n != TRANSFER_NONCE_CHARS)
        return ERR_SYNTAX;
    for (size_t i = 0; i < nonce.n; i++) /* hex digits: a NUL would make any line a mark */
        if (!((nonce.p[i] >= '0' && nonce.p[i] <= '9') || (nonce.p[i] >= 'a' && nonce.p[i] <= 'f')))
            return ERR_SYNTAX;
    snprintf(t->mark, sizeof t->mark, "@" STR_FMT " ", STR_ARG(nonce));
    return 0;
}

/* To the next mark, which stays in t->line. */
static err_t skip(struct transfer_file *t)
{
    while (read_line(t))
        if (is_mark(t))
            return ERR_CORRUPT;
    t->line[0] = '\0';
    t->at_end = true;
    return ERR_CORRUPT;
}

static bool read_bytes(struct transfer_file *t, size_t n, struct gbuf *out)
{
    char piece[65536];
    while (n > 0) {
        size_t got = fread(piece, 1, MIN(n, sizeof piece), t->f);
        if (got == 0)
            return false;
        gbuf_put(out, piece, got);
        n -= got;
    }
    return !out->overflow;
}

/* Behind a record stands a mark, or the end. If not, bytes are missing or too many: the next mark is looked
 * for from where the content began. */
static err_t read_content(struct transfer_file *t, const struct transfer_head *head, struct gbuf *out)
{
    off_t from = ftello(t->f);
    bool whole = read_bytes(t, head->json_bytes + head->data_bytes + 2, out);
    if (out->overflow)
        return -ENOMEM;
    bool more = whole && read_line(t);
    if (whole && (more ? is_mark(t) : true)) {
        if (!more)
            t->line[0] = '\0';
        t->at_end = !more;
        return 0;
    }
    if (from < 0 || fseeko(t->f, from, SEEK_SET))
        return ERR_CORRUPT;
    return skip(t);
}

/* "message CHECK JSON_BYTES DATA_BYTES CRC" */
static err_t read_record(struct transfer_file *t, str_t rest, struct gbuf *out)
{
    str_t check, line;
    char expected[9];
    struct transfer_head head;
    str_cut(rest, ' ', &check, &line);
    snprintf(expected, sizeof expected, "%08x", (unsigned)check_of(line));
    if (!str_eq(check, str_cstr(expected)) || !transfer_head(line, &head))
        return skip(t);
    out->max = TRANSFER_JSON_MAX + TRANSFER_DATA_MAX;
    gbuf_str(out, line);
    gbuf_cstr(out, "\n");
    return read_content(t, &head, out);
}

err_t transfer_next(struct transfer_file *t, enum transfer_item *item, struct gbuf *out)
{
    out->n = 0;
    out->overflow = false;
    if (t->at_end || (!t->line[0] && !read_line(t)))
        return ERR_EOF;
    if (!is_mark(t))
        return skip(t);
    char line[sizeof t->line];
    memcpy(line, t->line, sizeof line);
    t->line[0] = '\0';
    str_t kind, rest;
    str_cut(str_cstr(line + strlen(t->mark)), ' ', &kind, &rest);
    if (str_eq(kind, STR("message"))) {
        *item = TRANSFER_RECORD;
        return read_record(t, rest, out);
    }
    bool is_end = str_eq(kind, STR("end"));
    if (!is_end && !str_eq(kind, STR("sealed")))
        return ERR_CORRUPT;
    *item = is_end ? TRANSFER_END : TRANSFER_SEALED;
    t->at_end = is_end;
    return 0;
}
