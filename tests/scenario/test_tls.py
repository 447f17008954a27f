"""TLS both ways: clients of several kinds in, gateways and other servers out."""
import re
import smtplib
import socket
import ssl
import subprocess

import pytest

from backend import Backend
from certs import certificates
from conftest import EDGE, INTERNAL, PATIENCE_S, Gateway, Sink, Smtp, eventually, message, routes
from ports import free_port

pytestmark = pytest.mark.sanitized


@pytest.fixture
def certificate(made):
    return made("gw", "gw.example.com")


class TwoDoors(Gateway):
    """A gateway with a second listener, whose TLS the test chooses."""

    def __init__(self, directory, second="implicit", **settings):
        super().__init__(directory)
        self.second_port = free_port()
        self.configure(**{"listeners": [{"address": f"127.0.0.1:{self.port}"},
                                        {"address": f"127.0.0.1:{self.second_port}", "tls": second}], **settings})


def client_context(version=None, shows=None, ciphers=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    if ciphers:
        context.set_ciphers(ciphers)
    if shows:
        context.load_cert_chain(shows.cert, shows.key)
    return context


def start_tls(s, context=None, name=None, session=None):
    """STARTTLS on an open session; says EHLO again."""
    s.ehlo()
    assert s.say("STARTTLS").code == 220
    s.sock = (context or client_context()).wrap_socket(s.sock, server_hostname=name, session=session)
    s.file = s.sock.makefile("rb")
    s.ehlo()
    return s


def shown(s):
    return s.sock.getpeercert(binary_form=True)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_starttls_in(scene, certificate, version):
    gateway, internal, _ = scene(certificates(certificate))
    context = ssl.create_default_context(cafile=str(certificate.cert))
    context.check_hostname = False
    context.minimum_version = context.maximum_version = version
    s = smtplib.SMTP("127.0.0.1", gateway.port, timeout=60)
    s.starttls(context=context)
    content = message("secret", "x" * 70 + "\r\n") + ("y" * 76 + "\r\n") * 5000
    assert s.sendmail("alice@example.net", ["bob@example.com"], content.encode()) == {}
    s.quit()
    kept = internal.wait_for(1)[0]
    received = " ".join(kept.parsed["Received"].split())
    assert kept.raw.endswith(content.encode()) and "with ESMTPS id" in received
    assert re.search(r"\(version=TLSv1\.[23] cipher=TLS_\w+ verify=none\)", received), received
    said = eventually(lambda: gateway.events("tls"), "it is logged")[0]
    assert said["side"] == "server" and said["result"] == "ok" and said["group"] == "X25519" and said["verify"] == "none"


def test_commands_pipelined_behind_starttls_are_discarded(scene, certificate):
    gateway, _, _ = scene(certificates(certificate))
    s = gateway.smtp()
    assert "STARTTLS" in s.ehlo()
    s.write(b"STARTTLS\r\nMAIL FROM:<injected@example.net>\r\n")
    assert s.reply().startswith("220")
    secure = client_context().wrap_socket(s.sock)
    secure.sendall(b"EHLO x\r\nRCPT TO:<bob@example.com>\r\n")
    text = b""
    while b"\r\n503" not in text and b"\r\n250 2.1.5" not in text:
        more = secure.recv(4096)
        assert more, text
        text += more
    assert b"503 5.5.1" in text and b"STARTTLS" not in text


# --- which certificate ---

@pytest.mark.parametrize("version", VERSIONS)
def test_certificate_by_name_and_key(scene, made, version):
    ec, rsa, other = made("ec", "gw.example.com"), made("rsa", "gw.example.com", kind="rsa"), made("other", "mx.other.example", "*.wild.example")
    gateway, _, _ = scene(certificates(ec, rsa, other))
    rsa_only = client_context(ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    for name, context, got in [("gw.example.com", None, ec), (None, None, ec), ("nobody.example", None, ec), ("mx.other.example", None, other),
                               ("a.wild.example", None, other), ("a.b.wild.example", None, ec), ("gw.example.com", rsa_only, rsa)]:
        s = start_tls(gateway.smtp(), context or client_context(version), name)
        assert shown(s) == got.der, name
        s.close()


def s_client(gateway, *args, port=None, starttls=True):
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port or gateway.port}", *(["-starttls", "smtp"] if starttls else []), *map(str, args)]
    return subprocess.run(command, input="QUIT\r\n", capture_output=True, text=True, timeout=PATIENCE_S)


def test_openssl_gets_what_it_asks_for(scene, made):
    ec, rsa = made("ec", "gw.example.com"), made("rsa", "gw.example.com", kind="rsa")
    gateway, _, _ = scene(certificates(ec, rsa))
    r = s_client(gateway, "-sigalgs", "rsa_pss_rsae_sha256")
    assert re.search("a:.*rsaEncryption", r.stdout) and "New, TLSv1.3" in r.stdout, r.stdout + r.stderr
    r = s_client(gateway, "-groups", "P-256")
    assert re.search("a:.*id-ecPublicKey", r.stdout) and re.search("P-256|prime256v1", r.stdout), r.stdout + r.stderr
    for refused in (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], ["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"],
                    ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256"]):
        r = s_client(gateway, *refused)
        assert r.returncode != 0 and "Cipher is (NONE)" in r.stdout, r.stdout + r.stderr


# --- how much TLS ---

def test_swaks_sends_by_starttls_and_by_implicit_tls(scene, certificate):
    gateway, internal, _ = scene(certificates(certificate), kind=TwoDoors)
    for port, option in [(gateway.port, "--tls"), (gateway.second_port, "--tls-on-connect")]:
        r = subprocess.run(["swaks", "--server", f"127.0.0.1:{port}", "--from", "alice@example.net", "--to", "bob@example.com", option],
                           capture_output=True, text=True, timeout=PATIENCE_S)
        assert r.returncode == 0, r.stdout + r.stderr
    assert all("with ESMTPS id" in m.parsed["Received"] for m in internal.wait_for(2))
    assert "220 gw.example.com" in s_client(gateway, "-quiet", port=gateway.second_port, starttls=False).stdout


def test_clear_text_on_an_implicit_listener_ends_the_session(scene, certificate):
    gateway, _, _ = scene(certificates(certificate), kind=TwoDoors)
    with socket.create_connection(("127.0.0.1", gateway.second_port), timeout=PATIENCE_S) as s:
        s.sendall(b"EHLO client.example.net\r\n")
        assert not s.makefile("rb").read().startswith(b"220")
    eventually(lambda: [e for e in gateway.events("session") if e["reason"] == "tls"], "the session ended for TLS")


def test_required_tls_by_class_and_listener(scene, certificate):
    gateway, internal, _ = scene({**certificates(certificate), "level": {"trusted": "require", "stranger": "off"}},
                                 kind=lambda d, **s: TwoDoors(d, second="require", **s))
    trusted = gateway.smtp(INTERNAL)
    assert "STARTTLS" in trusted.ehlo()
    for refused in ("MAIL FROM:<alice@example.com>", "RSET", "VRFY x", "HELP", "DATA", "BDAT 0 LAST", "RCPT TO:<bob@example.com>"):
        assert trusted.say(refused).startswith("530 5.7.0"), refused
    assert trusted.say("NOOP").code == 250 and trusted.say("HELO x").code == 250
    start_tls(trusted)
    assert trusted.send("alice@example.com", "bob@example.com", message("required"))[-1].code == 250
    internal.wait_for(1)
    stranger = gateway.smtp()
    assert "STARTTLS" not in stranger.ehlo() and stranger.say("STARTTLS").code == 502
    other_door = Smtp("127.0.0.1", gateway.second_port)  # its own word goes before the class's
    assert "STARTTLS" in other_door.ehlo() and other_door.say("MAIL FROM:<a@example.net>").startswith("530 5.7.0")
    assert other_door.say("QUIT").code == 221


# --- tickets ---

def resumed_after(gateway, version, between=lambda: None):
    """Comes back eight times, so that both workers will have been met, with the ticket of before."""
    context = client_context(version)
    s = start_tls(gateway.smtp(), context)
    ticket = s.sock.session  # 1.3: it came with the reply to EHLO
    assert ticket and not s.sock.session_reused
    s.close()
    between()
    reused = []
    for _ in range(8):
        s = start_tls(gateway.smtp(), context, session=ticket)
        reused.append(s.sock.session_reused)
        ticket = s.sock.session  # of 1.3 each is for one use
        s.close()
    return reused


@pytest.mark.parametrize("version", VERSIONS)
def test_tickets_are_good_at_every_worker_and_after_a_reload(scene, certificate, version):
    gateway, _, _ = scene(certificates(certificate))
    assert all(resumed_after(gateway, version))
    assert all(resumed_after(gateway, version, lambda: gateway.cli("reload")))
    assert gateway.metric("postern_tls_resumed_total", direction="in") == 16


# --- reload ---

def test_reload_of_files_that_changed_in_the_middle_of_a_session(scene, made, certificate):
    gateway, internal, _ = scene(certificates(certificate))
    old = start_tls(gateway.smtp())
    assert old.say("MAIL FROM:<alice@example.net>").code == 250
    new = made("new", "gw.example.com", kind="rsa")
    certificate.cert.write_bytes(new.cert.read_bytes())
    r = gateway.cli("reload", check=False)  # the key is the old one
    said = r.stdout + r.stderr
    where = [i for i, line in enumerate(gateway.config_path.read_text().splitlines(), 1) if str(certificate.key) in line][0]
    assert r.returncode != 0 and f"postern.yaml:{where}:" in said and "does not belong to the first certificate" in said
    eventually(lambda: gateway.events("reload_refused"), "it is logged")
    assert shown(start_tls(gateway.smtp())) == shown(old)
    certificate.key.write_bytes(new.key.read_bytes())
    gateway.cli("reload")
    eventually(lambda: shown(start_tls(gateway.smtp())) == new.der, "new sessions get the new certificate")
    assert old.say("RCPT TO:<bob@example.com>").code == 250 and old.say("DATA").code == 354
    old.write(message("over a reload").encode() + b".\r\n")
    assert old.reply().code == 250
    internal.wait_for(1)


def test_a_reload_that_brings_tls_reaches_open_sessions(pair, certificate):
    gateway, internal, _ = pair
    s = gateway.smtp()
    assert "STARTTLS" not in s.ehlo()
    gateway.configure(tls={**certificates(certificate), "level": {"stranger": "require"}})
    gateway.cli("reload")
    eventually(lambda: s.say("MAIL FROM:<alice@example.net>").startswith("530") or s.say("RSET") and None, "the rule reaches it")
    start_tls(s)
    assert s.send("alice@example.net", "bob@example.com", message("reached"))[-1].code == 250
    internal.wait_for(1)


def test_a_certificate_that_ends_is_told(scene, made):
    soon, ended, fine = made("soon", "gw.example.com", days=3), made("ended", "old.example.com", days=-1), made("fine", "a.example.com", days=90)
    gateway, _, _ = scene(certificates(fine, soon, ended))
    eventually(lambda: len(gateway.events("certificate_ends")) == 2, "it is told")
    told = {e["file"].rsplit("/")[-1]: e for e in gateway.events("certificate_ends")}
    assert set(told) == {"soon.pem", "ended.pem"} and told["soon.pem"]["days"] in ("2", "3") and "has ended" in told["ended.pem"]["text"]
    gateway.cli("reload")
    eventually(lambda: len(gateway.events("certificate_ends")) == 4, "and again")
    ends = dict(re.findall(r'postern_tls_certificate_not_after_seconds\{file="[^"]*/(\w+)\.pem"\} (\d+)', gateway.metrics_text()))
    assert int(ends["ended"]) < int(ends["soon"]) < int(ends["fine"])


# --- who a client is ---

def test_clients_by_certificate(scene, made):
    authority, other_authority = made("ca", is_ca=True), made("other-ca", is_ca=True)
    gw, known = made("gw", "gw.example.com"), made("edge", "edge.example.net")
    named = made("named", "relay.example.com", by=authority)
    rules = [{"class": "edge", "pin": known.key_pin}, {"class": "trusted", "ca": str(authority.cert), "name": "relay.example.com"}]
    gateway, _, edge = scene({**certificates(gw), "clients": rules})

    def answer(shows, recipient="someone@elsewhere.example"):
        s = start_tls(gateway.smtp(), client_context(shows=shows))
        s.say("MAIL FROM:<alice@example.com>")
        reply = s.say(f"RCPT TO:<{recipient}>")
        s.close()
        return reply.code

    assert answer(None) == 554 and answer(named) == 250
    for unknown in (known, made("wrong-name", "other.example.com", by=authority), made("wrong-ca", "relay.example.com", by=other_authority),
                    made("ended", "relay.example.com", by=authority, days=-1), made("self", "relay.example.com")):
        assert answer(unknown) == 554
    eventually(lambda: len(gateway.events("session")) >= 7, "the sessions are over")
    by_verify = {}
    for e in gateway.events("session"):
        by_verify.setdefault(e.get("verify"), set()).add(e["class"])
    by_verify.pop(None, None)  # the test's own look whether the port is open
    assert by_verify == {"none": {"stranger"}, "unknown": {"stranger"}, "ok": {"trusted"}, "pin": {"edge"}}

    # A reload that takes the rule away takes the class from a session that is open, between two transactions.
    s = start_tls(gateway.smtp(), client_context(shows=named))
    assert s.send("alice@example.com", "x@elsewhere.example", message("as trusted"))[-1].code == 250
    assert "verify=ok" in " ".join(edge.wait_for(1)[0].parsed["Received"].split())
    gateway.configure(tls={"clients": rules[:1]})
    gateway.cli("reload")

    def refused():
        s.say("MAIL FROM:<alice@example.com>")
        code = s.say("RCPT TO:<x@elsewhere.example>").code
        s.say("RSET")
        return code == 554
    eventually(refused, "the class is gone")


# --- a flood ---

def test_a_flood_of_handshakes_leaves_the_edge_served(scene, made):
    """RSA makes handshakes dear. The edge's session goes on, and so does a new one's handshake, while hundreds wait."""
    gateway, internal, _ = scene(certificates(made("gw", "gw.example.com", kind="rsa")), edge_networks=[EDGE],
                                 limits={"sessions_per_client": 0}, workers=1)
    edge = start_tls(gateway.smtp(EDGE))
    from_server, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client_context().wrap_bio(from_server, to_server).do_handshake()
    hello = to_server.read()
    flood = [gateway.smtp() for _ in range(300)]
    for s in flood:
        s.write("EHLO flood.example.net\r\nSTARTTLS\r\n")
    for s in flood:
        assert s.reply().code == 250 and s.reply().code == 220
    for s in flood:
        s.write(hello)
    for n in range(5):
        assert edge.send("alice@example.net", "bob@example.com", message(f"beside a flood {n}"))[-1].code == 250
    assert start_tls(gateway.smtp(EDGE)).say("NOOP").code == 250
    internal.wait_for(5)
    for s in flood:  # nobody was forgotten
        assert s.sock.recv(1) == b"\x16"
        s.close()
    assert gateway.metric("postern_tls_ticks_spent_total") > 0


def test_a_handshake_that_waits_for_its_client_costs_nothing(scene, made):
    """Each used to take the whole share of every turn: one client that stalls kept a core busy."""
    gateway, internal, edge = scene(certificates(made("gw", "gw.example.com")), workers=1)
    s = gateway.smtp()
    s.ehlo()
    assert s.say("STARTTLS").code == 220
    s.write(b"\x16\x03\x01\x02\x00\x01")  # a record of 512 bytes that never comes
    for _ in range(20):
        other = gateway.smtp()
        assert other.say("NOOP").code == 250
        other.close()
    assert gateway.metric("postern_tls_ticks_spent_total") == 0
    s.close()


# --- out ---

def test_two_gateways_talk_tls(run, certificate, tmp_path):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    (tmp_path / "inner").mkdir()
    inner = run(lambda d, **s: Gateway(tmp_path / "inner", **s), tls=certificates(certificate), **routes(internal, edge))
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


def server_context(shows, asks_by=None, version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shows.cert, shows.key)
    if asks_by:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(asks_by.cert)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture
def inside(run):
    """A gateway whose internal server is the test's: inside(certificate, route settings) -> gateway, backend."""
    servers = []

    def start(shows, asks_by=None, login=None, version=None, settings=None, **route):
        backend = Backend(INTERNAL, free_port(INTERNAL), users=None)
        servers.append(backend)
        backend.tls = server_context(shows, asks_by, version) if shows else None
        backend.login = login
        edge = run(Sink, address=EDGE, name="edge")
        more = {**routes(backend, edge), **(settings or {})}
        more["domains"][0]["route"].update(route)
        return run(Gateway, **more), backend

    yield start
    for backend in servers:
        backend.stop()


def send(gateway, subject="out"):
    s = gateway.smtp()
    s.ehlo()
    assert s.send("alice@example.net", "bob@example.com", message(subject))[-1].code == 250
    s.close()


def delivered(gateway, backend, count=1):
    eventually(lambda: len(backend.messages) == count, "it is delivered")
    return eventually(lambda: [e for e in gateway.events("delivery") if e["result"] == "sent"], "it is logged")[-1]


def kept_back(gateway, backend, *texts):
    """Never sent, still queued, and the log says why."""
    said = eventually(lambda: [e["text"] for e in gateway.events("dest_down")], "the destination is down")[0]
    assert all(t in said for t in texts), said
    assert gateway.queued() == 1 and not backend.messages
    assert not [line for line in backend.heard_in_clear if line.split(" ")[0] in ("MAIL", "AUTH")]


@pytest.mark.parametrize("pin", ["key_pin", "cert_pin"])
@pytest.mark.parametrize("version", VERSIONS)
def test_pinned_server(inside, made, pin, version):
    theirs, other = made("theirs", "any.name.example", days=-1), made("other", "x.example")
    gateway, backend = inside(theirs, version=version, tls="pin", tls_peer={"pins": [getattr(other, pin), getattr(theirs, pin)]})
    send(gateway)
    told = delivered(gateway, backend)
    assert told["verify"] == "pin" and told["tls"].startswith("TLSv1.") and told["cipher"].startswith("TLS_")
    assert told["dest"].startswith("tls-pin#") and backend.handshakes[0]["name"] is None


def test_server_with_another_key_than_the_pinned_one(inside, made):
    theirs = made("theirs", "any.name.example")
    gateway, backend = inside(theirs, tls="pin", tls_peer={"pins": [made("other", "x.example").key_pin, "cert:" + theirs.key_pin[5:]]})
    send(gateway)
    kept_back(gateway, backend, "TLS failed", "none of the pins", theirs.key_pin)


@pytest.mark.parametrize("case", ["good", "wrong name", "wrong ca", "ended", "itself"])
def test_verified_server(inside, made, case):
    authority, other = made("ca", is_ca=True), made("other-ca", is_ca=True)
    signed_by = {"wrong ca": other, "itself": None}.get(case, authority)
    theirs = made("theirs", "other.example.com" if case == "wrong name" else "mail.example.com", by=signed_by, days=-1 if case == "ended" else 30)
    gateway, backend = inside(theirs, tls="verify", tls_peer={"ca": str(authority.cert), "name": "mail.example.com"})
    send(gateway)
    if case == "good":
        assert delivered(gateway, backend)["verify"] == "ok" and backend.handshakes[0]["name"] == "mail.example.com"
    else:
        kept_back(gateway, backend, "TLS failed", "not trusted")


def hang_up(raw):
    raw.shutdown(socket.SHUT_RDWR)
    raise OSError("it hangs up")


@pytest.mark.parametrize("level", ["may", "require", "verify", "pin"])
@pytest.mark.parametrize("broken", ["old versions only", "hangs up"])
def test_fallback_to_clear_text_only_where_may(inside, made, level, broken):
    """A server whose TLS is broken, and which would take mail in the clear."""
    theirs = made("theirs", "mail.example.com")
    peer = {"verify": {"ca": str(theirs.cert), "name": "mail.example.com"}, "pin": {"pins": [theirs.key_pin]}}.get(level)
    gateway, backend = inside(theirs, tls=level, **({"tls_peer": peer} if peer else {}))
    backend.tls_needed = False
    if broken == "hangs up":
        backend.secure = hang_up
    else:
        backend.tls.minimum_version, backend.tls.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        backend.tls.set_ciphers("ALL:@SECLEVEL=0")
    send(gateway)
    if level != "may":
        kept_back(gateway, backend, *(["TLS failed"] if broken != "hangs up" else []))
        return
    told = delivered(gateway, backend)
    assert "tls" not in told and told["dest"].startswith("127.0.0.2:")
    assert not gateway.events("dest_down")


def test_off_is_off(inside, made):
    gateway, backend = inside(made("theirs", "x.example"), tls="off")
    backend.tls_needed = False
    send(gateway)
    assert "tls" not in delivered(gateway, backend) and not backend.handshakes and "STARTTLS" not in backend.heard_in_clear


@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN", "EXTERNAL"])
def test_logging_in_at_the_edge(run, made, tmp_path, mechanisms):
    theirs, ours = made("theirs", "edge.example.net"), made("ours", "gw.example.com")
    (tmp_path / "password").write_text("s3cret word\n")
    edge = Backend(EDGE, free_port(EDGE), users=None)
    try:
        edge.tls = server_context(theirs, asks_by=ours if mechanisms == "EXTERNAL" else None)
        edge.login = (mechanisms, "gw", None if mechanisms == "EXTERNAL" else "s3cret word")
        auth = {"mechanism": "external", "user": "gw"} if mechanisms == "EXTERNAL" else {"user": "gw", "password_file": str(tmp_path / "password")}
        peer = {"pins": [theirs.key_pin], **({"certificate": str(ours.cert), "key": str(ours.key)} if mechanisms == "EXTERNAL" else {})}
        gateway = run(Gateway, destination={"mode": "edge", "host": EDGE, "port": edge.port, "tls": "pin", "tls_peer": peer, "auth": auth}, domains=[])
        s = gateway.smtp(INTERNAL)
        s.ehlo()
        assert s.send("alice@example.com", "someone@elsewhere.example", message("logged in"))[-1].code == 250
        delivered(gateway, edge)
        assert edge.logins == [(mechanisms.split()[0], *edge.login[1:])]
        assert edge.handshakes[0]["shown"] == (ours.der if mechanisms == "EXTERNAL" else None)
        assert "s3cret" not in gateway.log() and not [line for line in edge.heard_in_clear if line.startswith(("AUTH", "MAIL"))]
    finally:
        edge.stop()


def test_a_wrong_password_keeps_mail_until_it_is_mended(inside, made, tmp_path):
    theirs, password = made("theirs", "x.example"), tmp_path / "secrets" / "password"  # a directory of its own, for the sandbox
    password.parent.mkdir()
    password.write_text("old\n")
    gateway, backend = inside(theirs, login=("PLAIN", "gw", "new"), tls="pin", tls_peer={"pins": [theirs.key_pin]},
                              auth={"user": "gw", "password_file": str(password)})
    send(gateway)
    kept_back(gateway, backend, "no")
    password.write_text("new\r\n")
    gateway.cli("reload")
    delivered(gateway, backend)
    assert backend.logins[0] == ("PLAIN", "gw", "old") and backend.logins[-1] == ("PLAIN", "gw", "new")


def test_credentials_are_not_said_to_a_server_without_tls(inside, made, tmp_path):
    (tmp_path / "password").write_text("secret\n")
    gateway, backend = inside(None, login=("PLAIN LOGIN", "gw", "secret"), tls="pin", tls_peer={"pins": [made("theirs", "x.example").key_pin]},
                              auth={"user": "gw", "password_file": str(tmp_path / "password")})
    send(gateway)
    kept_back(gateway, backend, "does not offer it")
    assert not backend.logins


def test_probes_have_the_tls_and_the_credentials_of_the_route(inside, made, tmp_path):
    theirs, ours = made("theirs", "x.example"), made("ours", "gw.example.com")
    (tmp_path / "password").write_text("secret\n")
    gateway, backend = inside(theirs, asks_by=ours, login=("PLAIN", "gw", "secret"), tls="pin",
                              tls_peer={"pins": [theirs.key_pin], "certificate": str(ours.cert), "key": str(ours.key)},
                              auth={"user": "gw", "password_file": str(tmp_path / "password")}, settings={"verify": {"mode": "unverified"}})
    backend.users = {"bob@example.com"}
    s = gateway.smtp()
    s.ehlo()
    s.say("MAIL FROM:<alice@example.net>")
    assert s.say("RCPT TO:<nobody@example.com>").code == 550 and s.say("RCPT TO:<bob@example.com>").code == 250
    assert not backend.messages and backend.probes("bob@example.com") == 1
    assert backend.logins[0] == ("PLAIN", "gw", "secret") and backend.handshakes[0]["shown"] == ours.der
    assert not [line for line in backend.heard_in_clear if line.startswith(("MAIL", "AUTH"))]
    shown_to_people = gateway.cli("verify", "probe", "bob@example.com", check=False).stdout
    assert "(credentials)" in shown_to_people and "AUTH PLAIN A" not in shown_to_people and "certificate: pin" in shown_to_people, shown_to_people


@pytest.mark.parametrize("level", ["require", "verify", "pin"])
def test_probes_are_not_asked_in_another_way_than_the_route_says(inside, made, level):
    theirs, other = made("theirs", "mail.example.com"), made("other", "mail.example.com")
    peer = {"verify": {"ca": str(other.cert), "name": "mail.example.com"}, "pin": {"pins": [other.key_pin]}}.get(level)
    gateway, backend = inside(None if level == "require" else theirs, tls=level, settings={"verify": {"mode": "unverified"}},
                              **({"tls_peer": peer} if peer else {}))
    backend.users, backend.tls_needed = {"bob@example.com"}, False
    s = gateway.smtp()
    s.ehlo()
    s.say("MAIL FROM:<alice@example.net>")
    for recipient in ("bob@example.com", "nobody@example.com"):
        assert s.say(f"RCPT TO:<{recipient}>").code in (450, 451)
    assert not backend.probes() and not [line for line in backend.heard_in_clear if line.startswith(("MAIL", "RCPT"))]


# --- out: going on from an earlier session ---

def sent_one_by_one(gateway, backend, *subjects):
    for subject in subjects:
        before = len(backend.messages)
        send(gateway, subject)
        eventually(lambda: len(backend.messages) > before and gateway.queued() == 0, f"{subject} is delivered")


@pytest.mark.parametrize("level", ["may", "require", "verify", "pin"])
@pytest.mark.parametrize("version", VERSIONS)
def test_short_sessions_go_on_from_earlier_ones(inside, made, level, version):
    """What is known of the server holds for them too, and what we showed it; and a reload with other rules begins anew."""
    authority, ours = made("ca", is_ca=True), made("ours", "gw.example.com")
    theirs = made("theirs", "mail.example.com", by=authority)
    peer = {"certificate": str(ours.cert), "key": str(ours.key)}
    if level == "verify":
        peer.update(ca=str(authority.cert), name="mail.example.com")
    if level == "pin":
        peer["pins"] = [theirs.key_pin]
    gateway, backend = inside(theirs, asks_by=ours, version=version, tls=level, tls_peer=peer, messages_per_connection=1)
    sent_one_by_one(gateway, backend, "first", "second", "third")
    assert [h["resumed"] for h in backend.handshakes] == [False, True, True]
    assert [h["shown"] for h in backend.handshakes] == [ours.der] * 3
    trust = {"verify": "ok", "pin": "pin"}.get(level, "none")
    assert [e["verify"] for e in gateway.events("delivery")] == [trust] * 3
    assert [e.get("resumed") for e in gateway.events("tls")] == [None, "yes", "yes"]
    assert gateway.metric("postern_tls_resumed_total", direction="out") == 2
    if level != "pin":
        return
    route = gateway.settings["domains"][0]["route"]
    route["tls_peer"]["pins"] = [made("other", "x.example").key_pin]
    gateway.configure()
    gateway.cli("reload")
    send(gateway, "to another key")
    assert "none of the pins" in eventually(lambda: gateway.events("dest_down"), "the destination is down")[0]["text"]
    assert len(backend.messages) == 3


@pytest.mark.parametrize("level", ["may", "require"])
def test_a_server_that_stumbles_over_a_ticket_gets_a_full_handshake(inside, made, level):
    """Not clear text, nor a wait."""
    gateway, backend = inside(made("theirs", "x.example"), tls=level, messages_per_connection=1)
    sent_one_by_one(gateway, backend, "first")
    usual, stumbled = backend.secure, []

    def stumble(raw):
        if stumbled:
            return usual(raw)
        stumbled.append(raw.recv(1))
        raise OSError("it hangs up")
    backend.secure = stumble
    sent_one_by_one(gateway, backend, "second")
    assert stumbled and [h["resumed"] for h in backend.handshakes] == [False, False]
    assert not [line for line in backend.heard_in_clear if line.startswith("MAIL")] and not gateway.events("dest_down")
