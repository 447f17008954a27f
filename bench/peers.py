"""The gateways that a bench compares: each runs in a root of its own and in a cgroup of its own, from which its CPU time is read."""
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from ports import free_port  # noqa: E402,F401

BIN = Path(os.environ.get("POSTERN_BIN", ROOT / "build" / "bin"))


def wait_for_port(port, what, seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"bench: {what} does not answer on port {port}")


class Cgroup:
    """CPU time of a group of processes, children that ended included. cgroup v2 (cpu.stat) or v1 (cpuacct.usage)."""

    def __init__(self, name):
        name = f"postern-bench-{os.getpid()}-{name}"
        if Path("/sys/fs/cgroup/cgroup.controllers").exists():
            self.path, self.v2 = Path("/sys/fs/cgroup") / name, True
        else:
            self.path, self.v2 = Path("/sys/fs/cgroup/cpuacct") / name, False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise SystemExit(f"bench: cannot make the cgroup {self.path} ({e.strerror}); run as root, with cgroups mounted")

    def enter(self):
        """In the child, before exec."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def cpu_seconds(self):
        if self.v2:
            for line in (self.path / "cpu.stat").read_text().splitlines():
                if line.startswith("usage_usec "):
                    return int(line.split()[1]) / 1e6
        return int((self.path / "cpuacct.usage").read_text()) / 1e9

    def remove(self):
        for _ in range(100):
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.05)


class Postern:
    name = "postern"

    def __init__(self, directory, sink_port, workers="auto", ring="256MiB", domains="", more=""):
        self.directory, self.port, self.group = Path(directory), free_port(), Cgroup(Path(directory).name)
        self.directory.mkdir(parents=True)
        (self.directory / "postern.yaml").write_text(f"""
hostname: gw.example.com
workers: {workers}
listeners: [ {{ address: "127.0.0.1:{self.port}" }} ]
spool: {{ directory: {self.directory}/spool, ring_size: {ring} }}
destination: {{ mode: dns }}
trusted_networks: [127.0.0.2]
domains: [ {{ name: example.com, local: true, route: {{ hosts: [127.0.0.1], port: {sink_port} }} }}{domains} ]
limits: {{ sessions_per_client: 0 }}
admin: {{ socket: {self.directory}/admin.sock }}
log: {{ file: {self.directory}/log }}
{more}""")
        self.settings = f"workers {workers}, ring {ring} each, direct I/O with RWF_DSYNC, log on"

    def start(self):
        self.process = subprocess.Popen([BIN / "posternd", "-c", self.directory / "postern.yaml"], preexec_fn=self.group.enter)
        wait_for_port(self.port, self.name)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.group.remove()


POSTFIX_MAIN = """
compatibility_level = 3.6
queue_directory = {d}/spool
data_directory = {d}/lib
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
maillog_file = {d}/maillog
maillog_file_prefixes = {d}
mail_owner = postfix
setgid_group = postdrop
myhostname = gw.example.com
mydestination =
alias_maps =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relay_domains = example.com
transport_maps = inline:{{ example.com=smtp:[127.0.0.1]:{sink_port} }}
smtp_dns_support_level = disabled
smtpd_client_connection_count_limit = 0
"""
POSTFIX_TUNED = """
default_process_limit = 300
smtpd_peername_lookup = no
in_flow_delay = 0
smtp_destination_concurrency_limit = 50
initial_destination_concurrency = 20
smtp_connection_cache_destinations = [127.0.0.1]:{sink_port}
qmgr_message_active_limit = 50000
"""


class Postfix:
    def __init__(self, directory, sink_port, tuned=True):
        self.name = "postfix tuned" if tuned else "postfix as packaged"
        self.directory, self.port, self.group = Path(directory), free_port(), Cgroup("postfix")
        self.etc = self.directory / "etc"
        self.etc.mkdir(parents=True)
        for p in ("spool", "lib"):
            (self.directory / p).mkdir()
        shutil.chown(self.directory / "lib", "postfix")
        text = POSTFIX_MAIN + (POSTFIX_TUNED if tuned else "")
        (self.etc / "main.cf").write_text(text.format(d=self.directory, sink_port=sink_port))
        proto = Path("/usr/share/postfix/master.cf.dist").read_text()
        lines = []
        for line in proto.splitlines():
            fields = line.split()
            if fields and fields[:2] == ["smtp", "inet"]:
                line = f"127.0.0.1:{self.port} inet n - n - - smtpd"
            elif len(fields) >= 8 and not line.startswith(("#", " ")):
                fields[4] = "n"  # not chrooted: the root is its own already
                line = " ".join(fields)
            lines.append(line)
        (self.etc / "master.cf").write_text("\n".join(lines) + "\n")
        self.settings = ("default_process_limit 300, no reverse look-ups, connection cache, destination concurrency 50" if tuned
                         else "Debian's settings") + ", fsync as always"

    def start(self):
        subprocess.run(["postfix", "-c", self.etc, "start"], check=True, preexec_fn=self.group.enter, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        wait_for_port(self.port, self.name)

    def stop(self):
        subprocess.run(["postfix", "-c", self.etc, "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.group.remove()


def available(name):
    return name == "postern" or shutil.which("postfix", path="/usr/sbin:/usr/bin") is not None
