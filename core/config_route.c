/* core/config_route.c: readers of what a route says of TLS and logging in, and what these mean together. */
#include "core/config_priv.h"

void read_pins(struct loader *l, const struct schema_key *k, const struct node *list, void *field)
{
    struct cfg_tls_peer *peer = container_of((char *)field, struct cfg_tls_peer, pins);

    peer->pins = new_items(l, k, list, sizeof *peer->pins);
    for (const struct node *n = list->first; n && peer->pins && !too_many_errors(l); n = n->next) {
        struct cfg_pin *pin = &peer->pins[peer->pin_count];
        if (!schema_check_kind(l, k, n, NODE_SCALAR))
            continue;
        pin->mark = n->mark;
        read_pin(l, k, n, &pin->text);
        peer->pin_count += pin->text.n > 0;
    }
}

void read_login(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    if (!n->text.n || n->text.n > AUTH_USER_BYTES_MAX)
        value_error(l, k, n);
    else
        *(str_t *)field = arena_str(l->arena, n->text);
}

void read_tls_peer(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct cfg_tls_peer *peer = field;

    peer->mark = n->mark;
    schema_read_map(l, SECTION_tls_peer, n, peer);
    if (!peer->certificate.n != !peer->key.n)
        diag_error(l->diag, n->mark,
                   "tls_peer: a certificate and its key belong together; write certificate: "
                   "/etc/postern/client.pem and key: /etc/postern/client.key");
}

void read_auth(struct loader *l, const struct schema_key *k, const struct node *n, void *field)
{
    struct cfg_auth *auth = field;

    auth->mark = n->mark;
    schema_fill_defaults(l, SECTION_auth, auth);
    schema_read_map(l, SECTION_auth, n, auth);
    if (auth->mechanism == AUTH_EXTERNAL && auth->password_file.n)
        diag_error(l->diag, n->mark,
                   "auth: external goes by certificate, without a password; leave password_file out");
    else if (auth->mechanism != AUTH_EXTERNAL && (!auth->user.n || !auth->password_file.n))
        diag_error(l->diag, n->mark,
                   "auth: needs a user and a password_file; write { user: gw, password_file: "
                   "/etc/postern/password }");
}

static void finish_peer(struct loader *l, const struct cfg_route *route)
{
    const struct cfg_tls_peer *peer = &route->tls_peer;

    if (route->tls == TLS_PIN && !peer->pin_count)
        diag_error(l->diag, peer->mark.line ? peer->mark : route->mark,
                   "tls: pin needs the pins; write tls_peer: { pins: [\"spki:...\"] } (docs/tls.md says how "
                   "to get one)");
    if (!peer->mark.line)
        return;
    if (route->tls == TLS_OFF)
        diag_error(l->diag, peer->mark,
                   "tls_peer: means nothing with tls: off; write tls: require, verify or pin");
    if (peer->pin_count && route->tls != TLS_PIN && route->tls != TLS_OFF)
        diag_error(l->diag, peer->pins[0].mark, "pins: are looked at with tls: pin only; write tls: pin");
    if (peer->ca.n && route->tls != TLS_VERIFY && route->tls != TLS_OFF)
        diag_error(l->diag, peer->mark, "ca: is looked at with tls: verify only; write tls: verify");
}

/* A password goes to a server that has proved who it is, and to nobody in between. */
static void finish_auth(struct loader *l, const struct cfg_route *route)
{
    const struct cfg_auth *auth = &route->auth;

    if (!auth->mark.line)
        return;
    if (auth->mechanism != AUTH_EXTERNAL && route->tls != TLS_VERIFY && route->tls != TLS_PIN)
        diag_error(l->diag, auth->mark,
                   "auth: a password needs a server that has shown who it is; write tls: verify, or tls: pin "
                   "with its pin");
    if (auth->mechanism == AUTH_EXTERNAL && (route->tls < TLS_REQUIRE || !route->tls_peer.certificate.n))
        diag_error(
            l->diag, auth->mark,
            "auth: external needs a certificate and TLS; write tls: require and tls_peer: { certificate: "
            "/etc/postern/client.pem, key: /etc/postern/client.key }");
}

void config_finish_route_access(struct loader *l, const struct cfg_route *route)
{
    finish_peer(l, route);
    finish_auth(l, route);
}
