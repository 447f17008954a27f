"""./dev bench relay: mail through a gateway: every message durable before its 250, and delivered to postern-sink.

Source, gateway and sink share the machine, as they do for every peer. That nothing was lost, doubled or damaged is checked in each round
(the sink knows postern-source's messages by number and checksum)."""
import os
import re
import resource
import shutil
import subprocess
import time

from load import Sink, source
from peers import BIN, Postern, free_port, make_peers, wait_for_port
from rounds import Metric, Report

SCENARIOS = {  # title: (size, messages a session, sessions, messages for postern, messages for a peer)
    "1 KiB, 1 message a session, 20 sessions": (1024, 1, 20, 30000, 2000),
    "1 KiB, 100 messages a session, 20 sessions": (1024, 100, 20, 60000, 3000),
    "10 KiB, 100 messages a session, 20 sessions": (10240, 100, 20, 20000, 2000),
    "100 KiB, 100 messages a session, 20 sessions": (102400, 100, 20, 6000, 1000),
    "10 MiB, 10 messages a session, 4 sessions": (10485760, 10, 4, 60, 20),
    "1 KiB, 100 messages a session, 200 sessions": (1024, 100, 200, 60000, 3000),
    "1 KiB, 10 messages a session, 2000 sessions (a process each: 250)": (1024, 10, 2000, 60000, 4000),
}
PROCESSES = 250  # sessions at once of peers that need a process for each, and are allowed 300
SLOW = {"exim": 10, "opensmtpd": 4}  # fewer messages for these

METRICS = [Metric("per_second", "messages a second, to the sink", 0, "high"), Metric("cpu_per_1000", "CPU seconds per 1000 messages", 3, "low"),
           Metric("p50_ms", "MAIL to 250, p50 ms", 1, "low"), Metric("p99_ms", "MAIL to 250, p99 ms", 1, "low"),
           Metric("load_cpu_per_1000", "source + sink, CPU s per 1000 messages", 3), Metric("copies", "came twice", 0)]


class Direct:
    """Source straight into the sink: what the load itself costs, the limit of the machine."""
    name, settings = "no relay", "source straight into the sink: nothing durable; the limit of the machine"

    class Nothing:
        def cpu_seconds(self):
            return 0.0

    def __init__(self, sink_port):
        self.port, self.group = sink_port, self.Nothing()

    def start(self):
        pass

    stop = start


def measure(peer, sink, size, per_session, sessions, count):
    before, cpu, started = sink.counters(), peer.group.cpu_seconds(), time.monotonic()
    r = source(peer.port, "-s", sessions, "-m", count, "-p", per_session, "-l", size)
    came = sink.wait(before, count)
    elapsed = time.monotonic() - started
    time.sleep(0.3)  # the relay's own end of the last message
    cpu = peer.group.cpu_seconds() - cpu
    if came["damaged"] or came["checked"] != came["messages"]:
        raise SystemExit(f"bench: {peer.name}: {came['damaged']:.0f} messages damaged, {came['messages'] - came['checked']:.0f} not recognised")
    if came["messages"] - came["copies"] != count:
        raise SystemExit(f"bench: {peer.name}: {count} messages sent, {came['messages'] - came['copies']:.0f} came")
    return {"per_second": count / elapsed, "cpu_per_1000": cpu / count * 1000, "accept_per_second": r["per_second"],
            "p50_ms": r["p50_ms"], "p99_ms": r["p99_ms"], "copies": came["copies"],
            "load_cpu_per_1000": (r["cpu_seconds"] + came["cpu_seconds"]) / count * 1000}


HALF = [Metric("rate", "messages a second, half of what it takes", 0), Metric("p50_ms", "dot to 250, p50 ms", 2, "low"),
        Metric("p99_ms", "dot to 250, p99 ms", 2, "low"), Metric("commit_p50_ms", "a durable write, p50 ms", 2),
        Metric("commit_p99_ms", "a durable write, p99 ms", 2), Metric("commits", "p99 of 250 in durable writes (p50)", 1, "low")]


def half_rate(peer, rate, seconds):
    """Open loop: times count from when a message was due."""
    before = peer.metrics()
    r = source(peer.port, "-s", 200, "-m", int(rate * seconds), "-p", 1, "-l", 1024, "--rate", int(rate))
    after, name, dot = peer.metrics(), "postern_queue_commit_seconds", r["stages"]["dot"]
    p50, p99 = (quantile(before, after, name, q) * 1000 for q in (0.5, 0.99))
    return {"rate": rate, "p50_ms": dot["p50_ms"], "p99_ms": dot["p99_ms"], "commit_p50_ms": p50, "commit_p99_ms": p99, "commits": dot["p99_ms"] / p50}


def quantile(before, after, name, q):
    """Of a Prometheus histogram, as histogram_quantile() has it: in a straight line through the bucket."""
    grown = sorted((float(m[1]), after[k] - before.get(k, 0)) for k in after if (m := re.match(name + r'_bucket\{le="(.+?)"\}', k)))
    want, low, below = q * grown[-1][1], 0.0, 0
    for edge, count in grown:
        if count >= want:
            return low if edge == float("inf") else low + (edge - low) * (want - below) / max(count - below, 1)
        low, below = edge, count
    return low


def relay(args, base):
    report, notes = Report("relay", args), []
    shrink = 5 if args.quick else 1
    sink_port = free_port()
    sink = Sink(sink_port)
    ours = [Postern(base / "postern", sink_port, args.workers), Postern(base / "one", sink_port, 1, name="postern, one worker")]
    peers = [*ours, *make_peers(args.peer, base, sink_port, notes), Direct(sink_port)]
    with report.running(peers, sink, notes):
        for title, (size, per_session, sessions, many, few) in SCENARIOS.items():
            def one(p, _):
                is_cheap = p in ours or p.name == "no relay"
                count = many if is_cheap else few // SLOW.get(p.name, 1)
                at_once = sessions if is_cheap else min(sessions, PROCESSES)
                return measure(p, sink, size, per_session, at_once, max(count // shrink, 1))
            report.run(title, peers, one, METRICS)
        most = report.median(next(iter(SCENARIOS)), "postern", "per_second")
        if most:
            report.run("1 KiB, 1 message a session, at half the rate of the first scenario", ours[:1],
                       lambda p, _: half_rate(p, most / 2, 2 if args.quick else 10), HALF)
        if not args.only:
            load_programs(report)
    return report.finish()


def load_programs(report):
    """Our source and sink beside Postfix's: what the load costs must not be what is measured."""
    if not shutil.which("smtp-source", path="/usr/sbin:/usr/bin"):
        report.note("smtp-source is not installed: the cost of the load is not compared")
        return
    port = free_port()
    theirs = subprocess.Popen(["/usr/sbin/smtp-sink", "-u", "postfix", f"127.0.0.1:{port}", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ours = Sink(free_port())
    try:
        wait_for_port(port, "smtp-sink")
        for words, size, per_session, count in (("1 KiB, 1 message", 1024, 1, 20000), ("1 KiB, many messages", 1024, 100, 20000),
                                                ("100 KiB, many messages", 102400, 100, 4000)):
            count //= 3 if report.args.quick else 1
            rows = {"postern's": [], "smtp-source, smtp-sink": []}
            for _ in range(report.args.rounds):
                rows["postern's"].append(our_load(ours, size, per_session, count))
                rows["smtp-source, smtp-sink"].append(their_load(theirs.pid, port, size, per_session, count))
            report.add(f"the load programs alone: {words} a session",
                       [Metric("per_second", "messages a second", 0, "high"), Metric("source", "source, CPU s per 1000 messages", 3, "low"),
                        Metric("sink", "sink, CPU s per 1000 messages", 3, "low")], rows)
    finally:
        theirs.terminate()
        theirs.wait()
        ours.stop()


def our_load(sink, size, per_session, count):
    before = sink.counters()
    r = source(sink.port, "-s", 20, "-m", count, "-p", per_session, "-l", size)
    return {"per_second": r["per_second"], "source": r["cpu_seconds"] / count * 1000, "sink": sink.since(before)["cpu_seconds"] / count * 1000}


def their_load(sink_pid, port, size, per_session, count):
    sink, source_before, started = process_cpu(sink_pid), children_cpu(), time.monotonic()
    subprocess.run(["/usr/sbin/smtp-source", *([] if per_session == 1 else ["-d"]), "-s", "20", "-m", str(count), "-l", str(size),
                    f"127.0.0.1:{port}"], check=True)
    return {"per_second": count / (time.monotonic() - started), "source": (children_cpu() - source_before) / count * 1000,
            "sink": (process_cpu(sink_pid) - sink) / count * 1000}


def children_cpu():
    u = resource.getrusage(resource.RUSAGE_CHILDREN)
    return u.ru_utime + u.ru_stime


def process_cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


PEERS_BY_DEFAULT = ["postfix", "postfix-packaged", "exim"]  # opensmtpd listens with a queue of 5: few sessions only
