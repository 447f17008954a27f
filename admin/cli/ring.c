/* admin/cli/ring.c: `postern queue scrub`. */
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

int do_ring_scrub(const struct cli *cli)
{
    int status;
    json_int_t bytes;
    char text[32];
    json_t *json = ask_json(cli, "/api/v1/queue/scrub", true, &status);
    bool is_watched = isatty(STDERR_FILENO);
    json_decref(json);
    while (json) {
        json = ask_json(cli, "/api/v1/status", false, &status);
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
        write_json(json);
    json_decref(json);
    return found;
}
