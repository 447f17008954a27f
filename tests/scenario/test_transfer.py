"""Mail moves from one node to another by export and import: all of it, each message once."""
import json
import os
import signal
import subprocess

import pytest

from conftest import BIN, INTERNAL, PATIENCE_S, Gateway, Sink, eventually, free_port, message
from test_queue import ids, listed, put, waits

pytestmark = pytest.mark.sanitized


def node(tmp_path, name, port, **more):
    directory = tmp_path / name
    directory.mkdir()
    return Gateway(directory, retry={"first": "300s", "max": "600s"},
                   domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": port}}], **more).start()


@pytest.fixture
def nodes(tmp_path):
    """Two gateways with a route to a server that is not there yet."""
    port = free_port(INTERNAL)
    started = [node(tmp_path, "old", port), node(tmp_path, "new", port, workers=1)]
    for n in started:
        n.internal_port = port
    yield started
    for n in started:
        n.process.kill()


def deliver(n):
    """The server comes up, and everything in the queue of `n` is tried."""
    sink = Sink(n.directory, address=INTERNAL, port=n.internal_port, name="sink")
    n.cli("queue", "retry", "--destination", f"{INTERNAL}:{n.internal_port}", "--yes", check=False)
    return sink


def test_drain_a_node_without_loss(nodes, tmp_path):
    old, new = nodes
    wanted = {put(old, ["bob@example.com", "carol@example.com"], f"s{i}@example.net", f"m{i}"): f"s{i}@example.net" for i in range(30)}
    waits(old, *wanted)
    held = next(iter(wanted))
    old.cli("queue", "hold", held)
    before = {m["id"]: (m["arrived"], m["attempts"], m["size"], m["sender"]) for m in listed(old, "--limit", "10000")}
    r = old.cli("queue", "export", "-o", tmp_path / "mail.export", "--all")
    assert "30 messages exported" in r.stdout and not ids(old)
    assert oct(os.stat(tmp_path / "mail.export").st_mode & 0o777) == "0o600"
    old.kill()
    old.start()
    assert not ids(old), "gone for good"
    r = new.cli("queue", "import", tmp_path / "mail.export")
    assert "30 messages imported" in r.stdout
    after = {m["id"]: (m["arrived"], m["attempts"], m["size"], m["sender"]) for m in listed(new, "--limit", "10000")}
    assert {k: v[0] for k, v in after.items()} == {k: v[0] for k, v in before.items()}
    assert {k: v[2:] for k, v in after.items()} == {k: v[2:] for k, v in before.items()}
    assert ids(new, "--state", "held") == [held]
    new.kill()
    sink = None
    try:
        new.start()
        sink = deliver(new)
        eventually(lambda: ids(new) == [held], "all but the held one are delivered")
        kept = sink.messages()
        assert sorted(k.sender for k in kept) == sorted(s for i, s in wanted.items() if i != held)
        assert all(k.recipients == ["bob@example.com", "carol@example.com"] for k in kept)
        assert all(k.raw.endswith(b"\r\n\r\nhello\r\n") and k.raw.startswith(b"Received: from client.example.net") for k in kept)
        r = new.cli("queue", "import", tmp_path / "mail.export", check=False)
        assert r.returncode == 1 and "imported already" in r.stderr and ids(new) == [held]
    finally:
        if sink:
            sink.kill()


def test_keep_and_pipe(nodes, tmp_path):
    old, new = nodes
    one = put(old)
    waits(old, one)
    with open(tmp_path / "copy", "wb") as f:
        subprocess.run([str(BIN / "postern"), "-s", str(old.socket), "queue", "export", "--keep", one], stdout=f, check=True, timeout=PATIENCE_S)
    eventually(lambda: ids(old, "--state", "deferred") == [one], "it is left alone no longer")
    with open(tmp_path / "copy", "rb") as f:
        r = subprocess.run([str(BIN / "postern"), "-s", str(new.socket), "--json", "queue", "import", "-"], stdin=f, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert json.loads(r.stdout)["imported"] == 1 and ids(new) == [one]
    with open(tmp_path / "copy", "rb") as f:
        r = subprocess.run([str(BIN / "postern"), "-s", str(new.socket), "--json", "queue", "import", "-"], stdin=f, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert (json.loads(r.stdout)["imported"], json.loads(r.stdout)["there"]) == (0, 1) and ids(new) == [one]


def test_an_exporter_that_dies_releases_what_it_held(nodes, tmp_path):
    old, _ = nodes
    one = put(old)
    waits(old, one)
    import http.client
    import socket

    class Local(http.client.HTTPConnection):
        def connect(self):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(PATIENCE_S)
            self.sock.connect(str(old.socket))

    c = Local("localhost")
    c.request("POST", "/api/v1/queue/lease?all=1", body="")
    assert json.loads(c.getresponse().read())["ids"] == [one]
    assert listed(old)[0]["state"] == "leased" and listed(old)[0]["reason"] == "being exported"
    assert json.loads(old.cli("--json", "queue", "remove", one, check=False).stdout)["done"] == 0
    c.close()
    eventually(lambda: listed(old)[0]["state"] == "deferred", "the lease ends with its connection")
    assert json.loads(old.cli("--json", "queue", "remove", one).stdout)["done"] == 1


def test_damage_costs_one_message(nodes, tmp_path):
    old, new = nodes
    wanted = [put(old, subject=f"damage {i}") for i in range(6)]
    waits(old, *wanted)
    path = tmp_path / "mail.export"
    old.cli("queue", "export", "-o", path, "--all")
    raw = path.read_bytes()
    at, cut = sorted((raw.index(b"damage 4"), raw.index(b"damage 2")))  # what arrived in the same millisecond has no order
    at += 3
    path.write_bytes(raw[:at] + b"X" + raw[at + 1:cut] + raw[cut + 5:])  # one byte is wrong, and five are missing elsewhere
    r = new.cli("queue", "import", path, check=False)
    assert r.returncode == 1 and "2 are damaged" in r.stdout and "checksum" in r.stderr, r.stdout + r.stderr
    assert len(ids(new)) == 4
    assert new.cli("queue", "import", BIN / "postern", check=False).returncode == 1
    assert new.cli("queue", "import", tmp_path / "absent", check=False).returncode == 66


def test_an_interrupted_import_run_again_takes_each_once(nodes, tmp_path):
    old, new = nodes
    wanted = [put(old, subject=f"again {i}") for i in range(20)]
    waits(old, *wanted)
    path = tmp_path / "mail.export"
    old.cli("queue", "export", "-o", path, "--all")
    p = subprocess.Popen([str(BIN / "postern"), "-s", str(new.socket), "queue", "import", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: len(ids(new)) >= 3 or p.poll() is not None, "some are in")
    p.send_signal(signal.SIGKILL)
    p.wait()
    new.kill()
    new.start()
    new.cli("queue", "import", path, check=False)
    sink = deliver(new)
    try:
        eventually(lambda: not ids(new), "all are delivered")
        assert sorted(str(k.parsed["Subject"]) for k in sink.messages()) == sorted(f"again {i}" for i in range(20))
    finally:
        sink.kill()


def test_what_an_interrupted_export_did_not_seal_is_not_taken(nodes, tmp_path):
    old, new = nodes
    wanted = [put(old, subject=f"seal {i}") for i in range(3)]
    waits(old, *wanted)
    path = tmp_path / "mail.export"
    old.cli("queue", "export", "--keep", "-o", path, "--all")
    raw = path.read_bytes()
    path.write_bytes(raw[:raw.index(b" sealed ") - 33])  # as if it had died before the seal, and before it removed anything
    r = new.cli("queue", "import", path, check=False)
    assert r.returncode == 1 and "interrupted" in r.stdout and not ids(new)
