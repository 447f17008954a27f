"""Real processes on loopback: each test starts what it needs and ends it by pid.

Addresses stand for hosts: 127.0.0.1 a stranger, 127.0.0.2 the internal network (trusted), 127.0.0.3 the edge.
"""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("POSTERN_BIN", ROOT / "build" / "bin"))
STRANGER, INTERNAL, EDGE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
FAILED = pytest.StashKey[bool]()
PATIENCE_S = 60  # how long a condition may take on a loaded machine; never waited out when things work

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "demo")]
from certs import Certificate  # noqa: E402
from ports import free_port  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "sanitized: also run with the programs built with sanitizers")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if outcome.get_result().failed:
        item.stash[FAILED] = True


@pytest.fixture(autouse=True)
def what_passed_leaves_nothing(request, tmp_path):
    """Spools are large: hundreds of tests would fill the disk. Those of a failed test stay, to be looked at."""
    yield
    if not request.node.stash.get(FAILED, False):
        shutil.rmtree(tmp_path, ignore_errors=True)


def eventually(condition, what="", patience_s=PATIENCE_S):
    """Polls until `condition()` is true and returns its value."""
    until = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"did not happen within {patience_s} s: {what or condition}")
        time.sleep(0.02)


def accepts(address, port):
    try:
        socket.create_connection((address, port), timeout=5).close()
        return True
    except OSError:
        return False


class Smtp:
    """A client that says exactly what the test wants, and hears exactly what is answered."""

    def __init__(self, host, port, source=STRANGER, greeting=True, timeout=PATIENCE_S):
        self.sock = socket.create_connection((host, port), timeout=timeout, source_address=(source, 0))
        self.file = self.sock.makefile("rb")
        if greeting:
            assert self.reply().code == 220

    class Reply(str):
        @property
        def code(self):
            return int(self[:3])

    def reply(self):
        lines = []
        while True:
            line = self.file.readline()
            if not line:
                return self.Reply("000 closed")
            assert line.endswith(b"\r\n"), line
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if line[3:4] != b"-":
                return self.Reply("\n".join(lines))

    def write(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def say(self, line):
        self.write((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
        return self.reply()

    def ehlo(self, name="client.example.net"):
        return self.say(f"EHLO {name}")

    def send(self, sender, recipients, content, params=""):
        """A whole transaction: list of replies, the last being the one after the data (or the first refusal that ends it)."""
        recipients = [recipients] if isinstance(recipients, str) else recipients
        replies = [self.say(f"MAIL FROM:<{sender}>{params}")]
        if replies[-1].code != 250:
            return replies
        replies += [self.say(f"RCPT TO:<{r}>") for r in recipients]
        replies.append(self.say("DATA"))
        if replies[-1].code != 354:
            return replies
        self.write(stuff(content) + b".\r\n")
        replies.append(self.reply())
        return replies

    def close(self):
        self.file.close()
        self.sock.close()


def stuff(content):
    content = content if isinstance(content, bytes) else content.encode()
    return b"".join(b"." + l if l.startswith(b".") else l for l in content.splitlines(keepends=True))


def message(subject="test", body="hello\r\n", headers=""):
    return (f"From: alice@example.net\r\nTo: bob@example.com\r\nSubject: {subject}\r\n"
            f"Date: Tue, 24 Nov 2026 04:14:26 +0000\r\nMessage-ID: <{subject.replace(' ', '.')}@example.net>\r\n{headers}\r\n{body}")


class Process:
    def __init__(self, *command, log, **more):
        self.log_path = Path(log)
        with open(self.log_path, "ab") as f:
            self.p = subprocess.Popen([str(c) for c in command], stdout=f, stderr=f, **more)

    def running(self):
        return self.p.poll() is None

    def signal(self, number):
        self.p.send_signal(number)

    def kill(self):
        if self.running():
            self.p.kill()
        return self.p.wait()

    def stop(self, patience_s=PATIENCE_S):
        if self.running():
            self.p.terminate()
        return self.p.wait(timeout=patience_s)

    def log(self):
        return self.log_path.read_text(errors="replace")


class Sink(Process):
    def __init__(self, directory, *options, address=INTERNAL, port=None, name="sink", keep=True):
        self.address, self.port = address, port or free_port(address)
        self.maildir = Path(directory) / name
        self.ids_path = Path(directory) / f"{name}.ids"
        kept = ["--maildir", self.maildir] if keep else []
        super().__init__(BIN / "postern-sink", *kept, "--ids", self.ids_path, *options,
                         f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}", log=Path(directory) / f"{name}.log")
        eventually(lambda: accepts(self.address, self.port) or not self.running(), "the sink listens")
        assert self.running(), self.log()

    def kill(self):
        """Dead, and its port too: io_uring keeps a killed process's sockets open a moment longer."""
        status = super().kill()
        eventually(lambda: not accepts(self.address, self.port), "the port is closed")
        return status

    def messages(self):
        """What came in, as objects with sender, recipients and raw content."""
        found = []
        for path in sorted((self.maildir / "new").glob("*")):
            found.append(Kept(path.read_bytes()))
        return found

    def wait_for(self, count):
        return eventually(lambda: len(self.messages()) >= count and self.messages(), f"{count} messages at the sink")

    def ids(self):
        return self.ids_path.read_text().split() if self.ids_path.exists() else []


class Kept:
    def __init__(self, raw):
        self.recipients, self.rcpt_lines, self.sender = [], [], None
        while raw.startswith(b"X-Sink-"):
            line, raw = raw.split(b"\r\n", 1)
            value = line.split(b"<", 1)[1].split(b">", 1)[0].decode("utf-8", "replace")
            if line.startswith(b"X-Sink-To:"):
                self.recipients.append(value)
                self.rcpt_lines.append(line.decode("utf-8", "replace"))
            else:
                self.sender, self.mail_line = value, line.decode("utf-8", "replace")
        self.raw = raw

    @property
    def parsed(self):
        import email
        import email.policy
        return email.message_from_bytes(self.raw, policy=email.policy.default)


class Gateway:
    """posternd with a configuration of the test's; may be stopped, killed and started again on the same spool."""

    def __init__(self, directory, **settings):
        self.directory = Path(directory)
        self.port, self.metrics_port = free_port(), free_port()
        self.config_path = self.directory / "postern.yaml"
        self.socket = self.directory / "admin.sock"
        self.log_path = self.directory / "postern.log"
        self.process = None
        self.settings = {
            "hostname": "gw.example.com",
            "workers": 2,
            "listeners": [{"address": f"127.0.0.1:{self.port}"}],
            "spool": {"directory": str(self.directory / "spool"), "ring_size": "32MiB"},
            "trusted_networks": [INTERNAL],
            "retry": {"first": "1s", "max": "2s"},
            "timeouts": {"shutdown": "10s"},
            "admin": {"listen": f"127.0.0.1:{self.metrics_port}", "socket": str(self.socket)},
        }
        self.configure(**settings)

    def configure(self, **settings):
        for key, value in settings.items():
            if isinstance(value, dict) and isinstance(self.settings.get(key), dict):
                self.settings[key] = {**self.settings[key], **value}
            else:
                self.settings[key] = value
        self.config_path.write_text(json.dumps(self.settings, indent=1))  # JSON is YAML

    def start(self, wait=True):
        before = len(self.log()) if self.log_path.exists() else 0
        self.process = Process(BIN / "posternd", "-c", self.config_path, log=self.log_path)
        if wait:
            eventually(lambda: re.search(r'event["=:]+ready', self.log()[before:]) or not self.process.running(), "the gateway is ready")
            assert self.process.running(), self.log()
        return self

    def stop(self):
        return self.process.stop()

    def kill(self):
        return self.process.kill()

    def log(self):
        return self.log_path.read_text(errors="replace")

    def events(self, name):
        """Log lines of one event as dicts of their fields."""
        found = []
        for line in self.log().splitlines():
            if f" event={name} " in line + " ":
                fields = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)', line)
                found.append({k: v.strip('"') for k, v in fields})
        return found

    def smtp(self, source=STRANGER, **more):
        return Smtp("127.0.0.1", self.port, source, **more)

    def cli(self, *args, check=True):
        r = subprocess.run([str(BIN / "postern"), "-s", str(self.socket), *args], capture_output=True, text=True, timeout=PATIENCE_S)
        assert not check or r.returncode == 0, (r.returncode, r.stdout, r.stderr)
        return r

    def status(self):
        return json.loads(self.cli("--json", "status").stdout)

    def metrics_text(self):
        import urllib.request
        return urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=PATIENCE_S).read().decode()

    def metric(self, name, **labels):
        total = 0.0
        for line in self.metrics_text().splitlines():
            if line.startswith("#"):
                continue
            m = re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line)
            if m and m[1] == name and all(f'{k}="{v}"' in (m[2] or "") for k, v in labels.items()):
                total += float(m[3])
        return total

    def queued(self):
        return self.status()["queue"]["messages"]


def source(gateway_port, *options, wait=True, log=None, bind=None):
    command = [str(BIN / "postern-source"), *map(str, options), f"127.0.0.1:{gateway_port}"]
    if not wait:
        return Process(*command, log=log)
    r = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return r


@pytest.fixture
def run(tmp_path):
    """run(Sink, ...), run(Gateway, ...): started things that the test's end stops."""
    started = []

    def start(kind, *args, **more):
        thing = kind(tmp_path, *args, **more)
        if isinstance(thing, Gateway):
            thing.start()
        started.append(thing)
        return thing

    yield start
    for thing in reversed(started):
        process = thing.process if isinstance(thing, Gateway) else thing
        if process:
            process.kill()


@pytest.fixture
def made(tmp_path):
    """made("label", "name", ...): a certificate."""
    def make(label, *names, **more):
        return Certificate(tmp_path, label, *names, **more)
    return make


@pytest.fixture
def scene(run):
    """The usual scene with TLS: scene(tls settings, more settings) -> gateway, internal sink, edge sink."""
    def start(tls, kind=Gateway, **settings):
        internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
        return run(kind, **{"tls": tls, **routes(internal, edge), **settings}), internal, edge
    return start


@pytest.fixture
def pair(run):
    """The usual scene: (gateway, internal sink, edge sink)."""
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, **routes(internal, edge))
    return gateway, internal, edge


def routes(internal, edge):
    return {
        "destination": {"mode": "edge", "host": EDGE, "port": edge.port},
        "domains": [{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": internal.port}}],
    }
