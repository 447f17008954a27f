"""Postfix as Debian packages it, and tuned, in a root of its own (the programs are the system's)."""
import shutil
import subprocess
from pathlib import Path

from .base import Cgroup, Unavailable, free_port, wait_for_port

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
message_size_limit = 52428800
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
POSTFIX_VERIFY = """
smtpd_recipient_restrictions = reject_unauth_destination, reject_unverified_recipient
unverified_recipient_reject_code = 550
mynetworks = 127.0.0.2/32
address_verify_map = btree:$data_directory/verify_cache
smtpd_client_connection_rate_limit = 0
smtpd_recipient_limit = 10000
smtpd_recipient_overshoot_limit = 100000
smtpd_soft_error_limit = 100000
smtpd_hard_error_limit = 100000
smtpd_junk_command_limit = 100000
smtpd_error_sleep_time = 0
"""
POSTFIX_VERIFY_TUNED = """
address_verify_poll_delay = 1s
"""


class Postfix:
    def __init__(self, directory, sink_port, tuned=True, verify=False, tls=None, extra=""):
        if not shutil.which("postfix", path="/usr/sbin:/usr/bin"):
            raise Unavailable("postfix is not installed")
        self.name = "postfix tuned" if tuned else "postfix as packaged"
        self.directory, self.port, self.group = Path(directory), free_port(), Cgroup(self.name.replace(" ", "-"))
        self.etc = self.directory / "etc"
        self.etc.mkdir(parents=True)
        for p in ("spool", "lib"):
            (self.directory / p).mkdir()
        shutil.chown(self.directory / "lib", "postfix")
        text = POSTFIX_MAIN + (POSTFIX_TUNED if tuned else "")
        if verify:
            text += POSTFIX_VERIFY + (POSTFIX_VERIFY_TUNED if tuned else "")
        if tls:
            text += f"smtpd_tls_cert_file = {tls[0]}\nsmtpd_tls_key_file = {tls[1]}\nsmtpd_tls_security_level = may\n"
        text += extra
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
        if verify:
            self.settings += ", reject_unverified_recipient, limits on errors off" + (", address_verify_poll_delay 1s" if tuned else "")

    def start(self):
        subprocess.run(["postfix", "-c", self.etc, "start"], check=True, preexec_fn=self.group.enter, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        wait_for_port(self.port, self.name)

    def stop(self):
        subprocess.run(["postfix", "-c", self.etc, "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.group.remove()
