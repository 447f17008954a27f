"""postern-source and postern-sink as the benches use them."""
import json
import signal
import subprocess
import time

from peers import BIN, wait_for_port


class Sink:
    """The server behind every peer: one for a whole run, so that no peer sees it go; what came is the difference of two looks."""

    def __init__(self, port, *options, threads=1):
        self.port = port
        self.process = subprocess.Popen([BIN / "postern-sink", "--check", "--chunking", "-t", str(threads), *options, f"127.0.0.1:{port}"],
                                        stdout=subprocess.PIPE, text=True)
        wait_for_port(port, "postern-sink")

    def counters(self):
        self.process.send_signal(signal.SIGUSR1)
        return {k: float(v) for k, v in (f.split("=") for f in self.process.stdout.readline().split())}

    def since(self, before):
        now = self.counters()
        return {k: now[k] - before[k] for k in now}

    def wait(self, before, messages, seconds=300):
        """What came since `before`, when it is `messages` messages."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            came = self.since(before)
            if came["messages"] >= messages:
                return came
            time.sleep(0.02)
        raise SystemExit(f"bench: {came['messages']:.0f} of {messages} messages came within {seconds} s: lost or stuck")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def source(port, *options, ok=True):
    """Runs postern-source; its results. ok: False when refusals are part of what is measured."""
    r = subprocess.run([BIN / "postern-source", "--json", *map(str, options), f"127.0.0.1:{port}"], capture_output=True, text=True)
    if not r.stdout.startswith("{") or (ok and r.returncode):
        raise SystemExit(f"bench: the source failed on port {port}: {r.stdout}{r.stderr}")
    return json.loads(r.stdout)
