"""What all peers need: ports, a cgroup of their own from which CPU time is read, packages unpacked beside the system's."""
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
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

    count = 0  # two peers of one kind may run at once

    def __init__(self, name):
        Cgroup.count += 1
        name = f"postern-bench-{os.getpid()}-{Cgroup.count}-{name}"
        if Path("/sys/fs/cgroup/cgroup.controllers").exists():
            self.path, self.v2 = Path("/sys/fs/cgroup") / name, True
        else:
            self.path, self.v2 = Path("/sys/fs/cgroup/cpuacct") / name, False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise SystemExit(f"bench: cannot make the cgroup {self.path} ({e.strerror}); run as root, with cgroups mounted")

    def processes(self):
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]

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
        """What is still in it is ended: all of it was started for this bench."""
        for turn in range(200):
            for pid in self.processes() if turn > 20 else []:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.05)


def resident_bytes(pids):
    """Memory of these processes, shared pages by their share."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass  # it ended meanwhile
    return total


class Unavailable(Exception):
    """A peer cannot be had here; the text says why."""


def unpack(*packages):
    """Debian packages, taken apart under build/peers instead of installed: mail servers exclude each other. Returns the root.

    Several tests at once may ask for the same: one does it, the others wait."""
    cache = ROOT / "build" / "peers"
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / packages[0]
    with open(cache / f"{packages[0]}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (root / "done").exists():
            return root
        shutil.rmtree(root, ignore_errors=True)
        (root / "deb").mkdir(parents=True)
        download(packages, root / "deb")
        for package in (root / "deb").glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, root], check=True)
        (root / "done").touch()
    return root


def download(packages, directory):
    for last in (False, True):
        r = subprocess.run(["apt-get", "download", *packages], cwd=directory, capture_output=True, text=True)
        if r.returncode == 0:
            return
        if last or subprocess.run(["apt-get", "update", "-qq"], capture_output=True).returncode:  # its lists may be of another day
            raise Unavailable(f"apt-get download {' '.join(packages)} failed: {r.stderr.strip().splitlines()[-1:]}")


def private_namespace(directory, users, mounts, command):
    """The command line that runs `command` with a mount namespace of its own: users that the system lacks, and `mounts`, shell lines."""
    passwd, group = directory / "passwd", directory / "group"
    have = Path("/etc/passwd").read_text()
    ids = {name: 64100 + i for i, name in enumerate(users)}
    add = [(n, i) for n, i in ids.items() if f"\n{n}:" not in have]
    passwd.write_text(have + "".join(f"{n}:x:{i}:{i}::/nonexistent:/usr/sbin/nologin\n" for n, i in add))
    group.write_text(Path("/etc/group").read_text() + "".join(f"{n}:x:{i}:\n" for n, i in add))
    script = [f"mount --bind {passwd} /etc/passwd", f"mount --bind {group} /etc/group", *mounts, 'exec "$@"']
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(script), "sh", *map(str, command)], ids
