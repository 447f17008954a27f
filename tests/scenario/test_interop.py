"""Other people's programs on both sides: Postfix's smtp-source and smtp-sink, swaks, unbound."""
import shutil
import subprocess

import pytest

from conftest import EDGE, INTERNAL, PATIENCE_S, Gateway, Process, Sink, accepts, eventually, free_port, message, routes

pytestmark = pytest.mark.sanitized
SMTP_SOURCE, SMTP_SINK, SWAKS, UNBOUND = (shutil.which(p, path="/usr/sbin:/usr/bin:/bin") for p in ("smtp-source", "smtp-sink", "swaks", "unbound"))


@pytest.mark.parametrize("options", [[], ["-d"], ["-N"], ["-r", "5"], ["-l", "100000"]], ids=lambda o: " ".join(o) or "plain")
def test_smtp_source_in(pair, options):
    gateway, internal, _ = pair
    r = subprocess.run([SMTP_SOURCE, "-s", "5", "-m", "50", *options, "-f", "a@example.net", "-t", "bob@example.com", f"inet:127.0.0.1:{gateway.port}"],
                       capture_output=True, text=True, timeout=PATIENCE_S)
    assert r.returncode == 0, r.stderr
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    assert sum(len(m.recipients) for m in internal.messages()) == 50 * (5 if "-r" in options else 1)


@pytest.mark.parametrize("options", [[], ["-p"], ["-e"], ["-8"]], ids=lambda o: " ".join(o) or "plain")
def test_smtp_sink_out(run, tmp_path, options):
    """-p: no PIPELINING, -e: no ESMTP, -8: no 8BITMIME."""
    edge, port = run(Sink, address=EDGE, name="edge"), free_port(INTERNAL)
    dump = tmp_path / "dump"
    dump.mkdir()
    run(lambda d: Process(SMTP_SINK, "-u", "root", "-d", f"{dump}/%M.", *options, f"inet:{INTERNAL}:{port}", "100", log=tmp_path / "smtp-sink.log"))
    eventually(lambda: accepts(INTERNAL, port), "smtp-sink listens")
    gateway = run(Gateway, destination={"mode": "edge", "host": EDGE, "port": edge.port},
                  domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": port}}])
    s = gateway.smtp()
    s.ehlo()
    for i in range(20):
        assert s.send("alice@example.net", ["bob@example.com", "eve@example.com"], message(f"n{i}", f".dot {i}\r\n"))[-1].code == 250
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    dumped = [p.read_text() for p in dump.iterdir()]
    texts = "".join(dumped)
    assert all(f"Subject: n{i}\n" in texts.replace("\r\n", "\n") for i in range(20))


def test_swaks_both_ways(pair):
    gateway, internal, edge = pair
    for local, to in (("127.0.0.1", "bob@example.com"), (INTERNAL, "carol@elsewhere.example")):
        r = subprocess.run([SWAKS, "--server", "127.0.0.1", "--port", str(gateway.port), "--local-interface", local, "--from", "alice@example.net",
                            "--to", to, "--helo", "swaks.example.net", "--body", "from swaks", "--pipeline"], capture_output=True, text=True, timeout=PATIENCE_S)
        assert r.returncode == 0, r.stdout
    assert b"from swaks" in internal.wait_for(1)[0].raw and b"from swaks" in edge.wait_for(1)[0].raw


ZONE = """
server:
    interface: 127.0.0.1@{port}
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: "{directory}/unbound.pid"
    use-syslog: no
    access-control: 127.0.0.0/8 allow
    module-config: "iterator"
    local-zone: "." static
    local-data: "mx.example. MX 10 dead.example."
    local-data: "mx.example. MX 20 alive.example."
    local-data: "dead.example. A 127.0.0.9"
    local-data: "alive.example. A {sink}"
    local-data: "plain.example. A {sink}"
    local-data: "nomail.example. MX 0 ."
    local-data: "loop.example. MX 10 gw.example.com."
    local-data: "gw.example.com. A 127.0.0.1"
remote-control:
    control-enable: no
"""


@pytest.fixture
def resolver(run, tmp_path):
    port = free_port()
    (tmp_path / "unbound.conf").write_text(ZONE.format(port=port, directory=tmp_path, sink="127.0.0.6"))
    run(lambda d: Process(UNBOUND, "-c", tmp_path / "unbound.conf", log=tmp_path / "unbound.log"))
    eventually(lambda: accepts("127.0.0.1", port), "unbound answers (it listens on TCP too)")
    return port


def test_mx_null_mx_plain_address_and_no_such_domain(run, resolver):
    """DNS mode needs port 25 on the next hop, as the internet has it."""
    there = run(Sink, address="127.0.0.6", port=25, name="there")
    back = run(Sink, address=EDGE, name="back")
    gateway = run(Gateway, destination={"mode": "dns"}, dns={"resolver": f"127.0.0.1:{resolver}"},
                  domains=[{"name": "example.net", "local": True, "route": {"hosts": [EDGE], "port": back.port}}])
    s = gateway.smtp(INTERNAL)
    s.ehlo()
    everyone = ["a@mx.example", "b@plain.example", "c@nomail.example", "d@nosuch.example", "e@loop.example"]
    assert s.send("alice@example.net", everyone, message("dns"))[-1].code == 250
    assert sorted(r for k in there.wait_for(2) for r in k.recipients) == ["a@mx.example", "b@plain.example"]
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    status = {}
    for report in back.messages():
        for block in list(report.parsed.iter_parts())[1].get_payload()[1:]:
            status[block["Final-Recipient"].split(";")[1].strip()] = block["Status"]
    assert status["c@nomail.example"] == "5.1.10" and status["d@nosuch.example"] == "5.1.2" and status["e@loop.example"].startswith("5.4.")


def test_edge_by_name_with_and_without_mx(run, resolver):
    there = run(Sink, address="127.0.0.6", name="there")
    for mx in (True, False):
        gateway = run(Gateway, destination={"mode": "edge", "host": "mx.example" if mx else "plain.example", "port": there.port, "mx": mx},
                      edge_networks=["127.0.0.6"], dns={"resolver": f"127.0.0.1:{resolver}"},
                      spool={"directory": str(there.maildir.parent / f"spool-{mx}")})
        s = gateway.smtp(INTERNAL)
        s.ehlo()
        assert s.send("bob@example.com", "x@anywhere.example", message(f"mx {mx}"))[-1].code == 250
        there.wait_for(1 if mx else 2)
        gateway.stop()
