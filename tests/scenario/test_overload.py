"""Too much of everything: sessions, files, memory, idle clients, floods. Strangers are turned away first, and the edge is served to the end."""
import os
import random
import resource
import socket

import pytest

from backend import Backend
from conftest import BIN, EDGE, INTERNAL, PATIENCE_S, STRANGER, Gateway, Process, Sink, eventually, free_port
from test_strangers import deliver, raw, served


def stages(gateway, cause):
    return [e["stage"] for e in gateway.events("overload") if e["cause"] == cause]


PATIENT = {"overload": "10m"}  # for clients of the test's own that wait

# --- sessions ---

def test_overload_turns_strangers_away_first_and_tells(run):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, workers=1, limits={"sessions": 32, "sessions_per_client": 0}, timeouts=PATIENT))
    held = [gateway.smtp() for _ in range(30)]
    assert raw(gateway).reply().startswith("421 4.3.2")
    assert gateway.metric("postern_overload", cause="sessions", stage="strangers") == 1
    deliver(gateway, EDGE)
    eventually(lambda: gateway.metric("postern_sessions_open") == 30, "who was turned away, and the edge, are gone")
    held += [gateway.smtp(EDGE) for _ in range(2)]
    assert raw(gateway, EDGE).reply().startswith("421 4.3.2")
    eventually(lambda: [e["stage"] for e in gateway.events("overload")] == ["strangers", "all"], "told")
    for c in held:
        c.file.close(), c.sock.close()
    eventually(lambda: gateway.metric("postern_overload", cause="sessions", stage="strangers") == 0, "over")
    eventually(lambda: gateway.events("overload")[-1]["stage"] == "none", "told")
    deliver(gateway, STRANGER)


def answered(c):
    """What has come so far, without waiting."""
    c.sock.setblocking(False)
    try:
        return c.sock.recv(4096)
    except BlockingIOError:
        return None


@pytest.mark.sanitized
def test_who_does_nothing_gives_way_in_overload(run):
    """Idle strangers had the usual five minutes; those that came first have less as soon as others are turned away for want of their places."""
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, workers=1, limits={"sessions": 32, "sessions_per_client": 0}, timeouts={"overload": "2s"}))
    edge = gateway.smtp(EDGE)
    held = [gateway.smtp() for _ in range(24)]
    writes = gateway.smtp()
    writes.ehlo(), writes.say("MAIL FROM:<a@example.net>"), writes.say("RCPT TO:<bob@example.com>")
    assert writes.say("DATA").code == 354
    held += [writes] + [gateway.smtp() for _ in range(4)]
    assert raw(gateway).reply().startswith("421 4.3.2")
    assert {c.reply()[:9] for c in held} == {"421 4.4.2"}
    for c in held:
        c.close()
    eventually(lambda: gateway.metric("postern_overload", cause="sessions", stage="strangers") == 0, "over")
    assert gateway.metric("postern_overload_cut_total") >= 1
    deliver(gateway, STRANGER)
    assert edge.say("NOOP").code == 250, "the edge may idle"
    idle = gateway.smtp()
    assert idle.say("NOOP").code == 250 and answered(idle) is None, "and all have the usual time again"


# --- files ---

def test_out_of_files(run, tmp_path):
    """Strangers leave some for the rest: the edge, which leaves some for connections to next hops and the metrics."""
    sink = run(Sink)
    gateway = Gateway(tmp_path, **served(sink, workers=1, limits={"sessions_per_client": 0}, timeouts=PATIENT))
    gateway.process = Process(BIN / "posternd", "-c", gateway.config_path, log=gateway.log_path,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)))
    try:
        eventually(lambda: gateway.events("ready"), "the gateway is ready")
        held = [raw(gateway) for _ in range(150)]
        said = [c.reply() for c in held]
        assert {220, 421} == {r.code for r in said}
        assert all(r.startswith("421 4.3.2") for r in said if r.code == 421)
        assert gateway.metric("postern_overload", cause="files", stage="strangers") == 1
        deliver(gateway, EDGE)
        eventually(lambda: gateway.queued() == 0, "and what it sends is delivered")
        ends = [raw(gateway, EDGE) for _ in range(50)]
        assert {220, 421} == {c.reply().code for c in ends}, "the edge's are bounded as well"
        assert gateway.metric("postern_overload", cause="files", stage="all") == 1
        for c in held + ends:
            c.close()
        eventually(lambda: stages(gateway, "files")[-1] == "none", "over")
        assert stages(gateway, "files")[:2] == ["strangers", "all"]
        deliver(gateway, STRANGER)
        assert gateway.stop() == 0
    finally:
        gateway.kill()


# --- memory ---

class Knows:
    """A gateway that verifies, one recipient of which it knows; nobody@ can only be asked for."""

    def __init__(self, run, **settings):
        port = free_port(INTERNAL)
        self.backend = run(lambda directory: Backend(INTERNAL, port, ["bob@example.com", "eve@example.com"]))
        self.gateway = run(Gateway, workers=1, edge_networks=[EDGE], verdicts={"entries": 1000}, verify={"mode": "unverified", "canary": 0},
                           domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": port}}], **settings)
        assert self.transaction("bob@example.com").code == 250

    def transaction(self, rcpt, source=EDGE):
        c = self.gateway.smtp(source)
        c.ehlo(), c.say("MAIL FROM:<a@example.net>")
        return c.say(f"RCPT TO:<{rcpt}>")

    def memory_full(self, percent):
        """Makes the limit such that what is used now is so much of it."""
        used = self.gateway.metric("postern_memory_bytes", state="used")
        self.gateway.configure(limits={"memory": int(used * 100 / percent)})
        self.gateway.cli("reload")


def known_only(c):
    c.say("RSET"), c.say("MAIL FROM:<a@example.net>")
    return c.say("RCPT TO:<bob@example.com>").code, c.say("RCPT TO:<eve@example.com>")


def test_stages_of_memory(run):
    scene = Knows(run, timeouts=PATIENT)
    gateway = scene.gateway
    if not gateway.metric("postern_memory_bytes", state="used"):
        pytest.skip("this allocator does not tell")
    stranger, edge = gateway.smtp(), gateway.smtp(EDGE)
    stranger.ehlo(), edge.ehlo()

    scene.memory_full(85)
    eventually(lambda: stages(gateway, "memory") == ["strangers"], "the first stage")
    assert raw(gateway).reply().startswith("421 4.3.2")
    stranger.say("MAIL FROM:<a@example.net>")
    assert stranger.say("RCPT TO:<x1@example.com>").code == 550, "who is in is asked for as ever"

    scene.memory_full(95)
    eventually(lambda: stages(gateway, "memory")[-1] == "unknown", "the second stage")
    known, unknown = known_only(stranger)
    assert known == 250 and unknown.startswith("452 4.3.1"), unknown
    assert scene.transaction("x2@example.com").code == 550, "the edge's are asked for"
    assert raw(gateway).reply().startswith("421 4.3.2")

    stranger.say("RSET"), stranger.say("MAIL FROM:<a@example.net>")
    scene.memory_full(110)
    eventually(lambda: stages(gateway, "memory")[-1] == "all", "the last stage")
    assert raw(gateway, EDGE).reply().startswith("421 4.3.2")
    assert stranger.say("RCPT TO:<bob@example.com>").startswith("452 4.3.1"), "a list of recipients grows no further"
    stranger.say("RSET")
    assert stranger.say("MAIL FROM:<a@example.net>").startswith("452 4.3.1")
    assert edge.send("a@example.net", ["bob@example.com", "eve@example.com"], "Subject: x\r\n\r\nhello\r\n")[-1].code == 250, "the edge is served"
    for stage in ("strangers", "unknown", "all"):
        assert gateway.metric("postern_overload", cause="memory", stage=stage) == 1

    gateway.configure(limits={"memory": 0})
    gateway.cli("reload")
    eventually(lambda: stages(gateway, "memory")[-1] == "none", "over")
    assert gateway.metric("postern_overload", cause="memory") == 0
    assert scene.transaction("bob@example.com", STRANGER).code == 250


def test_a_limit_that_nobody_watches_is_told(run):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, limits={"memory": 1 << 40}))
    told = [e for e in gateway.events("boot_note") if "limits.memory" in e["text"]]
    assert bool(told) == (not gateway.metric("postern_memory_bytes", state="used"))


def test_no_memory_at_all(run):
    """The system gives none, whatever the configuration says: somebody is turned away, and nothing ends."""
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, workers=1, limits={"sessions_per_client": 0}))
    pid = gateway.process.p.pid
    size = next(int(line.split()[1]) << 10 for line in open(f"/proc/{pid}/status") if line.startswith("VmSize"))
    edge = gateway.smtp(EDGE)
    edge.ehlo()
    resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    held = flood(gateway, 3000, lambda s, i: s.send(b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<bob@example.com>\r\n"))
    assert gateway.process.running(), gateway.log()[-2000:]
    assert edge.say("NOOP").code == 250
    resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for s in held:
        s.close()
    deliver(gateway, EDGE)
    deliver(gateway, STRANGER)
    assert gateway.stop() == 0


# --- floods ---

def flood(gateway, count, act):
    """Sockets of strangers that `act` is done to; those that the gateway refuses are part of it."""
    sockets = []
    for i in range(count):
        try:
            s = socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_S, source_address=(f"127.1.{i // 200 % 250}.{i % 200 + 1}", 0))
            s.setblocking(False)
            act(s, i)
            sockets.append(s)
        except OSError:
            continue
    return sockets


def garbage(s, i):
    s.send(random.Random(i).randbytes(20000))


FLOODS = {
    "slowloris": lambda s, i: s.send(b"EHLO slow\r\nMAIL FROM:<a@exam"),
    "garbage": garbage,
    "idle": lambda s, i: None,
    "no readers": lambda s, i: s.send(b"HELP\r\n" * 3000),
    "come and go": lambda s, i: s.close(),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_the_edge_is_served_under(run, kind):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, limits={"sessions": 800}))
    sockets = flood(gateway, 1500, FLOODS[kind])
    for _ in range(3):
        deliver(gateway, EDGE)
        deliver(gateway, INTERNAL)
    eventually(lambda: gateway.queued() == 0, "all is delivered")
    for s in sockets:
        s.close()
    assert gateway.process.running()
    eventually(lambda: gateway.metric("postern_overload", cause="sessions", stage="strangers") == 0, "over")
    deliver(gateway, STRANGER)
    assert gateway.stop() == 0


def raise_file_limit(count):
    """As many as it takes, or as the machine gives."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    except (ValueError, PermissionError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_fifty_thousand_idle_sessions(run):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        count = min(50000, raise_file_limit(52000) - 2000)
        if count < 10000:
            pytest.skip("too few files may be open here")
        sink = run(Sink)
        gateway = run(Gateway, **served(sink, limits={"sessions": 60000}))
        before = rss_kib(gateway)
        sockets = flood(gateway, count, lambda s, i: None)
        assert len(sockets) == count
        eventually(lambda: gateway.metric("postern_sessions_open") == count, "all are greeted")
        each = (rss_kib(gateway) - before) * 1024 / count
        why = "" if count == 50000 else f" (no more than {soft} to {hard} files may be open here)"
        print(f"{count} sessions{why}, {each:.0f} bytes each")
        assert each < 8192
        deliver(gateway, EDGE)
        for s in sockets:
            s.close()
        eventually(lambda: gateway.metric("postern_sessions_open") == 0, "all are gone")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))


def rss_kib(gateway):
    for line in open(f"/proc/{gateway.process.p.pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])
