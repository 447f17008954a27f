/* daemon/intake.h: a message that was queued on another node comes in. Worker's thread. */
#ifndef DAEMON_INTAKE_H
#define DAEMON_INTAKE_H

#include "admin/transfer.h"
#include "daemon/ask.h"

struct intake_request {
    struct gbuf record; /* owned; what `message` points into */
    struct arena arena; /* owned */
    struct transfer_message message;
    bool parked;
    unsigned worker; /* whose it becomes */
};

/* ask_kind.begin; the argument is the id. Answers {"result", …} when it is here, or cannot be. */
void intake_look(struct ask *a);
/* ask_kind.begin; the argument is a struct intake_request. One worker answers, when it is on the disk. */
void intake_begin(struct ask *a);

#endif
