"""The gateways that a bench compares: each runs in a root of its own and in a cgroup of its own, from which its CPU time is read.

A peer has name, settings (what it was told, for the table), port, group, start() and stop()."""
from .base import BIN, ROOT, Cgroup, Unavailable, free_port, resident_bytes, wait_for_port  # noqa: F401
from .exim import Exim
from .haraka import Haraka
from .opensmtpd import OpenSMTPD
from .postern import Postern
from .postfix import Postfix

# name on the command line: the peers that it stands for, made with (directory, sink_port, **options)
PEERS = {
    "postfix": [lambda d, p, **o: Postfix(d, p, tuned=True, **o)],
    "postfix-packaged": [lambda d, p, **o: Postfix(d, p, tuned=False, **o)],
    "exim": [Exim],
    "haraka": [Haraka],
    "opensmtpd": [OpenSMTPD],
}


def make_peers(names, base, sink_port, notes, **options):
    """Those that can be had; why the others cannot goes to `notes`."""
    peers = []
    for name in names:
        for make in PEERS[name]:
            try:
                peers.append(make(base / name, sink_port, **options))
            except Unavailable as e:
                notes.append(f"{name}: left out: {e}")
    return peers
