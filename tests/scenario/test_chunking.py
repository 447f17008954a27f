"""BDAT (RFC 3030), in and out: what is sent in chunks arrives like any other mail."""
import random

import pytest

from backend import Backend
from conftest import EDGE, INTERNAL, Gateway, Sink, eventually, free_port, message, routes

pytestmark = pytest.mark.sanitized

ENVELOPE = b"MAIL FROM:<a@example.net> BODY=8BITMIME\r\nRCPT TO:<bob@example.com>\r\n"


def chunks_of(content, sizes):
    """The commands that send `content`, chunk by chunk."""
    out, at = b"", 0
    while at < len(content):
        part = content[at:at + next(sizes)]
        at += len(part)
        out += b"BDAT %d%s\r\n" % (len(part), b" LAST" if at == len(content) else b"") + part
    return out


def send(s, wire, count):
    s.write(wire)
    return [s.reply() for _ in range(count)]


def test_pipelined_chunks_of_all_sizes_arrive_byte_for_byte(pair):
    gateway, internal = pair[:2]
    rng = random.Random(3030)
    text = message("in chunks", "".join(f"{'.' * rng.randrange(3)}line {i} ä\r\n" for i in range(400)))
    content = text.encode() if isinstance(text, str) else text
    s = gateway.smtp()
    assert "250-CHUNKING" in s.ehlo()
    for most in (1 << 20, 5000, 700, 7):
        wire = chunks_of(content, iter(lambda: rng.randrange(1, most + 1), None))
        replies = send(s, ENVELOPE + wire, 2 + wire.count(b"BDAT "))
        assert [r for r in replies if r.code != 250] == []
        assert "queued as" in replies[-1]
    assert s.say("QUIT").code == 221
    internal.wait_for(4)
    for kept in internal.messages():
        assert kept.raw.endswith(content)


def test_a_refused_message_in_pipelined_chunks_leaves_the_session_usable(pair):
    s = pair[0].smtp()
    s.ehlo()
    replies = send(s, ENVELOPE + b"BDAT 10\r\nbare\nline\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nRSET\r\nRSET\r\n", 6)
    assert [r.code for r in replies] == [250, 250, 550, 503, 503, 250]
    assert send(s, ENVELOPE + b"BDAT 6 LAST\r\nworks!", 3)[-1].code == 250


def test_extensions_can_be_hidden_from_a_class(run):
    gateway = run(Gateway, hide={"stranger": ["CHUNKING", "limits"]})
    s = gateway.smtp()
    hello = s.ehlo()
    assert "CHUNKING" not in hello and "LIMITS" not in hello and "PIPELINING" in hello
    assert send(s, b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", 2) == ["502 5.5.1 Command not implemented", "250 2.0.0 OK"]
    assert "250-CHUNKING" in gateway.smtp("127.0.0.2").ehlo()


CONTENTS = ["hello\r\n", ".\r\n", "..two\r\n.\r\nthree\r\n", "ä" * 400 + "\r\n", "line\r\n" * 2000, "x" * 70 + "\r\n", ("y" * 998 + "\r\n") * 100]


def send_all(gateway, internal):
    s = gateway.smtp(INTERNAL)
    s.ehlo()
    for i, body in enumerate(CONTENTS):
        content = message(f"out {i}", body).encode()
        stuffed = b"".join(b"." + line if line.startswith(b".") else line for line in content.splitlines(keepends=True))
        replies = send(s, ENVELOPE + b"DATA\r\n" + stuffed + b".\r\n", 4)
        assert [r.code for r in replies] == [250, 250, 354, 250]
    kept = {k.parsed["Subject"]: k.raw for k in internal.wait_for(len(CONTENTS))}
    for i, body in enumerate(CONTENTS):
        assert kept[f"out {i}"].endswith(message(f"out {i}", body).encode())


def chunks_taken(sink):
    sink.stop()
    return int(sink.log().rsplit("chunks=", 1)[1].split()[0])


def test_small_messages_without_leading_dots_go_out_whole(run):
    internal, edge = run(Sink, "--chunking", address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    send_all(gateway, internal)
    assert chunks_taken(internal) == 4  # not those with dots, nor the one of 100 KB


def test_a_route_can_do_without_bdat(run):
    internal, edge = run(Sink, "--chunking", address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    settings = routes(internal, edge)
    settings["domains"][0]["route"]["chunking"] = False
    gateway = run(Gateway, **settings)
    send_all(gateway, internal)
    assert chunks_taken(internal) == 0


def test_recipients_and_messages_refused_in_chunks_do_not_touch_the_next(run):
    """Pipelined behind each other over one connection: what one came to is not known when the next is sent."""
    rules = ["--chunking", "--fail", "rcpt *nobody* 550 5.1.1 no such user", "--fail", "mail *spam* 550 5.7.1 not from you"]
    internal, edge = run(Sink, *rules, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    settings = routes(internal, edge)
    settings["domains"][0]["route"]["connections"] = 1
    gateway = run(Gateway, workers=1, **settings)
    s = gateway.smtp(INTERNAL)
    s.ehlo()
    wire, replies = b"", 0
    for i in range(30):
        sender = b"spam" if i % 3 == 1 else b"a"
        to = b"nobody" if i % 3 == 2 else b"bob"
        wire += b"MAIL FROM:<%s@example.net>\r\nRCPT TO:<%s@example.com>\r\nBDAT 13 LAST\r\nSubject: %02d\r\n" % (sender, to, i)
        replies += 3
    assert {r.code for r in send(s, wire, replies)} == {250}
    assert sorted(k.raw.rsplit(b"Subject: ", 1)[1][:2] for k in internal.wait_for(10)) == [b"%02d" % i for i in range(0, 30, 3)]
    reports = edge.wait_for(20)  # each of the others is told of, once
    assert len(reports) == 20 and all(k.sender == "" for k in reports)


def test_a_server_that_offers_chunking_and_does_not_know_it_gets_data(run):
    backend = run(lambda _: Backend(INTERNAL, free_port(INTERNAL), users=None))
    backend.extensions.append("CHUNKING")
    gateway = run(Gateway, workers=1, domains=[{"name": "example.com", "local": True,
                                               "route": {"hosts": [INTERNAL], "port": backend.port, "connections": 1}}])
    s = gateway.smtp(INTERNAL)
    s.ehlo()
    for i in range(3):
        assert [r.code for r in send(s, ENVELOPE + b"DATA\r\n" + message(f"data {i}").encode() + b".\r\n", 4)] == [250, 250, 354, 250]
    eventually(lambda: len(backend.messages) == 3, "all came by DATA")
    assert backend.connections == 2
    assert gateway.log().count("event=no_chunking") == 1
