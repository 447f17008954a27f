/* nexthop/settings.h: what talking to next hops goes by: our name, the time-outs, where we ourselves listen.
 * Owned copies, since a reload frees the configuration. One thread. */
#ifndef NEXTHOP_SETTINGS_H
#define NEXTHOP_SETTINGS_H

#include "core/config.h"
#include "core/ip.h"
#include "smtp/client/client.h"

/* RFC 5321 4.5.3.2, milliseconds. */
struct stage_times {
    uint32_t connect_ms, greeting_ms, helo_ms, mail_ms, rcpt_ms, data_init_ms, data_send_ms, data_done_ms,
        idle_ms, quit_ms;
};
/* How long the server may take for what is waited for. */
uint32_t stage_ms(const struct stage_times *t, enum smtpc_stage stage);
/* How long from now: any sign of life starts the stage's time-out anew, but a peer that only drips runs into
 * the limit on time without progress. */
uint64_t stage_left_ms(uint64_t now_ms, uint64_t progress_ms, uint64_t wait_ms);

struct hop_settings {
    char hostname[256];
    struct stage_times times;
    struct endpoint *own; /* owned: where we listen, wildcards spelled out */
    size_t own_count;
};
err_t hop_settings_copy(struct hop_settings *out, const struct config *c) WARN_UNUSED; /* -ENOMEM */
void hop_settings_free(struct hop_settings *s);
bool hop_settings_is_own(const struct hop_settings *s, const struct endpoint *e);

#endif
