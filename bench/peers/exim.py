"""Exim as Debian packages it (exim4-daemon-light), unpacked beside the system and run with a configuration and spool of its own."""
import os
import subprocess
from pathlib import Path

from .base import Cgroup, Unavailable, free_port, private_namespace, unpack, wait_for_port

CONFIGURATION = """
exim_path = {program}
primary_hostname = gw.example.com
spool_directory = {d}/spool
log_file_path = {d}/log/%slog
pid_file_path = {d}/exim.pid
keep_environment = LD_LIBRARY_PATH
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
domainlist relay_to = example.com
acl_smtp_rcpt = rcpt
deliver_drop_privilege
host_lookup =
{tls}
{extra}
smtp_accept_max = 300
smtp_accept_max_per_host = 300
smtp_accept_queue_per_connection = 0
smtp_accept_max_nonmail = 1000000
smtp_accept_max_per_connection = 1000000
smtp_connect_backlog = 1000
split_spool_directory
message_size_limit = 50M

begin acl
rcpt:
  require domains = +relay_to
{verify}
  accept

begin routers
inside:
  driver = manualroute
  domains = +relay_to
  route_list = * 127.0.0.1
  self = send
  transport = out

begin transports
out:
  driver = smtp
  port = {sink_port}
  hosts_try_prdr =

begin retry
* * F,1h,1m
"""


class Exim:
    name = "exim"

    def __init__(self, directory, sink_port, verify=False, tls=None, extra=""):
        root = unpack("exim4-daemon-light", "exim4-base", "libidn12")
        program = root / "usr/sbin/exim4"
        program.chmod(0o755)  # not set-uid: it would forget LD_LIBRARY_PATH, and needs no root once it listens
        self.environment = {**os.environ, "LD_LIBRARY_PATH": str(root / "usr/lib/x86_64-linux-gnu")}
        r = subprocess.run(["ldd", program], env=self.environment, capture_output=True, text=True)
        missing = [line.split()[0] for line in r.stdout.splitlines() if "not found" in line]
        if missing:
            raise Unavailable(f"Exim needs {' '.join(missing)}")
        self.directory, self.port, self.group = Path(directory), free_port(), Cgroup("exim")
        self.directory.mkdir(parents=True)
        callout = "  require verify = recipient/callout=30s" if verify else ""
        (self.directory / "exim.conf").write_text(CONFIGURATION.format(
            program=program, d=self.directory, port=self.port, sink_port=sink_port, verify=callout, extra=extra,
            tls=f"tls_advertise_hosts = *\ntls_certificate = {tls[0]}\ntls_privatekey = {tls[1]}" if tls else "tls_advertise_hosts ="))
        self.command, ids = private_namespace(
            self.directory, ["Debian-exim"], [], [program, "-C", self.directory / "exim.conf", "-bdf", "-q30m"])
        for d in ("spool", "log"):
            (self.directory / d).mkdir()
            os.chown(self.directory / d, ids["Debian-exim"], ids["Debian-exim"])
        self.settings = "at most 300 sessions, no reverse look-ups, split spool, fsync as always" + (
            ", verify = recipient/callout=30s" if verify else "")

    def start(self):
        self.process = subprocess.Popen(self.command, env=self.environment, preexec_fn=self.group.enter, stderr=subprocess.DEVNULL)
        wait_for_port(self.port, self.name)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.group.remove()
