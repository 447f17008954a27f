"""./dev bench queue: the ring alone, without SMTP. What an operator with a large backlog lives by:

- how fast a ring that is 70 % full of deferred mail takes new mail, beside an empty one in the same run, and at what write amplification;
- how long a start with a million queued messages takes, what it reads, and what the index weighs;
- how fast a backlog that is in no memory any more is read for sending.

Each line says the bar, if there is one, and whether it is met.
"""
import json
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from peers import BIN

RATE_BAR = 0.8  # of the empty ring's rate
INDEX_BAR_BYTES = 256
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


def queue(args):
    base = Path(tempfile.mkdtemp(prefix="bench-", dir=args.directory))
    steps = {"commit 1024": lambda: commit(base, args, 1024), "commit 16384": lambda: commit(base, args, 16384),
             "recover": lambda: recover(base, args), "drain": lambda: drain(base, args)}
    try:
        results = [step() for title, step in steps.items() if not args.only or args.only in title]
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))
