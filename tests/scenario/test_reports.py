"""Delivery reports and their parameters (RFC 3461, RFC 3464), as clients, servers and senders see them."""
import email
import email.policy
import time

import pytest

from conftest import EDGE, INTERNAL, STRANGER, Gateway, Sink, eventually, message, routes, stuff

pytestmark = pytest.mark.sanitized


def send(gateway, client, mail, rcpts, content):
    s = gateway.smtp(client)
    s.ehlo()
    assert s.say(f"MAIL FROM:{mail}").code == 250
    for rcpt in rcpts:
        assert s.say(f"RCPT TO:{rcpt}").code == 250
    assert s.say("DATA").code == 354
    s.write(stuff(content) + b".\r\n")
    assert s.reply().code == 250
    s.close()


def blocks(kept):
    """Fields of the message, and of each recipient, of a report."""
    m = email.message_from_bytes(kept.raw, policy=email.policy.strict)
    assert m.get_content_type() == "multipart/report" and kept.sender == ""
    return list(list(m.iter_parts())[1].get_payload())


def test_parameters_reach_a_server_that_offers_dsn(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, "--dsn", address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    assert "DSN" in gateway.smtp(INTERNAL).ehlo().replace("\n", "-").split("-")
    send(gateway, INTERNAL, "<bob@example.com> RET=HDRS ENVID=QQ+2B314",
         ["<x@elsewhere.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@list.example", "<y@elsewhere.example>"], message("dsn"))
    kept = edge.wait_for(1)[0]
    assert kept.mail_line.endswith(" RET=HDRS ENVID=QQ+2B314")
    assert kept.rcpt_lines[0].endswith("> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@list.example") and kept.rcpt_lines[1].endswith(">")
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    assert not internal.messages(), "the success is the edge's to report"


def test_strangers_do_not_see_it(pair):
    gateway, internal, _ = pair
    for client in (STRANGER, EDGE):
        s = gateway.smtp(client)
        assert "DSN" not in s.ehlo()
        assert s.say("MAIL FROM:<alice@example.net> RET=FULL").startswith("555 5.5.4")
        assert s.say("MAIL FROM:<alice@example.net>").code == 250
        assert s.say("RCPT TO:<bob@example.com> NOTIFY=NEVER").startswith("555 5.5.4")


def test_success_is_reported_once_to_who_asked(pair):
    gateway, internal, edge = pair
    send(gateway, INTERNAL, "<bob@example.com> ENVID=1",
         ["<x@elsewhere.example> NOTIFY=SUCCESS ORCPT=rfc822;orig@elsewhere.example", "<y@elsewhere.example>"], message("ok"))
    about_message, about_rcpt = blocks(internal.wait_for(1)[0])
    assert about_message["Original-Envelope-Id"] == "1"
    assert about_rcpt["Action"] == "relayed" and about_rcpt["Status"].startswith("2.")
    assert about_rcpt["Final-Recipient"].endswith("x@elsewhere.example")
    assert about_rcpt["Original-Recipient"].endswith("orig@elsewhere.example")
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    assert len(internal.messages()) == 1 and gateway.metric("postern_dsn_total", kind="relayed") == 1


def test_never_means_never(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, "--reject-rcpt", "nobody", address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    send(gateway, INTERNAL, "<bob@example.com>", ["<nobody@elsewhere.example> NOTIFY=NEVER"], message("silent"))
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    assert not internal.messages() and gateway.metric("postern_dsn_dropped_total", reason="null_sender") == 0


def test_the_whole_message_goes_back(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, "--reject-rcpt", "nobody", address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    content = message("whole", "first\r\n.dot\r\nlast\r\n")
    send(gateway, INTERNAL, "<bob@example.com> RET=FULL", ["<nobody@elsewhere.example>"], content)
    m = email.message_from_bytes(internal.wait_for(1)[0].raw, policy=email.policy.strict)
    original = list(m.iter_parts())[2].get_payload()[0]
    assert original.get_payload() == "first\r\n.dot\r\nlast\r\n" and original["Subject"] == "whole"


def test_a_sender_is_told_once_that_mail_is_late(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, "--defer-rcpt", "later", address=EDGE, name="edge")
    gateway = run(Gateway, dsn={"delay_after": "1s"}, retry={"first": "1s", "max": "1s"}, **routes(internal, edge))
    send(gateway, INTERNAL, "<bob@example.com>", ["<later@elsewhere.example>"], message("late"))
    _, about_rcpt = blocks(internal.wait_for(1)[0])
    assert about_rcpt["Action"] == "delayed" and about_rcpt["Status"].startswith("4.") and about_rcpt["Will-Retry-Until"]

    def attempts():
        return len([e for e in gateway.events("delivery") if e["to"] == "later@elsewhere.example"])
    gateway.stop()
    before = attempts()
    gateway.start()
    eventually(lambda: attempts() >= before + 2, "it is tried again")
    assert len(internal.messages()) == 1 and gateway.queued() == 1


def test_a_storm_of_reports_is_cut(run):
    internal, edge = run(Sink, "--reject-rcpt", "nobody", address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=3, dsn={"rate": 2}, **routes(internal, edge))
    begun = time.monotonic()
    for i in range(10):
        send(gateway, STRANGER, "<victim@example.net>", ["<nobody@example.com>"], message(f"spam {i}"))
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    made, dropped = gateway.metric("postern_dsn_total", kind="failed"), gateway.metric("postern_dsn_dropped_total", reason="rate")
    minutes = time.monotonic() // 60 - begun // 60 + 1
    assert made <= 2 * minutes, "of all workers together"
    assert made + dropped == 10 and dropped > 0 and len(edge.messages()) == made


def test_double_bounces_go_to_the_postmaster(run):
    internal, edge = run(Sink, "--reject-rcpt", "nobody", address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, postmaster="root@example.com", dsn={"double_bounces": "postmaster"}, **routes(internal, edge))
    send(gateway, STRANGER, "<>", ["<nobody@example.com>"], message("bounce"))
    kept = internal.wait_for(1)[0]
    assert kept.recipients == ["root@example.com"] and blocks(kept)[1]["Final-Recipient"].endswith("nobody@example.com")
    assert gateway.metric("postern_dsn_total", kind="double_bounce") == 1


def test_outsiders_are_not_told_where_mail_goes_inside(run):
    internal, edge = run(Sink, "--reject-rcpt", "nobody", address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    send(gateway, STRANGER, "<alice@example.net>", ["<nobody@example.com>"], message("out"))
    kept = edge.wait_for(1)[0]
    _, about_rcpt = blocks(kept)
    assert about_rcpt["Status"] == "5.1.1" and about_rcpt["Remote-MTA"] is None and about_rcpt["Diagnostic-Code"] == "smtp; 550 5.1.1"
    report = kept.raw.split(b"Header lines of the message")[0]
    assert INTERNAL.encode() not in report and b"no such user" not in report
    send(gateway, INTERNAL, "<bob@example.com>", ["<nobody@example.com>"], message("in"))
    _, about_rcpt = blocks(internal.wait_for(1)[0])
    assert INTERNAL in about_rcpt["Remote-MTA"] and "no such user" in about_rcpt["Diagnostic-Code"]
