/* bench/source/options.c: the command line of postern-source. */
#include <getopt.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/source/source_priv.h"

static const char usage_text[] =
    "usage: postern-source [options] ADDRESS:PORT\n"
    "\n"
    "How much\n"
    "  -s, --sessions N              at once (default 1)\n"
    "  -m, --messages N              in all (default 1)\n"
    "  -p, --messages-per-session N  default 1\n"
    "      --rate R                  messages a second, whatever the server does; times count from when a\n"
    "                                message was due. Without: as fast as the server answers\n"
    "      --hold SECONDS            open all sessions, say how many there are, keep them idle so long\n"
    "  -T, --threads N               default 1\n"
    "\n"
    "What\n"
    "      --until dot|rcpt|ehlo     dot (default): mail. rcpt: MAIL, RCPT, then RSET or QUIT. ehlo: no "
    "more\n"
    "                                than a greeting; each counts as a message\n"
    "  -l, --size BYTES[:SHARE],...  of each message (default 1024), or a mix: 4096:60,32768:30,1048576:10\n"
    "      --file FILE               send this message\n"
    "  -f, --from ADDRESS            default sender@example.net\n"
    "  -t, --to ADDRESS              a % in it is replaced by a running number\n"
    "  -r, --recipients N            per message (default 1)\n"
    "      --recipient-set N         the running number begins again after N\n"
    "      --unknown PERCENT         so many recipients are unknown: the server should refuse them\n"
    "      --unknown-to ADDRESS      what those look like (default unknown%@example.com)\n"
    "      --helo NAME\n"
    "\n"
    "How\n"
    "      --bind ADDRESS[+N]        from this address, or from N addresses, from this one on\n"
    "      --pipeline N              commands in one go (default: as many as there are)\n"
    "      --no-pipelining           wait for each reply\n"
    "      --tls                     STARTTLS; any certificate will do\n"
    "      --retry-for SECONDS       when the connection breaks, try again for this long\n"
    "\n"
    "Results\n"
    "  -i, --ids FILE                write the id of each message that got 250\n"
    "      --run NAME                first part of the ids (default: the process id)\n"
    "      --json                    everything, with times by stage\n";

enum {
    OPT_HELO = 256,
    OPT_FILE,
    OPT_RUN,
    OPT_RETRY,
    OPT_NO_PIPELINING,
    OPT_JSON,
    OPT_RATE,
    OPT_HOLD,
    OPT_UNTIL,
    OPT_SET,
    OPT_UNKNOWN,
    OPT_UNKNOWN_TO,
    OPT_BIND,
    OPT_PIPELINE,
    OPT_TLS
};

static const struct option longs[] = {{"sessions", 1, 0, 's'},
                                      {"messages", 1, 0, 'm'},
                                      {"messages-per-session", 1, 0, 'p'},
                                      {"recipients", 1, 0, 'r'},
                                      {"size", 1, 0, 'l'},
                                      {"from", 1, 0, 'f'},
                                      {"to", 1, 0, 't'},
                                      {"helo", 1, 0, OPT_HELO},
                                      {"file", 1, 0, OPT_FILE},
                                      {"threads", 1, 0, 'T'},
                                      {"ids", 1, 0, 'i'},
                                      {"run", 1, 0, OPT_RUN},
                                      {"retry-for", 1, 0, OPT_RETRY},
                                      {"no-pipelining", 0, 0, OPT_NO_PIPELINING},
                                      {"json", 0, 0, OPT_JSON},
                                      {"rate", 1, 0, OPT_RATE},
                                      {"hold", 1, 0, OPT_HOLD},
                                      {"until", 1, 0, OPT_UNTIL},
                                      {"recipient-set", 1, 0, OPT_SET},
                                      {"unknown", 1, 0, OPT_UNKNOWN},
                                      {"unknown-to", 1, 0, OPT_UNKNOWN_TO},
                                      {"bind", 1, 0, OPT_BIND},
                                      {"pipeline", 1, 0, OPT_PIPELINE},
                                      {"tls", 0, 0, OPT_TLS},
                                      {"help", 0, 0, 'h'},
                                      {0}};

static bool number(const char *text, uint64_t max, uint64_t *out)
{
    return !str_to_u64(str_cstr(text), out) && *out <= max;
}

static bool number32(const char *text, uint32_t *out)
{
    uint64_t v = 0;
    bool ok = number(text, UINT32_MAX, &v);
    *out = (uint32_t)v;
    return ok;
}

static bool read_sizes(const char *text, struct source_options *o)
{
    str_t rest = str_cstr(text), item;
    bool more = true;
    for (o->size_count = 0; more; o->size_count++) {
        str_t bytes, share = STR_NONE;
        uint64_t b, n = 1;
        more = str_cut(rest, ',', &item, &rest);
        bool shared = str_cut(item, ':', &bytes, &share);
        if (o->size_count == SOURCE_SIZES_MAX || str_to_u64(bytes, &b) || b > 1u << 30 ||
            (shared && (str_to_u64(share, &n) || n < 1 || n > 1000000)))
            return false;
        o->sizes[o->size_count] = (struct source_size){(uint32_t)b, (uint32_t)n};
    }
    return true;
}

static bool read_bind(const char *text, struct source_options *o)
{
    str_t address, count;
    uint64_t n = 1;
    if (str_cut(str_cstr(text), '+', &address, &count) && (str_to_u64(count, &n) || n < 1 || n > 65536))
        return false;
    o->from_count = (uint32_t)n;
    return ip_parse(address, &o->from.ip) == 0;
}

static bool read_until(const char *text, enum source_until *until)
{
    static const char *const words[] = {[UNTIL_DOT] = "dot", [UNTIL_RCPT] = "rcpt", [UNTIL_EHLO] = "ehlo"};
    for (unsigned i = 0; i < COUNT_OF(words); i++) {
        if (strcmp(text, words[i]) == 0) {
            *until = (enum source_until)i;
            return true;
        }
    }
    return false;
}

static bool read_tls(struct source_options *o)
{
    char text[256];
    struct sbuf error = SBUF_ON(text);
    if (tls_context_client(&o->tls, NULL, &error) == 0)
        return true;
    fprintf(stderr, "postern-source: %.*s\n", (int)error.n, error.p);
    return false;
}

static bool read_option(int c, struct source_options *o)
{
    uint64_t n = 0;
    switch (c) {
    case 's': return number32(optarg, &o->session_count) && o->session_count > 0;
    case 'm': return number(optarg, UINT64_MAX, &o->message_count) && o->message_count > 0;
    case 'p': return number32(optarg, &o->messages_per_session) && o->messages_per_session > 0;
    case 'r': return number32(optarg, &o->rcpts_per_message) && o->rcpts_per_message - 1 < 1000000;
    case 'l': return read_sizes(optarg, o);
    case 'f': o->sender = optarg; return strlen(optarg) <= 300;
    case 't': o->recipient = optarg; return strlen(optarg) <= 300;
    case 'T':
        if (!number(optarg, 64, &n))
            return false;
        o->thread_count = (unsigned)n;
        return n > 0;
    case 'i': o->ids_path = optarg; return true;
    case OPT_HELO: o->helo = optarg; return strlen(optarg) <= 255;
    case OPT_FILE: o->file = optarg; return true;
    case OPT_RUN: o->run_name = optarg; return strlen(optarg) <= 40;
    case OPT_RETRY: return number32(optarg, &o->retry_s);
    case OPT_NO_PIPELINING: o->pipeline = 1; return true;
    case OPT_PIPELINE: return number32(optarg, &o->pipeline) && o->pipeline > 0;
    case OPT_JSON: o->json = true; return true;
    case OPT_RATE: o->rate = strtod(optarg, NULL); return o->rate > 0 && o->rate <= 1e7;
    case OPT_HOLD: return number32(optarg, &o->hold_s) && o->hold_s > 0;
    case OPT_UNTIL: return read_until(optarg, &o->until);
    case OPT_SET: return number(optarg, UINT64_MAX, &o->recipient_set) && o->recipient_set > 0;
    case OPT_UNKNOWN: return number32(optarg, &o->unknown_percent) && o->unknown_percent <= 100;
    case OPT_UNKNOWN_TO: o->unknown = optarg; return strlen(optarg) <= 300;
    case OPT_BIND: return read_bind(optarg, o);
    case OPT_TLS: return o->tls || read_tls(o);
    default: return false;
    }
}

int source_options_parse(int argc, char **argv, struct source_options *o)
{
    static char run[16];
    snprintf(run, sizeof run, "%d", (int)getpid());
    *o = (struct source_options){.thread_count = 1,
                                 .session_count = 1,
                                 .message_count = 1,
                                 .messages_per_session = 1,
                                 .rcpts_per_message = 1,
                                 .sizes = {{1024, 1}},
                                 .size_count = 1,
                                 .pipeline = UINT32_MAX,
                                 .helo = "source.example.net",
                                 .sender = "sender@example.net",
                                 .recipient = "user@example.com",
                                 .unknown = "unknown%@example.com",
                                 .run_name = run};
    for (int c, at; at = optind, (c = getopt_long(argc, argv, "s:m:p:r:l:f:t:T:i:h", longs, NULL)) != -1;) {
        if (c == 'h') {
            fputs(usage_text, stdout);
            exit(EX_OK);
        }
        if (c == '?')
            return EX_USAGE; /* getopt said why */
        if (!read_option(c, o)) {
            fprintf(stderr, "postern-source: %s: not %s\n", argv[at], optarg ? optarg : "possible");
            return EX_USAGE;
        }
    }
    if (optind != argc - 1 || endpoint_parse(str_cstr(argv[optind]), &o->to)) {
        fputs(usage_text, stderr);
        return EX_USAGE;
    }
    return 0;
}
