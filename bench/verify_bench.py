"""./dev bench verify: what it costs to take real recipients only.

The client is an edge that asks for each recipient (MAIL, RCPT, then RSET or QUIT; no content). The server behind is postern-sink, which
knows everybody but unknown…@. Cached: the same addresses again; new: addresses that nobody has asked for before, of which the answer
is in no cache."""
import re
import subprocess
import time

from load import Sink, source
from peers import BIN, Postern, free_port, make_peers
from rounds import Metric, Report

UNKNOWN = "rcpt *<unknown* 550 5.1.1 no such user"
POSTERN = "{ mode: unverified, rate: 0, connections: 10, waiting: 100000, canary: 0 }"

CACHED = [Metric("per_second", "RCPT a second", 0, "high"), Metric("cpu_per_1000", "CPU seconds per 1000 RCPT", 4, "low"),
          Metric("per_core", "RCPT a second of CPU", 0, "high"),
          Metric("p50_ms", "reply to RCPT, p50 ms", 2, "low"), Metric("p99_ms", "reply to RCPT, p99 ms", 2, "low"),
          Metric("probes", "asked of the server, per 1000", 1), Metric("load_cpu_per_1000", "source + sink, CPU s per 1000 RCPT", 4)]
NEW = [Metric("per_second", "right answers a second", 0, "high"), Metric("cpu_per_1000", "CPU seconds per 1000 RCPT", 3, "low"),
       Metric("p50_ms", "reply to RCPT, p50 ms", 1, "low"), Metric("p99_ms", "reply to RCPT, p99 ms", 1, "low"),
       Metric("deferred", "put off (4xx), of 1000", 0), Metric("probes_per_second", "asked of the server, a second", 0),
       Metric("probes", "asked of the server, per 1000", 0), Metric("connections", "connections to the server, per 1000", 1, "low"),
       Metric("load_cpu_per_1000", "source + sink, CPU s per 1000 RCPT", 3)]


def measure(peer, sink, rcpts, *options, unknown=False):
    before, cpu, started = sink.counters(), peer.group.cpu_seconds(), time.monotonic()
    r = source(peer.port, "--until", "rcpt", "--bind", "127.0.0.3", "--unknown", 100 if unknown else 0, *options, ok=False)
    elapsed = r["seconds"] or time.monotonic() - started
    time.sleep(0.3)  # the peer's own end of it
    cpu = peer.group.cpu_seconds() - cpu
    came = sink.since(before)
    answered = r["rcpt_refused"] if unknown else r["rcpt_taken"]
    if r["rcpt_wrong"]:
        raise SystemExit(f"bench: {peer.name} gave {r['rcpt_wrong']} wrong answers")
    return {"per_second": answered / elapsed, "answered": answered, "cpu_per_1000": cpu / rcpts * 1000, "per_core": rcpts / cpu,
            "p50_ms": r["stages"]["rcpt"]["p50_ms"], "p99_ms": r["stages"]["rcpt"]["p99_ms"], "deferred": r["rcpt_deferred"] / rcpts * 1000,
            "lost_connections": r["lost_connections"], "probes": came["rcpts"] / rcpts * 1000, "probes_per_second": came["rcpts"] / elapsed,
            "connections": came["connections"] / rcpts * 1000,
            "load_cpu_per_1000": (r["cpu_seconds"] + came["cpu_seconds"]) / rcpts * 1000}


def addresses(tag):
    return ["-t", f"user.{tag}.%@example.com", "--unknown-to", f"unknown.{tag}.%@example.com"]


def warm(peer, count, tag, unknown_percent):
    """Until every address is in the peer's cache: those that are answered late are asked for again."""
    for _ in range(60):
        r = source(peer.port, "--until", "rcpt", "--bind", "127.0.0.3", "--unknown", unknown_percent, "-s", 20, "-m", count,
                   "-p", 100, *addresses(tag), ok=False)
        if r["rcpt_refused"] + r["rcpt_taken"] == count:
            return
        time.sleep(1)
    raise SystemExit(f"bench: {peer.name} never had an answer for all of {count} addresses")


def cached(report, peers, sink, unknown):
    who = "unknown" if unknown else "known"
    size = {p.name: 1000 if p.name == "postern" else 200 for p in peers}
    for p in peers:
        warm(p, size[p.name], f"warm-{who}", 100 if unknown else 0)

    def one_a_session(p, _):
        count = {"postern": 30000, "exim": 1000}.get(p.name, 8000) // report.shrink
        return measure(p, sink, count, "-s", 50, "-m", count, "--recipient-set", size[p.name], *addresses(f"warm-{who}"), unknown=unknown)

    def in_groups(p, _):
        count = {"postern": 20000, "exim": 20}.get(p.name, 200) // report.shrink or 1
        return measure(p, sink, count * 100, "-s", 20, "-m", count, "-p", 1000, "-r", 100, "--recipient-set", size[p.name],
                       *addresses(f"warm-{who}"), unknown=unknown)

    report.run(f"{who} addresses, cached; one RCPT a session, 50 sessions", peers, one_a_session, CACHED)
    report.run(f"{who} addresses, cached; RCPTs pipelined by 100, 20 sessions", peers, in_groups, CACHED)


def new(report, peers, sink, unknown):
    def one(p, n):
        count = {"postern": 20000, "exim": 400}.get(p.name, 800) // report.shrink
        return measure(p, sink, count, "-s", 50, "-m", count, *addresses(f"new-{n}"), unknown=unknown)
    report.run(f"new addresses, {'unknown' if unknown else 'known'}; one RCPT a session, 50 sessions", peers, one, NEW)


def slow(report, base, peers, sink):
    """The server takes 50 ms to answer RCPT. Cached addresses must not feel the new ones: half of each at once."""
    def one(p, n):
        count = {"postern": 4000, "exim": 200}.get(p.name, 200) // report.shrink
        return measure(p, sink, count, "-s", 50, "-m", count, *addresses(f"slow-{n}"))
    report.run("new addresses, known; the server takes 50 ms a RCPT; 50 sessions", peers, one, NEW)


def lookups(report):
    """The cache alone, in one process: what a look-up costs without SMTP."""
    entries = 100_000 if report.args.quick else 1_000_000
    r = subprocess.run([BIN / "postern-bench-verdicts", str(entries), report.args.directory], capture_output=True, text=True, check=True)
    print("\nthe verdict cache alone\n" + "".join(f"  {line}\n" for line in r.stdout.splitlines()), end="")
    rows = [{re.sub(r"\W+", "_", m[1].strip() + " " + m[2] + (m[3] or "")): float(m[4])}
            for m in re.finditer(r"^(\w+) +(\d+) threads?(, a writer)? +([\d.]+) million", r.stdout, re.M)]
    report.extra = {"million look-ups a second": {"entries": entries, **{k: v for row in rows for k, v in row.items()}}}


def verify(args, base):
    report = Report("verify", args)
    report.shrink = 5 if args.quick else 1
    for delay, scenarios in ((None, "fast"), (50, "slow")):
        sink_port, notes = free_port(), []
        sink = Sink(sink_port, "--fail", UNKNOWN, *(["--delay", f"rcpt={delay}"] if delay else []))
        at = base / scenarios
        peers = [Postern(at / "postern", sink_port, args.workers, verify=POSTERN)]
        peers += make_peers(args.peer, at, sink_port, notes, verify=True)
        with report.running(peers, sink, notes if scenarios == "fast" else (), describe=scenarios == "fast"):
            if scenarios == "fast":
                for unknown in (False, True):
                    cached(report, peers, sink, unknown)
                for unknown in (False, True):
                    new(report, peers, sink, unknown)
            else:
                slow(report, at, peers, sink)
    lookups(report)
    return report.finish()


PEERS_BY_DEFAULT = ["postfix", "postfix-packaged", "exim"]
