/* smtp/proto/command.h: one command line to one struct. Pure; views point into the line. */
#ifndef SMTP_PROTO_COMMAND_H
#define SMTP_PROTO_COMMAND_H

#include "smtp/proto/address.h"
#include "smtp/proto/reply.h"

enum cmd_flags { CMD_PRE_HELO = 1, CMD_JUNK = 2, CMD_LAST = 4, CMD_NO_ARG = 8 };

enum cmd_id {
#define COMMAND(id, verb, flags) CMD_##id,
#include "smtp/proto/cmd.def"
#undef COMMAND
    CMD_unknown,
    CMD_COUNT
};

struct command {
    enum cmd_id id;
    unsigned flags;
    str_t arg; /* behind the verb, blanks trimmed */
};

const char *cmd_verb(enum cmd_id id);
/* `line` without its CRLF. Never fails: nonsense is CMD_unknown. */
void command_parse(str_t line, struct command *out);

enum body_type { BODY_7BIT, BODY_8BITMIME };

/* RFC 1870 SIZE, RFC 6152 BODY, RFC 6531 SMTPUTF8 (no other parameter is offered yet). */
struct mail_params {
    bool has_size, smtputf8;
    uint64_t size;
    enum body_type body;
};

/* arg = "FROM:<a@b> SIZE=1"; blanks after the colon are tolerated. 0 and *out/ *params, else *refuse says
 * which reply. */
err_t command_parse_mail(str_t arg, struct address *out, struct mail_params *params,
                         enum reply_id *refuse) WARN_UNUSED;
err_t command_parse_rcpt(str_t arg, struct address *out, enum reply_id *refuse) WARN_UNUSED;
/* EHLO/HELO argument: a domain in ASCII or an address literal; `strict` false takes any text: machines have
 * all kinds of names, and nothing depends on them. */
bool helo_valid(str_t arg, bool strict);

#endif
