"""STARTTLS both ways: a Python client in, and two gateways that talk to each other."""
import smtplib
import ssl
import subprocess

import pytest

from conftest import EDGE, INTERNAL, Gateway, Sink, eventually, message, routes

pytestmark = pytest.mark.sanitized


@pytest.fixture
def certificate(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    "/CN=gw.example.com", "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return {"certificate": str(cert), "key": str(key)}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_starttls_in(run, certificate, version):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, tls=certificate, **routes(internal, edge))
    context = ssl.create_default_context(cafile=certificate["certificate"])
    context.check_hostname = False
    context.minimum_version = context.maximum_version = version
    s = smtplib.SMTP("127.0.0.1", gateway.port, timeout=60)
    s.starttls(context=context)
    content = message("secret", "x" * 70 + "\r\n") + ("y" * 76 + "\r\n") * 5000
    assert s.sendmail("alice@example.net", ["bob@example.com"], content.encode()) == {}
    s.quit()
    kept = internal.wait_for(1)[0]
    assert kept.raw.endswith(content.encode()) and "with ESMTPS id" in kept.parsed["Received"]


def test_commands_pipelined_behind_starttls_are_discarded(run, certificate):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, tls=certificate, **routes(internal, edge))
    s = gateway.smtp()
    assert "STARTTLS" in s.ehlo()
    s.write(b"STARTTLS\r\nMAIL FROM:<injected@example.net>\r\n")
    assert s.reply().startswith("220")
    context = ssl.create_default_context(cafile=certificate["certificate"])
    context.check_hostname = False
    secure = context.wrap_socket(s.sock)
    secure.sendall(b"EHLO x\r\nRCPT TO:<bob@example.com>\r\n")
    text = b""
    while b"\r\n503" not in text and b"\r\n250 2.1.5" not in text:
        more = secure.recv(4096)
        assert more, text
        text += more
    assert b"503 5.5.1" in text and b"STARTTLS" not in text


def test_two_gateways_talk_tls(run, certificate, tmp_path):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    (tmp_path / "inner").mkdir()
    inner = run(lambda d, **s: Gateway(tmp_path / "inner", **s), tls=certificate, **routes(internal, edge))
    settings = routes(internal, edge)
    settings["domains"][0]["route"] = {"hosts": [f"127.0.0.1:{inner.port}"], "tls": "require"}
    outer = run(Gateway, **settings)
    s = outer.smtp()
    s.ehlo()
    assert s.send("alice@example.net", "bob@example.com", message("through two"))[-1].code == 250
    received = internal.wait_for(1)[0].parsed.get_all("Received")
    assert len(received) == 2 and "with ESMTPS id" in received[0]


def test_required_tls_that_is_not_offered_defers(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    settings = routes(internal, edge)
    settings["domains"][0]["route"]["tls"] = "require"
    gateway = run(Gateway, **settings)
    s = gateway.smtp()
    s.ehlo()
    assert s.send("alice@example.net", "bob@example.com", message("no clear text"))[-1].code == 250
    eventually(lambda: gateway.events("dest_down") or gateway.events("delivery"), "an attempt")
    assert gateway.queued() == 1 and not internal.messages()
