"""./dev bench tls: STARTTLS in: full handshakes a second, and mail in bulk through it, beside the same in the clear.

Key: ECDSA P-256. The client makes a full TLS 1.3 handshake each time (it keeps no tickets)."""
import subprocess
import time

from load import Sink, source
from peers import Postern, free_port, make_peers
from rounds import Metric, Report

HANDSHAKES = [Metric("per_second", "handshakes a second", 0, "high"), Metric("cpu_ms", "CPU ms per session with STARTTLS", 3, "low"),
              Metric("clear_ms", "CPU ms per session in the clear", 3, "low"), Metric("handshake_ms", "difference: the handshake", 3, "low"),
              Metric("of_sign", "of what one core can sign (openssl speed), %", 0), Metric("p50_ms", "STARTTLS to done, p50 ms", 2, "low"),
              Metric("load_ms", "source, CPU ms per handshake", 3)]
BULK = [Metric("mb_per_second", "MB a second, TLS", 0, "high"), Metric("cpu_per_gb", "CPU seconds per GB, TLS", 2, "low"),
        Metric("clear_cpu_per_gb", "CPU seconds per GB, in the clear", 2, "low")]


def certificate(base):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    "/CN=gw.example.com", "-keyout", str(base / "key.pem"), "-out", str(base / "cert.pem")], check=True, capture_output=True)
    (base / "key.pem").chmod(0o644)  # peers read it as users of their own
    return str(base / "cert.pem"), str(base / "key.pem")


def signatures_per_second():
    """One core, this machine, now."""
    r = subprocess.run(["openssl", "speed", "-seconds", "1", "ecdsap256"], capture_output=True, text=True, check=True)
    return float(r.stdout.splitlines()[-1].split()[-2])


def hello(peer, count, *tls):
    cpu = peer.group.cpu_seconds()
    r = source(peer.port, "--until", "ehlo", "-s", 50, "-m", count, *tls)
    time.sleep(0.2)
    return r, (peer.group.cpu_seconds() - cpu) / count * 1000


def handshakes(peer, count):
    clear, clear_ms = hello(peer, count)
    speed = signatures_per_second()
    r, cpu_ms = hello(peer, count, "--tls")
    if r["tls_handshakes"] != count:
        raise SystemExit(f"bench: {peer.name}: {r['tls_handshakes']} handshakes of {count}")
    handshake_ms = max(cpu_ms - clear_ms, 1e-6)
    return {"per_second": count / r["seconds"], "cpu_ms": cpu_ms, "clear_ms": clear_ms, "handshake_ms": handshake_ms,
            "of_sign": 100 * (1000 / handshake_ms) / speed, "p50_ms": r["stages"]["tls"]["p50_ms"],
            "load_ms": (r["cpu_seconds"] - clear["cpu_seconds"]) / count * 1000}


def bulk(peer, sink, count, size=10 * 2**20):
    def once(*tls):
        before, cpu = sink.counters(), peer.group.cpu_seconds()
        r = source(peer.port, "-s", 4, "-m", count, "-p", 10, "-l", size, *tls)
        came = sink.wait(before, count)
        if came["damaged"] or came["checked"] != count:
            raise SystemExit(f"bench: {peer.name}: damaged or lost: {came}")
        time.sleep(0.3)
        return r, (peer.group.cpu_seconds() - cpu) / (count * size) * 1e9
    _, clear = once()
    r, cpu = once("--tls")
    return {"mb_per_second": count * size / r["seconds"] / 1e6, "cpu_per_gb": cpu, "clear_cpu_per_gb": clear}


def tls(args, base):
    report, notes = Report("tls", args), []
    sink_port = free_port()
    sink = Sink(sink_port)
    pair = certificate(base)
    peers = [Postern(base / "postern", sink_port, args.workers, tls=pair), *make_peers(args.peer, base, sink_port, notes, tls=pair)]
    shrink = 5 if args.quick else 1
    with report.running(peers, sink, notes):
        report.run("full handshakes, ECDSA P-256, 50 sessions", peers,
                   lambda p, _: handshakes(p, {"postern": 10000, "exim": 500}.get(p.name, 2000) // shrink), HANDSHAKES)
        report.run("10 MiB messages, 4 sessions, durable and delivered in the clear", peers,
                   lambda p, _: bulk(p, sink, (40 if p.name == "postern" else 20) // shrink), BULK)
    return report.finish()


PEERS_BY_DEFAULT = ["postfix", "exim"]
