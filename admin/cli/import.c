/* admin/cli/import.c: `postern queue import`: exported messages into this queue, each once however often it
 * is tried.
 *
 * Messages keep their ids, so one that is here is not taken again. They come in held, and are released when
 * all are in: none can leave, and be taken again, before FILE.imported says that only the release is left. */
#include "admin/cli/cli.h"
#include "admin/cli/show.h"
#include "admin/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <sysexits.h>
#include <unistd.h>

#define RELEASE_COUNT 2000 /* ids a request */
#define ID_CHARS      13

enum stage { STAGE_NEW, STAGE_RELEASE, STAGE_DONE };

struct import {
    const struct cli *cli;
    const char *name;
    FILE *f;
    char marker[4096]; /* empty: none */
    off_t sealed_at;   /* what stands behind was not let go by the node that it comes from */
    bool complete;
    uint64_t queued_count, there_count, damaged_count, unsealed_count;
    struct gbuf release; /* ids, one a line */
};

/* --- FILE.imported --- */

static enum stage read_stage(const struct import *m)
{
    char text[16] = "";
    FILE *f = m->marker[0] ? fopen(m->marker, "r") : NULL;
    if (!f)
        return STAGE_NEW;
    bool some = fgets(text, sizeof text, f) != NULL;
    fclose(f);
    return some && !strncmp(text, "done", 4) ? STAGE_DONE : STAGE_RELEASE;
}

static bool write_stage(const struct import *m, const char *text)
{
    if (!m->marker[0])
        return true;
    int fd = open(m->marker, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fsync(fd) == 0;
    if (!ok)
        fprintf(stderr, "postern: %s: %s\n", m->marker, strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok;
}

/* --- the file --- */

static bool open_file(struct import *m)
{
    char piece[65536];
    size_t n;
    if (strcmp(m->name, "-") != 0) {
        m->f = fopen(m->name, "re");
        snprintf(m->marker, sizeof m->marker, "%s.imported", m->name);
    } else if ((m->f = tmpfile())) { /* it is read twice */
        while ((n = fread(piece, 1, sizeof piece, stdin)) > 0)
            if (fwrite(piece, 1, n, m->f) != n)
                break;
        if (ferror(stdin) || fflush(m->f)) {
            fclose(m->f);
            m->f = NULL;
        }
    }
    if (!m->f)
        fprintf(stderr, "postern: %s: %s\n", m->name, strerror(errno));
    return m->f != NULL;
}

static bool rewind_file(struct import *m, struct transfer_file *t)
{
    rewind(m->f);
    err_t err = transfer_open(t, m->f);
    if (err == ERR_VERSION)
        fprintf(stderr, "postern: %s: made by a later version of Postern\n", m->name);
    else if (err)
        fprintf(stderr, "postern: %s is no export of a Postern queue\n", m->name);
    return !err;
}

/* Finds the last mark, and with it what counts. */
static bool survey(struct import *m)
{
    struct transfer_file t;
    enum transfer_item item;
    struct gbuf record = {0};
    uint64_t behind = 0;
    err_t err;
    if (!rewind_file(m, &t))
        return false;
    while ((err = transfer_next(&t, &item, &record)) != ERR_EOF) {
        if (err && err != ERR_CORRUPT)
            break;
        behind += !err && item == TRANSFER_RECORD;
        if (err || item == TRANSFER_RECORD)
            continue;
        m->sealed_at = ftello(m->f);
        m->complete = item == TRANSFER_END;
        behind = 0;
    }
    m->unsealed_count = behind;
    gbuf_free(&record);
    if (err != ERR_EOF)
        fprintf(stderr, "postern: %s: %s\n", m->name, err_text(err));
    return err == ERR_EOF;
}

/* --- one message --- */

static void note_release(struct import *m, str_t record)
{
    str_t line, rest, id;
    json_error_t bad;
    str_cut(record, '\n', &line, &rest);
    json_t *o = json_loadb(rest.p, rest.n, JSON_DISABLE_EOF_CHECK, &bad);
    const json_t *v = json_object_get(o, "id");
    id = json_is_string(v) ? str_of(json_string_value(v), json_string_length(v)) : STR_NONE;
    if (id.n == ID_CHARS && !json_is_true(json_object_get(o, "held"))) {
        gbuf_str(&m->release, id);
        gbuf_cstr(&m->release, "\n");
    }
    json_decref(o);
}

/* False: it cannot go on. */
static bool import_one(struct import *m, str_t record, int *status)
{
    struct client_reply r;
    err_t err = client_ask(m->cli->client, "/api/v1/queue/import?parked=1", record, &r);
    json_t *json = err || !r.body.n ? NULL : json_loadb(r.body.p, r.body.n, 0, NULL);
    const char *result = json_string_value(json_object_get(json, "result"));
    bool queued = result && !strcmp(result, "queued"), there = result && !strcmp(result, "there");
    bool ok = true;
    if (err) {
        cli_explain(m->cli, err, &r, status);
        ok = false;
    } else if (queued || there) {
        m->queued_count += queued;
        m->there_count += there;
        note_release(m, record);
    } else if (result && !strcmp(result, "damaged")) {
        const char *why = json_string_value(json_object_get(json, "error"));
        fprintf(stderr, "postern: %s: a message is damaged: %s\n", m->name, why ? why : "-");
        m->damaged_count++;
    } else {
        show_error(json, r.status, stderr);
        ok = false;
    }
    json_decref(json);
    client_reply_free(&r);
    return ok;
}

static bool import_all(struct import *m, bool send, int *status)
{
    struct transfer_file t;
    enum transfer_item item;
    struct gbuf record = {0};
    bool ok = rewind_file(m, &t);
    while (ok && ftello(m->f) < m->sealed_at) {
        err_t err = transfer_next(&t, &item, &record);
        if (err == ERR_EOF)
            break;
        if (err == ERR_CORRUPT) {
            fprintf(stderr, "postern: %s: something is damaged; what follows is taken\n", m->name);
            m->damaged_count++;
        } else if (err) {
            fprintf(stderr, "postern: %s: %s\n", m->name, err_text(err));
            ok = false;
        } else if (item == TRANSFER_RECORD) {
            if (send)
                ok = import_one(m, gbuf_view(&record), status);
            else
                note_release(m, gbuf_view(&record));
        }
    }
    gbuf_free(&record);
    return ok;
}

/* Those that are not here any more were released before. */
static bool release_all(struct import *m, int *status)
{
    str_t rest = gbuf_view(&m->release);
    while (rest.n > 0) {
        str_t some = str_sub(rest, 0, (size_t)RELEASE_COUNT * (ID_CHARS + 1));
        json_t *json = cli_ask(m->cli, "/api/v1/queue/release?why=imported", some, status);
        if (!json)
            return false;
        json_decref(json);
        rest = str_sub(rest, some.n, rest.n);
    }
    return true;
}

/* --- a file --- */

static void tell(const struct import *m)
{
    if (m->cli->json) {
        json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:I, s:b}", "file", m->name, "imported",
                              (json_int_t)m->queued_count, "there", (json_int_t)m->there_count, "damaged",
                              (json_int_t)m->damaged_count, "unsealed", (json_int_t)m->unsealed_count,
                              "complete", m->complete);
        cli_write_json(o);
        json_decref(o);
        return;
    }
    printf("%llu message%s imported", (unsigned long long)m->queued_count, m->queued_count == 1 ? "" : "s");
    if (m->there_count)
        printf(", %llu were here", (unsigned long long)m->there_count);
    if (m->damaged_count)
        printf(", %llu are damaged", (unsigned long long)m->damaged_count);
    puts(".");
    if (!m->complete)
        printf(
            "The export was interrupted: what it did not finish, %llu in the file, is still in the queue it "
            "comes from.\n",
            (unsigned long long)m->unsealed_count);
}

static int import_file(struct import *m)
{
    int status = EXIT_REFUSED;
    if (!survey(m))
        return EXIT_REFUSED;
    enum stage stage = read_stage(m);
    if (stage == STAGE_DONE) {
        fprintf(stderr, "postern: %s was imported already; remove %s to do it once more\n", m->name,
                m->marker);
        return EXIT_REFUSED;
    }
    if (!import_all(m, stage == STAGE_NEW, &status)) {
        fputs("postern: what came in so far is held; run the same import again to finish it\n", stderr);
        return status ? status : EXIT_REFUSED;
    }
    bool ok = write_stage(m, "release\n") && release_all(m, &status) && write_stage(m, "done\n");
    tell(m);
    if (!ok)
        return status ? status : EXIT_REFUSED;
    return m->damaged_count || !m->complete ? EXIT_REFUSED : EXIT_SUCCESS;
}

int cli_queue_import(const struct cli *cli)
{
    int worst = EXIT_SUCCESS;
    for (int i = 0; i < cli->operand_count; i++) {
        struct import m = {.cli = cli, .name = cli->operands[i], .release.max = (size_t)1 << 30};
        int status = open_file(&m) ? import_file(&m) : EX_NOINPUT;
        if (m.f)
            fclose(m.f);
        gbuf_free(&m.release);
        worst = status ? status : worst;
    }
    return worst;
}
