"""./dev bench queue: what an operator with a large backlog lives by. The ring alone, without SMTP:

- how fast a ring that is 70 % full of deferred mail takes new mail, beside an empty one in the same run, and at what write amplification;
- how long a start with a million queued messages takes, what it reads, and what the index weighs;
- how fast a backlog that is in no memory any more is read for sending.

And the same first question by SMTP, to two whole gateways: one has 70 % of its rings full of mail for a dead server. Then what a message
costs a gateway that has a million of others in its queue.

Each line says the bar, if there is one, and whether it is met.
"""
import contextlib
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from peers import BIN, Postern, free_port, wait_for_port

RATE_BAR = 0.8  # of the empty ring's rate
INDEX_BAR_BYTES = 256
GATEWAY_RING_MIB = 256
BACKLOG_BAR = 1.1  # of the empty gateway's CPU
READ_BAR = 1.1  # times the bytes in use: one sequential read


def run(directory, verb, **options):
    words = [str(BIN / "postern-bench-queue"), "--directory", str(directory)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return json.loads(subprocess.run([*words, verb], check=True, stdout=subprocess.PIPE, text=True).stdout)


def bar(ok, text):
    return f"bar {text}: {'met' if ok else 'MISSED'}"


def commit(base, args, size):
    with tempfile.TemporaryDirectory(dir=base) as d:
        r = run(d, "commit", ring_mib=256, size=size, rounds=3 if args.quick else args.rounds + 2, round_ms=1000 if args.quick else 3000)
    empty, full = (statistics.median(r[side]["per_second"]) for side in ("empty", "full"))
    print(f"\nqueue, {size} bytes a message, 50 senders, a 256 MiB ring that has been round")
    for side in ("empty", "full"):
        values = r[side]["per_second"]
        print(f"  {'empty' if side == 'empty' else '70 % full of deferred mail':27} {statistics.median(values):9.0f} ({min(values):.0f}–{max(values):.0f}) commits/s"
              f"   write amplification {r[side]['write_amplification']:.2f}")
    print(f"  ratio {full / empty:.2f}   {bar(full / empty >= RATE_BAR, f'>= {RATE_BAR}')}", flush=True)
    return {"scenario": f"commit {size}", "ratio": full / empty, **r}


def recover(base, args):
    count = 100_000 if args.quick else 1_000_000
    with tempfile.TemporaryDirectory(dir=base) as d:
        filled = run(d, "fill", ring_mib=count * 3 // 1000, messages=count, size=1024)
        r = run(d, "recover")
        drained = run(d, "drain")
    seen, entry = r["read_bytes"] / r["used_bytes"], r["resident_bytes"] / count
    print(f"\nqueue, start with {r['messages']} messages of 1024 bytes: {r['used_bytes'] >> 20} MiB used of a ring of {r['ring_bytes'] >> 20} MiB")
    print(f"  {r['ms'] / 1000:.2f} s; read {r['read_bytes'] >> 20} MiB in {r['read_calls']} calls, {seen:.2f} of what is used   {bar(seen <= READ_BAR, f'<= {READ_BAR}')}")
    print(f"  memory grew by {entry:.0f} bytes a message (entry {r['entry_bytes']})   {bar(entry <= INDEX_BAR_BYTES, f'<= {INDEX_BAR_BYTES}')}")
    print(f"  drain of the cold backlog: {drained['per_second']:.0f} messages/s, {drained['mib_per_second']:.0f} MiB/s", flush=True)
    return {"scenario": "recover", "fill": filled, "recover": r, "drain": drained}


def drain(base, args):
    size, count = 102400, 2000 if args.quick else 10000
    with tempfile.TemporaryDirectory(dir=base) as d:
        run(d, "fill", ring_mib=size * count * 5 // 4 >> 20, messages=count, size=size)
        r = run(d, "drain")
    print(f"\nqueue, drain of {count} cold messages of {size} bytes: {r['per_second']:.0f} messages/s, {r['mib_per_second']:.0f} MiB/s", flush=True)
    return {"scenario": f"drain {size}", **r}


class Side:
    """A gateway whose mail for dead.example is deferred, and the server of example.com is there."""

    def __init__(self, base, name, sink_port, ring_mib=GATEWAY_RING_MIB):
        self.name = name
        self.postern = Postern(base / name, sink_port, workers=1, ring=f"{ring_mib}MiB", more=f"""
retry: {{ first: 1d, max: 1d }}
""", domains=f', {{ name: dead.example, local: true, route: {{ hosts: [127.0.0.1], port: {free_port()} }} }}')
        self.rates = []

    def ring(self):
        r = subprocess.run([BIN / "postern", "-s", self.postern.directory / "admin.sock", "--json", "status"], check=True, stdout=subprocess.PIPE)
        status = json.loads(r.stdout)
        return status["workers"][0]["ring"], status["queue"]["messages"]

    def send(self, count, size, domain):
        r = subprocess.run([BIN / "postern-source", "--json", "-s", "50", "-p", "20", "-m", str(count), "-l", str(size), "-t", f"user@{domain}",
                            f"127.0.0.1:{self.postern.port}"], stdout=subprocess.PIPE, text=True)
        return json.loads(r.stdout)

    def fill(self, size):
        """Up to 70 %. 452 is an answer too: then it is as full as it gets."""
        while (ring := self.ring()[0])["used"] < 0.7 * ring["bytes"]:
            left = 0.7 * ring["bytes"] - ring["used"]
            if self.send(max(1, int(left / (size + 700))), size, "dead.example")["refused"]:
                break

    def measure(self, count, size):
        """Until all is delivered as well, so that each round finds the rings as the one before did."""
        waiting = self.ring()[1]
        self.rates.append(self.send(count, size, "example.com")["per_second"])
        until = time.monotonic() + 300
        while self.ring()[1] > waiting:
            if time.monotonic() > until:
                raise SystemExit("bench: the mail is not delivered")
            time.sleep(0.05)


@contextlib.contextmanager
def both_sides(base, *ring):
    """An empty gateway and one to be filled, and the server behind them."""
    with tempfile.TemporaryDirectory(dir=base) as d:
        sink_port = free_port()
        sink = subprocess.Popen([BIN / "postern-sink", "--quiet", f"127.0.0.1:{sink_port}"], stdout=subprocess.DEVNULL)
        sides = [Side(Path(d), name, sink_port, *ring) for name in ("empty", "full")]
        try:
            wait_for_port(sink_port, "postern-sink")
            for s in sides:
                s.postern.start()
            yield sides
        finally:
            for s in sides:
                s.postern.stop()
            sink.kill()
            sink.wait()


def backlog(base, args):
    waiting, count = (100_000, 5000) if args.quick else (1_000_000, 30000)
    with both_sides(base, 4096) as sides:
        sides[1].send(waiting, 1024, "dead.example")
        queued = sides[1].ring()[1]
        if queued < waiting:
            raise SystemExit(f"bench: {queued} of {waiting} messages are queued")
        for s in sides:
            s.measure(count, 1024)
            s.costs = []
        for _ in range(1 if args.quick else args.rounds):
            for s in sides:
                cpu = s.postern.group.cpu_seconds()
                s.measure(count, 1024)
                s.costs.append((s.postern.group.cpu_seconds() - cpu) / count * 1000)
    print(f"\ngateway, 1 KiB a message by SMTP, 50 sessions, one worker, with and without {queued} messages in the queue")
    for s in sides:
        print(f"  {s.name if s.name == 'empty' else 'with them':27} {statistics.median(s.costs):9.4f} ({min(s.costs):.4f}–{max(s.costs):.4f}) CPU seconds per 1000 messages")
    ratio = statistics.median(sides[1].costs) / statistics.median(sides[0].costs)
    print(f"  ratio {ratio:.2f}   {bar(ratio <= BACKLOG_BAR, f'<= {BACKLOG_BAR}')}", flush=True)
    return {"scenario": "backlog", "queued": queued, "ratio": ratio, **{s.name: s.costs for s in sides}}


def gateway(base, args, size):
    with both_sides(base) as sides:
        sides[1].fill(size)
        count = max(200, (GATEWAY_RING_MIB << 20) // (5 if args.quick else 2) // (size + 700))
        for s in sides:  # the ring goes round once before it counts
            for _ in range(1 if args.quick else 3):
                s.measure(count, size)
            s.rates, s.before = [], s.ring()[0]
        for _ in range(1 if args.quick else args.rounds):
            for s in sides:
                s.measure(count, size)
        for s in sides:
            after = s.ring()[0]
            s.amplification = (after["written_total"] - s.before["written_total"]) / (after["accepted_total"] - s.before["accepted_total"])
            s.used = after["used"] / after["bytes"]
    print(f"\ngateway, {size} bytes a message by SMTP, 50 sessions, one worker, a ring of {GATEWAY_RING_MIB} MiB that has been round")
    for s in sides:
        print(f"  {'empty' if s.name == 'empty' else '70 % full of deferred mail':27} {statistics.median(s.rates):9.0f} ({min(s.rates):.0f}–{max(s.rates):.0f}) messages/s"
              f"   write amplification {s.amplification:.2f}   ring used {s.used:.0%}")
    ratio = statistics.median(sides[1].rates) / statistics.median(sides[0].rates)
    print(f"  ratio {ratio:.2f}   {bar(ratio >= RATE_BAR, f'>= {RATE_BAR}')}", flush=True)
    return {"scenario": f"gateway {size}", "ratio": ratio,
            **{s.name: {"per_second": s.rates, "write_amplification": s.amplification} for s in sides}}


def queue(args):
    base = Path(tempfile.mkdtemp(prefix="bench-", dir=args.directory))
    steps = {"commit 1024": lambda: commit(base, args, 1024), "commit 16384": lambda: commit(base, args, 16384),
             **{f"gateway {size}": lambda size=size: gateway(base, args, size) for size in (1024, 16384, 102400)},
             "backlog": lambda: backlog(base, args), "recover": lambda: recover(base, args), "drain": lambda: drain(base, args)}
    try:
        results = [step() for title, step in steps.items() if not args.only or args.only in title]
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))
