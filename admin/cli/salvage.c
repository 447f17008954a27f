/* admin/cli/salvage.c: `postern queue salvage`: what can be had of mail whose ring is damaged. Reads files
 * and asks no daemon. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "admin/cli/cli.h"
#include "admin/cli/salvage_export.h"
#include "admin/cli/text.h"
#include "core/clock.h"
#include "core/log.h"
#include "smtp/proto/envelope.h"

#define SPOOL_DEFAULT "/var/spool/postern"
#define SUPER_BYTES   8192
#define BLOCK_BYTES   (1u << 20)
#define SECTOR_BYTES  4096u
#define PATH_BYTES    4096

struct job {
    const struct cli *cli;
    unsigned message_count, left_count, written_count, failed_count, exported_count, unfit_count;
    struct export_file export; /* with cli->output */
    json_t *json;              /* owned; NULL: text */
};

/* ---- telling ---- */

static void write_safe(FILE *out, str_t s)
{
    char *safe = malloc(MAX(s.n, (size_t)1));
    if (safe)
        fwrite(safe, 1, text_safe(safe, s), out);
    free(safe);
}

static str_t sender_of(const struct salvage_message *m, bool *known)
{
    struct envelope e;
    *known = m->has_envelope && envelope_decode(m->meta, &e) == 0;
    return *known ? e.sender : STR_NONE;
}

static str_t rcpt_of(const struct salvage *s, const struct salvage_message *m, uint32_t index,
                     enum rcpt_state *state)
{
    struct envelope_rcpt r;
    str_t blob = salvage_rcpt(s, m, index, state);
    return envelope_rcpt_decode(blob, &r) == 0 ? r.address : STR("?");
}

static const char *state_name(enum rcpt_state state)
{
    switch (state) {
    case RCPT_DELIVERED: return "delivered";
    case RCPT_REPORT_DUE: return "delivered, report due";
    case RCPT_BOUNCED: return "bounced";
    case RCPT_REMOVED: return "removed";
    case RCPT_PENDING: break;
    }
    return "pending";
}

static void condition(const struct salvage_message *m, struct sbuf *out)
{
    if (!m->has_envelope)
        sbuf_cstr(out, "pieces of a body, the envelope is lost");
    else if (m->missing_bytes > 0)
        sbuf_printf(out, "%llu of %llu bytes are missing", (unsigned long long)m->missing_bytes,
                    (unsigned long long)m->body_bytes);
    else if (m->damaged_bytes > 0)
        sbuf_printf(out, "pieces of %llu bytes are not what was received",
                    (unsigned long long)m->damaged_bytes);
    else
        sbuf_cstr(out, m->envelope_damaged ? "whole, but for its envelope's checksum" : "whole");
}

static void tell(const struct salvage *s, const struct salvage_message *m)
{
    char id[16], size_text[32], text[128];
    struct sbuf size = SBUF_ON(size_text), what = SBUF_ON(text);
    bool known;
    enum rcpt_state state;
    str_t sender = sender_of(m, &known);
    text_size(&size, m->body_bytes);
    condition(m, &what);
    printf("%.*s  " STR_FMT "  " STR_FMT, (int)qid_format(m->id, id), id, STR_ARG(sbuf_view(&size)),
           STR_ARG(sbuf_view(&what)));
    if (known) {
        fputs("  from <", stdout);
        write_safe(stdout, sender);
        fputs("> to <", stdout);
        write_safe(stdout, rcpt_of(s, m, 0, &state));
        fputc('>', stdout);
        if (m->rcpt_count > 1)
            printf(" and %u more", m->rcpt_count - 1);
    }
    fputc('\n', stdout);
}

static void tell_json(struct job *j, const char *path, const struct salvage_message *m)
{
    char id[16], text[128], date[40];
    struct sbuf what = SBUF_ON(text);
    bool known;
    str_t sender = sender_of(m, &known);
    condition(m, &what);
    json_t *o = json_pack("{s:s, s:s%, s:s%, s:I, s:I, s:I, s:i, s:b}", "file", path, "id", id,
                          qid_format(m->id, id), "condition", text, what.n, "size", (json_int_t)m->body_bytes,
                          "missing", (json_int_t)m->missing_bytes, "damaged", (json_int_t)m->damaged_bytes,
                          "recipients", (int)m->rcpt_count, "envelope", m->has_envelope);
    if (known && str_is_utf8(sender))
        json_object_set_new(o, "sender", json_stringn(sender.p, sender.n));
    if (m->has_envelope)
        json_object_set_new(o, "arrived", json_stringn(date, clock_rfc3339(m->arrived_ms * NS_PER_MS, date)));
    json_array_append_new(j->json, o);
}

/* ---- writing ---- */

struct eml {
    FILE *f;
    bool at_line_start;
};

/* As it was before SMTP: without the dots in front of dots. */
static void write_piece(void *ctx, const uint8_t *p, size_t n, bool damaged)
{
    struct eml *e = ctx;
    if (!p) {
        char text[64];
        struct sbuf note = SBUF_ON(text);
        salvage_say_missing(n, &note);
        fprintf(e->f, "%s" STR_FMT "\r\n", e->at_line_start ? "" : "\r\n", STR_ARG(sbuf_view(&note)));
        e->at_line_start = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (!(e->at_line_start && p[i] == '.'))
            fputc(p[i], e->f);
        e->at_line_start = p[i] == '\n';
    }
}

static void write_envelope(const struct salvage *s, const struct salvage_message *m, FILE *f)
{
    char id[16], text[128], date[40];
    struct sbuf what = SBUF_ON(text);
    bool known;
    str_t sender = sender_of(m, &known);
    condition(m, &what);
    fprintf(f, "X-Postern-Id: %.*s\r\nX-Postern-Salvage: " STR_FMT "\r\n", (int)qid_format(m->id, id), id,
            STR_ARG(sbuf_view(&what)));
    if (!m->has_envelope)
        return;
    fprintf(f, "X-Postern-Arrived: %.*s\r\n", (int)clock_rfc3339(m->arrived_ms * NS_PER_MS, date), date);
    if (known) {
        fputs("X-Postern-Sender: <", f);
        write_safe(f, sender);
        fputs(">\r\n", f);
    }
    for (uint32_t i = 0; i < m->rcpt_count; i++) {
        enum rcpt_state state;
        str_t address = rcpt_of(s, m, i, &state);
        fputs("X-Postern-Recipient: <", f);
        write_safe(f, address);
        fprintf(f, ">; %s\r\n", state_name(state));
    }
}

static bool write_eml(const struct job *j, const struct salvage *s, const struct salvage_message *m)
{
    char path[PATH_BYTES], id[16];
    int n = (int)qid_format(m->id, id);
    snprintf(path, sizeof path, "%s/%.*s.eml", j->cli->to, n, id);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    struct eml e = {.f = fd < 0 ? NULL : fdopen(fd, "w"), .at_line_start = true};
    if (!e.f) {
        fprintf(stderr, "postern: %s: %s\n", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    write_envelope(s, m, e.f);
    fwrite(m->trace.p ? m->trace.p : "", 1, m->trace.n, e.f);
    if (!m->has_envelope)
        fputs("\r\n", e.f); /* who knows where its header ended */
    salvage_body(s, m, write_piece, &e);
    bool ok = !ferror(e.f) && fflush(e.f) == 0 && fsync(fd) == 0;
    ok = fclose(e.f) == 0 && ok;
    if (!ok)
        fprintf(stderr, "postern: %s: cannot be written: %s\n", path, strerror(errno));
    return ok;
}

static void export(struct job *j, const struct salvage *s, const struct salvage_message *m)
{
    if (!salvage_can_export(s, m))
        j->unfit_count++;
    else if (salvage_export(s, m, &j->export))
        j->exported_count++;
    else
        j->failed_count++;
}

/* ---- files ---- */

static void all_of(struct job *j, const char *path, const struct salvage *s)
{
    for (size_t i = 0; i < salvage_count(s); i++) {
        const struct salvage_message *m = salvage_at(s, i);
        if (m->has_left) {
            j->left_count++;
            continue;
        }
        j->message_count++;
        if (j->json)
            tell_json(j, path, m);
        else
            tell(s, m);
        if (j->cli->to) {
            if (write_eml(j, s, m))
                j->written_count++;
            else
                j->failed_count++;
        }
        if (j->cli->output)
            export(j, s, m);
    }
}

/* The superblocks of the ring that corrupt/ring-NN-….bin is of, if it is still there. */
static bool super_of(const char *path, uint8_t *super)
{
    char ring[PATH_BYTES];
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    if (strncmp(name, "ring-", 5) != 0 || strlen(name) < 7)
        return false;
    snprintf(ring, sizeof ring, "%.*s../%.7s", (int)(name - path), path, name);
    int fd = open(ring, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = pread(fd, super, SUPER_BYTES, 0) == SUPER_BYTES;
    close(fd);
    return ok;
}

static err_t salvage_bytes(const char *path, const uint8_t *p, size_t n, struct salvage **out)
{
    uint8_t super[SUPER_BYTES];
    bool is_ring = n > (1 << 20) && memcmp(p, "PSTNRNG1", 8) == 0;
    if (is_ring)
        return salvage_open(out, p, n, p);
    err_t err = super_of(path, super) ? salvage_open(out, p, n, super) : ERR_NOT_FOUND;
    if (!err && salvage_count(*out) > 0)
        return 0;
    if (!err) /* the ring was made anew since: its salt is another one */
        salvage_close(*out);
    return salvage_open(out, p, n, NULL);
}

/* Into memory rather than mapped: a sick disk would kill us by SIGBUS. What cannot be read stays zero, and so
 * costs no memory, as what is zero. */
static uint64_t read_blocks(int fd, uint8_t *to, size_t n)
{
    static uint8_t block[BLOCK_BYTES];
    static const uint8_t zeros[BLOCK_BYTES];
    uint64_t unreadable = 0;
    for (size_t at = 0, step = sizeof block; at < n;) {
        ssize_t got = pread(fd, block, MIN(step, n - at), (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 && step == sizeof block) {
            step = SECTOR_BYTES; /* around the bad one */
            continue;
        }
        size_t moved = got > 0 ? (size_t)got : MIN(step, n - at);
        if (got <= 0)
            unreadable += moved;
        else if (memcmp(block, zeros, moved) != 0)
            memcpy(to + at, block, moved);
        at += moved;
        if (at % sizeof block == 0)
            step = sizeof block;
    }
    return unreadable;
}

static void salvage_read(struct job *j, const char *path, const uint8_t *p, size_t n)
{
    struct salvage *s;
    err_t err = salvage_bytes(path, p, n, &s);
    if (!j->json)
        printf("%s:%s\n", path, err == ERR_NOT_FOUND ? " no whole record, nothing can be told from it" : "");
    if (err && err != ERR_NOT_FOUND) {
        fprintf(stderr, "postern: %s: %s\n", path, err_text(err));
        j->failed_count++;
    }
    if (err)
        return;
    all_of(j, path, s);
    salvage_close(s);
}

static bool file_failed(struct job *j, const char *path, const char *why)
{
    fprintf(stderr, "postern: %s: %s\n", path, why);
    j->failed_count++;
    return false;
}

static bool one_file(struct job *j, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_failed(j, path, strerror(errno));
    bool ok = fstat(fd, &st) == 0 && st.st_size > 0;
    size_t n = ok ? (size_t)st.st_size : 0;
    void *p = ok ? mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                 : MAP_FAILED;
    if (p == MAP_FAILED) {
        close(fd);
        return file_failed(j, path, ok ? "no memory for it" : "there is nothing in it");
    }
    uint64_t unreadable = read_blocks(fd, p, n);
    close(fd);
    if (unreadable > 0)
        fprintf(stderr, "postern: %s: %llu bytes cannot be read\n", path, (unsigned long long)unreadable);
    salvage_read(j, path, p, n);
    munmap(p, n);
    return true;
}

static int is_kept(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 4 && strcmp(e->d_name + n - 4, ".bin") == 0;
}

/* A folder of kept bytes, or a spool that has one. False: it cannot be read. */
static bool one_folder(struct job *j, const char *path)
{
    char inner[PATH_BYTES], file[PATH_BYTES * 2];
    struct dirent **names;
    struct stat st;
    snprintf(inner, sizeof inner, "%s/corrupt", path);
    if (stat(inner, &st) == 0 && S_ISDIR(st.st_mode))
        path = inner;
    int count = scandir(path, &names, is_kept, alphasort);
    if (count < 0)
        return false;
    for (int i = 0; i < count; i++) {
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        one_file(j, file);
        free(names[i]);
    }
    free(names);
    return true;
}

static void sum_up(const struct job *j)
{
    printf("%u messages", j->message_count);
    if (j->cli->to)
        printf(", %u written to %s", j->written_count, j->cli->to);
    if (j->cli->output)
        printf(", %u exported to %s", j->exported_count, j->cli->output);
    if (j->unfit_count > 0)
        printf("; %u cannot be exported, as their envelopes are lost or damaged (--to writes what there is)",
               j->unfit_count);
    if (j->left_count > 0)
        printf("; %u others have been delivered or removed", j->left_count);
    putchar('\n');
}

/* The same message may be in several files of corrupt/, and in the ring: import takes each once. */
static bool export_end(struct job *j)
{
    bool ok = export_file_mark(&j->export, TRANSFER_SEALED, j->exported_count) &&
              export_file_mark(&j->export, TRANSFER_END, j->exported_count);
    return export_file_close(&j->export) && ok;
}

int cli_salvage(const struct cli *cli)
{
    const char *path = cli->operand_count ? cli->operands[0] : SPOOL_DEFAULT;
    struct job j = {.cli = cli, .json = cli->json ? json_array() : NULL};
    struct stat st;
    if (cli->to && mkdir(cli->to, 0700) < 0 && errno != EEXIST) {
        fprintf(stderr, "postern: cannot make %s: %s\n", cli->to, strerror(errno));
        return EX_CANTCREAT;
    }
    if (cli->output && !strcmp(cli->output, "-"))
        return cli_usage("queue salvage writes its export to a file: -o FILE");
    if (cli->output && !export_file_create(&j.export, cli->output))
        return EX_CANTCREAT;
    bool ok = stat(path, &st) == 0;
    if (ok && S_ISDIR(st.st_mode))
        ok = one_folder(&j, path);
    else if (ok)
        one_file(&j, path);
    if (!ok) {
        fprintf(stderr, "postern: %s: %s\n", path, strerror(errno));
        json_decref(j.json);
        return EX_NOINPUT;
    }
    if (cli->output && !export_end(&j))
        j.failed_count++;
    if (j.json)
        cli_write_json(j.json);
    else
        sum_up(&j);
    json_decref(j.json);
    return j.failed_count > 0 ? EXIT_REFUSED : EXIT_SUCCESS;
}
