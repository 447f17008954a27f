"""Who the client really is when somebody stands in front of us: load balancers that say PROXY, an edge that says XCLIENT or XFORWARD or
writes Received lines."""
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess

import pytest

from backend import Backend
from certs import Certificate
from conftest import EDGE, INTERNAL, PATIENCE_S, STRANGER, Gateway, Sink, Smtp, eventually, message, routes
from ports import free_port
from postfix import POSTFIX, Postfix

pytestmark = pytest.mark.sanitized

BALANCER = "127.0.0.4"
ALIKE = 8  # lines in a row, to know how an edge writes
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class Behind(Gateway):
    """A gateway whose first listener knows a balancer, and whose second one has TLS from the first byte on."""

    def __init__(self, directory, **settings):
        super().__init__(directory)
        self.tls_port = free_port()
        doors = [{"address": f"127.0.0.1:{self.port}", "proxy": [BALANCER]}]
        if "tls" in settings:
            doors.append({"address": f"127.0.0.1:{self.tls_port}", "proxy": [BALANCER + "/32"], "tls": "implicit"})
        self.configure(**{"listeners": doors, **settings})

    def last(self, event):
        return eventually(lambda: self.events(event), event)[-1]


@pytest.fixture
def scene(run):
    def start(**settings):
        internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
        return run(Behind, **{**routes(internal, edge), **settings}), internal, edge
    return start


def v1(client, port=40001):
    return f"PROXY TCP{6 if ':' in client else 4} {client} {'::1' if ':' in client else '192.0.2.1'} {port} 25\r\n".encode()


def v2(client, port=40001, tlvs=b""):
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    ends = socket.inet_pton(family, client) * 2 + struct.pack(">HH", port, 25) + tlvs
    return SIGNATURE + b"\x21" + (b"\x21" if ":" in client else b"\x11") + struct.pack(">H", len(ends)) + ends


def balanced(gateway, header):
    s = gateway.smtp(BALANCER, greeting=False)
    s.write(header)
    assert s.reply().code == 220
    return s


@pytest.mark.parametrize("header", [v1, v2, lambda c: v2(c, tlvs=b"\x04\x00\x80" + bytes(128))])
@pytest.mark.parametrize("client,shown", [("198.51.100.7", "[198.51.100.7]"), ("2001:db8::7", "[IPv6:2001:db8::7]")])
def test_the_client_is_the_one_that_the_balancer_names(scene, header, client, shown):
    gateway, internal, _ = scene()
    s = balanced(gateway, header(client))
    assert shown in s.ehlo()
    assert s.send("a@example.net", "bob@example.com", message())[-1].code == 250
    assert s.say("QUIT").code == 221
    assert f"from client.example.net ({shown})".encode() in internal.wait_for(1)[0].raw
    line = gateway.last("session")
    assert (line["client"], line["port"], line["via"], line["class"]) == (client, "40001", BALANCER, "stranger")
    assert gateway.last("message")["client"] == client


def test_class_and_limits_follow_the_client(scene):
    gateway, _, edge = scene(workers=1, limits={"sessions_per_client": 2})  # it counts on each worker for itself
    first, second = balanced(gateway, v1("198.51.100.7")), balanced(gateway, v2("198.51.100.7"))
    s = gateway.smtp(BALANCER, greeting=False)
    s.write(v1("198.51.100.7"))
    assert s.reply().startswith("421 4.7.0")
    other = balanced(gateway, v1("198.51.100.8"))
    other.ehlo()
    assert other.send("a@example.net", "x@example.org", message())[1].startswith("554 5.7.1")
    inside = balanced(gateway, v1(INTERNAL))
    inside.ehlo()
    assert inside.send("bob@example.com", "x@example.org", message())[-1].code == 250
    edge.wait_for(1)
    for s in (first, second):
        s.close()


@pytest.mark.parametrize("known_by", ["proxy", "xclient"])
@pytest.mark.parametrize("same, other", [("198.51.100.7", "198.51.100.8"), ("2001:db8::9", "2001:db8:0:1::7")], ids=["v4", "v6 by /64"])
def test_rates_are_those_of_the_real_client(scene, known_by, same, other):
    first = "2001:db8::7" if ":" in same else same

    def come(client):
        if known_by == "proxy":
            s = gateway.smtp(BALANCER, greeting=False)
            s.write(v1(client))
            return s, s.reply()
        s = gateway.smtp(EDGE)
        return s, s.say(f"XCLIENT ADDR={'IPV6:' if ':' in client else ''}{client}")

    def mail(s):
        s.say("RSET")
        return s.say("MAIL FROM:<a@example.net>")

    gateway, _, _ = scene(workers=1, edge_networks=[EDGE], strangers={"connections": "2/h", "messages": "2/h"})
    one, said = come(first)
    assert said.code == 220
    two, said = come(same)
    assert said.code == 220
    one.ehlo(), two.ehlo()
    assert [mail(one).code, mail(two).code] == [250, 250]
    assert mail(one).startswith("450 4.7.1") and mail(two).startswith("450 4.7.1"), "they share what is theirs"
    assert come(first)[1].startswith("421 4.7.0")
    s, said = come(other)
    s.ehlo()
    assert said.code == 220 and mail(s).code == 250, "another client has its own"
    assert gateway.metric("postern_rate_limited_total", what="connections") == 1
    assert gateway.metric("postern_rate_limited_total", what="messages") == 2


@pytest.mark.parametrize("known_by", ["proxy", "xclient"])
def test_scores_are_those_of_the_real_client(run, known_by):
    """Who asks for unknown recipients is deferred, in whichever session, and nobody else behind the same edge or balancer."""
    internal, edge = run(lambda d: Backend(INTERNAL, free_port(INTERNAL), users={"bob@example.com", "eve@example.com"})), run(Sink, address=EDGE, name="edge")
    gateway = run(Behind, **routes(internal, edge), edge_networks=[EDGE], workers=1, verify={"mode": "unverified"},
                  harvest={"tarpit_after": 0, "defer_after": 3, "disconnect_after": 0})

    def ask(client, *recipients):
        s = gateway.smtp(BALANCER if known_by == "proxy" else EDGE, greeting=known_by == "xclient")
        if known_by == "proxy":
            s.write(v1(client))
            assert s.reply().code == 220
        else:
            assert s.say(f"XCLIENT ADDR={client}").code == 220
        s.ehlo()
        assert s.say("MAIL FROM:<a@example.net>").code == 250
        return [s.say(f"RCPT TO:<{r}@example.com>").code for r in recipients]

    assert ask("198.51.100.7", "bob", "x1", "x2", "x3", "eve") == [250, 550, 550, 550, 450]
    assert ask("198.51.100.7", "bob") == [450]
    assert ask("198.51.100.8", "bob", "x1") == [250, 550]
    assert ask("198.51.100.7", "bob") == [450]


def test_a_client_that_nobody_names_is_trusted_by_nobody(scene):
    gateway, _, _ = scene(trusted_networks=[INTERNAL, BALANCER])
    s = balanced(gateway, b"PROXY UNKNOWN\r\n")
    s.ehlo()
    assert s.send("a@example.net", "x@example.org", message())[1].startswith("554 5.7.1")
    check = balanced(gateway, SIGNATURE + b"\x20\0\0\0")  # LOCAL: the balancer itself
    check.ehlo()
    assert check.send("a@example.net", "x@example.org", message())[-1].code == 250


@pytest.mark.parametrize("said", [b"EHLO balancer.example.net\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", SIGNATURE + b"\x21\x11\xff\xff"])
def test_a_balancer_that_says_something_else_is_cut_off(scene, said):
    gateway, _, _ = scene()
    s = gateway.smtp(BALANCER, greeting=False)
    s.write(said)
    assert s.sock.recv(100) == b""
    assert gateway.last("proxy_refused")["via"] == BALANCER
    assert gateway.last("session")["reason"] == "proxy"
    assert gateway.metric("postern_proxy_headers_total", says="nothing") == 1


def test_others_cannot_name_a_client(scene):
    gateway, _, _ = scene()
    s = gateway.smtp(STRANGER)
    assert s.say(v1(INTERNAL).rstrip()).code == 500
    assert STRANGER in s.ehlo()


def test_a_silent_balancer_does_not_hold_up_the_end(scene):
    gateway, _, _ = scene()
    s = gateway.smtp(BALANCER, greeting=False)
    s.write(b"PROXY TCP4 ")
    eventually(lambda: gateway.cli("status"), "it is there")
    assert gateway.stop() == 0
    s.close()


@pytest.mark.parametrize("together", [True, False])
def test_tls_comes_behind_the_header(scene, tmp_path, together):
    certificate = Certificate(tmp_path, "gw", "gw.example.com")
    gateway, internal, _ = scene(tls={"certificates": [certificate.files]})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(into, out)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with socket.create_connection(("127.0.0.1", gateway.tls_port), timeout=PATIENCE_S, source_address=(BALANCER, 0)) as s:
        for part in ([v2("198.51.100.7") + out.read()] if together else [v1("198.51.100.7"), out.read()]):
            s.sendall(part)

        def until(action):
            while True:
                try:
                    return action()
                except ssl.SSLWantReadError:
                    s.sendall(out.read())
                    into.write(s.recv(65536))
        until(tls.do_handshake)
        s.sendall(out.read())
        assert until(lambda: tls.read(1000)).startswith(b"220 ")


def test_starttls_discards_the_clear_rest_behind_a_header_too(scene, tmp_path):
    certificate = Certificate(tmp_path, "gw", "gw.example.com")
    gateway, _, _ = scene(tls={"certificates": [certificate.files]})
    s = balanced(gateway, v1("198.51.100.7"))
    s.ehlo()
    s.write(b"STARTTLS\r\nRSET\r\nRSET\r\n")
    assert s.reply().code == 220
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    secure = context.wrap_socket(s.sock)
    secure.sendall(b"EHLO again.example.net\r\n")
    assert secure.recv(1000).startswith(b"250-gw.example.com")


def queued_real(gateway, identity):
    return json.loads(gateway.cli("--json", "queue", "show", identity).stdout)


def test_swaks_names_the_client(scene):
    gateway, internal, _ = scene(edge_networks=[EDGE])
    if not shutil.which("swaks"):
        pytest.skip("no swaks")
    r = subprocess.run(["swaks", "--server", f"127.0.0.1:{gateway.port}", "--local-interface", EDGE, "--from", "a@example.net",
                        "--to", "bob@example.com", "--xclient", "ADDR=198.51.100.7 NAME=mail.example.org", "--h-Subject", "x"],
                       capture_output=True, text=True, timeout=PATIENCE_S)
    assert r.returncode == 0, r.stdout + r.stderr
    raw = internal.wait_for(1)[0].raw
    assert b"(mail.example.org [198.51.100.7])" in raw and b"(client [198.51.100.7] by xclient)" in raw
    line = gateway.last("message")
    assert (line["client"], line["real"], line["real_by"], line["class"]) == ("198.51.100.7", "198.51.100.7", "xclient", "stranger")
    line = gateway.last("session")
    assert (line["client"], line["via"], line["real_by"]) == ("198.51.100.7", EDGE, "xclient")
    assert gateway.last("client_named")["from"] == EDGE
    assert gateway.metric("postern_message_origins_total", step="xclient") == 1


def test_sessions_count_for_the_client_that_xclient_names(scene):
    gateway, _, _ = scene(workers=1, edge_networks=[EDGE], limits={"sessions_per_client": 1})
    first = gateway.smtp(EDGE)
    assert first.say("XCLIENT ADDR=198.51.100.7").code == 220
    second = gateway.smtp(EDGE)
    assert second.say("XCLIENT ADDR=198.51.100.7").startswith("421 4.7.0")
    third = gateway.smtp(EDGE)
    assert third.say("XCLIENT ADDR=IPV6:2001:db8::7").code == 220
    assert first.say("QUIT").code == 221
    eventually(lambda: gateway.smtp(EDGE).say("XCLIENT ADDR=198.51.100.7").code == 220, "its place is free again")
    third.close()


def test_the_queue_shows_the_real_client(run):
    nobody = free_port(INTERNAL)
    gateway = run(Behind, edge_networks=[EDGE], domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": nobody}}])
    s = gateway.smtp(EDGE)
    s.ehlo("edge.example.net")
    assert s.say("XFORWARD ADDR=198.51.100.7 HELO=c.example NAME=[UNAVAILABLE]").code == 250
    s.send("a@example.net", "bob@example.com", message())
    identity = gateway.last("message")["id"]
    asked = gateway.last("rcpt")
    assert (asked["client"], asked["real"], asked["real_by"]) == (EDGE, "198.51.100.7", "xforward")
    assert "198.51.100.7, by xforward, helo c.example" in gateway.cli("queue", "show", identity).stdout
    assert queued_real(gateway, identity)["real"] == {"address": "198.51.100.7", "by": "xforward", "name": None, "helo": "c.example"}
    gateway.stop()
    gateway.start()  # it is on disk
    assert queued_real(gateway, identity)["real"]["address"] == "198.51.100.7"


@pytest.mark.skipif(not POSTFIX or os.geteuid() != 0, reason="needs Postfix, and root to start it")
@pytest.mark.parametrize("forwards", ["yes", "no"])
def test_a_postfix_in_front(scene, run, forwards):
    gateway, internal, _ = scene(edge_networks=[EDGE])
    edge = run(lambda _: Postfix(EDGE, relay_domains="example.com", myhostname="edge.example.net", mynetworks="127.0.0.1",
                                 transport_maps=f"inline:{{ example.com=smtp:[127.0.0.1]:{gateway.port} }}",
                                 smtpd_authorized_xclient_hosts="127.0.0.1", smtp_send_xforward_command=forwards,
                                 smtpd_relay_restrictions="permit_mynetworks reject_unauth_destination", default_process_limit="10"))
    s = Smtp(EDGE, edge.port)
    assert s.say("XCLIENT NAME=mail.example.org ADDR=198.51.100.7").code == 220
    s.ehlo("[127.0.0.1]")
    forged = "Received: from x (x [203.0.113.9])\r\n\tby edge.example.net (Postfix) with ESMTP id 1;\r\n\tTue, 24 Nov 2026 04:14:26 +0000\r\n"
    for n in range(1, ALIKE + 1):
        assert s.send("a@example.net", "bob@example.com", message(headers=forged))[-1].code == 250
        internal.wait_for(n)
    lines = eventually(lambda: (found := gateway.events("message")) and len(found) == ALIKE and found, "all came")
    line = lines[-1]
    if forwards == "no":  # nothing is believed before it is known how this edge writes
        assert [m["real_by"] for m in lines] == ["unknown"] * (ALIKE - 1) + ["received"]
        edges = json.loads(gateway.cli("--json", "edges").stdout)
        assert edges == {"format": "learned", "needed": ALIKE, "edges": [
            {"address": EDGE, "learned": True, "alike": 32, "formats": ["postfix"], "hops": 0, "doubted": 0}]}
    assert (line["client"], line["class"], line["real"], line["real_helo"]) == (EDGE, "edge", "198.51.100.7", "[127.0.0.1]"), edge.log()
    assert (line["real_by"], line["real_name"]) == ("xforward" if forwards == "yes" else "received", "mail.example.org")


POSTFIX_LINE = "Received: from c.example (n.example [{}])\r\n\tby edge.example.net (Postfix) with ESMTP id 1;\r\n\tTue, 24 Nov 2026 04:14:26 +0000\r\n"
EXIM_LINE = "Received: from n.example ([{}] helo=c.example)\r\n\tby edge.example.net with esmtp (Exim 4.96)\r\n\tid 1-2-3; Tue, 24 Nov 2026 04:14:26 +0000\r\n"


def hand_over(gateway, *lines, source=EDGE):
    """Messages of the edge, one for each of these Received lines: the last replies, and how each real client is known."""
    before = len(gateway.events("message"))
    s = gateway.smtp(source)
    s.ehlo("edge.example.net")
    replies = [s.send("a@example.net", "bob@example.com", message(headers=line))[-1].code for line in lines]
    s.close()
    taken = replies.count(250)
    eventually(lambda: len(gateway.events("message")) == before + taken, "all are in the log")
    return replies, [(m["real_by"], m.get("real")) for m in gateway.events("message")[before:]]


def test_how_the_edge_writes_is_learned_and_another_line_is_not_believed(scene):
    gateway, _, _ = scene(edge_networks=[EDGE])
    line, client = POSTFIX_LINE.format("198.51.100.7"), ("received", "198.51.100.7")
    unknown = ("unknown", None)
    assert "Nothing was learned" in gateway.cli("edges").stdout
    _, real = hand_over(gateway, *[line] * (ALIKE + 1))
    assert real == [unknown] * (ALIKE - 1) + [client] * 2
    assert gateway.last("edge_lines")["format"] == "postfix"
    # What stands below is the client's own, and what looks otherwise is nobody's.
    other = EXIM_LINE.format("203.0.113.9")
    _, real = hand_over(gateway, line + other, other, "Received: from x by other.example.net; Tue\r\n", line)
    assert real == [client, unknown, unknown, client]
    doubted = gateway.events("edge_line_doubted")
    assert [(d["edge"], d.get("by"), d.get("says"), d.get("format")) for d in doubted] == [
        (EDGE, "edge.example.net", "203.0.113.9", "exim"), (EDGE, "other.example.net", None, None)]
    assert gateway.metric("postern_edge_lines_total", line="doubted") == 2
    assert gateway.metric("postern_edge_lines_total", line="believed") == 4
    shown = gateway.cli("edges").stdout
    assert "learned" in shown and "postfix" in shown and EDGE in shown
    # An administrator may let it be learned anew, or say it.
    assert "learned anew" in gateway.cli("edges", "forget", EDGE).stdout
    assert hand_over(gateway, line)[1] == [unknown]
    assert gateway.cli("edges", "forget", "192.0.2.200", check=False).returncode == 1
    gateway.configure(edge_format="exim")
    assert gateway.cli("reload").returncode == 0
    assert hand_over(gateway, other, line)[1] == [("received", "203.0.113.9"), unknown]
    assert "edge_format" in gateway.cli("edges").stdout
    gateway.configure(edge_format="any")
    assert gateway.cli("reload").returncode == 0
    assert hand_over(gateway, other, line)[1] == [("received", "203.0.113.9"), client]


def test_an_edge_that_writes_no_lines_is_not_spoken_for_by_strangers(scene):
    """Between the forged lines of one comes the mail of others, and so no eight are alike."""
    gateway, _, _ = scene(edge_networks=[EDGE])
    forged, honest = POSTFIX_LINE.format("203.0.113.9"), "Received: from a by mx.example.org; Tue, 24 Nov 2026 04:14:26 +0000\r\n"
    _, real = hand_over(gateway, *[forged, forged, honest, forged, ""] * ALIKE)
    assert set(real) == {("unknown", None)}


@pytest.mark.parametrize("known_by", ["received", "xforward"])
def test_the_share_of_messages_is_the_real_clients_behind_an_edge_too(scene, known_by):
    gateway, internal, _ = scene(edge_networks=[EDGE], edge_format="postfix", workers=1, strangers={"messages": "2/h"})

    def send(client):
        s = gateway.smtp(EDGE)
        s.ehlo("edge.example.net")
        if known_by == "xforward":
            assert s.say(f"XFORWARD ADDR={client}").code == 250
        headers = POSTFIX_LINE.format(client) if known_by == "received" else ""
        return s.send("a@example.net", "bob@example.com", message(headers=headers))

    assert [send("198.51.100.7")[-1].code for _ in range(2)] == [250, 250]
    replies = send("198.51.100.7")
    assert replies[-1].startswith("450 4.7.1")
    assert len(replies) == (4 if known_by == "received" else 1)  # at the end of the data, or at MAIL
    assert send("198.51.100.8")[-1].code == 250
    assert [send(INTERNAL)[-1].code for _ in range(3)] == [250] * 3  # the edge says that it is one of ours
    assert gateway.metric("postern_rate_limited_total", what="messages") == 1
    if known_by == "received":
        refused = gateway.last("message_refused")
        assert (refused["reply"], refused["real"], refused["real_by"]) == ("450", "198.51.100.7", "received")
    internal.wait_for(6)
