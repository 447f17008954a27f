"""Memory is bounded by the configuration, however large and many the messages are (docs/operating.md, "How much memory")."""
import re
from pathlib import Path

from conftest import EDGE, INTERNAL, Gateway, Sink, eventually, routes, source

KIB, MIB = 1 << 10, 1 << 20
CLIENTS, MESSAGE_BYTES = 50, 50 * MIB
SPOOL_BYTES = 8 * MIB  # spool.memory
RECEIVE_BYTES = 16 * MIB  # what a worker reads into
SESSION_BYTES = 3 * MIB // 2  # read from a client before it is told to wait, as the disk is slower
READ_AHEAD_BYTES = 512 * KIB  # for a connection to a next hop
OUTBOUND_MAX = 20


def peak_bytes(gateway):
    """The most that was ever resident."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{gateway.process.p.pid}/status").read_text())[1]) * KIB


def test_large_messages_from_many_at_once(run, tmp_path):
    """All of them at the same time: 2.5 GB, of which the gateway may have a twentieth in memory, coming and going."""
    internal, edge = run(Sink, "--quiet", address=INTERNAL, name="internal", keep=False), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, workers=1, spool={"ring_size": "3GiB", "memory": str(SPOOL_BYTES)},
                  limits={"message_size": "64MiB", "sessions_per_client": 0}, **routes(internal, edge))
    budget = peak_bytes(gateway) + SPOOL_BYTES + RECEIVE_BYTES + CLIENTS * SESSION_BYTES + OUTBOUND_MAX * READ_AHEAD_BYTES
    load = source(gateway.port, "-m", CLIENTS, "-s", CLIENTS, "-l", MESSAGE_BYTES, "-t", "user%@example.com", wait=False,
                  log=tmp_path / "source.log")
    assert load.p.wait(timeout=900) == 0, load.log()
    eventually(lambda: len(internal.ids()) >= CLIENTS // 4, "what is in no memory any more is sent", patience_s=900)
    peak = peak_bytes(gateway)
    gateway.kill()
    (gateway.directory / "spool" / "ring-00").unlink()  # pytest keeps the directories of its last runs
    assert peak <= budget, f"{peak / MIB:.0f} MiB, and the budget is {budget / MIB:.0f} MiB"
