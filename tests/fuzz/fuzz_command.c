/* One command line, and its arguments as whatever they may be. */
#include "smtp/proto/command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_refusal(err_t err, enum reply_id refuse)
{
    must((err == 0) == (refuse == R_COUNT));
    must(err == 0 || reply_def(refuse)->code >= 500);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    str_t line = str_of((const char *)data, size);
    struct command c;
    struct address a;
    struct mail_params params;
    enum reply_id refuse = R_COUNT;
    command_parse(line, &c);
    must(c.id <= CMD_unknown && c.arg.n <= size);
    err_t err = command_parse_mail(c.arg, &a, &params, &refuse);
    check_refusal(err, refuse);
    must(err || a.is_null || a.domain.n > 0);
    must(err || !a.is_utf8 || params.smtputf8);
    must(err || (params.envid.n <= ENVID_MAX && str_is_ascii(params.envid)));
    refuse = R_COUNT;
    struct rcpt_params rcpt;
    err = command_parse_rcpt(c.arg, &a, &rcpt, &refuse);
    check_refusal(err, refuse);
    must(err || (!a.is_null && a.local.n > 0));
    must(err || (rcpt.orcpt.n <= ORCPT_MAX && !(rcpt.notify & NOTIFY_NEVER && rcpt.notify != NOTIFY_NEVER)));
    char text[64];
    struct sbuf decoded = SBUF_ON(text);
    must(xtext_decode(c.arg, &decoded) || decoded.n <= c.arg.n);
    uint64_t octets;
    bool is_last;
    must(command_parse_bdat(c.arg, &octets, &is_last) || (c.arg.p[0] >= '0' && c.arg.p[0] <= '9'));
    must(helo_valid(c.arg, false) || !helo_valid(c.arg, true));
    return 0;
}
