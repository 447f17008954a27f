/* relay/settings.c: what the relay keeps of a configuration. */
#include "relay/relay_priv.h"

err_t settings_copy(struct settings *out, const struct config *c)
{
    struct settings s = {
        .retry = {c->retry.first_s, c->retry.max_s},
        .lifetime_ms = (uint64_t)c->retry.lifetime_s * 1000,
        .delay_after_ms = (uint64_t)c->dsn.delay_after_s * 1000,
        .return_size_bytes = c->dsn.return_size,
        .dsn_rate = c->dsn.rate,
        .double_bounces = c->dsn.double_bounces,
        .dsn_lifetime_ms = (uint64_t)c->retry.dsn_lifetime_s * 1000,
    };
    err_t err = hop_settings_copy(&s.hop, c);
    if (!err)
        *out = s;
    return err;
}

void settings_free(struct settings *s)
{
    hop_settings_free(&s->hop);
}
