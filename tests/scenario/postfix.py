"""A real Postfix in a root of its own: as the internal server behind the gateway, as the edge in front of it. Needs root, as Postfix does."""
import os
import shutil
import signal
import socketserver
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from conftest import accepts, eventually, free_port

POSTFIX = shutil.which("postfix", path="/usr/sbin:/usr/bin")
SETTINGS = {
    "compatibility_level": "3.6",
    "myhostname": "postfix.example.com",
    "command_directory": "/usr/sbin",
    "daemon_directory": "/usr/lib/postfix/sbin",
    "mail_owner": "postfix",
    "setgid_group": "postdrop",
    "inet_protocols": "ipv4",
    "mydestination": "",
    "alias_maps": "",
    "local_recipient_maps": "",
    "local_transport": "error:no local users",
    "smtp_dns_support_level": "disabled",
    "smtpd_peername_lookup": "no",
    "smtpd_client_connection_count_limit": "0",
    "smtp_tls_security_level": "none",
    "address_verify_poll_delay": "1s",  # the least; by default it looks three times, 3 s apart, and says 450 then
    "address_verify_poll_count": "30",
}


class Postfix:
    """settings: of main.cf. A value may name {d}, the root of this one."""

    def __init__(self, address, **settings):
        self.address, self.port = address, free_port(address)
        self.root = Path(tempfile.mkdtemp(prefix="postern-postfix-"))  # its users must get in; and socket names are short
        self.root.chmod(0o755)
        self.etc = self.root / "etc"
        for name in ("etc", "spool", "lib", "mail"):
            (self.root / name).mkdir()
        for name in ("lib", "mail"):
            shutil.chown(self.root / name, "postfix")
        self.settings = {
            **SETTINGS, "queue_directory": "{d}/spool", "data_directory": "{d}/lib", "maillog_file": "{d}/maillog", "maillog_file_prefixes": "{d}",
            "inet_interfaces": "127.0.0.1", "smtp_bind_address": address, "mynetworks": address, **settings}
        self.write_master()
        self.configure()
        self.start()

    def write_master(self):
        lines = []
        for line in Path("/usr/share/postfix/master.cf.dist").read_text().splitlines():
            fields = line.split()
            if fields[:2] == ["smtp", "inet"]:
                line = f"{self.address}:{self.port} inet n - n - - smtpd"
            elif len(fields) >= 8 and not line.startswith(("#", " ")):
                fields[4] = "n"  # not chrooted
                line = " ".join(fields)
            lines.append(line)
        (self.etc / "master.cf").write_text("\n".join(lines) + "\n")

    def configure(self, **settings):
        self.settings.update(settings)
        text = "".join(f"{k} = {v}\n" for k, v in self.settings.items())
        (self.etc / "main.cf").write_text(text.replace("{d}", str(self.root)))

    def command(self, *args):
        r = subprocess.run([POSTFIX, "-c", self.etc, *args], capture_output=True, text=True, timeout=60)
        assert r.returncode == 0, (r.stdout, r.stderr, self.log())

    def start(self):
        self.command("start")
        eventually(lambda: accepts(self.address, self.port), "Postfix listens")
        return self

    def master_pid(self):
        try:
            return int((self.root / "spool" / "pid" / "master.pid").read_text())
        except (OSError, ValueError):
            return 0

    def stop(self):
        """At once: the master leads a process group of its own."""
        pid = self.master_pid()
        if not pid:
            return
        os.killpg(pid, signal.SIGKILL)
        (self.root / "spool" / "pid" / "master.pid").unlink()
        eventually(lambda: not Path(f"/proc/{pid}").exists() and not accepts(self.address, self.port), "Postfix is gone")

    def kill(self):
        """For the fixture."""
        self.stop()

        def removed():
            shutil.rmtree(self.root, ignore_errors=True)  # a last child may still write
            return not self.root.exists()
        eventually(removed)

    def log(self):
        path = self.root / "maillog"
        return path.read_text(errors="replace") if path.exists() else ""

    def mail(self):
        """What its users got, by address."""
        found = {}
        for path in (self.root / "mail").glob("*/new/*"):
            found.setdefault(path.parent.parent.name, []).append(path.read_bytes())
        return found


def users(*addresses):
    """Settings for virtual mailboxes of example.com."""
    import pwd
    owner = pwd.getpwnam("postfix")
    return {
        "virtual_mailbox_domains": "example.com",
        "virtual_mailbox_maps": "inline:{ " + " ".join("{ " + f"{a} = {a}/" + " }" for a in addresses) + " }",
        "virtual_mailbox_base": "{d}/mail",
        "virtual_minimum_uid": "1",
        "virtual_uid_maps": f"static:{owner.pw_uid}",
        "virtual_gid_maps": f"static:{owner.pw_gid}",
    }


class Policy:
    """A policy service: `decide` gets the attributes of a recipient and returns the action."""

    def __init__(self, decide):
        outer = self
        self.seen, self.decide = [], decide

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                attributes = {}
                for line in self.rfile:
                    line = line.decode().rstrip("\n")
                    if line:
                        key, _, value = line.partition("=")
                        attributes[key] = value
                        continue
                    outer.seen.append(attributes)
                    self.wfile.write(f"action={outer.decide(attributes)}\n\n".encode())
                    attributes = {}

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        self.port = free_port()
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def kill(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def pause_until_second_is_over():
    """Postfix counts in whole seconds."""
    now = int(time.time())
    eventually(lambda: int(time.time()) > now + 1)
