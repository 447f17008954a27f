"""A disk that refuses: mail is refused with the right code, what is queued goes on, and no restart is needed."""
import json
import os
import resource
import subprocess

import pytest

from conftest import BIN, EDGE, INTERNAL, PATIENCE_S, Gateway, Sink, eventually, message, routes, source

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


@pytest.fixture
def ext4(tmp_path):
    """ext4(image): a real file system on a loop device: its mount point and device. Images are sparse; the first lies in memory."""
    mounted = []

    def mount(*command):
        r = subprocess.run(["mount", *command], capture_output=True, text=True)
        if r.returncode:
            pytest.skip(f"needs a file system on a loop device, and this machine does not let us mount one: {r.stderr.strip()}")
        mounted.append(command[-1])

    def make(image=None, size=40 * MIB):
        if not image:
            (tmp_path / "memory").mkdir()
            mount("-t", "tmpfs", "-o", f"size={80 * MIB}", "tmpfs", tmp_path / "memory")
            image = tmp_path / "memory" / "image"
        with open(image, "wb") as f:
            f.truncate(size)
        # Without a journal the file system does not end with the first write that fails.
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0", image], check=True)
        disk = tmp_path / f"disk{len(mounted)}"
        disk.mkdir()
        mount("-o", "loop,errors=remount-ro", image, disk)
        device = subprocess.run(["findmnt", "-no", "SOURCE", disk], check=True, capture_output=True, text=True).stdout.strip()
        return disk, os.path.basename(device)

    yield make
    for path in reversed(mounted):
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
    gateway.stop()  # a kill may forget the last progress_flush_ms
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


def test_disk_that_fails_for_a_while(run, ext4):
    """EIO from a real kernel: a disk (loop device) whose every write fails, as its image is immutable for a while."""
    image = ext4(size=60 * MIB)[0] / "image"
    disk, _ = ext4(image)
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, spool={"directory": str(disk / "spool"), "ring_size": "16MiB"}, **routes(internal, edge))
    internal.kill()
    s = client(gateway)
    for i in range(3):
        assert one(gateway, f"before {i}", s).code == 250
    subprocess.run(["sync", "-f", disk], check=True)  # of the file system's own there is nothing to write
    subprocess.run(["chattr", "+i", image], check=True)
    reply = one(gateway, "refused", s)
    if reply.code == 250:
        subprocess.run(["chattr", "-i", image], check=True)
        pytest.skip("this kernel's loop device writes to an immutable image")
    assert reply.startswith("451 4.3.0")
    assert s.say("MAIL FROM:<alice@example.net>").startswith("451 4.3.0")
    assert gateway.metric("postern_queue_ring_error", errno="EIO") == 1
    assert gateway.status()["workers"][0]["ring"]["error"] == "Input/output error"
    again = run(Sink, address=INTERNAL, port=internal.port, name="again")
    assert {m.parsed["Subject"] for m in again.wait_for(3)} == {"before 0", "before 1", "before 2"}, "deliveries go on"

    subprocess.run(["chattr", "-i", image], check=True)
    eventually(lambda: one(gateway, "after", s).code == 250, "mail is taken again")
    assert gateway.metric("postern_queue_ring_error") == 0
    assert [e["errno"] for e in gateway.events("queue_error")] == ["5", "0"]
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    gateway.stop()
    gateway.start()
    assert gateway.queued() == 0 and not gateway.events("queue_damage")
    gateway.stop()


def test_file_system_that_turns_read_only(run, ext4):
    """EROFS from a real kernel: ext4 found itself damaged (errors=remount-ro), as the kernel lets us pretend. It is writable again only when it
    was unmounted, so this ends with a restart; that none is needed when writes work again is shown above. `mount -o remount,ro` is
    refused by every file system while a ring is open for writing."""
    disk, device = ext4()
    trigger = f"/sys/fs/ext4/{device}/trigger_fs_error"
    if not os.path.exists(trigger):
        pytest.skip(f"this kernel has no {trigger}")
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, spool={"directory": str(disk / "spool"), "ring_size": "16MiB"}, **routes(internal, edge))
    internal.kill()
    s = client(gateway)
    for i in range(3):
        assert one(gateway, f"before {i}", s).code == 250
    with open(trigger, "w") as f:
        f.write("1")
    reply = one(gateway, "refused", s)
    if reply.code == 250:
        pytest.skip("this kernel's ext4 still takes writes to files that are open")
    assert reply.startswith("451 4.3.0")
    assert s.say("MAIL FROM:<alice@example.net>").startswith("451 4.3.0")
    assert gateway.metric("postern_queue_ring_error", errno="EROFS") == 1
    assert gateway.status()["workers"][0]["ring"]["error"] == "Read-only file system"
    assert [e["errno"] for e in gateway.events("queue_error")] == ["30"]
    gateway.stop()  # what it could not write is no reason to hang

    subprocess.run(["umount", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk.parent / "memory" / "image", disk], check=True)
    again = run(Sink, address=INTERNAL, port=internal.port, name="again")
    gateway.start()
    assert {m.parsed["Subject"] for m in again.wait_for(3)} == {"before 0", "before 1", "before 2"}
    assert one(gateway, "after", client(gateway)).code == 250
    gateway.stop()


@pytest.mark.sanitized
def test_scrub_finds_rot(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, retry={"first": "1h", "max": "1h"}, **routes(internal, edge))
    internal.kill()
    s = client(gateway)
    for subject in ("good", "rotten"):
        assert one(gateway, subject, s).code == 250
    r = gateway.cli("queue", "scrub")
    assert r.stdout.startswith("ring-00: 2 messages, ") and r.stdout.endswith("all good\n")
    ring = gateway.directory / "spool" / "ring-00"
    at = ring.read_bytes().index(b"Subject: rotten")
    with open(ring, "r+b") as f:
        f.seek(at)
        f.write(b"R")
    for _ in range(2):
        r = gateway.cli("queue", "scrub", check=False)
        assert r.returncode == 1 and "1 damaged, 0 unreadable" in r.stdout
        assert len(gateway.events("queue_damage")) == 1, "told once"
    damaged = gateway.events("queue_damage")[0]
    listed = json.loads(gateway.cli("--json", "queue", "list").stdout)
    listed = listed if isinstance(listed, list) else listed["messages"]
    assert [m["id"] for m in listed if m["damaged"]] == [damaged["id"]]
    assert gateway.metric("postern_queue_damaged_records_total") == 1
    kept = eventually(lambda: list((gateway.directory / "spool" / "corrupt").glob("*.bin")), "the bytes are kept")
    assert len(kept) == 1
    eventually(lambda: b"Rubject: rotten" in kept[0].read_bytes(), "the body is there")
    assert gateway.events("queue_scrub")[0]["damaged"] == "0"


def ring_sizes(gateway):
    return [w["ring"]["bytes"] // MIB for w in gateway.status()["workers"]]


@pytest.mark.sanitized
def test_resize_while_mail_flows(run, tmp_path):
    internal, edge = run(Sink, address=INTERNAL, name="internal", keep=False), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, spool={"ring_size": "16MiB"}, **routes(internal, edge))
    acknowledged = tmp_path / "acknowledged.ids"
    load = source(gateway.port, "-m", 4000, "-s", 4, "-l", 3000, "-i", acknowledged, wait=False, log=tmp_path / "source.log")
    for size in ("48MiB", "20MiB"):
        r = gateway.cli("queue", "resize", size)
        assert r.stdout == "".join(f"ring-0{i}: {size.replace('MiB', '')} MiB\n" for i in (0, 1))
        assert ring_sizes(gateway) == [int(size[:2])] * 2
    assert gateway.metric("postern_queue_resizes_total", result="ok") == 4
    eventually(lambda: gateway.metric("postern_queue_resizing") == 0 and gateway.metric("postern_queue_resize_bytes") == 0, "the gauges say so")
    assert load.p.wait(timeout=300) == 0, load.log()
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    assert not set(acknowledged.read_text().split()) - set(internal.ids())
    spool = gateway.directory / "spool"
    eventually(lambda: all((spool / f"ring-0{i}").stat().st_size == 21 * MIB for i in (0, 1)), "the end is given back")

    gateway.kill()
    gateway.start()
    assert "`postern queue resize` gives it that size" in gateway.log()
    assert gateway.cli("queue", "resize").stdout == "ring-00: 16 MiB\nring-01: 16 MiB\n"
    gateway.configure(spool={"ring_size": "18MiB"})
    assert "`postern queue resize` gives the rings this size" in gateway.cli("reload").stderr
    assert gateway.cli("queue", "resize").stdout == "ring-00: 18 MiB\nring-01: 18 MiB\n"
    assert not gateway.events("queue_damage")


def test_resize_refusals(run, small_disk):
    disk = small_disk(60 * MIB)
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, spool={"directory": str(disk / "spool"), "ring_size": "32MiB"}, **routes(internal, edge))
    internal.kill()
    s = client(gateway)
    for i in range(14):
        assert one(gateway, f"n{i}", s).code == 250
        s.say("RSET")
        assert s.send("alice@example.net", "bob@example.com", "x\r\n" * (MIB // 3))[-1].code == 250

    def refused(size, text, status=1):
        r = gateway.cli("queue", "resize", size, check=False)
        assert r.returncode == status and text in r.stderr + r.stdout, (r.returncode, r.stdout, r.stderr)

    refused("lots", "is no size", status=2)
    refused("1GiB", "the file system of")
    refused("4MiB", "at least 8")
    refused("16MiB", "what is queued needs more room")
    assert ring_sizes(gateway) == [32]

    ring = disk / "spool" / "ring-00"
    resource.prlimit(gateway.process.p.pid, resource.RLIMIT_FSIZE, (34 * MIB, resource.RLIM_INFINITY))  # as a disk that fills up in the middle
    refused("40MiB", "not resized: File too large")
    assert gateway.metric("postern_queue_resizes_total", result="failed") == 1
    assert ring_sizes(gateway) == [32] and ring.stat().st_size == 33 * MIB, "what was begun is given back"
    assert one(gateway, "still there", s).code == 250


@pytest.mark.sanitized
def test_salvage(run, tmp_path):
    """From corrupt/ while posternd runs; then from a ring whose superblocks are lost."""
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, retry={"first": "1h", "max": "1h"}, **routes(internal, edge))
    s = client(gateway)
    assert one(gateway, "delivered", s).code == 250
    internal.wait_for(1)
    eventually(lambda: gateway.queued() == 0, "it has left")
    internal.kill()
    body = "first\r\n.a line with a dot\r\n" + "x" * 70 + "\r\n"
    for subject in ("good", "rotten"):
        s.say("RSET")
        assert s.send("alice@example.net", ["bob@example.com", "carol@example.com"], message(subject, body))[-1].code == 250
    spool = gateway.directory / "spool"
    ring = spool / "ring-00"
    with open(ring, "r+b") as f:
        f.seek(ring.read_bytes().index(b"Subject: rotten"))
        f.write(b"R")
    gateway.cli("queue", "scrub", check=False)
    eventually(lambda: list((spool / "corrupt").glob("*.bin")), "the bytes are kept")

    r = gateway.cli("queue", "salvage", "--to", str(tmp_path / "kept"), str(spool))
    assert "not what was received  from <alice@example.net> to <bob@example.com> and 1 more" in r.stdout
    assert r.stdout.endswith(f"1 messages, 1 written to {tmp_path / 'kept'}\n")
    eml = next((tmp_path / "kept").glob("*.eml")).read_bytes()
    assert eml.startswith(b"X-Postern-Id: ") and b"X-Postern-Recipient: <carol@example.com>; pending\r\n" in eml
    assert b"Rubject: rotten\r\n" in eml and eml.endswith(body.encode())

    gateway.stop()
    with open(ring, "r+b") as f:
        f.write(bytes(8192))
    listed = json.loads(gateway.cli("--json", "queue", "salvage", str(ring)).stdout)
    assert sorted(m["condition"].split()[0] for m in listed) == ["pieces", "whole"]
    r = gateway.cli("queue", "salvage", "--to", str(tmp_path / "ring"), str(ring))
    assert r.stdout.endswith(f"2 messages, 2 written to {tmp_path / 'ring'}; 1 others have been delivered or removed\n")
    texts = [p.read_bytes() for p in (tmp_path / "ring").glob("*.eml")]
    assert sum(b"Received: " in t and b"\r\nSubject: good\r\n" in t and t.endswith(body.encode()) for t in texts) == 1
    r = gateway.cli("queue", "salvage", "--to", str(tmp_path / "ring"), str(ring), check=False)
    assert r.returncode == 1 and "File exists" in r.stderr, "nothing is written over"
    assert gateway.cli("queue", "salvage", str(tmp_path / "nowhere"), check=False).returncode == 66


@pytest.mark.sanitized
def test_salvaged_mail_is_imported(run, tmp_path):
    """A ring that cannot be opened any more: what was in it comes into a new one, and is delivered."""
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, retry={"first": "1h", "max": "1h"}, **routes(internal, edge))
    internal.kill()
    s = client(gateway)
    body = "first\r\n.a line with a dot\r\n" + "x" * 70 + "\r\n"
    for subject in ("good", "rotten", "parked", "last"):
        s.say("RSET")
        assert s.send("alice@example.net", ["bob@example.com", "carol@example.com"], message(subject, body))[-1].code == 250
    parked = sorted(m["id"] for m in json.loads(gateway.cli("--json", "queue", "list").stdout)["messages"])[2]
    gateway.cli("queue", "hold", parked)
    gateway.stop()
    spool = gateway.directory / "spool"
    lost = tmp_path / "lost-ring"
    (spool / "ring-00").rename(lost)
    with open(lost, "r+b") as f:
        raw = lost.read_bytes()
        f.write(bytes(8192))
        # Damage that would end the message, and have the rest taken for commands, if it were sent as it is.
        f.seek(raw.index(b"first\r\n", raw.index(b"Subject: rotten")))
        f.write(b"\r\n.\r\nRS")
    listed = json.loads(gateway.cli("--json", "queue", "salvage", str(lost)).stdout)
    assert len(listed) == 4
    r = gateway.cli("queue", "salvage", "-o", str(tmp_path / "mail.export"), str(lost))
    assert r.stdout.endswith(f"4 messages, 4 exported to {tmp_path / 'mail.export'}\n")
    r = gateway.cli("queue", "salvage", "-o", str(tmp_path / "mail.export"), str(lost), check=False)
    assert r.returncode == 73 and "File exists" in r.stderr, "nothing is written over"

    again = run(Sink, address=INTERNAL, port=internal.port, name="again")
    gateway.start()
    assert gateway.cli("queue", "import", str(tmp_path / "mail.export")).stdout == "4 messages imported.\n"
    came = {m.parsed["Subject"]: m for m in again.wait_for(2)}
    assert sorted(came) == ["good", "last"] and all(m.recipients == ["bob@example.com", "carol@example.com"] for m in came.values())
    assert came["good"].raw.endswith(body.encode())
    held = {m["id"] for m in json.loads(gateway.cli("--json", "queue", "list", "--state", "held").stdout)["messages"]}
    assert len(held) == 2 and parked in held, "what an administrator held, and what is damaged"
    gateway.cli("queue", "release", *held)
    came = {m.parsed["Subject"]: m for m in again.wait_for(4)}
    assert came["rotten"].raw.endswith(("\r\n\r\n\r\nRS..a line with a dot\r\n" + "x" * 70 + "\r\n").encode())
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
