"""Rounds, interleaved over the peers (A B A B), and what is made of them: a table, JSON, a chart.

A slow minute of the machine falls on all peers alike. Every figure is the median of its rounds, with the least and the most."""
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections import namedtuple
from pathlib import Path

import chart

# key in a round's results; words for the table; decimals; which way is better ("" = neither: no ratio)
Metric = namedtuple("Metric", "key label decimals better", defaults=("",))


class Report:
    def __init__(self, what, args):
        self.what, self.args, self.scenarios, self.notes, self.extra = what, args, [], [], {}
        self.machine = machine()
        print(f"bench {what}: {self.machine}", flush=True)

    def note(self, text):
        self.notes.append(text)
        print(f"  note: {text}", flush=True)

    @contextlib.contextmanager
    def running(self, peers, sink, notes=(), describe=True):
        """Starts the peers and tells of them; stops them, and the sink, whatever happens."""
        try:
            for p in peers:
                p.start()
            for n in notes:
                self.note(n)
            if describe:
                self.peers(peers)
            yield
        finally:
            for p in peers:
                p.stop()
            sink.stop()

    def peers(self, peers):
        self.settings = {p.name: p.settings for p in peers}
        for p in peers:
            print(f"  {p.name}: {p.settings}")

    def run(self, title, peers, one, metrics, rounds=None):
        """one(peer, round) measures a peer once and gives a dict."""
        if self.args.only and self.args.only not in title:
            return
        rows = {p.name: [] for p in peers}
        for n in range(rounds or (1 if self.args.quick else self.args.rounds)):
            for p in peers:
                rows[p.name].append(one(p, n))
        self.add(title, metrics, rows)

    def add(self, title, metrics, rows):
        self.scenarios.append({"title": title, "metrics": [m._asdict() for m in metrics], "rows": rows})
        print_scenario(self.scenarios[-1])

    def median(self, title, peer, key):
        """Of a scenario that has run; None when it has not."""
        return next((median(s["rows"][peer], key) for s in self.scenarios if s["title"] == title), None)

    def finish(self):
        if self.notes:
            print("\n" + "\n".join(f"note: {n}" for n in self.notes))
        directory = Path(self.args.results)
        directory.mkdir(parents=True, exist_ok=True)
        stem = directory / self.what
        record = {"bench": self.what, "machine": self.machine, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                  "quick": self.args.quick, "settings": self.settings, "notes": self.notes, "scenarios": self.scenarios, **self.extra}
        stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        stem.with_suffix(".svg").write_text(chart.svg(record))
        print(f"\nwritten: {stem}.json, {stem}.svg")
        return record


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB, Linux {platform.release()}, load {os.getloadavg()[0]:.1f} at the start"


def values(rows, key):
    return [r[key] for r in rows if r.get(key) is not None]


def median(rows, key):
    v = values(rows, key)
    return statistics.median(v) if v else None


def print_scenario(scenario):
    rows, names = scenario["rows"], list(scenario["rows"])
    width = max(24, *(len(n) + 18 for n in names))
    print(f"\n{scenario['title']}\n  {'':44}" + "".join(f"{n:>{width}}" for n in names))
    for m in scenario["metrics"]:
        cells = []
        ours = median(rows[names[0]], m["key"])
        for name in names:
            v = values(rows[name], m["key"])
            if not v:
                cells.append("-")
                continue
            d = m["decimals"]
            text = f"{statistics.median(v):.{d}f}"
            if len(v) > 1:
                text += f" ({min(v):.{d}f}–{max(v):.{d}f})"
            if name != names[0] and m["better"] and ours and statistics.median(v):
                text += f" {ratio_text(ours, statistics.median(v), m['better'])}"
            cells.append(text)
        print(f"  {m['label']:44}" + "".join(f"{c:>{width}}" for c in cells))
    sys.stdout.flush()


def ratio_text(ours, theirs, better):
    """How many times better we are."""
    r = ours / theirs if better == "high" else theirs / ours
    return f"[{r:.1f} ×]" if r < 100 else f"[{r:.0f} ×]"
