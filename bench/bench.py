"""./dev bench WHAT: Postern beside its peers, in the same run on the same machine. bench/README.md says how, and how to read it.

  relay      messages a second and CPU per message, by size and session length
  verify     recipients a second, cached and new; what the server behind sees
  idle       50,000 sessions that say nothing: memory and CPU of each
  tls        handshakes a second, mail in bulk through TLS
  mixed      a day's mix with verification and unknown recipients
  check      is a change slower than what is committed? Under three minutes; --update commits what is now
  queue      the ring alone: rate when it is full of deferred mail, write amplification, start with a million messages
  verdicts   the verdict cache alone: lookups/s, updates/s, bytes an entry, warm start
"""
import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import check
import idle_bench
import mixed_bench
import relay_bench
import tls_bench
import verify_bench
from peers import BIN, PEERS, ROOT
from queue_bench import queue

BENCHES = {"relay": relay_bench, "verify": verify_bench, "idle": idle_bench, "tls": tls_bench, "mixed": mixed_bench, "check": check}


def verdicts(args):
    """Lookups, updates, durable writes and the warm start of the verdict cache."""
    entries = 100_000 if args.quick else 1_000_000
    raise SystemExit(subprocess.run([BIN / "postern-bench-verdicts", str(entries), args.directory]).returncode)


def compare(what, args):
    """A bench with peers, in a directory of its own."""
    base = Path(tempfile.mkdtemp(prefix="bench-", dir=args.directory))
    base.chmod(0o755)  # peers work as users of their own
    args.peer = [] if args.no_peer else args.peer or BENCHES[what].PEERS_BY_DEFAULT
    try:
        getattr(BENCHES[what], what)(args, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="?", choices=[*BENCHES, "queue", "verdicts"])
    parser.add_argument("--check", action="store_const", dest="scenario", const="check", help="as check")
    parser.add_argument("--peer", action="append", choices=sorted(PEERS), help="may be given several times; default: those that matter and can be had")
    parser.add_argument("--no-peer", action="store_true", help="Postern alone")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, a fifth of the messages")
    parser.add_argument("--update", action="store_true", help="check: what is measured becomes what is committed")
    parser.add_argument("--only", help="scenarios whose title contains this")
    parser.add_argument("--results", default=str(ROOT / "build" / "bench"), help="where JSON and charts go")
    parser.add_argument("--directory", default=str(ROOT / "build"), help="where the spools are: a real disk")
    parser.add_argument("--json", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.scenario:
        parser.error(f"which one? {', '.join([*BENCHES, 'queue', 'verdicts'])}")
    if args.scenario in BENCHES:
        compare(args.scenario, args)
    else:
        {"queue": queue, "verdicts": verdicts}[args.scenario](args)


if __name__ == "__main__":
    main()
