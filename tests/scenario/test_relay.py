"""Real mail through the gateway, both ways: who may send where, where it goes, and what comes back."""
import email
import email.policy
import re

import pytest

from conftest import EDGE, INTERNAL, STRANGER, Gateway, Sink, Smtp, eventually, free_port, message, routes, source

pytestmark = pytest.mark.sanitized


def test_in_from_a_stranger_and_from_the_edge(pair):
    gateway, internal, edge = pair
    for client in (STRANGER, EDGE):
        s = gateway.smtp(client)
        assert "PIPELINING" in s.ehlo()
        assert s.send("alice@example.net", "bob@example.com", message(client))[-1].startswith("250 2.0.0")
    kept = internal.wait_for(2)
    assert {k.recipients[0] for k in kept} == {"bob@example.com"} and {k.sender for k in kept} == {"alice@example.net"}
    assert not edge.messages()


def test_out_from_the_internal_server(pair):
    gateway, internal, edge = pair
    s = gateway.smtp(INTERNAL)
    s.ehlo()
    assert s.send("bob@example.com", "carol@elsewhere.example", message("out"))[-1].code == 250
    assert edge.wait_for(1)[0].recipients == ["carol@elsewhere.example"]
    assert not internal.messages()


@pytest.mark.parametrize("client", [STRANGER, EDGE])
def test_nobody_but_trusted_clients_may_relay(pair, client):
    gateway, _, _ = pair
    s = gateway.smtp(client)
    s.ehlo()
    s.say("MAIL FROM:<alice@example.net>")
    for foreign in ("carol@elsewhere.example", "x@sub.example.com", "x@[192.0.2.1]", "a%b@elsewhere.example"):
        assert s.say(f"RCPT TO:<{foreign}>").startswith("554 5.7.1"), foreign
    assert s.say("RCPT TO:<bob@example.com>").code == 250
    assert s.say("DATA").code == 354


def test_trace_header_and_added_headers(pair):
    gateway, internal, edge = pair
    bare = "From: a@example.net\r\nSubject: neither Date nor Message-ID\r\n\r\nhello\r\n"
    s = gateway.smtp(STRANGER)
    s.ehlo("client.example.net")
    s.send("alice@example.net", "bob@example.com", bare)
    t = gateway.smtp(INTERNAL)
    t.ehlo()
    reply = t.send("bob@example.com", "carol@elsewhere.example", bare)[-1]
    from_stranger, from_trusted = internal.wait_for(1)[0], edge.wait_for(1)[0]
    received = from_stranger.parsed["Received"]
    assert re.search(r"from client\.example\.net \(\[127\.0\.0\.1\]\)\s+by gw\.example\.com with ESMTP id \w+", received), received
    assert "for <bob@example.com>" in received
    assert from_stranger.parsed["Date"] is None and from_stranger.parsed["Message-ID"] is None
    assert from_trusted.parsed["Date"] is not None and "@gw.example.com>" in from_trusted.parsed["Message-ID"]
    assert from_stranger.raw.endswith(bare.encode()) and from_trusted.raw.endswith(bare.encode())
    queue_id = reply.rsplit(" ", 1)[1]
    assert f"id {queue_id}" in from_trusted.parsed["Received"]


def test_one_message_to_several_routes(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    boss, sales = run(Sink, address="127.0.0.4", name="boss"), run(Sink, address="127.0.0.5", name="sales")
    settings = routes(internal, edge)
    settings["domains"] += [
        {"name": "ceo@example.com", "route": {"hosts": [f"127.0.0.4:{boss.port}"]}},
        {"name": "*.example.com", "local": True, "route": {"hosts": ["127.0.0.5"], "port": sales.port}},
    ]
    gateway = run(Gateway, **settings)
    s = gateway.smtp(INTERNAL)
    s.ehlo()
    everyone = ["bob@example.com", "ceo@example.com", "x@sales.example.com", "y@deep.sub.example.com", "carol@elsewhere.example"]
    assert s.send("dave@example.com", everyone, message("all"))[-1].code == 250
    assert internal.wait_for(1)[0].recipients == ["bob@example.com"]
    assert boss.wait_for(1)[0].recipients == ["ceo@example.com"]
    assert sorted(sales.wait_for(1)[0].recipients) == ["x@sales.example.com", "y@deep.sub.example.com"]
    assert edge.wait_for(1)[0].recipients == ["carol@elsewhere.example"]
    eventually(lambda: gateway.queued() == 0, "the queue is empty")


def test_a_thousand_recipients_in_one_message(pair):
    gateway, internal, _ = pair
    s = gateway.smtp()
    s.ehlo()
    everyone = [f"user{i}@example.com" for i in range(1000)]
    replies = s.send("alice@example.net", everyone, message("many"))
    assert all(r.code == 250 for r in replies[:-2]) and replies[-1].code == 250
    eventually(lambda: sum(len(k.recipients) for k in internal.messages()) == 1000, "all recipients")
    assert sorted(r for k in internal.messages() for r in k.recipients) == sorted(everyone)
    s.say("MAIL FROM:<alice@example.net>")
    answers = [s.say(f"RCPT TO:<{r}>").code for r in everyone + ["onemore@example.com"]]
    assert answers == [250] * 1000 + [452]


def test_refused_recipient_makes_a_report_to_the_sender(run):
    internal = run(Sink, "--reject-rcpt", "nobody", address=INTERNAL, name="internal")
    edge = run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    s = gateway.smtp()
    s.ehlo()
    assert s.send("alice@example.net", ["nobody@example.com", "bob@example.com"], message("two"))[-1].code == 250
    assert internal.wait_for(1)[0].recipients == ["bob@example.com"]
    report = edge.wait_for(1)[0]
    assert report.sender == "" and report.recipients == ["alice@example.net"]
    m = report.parsed
    assert m.get_content_type() == "multipart/report" and m.get_param("report-type") == "delivery-status"
    human, status, original = m.iter_parts()
    blocks = list(status.get_payload())
    assert blocks[0]["Reporting-MTA"] == "dns; gw.example.com"
    assert len(blocks) == 2 and blocks[1]["Final-Recipient"].endswith("nobody@example.com")
    assert blocks[1]["Action"] == "failed" and blocks[1]["Status"] == "5.1.1"
    assert "Subject: two" in original.as_string()
    eventually(lambda: gateway.queued() == 0, "the queue is empty")


def test_no_report_for_the_null_sender(run):
    internal = run(Sink, "--reject-rcpt", "nobody", address=INTERNAL, name="internal")
    edge = run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    s = gateway.smtp()
    s.ehlo()
    assert s.send("", "nobody@example.com", message("bounce"))[-1].code == 250
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    assert gateway.metric("postern_dsn_dropped_total", reason="null_sender") == 1
    assert not edge.messages()


def test_temporary_refusal_is_tried_again(run):
    edge = run(Sink, address=EDGE, name="edge")
    first = run(Sink, "--defer-rcpt", "bob", address=INTERNAL, name="first")
    gateway = run(Gateway, **routes(first, edge))
    s = gateway.smtp()
    s.ehlo()
    assert s.send("alice@example.net", "bob@example.com", message("later"))[-1].code == 250
    eventually(lambda: gateway.events("delivery"), "an attempt")
    assert gateway.events("delivery")[0]["result"] == "deferred"
    assert gateway.queued() == 1
    entry = gateway.cli("queue", "list").stdout
    assert "try again later" in entry
    first.kill()
    second = run(Sink, address=INTERNAL, port=first.port, name="second")
    second.wait_for(1)
    eventually(lambda: gateway.queued() == 0, "the queue is empty")


def test_dead_first_host_means_the_second(run):
    edge, internal = run(Sink, address=EDGE, name="edge"), run(Sink, address=INTERNAL, name="internal")
    settings = routes(internal, edge)
    settings["domains"][0]["route"] = {"hosts": ["127.0.0.9:9", f"{INTERNAL}:{internal.port}"]}
    gateway = run(Gateway, **settings)
    s = gateway.smtp()
    s.ehlo()
    assert s.send("alice@example.net", "bob@example.com", message("failover"))[-1].code == 250
    internal.wait_for(1)
    failed = eventually(lambda: gateway.events("host_failed"), "the missing spare is told")
    assert failed[0]["relay"] == "127.0.0.9:9" and not gateway.events("dest_down")


def test_dead_destination_then_alive_again(run, tmp_path):
    edge, internal = run(Sink, address=EDGE, name="edge"), run(Sink, address=INTERNAL, name="internal")
    gateway = run(Gateway, **routes(internal, edge))
    internal.kill()
    r = source(gateway.port, "-m", 50, "-s", 5, "-t", "user%@example.com")
    assert r.returncode == 0, r
    eventually(lambda: len(gateway.events("dest_down")) >= 3, "the destination is found down again and again")
    assert gateway.queued() == 50
    deferred = [e["to"] for e in gateway.events("delivery")]
    assert len(deferred) < 2 * 50 + 20, "each waiting message says why once, not at every back-off"
    again = run(Sink, address=INTERNAL, port=internal.port, name="again")
    again.wait_for(50)
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    assert sorted(k.recipients[0] for k in again.messages()) == sorted(f"user{i}@example.com" for i in range(50))


def test_lmtp_next_hop_answers_for_each_recipient(run):
    edge = run(Sink, address=EDGE, name="edge")
    internal = run(Sink, "--lmtp", address=INTERNAL, name="internal")
    settings = routes(internal, edge)
    settings["domains"][0]["route"]["protocol"] = "lmtp"
    gateway = run(Gateway, **settings)
    s = gateway.smtp()
    s.ehlo()
    assert s.send("alice@example.net", ["bob@example.com", "eve@example.com"], message("lmtp"))[-1].code == 250
    assert internal.wait_for(1)[0].recipients == ["bob@example.com", "eve@example.com"]
    eventually(lambda: gateway.queued() == 0, "the queue is empty")


def test_eight_bit_and_utf8_addresses_pass(pair):
    gateway, internal, _ = pair
    s = gateway.smtp()
    assert "SMTPUTF8" in s.ehlo()
    assert s.say("MAIL FROM:<älice@example.net>").startswith("553 5.6.7")
    content = message("utf8", "Grüße\r\n")
    assert s.send("älice@example.net", "böb@example.com", content, " BODY=8BITMIME SMTPUTF8")[-1].code == 250
    kept = internal.wait_for(1)[0]
    assert kept.recipients == ["böb@example.com"] and "SMTPUTF8" in kept.mail_line and "BODY=8BITMIME" in kept.mail_line
    assert kept.raw.endswith(content.encode())


def test_report_can_be_parsed_strictly(run):
    internal = run(Sink, address=INTERNAL, name="internal")
    edge = run(Sink, "--refuse-data", "554 5.7.1 we do not like <this>", address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    s = gateway.smtp(INTERNAL)
    s.ehlo()
    s.send("bob@example.com", "alice@example.net", message("content"))
    report = internal.wait_for(1)[0]
    m = email.message_from_bytes(report.raw, policy=email.policy.strict)
    status = list(m.iter_parts())[1].get_payload()
    assert "we do not like <this>" in status[1]["Diagnostic-Code"]
    assert m["Auto-Submitted"] == "auto-replied"


def test_ipv6_in_and_out(run):
    """Listener, trusted network, route and address literal, all IPv6; the edge is IPv4."""
    internal, edge = run(Sink, address="::1", name="internal"), run(Sink, address=EDGE, name="edge")
    port = free_port("::1")
    settings = routes(internal, edge)
    settings["domains"][0]["route"] = {"hosts": [f"[::1]:{internal.port}"]}
    gateway = run(Gateway, listeners=[{"address": f"[::1]:{port}"}], trusted_networks=["::1/128"], **settings)
    s = Smtp("::1", port, "::1")
    s.ehlo("[IPv6:::1]")
    assert s.send("bob@example.com", ["eve@example.com", "carol@elsewhere.example"], message("six"))[-1].code == 250
    kept = internal.wait_for(1)[0]
    assert kept.recipients == ["eve@example.com"] and "([IPv6:::1])" in kept.parsed["Received"]
    assert edge.wait_for(1)[0].recipients == ["carol@elsewhere.example"]
    assert gateway.metric("postern_sessions_total", **{"class": "trusted"}) == 1
