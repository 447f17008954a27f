"""Postern, from build/bin."""
import subprocess
from pathlib import Path

from .base import BIN, Cgroup, free_port, wait_for_port


class Postern:
    def __init__(self, directory, sink_port, workers="auto", verify=None, tls=None, sessions=20000, ring="256MiB", domains="", more="",
                 name="postern"):
        self.name = name
        self.directory, self.port, self.group = Path(directory), free_port(), Cgroup(Path(directory).name)
        self.directory.mkdir(parents=True)
        (self.directory / "postern.yaml").write_text(f"""
hostname: gw.example.com
workers: {workers}
listeners: [ {{ address: "127.0.0.1:{self.port}" }} ]
spool: {{ directory: {self.directory}/spool, ring_size: {ring} }}
destination: {{ mode: dns }}
trusted_networks: [127.0.0.2]
edge_networks: [127.0.0.3]
domains: [ {{ name: example.com, local: true, route: {{ hosts: [127.0.0.1], port: {sink_port} }} }}{domains} ]
limits: {{ sessions: {sessions}, sessions_per_client: 0 }}
admin: {{ socket: {self.directory}/admin.sock }}
log: {{ file: {self.directory}/log }}
{f"verify: {verify}" if verify else ""}
{f"tls: {{ certificates: [ {{ chain: {tls[0]}, key: {tls[1]} }} ] }}" if tls else ""}
{more}
""")
        self.settings = f"workers {workers}, ring {ring} each, direct I/O with RWF_DSYNC, log on" + (f"; verify {verify}" if verify else "")

    def start(self):
        self.process = subprocess.Popen([BIN / "posternd", "-c", self.directory / "postern.yaml"], preexec_fn=self.group.enter)
        wait_for_port(self.port, self.name)

    def metrics(self):
        """Every sample by its name and labels."""
        r = subprocess.run(["curl", "-sS", "--fail", "--unix-socket", self.directory / "admin.sock", "http://postern/metrics"],
                           capture_output=True, text=True, check=True)
        return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in r.stdout.splitlines() if not line.startswith("#"))}

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.group.remove()
