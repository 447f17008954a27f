"""./dev bench check: did a change make us slower? Under three minutes; for developers, not for ./dev test.

What is compared is the CPU per message beside Postfix (tuned) in the same run, with the ratio that is committed in bench/results/check.json:
machines differ, and have other things to do, but they do so for both. A loss of more than a fifth fails, after a second look."""
import json
from pathlib import Path

import relay_bench
import verify_bench
from load import Sink
from peers import ROOT, Postern, free_port, make_peers
from rounds import median

COMMITTED = ROOT / "bench" / "results" / "check.json"
ALLOWED = 0.8
ROUNDS = 3
PEERS_BY_DEFAULT = ["postfix"]


def relay_once(per_session):
    return lambda p, sink, n: relay_bench.measure(p, sink, 1024, per_session, 20, (6000 if per_session == 1 else 15000) if p.name == "postern" else 500)


def cached_once(group):
    def one(p, sink, n):
        count = (4000 if p.name == "postern" else 1000) if group == 1 else (1000 if p.name == "postern" else 20)
        return verify_bench.measure(p, sink, count * group, "-s", 20, "-m", count, "-p", 1 if group == 1 else 100, "-r", group,
                                    "--recipient-set", 200, *verify_bench.addresses("warm-known"))
    return one


def new_once(p, sink, n):
    count = 3000 if p.name == "postern" else 150
    return verify_bench.measure(p, sink, count, "-s", 50, "-m", count, *verify_bench.addresses(f"check-{n}"))


SCENARIOS = {  # name: (needs verification, one round)
    "relay, 1 KiB, 1 message a session": (False, relay_once(1)),
    "relay, 1 KiB, 100 messages a session": (False, relay_once(100)),
    "verify, cached, one RCPT a session": (True, cached_once(1)),
    "verify, cached, RCPTs pipelined by 100": (True, cached_once(100)),
    "verify, new addresses": (True, new_once),
}


class Pairs:
    """Postern and Postfix, with and without verification, each started when it is first asked for."""

    def __init__(self, base, workers):
        self.base, self.workers, self.made = base, workers, {}

    def get(self, verified):
        if verified not in self.made:
            port, notes, at = free_port(), [], self.base / ("verify" if verified else "relay")
            sink = Sink(port, "--fail", verify_bench.UNKNOWN)
            peers = [Postern(at / "postern", port, self.workers, verify=verify_bench.POSTERN if verified else None)]
            peers += make_peers(PEERS_BY_DEFAULT, at, port, notes, verify=verified)
            self.made[verified] = sink, peers
            if notes:
                raise SystemExit(f"bench check: {'; '.join(notes)}")
            for p in peers:
                p.start()
                if verified:
                    verify_bench.warm(p, 200, "warm-known", 0)
        return self.made[verified]

    def stop(self):
        for sink, peers in self.made.values():
            for p in peers:
                p.stop()
            sink.stop()


def ratio(pairs, name, start):
    verified, one = SCENARIOS[name]
    sink, (ours, theirs) = pairs.get(verified)
    rows = {ours: [], theirs: []}
    for n in range(ROUNDS):
        for p in (ours, theirs):
            rows[p].append(one(p, sink, start + n))
    return median(rows[theirs], "cpu_per_1000") / median(rows[ours], "cpu_per_1000")


def check(args, base):
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    pairs, now, bad = Pairs(base, args.workers), {}, []
    try:
        for name in SCENARIOS:
            now[name] = ratio(pairs, name, 0)
            want = committed.get(name)
            if want and now[name] < ALLOWED * want and not args.update:
                now[name] = max(now[name], ratio(pairs, name, 100))  # a second look: something else may have run
            verdict = "" if not want else "ok" if now[name] >= ALLOWED * want else "SLOWER"
            bad += [name] if verdict == "SLOWER" else []
            print(f"  {name:42} 1/{now[name]:.1f} of Postfix's CPU" + (f"   committed 1/{want:.1f}   {verdict}" if want else ""), flush=True)
    finally:
        pairs.stop()
    if args.update:
        COMMITTED.parent.mkdir(exist_ok=True)
        COMMITTED.write_text(json.dumps({k: round(v, 1) for k, v in now.items()}, indent=1) + "\n")
        print(f"written: {Path(COMMITTED).relative_to(ROOT)}")
    elif bad:
        raise SystemExit(f"bench check: more than {100 - ALLOWED * 100:.0f} % worse than committed: {'; '.join(bad)}")
