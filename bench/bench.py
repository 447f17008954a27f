"""./dev bench relay (./dev bench queue: see queue_bench.py): messages/s and CPU seconds per 1000 messages, Postern beside its peers in the same run.

Source, gateway and sink share the machine, as they do for every peer. Rounds are interleaved (A B A B), so that a slow minute of the
machine falls on all; the table shows the median, least and most of the rounds and the ratio of the medians.

./dev bench verdicts: the verdict cache alone (bench/verify).
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import BIN, Postern, Postfix, available, free_port, wait_for_port, ROOT
from queue_bench import queue

SCENARIOS = {  # name: (size, messages a session, sessions, messages for postern, messages for a peer)
    "1 KiB, 1 a session": (1024, 1, 20, 30000, 2000),
    "1 KiB, 100 a session": (1024, 100, 20, 60000, 3000),
    "100 KiB, 100 a session": (102400, 100, 20, 6000, 1000),
}


class Sink:
    def __init__(self, port, count):
        self.process = subprocess.Popen([BIN / "postern-sink", "-n", str(count), f"127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True)
        wait_for_port(port, "postern-sink")

    def wait(self, seconds):
        """CPU seconds once all messages are there; what came."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pid, _, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.process.returncode = 0
                return usage.ru_utime + usage.ru_stime, dict(f.split("=") for f in self.process.stdout.read().split())
            time.sleep(0.005)
        self.process.kill()
        raise SystemExit("bench: messages did not all arrive; something was lost or is stuck")


def measure(peer, sink_port, size, per_session, sessions, count):
    sink = Sink(sink_port, count)
    cpu_before, started = peer.group.cpu_seconds(), time.monotonic()
    r = subprocess.run([BIN / "postern-source", "--json", "-s", str(sessions), "-m", str(count), "-p", str(per_session), "-l", str(size),
                        "-t", "user@example.com", f"127.0.0.1:{peer.port}"], capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(f"bench: the source failed against {peer.name}: {r.stdout}{r.stderr}")
    source = json.loads(r.stdout)
    sink_cpu, came = sink.wait(300)
    elapsed = time.monotonic() - started
    time.sleep(0.3)  # the relay's own end of the last message
    cpu = peer.group.cpu_seconds() - cpu_before
    assert int(came["messages"]) == count, came
    return {"per_second": count / elapsed, "cpu_per_1000": cpu / count * 1000, "accept_per_second": source["per_second"],
            "p99_ms": source["p99_ms"], "load_cpu_per_1000": (source["cpu_seconds"] + sink_cpu) / count * 1000}


def spread(values):
    return f"{statistics.median(values):9.3f} ({min(values):.3f}–{max(values):.3f})"


def relay(args):
    base = Path(tempfile.mkdtemp(prefix="bench-", dir=args.directory))
    base.chmod(0o755)  # Postfix works as a user of its own
    sink_port = free_port()
    peers = [Postern(base / "postern", sink_port, args.workers)]
    for name in args.peer:
        if not available(name):
            print(f"{name} is not installed: left out", file=sys.stderr)
        elif name == "postfix":
            peers.append(Postfix(base / "postfix", sink_port))
    results = []
    try:
        for p in peers:
            p.start()
        for title, (size, per_session, sessions, ours, theirs) in SCENARIOS.items():
            if args.only and args.only not in title:
                continue
            shrink = 5 if args.quick else 1
            rows = {p.name: [] for p in peers}
            for _ in range(1 if args.quick else args.rounds):
                for p in peers:
                    count = (ours if p.name == "postern" else theirs) // shrink
                    rows[p.name].append(measure(p, sink_port, size, per_session, sessions, count))
            results.append({"scenario": title, "rows": rows})
            print_scenario(title, peers, rows)
    finally:
        for p in peers:
            p.stop()
        shutil.rmtree(base, ignore_errors=True)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))


def print_scenario(title, peers, rows):
    print(f"\nrelay, {title}; every message durable before 250")
    for p in peers:
        r = rows[p.name]
        print(f"  {p.name:14} {spread([x['per_second'] for x in r])} messages/s   CPU {spread([x['cpu_per_1000'] for x in r])} s per 1000"
              f"   p99 {statistics.median(x['p99_ms'] for x in r):.1f} ms   source+sink CPU {statistics.median(x['load_cpu_per_1000'] for x in r):.3f}")
    ours = rows["postern"]
    for p in peers[1:]:
        speed = statistics.median(x["per_second"] for x in ours) / statistics.median(x["per_second"] for x in rows[p.name])
        cpu = statistics.median(x["cpu_per_1000"] for x in rows[p.name]) / statistics.median(x["cpu_per_1000"] for x in ours)
        print(f"  beside {p.name}: {speed:.1f} × the messages/s, 1/{cpu:.1f} of the CPU per message")
    sys.stdout.flush()


def verdicts(args):
    """Lookups, updates, durable writes and the warm start of the verdict cache."""
    entries = 100_000 if args.quick else 1_000_000
    raise SystemExit(subprocess.run([BIN / "postern-bench-verdicts", str(entries), args.directory]).returncode)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=["relay", "queue", "verdicts"])
    parser.add_argument("--peer", action="append", choices=["postfix"], help="default: postfix, when it is installed")
    parser.add_argument("--no-peer", action="store_true", help="Postern alone")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, a fifth of the messages")
    parser.add_argument("--only", help="scenarios whose title contains this")
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--directory", default=str(ROOT / "build"), help="where the spools are: a real disk")
    args = parser.parse_args()
    args.peer = [] if args.no_peer else args.peer or ["postfix"]
    {"relay": relay, "queue": queue, "verdicts": verdicts}[args.scenario](args)


if __name__ == "__main__":
    main()
