/* tests/unit/smtp/client/test_client_chunks.c: small messages by BDAT (RFC 3030). */
#include "dialogue.h"

#define CHUNKED(...)                                                                                         \
    {                                                                                                        \
        __VA_ARGS__, .chunk_bytes = 8                                                                        \
    }
#define MESSAGE_0 CHUNKED(.sender = "a@b", .rcpts = {"x@y"})
#define MESSAGE_1 CHUNKED(.sender = "", .rcpts = {"z@y"})
#define MAY       .opt = {.chunking = true}
#define UP        EHLO "S 250-mx\nS 250-PIPELINING\nS 250 CHUNKING\nE ready 2\n"
#define GO_0      "C MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC BDAT 8 LAST\nE content 0\nT 0\nC body 0\n"
#define GO_1      "C MAIL FROM:<>\nC RCPT TO:<z@y>\nC BDAT 8 LAST\nE content 1\nT 1\nC body 1\n"
#define ACCEPTS   "S 250 2.1.0 ok\nS 250 2.1.5 ok\n"
#define TAKES     ACCEPTS "S 250 taken\n"
#define TAKEN_0   "E rcpt 0.0 yes end of data 250\nE done 0\n"
#define TAKEN_1   "E rcpt 1.0 yes end of data 250\nE done 1\n"

static const struct dialogue chunks[] = {
    {"a message in one go", MAY, {MESSAGE_0}, .script = UP "D 0\n" GO_0 TAKES TAKEN_0 "E ready 2\n"},
    {"nothing to reset after one that was taken",
     MAY,
     {MESSAGE_0, MESSAGE_1},
     .script = UP "D 0\n" GO_0 TAKES TAKEN_0 "E ready 2\nD 1\n" GO_1 TAKES TAKEN_1 "E ready 2\n"},
    {"behind one whose end is not known",
     MAY,
     {MESSAGE_0, MESSAGE_1},
     .script = UP "D 0\n" GO_0 "D 1\nC RSET\n" GO_1 TAKES TAKEN_0 "E ready 1\nS 250 reset\n" TAKES TAKEN_1
                  "E ready 2\n"},
    {"behind one that comes to nothing",
     MAY,
     {MESSAGE_0, MESSAGE_1},
     .script =
         UP "D 0\n" GO_0 "D 1\nC RSET\n" GO_1 "S 250 ok\nS 550 5.1.1 no\nE rcpt 0.0 no RCPT 550 5.1.1\n"
            "S 503 5.5.1 no recipients\nE done 0\nE ready 1\nS 250 reset\n" TAKES TAKEN_1 "E ready 2\n"},
    {"no recipient",
     MAY,
     {MESSAGE_0, MESSAGE_1},
     .script = UP "D 0\n" GO_0 "S 250 ok\nS 550 5.1.1 no\nE rcpt 0.0 no RCPT 550 5.1.1\n"
                  "S 503 5.5.1 no recipients\nE done 0\nE ready 2\nD 1\nC RSET\n" GO_1
                  "S 250 reset\n" TAKES TAKEN_1 "E ready 2\n"},
    {"no recipient, and it does not mind",
     MAY,
     {MESSAGE_0},
     .script = UP "D 0\n" GO_0 "S 250 ok\nS 550 5.1.1 no\nE rcpt 0.0 no RCPT 550 5.1.1\n"
                  "S 250 thank you\nE done 0\nE ready 2\n"},
    {"one of two",
     MAY,
     {CHUNKED(.sender = "a@b", .rcpts = {"x@y", "z@y"})},
     .script =
         UP "D 0\nC MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC RCPT TO:<z@y>\nC BDAT 8 LAST\nE content 0\nT 0\n"
            "C body 0\nS 250 ok\nS 450 4.2.1 later\nE rcpt 0.0 no RCPT 450 4.2.1\nS 250 ok\nS 250 taken\n"
            "E rcpt 0.1 yes end of data 250\nE done 0\nE ready 2\n"},
    {"refused at MAIL",
     MAY,
     {MESSAGE_0},
     .script =
         UP "D 0\n" GO_0 "S 550 5.7.1 not you\nE rcpt 0.0 no MAIL 550 5.7.1\nS 503 no\nS 503 no\nE done 0\n"
            "E ready 2\n"},
    {"refused at the end",
     MAY,
     {MESSAGE_0, MESSAGE_1},
     .script = UP "D 0\n" GO_0 ACCEPTS
                  "S 554 5.7.1 spam\nE rcpt 0.0 no end of data 554 5.7.1\nE done 0\nE ready 2\n"
                  "D 1\nC RSET\n" GO_1 "S 250 reset\n" TAKES TAKEN_1 "E ready 2\n"},
    {"421 at the end",
     MAY,
     {MESSAGE_0},
     .script =
         UP "D 0\n" GO_0 ACCEPTS
            "S 421 4.3.2 bye\nE rcpt 0.0 no end of data 421 4.3.2\nE done 0\nE failed end of data 421\n"},
    {"BDAT is not known",
     MAY,
     {MESSAGE_0},
     .script = UP "D 0\n" GO_0 ACCEPTS "S 500 5.5.2 what\nE lost 0\nE failed end of data 0\n"},
    {"the one behind it may have been taken",
     MAY,
     {MESSAGE_0, MESSAGE_1},
     .script = UP "D 0\n" GO_0 "D 1\nC RSET\n" GO_1 ACCEPTS "S 500 5.5.2 what\nE lost 0\nE lost 1 maybe\n"
                  "E failed end of data 0\n"},
    {"501 is a refusal like another",
     MAY,
     {MESSAGE_0},
     .script = UP "D 0\n" GO_0 ACCEPTS
                  "S 501 5.5.4 no\nE rcpt 0.0 no end of data 501 5.5.4\nE done 0\nE ready 2\n"},
    {"BDAT is out of order with a recipient accepted",
     MAY,
     {MESSAGE_0},
     .script = UP "D 0\n" GO_0 ACCEPTS "S 503 5.5.1 need DATA\nE lost 0\nE failed end of data 0\n"},
    {"closed before a word: its replies may have been lost",
     MAY,
     {MESSAGE_0},
     .script = UP "D 0\n" GO_0 "! closed\nE lost 0 maybe\nE failed MAIL 0\n"},
    {"closed when a recipient was accepted",
     MAY,
     {MESSAGE_0},
     .script = UP "D 0\n" GO_0 ACCEPTS "! closed\nE lost 0 maybe\nE failed end of data 0\n"},
    {"closed when none was",
     MAY,
     {MESSAGE_0},
     .script = UP "D 0\n" GO_0 "S 250 ok\nS 550 5.1.1 no\nE rcpt 0.0 no RCPT 550 5.1.1\n! closed\nE done 0\n"
                  "E failed end of data 0\n"},
    {"an answer before the end",
     MAY,
     {MESSAGE_0},
     .script = UP "D 0\nC MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC BDAT 8 LAST\nE content 0\n" ACCEPTS
                  "S 250 taken\nE lost 0\nE failed end of data 0\n"},
    {"content that breaks off",
     MAY,
     {MESSAGE_0},
     .script = UP "D 0\nC MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC BDAT 8 LAST\nE content 0\n! abort 0\nE lost 0\n"
                  "E failed message content 0\n"},
    {"content at once",
     MAY,
     {MESSAGE_0, MESSAGE_1},
     true,
     UP "D 0\nC MAIL FROM:<a@b>\nC RCPT TO:<x@y>\nC BDAT 8 LAST\nC body 0\nE content 0\n"
        "D 1\nC RSET\nC MAIL FROM:<>\nC RCPT TO:<z@y>\nC BDAT 8 LAST\nC body 1\nE content 1\n" TAKES TAKEN_0
        "E ready 1\nS 250 reset\n" TAKES TAKEN_1 "E ready 2\n"},
};

#define BY_DATA SAY_0 YES "E content 0\nT 0\nC body 0\nC .\nS 250 taken\n" TAKEN_0

static const struct dialogue without[] = {
    {"not allowed", .messages = {MESSAGE_0}, .script = UP "D 0\n" BY_DATA "E ready 2\n"},
    {"not offered", MAY, {MESSAGE_0}, .script = UP_PIPE "D 0\n" BY_DATA "E ready 2\n"},
    {"too large to be sent in vain",
     MAY,
     {{.sender = "a@b", .rcpts = {"x@y"}, .chunk_bytes = 65537}},
     .script = UP "D 0\n" BY_DATA "E ready 2\n"},
    {"dots in it, or not known",
     MAY,
     {{.sender = "a@b", .rcpts = {"x@y"}}},
     .script = UP "D 0\n" BY_DATA "E ready 2\n"},
    {"a dot may follow a chunk",
     MAY,
     {MESSAGE_0, {.sender = "", .rcpts = {"z@y"}}},
     .script = UP "D 0\n" GO_0 "D 1\nC RSET\n" SAY_1 TAKES TAKEN_0 "E ready 1\nS 250 reset\n" YES
                  "E content 1\nT 1\nC body 1\nC .\nS 250 taken\n" TAKEN_1 "E ready 2\n"},
    {"no pipelining",
     MAY,
     {MESSAGE_0},
     .script = EHLO
     "S 250-mx\nS 250 CHUNKING\nE ready 1\nD 0\nC MAIL FROM:<a@b>\nS 250 ok\nC RCPT TO:<x@y>\nS 250 ok\n"
     "C DATA\nS 354 go\nE content 0\nT 0\nC body 0\nC .\nS 250 taken\n" TAKEN_0 "E ready 1\n"},
    {"LMTP", .opt = {.lmtp = true, .chunking = true}, .messages = {MESSAGE_0},
     .script =
         "S 220 mx\nC LHLO gw.example\nS 250-mx\nS 250-CHUNKING\nS 250 PIPELINING\nE ready 2\nD 0\n" BY_DATA
         "E ready 2\n"},
};

static void test_chunks(void **state)
{
    play_all(chunks, COUNT_OF(chunks));
}

static void test_without(void **state)
{
    play_all(without, COUNT_OF(without));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_chunks), cmocka_unit_test(test_without)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
