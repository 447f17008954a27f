/* admin/cli/ring.c: `postern queue resize` and `postern queue scrub`: begun by posternd, watched from here.
 */
#include <time.h>
#include <unistd.h>

#include "admin/cli/cli.h"
#include "admin/cli/text.h"
#include "core/clock.h"

#define POLL_MS 200

static json_int_t number(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static void pause_ms(long ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * (long)NS_PER_MS};
    nanosleep(&t, NULL);
}

static str_t size_text(struct sbuf b, json_int_t bytes)
{
    text_size(&b, bytes > 0 ? (uint64_t)bytes : 0);
    return sbuf_view(&b);
}

/* ---- resize ---- */

static bool is_resizing(const json_t *status)
{
    size_t i;
    json_t *w;
    json_array_foreach(json_object_get(status, "workers"), i, w)
    {
        if (json_is_object(json_object_get(json_object_get(w, "ring"), "resize")))
            return true;
    }
    return false;
}

static void watch_resize(const json_t *status)
{
    double filled = 0, target = 0;
    size_t i;
    json_t *w;
    json_array_foreach(json_object_get(status, "workers"), i, w)
    {
        const json_t *resize = json_object_get(json_object_get(w, "ring"), "resize");
        filled += (double)number(resize, "filled");
        target += (double)number(resize, "target");
    }
    if (target > filled)
        fprintf(stderr, "\r%3.0f%% ", 100 * filled / target);
}

static int show_sizes(const json_t *status)
{
    int exit_status = EXIT_SUCCESS;
    size_t i;
    json_t *w;
    char text[32];
    json_array_foreach(json_object_get(status, "workers"), i, w)
    {
        const json_t *ring = json_object_get(w, "ring");
        const char *error = json_string_value(json_object_get(ring, "resize_error"));
        printf("ring-%02d: " STR_FMT "%s%s\n", (int)number(w, "id"),
               STR_ARG(size_text((struct sbuf)SBUF_ON(text), number(ring, "bytes"))),
               error ? ", not resized: " : "", error ? error : "");
        if (error)
            exit_status = EXIT_REFUSED;
    }
    return exit_status;
}

int cli_resize(const struct cli *cli)
{
    const char *operand = cli->operand_count ? cli->operands[0] : NULL;
    int status;
    char path[96];
    if (operand && strspn(operand, "0123456789KMGTiB") != strlen(operand)) {
        fprintf(stderr, "postern: %s is no size; write 512MiB or 4GiB\n", operand);
        return EXIT_USAGE;
    }
    snprintf(path, sizeof path, "/api/v1/queue/resize%s%.40s", operand ? "?size=" : "",
             operand ? operand : "");
    json_t *json = cli_ask(cli, path, STR(""), &status);
    bool is_watched = isatty(STDERR_FILENO);
    json_decref(json);
    while (json) {
        json = cli_ask(cli, "/api/v1/status", STR_NONE, &status);
        if (!json || !is_resizing(json))
            break;
        if (is_watched)
            watch_resize(json);
        json_decref(json);
        pause_ms(POLL_MS);
    }
    if (is_watched)
        fputc('\r', stderr);
    if (!json)
        return status;
    int done = show_sizes(json);
    json_decref(json);
    return done;
}

/* ---- scrub ---- */

static bool is_running(const json_t *status, json_int_t *bytes)
{
    bool running = false;
    size_t i;
    json_t *w;
    *bytes = 0;
    json_array_foreach(json_object_get(status, "workers"), i, w)
    {
        const json_t *scrub = json_object_get(w, "scrub");
        running |= json_is_true(json_object_get(scrub, "hurried"));
        *bytes += number(scrub, "bytes");
    }
    return running;
}

/* What the rings say in the end; EXIT_REFUSED if anything is damaged. */
static int show_scrubs(const json_t *status)
{
    int exit_status = EXIT_SUCCESS;
    size_t i;
    json_t *w;
    char text[32];
    json_array_foreach(json_object_get(status, "workers"), i, w)
    {
        const json_t *s = json_object_get(w, "scrub");
        json_int_t damaged = number(s, "damaged"), unreadable = number(s, "unreadable");
        printf("ring-%02d: %" JSON_INTEGER_FORMAT " messages, " STR_FMT " read: ", (int)number(w, "id"),
               number(s, "messages"), STR_ARG(size_text((struct sbuf)SBUF_ON(text), number(s, "bytes"))));
        if (damaged + unreadable == 0) {
            puts("all good");
            continue;
        }
        printf("%" JSON_INTEGER_FORMAT " damaged, %" JSON_INTEGER_FORMAT " unreadable\n", damaged,
               unreadable);
        exit_status = EXIT_REFUSED;
    }
    if (exit_status != EXIT_SUCCESS)
        puts("See queue_damage in the log, and `postern queue list`; what can be had of them is in corrupt/ "
             "of the spool.");
    return exit_status;
}

int cli_scrub(const struct cli *cli)
{
    int status;
    json_int_t bytes;
    char text[32];
    json_t *json = cli_ask(cli, "/api/v1/queue/scrub", STR(""), &status);
    bool is_watched = isatty(STDERR_FILENO);
    json_decref(json);
    while (json) {
        json = cli_ask(cli, "/api/v1/status", STR_NONE, &status);
        if (!json || !is_running(json, &bytes))
            break;
        if (is_watched)
            fprintf(stderr, "\r" STR_FMT " read ", STR_ARG(size_text((struct sbuf)SBUF_ON(text), bytes)));
        json_decref(json);
        pause_ms(POLL_MS);
    }
    if (is_watched)
        fputc('\r', stderr);
    if (!json)
        return status;
    int found = cli->json ? EXIT_SUCCESS : show_scrubs(json);
    if (cli->json)
        cli_write_json(json);
    json_decref(json);
    return found;
}
