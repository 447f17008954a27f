"""Slow clients, in the clear and over TLS: those below the least rate are cut, however they dribble; those above it are served to the end."""
import socket
import time

import pytest

from certs import Certificate
from conftest import EDGE, PATIENCE_S, STRANGER, Gateway, Sink, Smtp, eventually
from test_strangers import deliver, dribble, served
from test_tls import start_tls

STEP_S = 0.1
LINES = 5000


class Scene:
    def __init__(self, run, directory, secured, **settings):
        self.secured, self.sink = secured, run(Sink)
        tls = {"certificates": [Certificate(directory, "gw", "gw.example.com").files]}
        self.gateway = run(Gateway, **served(self.sink, tls=tls, **settings))

    def client(self, receive_bytes=None):
        s = socket.socket()
        if receive_bytes:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        s.bind((STRANGER, 0))
        s.settimeout(PATIENCE_S)
        s.connect(("127.0.0.1", self.gateway.port))
        c = Smtp.__new__(Smtp)
        c.sock, c.file = s, s.makefile("rb")
        assert c.reply().code == 220
        if self.secured:
            start_tls(c)
        else:
            c.ehlo()
        return c

    def in_data(self):
        c = self.client()
        for line, code in (("MAIL FROM:<a@example.net>", 250), ("RCPT TO:<bob@example.com>", 250), ("DATA", 354)):
            assert c.say(line).code == code
        return c

    def cut(self):
        return [e for e in self.gateway.events("session") if e["reason"] == "timeout"]


@pytest.fixture(params=["clear", "tls"])
def scene(request, run, tmp_path):
    return lambda **settings: Scene(run, tmp_path, request.param == "tls", **settings)


def test_who_reads_slowly_but_reads_is_served(scene):
    """As over a modem: our replies take several times as long as a command may."""
    scene = scene(strangers={"min_rate": 500}, limits={"junk_commands": 100000}, timeouts={"command": "4s"})
    c = scene.client(receive_bytes=4096)
    c.write(b"NOOP\r\n" * LINES)
    got, began = b"", time.monotonic()
    while got.count(b"\r\n") < LINES:
        some = c.sock.recv(512)
        assert some and b"421" not in some, (len(got), some)
        got += some
        time.sleep(STEP_S / 2)
    assert got == b"250 2.0.0 OK\r\n" * LINES
    assert time.monotonic() - began > 4, "or it proves nothing"
    assert c.say("QUIT").code == 221 and not scene.cut()


def test_who_writes_slowly_but_writes_is_served(scene):
    scene = scene(strangers={"min_rate": 500}, timeouts={"command": "4s", "data_block": "4s"})
    c = scene.in_data()
    content, began = b"Subject: slow\r\n\r\n" + b"x" * 60000 + b"\r\n", time.monotonic()
    for at in range(0, len(content), 1000):
        c.write(content[at:at + 1000])
        time.sleep(STEP_S)
    c.write(b".\r\n")
    assert c.reply().code == 250
    assert time.monotonic() - began > 4, "or it proves nothing"
    assert scene.sink.wait_for(1)[0].raw.endswith(content)
    assert not scene.cut()


def test_who_dribbles_is_cut(scene):
    scene = scene(timeouts={"command": "2s", "data_block": "2s"})
    assert dribble(scene.client(), b"NOOP ").startswith(b"421 4.4.2")
    assert dribble(scene.in_data(), b"x" * 60 + b"\r\n").startswith(b"421 4.4.2")
    deliver(scene.gateway, EDGE)


def test_who_never_reads_is_cut(scene):
    scene = scene(strangers={"min_rate": 100000}, limits={"junk_commands": 100000}, timeouts={"command": "2s"})
    c = scene.client(receive_bytes=4096)
    c.write(b"NOOP\r\n" * 6000)
    c.sock.settimeout(STEP_S)

    def cut():
        try:
            c.sock.send(b"NOOP\r\n")
        except OSError:
            pass
        return scene.cut()

    eventually(cut, "the client is cut")
    deliver(scene.gateway, EDGE)


@pytest.mark.parametrize("where", ["in the handshake", "in a record"])
def test_bytes_that_tls_keeps_to_itself_earn_nothing(run, tmp_path, where):
    """Neither reaches SMTP: half a hello, half a record."""
    scene = Scene(run, tmp_path, where == "in a record", timeouts={"command": "2s"})
    c = scene.client()
    if where == "in the handshake":
        assert c.say("STARTTLS").code == 220
        first, raw = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03", c.sock
    else:
        first, raw = b"\x17\x03\x03\x40\x00", socket.socket(fileno=c.sock.detach())
    raw.sendall(first)
    raw.settimeout(STEP_S)
    until = time.monotonic() + PATIENCE_S
    while not scene.cut() and not scene.gateway.events("session"):
        assert time.monotonic() < until, "it may go on for ever"
        try:
            raw.send(b"x")
            raw.recv(4096)
        except OSError:
            pass
    raw.close()
    deliver(scene.gateway, EDGE)
