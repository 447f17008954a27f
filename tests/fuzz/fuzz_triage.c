/* What servers say to probes: the first byte is the stage, the rest goes through the reply parser. Whatever
 * they say, it gets one meaning, and only RCPT and later refuse users. */
#include "verify/triage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(enum smtpc_stage at, const struct smtp_reply *r)
{
    const char *why = NULL;
    enum triage t = triage_reply(at, r, &why);
    must(why && *why && t <= TRIAGE_LOOP);
    must(at >= STAGE_RCPT || (t != TRIAGE_UNKNOWN && t != TRIAGE_DISABLED && t != TRIAGE_GOOD));
    must(t != TRIAGE_UNKNOWN || r->code / 100 == 5);
    must(t != TRIAGE_GOOD || r->code / 100 == 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct reply_parser p;
    if (size < 1)
        return 0;
    enum smtpc_stage at = (enum smtpc_stage)(data[0] % (STAGE_DOT + 1));
    memset(&p, 0, sizeof p);
    for (size_t n = 1; n < size;) {
        bool done;
        err_t err;
        n += reply_parse(&p, data + n, size - n, &done, &err);
        if (err)
            return 0;
        if (done)
            judge(at, &p.reply);
    }
    return 0;
}
