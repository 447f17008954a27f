"""Postfix, Exim and OpenSMTPD on both sides of the gateway: as the client that sends to it, and as the server behind it. The last two unpacked as
the benches do."""
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from certs import Certificate, certificates
from conftest import EDGE, INTERNAL, ROOT, Gateway, Sink, Smtp, eventually, message, stuff

sys.path.insert(0, str(ROOT / "bench"))
from peers.base import Unavailable  # noqa: E402
from peers.exim import Exim  # noqa: E402
from peers.opensmtpd import OpenSMTPD, can_serve_tls  # noqa: E402
from peers.postfix import Postfix  # noqa: E402

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="these servers are started as root")
LOOPBACK = "127.0.0.1"  # where these servers listen, and where they send from
BODIES = {
    "dots": ".\r\n..two\r\n. one\r\n",
    "eight-bit": "gr\u00fc\u00dfe \u4f60\u597d\r\n",
    "large": ("0123456789" * 7 + "\r\n") * 20000,  # 1.4 MB: several chunks, where there are any
}


# Also what each is told: as a client to use TLS; to offer all that it can, and as little as it can.
SERVERS = {
    "postfix": (Postfix, "smtp_tls_security_level = may\n", "smtpd_discard_ehlo_keywords = chunking, dsn, 8bitmime\nsmtputf8_enable = no\n"),
    "exim": (Exim, "dsn_advertise_hosts = *\n", "chunking_advertise_hosts =\nsmtputf8_advertise_hosts =\naccept_8bitmime = false\n"),
    "opensmtpd": (OpenSMTPD, "", "no-dsn"),
}
OFFERED = {
    ("postfix", "all"): {"8BITMIME", "CHUNKING", "DSN", "SMTPUTF8"}, ("postfix", "few"): set(),
    ("exim", "all"): {"8BITMIME", "CHUNKING", "DSN", "SMTPUTF8"}, ("exim", "few"): set(),
    ("opensmtpd", "all"): {"8BITMIME", "DSN"}, ("opensmtpd", "few"): {"8BITMIME"},
}


@pytest.fixture
def place():
    """place(): a directory that the servers' users get into."""
    made = []

    def make():
        made.append(Path(tempfile.mkdtemp(prefix="postern-peer-")))
        made[-1].chmod(0o755)
        return made[-1]

    yield make
    for directory in made:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def certificate(place):
    made = Certificate(place(), "gw.example.com", "gw.example.com")
    made.key.chmod(0o644)
    return made


@pytest.fixture
def relay(place):
    """relay(name, next port, certificate or None, "all" or "few"): the server, started, which relays example.com to that port."""
    started = []

    def start(name, port, certificate, offers="all"):
        kind, most, least = SERVERS[name]
        pair = (str(certificate.cert), str(certificate.key)) if certificate else None
        try:
            server = kind(place() / "server", port, tls=pair, extra=most if offers == "all" else least)
        except Unavailable as e:
            pytest.skip(str(e))
        started.append(server)
        server.start()
        return server

    yield start
    for server in reversed(started):
        server.stop()


def can_be_had_with_tls(name):
    try:
        return name != "opensmtpd" or can_serve_tls()
    except Unavailable as e:
        pytest.skip(str(e))


EVERY = pytest.mark.parametrize("name", list(SERVERS))
SECURED = pytest.mark.parametrize("secured", [False, True], ids=["clear", "tls"])


def gateway_before(run, server, secured, **more):
    route = {"hosts": [LOOPBACK], "port": server.port, **({"tls": "require"} if secured else {"tls": "off"})}
    return run(Gateway, **{"destination": {"mode": "dns"}, **more}, domains=[{"name": "example.com", "local": True, "route": route}])


def read_line_of(format, gateway, sink):
    """The Received line of the server in front, as it wrote it but for the address, is read when the edge hands it over."""
    raw = sink.messages()[0].raw.decode("utf-8", "replace").replace("\r\n", "\n").split("\n\n", 1)[0]
    line = re.findall(r"^Received:.*(?:\n[ \t].*)*", raw, re.MULTILINE)[2]  # behind, gateway, front
    by = re.search(r"\bby ([^ ()]+)", line)[1]
    gateway.configure(edge_networks=[EDGE], edge_names=[by], edge_format=format)
    gateway.cli("reload")
    s = gateway.smtp(EDGE)
    s.ehlo("edge.example.net")
    replaced = line.replace("[127.0.0.1]", "[198.51.100.7]").replace("\n", "\r\n") + "\r\n"
    assert s.send("alice@example.net", "real@example.com", message("real", headers=replaced))[-1].code == 250
    said = eventually(lambda: [m for m in gateway.events("message") if m["client"] == EDGE], "it is in the log")[-1]
    assert (said["real_by"], said.get("real")) == ("received", "198.51.100.7"), line


@EVERY
@SECURED
def test_on_both_sides(run, relay, certificate, name, secured):
    sink = run(Sink, address=LOOPBACK)
    serves_tls = secured and can_be_had_with_tls(name)
    behind = relay(name, sink.port, certificate if serves_tls else None)
    gateway = gateway_before(run, behind, serves_tls, **({"tls": certificates(certificate)} if secured else {}))
    front = relay(name, gateway.port, certificate if serves_tls else None)
    for subject, body in BODIES.items():
        s = Smtp(LOOPBACK, front.port)
        s.ehlo()
        replies = s.send("alice@example.net", [f"{subject}@example.com", f"also-{subject}@example.com"], message(subject, body), " BODY=8BITMIME")
        assert replies[-1].code == 250, replies
        s.close()
    eventually(lambda: sum(len(m.recipients) for m in sink.messages()) >= 2 * len(BODIES), "all came")
    assert sum(len(m.recipients) for m in sink.messages()) == 2 * len(BODIES)
    for subject, body in BODIES.items():
        [raw] = {m.raw for m in sink.messages() if f"{subject}@example.com" in m.recipients}
        assert raw.split(b"\r\n\r\n", 1)[1] == body.encode(), subject
    sides = {(e["side"], e["result"]) for e in gateway.events("tls")}
    assert sides == ({("server", "ok")} if secured else set()) | ({("client", "ok")} if serves_tls else set())
    read_line_of(name, gateway, sink)
    eventually(lambda: gateway.queued() == 0, "nothing is left in the queue")


# --- what a server offers is used, what it does not offer is done without ---

def say_mail(gateway, mail, rcpt, content):
    s = gateway.smtp(INTERNAL)
    s.ehlo()
    assert s.say(f"MAIL FROM:{mail}").code == 250
    assert s.say(f"RCPT TO:{rcpt}").code == 250
    assert s.say("DATA").code == 354
    s.write(stuff(content) + b".\r\n")
    assert s.reply().code == 250
    s.close()


def subjects(sink):
    return {m.parsed["Subject"]: m for m in sink.messages()}


def report_about(reports, address):
    """Action, status and envelope identifier of the report for this recipient; None: there is none yet. As text: the parser knows nothing of RFC 6533."""
    for kept in reports.messages():
        text = kept.raw.decode()
        found = re.search(rf"Final-Recipient: (?:rfc822|utf-8); {re.escape(address)}\r\nAction: (\S+)\r\nStatus: (\S+)\r\n", text)
        envid = re.search(r"^Original-Envelope-Id: (\S+)\r$", text, re.M)
        if found:
            return found[1], found[2], envid and envid[1]
    return None


@EVERY
@SECURED
@pytest.mark.parametrize("offers", ["all", "few"])
def test_extensions_out(run, relay, certificate, name, secured, offers):
    sink, reports = run(Sink, "--dsn", address=LOOPBACK, name="behind"), run(Sink, address=EDGE, name="reports")
    server = relay(name, sink.port, certificate if secured else None, offers)
    offered = {word for line in Smtp(LOOPBACK, server.port).ehlo().split("\n") for word in line[4:].split()[:1]}
    assert offered & {"8BITMIME", "CHUNKING", "DSN", "SMTPUTF8"} == OFFERED[name, offers]
    gateway = gateway_before(run, server, secured, destination={"mode": "edge", "host": EDGE, "port": reports.port})

    plain = "0123456789" * 7 + "\r\n.dot\r\n"
    say_mail(gateway, "<alice@example.net>", "<large@example.com>", message("large", plain * 20000))
    say_mail(gateway, "<alice@example.net> RET=HDRS ENVID=QQ314", "<dsn@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first@example.org", message("dsn"))
    say_mail(gateway, "<alice@example.net> BODY=8BITMIME", "<eight@example.com>", message("eight", BODIES["eight-bit"]))
    say_mail(gateway, "<alice@example.net> BODY=8BITMIME SMTPUTF8", "<gr\u00fc\u00dfe@example.com>", message("utf8", BODIES["eight-bit"]))

    eventually(lambda: gateway.queued() == 0, "each has its outcome")
    body = eventually(lambda: subjects(sink).get("large"), "the large one is there").raw.split(b"\r\n\r\n", 1)[1]
    assert body == (plain * 20000).encode()
    dsn = eventually(lambda: subjects(sink).get("dsn"), "the one with DSN is there")
    if "DSN" in OFFERED[name, offers]:
        assert "ENVID=QQ314" in dsn.mail_line and "NOTIFY=SUCCESS,FAILURE" in dsn.rcpt_lines[0] and "first@example.org" in dsn.rcpt_lines[0]
        assert not report_about(reports, "dsn@example.com")
    else:
        assert "NOTIFY" not in dsn.rcpt_lines[0]
        assert eventually(lambda: report_about(reports, "dsn@example.com"), "we say that it was relayed") == ("relayed", "2.0.0", "QQ314")
    for extension, subject, address, status in [("8BITMIME", "eight", "eight@example.com", "5.6.3"), ("SMTPUTF8", "utf8", "gr\u00fc\u00dfe@example.com", "5.6.7")]:
        if extension in OFFERED[name, offers]:
            kept = eventually(lambda: subjects(sink).get(subject), f"{subject} is there")
            assert kept.raw.split(b"\r\n\r\n", 1)[1] == BODIES["eight-bit"].encode()
        else:
            assert eventually(lambda: report_about(reports, address), f"{subject} comes back")[:2] == ("failed", status)
            assert subject not in subjects(sink)
    told = [e for e in gateway.events("delivery") if e["result"] == "sent" and e["dest"].endswith(f":{server.port}")]
    assert told and all(("tls" in e) == secured for e in told)
