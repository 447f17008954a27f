/* admin/cli/main.c: `postern`, the administrator's command. Exit status: 0 done; 1 posternd refused or
 * failed; 2 usage; 69 (EX_UNAVAILABLE) posternd cannot be reached. */
#include <errno.h>
#include <getopt.h>
#include <sysexits.h>

#include <curl/curl.h>

#include "admin/cli/cli.h"
#include "admin/cli/show.h"
#include "core/clock.h"

#define SOCKET_DEFAULT  "/run/postern/admin.sock"
#define SPOOL_DEFAULT   "/var/spool/postern"
#define LIMIT_MAX       10000
#define HTTP_ERROR_FROM 400

static const char USAGE[] =
    "Usage: postern [-s SOCKET] [--json] COMMAND\n"
    "\n"
    "  status                  what the gateway is doing: sessions, queue, rings\n"
    "  destinations            next hops: connections, jobs, what is down and why\n"
    "  edges                   how the edge writes its Received lines, as learned, and what was not like it\n"
    "  edges forget ADDRESS|--all   learn it anew\n"
    "  reload                  read the configuration file again; on errors the old one stays\n"
    "  reload shrunk-lists     the same, and lists of recipients that lost many are taken\n"
    "  metrics                 all metrics in Prometheus' text format\n"
    "  version                 of this command and of the running posternd\n"
    "  help                    this text\n"
    "\n"
    "  queue list [ID...]      the newest messages, why they wait and until when (--limit N: 1 to 10000, "
    "else 100)\n"
    "  queue show ID...        all that is known of a message: envelope, a state for each recipient\n"
    "  queue headers ID        the header lines of a message\n"
    "  queue stats             how many wait, since when and for which destination\n"
    "  queue destinations      as destinations\n"
    "  queue hold [ID...]      no delivery until it is released\n"
    "  queue release [ID...]   held messages are tried at once\n"
    "  queue retry [ID...]     waiting messages are tried now; ends the back-off of their destinations\n"
    "  queue remove [ID...]    out of the queue, for ever; --bounce: their senders get a report\n"
    "  queue resize [SIZE]     give every ring SIZE, or what spool.ring_size says, while mail flows\n"
    "  queue salvage [--to DIRECTORY] [-o FILE] [FILE|DIRECTORY]\n"
    "                          what can be had of damaged mail in a spool's corrupt/, or of a ring file\n"
    "                          (default: " SPOOL_DEFAULT "); --to: writes it there as .eml;\n"
    "                          -o: as an export, which `queue import` takes\n"
    "  queue scrub             read and check all queued mail now, and tell the result\n"
    "  queue pause             send nothing, or nothing to one --destination; mail is taken in and waits\n"
    "  queue resume            send again what `queue pause` stopped\n"
    "  queue export -o FILE [ID...]   messages into a file, and out of the queue; --keep: they stay in it\n"
    "  queue import FILE...    what was exported, into this queue; \"-\" is the standard input\n"
    "\n"
    "  verify show ADDRESS...  what is known of a recipient, and what RCPT would be answered\n"
    "  verify probe ADDRESS    ask its server now, and show the dialogue; --no-store: and remember nothing\n"
    "  verify pin ADDRESS good|unknown   always so, whatever lists and servers say; --why TEXT\n"
    "  verify unpin ADDRESS... no longer\n"
    "  verify purge [ADDRESS...|@DOMAIN...]   forget verdicts, but not pins; or those that these hold for:\n"
    "                          --domain DOMAIN, --unknown, --older-than AGE, --all\n"
    "  verify export           verdicts, a line of JSON each: --domain, --verdict good|unknown, --pinned,\n"
    "                          --older-than, --younger\n"
    "  verify stats            the cache of verdicts, and how recipients were decided, by domain\n"
    "  verify backends         the servers that are asked: state, limits, what they refused with last\n"
    "  verify retry SERVER|--all   ask a server again that is left alone\n"
    "\n"
    "  Which messages: ids, or all for which each of these holds ('*' in them stands for anything)\n"
    "      --sender ADDRESS    \"<>\" for reports\n"
    "      --recipient ADDRESS, --domain DOMAIN    of a recipient that is still to be delivered\n"
    "      --destination KEY   as `postern destinations` names them\n"
    "      --older AGE, --younger AGE              45s, 10m, 3h, 2d\n"
    "      --state STATE       active, deferred, held, leased; several with commas between\n"
    "      --all               every message\n"
    "  -y, --yes               do not ask before many are changed\n"
    "      --why TEXT          for the log: why it is done\n"
    "\n"
    "  -s, --socket SOCKET     posternd's admin.socket (else $POSTERN_SOCKET, else " SOCKET_DEFAULT ")\n"
    "      --json              the answer as JSON, for programs\n"
    "\n"
    "Exit status: 0 done, 1 refused, failed, or no message matched, 2 wrong usage, 69 posternd cannot be "
    "reached.\n";

/* --- asking --- */

static void explain_unreachable(const struct cli *cli, const struct client_reply *r)
{
    fprintf(stderr, "postern: cannot reach posternd: %s\n", r->error);
    if (strcmp(r->error, strerror(EACCES)) == 0)
        fprintf(stderr, "Only root and the group of %s may use it.\n", cli->socket_path);
    else
        fprintf(stderr, "Is posternd running? Tried %s; give another with -s.\n", cli->socket_path);
}

void cli_explain(const struct cli *cli, err_t err, const struct client_reply *r, int *status)
{
    *status = err == ERR_CLOSED ? EX_UNAVAILABLE : EXIT_REFUSED;
    if (err == ERR_CLOSED)
        explain_unreachable(cli, r);
    else
        fprintf(stderr, "postern: no answer from posternd: %s\n", r->error);
}

void cli_write_json(const json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
}

json_t *cli_ask(const struct cli *cli, const char *path, str_t content, int *status)
{
    struct client_reply r;
    json_error_t bad;
    json_t *json = NULL;
    err_t err = client_ask(cli->client, path, content, &r);

    *status = EXIT_REFUSED;
    if (err) {
        cli_explain(cli, err, &r, status);
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

int cli_shown(err_t err)
{
    if (!err)
        return EXIT_SUCCESS;
    fprintf(stderr, "postern: %s\n", err_text(err));
    return EX_OSERR;
}

void cli_encode(struct gbuf *out, const char *key, const char *value)
{
    gbuf_printf(out, "&%s=", key);
    for (const char *p = value; *p; p++) {
        bool plain = (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     strchr("-_.~", *p);
        if (plain)
            gbuf_put(out, p, 1);
        else
            gbuf_printf(out, "%%%02X", (unsigned)(unsigned char)*p);
    }
}

/* --- commands --- */

static int do_status(const struct cli *cli)
{
    int status;
    json_t *json = cli_ask(cli, "/api/v1/status", STR_NONE, &status);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        status = cli_shown(show_status(json, stdout));
    json_decref(json);
    return status;
}

static int do_destinations(const struct cli *cli)
{
    int status;
    json_t *json = cli_ask(cli, "/api/v1/destinations", STR_NONE, &status);
    if (json && cli->json)
        cli_write_json(json);
    else if (json)
        status = cli_shown(show_destinations(json, clock_wall_ns(), stdout));
    json_decref(json);
    return status;
}

static int reload(const struct cli *cli, const char *path)
{
    int status;
    json_t *json = cli_ask(cli, path, STR(""), &status);
    if (json && cli->json) {
        cli_write_json(json);
    } else if (json) {
        show_lines(json_object_get(json, "warnings"), stderr);
        puts("The new configuration is in force.");
    }
    json_decref(json);
    return status;
}

static int do_reload(const struct cli *cli)
{
    return reload(cli, "/api/v1/reload");
}

static int do_reload_shrunk_lists(const struct cli *cli)
{
    return reload(cli, "/api/v1/reload?shrunk-lists=1");
}

static int do_metrics(const struct cli *cli)
{
    struct client_reply r;
    int status = EXIT_REFUSED;
    err_t err = client_ask(cli->client, "/metrics", STR_NONE, &r);
    if (err) {
        cli_explain(cli, err, &r, &status);
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
    if (client_ask(cli->client, "/api/v1/status", STR_NONE, &r) == 0 && r.status < HTTP_ERROR_FROM &&
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

enum { ANY_NUMBER = -1, SOME = -2, MAYBE_ONE = -3 }; /* of operands */

static const struct command {
    const char *words[2];
    int operands;   /* how many, or one of the above */
    unsigned takes; /* of enum takes */
    int (*run)(const struct cli *cli);
} COMMANDS[] = {
    {{"status"}, 0, 0, do_status},
    {{"queue", "list"}, ANY_NUMBER, TAKES_LIMIT | TAKES_WHICH, cli_queue_list},
    {{"queue", "show"}, SOME, 0, cli_queue_show},
    {{"queue", "headers"}, 1, 0, cli_queue_headers},
    {{"queue", "stats"}, 0, TAKES_WHICH, cli_queue_stats},
    {{"queue", "destinations"}, 0, 0, do_destinations},
    {{"queue", "hold"}, ANY_NUMBER, TAKES_WHICH | TAKES_YES | TAKES_WHY, cli_queue_hold},
    {{"queue", "release"}, ANY_NUMBER, TAKES_WHICH | TAKES_YES | TAKES_WHY, cli_queue_release},
    {{"queue", "retry"}, ANY_NUMBER, TAKES_WHICH | TAKES_YES | TAKES_WHY, cli_queue_retry},
    {{"queue", "remove"}, ANY_NUMBER, TAKES_WHICH | TAKES_YES | TAKES_WHY | TAKES_BOUNCE, cli_queue_remove},
    {{"queue", "export"}, ANY_NUMBER, TAKES_WHICH | TAKES_OUTPUT | TAKES_KEEP, cli_queue_export},
    {{"queue", "import"}, SOME, 0, cli_queue_import},
    {{"queue", "resize"}, MAYBE_ONE, 0, cli_resize},
    {{"queue", "salvage"}, MAYBE_ONE, TAKES_TO | TAKES_OUTPUT, cli_salvage},
    {{"queue", "scrub"}, 0, 0, cli_scrub},
    {{"queue", "pause"}, 0, TAKES_DESTINATION, cli_pause},
    {{"queue", "resume"}, 0, TAKES_DESTINATION, cli_resume},
    {{"queue"}, 0, TAKES_LIMIT | TAKES_WHICH, cli_queue_list},
    {{"verify", "show"}, SOME, 0, cli_verify_show},
    {{"verify", "probe"}, 1, TAKES_NO_STORE, cli_verify_probe},
    {{"verify", "pin"}, SOME, TAKES_WHY, cli_verify_pin},
    {{"verify", "unpin"}, SOME, TAKES_WHY, cli_verify_unpin},
    {{"verify", "purge"}, ANY_NUMBER, TAKES_FILTER | TAKES_VERDICT | TAKES_YES | TAKES_WHY, cli_verify_purge},
    {{"verify", "export"}, 0, TAKES_FILTER | TAKES_VERDICT, cli_verify_export},
    {{"verify", "stats"}, 0, 0, cli_verify_stats},
    {{"verify", "backends"}, 0, 0, cli_verify_backends},
    {{"verify", "retry"}, MAYBE_ONE, TAKES_FILTER | TAKES_WHY, cli_verify_retry},
    {{"destinations"}, 0, 0, do_destinations},
    {{"edges", "forget"}, ANY_NUMBER, TAKES_FILTER, cli_edges_forget},
    {{"edges"}, 0, 0, cli_edges},
    {{"reload", "shrunk-lists"}, 0, 0, do_reload_shrunk_lists},
    {{"reload"}, 0, 0, do_reload},
    {{"metrics"}, 0, 0, do_metrics},
    {{"version"}, 0, 0, do_version},
    {{"help"}, 0, 0, do_help},
};

/* --- the command line --- */

static int word_count(const struct command *c)
{
    return c->words[1] ? 2 : 1;
}

static bool takes_count(const struct command *c, int operands)
{
    if (c->operands == MAYBE_ONE)
        return operands <= 1;
    return c->operands == ANY_NUMBER || (c->operands == SOME && operands > 0) || c->operands == operands;
}

static const struct command *command_find(int count, char *const words[])
{
    for (size_t i = 0; i < COUNT_OF(COMMANDS); i++) {
        const struct command *c = &COMMANDS[i];
        int wanted = word_count(c);
        if (count >= wanted && !strcmp(words[0], c->words[0]) &&
            (wanted == 1 || !strcmp(words[1], c->words[1])))
            return c;
    }
    return NULL;
}

int cli_usage(const char *fmt, ...)
{
    va_list args;
    fputs("postern: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputs("\n`postern help` lists what there is.\n", stderr);
    return EXIT_USAGE;
}

/* Those behind OPTION_FILTERS are parameters of the API under the same name. */
enum {
    OPTION_JSON = 256,
    OPTION_LIMIT,
    OPTION_ALL,
    OPTION_WHY,
    OPTION_BOUNCE,
    OPTION_KEEP,
    OPTION_TO,
    OPTION_NO_STORE,
    OPTION_UNKNOWN,
    OPTION_PINNED,
    OPTION_VERDICT,
    OPTION_OLDER_THAN,
    OPTION_FILTERS
};

static const struct option OPTIONS[] = {
    {"socket", required_argument, NULL, 's'},
    {"json", no_argument, NULL, OPTION_JSON},
    {"limit", required_argument, NULL, OPTION_LIMIT},
    {"sender", required_argument, NULL, OPTION_FILTERS},
    {"recipient", required_argument, NULL, OPTION_FILTERS},
    {"domain", required_argument, NULL, OPTION_FILTERS},
    {"destination", required_argument, NULL, OPTION_FILTERS},
    {"older", required_argument, NULL, OPTION_FILTERS},
    {"younger", required_argument, NULL, OPTION_FILTERS},
    {"state", required_argument, NULL, OPTION_FILTERS},
    {"older-than", required_argument, NULL, OPTION_OLDER_THAN},
    {"verdict", required_argument, NULL, OPTION_VERDICT},
    {"unknown", no_argument, NULL, OPTION_UNKNOWN},
    {"pinned", no_argument, NULL, OPTION_PINNED},
    {"no-store", no_argument, NULL, OPTION_NO_STORE},
    {"reason", required_argument, NULL, OPTION_WHY},
    {"all", no_argument, NULL, OPTION_ALL},
    {"yes", no_argument, NULL, 'y'},
    {"why", required_argument, NULL, OPTION_WHY},
    {"bounce", no_argument, NULL, OPTION_BOUNCE},
    {"keep", no_argument, NULL, OPTION_KEEP},
    {"output", required_argument, NULL, 'o'},
    {"to", required_argument, NULL, OPTION_TO},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {0},
};

/* -1: go on; else the exit status. */
static int take_option(struct cli *cli, int option, const char *name)
{
    switch (option) {
    case 's': cli->socket_path = optarg; break;
    case OPTION_JSON: cli->json = true; break;
    case OPTION_LIMIT:
        if (str_to_u64(str_cstr(optarg), &cli->limit) || cli->limit < 1 || cli->limit > LIMIT_MAX)
            return cli_usage("--limit %s: it must be a number from 1 to 10000", optarg);
        cli->given |= TAKES_LIMIT;
        break;
    case OPTION_FILTERS:
        cli_encode(&cli->filter, name, optarg);
        cli->given |= strcmp(name, "destination") ? TAKES_FILTER : TAKES_DESTINATION;
        if (!strcmp(name, "destination"))
            cli->destination = optarg;
        if (!*optarg && cli->given & TAKES_DESTINATION)
            return cli_usage("--destination: it must be a key as `postern destinations` shows it");
        break;
    case OPTION_OLDER_THAN:
        cli_encode(&cli->filter, "older", optarg);
        cli->given |= TAKES_FILTER;
        break;
    case OPTION_VERDICT:
    case OPTION_UNKNOWN:
        cli_encode(&cli->filter, "verdict", option == OPTION_UNKNOWN ? "unknown" : optarg);
        cli->given |= TAKES_VERDICT;
        break;
    case OPTION_PINNED:
        cli_encode(&cli->filter, "pinned", "1");
        cli->given |= TAKES_VERDICT;
        break;
    case OPTION_NO_STORE:
        cli->no_store = true;
        cli->given |= TAKES_NO_STORE;
        break;
    case OPTION_ALL:
        cli->all = true;
        cli->given |= TAKES_FILTER;
        break;
    case 'y':
        cli->yes = true;
        cli->given |= TAKES_YES;
        break;
    case OPTION_WHY:
        cli->why = optarg;
        cli->given |= TAKES_WHY;
        break;
    case OPTION_BOUNCE:
        cli->bounce = true;
        cli->given |= TAKES_BOUNCE;
        break;
    case OPTION_KEEP:
        cli->keep = true;
        cli->given |= TAKES_KEEP;
        break;
    case 'o':
        cli->output = optarg;
        cli->given |= TAKES_OUTPUT;
        break;
    case OPTION_TO:
        cli->to = optarg;
        cli->given |= TAKES_TO;
        break;
    case 'h': return do_help(cli);
    case 'V': printf("postern %s\n", POSTERN_VERSION); return EXIT_SUCCESS;
    default: return EXIT_USAGE; /* getopt has told */
    }
    return -1;
}

static const char *option_name(unsigned takes)
{
    static const char *const names[] = {"--limit",  "filter",  "--yes",     "--why",
                                        "--bounce", "--keep",  "--output",  "--destination",
                                        "--to",     "verdict", "--no-store"};
    size_t i = 0;
    while (i + 1 < COUNT_OF(names) && !(takes & 1u << i))
        i++;
    return names[i];
}

static int run(struct cli *cli, int argc, char *argv[])
{
    int option, index = 0;
    while ((option = getopt_long(argc, argv, "s:o:yhV", OPTIONS, &index)) != -1) {
        int status = take_option(cli, option, OPTIONS[index].name);
        if (status >= 0)
            return status;
    }
    if (optind == argc) {
        fputs(USAGE, stderr);
        return EXIT_USAGE;
    }
    const struct command *c = command_find(argc - optind, argv + optind);
    int operands = c ? argc - optind - word_count(c) : 0;
    if (!c || (c->operands == 0 && operands > 0))
        return cli_usage("there is no command \"%s%s%s\"", argv[optind], optind + 1 < argc ? " " : "",
                         optind + 1 < argc ? argv[optind + 1] : "");
    const char *second = c->words[1] ? c->words[1] : "";
    if (c->operands == MAYBE_ONE && !takes_count(c, operands))
        return cli_usage("%s %s takes one word more at most", c->words[0], second);
    if (!takes_count(c, operands) && !strcmp(c->words[0], "verify"))
        return cli_usage("verify %s: say %s", second,
                         c->operands == 1 ? "one address" : "an address, or several");
    if (!takes_count(c, operands))
        return cli_usage("%s%s%s: say the id of %s", c->words[0], *second ? " " : "", second,
                         c->operands == 1 ? "one message" : "a message, or of several");
    if (cli->given & ~c->takes)
        return cli_usage("%s%s%s takes no %s", c->words[0], *second ? " " : "", second,
                         option_name(cli->given & ~c->takes));
    cli->operands = argv + optind + word_count(c);
    cli->operand_count = operands;
    cli->client = client_open(cli->socket_path);
    if (!cli->client) {
        fputs("postern: out of memory, or a libcurl that cannot do this\n", stderr);
        return EX_OSERR;
    }
    return c->run(cli);
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
    client_close(cli.client);
    gbuf_free(&cli.filter);
    curl_global_cleanup();
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "postern: cannot write: %s\n", strerror(errno));
        return EX_IOERR;
    }
    return status;
}
