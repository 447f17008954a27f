"""A disk that refuses: mail is refused with the right code, what is queued goes on, and no restart is needed."""
import os
import resource
import subprocess

import pytest

from conftest import BIN, EDGE, INTERNAL, PATIENCE_S, Gateway, Sink, eventually, message, routes

KIB, MIB = 1 << 10, 1 << 20
DATA_AT = MIB  # of a ring file: before it only the superblocks


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(size): a file system of that size."""
    mounted = []

    def make(size):
        path = tmp_path / "disk"
        path.mkdir()
        r = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True)
        if r.returncode:
            pytest.skip(f"needs a file system of its own, and this machine does not let us mount one: {r.stderr.strip()}")
        mounted.append(path)
        return path

    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", path], check=True)


def fill(path):
    """A file that takes what is left of a file system."""
    with open(path, "wb", buffering=0) as f:
        for step in (MIB, 4 * KIB):
            try:
                while True:
                    f.write(bytes(step))
            except OSError:
                pass


def one(gateway, subject, client):
    """The reply that ended it."""
    client.say("RSET")
    return client.send("alice@example.net", "bob@example.com", message(subject))[-1]


def client(gateway):
    s = gateway.smtp(EDGE)
    s.ehlo()
    return s


def send_until_refused(gateway, s):
    taken = 0
    while (reply := one(gateway, f"n{taken}", s)).code == 250:
        taken += 1
        assert taken < 1000
    return taken, reply


@pytest.mark.sanitized
def test_writes_fail_for_a_while(run, tmp_path):
    """The kernel refuses every write behind the superblocks (RLIMIT_FSIZE, as a stand-in for any errno)."""
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, **routes(internal, edge))
    internal.kill()
    s, pid = client(gateway), gateway.process.p.pid
    for i in range(3):
        assert one(gateway, f"before {i}", s).code == 250
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (DATA_AT, resource.RLIM_INFINITY))
    assert one(gateway, "refused", s).startswith("451 4.3.0")
    assert s.say("MAIL FROM:<alice@example.net>").startswith("451 4.3.0")
    assert gateway.metric("postern_queue_ring_error", errno="other") == 1
    assert "File too large" in gateway.status()["workers"][0]["ring"]["error"]

    again = run(Sink, address=INTERNAL, port=internal.port, name="again")
    assert {m.parsed["Subject"] for m in again.wait_for(3)} == {"before 0", "before 1", "before 2"}, "deliveries go on"
    eventually(lambda: gateway.metric("postern_queue_io_errors_total") >= 3, "it tries again")
    assert [e["errno"] for e in gateway.events("queue_error")] == ["27"], "one line, however many tries"

    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    eventually(lambda: one(gateway, "after", s).code == 250, "mail is taken again")
    assert gateway.metric("postern_queue_ring_error") == 0
    assert [e["errno"] for e in gateway.events("queue_error")] == ["27", "0"]
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    gateway.kill()
    gateway.start()
    assert gateway.queued() == 0, "what was delivered meanwhile was recorded at last"
    assert sum(m.parsed["Subject"].startswith("before") for m in again.messages()) == 3


def test_full_file_system(run, small_disk):
    """A ring whose blocks are gone, as a file system that copies on write, or a thin volume, may have it: writing needs space."""
    disk = small_disk(40 * MIB)
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, spool={"directory": str(disk / "spool"), "ring_size": "16MiB"}, **routes(internal, edge))
    internal.kill()
    s = client(gateway)
    assert one(gateway, "first", s).code == 250
    ring = disk / "spool" / "ring-00"
    r = subprocess.run(["fallocate", "--punch-hole", "--offset", str(DATA_AT + 256 * KIB), "--length", str(ring.stat().st_size), ring])
    assert r.returncode == 0
    fill(disk / "filler")
    taken, reply = send_until_refused(gateway, s)
    assert reply.startswith("452 4.3.1")
    assert s.say("MAIL FROM:<alice@example.net>").startswith("452 4.3.1")
    assert gateway.metric("postern_queue_ring_error", errno="ENOSPC") == 1
    assert gateway.metric("postern_queue_refused_full_total") >= 1
    os.unlink(disk / "filler")
    eventually(lambda: one(gateway, "after", s).code == 250, "mail is taken again")
    assert [e["errno"] for e in gateway.events("queue_error")] == ["28", "0"]
    again = run(Sink, address=INTERNAL, port=internal.port, name="again")
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    assert len(again.messages()) == taken + 2
    gateway.stop()
    gateway.start()
    assert not gateway.events("queue_damage")


def test_no_room_for_a_new_ring(run, small_disk, tmp_path):
    disk = small_disk(20 * MIB)
    gateway = Gateway(tmp_path, workers=1, spool={"directory": str(disk / "spool"), "ring_size": "64MiB"})
    gateway.start(wait=False)
    assert gateway.process.p.wait(timeout=PATIENCE_S) == 73
    assert "No space left on device" in gateway.log()
    assert not list((disk / "spool").glob("ring-*")), "half a ring is not left behind"
    gateway.configure(spool={"ring_size": "16MiB"})
    gateway.start()
    gateway.stop()


def test_read_only_spool_at_boot(small_disk, tmp_path):
    disk = small_disk(20 * MIB)
    gateway = Gateway(tmp_path, workers=1, spool={"directory": str(disk / "spool"), "ring_size": "16MiB"})
    gateway.start()
    gateway.stop()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    gateway.start(wait=False)
    assert gateway.process.p.wait(timeout=PATIENCE_S) == 73
    assert "Read-only file system" in gateway.log()
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    gateway.start()
    gateway.stop()
