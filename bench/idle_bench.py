"""./dev bench idle: sessions that are open and say nothing, as slow clients and connection pools leave them.

Memory is the peer's own (PSS of all its processes), beside that of the same peer without sessions; what the kernel keeps for a socket
comes on top for everybody. CPU is that of the time in which nothing happens."""
import signal
import subprocess
import time

from load import Sink
from peers import BIN, Postern, free_port, make_peers, resident_bytes
from rounds import Metric, Report

SESSIONS, HOLD_S = 50000, 10
FEW_OTHERS = 250

METRICS = [Metric("held", "sessions held", 0), Metric("kib_each", "memory of each, KiB", 2, "low"),
           Metric("open_per_second", "opened a second", 0, "high"), Metric("cpu_ms_each", "CPU to open one, ms", 3, "low"),
           Metric("idle_cpu", "CPU while idle, ms a second per 1000 sessions", 3, "low")]


def measure(peer, count, hold_s):
    before, cpu, started = resident_bytes(peer.group.processes()), peer.group.cpu_seconds(), time.monotonic()
    p = subprocess.Popen([BIN / "postern-source", "-s", str(count), "--hold", "600", "--bind", "127.1.0.1+16", f"127.0.0.1:{peer.port}"],
                         stdout=subprocess.PIPE, text=True)
    held = int(p.stdout.readline().split("=")[1])
    opened_s, opened_cpu = time.monotonic() - started, peer.group.cpu_seconds()
    try:
        memory = resident_bytes(peer.group.processes()) - before
        time.sleep(hold_s)
        idle_cpu = peer.group.cpu_seconds() - opened_cpu
    finally:
        p.send_signal(signal.SIGTERM)
        p.communicate()
    time.sleep(1)
    if held < count:
        raise SystemExit(f"bench: {peer.name} held {held} of {count} sessions")
    return {"held": held, "kib_each": memory / held / 1024, "open_per_second": held / opened_s, "cpu_ms_each": (opened_cpu - cpu) / held * 1000,
            "idle_cpu": idle_cpu / hold_s * 1000 / held * 1000}


def idle(args, base):
    report, notes = Report("idle", args), []
    sink_port = free_port()
    sink = Sink(sink_port)
    peers = [Postern(base / "postern", sink_port, args.workers, sessions=SESSIONS + 1000), *make_peers(args.peer, base, sink_port, notes)]
    ours = SESSIONS // (10 if args.quick else 1)
    with report.running(peers, sink, notes):
        report.run(f"idle sessions: {ours} of Postern, {FEW_OTHERS} of the others (a process each; the settings stop them at 300)", peers,
                   lambda p, _: measure(p, ours if p.name == "postern" else FEW_OTHERS, 3 if args.quick else HOLD_S), METRICS)
    return report.finish()


PEERS_BY_DEFAULT = ["postfix", "exim"]
