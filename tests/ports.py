"""Ports for servers that a test, the demo or a bench starts.

They are taken from below the ephemeral range: a port that the kernel gave us a moment ago may by now be the near end of one of the
thousands of connections that the same test makes, and then the server cannot listen on it.

Whoever is given a port holds a lock on a file of that name until its process ends, so that runs side by side do not meet.
"""
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

LOCKS = Path(tempfile.gettempdir()) / f"postern-ports-{os.getuid()}"
given = {}


def reserve(port):
    f = open(LOCKS / str(port), "w")
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        f.close()
        return False
    given[port] = f
    return True


def free_port(address="127.0.0.1"):
    """A port on which nobody listens, and which no earlier call gave out, here or in a run beside this one."""
    LOCKS.mkdir(exist_ok=True)
    top = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = [p for p in range(max(1024, top - 20000), top) if p not in given] or range(1024, 65536)
    for port in random.sample(candidates, min(len(candidates), 1000)):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as s:
            try:
                s.bind((address, port))
            except OSError:
                continue
        if reserve(port):
            return port
    raise OSError(f"no free port on {address}")
