"""The protocol as a client sees it: replies, order, limits, line endings."""
import pytest

from conftest import EDGE, INTERNAL, STRANGER, Gateway, Sink, eventually, message, routes

pytestmark = pytest.mark.sanitized


def test_greeting_and_extensions(pair):
    s = pair[0].smtp(greeting=False)
    assert s.reply() == "220 gw.example.com ESMTP Postern"
    hello = s.ehlo().splitlines()
    assert hello[0].startswith("250-gw.example.com")
    offered = {l[4:] for l in hello[1:]}
    assert {"PIPELINING", "SIZE 20971520", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"} <= offered
    assert s.say("HELO client.example.net") == "250 gw.example.com"


def test_commands_out_of_order_and_unknown(pair):
    s = pair[0].smtp()
    assert s.say("MAIL FROM:<a@example.net>").startswith("503 5.5.1")
    s.ehlo()
    for command, answer in [("RCPT TO:<bob@example.com>", "503 5.5.1"), ("DATA", "503 5.5.1"), ("FROB", "500 5.5.2"), ("NOOP", "250 2.0.0"),
                            ("RSET", "250 2.0.0"), ("VRFY bob", "252 2.0.0"), ("HELP", "214 2.0.0"), ("MAIL FROM:<a@example.net", "501 5.1.7"),
                            ("MAIL FROM:<a@example.net> SIZE=x", "501 5.5.4"), ("MAIL FROM:<a@example.net> FROB=1", "555 5.5.4"),
                            ("MAIL FROM:<a@example.net> SIZE=99999999", "552 5.3.4"), ("MAIL FROM:<a@example.net>", "250 2.1.0"),
                            ("MAIL FROM:<b@example.net>", "503 5.5.1"), ("RCPT TO:<@@>", "501 5.1.3"), ("RCPT TO:<>", "501 5.1.3"),
                            ("DATA", "554 5.5.1"), ("QUIT", "221 2.0.0")]:
        assert s.say(command).startswith(answer), command
    assert s.reply().code == 0


@pytest.mark.parametrize("path", ['<"a b"@example.com>', '<"quo\\"ted"@example.com>', "<@relay.example,@other.example:bob@example.com>",
                                  "<a+tag=x/y@example.com>", "<Postmaster>", "<postmaster@example.com>", "<BOB@EXAMPLE.COM>"])
def test_address_forms(pair, path):
    s = pair[0].smtp()
    s.ehlo()
    s.say("MAIL FROM:<>")
    assert s.say(f"RCPT TO:{path}").code == 250


@pytest.mark.parametrize("path", ["<x%elsewhere.example@example.com>", "<elsewhere.example!x@example.com>", '<"x@elsewhere.example"@example.com>',
                                  "<@example.com:x@elsewhere.example>", "<x@[127.0.0.1]>", "<x@example.com.elsewhere.example>"])
def test_no_way_round_the_relay_check(pair, path):
    for client in (STRANGER, EDGE):
        s = pair[0].smtp(client)
        s.ehlo()
        s.say("MAIL FROM:<>")
        assert s.say(f"RCPT TO:{path}").startswith("554 5.7.1")


@pytest.mark.parametrize("literal", ["[192.0.2.1]", "[IPv6:2001:db8::1]"])
def test_trusted_clients_may_send_to_address_literals(pair, literal):
    s = pair[0].smtp(INTERNAL)
    s.ehlo("[127.0.0.2]")
    s.say("MAIL FROM:<bob@example.com>")
    assert s.say(f"RCPT TO:<x@{literal}>").code == 250


def test_pipelined_group_is_answered_in_order(pair):
    gateway, internal, _ = pair
    s = gateway.smtp()
    s.ehlo()
    one = b"MAIL FROM:<a@example.net>\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<x@elsewhere.example>\r\nDATA\r\n"
    s.write(one)
    assert [s.reply().code for _ in range(4)] == [250, 250, 554, 354]
    s.write(message("first").encode() + b".\r\n" + one)
    assert [s.reply().code for _ in range(5)] == [250, 250, 250, 554, 354]
    s.write(message("second").encode() + b".\r\nQUIT\r\n")
    assert [s.reply().code for _ in range(2)] == [250, 221]
    internal.wait_for(2)


def test_one_byte_at_a_time(pair):
    gateway, internal, _ = pair
    s = gateway.smtp()
    content = message("slowly", ".dot\r\n..\r\nend\r\n")
    from conftest import stuff
    script = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"
    for b in script:
        s.write(bytes([b]))
    assert [s.reply().code for _ in range(4)] == [250, 250, 250, 354]
    for b in stuff(content) + b".\r\n":
        s.write(bytes([b]))
    assert s.reply().code == 250
    assert internal.wait_for(1)[0].raw.endswith(content.encode())


SMUGGLING = [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r\r\n.\r\r\n", b"\n\n.\r\n", b"\r\n\x00.\r\n", b"\r\n.\x00\r\n",
             b"\n.\r", b"\r.\n", b"\r\r.\r\r", b"\n\r.\r\n", b"\n.\n\r", b"\r\n.\r\r\n", b"\r\n\r.\r\n", b"\r\n\n.\r\n", b"\r\n.\r.\r\n",
             b"\r\n .\r\n", b"\r\n. \r\n", b"\r\n.\t\r\n", b"\r\n.\xc2\x85", b"\xc2\x85.\xc2\x85", b"\r\n..\r\n"]


@pytest.mark.parametrize("end", SMUGGLING, ids=repr)
def test_only_crlf_dot_crlf_ends_data(pair, end):
    """Whatever looks like an end of data to a sloppy server does not end it here, and what follows is never a command."""
    gateway, internal, _ = pair
    s = gateway.smtp()
    s.ehlo()
    s.say("MAIL FROM:<a@example.net>")
    s.say("RCPT TO:<bob@example.com>")
    s.say("DATA")
    s.write(b"Subject: outer\r\n\r\nbody" + end + b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n")
    reply = s.reply()
    bare = any(b in end.replace(b"\r\n", b"") for b in (b"\r", b"\n"))
    assert reply.startswith("550 5.5.2" if bare else "250 2.0.0"), reply
    assert s.say("NOOP").code == 250, "one message, one reply"
    assert gateway.metric("postern_messages_accepted_total") == (0 if bare else 1)


def test_normalise_per_class(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, line_endings={"trusted": "normalise"}, **routes(internal, edge))
    content = b"Subject: bare\r\n\r\none\ntwo\n.\nthree\rfour\r\n.\r\n"
    for client, code in ((STRANGER, 550), (EDGE, 550), (INTERNAL, 250)):
        s = gateway.smtp(client)
        s.ehlo()
        s.say("MAIL FROM:<a@example.com>")
        s.say("RCPT TO:<bob@example.com>")
        s.say("DATA")
        s.write(content)
        assert s.reply().code == code
    raw = internal.wait_for(1)[0].raw
    assert b"one\r\ntwo\r\n" in raw and raw.endswith(b"three\r\nfour\r\n")
    assert raw.replace(b"\r\n", b"").count(b"\n") == 0 and raw.replace(b"\r\n", b"").count(b"\r") == 0


def test_message_too_big(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, limits={"message_size": 10000}, **routes(internal, edge))
    s = gateway.smtp()
    assert "SIZE 10000" in s.ehlo()
    big = message("big", "0123456789\r\n" * 1000)
    assert s.send("a@example.net", "bob@example.com", big)[-1].startswith("552 5.3.4")
    assert s.send("a@example.net", "bob@example.com", message("small"))[-1].code == 250
    assert internal.wait_for(1)[0].parsed["Subject"] == "small"


def test_loop_is_found_by_counting_hops(pair):
    gateway, _, _ = pair
    s = gateway.smtp()
    s.ehlo()
    hop = "Received: from a.example by b.example; Tue, 24 Nov 2026 04:14:26 +0000\r\n"
    assert s.send("a@example.net", "bob@example.com", message("50", headers=hop * 50))[-1].code == 250
    assert s.send("a@example.net", "bob@example.com", message("51", headers=hop * 51))[-1].startswith("554 5.4.6")


def test_line_too_long(pair):
    s = pair[0].smtp()
    s.ehlo()
    assert s.say("NOOP " + "x" * 5000).startswith("500 5.5.2")
    assert s.say("NOOP").code == 250


def test_too_many_errors_end_a_strangers_session_but_not_an_edge_probe(pair):
    gateway, _, _ = pair
    s = gateway.smtp()
    s.ehlo()
    replies = [s.say("FROB") for _ in range(20)]
    assert replies[-1].startswith("421 4.7.0") and all(r.code == 500 for r in replies[:-1])
    edge = gateway.smtp(EDGE)
    edge.ehlo()
    for i in range(100):
        assert edge.say("MAIL FROM:<>").code == 250
        assert edge.say("RCPT TO:<x@elsewhere.example>").code == 554
        assert edge.say("RSET").code == 250


def test_idle_client_is_told_and_closed(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, timeouts={"command": "1s"}, **routes(internal, edge))
    s = gateway.smtp()
    s.ehlo()
    assert s.reply().startswith("421 4.4.2")
    assert s.reply().code == 0


def test_sessions_per_client(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, limits={"sessions_per_client": 5}, **routes(internal, edge))
    open_sessions = [gateway.smtp() for _ in range(5)]
    refused = gateway.smtp(greeting=False)
    assert refused.reply().startswith("421 4.7.0")
    assert all(gateway.smtp(EDGE) for _ in range(10)) and all(gateway.smtp(INTERNAL) for _ in range(10))
    open_sessions[0].say("QUIT")
    eventually(lambda: gateway.smtp(greeting=False).reply().code == 220, "a place is free again")


def test_garbage_never_ends_the_process(pair):
    import random
    gateway, _, _ = pair
    rng = random.Random(3)
    for i in range(60):
        s = gateway.smtp(greeting=False)
        try:
            s.write(rng.randbytes(rng.randrange(1, 20000)))
            if i % 2:
                s.write(b"\r\nEHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n" + rng.randbytes(5000))
        except OSError:
            pass
        s.close()
    s = gateway.smtp()
    assert s.ehlo().code == 250
    assert gateway.process.running()
