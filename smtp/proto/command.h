/* smtp/proto/command.h: one command line to one struct. Pure; views point into the line. */
#ifndef SMTP_PROTO_COMMAND_H
#define SMTP_PROTO_COMMAND_H

#include "smtp/proto/address.h"
#include "smtp/proto/reply.h"

enum cmd_flags {
    CMD_PRE_HELO = 1,
    CMD_JUNK = 2,
    CMD_LAST = 4,
    CMD_NO_ARG = 8,
    CMD_OCTETS = 16,
    CMD_IN_CLEAR = 32
};

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

/* RFC 3461 4.3: how much of a message goes back with a report of its failure. */
enum dsn_ret { RET_UNSAID, RET_FULL, RET_HDRS };
/* RFC 3461 4.1: what a recipient's sender wants to hear of; 0 = it did not say. NEVER stands alone. */
enum dsn_notify { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 };

/* RFC 1870 SIZE, RFC 6152 BODY, RFC 6531 SMTPUTF8, RFC 3461 RET and ENVID. */
struct mail_params {
    bool has_size, has_body, smtputf8;
    bool has_dsn; /* RET or ENVID stands there, good or bad: for those to whom DSN is not offered */
    uint64_t size;
    enum body_type body;
    enum dsn_ret ret;
    str_t envid; /* xtext, as it came; absent: none */
};

/* RFC 3461 NOTIFY and ORCPT. */
struct rcpt_params {
    bool has_dsn;   /* as above */
    uint8_t notify; /* enum dsn_notify */
    str_t orcpt;    /* "rfc822;bob+2Bx@example.com": type, and address in xtext or as RFC 6533 3 has it; as it
                       came; absent: none */
};
#define ENVID_MAX 100 /* bytes in xtext: RFC 3461 4.4 */
#define ORCPT_MAX 500 /* bytes, type included: RFC 3461 4.2 */

/* arg = "FROM:<a@b> SIZE=1"; blanks after the colon are tolerated. 0 and *out/ *params, else *refuse says
 * which reply. */
err_t command_parse_mail(str_t arg, struct address *out, struct mail_params *params,
                         enum reply_id *refuse) WARN_UNUSED;
err_t command_parse_rcpt(str_t arg, struct address *out, struct rcpt_params *params,
                         enum reply_id *refuse) WARN_UNUSED;
/* RFC 3030: arg = "1000 LAST". What passes 64 bits saturates. */
err_t command_parse_bdat(str_t arg, uint64_t *octets, bool *is_last) WARN_UNUSED;
/* RFC 5321 4.1.2 esmtp-value, in UTF-8 (RFC 6531): nothing that ends a parameter or a line. */
bool param_value_valid(str_t s);
/* RFC 3461 4: appends what an xtext stands for. ERR_SYNTAX: it is none; what was appended is of no use. */
err_t xtext_decode(str_t xtext, struct sbuf *out) WARN_UNUSED;
/* EHLO/HELO argument: a domain in ASCII or an address literal; `strict` false takes any text: machines have
 * all kinds of names, and nothing depends on them. */
bool helo_valid(str_t arg, bool strict);

#endif
