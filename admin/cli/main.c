/* admin/cli/main.c: `postern`, the administrator's command. Exit status: 0 done; 1 posternd refused or
 * failed; 2 usage; 69 (EX_UNAVAILABLE) posternd cannot be reached. */
#include <errno.h>
#include <getopt.h>
#include <sysexits.h>

#include <curl/curl.h>
#include <jansson.h>

#include "admin/cli/cli.h"
#include "admin/cli/client.h"
#include "admin/cli/show.h"
#include "core/clock.h"

#define SOCKET_DEFAULT  "/run/postern/admin.sock"
#define SPOOL_DEFAULT   "/var/spool/postern"
#define LIMIT_DEFAULT   100
#define LIMIT_MAX       10000
#define HTTP_ERROR_FROM 400

static const char USAGE[] =
    "Usage: postern [-s SOCKET] [--json] COMMAND\n"
    "\n"
    "  status                  what the gateway is doing: sessions, queue, rings\n"
    "  queue list [--limit N]  the newest messages of the queue (N: 1 to 10000, default 100)\n"
    "  queue pause [--destination KEY]\n"
    "                          send nothing, or nothing to one destination; mail is taken in and waits\n"
    "  queue resume [--destination KEY]\n"
    "                          send again what `queue pause` stopped\n"
    "  queue resize [SIZE]     give every ring SIZE, or what spool.ring_size says, while mail flows\n"
    "  queue salvage [--to DIRECTORY] [FILE|DIRECTORY]\n"
    "                          what can be had of damaged mail in a spool's corrupt/, or of a ring file\n"
    "                          (default: " SPOOL_DEFAULT "); with --to: writes it there as .eml\n"
    "  queue scrub             read and check all queued mail now, and tell the result\n"
    "  destinations            next hops: connections, jobs, what is down and why\n"
    "  reload                  read the configuration file again; on errors the old one stays\n"
    "  metrics                 all metrics in Prometheus' text format\n"
    "  version                 of this command and of the running posternd\n"
    "  help                    this text\n"
    "\n"
    "  -s, --socket SOCKET     posternd's admin.socket (else $POSTERN_SOCKET, else " SOCKET_DEFAULT ")\n"
    "      --json              the answer as JSON, for programs\n"
    "\n"
    "Exit status: 0 done, 1 refused or failed, 2 wrong usage, 69 posternd cannot be reached.\n";

/* --- asking --- */

static void explain_unreachable(const struct cli *cli, const struct client_reply *r)
{
    fprintf(stderr, "postern: cannot reach posternd: %s\n", r->error);
    if (strcmp(r->error, strerror(EACCES)) == 0)
        fprintf(stderr, "Only root and the group of %s may use it.\n", cli->socket_path);
    else
        fprintf(stderr, "Is posternd running? Tried %s; give another with -s.\n", cli->socket_path);
}

void cli_write_json(const json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
}

json_t *cli_ask(const struct cli *cli, const char *path, const char *post, int *status)
{
    struct client_reply r;
    json_error_t bad;
    json_t *json = NULL;
    err_t err = client_ask(cli->socket_path, path, post, &r);

    *status = err == ERR_CLOSED ? EX_UNAVAILABLE : EXIT_REFUSED;
    if (err == ERR_CLOSED) {
        explain_unreachable(cli, &r);
    } else if (err) {
        fprintf(stderr, "postern: no answer from posternd: %s\n", r.error);
    } else {
        json = json_loadb(r.body.p ? r.body.p : "", r.body.n, 0, &bad);
        if (r.status >= HTTP_ERROR_FROM) {
            if (cli->json && json)
                cli_write_json(json);
            show_error(json, r.status, stderr);
            json_decref(json);
            json = NULL;
        } else if (!json) {
            fprintf(stderr, "postern: posternd's answer is not JSON: %s\n", bad.text);
        }
    }
    client_reply_free(&r);
    if (json)
        *status = EXIT_SUCCESS;
    return json;
}

static int shown(err_t err)
{
    if (!err)
        return EXIT_SUCCESS;
    fprintf(stderr, "postern: %s\n", err_text(err));
    return EX_OSERR;
}

/* --- commands --- */

static int do_status(const struct cli *cli)
{
    int status;
    json_t *json = cli_ask(cli, "/api/v1/status", NULL, &status);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        status = shown(show_status(json, stdout));
    json_decref(json);
    return status;
}

static int do_queue(const struct cli *cli)
{
    char path[64];
    int status;
    uint64_t limit = cli->limit ? cli->limit : LIMIT_DEFAULT;
    snprintf(path, sizeof path, "/api/v1/queue?limit=%u", (unsigned)limit);
    json_t *json = cli_ask(cli, path, NULL, &status);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        status = shown(show_queue(json, limit, clock_wall_ns(), stdout));
    json_decref(json);
    return status;
}

static int do_destinations(const struct cli *cli)
{
    int status;
    json_t *json = cli_ask(cli, "/api/v1/destinations", NULL, &status);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        status = shown(show_destinations(json, clock_wall_ns(), stdout));
    json_decref(json);
    return status;
}

static int do_reload(const struct cli *cli)
{
    int status;
    json_t *json = cli_ask(cli, "/api/v1/reload", "", &status);
    if (json && cli->json) {
        cli_write_json(json);
    } else if (json) {
        show_lines(json_object_get(json, "warnings"), stderr);
        puts("The new configuration is in force.");
    }
    json_decref(json);
    return status;
}

static int do_metrics(const struct cli *cli)
{
    struct client_reply r;
    int status = EXIT_REFUSED;
    err_t err = client_ask(cli->socket_path, "/metrics", NULL, &r);
    if (err == ERR_CLOSED) {
        explain_unreachable(cli, &r);
        status = EX_UNAVAILABLE;
    } else if (err) {
        fprintf(stderr, "postern: no answer from posternd: %s\n", r.error);
    } else if (r.status >= HTTP_ERROR_FROM) {
        show_error(NULL, r.status, stderr);
    } else {
        fwrite(r.body.p, 1, r.body.n, stdout);
        status = EXIT_SUCCESS;
    }
    client_reply_free(&r);
    return status;
}

/* Tells its own version whether or not anybody answers. */
static int do_version(const struct cli *cli)
{
    struct client_reply r;
    json_t *json = NULL;
    if (client_ask(cli->socket_path, "/api/v1/status", NULL, &r) == 0 && r.status < HTTP_ERROR_FROM &&
        r.body.n)
        json = json_loadb(r.body.p, r.body.n, 0, NULL);
    const char *running = json_string_value(json_object_get(json, "version"));
    if (cli->json) {
        json_t *both = json_pack("{s:s, s:s?}", "postern", POSTERN_VERSION, "posternd", running);
        cli_write_json(both);
        json_decref(both);
    } else {
        printf("postern %s\nposternd %s\n", POSTERN_VERSION, running ? running : "cannot be reached");
    }
    json_decref(json);
    client_reply_free(&r);
    return EXIT_SUCCESS;
}

static int do_help(const struct cli *cli)
{
    fputs(USAGE, stdout);
    return EXIT_SUCCESS;
}

static const struct command {
    const char *words[2];
    bool takes_limit, takes_destination, takes_operand;
    int (*run)(const struct cli *cli);
} COMMANDS[] = {
    {{"status"}, false, false, false, do_status},
    {{"queue", "list"}, true, false, false, do_queue},
    {{"queue"}, true, false, false, do_queue},
    {{"queue", "pause"}, false, true, false, cli_pause},
    {{"queue", "resume"}, false, true, false, cli_resume},
    {{"queue", "resize"}, false, false, true, cli_resize},
    {{"queue", "salvage"}, false, false, true, cli_salvage},
    {{"queue", "scrub"}, false, false, false, cli_scrub},
    {{"destinations"}, false, false, false, do_destinations},
    {{"reload"}, false, false, false, do_reload},
    {{"metrics"}, false, false, false, do_metrics},
    {{"version"}, false, false, false, do_version},
    {{"help"}, false, false, false, do_help},
};

/* --- the command line --- */

static const struct command *command_find(int count, char *const words[])
{
    for (size_t i = 0; i < COUNT_OF(COMMANDS); i++) {
        const struct command *c = &COMMANDS[i];
        int wanted = c->words[1] ? 2 : 1;
        if ((count == wanted || (c->takes_operand && count == wanted + 1)) &&
            !strcmp(words[0], c->words[0]) && (wanted == 1 || !strcmp(words[1], c->words[1])))
            return c;
    }
    return NULL;
}

PRINTF_LIKE(1, 2) static int usage(const char *fmt, ...)
{
    va_list args;
    fputs("postern: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputs("\n`postern help` lists what there is.\n", stderr);
    return EXIT_USAGE;
}

static int run(struct cli *cli, int argc, char *argv[])
{
    enum { OPTION_JSON = 256, OPTION_LIMIT, OPTION_DESTINATION, OPTION_TO };
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'},
        {"json", no_argument, NULL, OPTION_JSON},
        {"limit", required_argument, NULL, OPTION_LIMIT},
        {"destination", required_argument, NULL, OPTION_DESTINATION},
        {"to", required_argument, NULL, OPTION_TO},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {0},
    };
    const struct command *command = NULL;
    int option;
    while ((option = getopt_long(argc, argv, "s:hV", options, NULL)) != -1) {
        switch (option) {
        case 's': cli->socket_path = optarg; break;
        case OPTION_JSON: cli->json = true; break;
        case OPTION_LIMIT:
            if (str_to_u64(str_cstr(optarg), &cli->limit) || cli->limit < 1 || cli->limit > LIMIT_MAX)
                return usage("--limit %s: it must be a number from 1 to 10000", optarg);
            break;
        case OPTION_DESTINATION:
            cli->destination = optarg;
            if (!*optarg)
                return usage("--destination: it must be a key as `postern destinations` shows it");
            break;
        case OPTION_TO: cli->to = optarg; break;
        case 'h': return do_help(cli);
        case 'V': printf("postern %s\n", POSTERN_VERSION); return EXIT_SUCCESS;
        default: return EXIT_USAGE; /* getopt has told */
        }
    }
    if (optind == argc) {
        fputs(USAGE, stderr);
        return EXIT_USAGE;
    }
    command = command_find(argc - optind, argv + optind);
    if (!command)
        return usage("there is no command \"%s%s%s\"", argv[optind], optind + 1 < argc ? " " : "",
                     optind + 1 < argc ? argv[optind + 1] : "");
    if (cli->limit && !command->takes_limit)
        return usage("%s takes no --limit", command->words[0]);
    if (cli->destination && !command->takes_destination)
        return usage("%s takes no --destination", command->words[0]);
    if (cli->to && command->run != cli_salvage)
        return usage("%s takes no --to", command->words[0]);
    cli->operand = command->takes_operand && argc - optind == 3 ? argv[optind + 2] : NULL;
    return command->run(cli);
}

int main(int argc, char *argv[])
{
    const char *from_environment = getenv("POSTERN_SOCKET");
    struct cli cli = {.socket_path =
                          from_environment && *from_environment ? from_environment : SOCKET_DEFAULT};
    if (curl_global_init(CURL_GLOBAL_NOTHING)) {
        fputs("postern: libcurl cannot be used\n", stderr);
        return EX_OSERR;
    }
    int status = run(&cli, argc, argv);
    curl_global_cleanup();
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "postern: cannot write: %s\n", strerror(errno));
        return EX_IOERR;
    }
    return status;
}
