"""Exim and OpenSMTPD on both sides of the gateway: as the client that sends to it, and as the server behind it. Unpacked as the benches do."""
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from certs import Certificate
from conftest import EDGE, ROOT, Gateway, Sink, Smtp, eventually, message

sys.path.insert(0, str(ROOT / "bench"))
from peers.base import Unavailable  # noqa: E402
from peers.exim import Exim  # noqa: E402
from peers.opensmtpd import OpenSMTPD  # noqa: E402

LOOPBACK = "127.0.0.1"  # where these servers listen, and where they send from
BODIES = {
    "dots": ".\r\n..two\r\n. one\r\n",
    "eight-bit": "gr\u00fc\u00dfe \u4f60\u597d\r\n",
    "large": ("0123456789" * 7 + "\r\n") * 20000,  # 1.4 MB: several chunks, where there are any
}


@pytest.fixture
def relay():
    """relay(kind, next port, TLS key pair or None): the server, started, which relays example.com to that port."""
    started, roots = [], []

    def start(kind, port, pair):
        roots.append(Path(tempfile.mkdtemp(prefix="postern-peer-")))  # its users must get in
        roots[-1].chmod(0o755)
        try:
            server = kind(roots[-1] / "server", port, tls=pair)
        except Unavailable as e:
            pytest.skip(str(e))
        server.start()
        started.append(server)
        return server

    yield start
    for server in reversed(started):
        server.stop()
    for root in roots:
        shutil.rmtree(root, ignore_errors=True)


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


@pytest.mark.parametrize("kind, tls", [(Exim, False), (Exim, True), (OpenSMTPD, False)], ids=["exim", "exim-tls", "opensmtpd"])
def test_on_both_sides(run, relay, kind, tls):
    sink = run(Sink, address=LOOPBACK)
    pair = None
    if tls:
        root = Path(tempfile.mkdtemp(prefix="postern-peer-"))
        root.chmod(0o755)
        made = Certificate(root, "gw.example.com", "gw.example.com")
        made.key.chmod(0o644)
        pair = str(made.cert), str(made.key)
    behind = relay(kind, sink.port, pair)
    more = {"tls": {"certificates": [{"chain": pair[0], "key": pair[1]}]}} if tls else {}
    route = {"hosts": [LOOPBACK], "port": behind.port, **({"tls": "require"} if tls else {})}
    gateway = run(Gateway, destination={"mode": "dns"}, domains=[{"name": "example.com", "local": True, "route": route}], **more)
    front = relay(kind, gateway.port, pair)
    for name, body in BODIES.items():
        s = Smtp(LOOPBACK, front.port)
        s.ehlo()
        replies = s.send("alice@example.net", [f"{name}@example.com", f"also-{name}@example.com"], message(name, body), " BODY=8BITMIME")
        assert replies[-1].code == 250, replies
        s.close()
    eventually(lambda: sum(len(m.recipients) for m in sink.messages()) >= 2 * len(BODIES), "all came")
    assert sum(len(m.recipients) for m in sink.messages()) == 2 * len(BODIES)
    for name, body in BODIES.items():
        [raw] = {m.raw for m in sink.messages() if f"{name}@example.com" in m.recipients}
        assert raw.split(b"\r\n\r\n", 1)[1] == body.encode(), name
    read_line_of(kind.__name__.lower(), gateway, sink)
    if tls:
        sides = {(e["side"], e["result"]) for e in gateway.events("tls")}
        assert sides == {("server", "ok"), ("client", "ok")}
        shutil.rmtree(root)
    eventually(lambda: gateway.queued() == 0, "nothing is left in the queue")
