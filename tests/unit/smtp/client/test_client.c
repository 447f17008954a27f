/* tests/unit/smtp/client/test_client.c: the whole dialogue but BDAT. */
#include "dialogue.h"

static const struct dialogue hello[] = {
    {"HELO for an old server", .script = EHLO "S 500 what\nC HELO gw.example\nS 250 mx\nE ready 1\n"},
    {"greeting refused", .script = "S 554 5.7.1 go away\nE failed greeting 554\n"},
    {"EHLO refused for now", .script = EHLO "S 450 4.3.2 later\nE failed HELO 450\n"},
    {"EHLO 421", .script = EHLO "S 421 4.3.2 bye\nE failed HELO 421\n"},
    {"HELO refused too", .script = EHLO "S 502 no\nC HELO gw.example\nS 550 no\nE failed HELO 550\n"},
    {"no HELO in LMTP", .opt = {.lmtp = true},
     .script = "S 220 mx\nC LHLO gw.example\nS 500 no\nE failed HELO 500\n"},
    {"garbage", .script = "S SSH-2.0-OpenSSH\nE failed greeting 0\n"},
    {"closed before the greeting", .script = "! closed\nE failed greeting 0\n"},
    {"nothing after a failure", .script = "S 554 no\nE failed greeting 554\n! closed\nS 220 mx\n"},
    {"quit", .script = UP_PIPE "! quit\nC QUIT\nS 221 bye\nE quit\n! closed\n"},
    {"closed instead of the reply to QUIT", .script = UP_PIPE "! quit\nC QUIT\n! closed\nE failed QUIT 0\n"},
    {"idle and closed", .script = UP_PIPE "! closed\nE failed idle 0\n"},
    {"idle and 421", .script = UP_PIPE "S 421 4.4.2 idle too long\nE failed idle 421\n"},
    {"unasked reply", .script = UP_PIPE "S 250 hello?\nE failed idle 250\n"},
};

#define OFFERS_TLS EHLO "S 250-mx\nS 250-PIPELINING\nS 250 STARTTLS\n"

static const struct dialogue tls[] = {
    {"TLS, and the first features are forgotten", .opt = {.tls = SMTPC_TLS_MAY},
     .script =
         OFFERS_TLS "C STARTTLS\nS 220 go\nE starttls\n! secured\nC EHLO gw.example\nS 250 mx\nE ready 1\n"},
    {"off is off", .script = OFFERS_TLS "E ready 2\n"},
    {"may, not offered", .opt = {.tls = SMTPC_TLS_MAY}, .script = UP_PIPE},
    {"may, refused", .opt = {.tls = SMTPC_TLS_MAY},
     .script = OFFERS_TLS "C STARTTLS\nS 454 4.7.0 not now\nE ready 2\n"},
    {"must, refused", .opt = {.tls = SMTPC_TLS_REQUIRE},
     .script = OFFERS_TLS "C STARTTLS\nS 454 4.7.0 not now\nE failed STARTTLS 454\n"},
    {"must, not offered", .opt = {.tls = SMTPC_TLS_REQUIRE},
     .script = EHLO "S 250 mx\nE failed STARTTLS 454\n"},
    {"must, HELO only", .opt = {.tls = SMTPC_TLS_REQUIRE},
     .script = EHLO "S 500 what\nC HELO gw.example\nS 250 mx\nE failed STARTTLS 454\n"},
    {"handshake failed", .opt = {.tls = SMTPC_TLS_MAY},
     .script = OFFERS_TLS "C STARTTLS\nS 220 go\nE starttls\n! tls failed\nE failed STARTTLS 0\n"},
    {"closed in the handshake", .opt = {.tls = SMTPC_TLS_MAY},
     .script = OFFERS_TLS "C STARTTLS\nS 220 go\nE starttls\n! closed\nE failed STARTTLS 0\n"},
};

/* "user" "pass" */
#define USER_64  "dXNlcg=="
#define PASS_64  "cGFzcw=="
#define PLAIN_64 "AHVzZXIAcGFzcw=="
#define SECURED                                                                                              \
    OFFERS_TLS "C STARTTLS\nS 220 go\nE starttls\n! secured\nC EHLO gw.example\nS 250-mx\nS "                \
               "250-PIPELINING\n"
#define LOGS_IN(mechanism_)                                                                                  \
    .opt = {.tls = SMTPC_TLS_REQUIRE,                                                                        \
            .has_auth = true,                                                                                \
            .auth = {.mechanism = mechanism_, .user = STR("user"), .password = STR("pass")}}

static const struct dialogue logins[] = {
    {"PLAIN", LOGS_IN(AUTH_AUTO),
     .script = SECURED "S 250 AUTH LOGIN PLAIN CRAM-MD5\nC AUTH PLAIN " PLAIN_64
                       "\nS 235 2.7.0 welcome\nE ready 2\n"},
    {"LOGIN where that is all", LOGS_IN(AUTH_AUTO),
     .script = SECURED "S 250 AUTH LOGIN\nC AUTH LOGIN\nS 334 VXNlcm5hbWU6\nC " USER_64
                       "\nS 334 UGFzc3dvcmQ6\nC " PASS_64 "\nS 235 2.7.0 welcome\nE ready 2\n"},
    {"LOGIN when it is wanted", LOGS_IN(AUTH_LOGIN),
     .script = SECURED "S 250 AUTH PLAIN LOGIN\nC AUTH LOGIN\nS 334 x\nC " USER_64
                       "\nS 535 5.7.8 no\nE failed AUTH 535\n"},
    {"PLAIN when it is wanted, and not there", LOGS_IN(AUTH_PLAIN),
     .script = SECURED "S 250 AUTH LOGIN\nE failed AUTH 454\n"},
    {"EXTERNAL", LOGS_IN(AUTH_EXTERNAL),
     .script =
         SECURED "S 250 AUTH PLAIN EXTERNAL\nC AUTH EXTERNAL " USER_64 "\nS 235 2.7.0 welcome\nE ready 2\n"},
    {"EXTERNAL without a name",
     .opt = {.tls = SMTPC_TLS_REQUIRE, .has_auth = true, .auth = {.mechanism = AUTH_EXTERNAL}},
     .script = SECURED "S 250 AUTH EXTERNAL\nC AUTH EXTERNAL =\nS 235 2.7.0 welcome\nE ready 2\n"},
    {"nothing offered", LOGS_IN(AUTH_AUTO), .script = SECURED "S 250 8BITMIME\nE failed AUTH 454\n"},
    {"nothing that we know", LOGS_IN(AUTH_AUTO),
     .script = SECURED "S 250 AUTH GSSAPI XPLAIN\nE failed AUTH 454\n"},
    {"refused", LOGS_IN(AUTH_AUTO),
     .script = SECURED "S 250 AUTH PLAIN\nC AUTH PLAIN " PLAIN_64 "\nS 535 5.7.8 wrong\nE failed AUTH 535\n"},
    {"not now", LOGS_IN(AUTH_AUTO),
     .script = SECURED "S 250 AUTH PLAIN\nC AUTH PLAIN " PLAIN_64 "\nS 454 4.7.0 later\nE failed AUTH 454\n"},
    {"a question that PLAIN does not have", LOGS_IN(AUTH_AUTO),
     .script = SECURED "S 250 AUTH PLAIN\nC AUTH PLAIN " PLAIN_64 "\nS 334 what\nE failed AUTH 0\n"},
    {"taken too early", LOGS_IN(AUTH_LOGIN),
     .script = SECURED "S 250 AUTH LOGIN\nC AUTH LOGIN\nS 235 sure\nE failed AUTH 0\n"},
    {"asked too often", LOGS_IN(AUTH_LOGIN),
     .script = SECURED "S 250 AUTH LOGIN\nC AUTH LOGIN\nS 334 a\nC " USER_64 "\nS 334 b\nC " PASS_64
                       "\nS 334 c\nE failed AUTH 0\n"},
    {"never in the clear, whatever is offered",
     .opt = {.tls = SMTPC_TLS_MAY, .has_auth = true, .auth = {.user = STR("user"), .password = STR("pass")}},
     .script = EHLO "S 250-mx\nS 250 AUTH PLAIN LOGIN\nE failed AUTH 454\n"},
    {"what was offered in the clear is forgotten", LOGS_IN(AUTH_AUTO),
     .script = EHLO "S 250-mx\nS 250-AUTH PLAIN\nS 250 STARTTLS\nC STARTTLS\nS 220 go\nE starttls\n! "
                    "secured\nC EHLO gw.example\n"
                    "S 250 mx\nE failed AUTH 454\n"},
};

static const struct dialogue pipelined[] = {
    {"one message", .messages = ONE,
     .script = UP_PIPE "D 0\n" SAY_0 YES "E content 0\nT 0\nC body 0\nC .\n"
                       "S 250 2.0.0 taken\nE rcpt 0.0 yes end of data 250 2.0.0\nE done 0\nE ready 2\n"},
    {"the next one's commands leave behind the dot", .messages = THREE,
     .script =
         UP_PIPE "D 0\n" SAY_0 "D 1\n" YES "E content 0\nT 0\nC body 0\nC .\n" SAY_1
                 "S 250 taken\nE rcpt 0.0 yes end of data 250\nE done 0\nE ready 1\nD 2\n" YES
                 "E content 1\nT 1\nC body 1\nC .\n" SAY_2
                 "S 250 taken\nE rcpt 1.0 yes end of data 250\nE done 1\nE ready 1\n" YES "E content 2\n"
                 "T 2\nC body 2\nC .\nS 250 taken\nE rcpt 2.0 yes end of data 250\nE done 2\nE ready 2\n"},
    {"content at once", .messages = TWO, .sync_content = true,
     .script =
         UP_PIPE "D 0\n" SAY_0 "D 1\n" YES "E content 0\nC body 0\nC .\n" SAY_1
                 "S 250 taken\nE rcpt 0.0 yes end of data 250\nE done 0\nE ready 1\n" YES "E content 1\n"
                 "C body 1\nC .\nS 250 taken\nE rcpt 1.0 yes end of data 250\nE done 1\nE ready 2\n"},
    {"some recipients refused", .messages = TWO_RCPTS,
     .script =
         UP_PIPE "D 0\nC MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC RCPT TO:<z@y>\nC DATA\n"
                 "S 250 ok\nS 550 5.1.1 no\nS 250 ok\nS 354 go\nE rcpt 0.0 no RCPT 550 5.1.1\nE content 0\n"
                 "T 0\nC body 0\nC .\nS 250 taken\nE rcpt 0.1 yes end of data 250\nE done 0\nE ready 2\n"},
    {"the content refused", .messages = TWO_RCPTS,
     .script =
         UP_PIPE "D 0\nC MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC RCPT TO:<z@y>\nC DATA\n"
                 "S 250 ok\nS 250 ok\nS 250 ok\nS 354 go\nE content 0\nT 0\nC body 0\nC .\nS 554 5.7.1 spam\n"
                 "E rcpt 0.0 no end of data 554 5.7.1\nE rcpt 0.1 no end of data 554 5.7.1\nE done 0\n"
                 "E ready 2\n"},
    {"all refused, DATA too: RSET before the next", .messages = TWO,
     .script = UP_PIPE
     "D 0\n" SAY_0 "D 1\nS 250 ok\nS 450 4.2.1 later\nS 503 no\nE rcpt 0.0 no RCPT 450 4.2.1\n"
     "E done 0\nE ready 1\nC RSET\n" SAY_1 "S 250 flushed\n" YES "E content 1\nT 1\nC body 1\nC .\n"
     "S 250 taken\nE rcpt 1.0 yes end of data 250\nE done 1\nE ready 2\n"},
    {"all refused, DATA not: a dot, its reply ignored", .messages = TWO,
     .script = UP_PIPE "D 0\n" SAY_0 "D 1\nS 250 ok\nS 550 no\nS 354 go\nE rcpt 0.0 no RCPT 550\nC .\n" SAY_1
                       "S 554 no valid recipients\nE done 0\nE ready 1\n" YES "E content 1\n"},
    {"DATA refused", .messages = ONE,
     .script = UP_PIPE "D 0\n" SAY_0
                       "S 250 ok\nS 250 ok\nS 451 4.3.0 disk\nE rcpt 0.0 no DATA 451 4.3.0\nE done 0\n"
                       "E ready 2\nD 0\nC RSET\n" SAY_0},
    {"MAIL refused, all the rest too: no RSET", .messages = TWO_RCPTS,
     .script = UP_PIPE "D 0\nC MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC RCPT TO:<z@y>\nC DATA\n"
                       "S 550 5.7.1 you\nS 503 no\nS 503 no\nS 503 no\n"
                       "E rcpt 0.0 no MAIL 550 5.7.1\nE rcpt 0.1 no MAIL 550 5.7.1\nE done 0\nE ready 2\n"
                       "D 0\nC MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC RCPT TO:<z@y>\nC DATA\n"},
    {"MAIL refused, DATA not: a dot", .messages = ONE,
     .script = UP_PIPE "D 0\n" SAY_0 "S 450 you\nS 503 no\nS 354 go\nE rcpt 0.0 no MAIL 450\nC .\n"
                       "S 503 no\nE done 0\nE ready 2\n"},
    {"MAIL refused, recipient taken, 354: no dot may follow", .messages = ONE,
     .script = UP_PIPE "D 0\n" SAY_0 "S 450 you\nS 250 ok\nS 354 go\nE rcpt 0.0 no MAIL 450\nE done 0\n"
                       "E failed DATA 0\n"},
    {"a reply of no known sort", .messages = ONE,
     .script = UP_PIPE "D 0\n" SAY_0 "S 354 go\nE lost 0\nE failed MAIL 0\n"},
    {"DATA answered 250", .messages = ONE,
     .script = UP_PIPE "D 0\n" SAY_0 "S 250 ok\nS 250 ok\nS 250 ok\nE lost 0\nE failed DATA 0\n"},
};

static const struct dialogue lost[] = {
    {"closed after MAIL", .messages = TWO,
     .script = UP_PIPE "D 0\n" SAY_0 "D 1\nS 250 ok\n! closed\nE lost 0\nE lost 1\nE failed RCPT 0\n"},
    {"421 to RCPT", .messages = TWO_RCPTS,
     .script = UP_PIPE
     "D 0\nC MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC RCPT TO:<z@y>\nC DATA\n"
     "S 250 ok\nS 550 no\nS 421 4.3.2 down\nE rcpt 0.0 no RCPT 550\nE lost 0\nE failed RCPT 421\n"},
    {"every outcome known: done, not lost", .messages = ONE,
     .script = UP_PIPE "D 0\n" SAY_0
                       "S 250 ok\nS 550 no\nE rcpt 0.0 no RCPT 550\n! closed\nE done 0\nE failed DATA 0\n"},
    {"closed in the content", .messages = ONE,
     .script = UP_PIPE "D 0\n" SAY_0 YES "E content 0\n! closed\nE lost 0\nE failed message content 0\n"},
    {"content that cannot be read", .messages = TWO,
     .script = UP_PIPE "D 0\n" SAY_0 "D 1\n" YES "E content 0\n! abort 0\nE lost 0\nE lost 1\n"
                       "E failed message content 0\n"},
    {"a word in the middle of the content", .messages = ONE,
     .script = UP_PIPE "D 0\n" SAY_0 YES
                       "E content 0\nS 552 5.3.4 enough\nE lost 0\nE failed message content 552\n"},
    {"closed after the dot: perhaps it was taken", .messages = TWO,
     .script = UP_PIPE "D 0\n" SAY_0 "D 1\n" YES "E content 0\nT 0\nC body 0\nC .\n" SAY_1
                       "! closed\nE lost 0 maybe\nE lost 1\nE failed end of data 0\n"},
    {"421 to the dot: it was not", .messages = TWO,
     .script = UP_PIPE "D 0\n" SAY_0 "D 1\n" YES "E content 0\nT 0\nC body 0\nC .\n" SAY_1
                       "S 421 4.3.2 down\nE rcpt 0.0 no end of data 421 4.3.2\nE done 0\nE lost 1\n"
                       "E failed end of data 421\n"},
    {"garbage for a reply", .messages = ONE,
     .script = UP_PIPE "D 0\n" SAY_0 "S 2x0\nE lost 0\nE failed MAIL 0\n"},
};

static const struct dialogue lock_step[] = {
    {"one message", .messages = TWO_RCPTS,
     .script =
         UP_PLAIN "D 0\nC MAIL FROM:<a@b>\nS 250 ok\nC RCPT TO:<x@y>\nS 550 no\nE rcpt 0.0 no RCPT 550\n"
                  "C RCPT TO:<z@y>\nS 250 ok\nC DATA\nS 354 go\nE content 0\nT 0\nC body 0\nC .\n"
                  "S 250 ok\nE rcpt 0.1 yes end of data 250\nE done 0\nE ready 1\n"},
    {"all refused: no DATA, RSET before the next", .messages = ONE,
     .script =
         UP_PLAIN "D 0\nC MAIL FROM:<a@b>\nS 250 ok\nC RCPT TO:<x@y>\nS 550 no\nE rcpt 0.0 no RCPT 550\n"
                  "E done 0\nE ready 1\nD 0\nC RSET\nS 250 ok\nC MAIL FROM:<a@b>\n"},
    {"MAIL refused", .messages = ONE,
     .script = UP_PLAIN "D 0\nC MAIL FROM:<a@b>\nS 550 no\nE rcpt 0.0 no MAIL 550\nE done 0\nE ready 1\n"
                        "D 0\nC MAIL FROM:<a@b>\n"},
    {"RSET refused", .messages = ONE,
     .script =
         UP_PLAIN "D 0\nC MAIL FROM:<a@b>\nS 250 ok\nC RCPT TO:<x@y>\nS 550 no\nE rcpt 0.0 no RCPT 550\n"
                  "E done 0\nE ready 1\nD 0\nC RSET\nS 500 what\nE lost 0\nE failed MAIL 500\n"},
};

#define LMTP_SAY "D 0\nC MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC RCPT TO:<z@y>\nC RCPT TO:<w@y>\nC DATA\n"
#define THREE_RCPTS                                                                                          \
    {                                                                                                        \
        {.sender = "a@b", .rcpts = {"x@y", "z@y", "w@y"}},                                                   \
        {                                                                                                    \
            .sender = "", .rcpts = { "z@y" }                                                                 \
        }                                                                                                    \
    }

static const struct dialogue lmtp[] = {
    {"a reply for each recipient", .opt = {.lmtp = true}, .messages = THREE_RCPTS,
     .script =
         UP_LMTP LMTP_SAY "D 1\nS 250 ok\nS 250 ok\nS 550 no\nS 250 ok\nS 354 go\nE rcpt 0.1 no RCPT 550\n"
                          "E content 0\nT 0\nC body 0\nC .\n" SAY_1 "S 250 ok\nS 452 4.2.2 full\n"
                          "E rcpt 0.0 yes end of data 250\nE rcpt 0.2 no end of data 452 4.2.2\nE done 0\n"
                          "E ready 1\n" YES "E content 1\n"},
    {"closed between them", .opt = {.lmtp = true}, .messages = THREE_RCPTS,
     .script = UP_LMTP LMTP_SAY
     "S 250 ok\nS 250 ok\nS 250 ok\nS 250 ok\nS 354 go\nE content 0\nT 0\nC body 0\nC .\n"
     "S 250 ok\nE rcpt 0.0 yes end of data 250\n! closed\nE lost 0 maybe\n"
     "E failed end of data 0\n"},
    {"421 for the rest", .opt = {.lmtp = true}, .messages = THREE_RCPTS,
     .script = UP_LMTP LMTP_SAY
     "S 250 ok\nS 250 ok\nS 250 ok\nS 250 ok\nS 354 go\nE content 0\nT 0\nC body 0\nC .\n"
     "S 250 ok\nS 421 down\nE rcpt 0.0 yes end of data 250\nE rcpt 0.1 no end of data 421\n"
     "E rcpt 0.2 no end of data 421\nE done 0\nE failed end of data 421\n"},
    {"354 without recipients", .opt = {.lmtp = true}, .messages = ONE,
     .script = UP_LMTP "D 0\n" SAY_0 "S 250 ok\nS 550 no\nS 354 go\nE rcpt 0.0 no RCPT 550\nE done 0\n"
                       "E failed DATA 0\n"},
};

#define UP_SIZE                                                                                              \
    EHLO "S 250-mx\nS 250-PIPELINING\nS 250-SIZE 1000\nS 250-8bitmime\nS 250 SMTPUTF8\nE ready 2\n"

static const struct dialogue extensions[] = {
    {"all said",
     .messages = {{.sender = "a@b", .rcpts = {"x@y"}, .size = 999, .body = BODY_8BITMIME, .smtputf8 = true}},
     .script = UP_SIZE "D 0\nC MAIL FROM:<a@b> SIZE=999 BODY=8BITMIME SMTPUTF8\nC RCPT TO:<x@y>\nC DATA\n"},
    {"none said when not offered", .messages = {{.sender = "a@b", .rcpts = {"x@y"}, .size = 999}},
     .script = UP_PIPE "D 0\n" SAY_0},
    {"DSN said",
     .messages = {{.sender = "a@b",
                   .rcpts = {"x@y", "z@y"},
                   .ret = RET_HDRS,
                   .envid = "id+2B1",
                   .notify = NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY,
                   .orcpt = "rfc822;o+2Bx@y"}},
     .script = EHLO "S 250-mx\nS 250-dsn\nS 250 PIPELINING\nE ready 2\nD 0\nC MAIL FROM:<a@b> RET=HDRS "
                    "ENVID=id+2B1\nC RCPT TO:<x@y> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;o+2Bx@y\n"
                    "C RCPT TO:<z@y> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;o+2Bx@y\nC DATA\n"},
    {"DSN not offered",
     .messages = {{.sender = "a@b",
                   .rcpts = {"x@y"},
                   .ret = RET_HDRS,
                   .envid = "id",
                   .notify = NOTIFY_NEVER,
                   .orcpt = "rfc822;o@y"}},
     .script = UP_PIPE "D 0\n" SAY_0},
    {"no commands inside DSN parameters",
     .messages = {{.sender = "a@b", .rcpts = {"x@y"}, .envid = "id\r\nQUIT", .orcpt = "rfc822;o SIZE=1"}},
     .script = EHLO "S 250-mx\nS 250-DSN\nS 250 PIPELINING\nE ready 2\nD 0\nC MAIL FROM:<a@b>\n"
                    "C RCPT TO:<x@y>\nC DATA\n"},
    {"too big",
     .messages = {{.sender = "a@b", .rcpts = {"x@y", "z@y"}, .size = 1001}, {.sender = "", .rcpts = {"z@y"}}},
     .script =
         UP_SIZE "D 0\nE rcpt 0.0 no MAIL 552 5.3.4\nE rcpt 0.1 no MAIL 552 5.3.4\nE done 0\nD 1\n" SAY_1},
    {"8-bit to a 7-bit server", .messages = {{.sender = "a@b", .rcpts = {"x@y"}, .body = BODY_8BITMIME}},
     .script = UP_PLAIN "D 0\nE rcpt 0.0 no MAIL 554 5.6.3\nE done 0\n"},
    {"8-bit to a server that is known to take it", .opt = {.sends_eight_bit = true},
     .messages = {{.sender = "a@b", .rcpts = {"x@y"}, .body = BODY_8BITMIME}},
     .script = UP_PLAIN "D 0\nC MAIL FROM:<a@b>\nS 250 ok\nC RCPT TO:<x@y>\n"},
    {"lock step, whatever it offers", .opt = {.lock_step = true},
     .messages = {{.sender = "a@b", .rcpts = {"x@y"}}},
     .script =
         EHLO "S 250-mx\nS 250 PIPELINING\nE ready 1\nD 0\nC MAIL FROM:<a@b>\nS 250 ok\nC RCPT TO:<x@y>\n"},
    {"SMTPUTF8 not taken", .messages = {{.sender = "a@b", .rcpts = {"\xC3\xB6@y"}, .smtputf8 = true}},
     .script = UP_PIPE "D 0\nE rcpt 0.0 no MAIL 553 5.6.7\nE done 0\n"},
    {"no commands inside addresses", .messages = {{.sender = "a@b", .rcpts = {"x@y>\r\nQUIT"}}},
     .script = UP_PIPE "D 0\nE rcpt 0.0 no MAIL 553 5.1.3\nE done 0\n"},
    {"no parameters inside addresses", .messages = {{.sender = "a@b> SIZE=1", .rcpts = {"x@y"}}},
     .script = UP_PIPE "D 0\nE rcpt 0.0 no MAIL 553 5.1.3\nE done 0\n"},
    {"quoted, that is no parameter", .messages = {{.sender = "\"a> SIZE=1\"@b", .rcpts = {"x@y"}}},
     .script = UP_PIPE "D 0\nC MAIL FROM:<\"a> SIZE=1\"@b>\nC RCPT TO:<x@y>\nC DATA\n"},
};

#define PROBES                                                                                               \
    {                                                                                                        \
        {.sender = "", .rcpts = {"x@y", "z@y"}, .probe = true},                                              \
            {.sender = "p@b", .rcpts = {"w@y"}, .probe = true},                                              \
        {                                                                                                    \
            .sender = "a@b", .rcpts = { "x@y" }                                                              \
        }                                                                                                    \
    }
#define PROBE_0 "C MAIL FROM:<>\nC RCPT TO:<x@y>\nC RCPT TO:<z@y>\nC RSET\n"
#define PROBE_1 "C MAIL FROM:<p@b>\nC RCPT TO:<w@y>\nC RSET\n"

static const struct dialogue probes[] = {
    {"never DATA", .messages = PROBES,
     .script = UP_PIPE "D 0\n" PROBE_0 "S 250 ok\nS 250 2.1.5 ok\nS 550 5.1.1 no\nS 250 flushed\n"
                       "E rcpt 0.0 yes RCPT 250 2.1.5\nE rcpt 0.1 no RCPT 550 5.1.1\nE done 0\nE ready 2\n"},
    {"the next one right behind, and a message behind that", .messages = PROBES,
     .script = UP_PIPE "D 0\n" PROBE_0 "D 1\n" PROBE_1 "S 250 ok\nS 250 ok\nS 450 4.2.0 no\nS 250 ok\n"
                       "E rcpt 0.0 yes RCPT 250\nE rcpt 0.1 no RCPT 450 4.2.0\nE done 0\nE ready 1\n"
                       "D 2\n" SAY_0 "S 250 ok\nS 250 ok\nS 250 ok\n"
                       "E rcpt 1.0 yes RCPT 250\nE done 1\nE ready 1\n" YES "E content 2\n"
                       "T 2\nC body 2\nC .\nS 250 ok\nE rcpt 2.0 yes end of data 250\nE done 2\nE ready 2\n"},
    {"the sender refused", .messages = PROBES,
     .script = UP_PIPE "D 0\n" PROBE_0 "D 1\n" PROBE_1
                       "S 550 5.7.1 no null sender\nS 503 what\nS 503 what\nS 250 ok\n"
                       "E rcpt 0.0 no MAIL 550 5.7.1\nE rcpt 0.1 no MAIL 550 5.7.1\nE done 0\nE ready 1\n"
                       "S 250 ok\nS 250 ok\nS 250 ok\nE rcpt 1.0 yes RCPT 250\nE done 1\nE ready 2\n"},
    {"in lock step", .messages = PROBES,
     .script = UP_PLAIN "D 0\nC MAIL FROM:<>\nS 250 ok\nC RCPT TO:<x@y>\nS 550 5.1.1 no\n"
                        "E rcpt 0.0 no RCPT 550 5.1.1\nC RCPT TO:<z@y>\nS 250 ok\nE rcpt 0.1 yes RCPT 250\n"
                        "C RSET\nS 250 ok\nE done 0\nE ready 1\n"
                        "D 1\nC MAIL FROM:<p@b>\nS 550 no\nE rcpt 1.0 no MAIL 550\nE done 1\nE ready 1\n"},
    {"LMTP", .opt = {.lmtp = true}, .messages = PROBES,
     .script = UP_LMTP "D 0\n" PROBE_0 "S 250 ok\nS 250 2.1.5 ok\nS 550 5.1.1 no\nS 250 ok\n"
                       "E rcpt 0.0 yes RCPT 250 2.1.5\nE rcpt 0.1 no RCPT 550 5.1.1\nE done 0\nE ready 2\n"},
    {"421 in the middle", .messages = PROBES,
     .script = UP_PIPE "D 0\n" PROBE_0 "S 250 ok\nS 250 ok\nS 421 4.3.2 bye\n"
                       "E rcpt 0.0 yes RCPT 250\nE lost 0\nE failed RCPT 421\n"},
    {"closed when all is known", .messages = PROBES,
     .script = UP_PIPE "D 0\n" PROBE_0 "S 250 ok\nS 250 ok\nS 250 ok\nE rcpt 0.0 yes RCPT 250\n"
                       "E rcpt 0.1 yes RCPT 250\n! closed\nE done 0\nE failed MAIL 0\n"},
    {"RSET refused", .messages = PROBES,
     .script = UP_PIPE "D 1\n" PROBE_1 "S 250 ok\nS 250 ok\nS 500 what\n"
                       "E rcpt 1.0 yes RCPT 250\nE done 1\nE failed MAIL 500\n"},
    {"neither yes nor no", .messages = PROBES,
     .script = UP_PIPE "D 1\n" PROBE_1 "S 250 ok\nS 354 what\nE lost 1\nE failed RCPT 0\n"},
};

static void test_hello(void **state)
{
    play_all(hello, COUNT_OF(hello));
}

static void test_logins(void **state)
{
    play_all(logins, COUNT_OF(logins));
}

static void test_tls(void **state)
{
    play_all(tls, COUNT_OF(tls));
}

static void test_pipelined(void **state)
{
    play_all(pipelined, COUNT_OF(pipelined));
}

static void test_lost(void **state)
{
    play_all(lost, COUNT_OF(lost));
}

static void test_lock_step(void **state)
{
    play_all(lock_step, COUNT_OF(lock_step));
}

static void test_lmtp(void **state)
{
    play_all(lmtp, COUNT_OF(lmtp));
}
static void test_probes(void **state)
{
    play_all(probes, COUNT_OF(probes));
}

static void test_extensions(void **state)
{
    play_all(extensions, COUNT_OF(extensions));
}

/* Clear text right behind the 220 would be read as if it had come through TLS. */
static void test_starttls_injection(void **state)
{
    static const struct dialogue d = {"injection", .opt = {.tls = SMTPC_TLS_MAY},
                                      .script = OFFERS_TLS
                                      "C STARTTLS\nS 220 go\nS 250 evil\nE failed STARTTLS 0\n"};
    play(&d, SIZE_MAX / 2);
}

/* All in one packet: the dot's reply, the next message's replies, and so on: one round trip a message. */
static void test_one_round_trip_a_message(void **state)
{
    static const struct dialogue d = {"one round trip", .messages = THREE,
                                      .script = UP_PIPE
                                      "D 0\n" SAY_0 "D 1\n" YES "E content 0\nT 0\nC body 0\nC .\n" SAY_1
                                      "S 250 taken\n" YES
                                      "E rcpt 0.0 yes end of data 250\nE done 0\nE content 1\nE ready 1\n"
                                      "D 2\nT 1\nC body 1\nC .\n" SAY_2 "S 250 taken\n" YES
                                      "E rcpt 1.0 yes end of data 250\nE done 1\nE content 2\nE ready 1\n"};
    play(&d, SIZE_MAX / 2);
}

/* More recipients than a window, and more than the engine keeps room for at first. */
static void test_many_recipients(void **state)
{
    enum { COUNT = 1500 };
    static struct run r;
    static char said[64], told[COUNT * 40];
    static struct envelope_rcpt rcpts[COUNT];
    static const struct dialogue d = {"many recipients"};
    static const char up[] = "220 mx\r\n250-mx\r\n250 PIPELINING\r\n250 ok\r\n";
    struct smtpc_options opt = {.helo_name = STR("gw.example")};
    r = (struct run){.dialogue = &d};
    r.told = SBUF_ON(told);
    assert_int_equal(smtpc_create(&r.c, &host_ops, &r, &opt), 0);
    smtpc_start(r.c);
    for (unsigned i = 0; i < COUNT; i++)
        rcpts[i].address = STR("x@y");
    r.txs[0] = (struct smtpc_tx){.sender = STR("a@b"), .rcpts = rcpts, .rcpt_count = COUNT};
    smtpc_input(r.c, (const uint8_t *)up, sizeof up - 1 - 8);
    smtpc_deliver(r.c, &r.txs[0]);
    assert_int_equal(r.txs[0].rcpts_sent, 200);
    smtpc_input(r.c, (const uint8_t *)up + sizeof up - 1 - 8, 8);
    for (unsigned i = 0; i < COUNT; i++) {
        const char *reply = i % 3 ? "250 ok\r\n" : "550 no\r\n";
        assert_true(r.txs[0].rcpts_sent - i <= 200);
        smtpc_input(r.c, (const uint8_t *)reply, 8);
    }
    assert_int_equal(smtpc_stage(r.c), STAGE_DATA);
    smtpc_input(r.c, (const uint8_t *)"354 go\r\n", 8);
    assert_int_equal(smtpc_stage(r.c), STAGE_CONTENT);
    r.said = SBUF_ON(said);
    smtpc_content_end(r.c, &r.txs[0]);
    assert_true(str_eq(sbuf_view(&r.said), STR(".\r\n")));
    smtpc_input(r.c, (const uint8_t *)"250 ok\r\n", 8);
    assert_int_equal(r.txs[0].outcome_count, COUNT);
    assert_true(smtpc_idle(r.c) && !r.told.overflow);
    assert_true(str_ends(sbuf_view(&r.told), STR("rcpt 0.1499 yes end of data 250\ndone 0\nready 2\n")));
    smtpc_destroy(r.c);
}

/* Two probes out at once share the window: what is unanswered stays bounded, and both come to their end. */
static void test_two_large_probes(void **state)
{
    enum { COUNT = 300 };
    static struct run r;
    static char told[2 * COUNT * 40];
    static struct envelope_rcpt rcpts[COUNT];
    static const struct dialogue d = {"large probes"};
    static const char up[] = "220 mx\r\n250-mx\r\n250 PIPELINING\r\n";
    struct smtpc_options opt = {.helo_name = STR("gw.example")};
    r = (struct run){.dialogue = &d};
    r.told = SBUF_ON(told);
    assert_int_equal(smtpc_create(&r.c, &host_ops, &r, &opt), 0);
    smtpc_start(r.c);
    for (unsigned i = 0; i < COUNT; i++)
        rcpts[i].address = STR("x@y");
    smtpc_input(r.c, (const uint8_t *)up, sizeof up - 1);
    for (unsigned i = 0; i < 2; i++) {
        r.txs[i] = (struct smtpc_tx){.rcpts = rcpts, .rcpt_count = COUNT, .probe = true};
        smtpc_deliver(r.c, &r.txs[i]);
    }
    for (unsigned i = 0; i < 2 * (COUNT + 2); i++) {
        uint32_t answered = r.txs[0].rcpts_answered + r.txs[1].rcpts_answered;
        assert_true(r.txs[0].rcpts_sent + r.txs[1].rcpts_sent - answered <= 200);
        smtpc_input(r.c, (const uint8_t *)"250 ok\r\n", 8);
    }
    assert_int_equal(r.txs[0].outcome_count + r.txs[1].outcome_count, 2 * COUNT);
    assert_true(smtpc_idle(r.c));
    smtpc_destroy(r.c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_logins),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_lock_step),
        cmocka_unit_test(test_lmtp),
        cmocka_unit_test(test_probes),
        cmocka_unit_test(test_two_large_probes),
        cmocka_unit_test(test_extensions),
        cmocka_unit_test(test_starttls_injection),
        cmocka_unit_test(test_one_round_trip_a_message),
        cmocka_unit_test(test_many_recipients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
