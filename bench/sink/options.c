/* bench/sink/options.c: the command line of postern-sink. */
#include <getopt.h>
#include <stdio.h>
#include <sysexits.h>

#include "bench/sink/sink_priv.h"

static const char usage_text[] =
    "usage: postern-sink [options] ADDRESS:PORT\n"
    "\n"
    "  -d, --maildir DIR        keep each message in a Maildir (X-Sink-From:, X-Sink-To: lines in front)\n"
    "  -i, --ids FILE           append the X-Postern-Source id of each message taken\n"
    "      --check              messages of postern-source: are the bytes the same, did one come twice\n"
    "  -t, --threads N          default 1\n"
    "  -n, --exit-after N       end after N messages\n"
    "  -q, --quiet              no summary at the end (it also comes, as a line, after SIGUSR1)\n"
    "\n"
    "How it answers; STAGE is connect, ehlo, mail, rcpt, data or dot (the end of the content)\n"
    "      --fail \"STAGE WHEN REPLY\"  REPLY instead of 2xx. WHEN: a share such as 5%, or a pattern of the\n"
    "                             command line such as *nobody*. May be given several times; the first "
    "wins:\n"
    "                             --fail \"rcpt *unknown* 550 5.1.1 no such user\" --fail \"dot 5% 451 4.3.0 "
    "no\"\n"
    "      --delay STAGE=MS       waits before it answers; with pipelined commands each waits\n"
    "      --reject-rcpt TEXT     --fail \"rcpt *TEXT* 550 5.1.1 no such user\"\n"
    "      --defer-rcpt TEXT      --fail \"rcpt *TEXT* 450 4.2.0 try again later\"\n"
    "      --refuse-data REPLY    --fail \"dot 100% REPLY\"\n"
    "      --lmtp                 speak LMTP (RFC 2033): one reply per recipient after the data\n"
    "      --dsn                  offer DSN (RFC 3461); RET, ENVID, NOTIFY and ORCPT stand in X-Sink-From: "
    "and "
    "X-Sink-To:\n"
    "      --no-pipelining        do not offer PIPELINING\n"
    "      --chunking             offer CHUNKING (BDAT, RFC 3030); `data` rules and delays are not asked "
    "then\n"
    "      --tls CERT,KEY         offer STARTTLS with these PEM files\n";

enum {
    OPT_REJECT = 256,
    OPT_DEFER,
    OPT_REFUSE_DATA,
    OPT_LMTP,
    OPT_DSN,
    OPT_NO_PIPELINING,
    OPT_CHUNKING,
    OPT_FAIL,
    OPT_DELAY,
    OPT_TLS,
    OPT_CHECK
};

static const struct option longs[] = {{"maildir", 1, 0, 'd'},
                                      {"ids", 1, 0, 'i'},
                                      {"threads", 1, 0, 't'},
                                      {"exit-after", 1, 0, 'n'},
                                      {"reject-rcpt", 1, 0, OPT_REJECT},
                                      {"defer-rcpt", 1, 0, OPT_DEFER},
                                      {"refuse-data", 1, 0, OPT_REFUSE_DATA},
                                      {"fail", 1, 0, OPT_FAIL},
                                      {"delay", 1, 0, OPT_DELAY},
                                      {"tls", 1, 0, OPT_TLS},
                                      {"check", 0, 0, OPT_CHECK},
                                      {"lmtp", 0, 0, OPT_LMTP},
                                      {"dsn", 0, 0, OPT_DSN},
                                      {"no-pipelining", 0, 0, OPT_NO_PIPELINING},
                                      {"chunking", 0, 0, OPT_CHUNKING},
                                      {"quiet", 0, 0, 'q'},
                                      {"help", 0, 0, 'h'},
                                      {0}};

static bool read_stage(str_t word, enum sink_stage *stage)
{
    static const char *const names[] = {
#define X(name, text) [SINK_##name] = text,
        SINK_STAGE_LIST(X)
#undef X
    };
    for (unsigned i = 0; i < SINK_STAGES; i++) {
        if (str_eq(word, str_cstr(names[i]))) {
            *stage = (enum sink_stage)i;
            return true;
        }
    }
    return false;
}

static bool add_rule(struct sink_options *o, enum sink_stage stage, str_t glob, uint32_t percent,
                     const char *reply)
{
    if (o->rule_count == SINK_RULES_MAX || glob.n >= sizeof o->rules[0].glob ||
        (*reply != '4' && *reply != '5'))
        return false;
    struct sink_rule *r = &o->rules[o->rule_count++];
    *r = (struct sink_rule){.stage = stage, .reply = reply, .percent = percent};
    memcpy(r->glob, glob.p, glob.n);
    return true;
}

static bool read_fail(const char *text, struct sink_options *o)
{
    str_t stage_word, when, rest;
    enum sink_stage stage;
    uint64_t percent = 0;
    if (!str_cut(str_cstr(text), ' ', &stage_word, &rest) || !str_cut(rest, ' ', &when, &rest) ||
        !read_stage(stage_word, &stage))
        return false;
    if (!str_ends(when, STR("%")))
        return add_rule(o, stage, when, 0, rest.p);
    return !str_to_u64(str_sub(when, 0, when.n - 1), &percent) && percent <= 100 &&
           add_rule(o, stage, STR(""), (uint32_t)percent, rest.p);
}

static bool read_containing(const char *text, const char *reply, struct sink_options *o)
{
    char glob[256];
    struct sbuf b = SBUF_ON(glob);
    sbuf_printf(&b, "*%s*", text);
    return add_rule(o, SINK_RCPT, sbuf_view(&b), 0, reply);
}

static bool read_delay(const char *text, struct sink_options *o)
{
    str_t stage_word, ms;
    enum sink_stage stage;
    uint64_t n;
    if (!str_cut(str_cstr(text), '=', &stage_word, &ms) || !read_stage(stage_word, &stage) ||
        str_to_u64(ms, &n) || n > 3600000)
        return false;
    o->delay_ms[stage] = (uint32_t)n;
    return true;
}

static bool read_tls(const char *text, struct sink_options *o)
{
    char error_text[256];
    struct sbuf error = SBUF_ON(error_text);
    str_t cert, key;
    if (!str_cut(str_cstr(text), ',', &cert, &key))
        return false;
    if (tls_context_server(&o->tls, &error) == 0 && tls_context_add_identity(o->tls, cert, key, &error) == 0)
        return true;
    fprintf(stderr, "postern-sink: %.*s\n", (int)error.n, error.p);
    return false;
}

static bool read_option(int c, struct sink_options *o)
{
    uint64_t n = 0;
    switch (c) {
    case 'd': o->maildir = optarg; return true;
    case 'i': o->ids_path = optarg; return true;
    case 't':
        if (str_to_u64(str_cstr(optarg), &n) || n < 1 || n > 64)
            return false;
        o->thread_count = (unsigned)n;
        return true;
    case 'n': return !str_to_u64(str_cstr(optarg), &o->exit_after);
    case OPT_REJECT: return read_containing(optarg, "550 5.1.1 no such user", o);
    case OPT_DEFER: return read_containing(optarg, "450 4.2.0 try again later", o);
    case OPT_REFUSE_DATA: return add_rule(o, SINK_DOT, STR(""), 100, optarg);
    case OPT_FAIL: return read_fail(optarg, o);
    case OPT_DELAY: return read_delay(optarg, o);
    case OPT_TLS: return read_tls(optarg, o);
    case OPT_CHECK: o->check = true; return true;
    case OPT_LMTP: o->lmtp = true; return true;
    case OPT_DSN: o->dsn = true; return true;
    case OPT_NO_PIPELINING: o->no_pipelining = true; return true;
    case OPT_CHUNKING: o->chunking = true; return true;
    case 'q': o->quiet = true; return true;
    default: return false;
    }
}

int sink_options_parse(int argc, char **argv, struct sink_options *o)
{
    *o = (struct sink_options){.thread_count = 1};
    for (int c; (c = getopt_long(argc, argv, "d:i:t:n:qh", longs, NULL)) != -1;) {
        if (c == 'h') {
            fputs(usage_text, stdout);
            exit(EX_OK);
        }
        if (c == '?')
            return EX_USAGE; /* getopt said why */
        if (!read_option(c, o)) {
            fprintf(stderr, "postern-sink: not possible: %s\n", optarg ? optarg : argv[optind - 1]);
            return EX_USAGE;
        }
    }
    if (optind != argc - 1 || endpoint_parse(str_cstr(argv[optind]), &o->at)) {
        fputs(usage_text, stderr);
        return EX_USAGE;
    }
    return 0;
}
