"""OpenSMTPD as Debian packages it, unpacked beside the system; paths that are compiled in are its own in a mount namespace."""
import os
import re
import shutil
import subprocess
from pathlib import Path

from .base import Cgroup, Unavailable, free_port, private_namespace, unpack, wait_for_port

CONFIGURATION = """
{pki}
listen on 127.0.0.1 port {port} hostname gw.example.com {options}
smtp max-message-size 50M
action "inside" relay host "smtp://127.0.0.1:{sink_port}"
match from any for domain "example.com" action "inside"
"""


def program():
    return unpack("opensmtpd") / "usr/sbin/smtpd"


def can_serve_tls():
    """6.8, of Debian 12, cannot with OpenSSL 3: no handshake ends well, whatever the key. As a client it can."""
    version = re.search(r"OpenSMTPD (\d+)", subprocess.run([program(), "-h"], capture_output=True, text=True).stderr)
    return not version or int(version[1]) >= 7


class OpenSMTPD:
    name = "opensmtpd"

    def __init__(self, directory, sink_port, verify=False, tls=None, extra=""):
        if verify:
            raise Unavailable("OpenSMTPD does not verify recipients")
        r = subprocess.run(["ldd", program()], capture_output=True, text=True)
        missing = [line.split()[0] for line in r.stdout.splitlines() if "not found" in line]
        if missing:
            raise Unavailable(f"OpenSMTPD needs {' '.join(missing)}")
        if tls and not can_serve_tls():
            raise Unavailable("this OpenSMTPD cannot serve TLS with OpenSSL 3")
        self.directory, self.port, self.group = Path(directory), free_port(), Cgroup("opensmtpd")
        d = self.directory
        for sub in ("spool", "empty", "run"):
            (d / sub).mkdir(parents=True)
        pki = ""
        if tls:
            shutil.copy(tls[1], d / "key.pem")
            os.chmod(d / "key.pem", 0o600)  # it refuses a key that others can read
            pki = f'pki gw.example.com cert "{tls[0]}"\npki gw.example.com key "{d}/key.pem"'
        options = f"{'tls pki gw.example.com' if tls else ''} {extra}"
        (d / "smtpd.conf").write_text(CONFIGURATION.format(port=self.port, sink_port=sink_port, pki=pki, options=options))
        (d / "mailname").write_text("gw.example.com\n")
        mounts = ["mount -t tmpfs tmpfs /var/spool", "mkdir /var/spool/smtpd", f"mount --bind {d}/spool /var/spool/smtpd",
                  "mount -t tmpfs tmpfs /var/lib", "mkdir -p /var/lib/opensmtpd/empty", "mount -t tmpfs tmpfs /run",
                  "chmod 711 /var/spool/smtpd /var/lib/opensmtpd/empty"]
        self.command, _ = private_namespace(d, ["opensmtpd", "opensmtpq"], mounts, [program(), "-d", "-f", d / "smtpd.conf"])
        os.chmod(d / "empty", 0o711)
        self.settings = "Debian's settings, fsync as always"

    def start(self):
        self.log = open(self.directory / "log", "wb")
        self.process = subprocess.Popen(self.command, preexec_fn=self.group.enter, stdout=self.log, stderr=self.log)
        wait_for_port(self.port, self.name)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.group.remove()
