"""Operators steer every message: list, show, hold, release, retry, remove, stats."""
import json
import subprocess

import pytest

from conftest import BIN, INTERNAL, PATIENCE_S, Gateway, Sink, eventually, free_port, message

pytestmark = pytest.mark.sanitized


@pytest.fixture
def stuck(run):
    """A gateway whose internal server does not answer: what comes in waits."""
    port = free_port(INTERNAL)
    gateway = run(Gateway, retry={"first": "300s", "max": "600s"},
                  domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": port}},
                           {"name": "other.example", "local": True, "route": {"hosts": [INTERNAL], "port": free_port(INTERNAL)}}])
    gateway.internal_port = port
    return gateway


def put(gateway, recipients="bob@example.com", sender="alice@example.net", subject="queued"):
    """Queue id of a message that is on disk."""
    s = gateway.smtp()
    s.ehlo()
    reply = s.send(sender, recipients, message(subject))[-1]
    assert reply.code == 250, reply
    s.say("QUIT")
    s.close()
    return reply.rsplit(" ", 1)[1]


def listed(gateway, *options):
    return json.loads(gateway.cli("--json", "queue", "list", *options, check=False).stdout)["messages"]


def ids(gateway, *options):
    return [m["id"] for m in listed(gateway, *options)]


def waits(gateway, *wanted):
    """All of them were tried and wait now."""
    return eventually(lambda: {m["id"] for m in listed(gateway, "--state", "deferred", "--limit", "10000")} >= set(wanted), "they are deferred")


def test_list_says_why_it_waits_and_until_when(stuck):
    one = put(stuck)
    waits(stuck, one)
    m = listed(stuck)[0]
    assert m["id"] == one and m["sender"] == "alice@example.net" and m["to"] == ["bob@example.com"]
    assert "refused" in m["reason"].lower() and m["due"] and m["destination"] == f"{INTERNAL}:{stuck.internal_port}"
    text = stuck.cli("queue", "list").stdout
    assert one in text and "alice@example.net" in text and "bob@example.com" in text and "in " in text
    shown = json.loads(stuck.cli("--json", "queue", "show", one).stdout)
    assert shown["recipients"] == [{"address": "bob@example.com", "state": "pending", "destination": m["destination"]}]
    assert shown["client"] == "127.0.0.1" and shown["helo"] == "client.example.net"
    assert "bob@example.com" in stuck.cli("queue", "show", one).stdout
    headers = stuck.cli("queue", "headers", one).stdout
    assert headers.startswith("Received: from client.example.net") and "Subject: queued\n" in headers and "hello" not in headers
    stats = json.loads(stuck.cli("--json", "queue", "stats").stdout)
    assert stats["states"]["deferred"]["messages"] == 1 and stats["destinations"][m["destination"]]["recipients"] == 1
    assert m["destination"] in stuck.cli("queue", "stats").stdout
    assert m["destination"] in stuck.cli("queue", "destinations").stdout
    stuck.kill()
    stuck.start()
    assert listed(stuck)[0]["reason"], "after a restart too"


def test_filters(stuck):
    a = put(stuck, ["bob@example.com", "eve@other.example"], "alice@example.net")
    b = put(stuck, "Bob@example.com", "carol@Example.Net")
    c = put(stuck, "dave@other.example", "")
    waits(stuck, a, b, c)
    other = next(m["destination"] for m in listed(stuck) if m["id"] == c)
    cases = [
        (["--sender", "alice@example.net"], {a}), (["--sender", "*@example.net"], {a, b}), (["--sender", "<>"], {c}),
        (["--recipient", "bob@example.com"], {a, b}), (["--domain", "other.example"], {a, c}), (["--domain", "*.com"], {a, b}),
        (["--recipient", "bob@*", "--domain", "other.example"], set()), (["--destination", other], {a, c}),
        (["--sender", "*@example.net", "--domain", "other.example"], {a}),
        (["--older", "1h"], set()), (["--younger", "1h"], {a, b, c}), (["--state", "held"], set()), (["--state", "deferred,held"], {a, b, c}),
        ([a, c], {a, c}), ([a.lower(), "--sender", "<>"], set()),
    ]
    for options, expected in cases:
        r = stuck.cli("--json", "queue", "list", *options, check=False)
        assert {m["id"] for m in json.loads(r.stdout)["messages"]} == expected, options
        assert r.returncode == (0 if expected else 1), options
    r = json.loads(stuck.cli("--json", "queue", "list", "--limit", "2").stdout)
    assert len(r["messages"]) == 2 and {m["id"] for m in r["messages"]} < {a, b, c} and r["cut"] is True
    assert "newest 2" in stuck.cli("queue", "list", "--limit", "2").stdout


def test_hold_survives_a_crash_and_release_goes_on(stuck):
    one, two = put(stuck), put(stuck)
    waits(stuck, one, two)
    r = stuck.cli("queue", "hold", one, "--why", "looks odd")
    assert "1 message held" in r.stdout
    stuck.kill()  # no time for anything that was not on the disk
    sink = Sink(stuck.directory, address=INTERNAL, port=stuck.internal_port, name="back")
    try:
        stuck.start()
        assert [k.recipients for k in sink.wait_for(1)] == [["bob@example.com"]]
        eventually(lambda: ids(stuck) == [one], "only the held one is left")
        m = listed(stuck)[0]
        assert m["state"] == "held" and m["due"] is None and m["reason"] == "held"
        assert stuck.cli("queue", "retry", one, check=False).returncode in (0, 1) and ids(stuck, "--state", "held") == [one]
        stuck.cli("queue", "hold", one, "--why", "still odd")
        assert "still odd" in listed(stuck)[0]["reason"]
        stuck.cli("queue", "release", one)
        sink.wait_for(2)
        eventually(lambda: not ids(stuck), "the queue is empty")
        assert any(e["what"] == "queue hold" and "looks odd" in e["why"] for e in stuck.events("admin"))
    finally:
        sink.kill()


@pytest.mark.parametrize("how", ["id", "destination"])
def test_retry_ends_the_wait(stuck, how):
    one = put(stuck)
    waits(stuck, one)
    due = listed(stuck)[0]
    sink = Sink(stuck.directory, address=INTERNAL, port=stuck.internal_port, name="back")
    try:
        assert ids(stuck) == [one]
        stuck.cli("queue", "retry", "--yes", *([one] if how == "id" else ["--destination", due["destination"]]))
        sink.wait_for(1)
        eventually(lambda: not ids(stuck), "it was delivered")
    finally:
        sink.kill()


def test_remove_is_logged_and_for_ever(stuck):
    one, two = put(stuck, ["bob@example.com", "carol@example.com"]), put(stuck)
    waits(stuck, one, two)
    assert "1 message removed" in stuck.cli("queue", "remove", one, "--why", "ticket 4711").stdout
    stuck.kill()
    stuck.start()
    assert ids(stuck) == [two]
    logged = stuck.events("removed_by")[0]
    assert logged["id"] == one and "ticket 4711" in logged["why"] and "uid:" in logged["who"]
    assert logged["from"] == "alice@example.net" and logged["rcpts"] == "2"
    r = stuck.cli("queue", "remove", one, check=False)
    assert r.returncode == 1 and "No message matches" in r.stderr


def test_remove_with_bounce_tells_the_sender(run):
    internal_port, edge = free_port(INTERNAL), run(Sink, address="127.0.0.3", name="edge")
    gateway = run(Gateway, retry={"first": "300s", "max": "600s"}, destination={"mode": "edge", "host": "127.0.0.3", "port": edge.port},
                  domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": internal_port}}])
    one = put(gateway)
    waits(gateway, one)
    gateway.cli("queue", "remove", "--sender", "alice@*", "--bounce", "--yes", "--why", "no")
    report = edge.wait_for(1)[0]
    assert report.recipients == ["alice@example.net"] and report.sender == ""
    assert b"removed by the administrator" in report.raw and b"bob@example.com" in report.raw
    eventually(lambda: not ids(gateway), "the queue is empty")


def test_bulk_asks_and_exit_statuses(stuck):
    put(stuck)
    assert stuck.cli("queue", "remove", check=False).returncode == 2
    assert stuck.cli("queue", "remove", "--all", "12345", check=False).returncode == 2
    assert stuck.cli("queue", "list", "--why", "x", check=False).returncode == 2
    assert stuck.cli("queue", "show", check=False).returncode == 2
    assert stuck.cli("queue", "headers", "a", "b", check=False).returncode == 2
    assert stuck.cli("queue", "list", "--older", "soon", check=False).returncode == 1
    assert stuck.cli("queue", "show", "0000000000000", check=False).returncode == 1
    r = subprocess.run([str(BIN / "postern"), "-s", str(stuck.socket), "queue", "remove", "--all"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S)
    assert r.returncode == 1 and "Remove 1 message with 1 recipient?" in r.stderr and "--yes" in r.stderr
    assert len(ids(stuck)) == 1
    r = stuck.cli("queue", "hold", "--sender", "nobody@*", "--yes", check=False)
    assert r.returncode == 1 and "No message matches" in r.stderr
    assert json.loads(stuck.cli("--json", "queue", "remove", "--all", "--yes").stdout)["done"] == 1
    assert not ids(stuck)


def test_a_message_in_a_servers_hands_is_removed_when_its_attempt_ends(run, tmp_path):
    import socket
    import threading
    server = socket.create_server((INTERNAL, free_port(INTERNAL)))
    server.settimeout(PATIENCE_S)
    reached, go_on = threading.Event(), threading.Event()

    def serve():
        c, _ = server.accept()
        f = c.makefile("rwb", buffering=0)
        f.write(b"220 slow.example ESMTP\r\n")
        while line := f.readline():
            if line.upper().startswith(b"EHLO"):
                f.write(b"250 slow.example\r\n")
            elif line.upper().startswith(b"RCPT"):
                reached.set()
                go_on.wait(PATIENCE_S)
                f.write(b"451 4.2.1 not now\r\n")
            elif line.upper().startswith(b"QUIT"):
                f.write(b"221 bye\r\n")
                break
            else:
                f.write(b"250 ok\r\n" if not line.upper().startswith(b"DATA") else b"503 no\r\n")
        c.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    gateway = run(Gateway, retry={"first": "300s", "max": "600s"},
                  domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": server.getsockname()[1], "tls": "off"}}])
    one = put(gateway)
    assert reached.wait(PATIENCE_S)
    assert listed(gateway)[0]["state"] == "active"
    r = json.loads(gateway.cli("--json", "queue", "remove", one).stdout)
    assert (r["matched"], r["done"], r["busy"]) == (1, 0, 1)
    go_on.set()
    eventually(lambda: not ids(gateway), "it goes when its attempt is over")
    thread.join(PATIENCE_S)
    server.close()


def test_bulk_changes(stuck):
    wanted = [put(stuck, subject=f"m{i}") for i in range(40)]
    waits(stuck, *wanted)
    assert set(ids(stuck, "--limit", "10000")) == set(wanted)
    r = json.loads(stuck.cli("--json", "queue", "hold", "--all", "--yes").stdout)
    assert r["matched"] == r["done"] == len(wanted)
    assert set(ids(stuck, "--state", "held")) == set(wanted)
    r = json.loads(stuck.cli("--json", "queue", "remove", "--recipient", "bob@*", "--yes").stdout)
    assert r["done"] == len(wanted) and not ids(stuck)
