"""Servers behind the gateway that do not do what they say, and what mail they get all the same."""
import socket
import threading

import pytest

from conftest import EDGE, INTERNAL, PATIENCE_S, Gateway, Sink, eventually, message, routes, stuff

pytestmark = pytest.mark.sanitized


class Crude:
    """A server that offers PIPELINING, and takes one read of the socket for one command. `over` a second one in it, or commands behind the
    end of data: "lost", they are thrown away; "hangs up", so is everything."""

    def __init__(self, address, over, extensions=("PIPELINING", "8BITMIME")):
        self.over, self.extensions = over, extensions
        self.messages, self.mails = [], []
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


    def taken(self):
        with self.lock:
            return list(self.messages)


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
    got = {m.split(b"Subject: ", 1)[1].split(b"\r\n")[0] for m in crude.taken()}
    assert sorted(got) == [b"n%d" % n for n in range(6)]
    assert gateway.events("lock_step")


# --- 8 bits, and names in UTF-8, for a server that takes neither ---

PART = 'Content-Type: {}\r\nContent-Transfer-Encoding: {}\r\n\r\n{}\r\n'
NASTY = {  # headers, body
    "plain": ("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n", "gr\u00fc\u00dfe\r\n"),
    "says that it is 7bit": ("Content-Type: text/plain\r\nContent-Transfer-Encoding: 7bit\r\n", "gr\u00fc\u00dfe\r\n"),
    "no MIME at all": ("", "\u4f60\u597d\r\n.\r\n.. \u4f60\r\n"),
    "one part of many": ('Content-Type: multipart/mixed; boundary="x=_ y"\r\n', "--x=_ y\r\n" + PART.format("text/plain", "7bit", "a")
                         + "--x=_ y\r\n" + PART.format("text/html; charset=iso-8859-1", "8bit", "\u00e9") + "--x=_ y--\r\nrest \u00e9\r\n"),
    "a boundary that is never closed": ("Content-Type: multipart/alternative; boundary=b\r\n", "--b\r\n" + PART.format("text/plain", "8bit", "\u00e9")),
    "signed": ('Content-Type: multipart/signed; boundary=s; micalg=pgp-sha256; protocol="application/pgp-signature"\r\n',
               "--s\r\n" + PART.format("text/plain; charset=utf-8", "8bit", "gr\u00fc\u00dfe") + "--s\r\n"
               + PART.format("application/pgp-signature", "7bit", "-----BEGIN PGP SIGNATURE-----") + "--s--\r\n"),
    "a message in it": ("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n",
                        "Subject: \u00fc\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\u00fc\r\n"),
    "only in a header": ("X-Name: J\u00f6rg\r\n", "plain\r\n"),
    "the last byte of much": ("", "x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 3000 + "\u00e9\r\n"),
}


@pytest.fixture
def seven(run):
    """A gateway between a server that offers nothing of what is asked for, and an edge that takes reports."""
    def start(**route):
        crude, edge = run(lambda _: Crude(INTERNAL, "lost", extensions=())), run(Sink, address=EDGE, name="edge")
        settings = routes(crude, edge)
        settings["domains"][0]["route"] = {"hosts": [INTERNAL], "port": crude.port, **route}
        return run(Gateway, **settings, **FAST), crude, edge
    return start


@pytest.mark.parametrize("params", ["", " BODY=8BITMIME"], ids=["undeclared", "declared"])
def test_eight_bits_are_reported_to_the_sender_and_never_sent_where_they_may_be_cut(seven, params):
    gateway, crude, edge = seven()
    s = gateway.smtp()
    s.ehlo()
    for name, (headers, body) in NASTY.items():
        assert s.send("a@example.net", "bob@example.com", message(name, body, headers), params)[-1].code == 250
    reports = edge.wait_for(len(NASTY))
    assert all(b"Status: 5.6.3" in r.raw and b"Action: failed" in r.raw and r.sender == "" for r in reports)
    assert all(r.raw.isascii() or b"8bit" in r.raw for r in reports)
    assert s.send("a@example.net", "bob@example.com", message("ascii", "plain\r\n"), params)[-1].code == 250  # declared is not done
    eventually(lambda: gateway.queued() == 0, "nothing is left")
    [raw] = crude.taken()
    assert b"Subject: ascii" in raw and raw.isascii()
    assert not any("BODY" in line or "SMTPUTF8" in line for line in crude.mails)


def test_a_server_that_is_known_to_take_eight_bits_gets_them_as_they_are(seven):
    gateway, crude, edge = seven(eight_bit="send")
    s = gateway.smtp()
    s.ehlo()
    for name, (headers, body) in NASTY.items():
        assert s.send("a@example.net", "bob@example.com", message(name, body, headers), " BODY=8BITMIME")[-1].code == 250
    eventually(lambda: len(crude.taken()) == len(NASTY), "all came")
    for name, (headers, body) in NASTY.items():
        [raw] = [m for m in crude.taken() if b"Subject: " + name.encode() + b"\r\n" in m]
        assert raw.endswith(stuff(f"{headers}\r\n{body}")), name
    assert all("BODY" not in line for line in crude.mails) and not edge.messages()


@pytest.mark.parametrize("verified", [False, True], ids=["", "verified"])
def test_names_in_utf8_are_refused_or_reported_where_the_server_takes_none(seven, verified):
    gateway, crude, edge = seven()
    if verified:
        gateway.configure(verify={"mode": "unverified"})
        gateway.cli("reload")
    s = gateway.smtp()
    s.ehlo()
    assert s.say("MAIL FROM:<\u00e4lice@example.net>").startswith("553 5.6.7")  # not without saying so
    assert s.say("MAIL FROM:<a@example.net>").code == 250
    assert s.say("RCPT TO:<b\u00f6b@example.com>").startswith("553 5.6.7")
    s.say("RSET")
    replies = s.send("a@example.net", "b\u00f6b@example.com", message("utf8", "plain\r\n"), " SMTPUTF8")
    if verified:
        assert replies[1].startswith("553 5.6.7"), replies
        return
    assert replies[-1].code == 250
    [report] = edge.wait_for(1)
    assert b"Status: 5.6.7" in report.raw
    assert not crude.taken()
