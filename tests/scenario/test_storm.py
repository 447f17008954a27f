"""All that strangers do, at once and from many addresses, while the edge sends its mail."""
import random
import socket
import threading

import pytest

from certs import Certificate
from conftest import EDGE, Gateway, Sink, eventually
from test_strangers import deliver, served

TO_RCPT = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<bob@example.com>\r\n"


def clear(s, rng):
    s.send(rng.choice([
        b"", rng.randbytes(5000), b"FROB\r\n" * 30, b"HELP\r\n" * 2000, b"A" * 20000, TO_RCPT * 20,
        TO_RCPT + b"DATA\r\nx\r\n", TO_RCPT + b"DATA\r\nhello\r\n.\r\nQUIT\r\n", TO_RCPT + b"DATA\r\nhello\n.\n" + TO_RCPT,
        TO_RCPT + b"BDAT 100000\r\nx", TO_RCPT + b"BDAT 0\r\n" * 50]))


def half_a_handshake(s, rng):
    s.send(b"EHLO x\r\nSTARTTLS\r\n")
    s.recv(500)
    s.send(b"\x16\x03\x01\x02\x00\x01" + rng.randbytes(rng.choice([10, 300, 600])))


def attack(port, number, over):
    rng, held = random.Random(number), []
    while not over.is_set():
        s = socket.socket()
        try:
            s.bind((f"127.0.{10 + number}.{rng.randrange(1, 250)}", 0))
            s.settimeout(0.3)
            s.connect(("127.0.0.1", port))
            rng.choice([clear, clear, half_a_handshake])(s, rng)
        except OSError:
            pass
        held.append(s)
        if rng.randrange(3):
            held.pop().close()
        if len(held) > 100:
            held.pop(rng.randrange(len(held))).close()
    for s in held:
        s.close()


@pytest.mark.sanitized
def test_the_edge_is_served_in_a_storm(run, tmp_path):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, limits={"sessions": 200, "sessions_per_client": 20}, timeouts={"overload": "1s"},
                                    strangers={"errors": 3, "error_delay": "200ms"},
                                    tls={"certificates": [Certificate(tmp_path, "gw", "gw.example.com").files]}))
    over = threading.Event()
    attackers = [threading.Thread(target=attack, args=(gateway.port, n, over)) for n in range(6)]
    for t in attackers:
        t.start()
    try:
        eventually(lambda: gateway.events("overload"), "the strangers have taken all that is theirs")
        for _ in range(200):
            deliver(gateway, EDGE)
    finally:
        over.set()
        for t in attackers:
            t.join()
    eventually(lambda: gateway.queued() == 0, "all is delivered")
    eventually(lambda: gateway.metric("postern_sessions_open") == 0, "all are gone")
    assert gateway.metric("postern_overload") == 0
    assert not [m for m in sink.messages() if b"\n.\n" in m.raw], "nothing was smuggled"
    deliver(gateway, "127.0.0.1")
    assert gateway.stop() == 0
