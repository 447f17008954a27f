"""Haraka from the npm registry, installed under build/peers; a process a core, its disk queue, and the sink as the only next hop."""
import shutil
import subprocess
from pathlib import Path

from .base import ROOT, Cgroup, Unavailable, free_port, wait_for_port

VERSION = "3.3.4"

PLUGIN = """
exports.hook_lookup_rdns = (next) => next(OK, 'source.example.net')
exports.hook_connect = (next, connection) => {{ connection.relaying = true; next() }}
exports.hook_rcpt = (next) => next(OK)
exports.hook_get_mx = (next) => next(OK, [{{ priority: 0, exchange: '127.0.0.1', port: {sink_port} }}])
"""

FILES = {
    "config/smtp.ini": "listen=127.0.0.1:{port}\nnodes=cpus\n",
    "config/plugins": "bench\n",
    "config/me": "gw.example.com\n",
    "config/databytes": "52428800\n",
    "config/log.ini": "[main]\nlevel=info\n",  # a line per message, as everybody writes
    "config/outbound.ini": "concurrency_max=50\nenable_tls=false\nlocal_mx_ok=true\n",
    "plugins/bench.js": PLUGIN,
}


def installed():
    """The program; npm says what it lacks."""
    at = ROOT / "build" / "peers" / "haraka"
    program = at / "node_modules" / "Haraka" / "bin" / "haraka"
    if program.exists():
        return program
    if not shutil.which("npm"):
        raise Unavailable("there is no npm to install Haraka with")
    at.mkdir(parents=True, exist_ok=True)
    r = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--omit=dev", "--omit=optional", "--ignore-scripts", f"Haraka@{VERSION}"],
                       cwd=at, capture_output=True, text=True)
    if r.returncode:
        raise Unavailable(f"npm install Haraka failed: {r.stderr.strip().splitlines()[-1:]}")
    return program


class Haraka:
    name = "haraka"
    settings = f"{VERSION}, a process a core, no reverse look-ups, 50 connections to the sink, its disk queue: written, but not synced, before the 250"

    def __init__(self, directory, sink_port, verify=False, tls=None):
        if verify:
            raise Unavailable("Haraka asks servers only as a proxy, without queue and cache")
        if tls:
            raise Unavailable("not set up for TLS here")
        self.program, self.directory = installed(), Path(directory)
        self.port, self.group = free_port(), Cgroup("haraka")
        for name, text in FILES.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(port=self.port, sink_port=sink_port))
        shutil.copy(self.program.parents[1] / "config" / "connection.ini", self.directory / "config")  # it does not greet without
        (self.directory / "queue").mkdir()

    def start(self):
        self.log = open(self.directory / "log", "wb")
        self.process = subprocess.Popen(["node", self.program, "-c", self.directory], preexec_fn=self.group.enter, stdout=self.log, stderr=self.log)
        wait_for_port(self.port, self.name)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.group.remove()
