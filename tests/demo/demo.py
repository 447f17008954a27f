"""The demo behind `./dev run`: an internal server and an edge (postern-sink) with the gateway between them, on loopback.

Loopback addresses stand for the hosts: 127.0.0.1 is a stranger, 127.0.0.2 the internal network (trusted), 127.0.0.3 the edge.
With --once: sends every message of tests/corpus both ways, checks that each arrived exactly once and byte for byte (trace headers
that the gateway adds in front aside), and stops.
"""
import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("POSTERN_BIN", ROOT / "build" / "bin"))
INTERNAL, EDGE = "127.0.0.2", "127.0.0.3"
sys.path.insert(0, str(ROOT / "tests"))
from ports import free_port  # noqa: E402

ADDED = (b"received:", b"date:", b"message-id:")


def must_be_free(address, port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
        except OSError as e:
            raise SystemExit(f"{address}:{port} cannot be used: {e.strerror}. Is another demo running?")


class Smtp:
    """The least client that lets us say exactly what we mean."""

    def __init__(self, host, port, source):
        self.sock = socket.create_connection((host, port), timeout=30, source_address=(source, 0))
        self.file = self.sock.makefile("rb")
        self.expect(220)

    def expect(self, code):
        while True:
            line = self.file.readline()
            if not line:
                raise RuntimeError("the gateway closed the connection")
            if line[3:4] != b"-":
                break
        if not line.startswith(str(code).encode()):
            raise RuntimeError(line.decode(errors="replace").strip())

    def say(self, line, code):
        self.sock.sendall(line.encode() + b"\r\n")
        self.expect(code)

    def send(self, sender, recipient, content):
        self.say(f"MAIL FROM:<{sender}> BODY=8BITMIME", 250)
        self.say(f"RCPT TO:<{recipient}>", 250)
        self.say("DATA", 354)
        stuffed = b"".join((b"." + l if l.startswith(b".") else l) for l in content.splitlines(keepends=True))
        self.sock.sendall(stuffed + b".\r\n")
        self.expect(250)

    def quit(self):
        self.say("QUIT", 221)
        self.sock.close()


class Demo:
    def __init__(self, directory, gateway_port, metrics_port, internal_port, edge_port):
        self.directory = Path(directory)
        self.gateway, self.metrics, self.internal, self.edge = gateway_port, metrics_port, internal_port, edge_port
        self.processes = []

    def config(self):
        return f"""# The demo's configuration; a real one differs in names and addresses only.
hostname: gw.example.com
listeners: [ {{ address: "127.0.0.1:{self.gateway}" }} ]
spool: {{ directory: {self.directory}/spool, ring_size: 64MiB }}
destination: {{ mode: edge, host: {EDGE}, port: {self.edge}, mx: false }}
trusted_networks: [{INTERNAL}]
domains:
  - {{ name: example.com, local: true, route: {{ hosts: [{INTERNAL}], port: {self.internal} }} }}
admin: {{ listen: "127.0.0.1:{self.metrics}", socket: {self.directory}/admin.sock }}
"""

    def start(self, *command, **more):
        p = subprocess.Popen([str(c) for c in command], **more)
        self.processes.append(p)
        return p

    def up(self):
        for address, port in ((INTERNAL, self.internal), (EDGE, self.edge), ("127.0.0.1", self.gateway), ("127.0.0.1", self.metrics)):
            must_be_free(address, port)
        for name, address, port in (("internal", INTERNAL, self.internal), ("edge", EDGE, self.edge)):
            self.start(BIN / "postern-sink", "--quiet", "--maildir", self.directory / name, f"{address}:{port}")
        (self.directory / "postern.yaml").write_text(self.config())
        self.log = open(self.directory / "postern.log", "wb")
        self.start(BIN / "posternd", "-c", self.directory / "postern.yaml", stderr=self.log)
        for address, port in ((INTERNAL, self.internal), (EDGE, self.edge), ("127.0.0.1", self.gateway)):
            self.wait_for(address, port)

    def wait_for(self, address, port):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            for p in self.processes:
                if p.poll() is not None:
                    sys.stderr.write((self.directory / "postern.log").read_text(errors="replace"))
                    raise SystemExit(f"{p.args[0]} ended with status {p.returncode}")
            try:
                socket.create_connection((address, port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"nothing answers on {address}:{port}")

    def down(self):
        for p in reversed(self.processes):
            if p.poll() is None:
                p.terminate()
        return [p.wait(timeout=60) for p in reversed(self.processes)]


def received(maildir):
    """Messages in a sink's Maildir as (recipient, content)."""
    found = []
    for path in sorted((Path(maildir) / "new").glob("*")):
        raw = path.read_bytes()
        recipient = ""
        while raw.startswith(b"X-Sink-"):
            line, raw = raw.split(b"\r\n", 1)
            if line.startswith(b"X-Sink-To:"):
                recipient = line.split(b"<", 1)[1].split(b">", 1)[0].decode()
        found.append((recipient, raw))
    return found


def without_trace(arrived, sent):
    """True when `arrived` is `sent` behind nothing but header lines that a gateway may add."""
    if not arrived.endswith(sent):
        return False
    added = arrived[: len(arrived) - len(sent)]
    names = [l for l in added.split(b"\r\n") if l and l[:1] not in b" \t"]
    return bool(names) and names[0].lower().startswith(b"received:") and all(l.lower().startswith(ADDED) for l in names)


def once(demo):
    corpus = sorted((ROOT / "tests" / "corpus").glob("*.eml"))
    ways = (("edge → gateway → internal", EDGE, "example.com", "internal"), ("internal → gateway → edge", INTERNAL, "example.org", "edge"))
    wanted = {}
    for way, source, domain, maildir in ways:
        client = Smtp("127.0.0.1", demo.gateway, source)
        client.say("EHLO demo.example.net", 250)
        for path in corpus:
            content = path.read_bytes()
            recipient = f"{path.stem}@{domain}"
            client.send("" if "bounce" in path.name else "alice@example.net", recipient, content)
            wanted[(maildir, recipient)] = (way, path.name, content)
        client.quit()
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if sum(len(received(demo.directory / m)) for m in ("internal", "edge")) >= len(wanted):
            break
        time.sleep(0.05)
    demo.down()  # drains: what would come a second time has come by now
    arrived = {}
    for maildir in ("internal", "edge"):
        for recipient, content in received(demo.directory / maildir):
            arrived.setdefault((maildir, recipient), []).append(content)
    good = 0
    for key, (way, name, content) in wanted.items():
        copies = arrived.pop(key, [])
        if len(copies) == 1 and without_trace(copies[0], content):
            good += 1
            print(f"ok    {way}  {name:22} {len(content):7} bytes")
        elif len(copies) != 1:
            print(f"FAIL  {way}  {name:22} arrived {len(copies)} times")
        else:
            print(f"FAIL  {way}  {name:22} arrived changed")
    for key in arrived:
        print(f"FAIL  a message nobody sent arrived at {key[0]} for {key[1]}")
    print(f"{good} of {len(wanted)} messages arrived exactly once, byte for byte")
    return good == len(wanted) and not arrived


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="send the samples both ways, check them, stop")
    args = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="postern-demo-")
    if args.once:
        demo = Demo(directory, free_port("127.0.0.1"), free_port("127.0.0.1"), free_port(INTERNAL), free_port(EDGE))
    else:
        demo = Demo(directory, 2525, 9725, 2526, 2527)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ok = False
    try:
        demo.up()
        if args.once:
            ok = once(demo)
            return 0 if ok else 1
        print(f"""
internal server  {INTERNAL}:{demo.internal}   keeps mail in {directory}/internal/new
edge             {EDGE}:{demo.edge}   keeps mail in {directory}/edge/new
gateway          127.0.0.1:{demo.gateway}
metrics          http://127.0.0.1:{demo.metrics}/metrics
control          {BIN}/postern -s {directory}/admin.sock status
configuration    {directory}/postern.yaml
log              {directory}/postern.log

Send mail in, as a stranger:
  swaks --server 127.0.0.1:{demo.gateway} --from alice@example.net --to bob@example.com
and out, as the internal server:
  swaks --server 127.0.0.1:{demo.gateway} --local-interface {INTERNAL} --from bob@example.com --to alice@example.org

Ctrl-C ends everything and removes {directory}.""", flush=True)
        while all(p.poll() is None for p in demo.processes):
            time.sleep(0.5)
        print("a process ended by itself", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        ok = True
        return 0
    finally:
        demo.down()
        if ok or not demo.processes:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            print(f"left for a look: {directory}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
