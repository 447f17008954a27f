"""Recipient verification between real Postfixes: one behind the gateway owns the mailboxes, one in front of it asks with reject_unverified_recipient."""
import os
import threading

import pytest

from backend import Backend
from conftest import EDGE, INTERNAL, STRANGER, Gateway, Sink, Smtp, eventually, free_port, message
from postfix import POSTFIX, Policy, Postfix, pause_until_second_is_over, users

pytestmark = [pytest.mark.sanitized, pytest.mark.skipif(not POSTFIX or os.geteuid() != 0, reason="needs Postfix, and root to start it")]
GOOD, ALSO, BAD = "bob@example.com", "eve@example.com", "nobody@example.com"
OUTSIDE, INTERNET = "127.0.0.40", "127.0.0.50"  # a client of the edge, and where the edge sends mail


def gateway_for(run, internal_port, edge_port=None, **more):
    edge_port = edge_port or run(Sink, address=EDGE, name="edge").port
    verify = {"mode": "unverified", "canary": 0, **more.pop("verify", {})}
    return run(Gateway, destination={"mode": "edge", "host": EDGE, "port": edge_port}, edge_networks=[EDGE],
               domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": internal_port}}], verify=verify, **more)


def rcpt(server, address, client=STRANGER, sender="alice@example.net"):
    """The reply to one RCPT in a session of its own. server: (host, port)."""
    s = Smtp(*server, client)
    s.ehlo()
    assert s.say(f"MAIL FROM:<{sender}>").code == 250
    reply = s.say(f"RCPT TO:<{address}>")
    s.say("QUIT")
    s.close()
    return reply


def at(gateway):
    return "127.0.0.1", gateway.port


@pytest.fixture
def postfix(run):
    return lambda address, **settings: run(lambda _: Postfix(address, **settings))


# --- behind the gateway ---

def test_postfix_with_mailboxes_behind_us(run, postfix):
    internal = postfix(INTERNAL, **users(GOOD, ALSO))
    gateway = gateway_for(run, internal.port)
    for client in (STRANGER, EDGE):
        assert rcpt(at(gateway), GOOD, client).startswith("250 2.1.5")
        refusal = rcpt(at(gateway), BAD, client)
        assert refusal.startswith("550 5.1.1") and "virtual mailbox table" not in refusal and INTERNAL not in refusal
    s = gateway.smtp(EDGE)
    s.ehlo()
    assert [r.code for r in s.send("alice@example.net", [ALSO, BAD, GOOD], message("both"))] == [250, 250, 550, 250, 354, 250]
    eventually(lambda: set(internal.mail()) == {GOOD, ALSO}, "delivered")
    assert gateway.metric("postern_verify_backends", state="up") == 1


def test_many_unknown_at_postfix_that_slows_and_hangs_up(run, postfix):
    """smtpd_soft_error_limit sleeps after some refusals, smtpd_hard_error_limit hangs up: still every recipient has its answer."""
    internal = postfix(INTERNAL, **users(GOOD), smtpd_soft_error_limit="5", smtpd_hard_error_limit="8", smtpd_error_sleep_time="1s")
    gateway = gateway_for(run, internal.port, limits={"errors": 1000})
    c = gateway.smtp(EDGE)
    c.ehlo()
    c.say("MAIL FROM:<>")
    c.write("".join(f"RCPT TO:<{f'guess{i}@example.com' if i % 10 else GOOD}>\r\n" for i in range(40)))
    assert [c.reply().code for _ in range(40)] == [550 if i % 10 else 250 for i in range(40)]


@pytest.mark.parametrize("limits,most", [({}, 75), ({"smtpd_soft_error_limit": "1000", "smtpd_hard_error_limit": "2000"}, 30)])
def test_connections_that_many_unknown_take(run, postfix, limits, most):
    """As packaged it sleeps from the eleventh refusal of a connection on, and RSET does not make it forget; told to be patient it is asked over few."""
    internal = postfix(INTERNAL, **users(GOOD), **limits)
    gateway = gateway_for(run, internal.port, limits={"errors": 10000})
    c = gateway.smtp(EDGE)
    c.ehlo()
    c.say("MAIL FROM:<>")
    c.write("".join(f"RCPT TO:<guess{i}@example.com>\r\n" for i in range(500)))
    assert [c.reply().code for _ in range(500)] == [550] * 500
    assert gateway.metric("postern_verify_connections_total") <= most
    assert gateway.metric("postern_verify_backends", state="up") == 1


def test_postfix_that_greylists_the_probe(run, postfix):
    """T16. 450 4.7.1 is no verdict; 550 of those whom it does not know comes before the policy is asked."""
    policy = run(lambda _: Policy(lambda a: "DEFER_IF_PERMIT Greylisted, come back"))
    internal = postfix(INTERNAL, **users(GOOD), smtpd_recipient_restrictions=f"reject_unlisted_recipient check_policy_service inet:127.0.0.1:{policy.port}")
    gateway = gateway_for(run, internal.port)
    assert rcpt(at(gateway), GOOD).startswith("450 4.1.1")
    assert rcpt(at(gateway), BAD).startswith("550 5.1.1")
    assert gateway.metric("postern_verdict_cache_entries") == 1, "nothing is remembered of the greylisted one"
    policy.decide = lambda a: "DUNNO"
    assert rcpt(at(gateway), GOOD).code == 250
    assert policy.seen[-1]["sender"] == ""


def test_postfix_that_knows_no_users_before_it_has_asked_its_own_server(run, postfix):
    """reject_unverified_recipient behind us: it waits for its probe itself, and by default says 450 of everything."""
    port = free_port("127.0.0.4")
    last = run(lambda _: Backend("127.0.0.4", port, (GOOD, ALSO)))
    internal = postfix(INTERNAL, relay_domains="example.com", transport_maps=f"inline:{{ example.com=smtp:[127.0.0.4]:{port} }}",
                       smtpd_recipient_restrictions="reject_unverified_recipient")
    gateway = gateway_for(run, internal.port)
    assert rcpt(at(gateway), GOOD, EDGE).code == 250
    assert rcpt(at(gateway), BAD, EDGE).startswith("450 4.1.1"), "a 450 is no verdict"
    internal.configure(unverified_recipient_reject_code="550")
    internal.command("reload")
    eventually(lambda: rcpt(at(gateway), BAD, EDGE).startswith("550 5.1.1"), "now it is one")
    assert last.senders[0].startswith("double-bounce@")


def test_postfix_that_does_not_want_us(run, postfix):
    """T17, by client address: 554 5.7.1 for each recipient makes nobody unknown."""
    internal = postfix(INTERNAL, **users(GOOD), smtpd_delay_reject="yes",
                       smtpd_client_restrictions="check_client_access inline:{ {127.0.0.1 = REJECT not you} }")
    gateway = gateway_for(run, internal.port)
    for i in range(4):
        assert rcpt(at(gateway), f"user{i}@example.com").startswith("451 4.3.0")
    assert gateway.metric("postern_verify_backends", state="refuses-us") == 1
    assert gateway.metric("postern_verdict_cache_entries") == 0
    eventually(lambda: gateway.events("verify_alarm"))


def test_postfix_stops_and_starts(run, postfix):
    internal = postfix(INTERNAL, **users(GOOD, ALSO))
    gateway = gateway_for(run, internal.port)
    assert rcpt(at(gateway), GOOD).code == 250
    internal.stop()
    assert rcpt(at(gateway), ALSO).startswith("451 4.4.1")
    assert rcpt(at(gateway), GOOD).code == 250
    internal.start()
    eventually(lambda: rcpt(at(gateway), ALSO).code == 250)


# --- in front of it ---

def verifying_edge(postfix, gateway_port, **more):
    return postfix(EDGE, relay_domains="example.com", myhostname="edge.example.net", mynetworks="127.0.0.1",
                   transport_maps=f"inline:{{ example.com=smtp:[127.0.0.1]:{gateway_port} }}",
                   smtpd_recipient_restrictions="permit_mynetworks reject_unverified_recipient", unverified_recipient_reject_code="550", **more)


def heard(edge, address):
    return rcpt((EDGE, edge.port), address, OUTSIDE)


def edge_with_backend(run, postfix, gateway=None, edge=None):
    port = free_port(INTERNAL)
    backend = run(lambda _: Backend(INTERNAL, port, (GOOD, ALSO)))
    gateway = gateway_for(run, port, **(gateway or {}))
    return backend, gateway, verifying_edge(postfix, gateway.port, **(edge or {}))


def test_edge_asks_us_and_remembers(run, postfix):
    backend, gateway, edge = edge_with_backend(run, postfix)
    assert heard(edge, GOOD).code == 250
    assert heard(edge, BAD).startswith("550 5.1.1")
    sessions = gateway.metric("postern_sessions_total")
    for _ in range(3):
        assert heard(edge, GOOD).code == 250 and heard(edge, BAD).code == 550
    assert gateway.metric("postern_sessions_total") == sessions, "its cache has learnt both"
    assert gateway.queued() == 0 and not backend.messages


def test_edge_waits_for_a_slow_server(run, postfix):
    """A 450 for "not yet" would be remembered by it for three hours: so it is not said while the answer may still come."""
    backend, gateway, edge = edge_with_backend(run, postfix, {"timeouts": {"verify_stranger": "100ms", "shutdown": "10s"}}, {"address_verify_poll_count": "2"})
    backend.hold = threading.Event()
    assert heard(edge, GOOD).startswith("450 4.1.1"), "its own client is told after some seconds"
    backend.hold.set()
    eventually(lambda: heard(edge, GOOD).code == 250)
    assert backend.probes(GOOD) == 1


def test_edge_hears_that_the_server_is_down_and_asks_again(run, postfix):
    """Our 4xx is no verdict for it either. When it asks again is its own setting: address_verify_negative_refresh_time."""
    backend, gateway, edge = edge_with_backend(run, postfix, edge={"address_verify_negative_refresh_time": "1s"})
    backend.stop()
    assert heard(edge, GOOD).code == 450
    backend.start()
    eventually(lambda: gateway.metric("postern_verify_backends", state="up") == 1 or rcpt(at(gateway), ALSO).code == 250, "the gateway knows better")
    pause_until_second_is_over()
    eventually(lambda: heard(edge, GOOD).code == 250)
    assert heard(edge, BAD).code == 550


def test_edge_asks_for_many(run, postfix):
    """No penalty, no limit, no error budget for an edge that asks for whatever strangers try there."""
    backend, gateway, edge = edge_with_backend(run, postfix, {"limits": {"errors": 3}},
                                               {"smtpd_soft_error_limit": "1000", "smtpd_hard_error_limit": "1000"})
    found = [None] * 20

    def client(k):
        s = Smtp(EDGE, edge.port, OUTSIDE)
        s.ehlo()
        s.say("MAIL FROM:<alice@example.net>")
        found[k] = [s.say(f"RCPT TO:<guess-{k}-{i}@example.com>").code for i in range(4)] + [s.say(f"RCPT TO:<{GOOD}>").code]
        s.close()

    threads = [threading.Thread(target=client, args=(k,)) for k in range(len(found))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [[550] * 4 + [250]] * len(found)
    assert gateway.metric("postern_sessions_harvest_total") == 0 and gateway.metric("postern_rcpts_tarpitted_total") == 0


def test_probes_by_the_thousand(run):
    """As an edge's: one recipient a session, with RSET or QUIT behind it, or nothing at all."""
    port = free_port(INTERNAL)
    run(lambda _: Backend(INTERNAL, port, (GOOD, ALSO)))
    gateway = gateway_for(run, port, limits={"errors": 3}, verify={"rate": 0})
    for i in range(1000):
        c = gateway.smtp(EDGE)
        to = GOOD if i % 4 == 0 else f"guess{i % 500}@example.com"
        c.write(f"EHLO edge.example.net\r\nMAIL FROM:<double-bounce@edge.example.net>\r\nRCPT TO:<{to}>\r\n" + ("RSET\r\n", "QUIT\r\n", "")[i % 3])
        assert c.reply().code == 250 and c.reply().code == 250
        assert c.reply().code == (250 if to == GOOD else 550)
        c.close()
    assert gateway.metric("postern_sessions_harvest_total") == 0


# --- both ---

def test_postfix_on_both_sides(run, postfix):
    """edge -> gateway -> internal for mail in, with both asking; internal -> gateway -> edge -> the internet for mail out."""
    internet = run(Sink, address=INTERNET, name="internet")
    internal = postfix(INTERNAL, **users(GOOD, ALSO), myhostname="internal.example.com")
    gateway_port = free_port()
    edge = verifying_edge(postfix, gateway_port, relayhost=f"[{INTERNET}]:{internet.port}")
    gateway = gateway_for(run, internal.port, edge.port, listeners=[{"address": f"127.0.0.1:{gateway_port}"}])
    gateway.port = gateway_port
    internal.configure(relayhost=f"[127.0.0.1]:{gateway_port}")
    internal.command("reload")

    s = Smtp(EDGE, edge.port, OUTSIDE)
    s.ehlo()
    replies = s.send("alice@example.net", [GOOD, BAD, ALSO], message("in"))
    assert [r.code for r in replies] == [250, 250, 550, 250, 354, 250]
    eventually(lambda: set(internal.mail()) == {GOOD, ALSO}, "both got it")

    s = Smtp(INTERNAL, internal.port, INTERNAL)
    s.ehlo()
    assert s.send(GOOD, "carol@elsewhere.example", message("out"))[-1].code == 250
    assert internet.wait_for(1)[0].recipients == ["carol@elsewhere.example"]
    assert gateway.metric("postern_verify_backends", state="up") == 1, "nobody took the other for a loop"
