"""BDAT (RFC 3030): what is sent in chunks arrives like any other mail."""
import random

import pytest

from conftest import Gateway, message

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
