"""./dev bench mixed: a day's mix with everything switched on: recipients verified, three of ten unknown, sizes and session lengths mixed.

Sizes: the distribution of a mail provider's traffic posted to freebsd-net in October 2002, as J. Buchner gives it in "Modelling realistic
email traffic" (2009): half below 4 KiB, a tenth above 64 KiB, up to 4 MiB; the middle of each power of two, mean about 54 KiB.
Sessions: half of the messages come one by one, half twenty a session. 2000 recipients, asked for once before (cached)."""
import subprocess
import json
import time

from load import Sink
from peers import BIN, Postern, free_port, make_peers
from rounds import Metric, Report
from verify_bench import POSTERN, UNKNOWN, warm

SIZES = ("1536:2353,3072:2564,6144:1843,12288:1198,24576:578,49152:511,98304:283,196608:244,393216:150,786432:125,1572864:147,3145728:4")
METRICS = [Metric("per_second", "messages and refusals a second", 0, "high"), Metric("cpu_per_1000", "CPU seconds per 1000 of them", 3, "low"),
           Metric("mb_per_second", "MB a second", 1, "high"), Metric("rcpt_p50_ms", "reply to RCPT, p50 ms", 2, "low"),
           Metric("dot_p50_ms", "content to 250, p50 ms", 1, "low"), Metric("dot_p99_ms", "content to 250, p99 ms", 1, "low"),
           Metric("load_cpu_per_1000", "source + sink, CPU s per 1000", 3)]
RECIPIENTS = 2000


def measure(peer, sink, count):
    before, cpu, started = sink.counters(), peer.group.cpu_seconds(), time.monotonic()
    running = [subprocess.Popen([BIN / "postern-source", "--json", "--bind", "127.0.0.3", "-s", str(sessions), "-m", str(count // 2), "-p", str(per_session),
                                 "-l", SIZES, "--unknown", "30", "--recipient-set", str(RECIPIENTS), "-t", "user.mix.%@example.com",
                                 "--unknown-to", "unknown.mix.%@example.com", f"127.0.0.1:{peer.port}"], stdout=subprocess.PIPE, text=True)
               for sessions, per_session in ((20, 1), (20, 20))]
    results = [json.loads(p.communicate()[0]) for p in running]
    messages = sum(r["messages"] for r in results)
    turned = sum(r["turned_away"] for r in results)
    if messages + turned != count // 2 * 2 or any(r["rcpt_wrong"] for r in results):
        raise SystemExit(f"bench: {peer.name}: {results}")
    came = sink.wait(before, messages)
    elapsed = time.monotonic() - started
    if came["damaged"] or came["messages"] - came["copies"] != messages:
        raise SystemExit(f"bench: {peer.name}: {messages} taken, {came}")
    time.sleep(0.3)
    cpu, load = peer.group.cpu_seconds() - cpu, sum(r["cpu_seconds"] for r in results) + came["cpu_seconds"]
    single = results[0]["stages"]
    return {"per_second": count / elapsed, "cpu_per_1000": cpu / count * 1000, "mb_per_second": came["bytes"] / elapsed / 1e6,
            "rcpt_p50_ms": single["rcpt"]["p50_ms"], "dot_p50_ms": single["dot"]["p50_ms"], "dot_p99_ms": single["dot"]["p99_ms"],
            "load_cpu_per_1000": load / count * 1000}


def mixed(args, base):
    report, notes = Report("mixed", args), []
    sink_port = free_port()
    sink = Sink(sink_port, "--fail", UNKNOWN)
    peers = [Postern(base / "postern", sink_port, args.workers, verify=POSTERN), *make_peers(args.peer, base, sink_port, notes, verify=True)]
    shrink = 5 if args.quick else 1
    with report.running(peers, sink, notes):
        for p in peers:
            warm(p, RECIPIENTS, "mix", 30)
        report.run("a day's mix, 30 % unknown recipients", peers,
                   lambda p, _: measure(p, sink, {"postern": 20000, "exim": 400}.get(p.name, 2000) // shrink), METRICS)
    return report.finish()


PEERS_BY_DEFAULT = ["postfix", "exim"]
