/* tests/unit/verify/test_triage.c: real servers' replies, and what they mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verify/triage.h"

struct sample {
    enum smtpc_stage at;
    const char *reply; /* as the server sends it, lines with \n */
    enum triage want;
};

static const struct sample samples[] = {
    /* Postfix */
    {STAGE_RCPT, "250 2.1.5 Ok", TRIAGE_GOOD},
    {STAGE_RCPT, "550 5.1.1 <x@a.example>: Recipient address rejected: User unknown in local recipient table",
     TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 5.1.1 <x@a.example>: Recipient address rejected: User unknown in virtual mailbox table",
     TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 5.1.0 <x@a.example>: Recipient address rejected: User unknown", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "450 4.1.1 <x@a.example>: Recipient address rejected: unverified address: Address lookup",
     TRIAGE_LATER},
    {STAGE_RCPT, "450 4.1.1 <x@a.example>: Recipient address rejected: User unknown in local recipient table",
     TRIAGE_LATER}, /* soft_bounce: it says "not now" */
    {STAGE_RCPT, "454 4.7.1 <x@a.example>: Relay access denied", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "554 5.7.1 <x@a.example>: Relay access denied", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "450 4.7.1 <gw>: Helo command rejected: Host not found", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "504 5.5.2 <gw>: Helo command rejected: need fully-qualified hostname", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.1]",
     TRIAGE_REFUSES_US},
    {STAGE_RCPT, "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied", TRIAGE_REFUSES_US},
    {STAGE_RCPT,
     "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; "
     "https://www.spamhaus.org/query/ip/192.0.2.1",
     TRIAGE_REFUSES_US},
    {STAGE_RCPT, "450 4.1.8 <probe@gw.example>: Sender address rejected: Domain not found", TRIAGE_SENDER},
    {STAGE_RCPT, "550 5.1.8 <probe@gw.example>: Sender address rejected: Domain not found", TRIAGE_SENDER},
    {STAGE_RCPT, "554 5.7.1 <>: Sender address rejected: Access denied", TRIAGE_SENDER},
    {STAGE_RCPT, "554 5.7.1 <x@a.example>: Recipient address rejected: Access denied", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "450 4.2.0 <x@a.example>: Recipient address rejected: Greylisted, see http://x.example",
     TRIAGE_LATER},
    {STAGE_RCPT, "451 4.3.0 <x@a.example>: Temporary lookup failure", TRIAGE_BACKEND},
    {STAGE_RCPT, "451 4.3.5 Server configuration error", TRIAGE_BACKEND},
    {STAGE_RCPT, "452 4.3.1 Insufficient system storage", TRIAGE_BACKEND},
    {STAGE_RCPT, "452 4.5.3 Error: too many recipients", TRIAGE_CROWDED},
    {STAGE_RCPT, "501 5.1.3 Bad recipient address syntax", TRIAGE_UNKNOWN},
    {STAGE_MAIL, "452 4.3.1 Insufficient system storage", TRIAGE_BACKEND},
    {STAGE_MAIL, "530 5.7.0 Must issue a STARTTLS command first", TRIAGE_REFUSES_US},
    {STAGE_GREETING, "554 5.7.1 mx.example: you are blacklisted", TRIAGE_REFUSES_US},
    {STAGE_GREETING, "450 4.3.2 all server ports are busy", TRIAGE_BACKEND},
    {STAGE_HELO, "450 4.7.1 <gw>: Helo command rejected: Host not found", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "421 4.3.2 Service shutting down", TRIAGE_BACKEND},
    /* Postfix that asks the next server itself: its 5.1.1 is not always one */
    {STAGE_RCPT,
     "550 5.1.1 <x@a.example>: Recipient address rejected: undeliverable address: host in.example[10.0.0.1] "
     "said: 550 5.1.1 <x@a.example>: User unknown (in reply to RCPT TO command)",
     TRIAGE_UNKNOWN},
    {STAGE_RCPT,
     "550 5.1.1 <x@a.example>: Recipient address rejected: undeliverable address: host in.example[10.0.0.1] "
     "said: 554 5.7.1 <mx[10.0.0.2]>: Client host rejected: Access denied (in reply to RCPT TO command)",
     TRIAGE_LATER},
    {STAGE_RCPT,
     "550 5.1.1 <x@a.example>: Recipient address rejected: undeliverable address: host in.example[10.0.0.1] "
     "said: 550 go away (in reply to MAIL FROM command)",
     TRIAGE_LATER},
    {STAGE_RCPT,
     "550 5.1.1 <x@a.example>: Recipient address rejected: undeliverable address: unknown user: \"x\"",
     TRIAGE_UNKNOWN},
    /* Exchange, Exchange Online */
    {STAGE_RCPT, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
     TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 5.1.1 User unknown", TRIAGE_UNKNOWN},
    {STAGE_RCPT,
     "550 5.4.1 Recipient address rejected: Access denied. AS(201806281) [DB5EUR01FT005.eop-EUR01]",
     TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 5.4.1 No answer from host", TRIAGE_BACKEND},
    {STAGE_RCPT, "550 5.7.1 Unable to relay", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "550 5.7.64 TenantAttribution; Relay Access Denied [XX.outlook.com]", TRIAGE_REFUSES_US},
    {STAGE_MAIL, "530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM",
     TRIAGE_REFUSES_US},
    {STAGE_MAIL, "550 5.7.1 Client was not authenticated", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required", TRIAGE_DISABLED},
    {STAGE_RCPT, "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required",
     TRIAGE_DISABLED},
    {STAGE_RCPT,
     "550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal visit https://x.example",
     TRIAGE_REFUSES_US},
    {STAGE_RCPT, "550 5.7.511 Access denied, banned sender[192.0.2.1]", TRIAGE_REFUSES_US},
    {STAGE_MAIL, "550 5.7.1 Null sender is not allowed", TRIAGE_SENDER},
    {STAGE_RCPT, "451 4.7.500 Server busy. Please try again later from [192.0.2.1]", TRIAGE_LATER},
    {STAGE_RCPT, "452 4.5.3 Recipients belong to multiple regions ATTR38", TRIAGE_CROWDED},
    {STAGE_RCPT, "452 4.3.1 Insufficient system resources (UsedDiskSpace)", TRIAGE_BACKEND},
    {STAGE_RCPT, "550 5.2.1 mailbox disabled, not accepting messages", TRIAGE_DISABLED},
    /* Exim */
    {STAGE_RCPT, "550 Unknown user", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 no such address here", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 No Such User Here\"", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 relay not permitted", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "550 Unrouteable address", TRIAGE_UNKNOWN},
    {STAGE_RCPT,
     "550-Verification failed for <probe@gw.example>\n550-No Such User Here\n550 Sender verify failed",
     TRIAGE_SENDER},
    {STAGE_RCPT, "550 Legitimate bounces are never sent to more than one recipient.", TRIAGE_CROWDED},
    {STAGE_RCPT, "550 Administrative prohibition", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "451 Temporary local problem - please try later", TRIAGE_LATER},
    {STAGE_RCPT, "452 too many recipients", TRIAGE_CROWDED},
    {STAGE_RCPT, "550 5.5.3 Null sender with several recipients", TRIAGE_CROWDED},
    {STAGE_RCPT, "451 4.7.1 Greylisting in action, please come back later", TRIAGE_LATER},
    {STAGE_RCPT, "552 mailbox is full", TRIAGE_FULL},
    {STAGE_RCPT,
     "550-\"JunkMail rejected - gw [192.0.2.1]:4 is in an RBL\"\n550 bounces are not accepted here",
     TRIAGE_SENDER},
    /* Dovecot LMTP, Cyrus */
    {STAGE_RCPT, "550 5.1.1 <x@a.example> User doesn't exist: x@a.example", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "552 5.2.2 <x@a.example> Quota exceeded (mailbox for user is full)", TRIAGE_FULL},
    {STAGE_DOT, "552 5.2.2 <x@a.example> Quota exceeded (mailbox for user is full)", TRIAGE_FULL},
    {STAGE_RCPT, "451 4.3.0 <x@a.example> Temporary internal error", TRIAGE_BACKEND},
    {STAGE_RCPT,
     "550-Mailbox unknown.  Either there is no mailbox associated with this\n550-name or you do not "
     "have authorization to see it.\n550 5.1.1 User unknown",
     TRIAGE_UNKNOWN},
    /* Zimbra */
    {STAGE_RCPT, "550 5.1.1 <x@a.example>: Recipient address rejected: a.example", TRIAGE_UNKNOWN},
    {STAGE_DOT, "452 4.2.2 Over quota", TRIAGE_FULL},
    /* sendmail */
    {STAGE_RCPT, "550 5.1.1 <x@a.example>... User unknown", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 5.7.1 <x@a.example>... Relaying denied. IP name lookup failed [192.0.2.1]",
     TRIAGE_REFUSES_US},
    {STAGE_RCPT, "550 5.1.2 <x@a.example>... Host unknown (Name server: a.example: host not found)",
     TRIAGE_REFUSES_US},
    {STAGE_MAIL, "553 5.1.8 <probe@gw.example>... Domain of sender address probe@gw.example does not exist",
     TRIAGE_SENDER},
    {STAGE_MAIL, "451 4.1.8 Domain of sender address probe@gw.example does not resolve", TRIAGE_SENDER},
    {STAGE_RCPT, "452 4.5.3 Too many recipients", TRIAGE_CROWDED},
    {STAGE_RCPT, "552 5.5.3 Too many recipients", TRIAGE_CROWDED},
    /* qmail and kin */
    {STAGE_RCPT, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "550 sorry, no mailbox here by that name (#5.1.1)", TRIAGE_UNKNOWN},
    {STAGE_MAIL, "553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)", TRIAGE_SENDER},
    /* Google */
    {STAGE_RCPT,
     "550-5.1.1 The email account that you tried to reach does not exist. Please try\n550-5.1.1 "
     "double-checking the recipient's email address for typos or\n550 5.1.1 unnecessary spaces. - gsmtp",
     TRIAGE_UNKNOWN},
    {STAGE_RCPT, "452-4.2.2 The recipient's inbox is out of storage space.\n452 4.2.2 - gsmtp", TRIAGE_FULL},
    {STAGE_RCPT, "550 5.2.1 The email account that you tried to reach is inactive. - gsmtp", TRIAGE_DISABLED},
    {STAGE_RCPT, "450 4.2.1 The user you are trying to contact is receiving mail at a rate that - gsmtp",
     TRIAGE_LATER},
    {STAGE_MAIL,
     "421-4.7.0 [192.0.2.1] Our system has detected an unusual rate of\n421 4.7.0 unsolicited mail "
     "originating from your IP address.",
     TRIAGE_REFUSES_US},
    /* Courier, Domino, MDaemon, Stalwart, SES */
    {STAGE_RCPT, "550 User unknown.", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 x@a.example... User not listed in Domino Directory", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 5.1.1 Recipient unknown <x@a.example>", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 5.1.2 Mailbox does not exist.", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 5.1.2 Relay not allowed.", TRIAGE_REFUSES_US},
    {STAGE_MAIL, "501 Invalid MAIL FROM address provided", TRIAGE_SENDER},
    {STAGE_RCPT, "551 User not local; please try <x@b.example>", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "551 we do not relay", TRIAGE_REFUSES_US},
    {STAGE_RCPT, "550 Requested action not taken: mailbox unavailable", TRIAGE_UNKNOWN},
    {STAGE_RCPT, "550 Rejected", TRIAGE_REFUSES_US}, /* says nothing of the user */
    {STAGE_RCPT, "503 5.5.1 MAIL first", TRIAGE_BACKEND},
    {STAGE_RCPT, "554 5.4.6 Too many hops: mail loop", TRIAGE_LOOP},
    {STAGE_RCPT, "554 5.4.6 Routing loop detected: you asked this server about its own question",
     TRIAGE_LOOP},
    {STAGE_MAIL, "550 5.7.1 nothing from you", TRIAGE_REFUSES_US},
    {STAGE_MAIL, "550 no", TRIAGE_SENDER},
    {STAGE_MAIL, "450 4.7.1 try later", TRIAGE_BACKEND},
    {STAGE_RCPT, "553 5.6.7 Non-ASCII address needs SMTPUTF8", TRIAGE_LATER},
    /* a class that contradicts the code does not count */
    {STAGE_RCPT, "450 5.1.1 what now", TRIAGE_LATER},
    /* deliveries */
    {STAGE_DOT, "250 2.0.0 taken", TRIAGE_GOOD},
    {STAGE_DOT, "550 5.1.1 no such user", TRIAGE_UNKNOWN},
    {STAGE_DOT, "550 5.7.1 looks like spam", TRIAGE_LATER},
    {STAGE_DATA, "554 5.5.1 no valid recipients", TRIAGE_LATER},
    {STAGE_MAIL, "250 what", TRIAGE_BACKEND},
};

static struct smtp_reply parse(const char *text, struct reply_parser *p)
{
    char wire[2048];
    struct sbuf b = SBUF_ON(wire);
    for (const char *c = text; *c; c++) {
        if (*c == '\n')
            sbuf_char(&b, '\r');
        sbuf_char(&b, *c);
    }
    sbuf_cstr(&b, "\r\n");
    bool done;
    err_t err;
    memset(p, 0, sizeof *p);
    reply_parse(p, (const uint8_t *)b.p, b.n, &done, &err);
    if (err || !done)
        fail_msg("not a reply: %s", text);
    return p->reply;
}

static void real_replies(void **state)
{
    static struct reply_parser p;
    for (size_t i = 0; i < COUNT_OF(samples); i++) {
        struct smtp_reply r = parse(samples[i].reply, &p);
        const char *why = NULL;
        enum triage got = triage_reply(samples[i].at, &r, &why);
        if (got != samples[i].want)
            fail_msg("%s: %s: want %s, got %s (%s)", smtpc_stage_name(samples[i].at), samples[i].reply,
                     triage_name(samples[i].want), triage_name(got), why);
        assert_non_null(why);
    }
    assert_int_equal(triage_reply(STAGE_RCPT, NULL, NULL), TRIAGE_BACKEND);
}

/* Whoever asks chooses the address, and servers repeat it: nothing in it may pass for the server's words. */
static void echoed_addresses_say_nothing(void **state)
{
    static const char *const locals[] = {"relay access denied",
                                         "client host rejected",
                                         "sender address rejected",
                                         "blocked using spamhaus",
                                         "too many recipients",
                                         "mail loop",
                                         "over quota"};
    static const char *const forms[][2] = {{"550 <\"", "\"@a.example>: user unknown"},
                                           {"550 \"", "\"@a.example: user unknown"},
                                           {"550 user unknown: \"", "\""},
                                           {"550 user unknown <", "@a.example>"},
                                           {"550 5.1.1 \"", "\"@a.example no"}};
    static struct reply_parser p;
    char text[200];
    for (size_t i = 0; i < COUNT_OF(locals); i++)
        for (size_t k = 0; k < COUNT_OF(forms); k++) {
            snprintf(text, sizeof text, "%s%s%s", forms[k][0], locals[i], forms[k][1]);
            struct smtp_reply r = parse(text, &p);
            if (triage_reply(STAGE_RCPT, &r, NULL) != TRIAGE_UNKNOWN)
                fail_msg("%s", text);
        }
    struct smtp_reply r = parse("450 no.such.user@user-unknown.example is not here \"user unknown", &p);
    assert_int_equal(triage_reply(STAGE_RCPT, &r, NULL), TRIAGE_LATER);
}

/* A refusal of the recipient comes from RCPT or later, never from what was said before it. */
static void only_rcpt_refuses_users(void **state)
{
    static const enum smtpc_stage early[] = {STAGE_CONNECT, STAGE_GREETING, STAGE_HELO, STAGE_TLS,
                                             STAGE_MAIL};
    static struct reply_parser p;
    for (size_t i = 0; i < COUNT_OF(samples); i++)
        for (size_t k = 0; k < COUNT_OF(early); k++) {
            struct smtp_reply r = parse(samples[i].reply, &p);
            enum triage t = triage_reply(early[k], &r, NULL);
            assert_true(t != TRIAGE_UNKNOWN && t != TRIAGE_DISABLED && t != TRIAGE_FULL && t != TRIAGE_GOOD);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_replies),
        cmocka_unit_test(echoed_addresses_say_nothing),
        cmocka_unit_test(only_rcpt_refuses_users),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
