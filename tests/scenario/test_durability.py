"""250 means kept: kill -9 under load, restarts, other numbers of workers, full rings, a second instance."""
import os
import random
import signal
import subprocess
from collections import Counter

import pytest

from conftest import BIN, EDGE, INTERNAL, PATIENCE_S, Gateway, Sink, eventually, message, routes, source


def test_kill_9_under_load_twenty_times(run, tmp_path):
    """Every message that got 250 arrives (a few perhaps twice, never zero times)."""
    internal, edge = run(Sink, address=INTERNAL, name="internal", keep=False), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    acknowledged = tmp_path / "acknowledged.ids"
    load = source(gateway.port, "-m", 40000, "-s", 20, "-p", 10, "-i", acknowledged, "--retry-for", PATIENCE_S, "-t", "user%@example.com",
                  wait=False, log=tmp_path / "source.log")
    chance = random.Random(1)

    def acknowledged_count():
        return acknowledged.read_bytes().count(b"\n") if acknowledged.exists() else 0

    for _ in range(20):
        target = acknowledged_count() + chance.randrange(1, 600)
        eventually(lambda: acknowledged_count() >= target or not load.running(), "the load goes on")
        gateway.kill()
        gateway.start()
    assert load.p.wait(timeout=300) == 0, load.log()
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    sent, got = set(acknowledged.read_text().split()), Counter(internal.ids())
    assert len(sent) == 40000
    assert not sent - set(got), f"{len(sent - set(got))} messages got 250 and are lost"
    twice = sum(n - 1 for n in got.values())
    assert twice < 0.1 * len(sent), f"{twice} duplicates are more than a crash window explains"


def test_restart_keeps_what_is_queued(run, tmp_path):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    internal.kill()
    acknowledged = tmp_path / "ids"
    assert source(gateway.port, "-m", 300, "-s", 10, "-l", 3000, "-i", acknowledged).returncode == 0
    assert gateway.stop() == 0
    assert gateway.events("stopped")
    gateway.start()
    assert gateway.queued() == 300
    again = run(Sink, address=INTERNAL, port=internal.port, name="again")
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    assert sorted(again.ids()) == sorted(acknowledged.read_text().split())


@pytest.mark.parametrize("before,after", [(3, 1), (1, 3)])
def test_another_number_of_workers(run, tmp_path, before, after):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=before, **routes(internal, edge))
    internal.kill()
    acknowledged = tmp_path / "ids"
    assert source(gateway.port, "-m", 200, "-s", 20, "-i", acknowledged).returncode == 0
    gateway.kill()
    gateway.configure(workers=after)
    gateway.start()
    assert gateway.queued() == 200
    again = run(Sink, address=INTERNAL, port=internal.port, name="again")
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    assert sorted(again.ids()) == sorted(acknowledged.read_text().split())
    gateway.stop()
    gateway.start()
    assert gateway.queued() == 0, "what was adopted does not come back"


def test_full_ring_says_452_and_recovers(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal", keep=False), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, spool={"ring_size": "16MiB"}, **routes(internal, edge))
    internal.kill()
    s = gateway.smtp(EDGE)
    s.ehlo()
    big, taken = message("big", "0123456789abcdef" * 4 + "\r\n") + ("x" * 76 + "\r\n") * 6500, 0
    while True:
        reply = s.say("MAIL FROM:<alice@example.net> SIZE=510000")
        if reply.code != 250:
            break
        s.say("RCPT TO:<bob@example.com>")
        s.say("DATA")
        s.write(big.encode() + b".\r\n")
        if s.reply().code != 250:
            break
        taken += 1
        assert taken < 40
    assert s.say("MAIL FROM:<alice@example.net> SIZE=510000").startswith("452 4.3.1")
    assert taken >= 15
    assert gateway.metric("postern_queue_refused_full_total") >= 1
    assert source(gateway.port, "-m", 40, "-l", 500000).returncode == 1
    eventually(lambda: gateway.status()["workers"][0]["ring"]["full"], "the ring says it is full")
    again = run(Sink, address=INTERNAL, port=internal.port, name="again", keep=False)
    eventually(lambda: gateway.queued() == 0, "the queue is empty")
    eventually(lambda: not gateway.status()["workers"][0]["ring"]["full"], "the ring says it is not")
    eventually(lambda: s.say("MAIL FROM:<alice@example.net> SIZE=510000").code == 250 or s.say("RSET").code == 0, "there is room again")


def test_second_instance_on_the_same_spool_is_refused(pair):
    gateway, _, _ = pair
    r = subprocess.run([str(BIN / "posternd"), "-c", str(gateway.config_path)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert r.returncode == 75
    assert "in use by another posternd" in r.stderr and str(gateway.process.p.pid) in r.stderr
    s = gateway.smtp()
    s.ehlo()
    assert s.send("a@example.net", "bob@example.com", message("still there"))[-1].code == 250


def test_sigterm_lets_a_running_transaction_finish(pair):
    gateway, internal, _ = pair
    busy, idle = gateway.smtp(), gateway.smtp()
    busy.ehlo(), idle.ehlo()
    busy.say("MAIL FROM:<alice@example.net>")
    busy.say("RCPT TO:<bob@example.com>")
    assert busy.say("DATA").code == 354
    gateway.process.signal(signal.SIGTERM)
    assert idle.reply().startswith("421 4.3.2")
    busy.write(message("finished").encode() + b".\r\n")
    assert busy.reply().startswith("250 2.0.0")
    assert gateway.process.p.wait(timeout=PATIENCE_S) == 0
    gateway.start()
    assert internal.wait_for(1)[0].parsed["Subject"] == "finished"


def test_sigterm_ends_in_time_when_a_client_dawdles(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, timeouts={"shutdown": "1s"}, **routes(internal, edge))
    s = gateway.smtp()
    s.ehlo()
    s.say("MAIL FROM:<alice@example.net>")
    s.say("RCPT TO:<bob@example.com>")
    s.say("DATA")
    gateway.process.signal(signal.SIGTERM)
    assert s.reply().code == 421
    assert gateway.process.p.wait(timeout=PATIENCE_S) == 0


def test_large_messages_come_through_whole(pair):
    gateway, internal, _ = pair
    s = gateway.smtp(timeout=PATIENCE_S)
    s.ehlo()
    rng = random.Random(7)
    content = message("large", "".join("%076x\r\n" % rng.getrandbits(304) for _ in range(120_000)))
    assert 9_000_000 < len(content) < 20_000_000
    assert s.send("alice@example.net", "bob@example.com", content)[-1].code == 250
    assert internal.wait_for(1)[0].raw.endswith(content.encode())
