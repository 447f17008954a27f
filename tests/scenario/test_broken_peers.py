"""Servers behind the gateway that do not do what they say, and what mail they get all the same."""
import socket
import threading

import pytest

from conftest import EDGE, INTERNAL, PATIENCE_S, Gateway, Sink, eventually, message, routes
from ports import free_port

pytestmark = pytest.mark.sanitized


class Crude:
    """A server that offers PIPELINING, and takes one read of the socket for one command. `over` a second one in it, or commands behind the
    end of data: "lost", they are thrown away; "hangs up", so is everything."""

    def __init__(self, address, over, extensions=("PIPELINING", "8BITMIME")):
        self.over, self.extensions = over, extensions
        self.messages, self.mails, self.connections = [], [], 0
        self.lock = threading.Lock()
        self.listener = socket.create_server((address, 0))
        self.port = self.listener.getsockname()[1]
        self.alive = True
        threading.Thread(target=self.accept, daemon=True).start()

    def kill(self):
        self.alive = False
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def running(self):
        return self.alive

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        try:
            s.sendall(b"220 crude.local ESMTP\r\n")
            while self.command(s):
                pass
        except OSError:
            pass
        s.close()

    def command(self, s):
        read = s.recv(65536)
        line, _, rest = read.partition(b"\r\n")
        if not read or (rest and self.over == "hangs up"):
            return False
        verb = line[:4].upper()
        if verb == b"EHLO":
            s.sendall(b"".join(b"250-%s\r\n" % e.encode() for e in ("crude.local", *self.extensions)) + b"250 SIZE\r\n")
        elif verb == b"DATA":
            return self.content(s)
        else:
            if verb == b"MAIL":
                with self.lock:
                    self.mails.append(line.decode("utf-8"))
            s.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 Ok\r\n")
        return verb != b"QUIT"

    def content(self, s):
        s.sendall(b"354 go on\r\n")
        data = b""
        while b"\r\n.\r\n" not in data:
            read = s.recv(65536)
            if not read:
                return False
            data += read
        body, _, rest = data.partition(b"\r\n.\r\n")
        with self.lock:
            self.messages.append(body + b"\r\n")
        if rest and self.over == "hangs up":
            return False
        s.sendall(b"250 taken\r\n")
        return True


FAST = {"timeouts": {"mail": "2s", "rcpt": "2s", "data_init": "2s", "data_done": "5s"}, "retry": {"first": "1s", "max": "1s"}}


@pytest.mark.parametrize("verified", [False, True], ids=["", "verified"])
@pytest.mark.parametrize("over", ["lost", "hangs up"])
def test_a_server_that_loses_what_is_pipelined_gets_it_line_by_line(run, over, verified):
    crude = run(lambda _: Crude(INTERNAL, over))
    route = {"hosts": [INTERNAL], "port": crude.port}
    gateway = run(Gateway, domains=[{"name": "example.com", "local": True, "route": route}], destination={"mode": "dns"}, workers=1,
                  **({"verify": {"mode": "unverified"}} if verified else {}), **FAST)
    for n in range(6):
        who = [f"b{n}@example.com", f"c{n}@example.com"]

        def taken():
            s = gateway.smtp()
            s.ehlo()
            replies = s.send("a@example.net", who, message(f"n{n}"))
            s.close()
            assert all(r.code < 500 for r in replies[:3]), replies  # a probe that was lost is no verdict
            return replies[-1].code == 250

        eventually(taken, f"message {n} is taken")
    eventually(lambda: gateway.queued() == 0, "all were delivered")
    with crude.lock:
        got = sorted(m.split(b"Subject: ", 1)[1].split(b"\r\n")[0] for m in crude.messages)
    assert sorted(set(got)) == [b"n%d" % n for n in range(6)]
    assert gateway.events("lock_step")
